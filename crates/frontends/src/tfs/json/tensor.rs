//! One value of the request into one tensor, in one pass.
//!
//! Owns: the fast reading of well-shaped values of the right dtype. Everything else is
//! [`Halt::Wrong`], and [`super::examine`] finds the words for it.
//! Invariant: what is read here, the examination finds nothing wrong with, and the other way round.

use std::sync::Arc;

use half::{bf16, f16};
use vesta_model::{DType, Shape, Status, StringsBuilder, Tensor};

use super::cursor::{Cursor, SyntaxError};
use super::scan::Value;
use super::text;
use crate::budget::Permit;

/// Why reading stopped.
#[derive(Debug)]
pub(super) enum Halt {
    /// The value does not make a tensor of the dtype.
    Wrong,
    /// Its bytes are not to be had.
    Refused(Status),
}

impl From<SyntaxError> for Halt {
    fn from(_: SyntaxError) -> Halt {
        Halt::Wrong
    }
}

/// Bytes are asked of the budget in steps of this size.
const STEP_BYTES: usize = 1 << 16;

/// Where elements go.
trait Sink {
    /// Reads the element at the cursor.
    fn push(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Halt>;
}

/// The sizes of the dimensions, found while reading: a level's size is known when its first list
/// ends, and all lists after that must agree.
#[derive(Debug, Default)]
struct Dims {
    sizes: Vec<Option<usize>>,
    /// Known with the first element.
    rank: Option<usize>,
    /// Elements so far of the lists that are open.
    counts: Vec<usize>,
}

impl Dims {
    fn open(&mut self) -> Result<(), Halt> {
        let level = self.counts.len();
        match self.rank {
            Some(rank) if level >= rank => return Err(Halt::Wrong),
            Some(_) => {}
            None if level >= Shape::RANK_MAX => return Err(Halt::Wrong),
            None => self.sizes.push(None),
        }
        self.counts.push(0);
        Ok(())
    }

    fn close(&mut self) -> Result<(), Halt> {
        let level = self.counts.len() - 1;
        let count = self.counts.pop().unwrap_or(0);
        // An empty first list fixes the rank as an element would.
        self.rank.get_or_insert(level + 1);
        match self.sizes[level] {
            None => self.sizes[level] = Some(count),
            Some(size) if size != count => return Err(Halt::Wrong),
            Some(_) => {}
        }
        Ok(())
    }

    #[inline(always)]
    fn leaf(&mut self) -> Result<(), Halt> {
        let level = self.counts.len();
        if *self.rank.get_or_insert(level) == level { Ok(()) } else { Err(Halt::Wrong) }
    }

    /// The sizes of the value that was read.
    fn take(&mut self) -> Vec<usize> {
        let sizes = self.sizes.drain(..).map(|size| size.unwrap_or(0)).collect();
        self.rank = None;
        self.counts.clear();
        sizes
    }
}

fn read<S: Sink>(cursor: &mut Cursor<'_>, dims: &mut Dims, sink: &mut S) -> Result<(), Halt> {
    loop {
        if cursor.peek() == b'[' {
            dims.open()?;
            cursor.skip(1);
            cursor.skip_space();
            if cursor.peek() != b']' {
                continue;
            }
            cursor.skip(1);
            dims.close()?;
        } else {
            dims.leaf()?;
            sink.push(cursor)?;
            if let Some(count) = dims.counts.last_mut() {
                // Most elements follow another one in the same list.
                let mut elements = 1;
                loop {
                    cursor.skip_space();
                    if !cursor.eat(b',') {
                        break;
                    }
                    cursor.skip_space();
                    if cursor.peek() == b'[' {
                        return Err(Halt::Wrong);
                    }
                    sink.push(cursor)?;
                    elements += 1;
                }
                *count += elements;
                if !cursor.eat(b']') {
                    return Err(Halt::Wrong);
                }
                dims.close()?;
            }
        }
        // A list or a lone element has ended.
        loop {
            let Some(count) = dims.counts.last_mut() else { return Ok(()) };
            *count += 1;
            cursor.skip_space();
            if cursor.eat(b',') {
                cursor.skip_space();
                break;
            }
            if !cursor.eat(b']') {
                return Err(Halt::Wrong);
            }
            dims.close()?;
        }
    }
}

/// Collects the elements of one tensor, value by value.
#[derive(Debug)]
pub(super) struct Builder<'p> {
    dtype: DType,
    bytes: Vec<u8>,
    strings: StringsBuilder,
    dims: Dims,
    tally: Tally<'p>,
}

/// Counts bytes and asks the budget for them in steps.
#[derive(Debug)]
struct Tally<'p> {
    permit: &'p mut Permit,
    owed: usize,
}

impl Tally<'_> {
    #[inline(always)]
    fn add(&mut self, bytes: usize) -> Result<(), Halt> {
        self.owed += bytes;
        if self.owed >= STEP_BYTES { self.settle() } else { Ok(()) }
    }

    #[cold]
    fn settle(&mut self) -> Result<(), Halt> {
        self.permit.grow(std::mem::take(&mut self.owed)).map_err(Halt::Refused)
    }
}

impl<'p> Builder<'p> {
    pub(super) fn new(dtype: DType, permit: &'p mut Permit) -> Builder<'p> {
        Builder {
            dtype,
            bytes: Vec::new(),
            strings: StringsBuilder::new(),
            dims: Dims::default(),
            tally: Tally { permit, owed: 0 },
        }
    }

    /// Reads `value`, appends its elements, and gives its sizes.
    pub(super) fn push(&mut self, value: Value<'_>) -> Result<Vec<usize>, Halt> {
        let mut cursor = Cursor::new(value.text);
        let sizes = self.push_next(&mut cursor)?;
        if cursor.at() == value.text.len() { Ok(sizes) } else { Err(Halt::Wrong) }
    }

    /// Reads the value at the cursor, which need not be well-formed, appends its elements, and gives
    /// its sizes.
    pub(super) fn push_next(&mut self, cursor: &mut Cursor<'_>) -> Result<Vec<usize>, Halt> {
        let Builder { dims, bytes, tally, .. } = self;
        match self.dtype {
            DType::String => read(cursor, dims, &mut Strings { strings: &mut self.strings, tally }),
            DType::F32 => read(cursor, dims, &mut Floats { bytes, tally }),
            DType::F64 => {
                let encode = |cursor: &mut Cursor<'_>| Ok(cursor.number()?.to_f64().to_le_bytes());
                read(cursor, dims, &mut Fixed { bytes, tally, encode })
            }
            DType::F16 => {
                let encode = |cursor: &mut Cursor<'_>| {
                    Ok(f16::from_f64(cursor.number()?.to_f64()).to_le_bytes())
                };
                read(cursor, dims, &mut Fixed { bytes, tally, encode })
            }
            DType::BF16 => {
                let encode = |cursor: &mut Cursor<'_>| {
                    Ok(bf16::from_f64(cursor.number()?.to_f64()).to_le_bytes())
                };
                read(cursor, dims, &mut Fixed { bytes, tally, encode })
            }
            // The original checks these against the range of 32 bits only, and wraps.
            DType::I32 => integers::<i32, 4>(cursor, dims, bytes, tally, |v| v.to_le_bytes()),
            DType::I16 => {
                integers::<i32, 2>(cursor, dims, bytes, tally, |v| (v as i16).to_le_bytes())
            }
            DType::I8 | DType::U8 => {
                integers::<i32, 1>(cursor, dims, bytes, tally, |v| (v as i8).to_le_bytes())
            }
            DType::I64 => integers::<i64, 8>(cursor, dims, bytes, tally, |v| v.to_le_bytes()),
            DType::U16 => integers::<u16, 2>(cursor, dims, bytes, tally, |v| v.to_le_bytes()),
            DType::U32 => integers::<u32, 4>(cursor, dims, bytes, tally, |v| v.to_le_bytes()),
            DType::U64 => integers::<u64, 8>(cursor, dims, bytes, tally, |v| v.to_le_bytes()),
            DType::Bool => {
                let encode = |cursor: &mut Cursor<'_>| {
                    let yes = cursor.peek() == b't';
                    cursor.literal(if yes { b"true" } else { b"false" })?;
                    Ok([u8::from(yes)])
                };
                read(cursor, dims, &mut Fixed { bytes, tally, encode })
            }
            _ => read(cursor, dims, &mut Nothing),
        }?;
        Ok(self.dims.take())
    }

    /// The tensor of all elements.
    pub(super) fn finish(mut self, sizes: Vec<usize>) -> Result<Tensor, Status> {
        if let Err(Halt::Refused(status)) = self.tally.settle() {
            return Err(status);
        }
        let shape = Shape::new(sizes)?;
        match self.dtype {
            DType::String => Tensor::of_strings(shape, &self.strings),
            dtype => Tensor::whole(dtype, shape, Arc::new(self.bytes)),
        }
    }
}

/// Floats, the one dtype that most large requests are of.
struct Floats<'b, 'p> {
    bytes: &'b mut Vec<u8>,
    tally: &'b mut Tally<'p>,
}

impl Sink for Floats<'_, '_> {
    #[inline(always)]
    fn push(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Halt> {
        let number = cursor.number()?;
        self.bytes.extend_from_slice(&number.to_f32().to_le_bytes());
        self.tally.add(4)
    }
}

/// Elements of a fixed width.
struct Fixed<'b, 'p, F> {
    bytes: &'b mut Vec<u8>,
    tally: &'b mut Tally<'p>,
    encode: F,
}

impl<F, const N: usize> Sink for Fixed<'_, '_, F>
where
    F: FnMut(&mut Cursor<'_>) -> Result<[u8; N], Halt>,
{
    #[inline(always)]
    fn push(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Halt> {
        self.bytes.extend_from_slice(&(self.encode)(cursor)?);
        self.tally.add(N)
    }
}

fn integers<T: TryFrom<i128>, const N: usize>(
    cursor: &mut Cursor<'_>,
    dims: &mut Dims,
    bytes: &mut Vec<u8>,
    tally: &mut Tally<'_>,
    to_bytes: impl Fn(T) -> [u8; N],
) -> Result<(), Halt> {
    let encode = |cursor: &mut Cursor<'_>| {
        let integer = cursor.number()?.integer().and_then(|value| T::try_from(value).ok());
        integer.map(&to_bytes).ok_or(Halt::Wrong)
    };
    read(cursor, dims, &mut Fixed { bytes, tally, encode })
}

struct Strings<'b, 'p> {
    strings: &'b mut StringsBuilder,
    tally: &'b mut Tally<'p>,
}

impl Sink for Strings<'_, '_> {
    fn push(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Halt> {
        let bytes = match cursor.peek() {
            b'"' => cursor.string()?.unescaped(),
            b'{' => {
                let start = cursor.at();
                super::scan::skip_value(cursor)?;
                let object = Value { text: cursor.since(start) };
                let text = object.as_base64().ok_or(Halt::Wrong)?;
                text::decode_base64(&text.unescaped()).ok_or(Halt::Wrong)?.into()
            }
            _ => return Err(Halt::Wrong),
        };
        self.strings.push(&bytes);
        self.tally.add(bytes.len() + size_of::<u64>())
    }
}

/// For dtypes that JSON has no elements of; their tensors can only be empty.
struct Nothing;

impl Sink for Nothing {
    fn push(&mut self, _: &mut Cursor<'_>) -> Result<(), Halt> {
        Err(Halt::Wrong)
    }
}

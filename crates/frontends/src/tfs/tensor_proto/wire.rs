//! The tensor message as it lies in the request: lists of values stay bytes.
//!
//! Owns: reading the fields without turning them into Rust lists. May not know: what dtype the
//! values are wanted in.
//! Invariant: every chunk is a whole number of well-formed values of its field, and a view of the
//! received buffer unless its values were sent one by one.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::encoding::{self, DecodeContext, WireType};
use prost::{DecodeError, Message};
use vesta_model::{DType, Shape};

use super::Field;
use crate::tfs::texts::Texts;

/// The longest varint.
const VARINT_BYTES_MAX: usize = 10;

/// A received tensor message.
#[derive(Clone, Debug, Default)]
pub(crate) struct TensorWire {
    /// The dtype's number.
    pub(super) dtype: i32,
    pub(super) shape: ShapeWire,
    /// Raw bytes of all elements.
    pub(super) content: Bytes,
    /// The strings that were sent as such.
    pub(super) texts: Texts,
    /// What was sent in the fields of other values, in order: one chunk per list.
    chunks: Vec<(u32, Bytes)>,
    /// Values of one field that were sent one by one, and wait to become a chunk.
    singles: Option<(u32, BytesMut)>,
    malformed: bool,
}

/// A received shape: sizes alone, and no more of them than a tensor can have.
#[derive(Clone, Debug, Default)]
pub(super) struct ShapeWire {
    sizes: Vec<i64>,
    too_many: bool,
}

impl ShapeWire {
    /// The shape; without sizes that of a scalar, also when the rank is said to be unknown.
    pub(super) fn shape(&self) -> Option<Shape> {
        if self.too_many {
            return None;
        }
        let sizes: Option<Vec<usize>> =
            self.sizes.iter().map(|&size| usize::try_from(size).ok()).collect();
        Shape::new(sizes?).ok()
    }
}

/// One size of a shape.
#[derive(Clone, Copy, PartialEq, Message)]
struct DimWire {
    #[prost(int64, tag = "1")]
    size: i64,
}

impl TensorWire {
    /// Whether a list of values was broken off, which makes the whole request unreadable.
    pub(crate) fn is_malformed(&self) -> bool {
        self.malformed
    }

    /// Bytes of the tensor that this becomes, counting a text by its offset alone; 0 for no tensor. May be
    /// far more than was sent, since a shape may ask for any number of copies of a value.
    pub(crate) fn expanded_bytes(&self) -> usize {
        let width = DType::from_number(self.dtype).and_then(DType::width);
        let count = self.shape.shape().map_or(0, |shape| shape.elements());
        // A text takes an offset at least.
        count.saturating_mul(width.unwrap_or(size_of::<u64>()))
    }

    /// The chunks of one field, in order.
    pub(super) fn chunks(&self, field: Field) -> impl Iterator<Item = Bytes> + '_ {
        let number = field.number();
        let singles = self
            .singles
            .iter()
            .filter(move |(of, _)| *of == number)
            .map(|(_, values)| Bytes::copy_from_slice(values));
        self.chunks
            .iter()
            .filter(move |(of, _)| *of == number)
            .map(|(_, chunk)| chunk.clone())
            .chain(singles)
    }

    /// Takes a list of values, or one text.
    fn push_chunk(&mut self, field: Field, chunk: Bytes) {
        self.flush();
        match field {
            Field::Text => return self.texts.push(&chunk),
            // Not a list: the last one counts.
            Field::Float8 => self.chunks.retain(|(of, _)| *of != field.number()),
            _ => {
                let whole = match field.fixed_width() {
                    Some(width) => chunk.len().is_multiple_of(width),
                    None => varints_are_whole(&chunk),
                };
                self.malformed |= !whole;
            }
        }
        if !chunk.is_empty() {
            self.chunks.push((field.number(), chunk));
        }
    }

    /// Takes one value that came without a list around it, as older writers send them.
    fn push_single(&mut self, field: Field, value: &[u8]) {
        if self.singles.as_ref().is_some_and(|(of, _)| *of != field.number()) {
            self.flush();
        }
        self.singles
            .get_or_insert_with(|| (field.number(), BytesMut::new()))
            .1
            .extend_from_slice(value);
    }

    fn flush(&mut self) {
        if let Some((field, values)) = self.singles.take() {
            self.chunks.push((field, values.freeze()));
        }
    }

    fn merge_value(
        &mut self,
        field: Field,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        match (wire_type, field.fixed_width(), field) {
            (WireType::LengthDelimited, ..) => {
                let mut chunk = Bytes::new();
                encoding::bytes::merge(wire_type, &mut chunk, buf, ctx)?;
                self.push_chunk(field, chunk);
            }
            (WireType::ThirtyTwoBit, Some(4), _) => {
                let mut value = 0u32;
                encoding::fixed32::merge(wire_type, &mut value, buf, ctx)?;
                self.push_single(field, &value.to_le_bytes());
            }
            (WireType::SixtyFourBit, Some(8), _) => {
                let mut value = 0u64;
                encoding::fixed64::merge(wire_type, &mut value, buf, ctx)?;
                self.push_single(field, &value.to_le_bytes());
            }
            (WireType::Varint, None, kind) if kind != Field::Text && kind != Field::Float8 => {
                let mut value = 0u64;
                encoding::uint64::merge(wire_type, &mut value, buf, ctx)?;
                let mut bytes = [0u8; VARINT_BYTES_MAX];
                let mut rest = &mut bytes[..];
                encoding::encode_varint(value, &mut rest);
                let len = VARINT_BYTES_MAX - rest.len();
                self.push_single(field, &bytes[..len]);
            }
            (_, _, field) => encoding::skip_field(wire_type, field.number(), buf, ctx)?,
        }
        Ok(())
    }
}

/// Only ever read; what is written is [`super::Encoded`].
impl Message for TensorWire {
    fn encode_raw(&self, _: &mut impl BufMut) {}

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        match (tag, wire_type) {
            (1, WireType::Varint) => encoding::int32::merge(wire_type, &mut self.dtype, buf, ctx),
            (2, WireType::LengthDelimited) => {
                encoding::message::merge(wire_type, &mut self.shape, buf, ctx)
            }
            (4, WireType::LengthDelimited) => {
                encoding::bytes::merge(wire_type, &mut self.content, buf, ctx)
            }
            _ => match Field::from_number(tag) {
                Some(field) => self.merge_value(field, wire_type, buf, ctx),
                None => encoding::skip_field(wire_type, tag, buf, ctx),
            },
        }
    }

    fn encoded_len(&self) -> usize {
        0
    }

    fn clear(&mut self) {
        *self = TensorWire::default();
    }
}

/// Only ever read, as well.
impl Message for ShapeWire {
    fn encode_raw(&self, _: &mut impl BufMut) {}

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        if (tag, wire_type) != (2, WireType::LengthDelimited) {
            return encoding::skip_field(wire_type, tag, buf, ctx);
        }
        let mut dim = DimWire::default();
        encoding::message::merge(wire_type, &mut dim, buf, ctx)?;
        if self.sizes.len() < Shape::RANK_MAX {
            self.sizes.push(dim.size);
        } else {
            self.too_many = true;
        }
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        0
    }

    fn clear(&mut self) {
        *self = ShapeWire::default();
    }
}

/// Whether `bytes` are varints and nothing else.
fn varints_are_whole(bytes: &[u8]) -> bool {
    let mut run = 0;
    for &byte in bytes {
        if byte & 0x80 == 0 {
            run = 0;
        } else {
            run += 1;
            if run == VARINT_BYTES_MAX {
                return false;
            }
        }
    }
    run == 0
}

/// The varints in `bytes`, which are known to be whole.
pub(super) fn varints(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    let mut rest = bytes.iter();
    std::iter::from_fn(move || {
        let mut value = 0u64;
        let mut shift = 0;
        for &byte in rest.by_ref() {
            // Bits above the 64th are lost, as everywhere.
            if shift < u64::BITS {
                value |= u64::from(byte & 0x7f) << shift;
            }
            if byte & 0x80 == 0 {
                return Some(value);
            }
            shift += 7;
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_the_tensor_is_told_from_the_shape() {
        let wire = |dtype: i32, sizes: &[i64]| TensorWire {
            dtype,
            shape: ShapeWire { sizes: sizes.to_vec(), too_many: false },
            ..TensorWire::default()
        };
        let bytes = |dtype: DType, sizes: &[i64]| wire(dtype.number(), sizes).expanded_bytes();
        assert_eq!(bytes(DType::F32, &[1000, 1000]), 4_000_000);
        assert_eq!(bytes(DType::Bool, &[]), 1);
        assert_eq!(bytes(DType::String, &[1 << 30]), 8 << 30);
        assert_eq!(bytes(DType::F64, &[1 << 31, 1 << 31]), usize::MAX);
        assert_eq!(bytes(DType::F32, &[1 << 40, 0]), 0);
        assert_eq!(bytes(DType::F32, &[-1]), 0, "no tensor comes of it");
        assert_eq!(wire(999, &[100]).expanded_bytes(), 800);
    }

    #[test]
    fn varints_are_checked_and_read() {
        assert!(varints_are_whole(&[]));
        assert!(varints_are_whole(&[0, 0xff, 1]));
        assert!(!varints_are_whole(&[0x80]));
        assert!(varints_are_whole(&[[0xff; 9].as_slice(), &[1]].concat()));
        assert!(!varints_are_whole(&[[0xff; 10].as_slice(), &[1]].concat()));
        let minus_one = [[0xff; 9].as_slice(), &[1]].concat();
        assert_eq!(varints(&minus_one).collect::<Vec<_>>(), [u64::MAX]);
        assert_eq!(varints(&[0xac, 2, 7]).collect::<Vec<_>>(), [300, 7]);
    }
}

//! Typed reading and writing of tensors for kernels on the host.
//!
//! May not know: any operator. Invariant: nothing here makes a tensor of more than
//! [`BYTES_MAX`] bytes, so a number in a request cannot take the machine's memory.

use std::borrow::Cow;
use std::sync::Arc;

use bytemuck::NoUninit;
use half::{bf16, f16};
use vesta_model::{DType, Element, Memory, Shape, Status, StringsBuilder, StringsView, Tensor};

/// The most bytes that one tensor made on the host may take.
pub(crate) const BYTES_MAX: usize = 1 << 30;

/// Elements as memory of a tensor, without a copy.
struct Owned<T>(Vec<T>);

impl<T: NoUninit + Send + Sync> Memory for Owned<T> {
    fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

/// A tensor over `values`, which are not copied.
///
/// # Errors
/// `INVALID_ARGUMENT` when there are not as many values as the shape says.
pub(crate) fn tensor<T: Element + Send + Sync>(
    shape: Shape,
    values: Vec<T>,
) -> Result<Tensor, Status> {
    Tensor::whole(T::DTYPE, shape, Arc::new(Owned(values)))
}

/// A boolean tensor over `values`.
///
/// # Errors
/// As [`tensor`].
pub(crate) fn booleans(shape: Shape, values: &[bool]) -> Result<Tensor, Status> {
    Tensor::of_bools(shape, values)
}

/// The elements, in place if they are aligned.
///
/// # Errors
/// `INTERNAL` when the dtype is another, which the partition of the graph rules out.
pub(crate) fn elements<T: Element>(tensor: &Tensor) -> Result<Cow<'_, [T]>, Status> {
    if let Some(slice) = tensor.as_slice::<T>() {
        return Ok(Cow::Borrowed(slice));
    }
    tensor.to_vec::<T>().map(Cow::Owned).ok_or_else(|| {
        Status::internal(format!("a kernel for {} was given {}", T::DTYPE, tensor.dtype()))
    })
}

/// The bytes of a boolean tensor.
///
/// # Errors
/// `INTERNAL` when the dtype is another.
pub(crate) fn truths(tensor: &Tensor) -> Result<&[u8], Status> {
    if tensor.dtype() == DType::Bool {
        return Ok(tensor.bytes());
    }
    Err(Status::internal(format!("a kernel for bool was given {}", tensor.dtype())))
}

/// The values of a small int32 or int64 tensor, such as axes or sizes.
///
/// # Errors
/// `INVALID_ARGUMENT` when the dtype is another.
pub(crate) fn integers(tensor: &Tensor) -> Result<Vec<i64>, Status> {
    match tensor.dtype() {
        DType::I32 => Ok(elements::<i32>(tensor)?.iter().map(|&value| i64::from(value)).collect()),
        DType::I64 => Ok(elements::<i64>(tensor)?.into_owned()),
        dtype => Err(Status::invalid_argument(format!("expected int32 or int64, not {dtype}"))),
    }
}

/// The one value of an int32 or int64 tensor.
///
/// # Errors
/// `INVALID_ARGUMENT` when there is not exactly one.
pub(crate) fn integer(tensor: &Tensor, what: &str) -> Result<i64, Status> {
    match integers(tensor)?[..] {
        [value] => Ok(value),
        _ => Err(Status::invalid_argument(format!(
            "{what} must be a scalar, but got shape {}",
            tensor.shape()
        ))),
    }
}

/// `axis` counted from the front, for a tensor of `rank` dimensions.
pub(crate) fn axis_of(axis: i64, rank: usize) -> Option<usize> {
    let rank = i64::try_from(rank).ok()?;
    let axis = if axis < 0 { axis + rank } else { axis };
    (0..rank).contains(&axis).then(|| usize::try_from(axis).ok())?
}

/// A shape of these sizes, if a tensor of it may be made on the host.
///
/// # Errors
/// `INVALID_ARGUMENT` for impossible sizes, `RESOURCE_EXHAUSTED` for too large ones.
pub(crate) fn bounded_shape(dims: Vec<usize>, dtype: DType) -> Result<Shape, Status> {
    let shape = Shape::new(dims)?;
    let bytes = shape.bytes(dtype.width().unwrap_or(size_of::<u64>()))?;
    if bytes > BYTES_MAX {
        return Err(Status::resource_exhausted(format!(
            "a tensor of shape {shape} and dtype {dtype} takes more than {BYTES_MAX} bytes"
        )));
    }
    Ok(shape)
}

/// The values of a half or bfloat16 tensor as float.
///
/// # Errors
/// `INTERNAL` when the dtype is another.
pub(crate) fn widened(tensor: &Tensor) -> Result<Tensor, Status> {
    let bits = bytemuck::pod_collect_to_vec::<u8, u16>(tensor.bytes());
    let values: Vec<f32> = match tensor.dtype() {
        DType::F16 => bits.iter().map(|&bits| f16::from_bits(bits).to_f32()).collect(),
        DType::BF16 => bits.iter().map(|&bits| bf16::from_bits(bits).to_f32()).collect(),
        dtype => return Err(Status::internal(format!("{dtype} is not a short float"))),
    };
    self::tensor(tensor.shape().clone(), values)
}

/// The values of a float tensor rounded to half or bfloat16.
///
/// # Errors
/// `INTERNAL` when the dtypes are others.
pub(crate) fn narrowed(tensor: &Tensor, dtype: DType) -> Result<Tensor, Status> {
    let values = elements::<f32>(tensor)?;
    let bits: Vec<u16> = match dtype {
        DType::F16 => values.iter().map(|&value| f16::from_f32(value).to_bits()).collect(),
        DType::BF16 => values.iter().map(|&value| bf16::from_f32(value).to_bits()).collect(),
        dtype => return Err(Status::internal(format!("{dtype} is not a short float"))),
    };
    Tensor::whole(dtype, tensor.shape().clone(), Arc::new(Owned(bits)))
}

/// Elements of any dtype, to be copied in runs.
pub(crate) enum Source<'a> {
    Bytes { bytes: &'a [u8], width: usize },
    Strings(StringsView<'a>),
}

impl<'a> Source<'a> {
    /// # Errors
    /// `UNIMPLEMENTED` for dtypes that have no layout in memory.
    pub(crate) fn of(tensor: &'a Tensor) -> Result<Source<'a>, Status> {
        match (tensor.strings(), tensor.dtype().width()) {
            (Some(strings), _) => Ok(Source::Strings(strings)),
            (None, Some(width)) => Ok(Source::Bytes { bytes: tensor.bytes(), width }),
            (None, None) => {
                Err(Status::unimplemented(format!("{} cannot be copied", tensor.dtype())))
            }
        }
    }
}

/// A tensor of any dtype in the making, filled run by run.
pub(crate) enum Assembler {
    Bytes(Vec<u8>),
    Strings { builder: StringsBuilder },
}

impl Assembler {
    pub(crate) fn new(dtype: DType, elements: usize) -> Assembler {
        match dtype.width() {
            Some(width) => Assembler::Bytes(Vec::with_capacity((elements * width).min(BYTES_MAX))),
            None => Assembler::Strings { builder: StringsBuilder::new() },
        }
    }

    /// Appends `count` elements of `source` from `start`.
    ///
    /// # Errors
    /// `INTERNAL` when they lie outside, `RESOURCE_EXHAUSTED` when strings grow too large.
    pub(crate) fn append(
        &mut self,
        source: &Source<'_>,
        start: usize,
        count: usize,
    ) -> Result<(), Status> {
        let outside = || Status::internal("a kernel read outside its input");
        match (self, source) {
            (Assembler::Bytes(to), Source::Bytes { bytes, width }) => {
                let run = bytes.get(start * width..(start + count) * width);
                to.extend_from_slice(run.ok_or_else(outside)?);
            }
            (Assembler::Strings { builder }, Source::Strings(strings)) => {
                for index in start..start + count {
                    builder.push(strings.get(index).ok_or_else(outside)?);
                }
                if builder.payload_bytes() > BYTES_MAX {
                    return Err(Status::resource_exhausted(format!(
                        "a string tensor takes more than {BYTES_MAX} bytes"
                    )));
                }
            }
            _ => return Err(Status::internal("a kernel mixed strings with other values")),
        }
        Ok(())
    }

    /// The finished tensor.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when not as many elements came as the shape says.
    pub(crate) fn finish(self, dtype: DType, shape: Shape) -> Result<Tensor, Status> {
        match self {
            Assembler::Bytes(bytes) => Tensor::whole(dtype, shape, Arc::new(bytes)),
            Assembler::Strings { builder } => Tensor::of_strings(shape, &builder),
        }
    }
}

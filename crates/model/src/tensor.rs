//! A tensor: dtype, shape and a range of some memory.
//!
//! Invariant: the range holds exactly what dtype and shape say (for strings, a valid layout of
//! `shape.elements()` strings), checked when the tensor is made.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytemuck::{NoUninit, Pod};

use crate::{AlignedBytes, DType, Memory, Shape, Status, StringsBuilder, StringsView};

/// Rust types that are the elements of one dtype.
pub trait Element: Pod {
    /// The dtype whose elements these are.
    const DTYPE: DType;
}

macro_rules! elements {
    ($($rust:ty => $dtype:ident),* $(,)?) => {
        $(impl Element for $rust { const DTYPE: DType = DType::$dtype; })*
    };
}

elements!(
    f32 => F32, f64 => F64, i8 => I8, i16 => I16, i32 => I32, i64 => I64,
    u8 => U8, u16 => U16, u32 => U32, u64 => U64,
);

/// Values of one dtype in a dense row-major block.
#[derive(Clone)]
pub struct Tensor {
    dtype: DType,
    shape: Shape,
    memory: Arc<dyn Memory>,
    range: Range<usize>,
}

impl Tensor {
    /// A tensor over `range` of `memory`, little-endian and row-major. The bytes need not be
    /// aligned.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when the range is outside the memory or not as long as dtype and shape
    /// say, or the dtype has no layout in memory.
    pub fn new(
        dtype: DType,
        shape: Shape,
        memory: Arc<dyn Memory>,
        range: Range<usize>,
    ) -> Result<Tensor, Status> {
        let Some(bytes) = memory.bytes().get(range.clone()) else {
            return Err(Status::internal(format!(
                "bytes {range:?} of a tensor lie outside its memory of {} bytes",
                memory.bytes().len()
            )));
        };
        if dtype == DType::String {
            StringsView::new(bytes, shape.elements())?;
        } else {
            let width = dtype.width().ok_or_else(|| {
                Status::invalid_argument(format!(
                    "a tensor of dtype {dtype} cannot be held in memory"
                ))
            })?;
            let want = shape.bytes(width)?;
            if bytes.len() != want {
                return Err(Status::invalid_argument(format!(
                    "a tensor of dtype {dtype} and shape {shape} takes {want} bytes, not {}",
                    bytes.len()
                )));
            }
        }
        Ok(Tensor { dtype, shape, memory, range })
    }

    /// A tensor over all of `memory`.
    ///
    /// # Errors
    /// As [`Tensor::new`].
    pub fn whole(dtype: DType, shape: Shape, memory: Arc<dyn Memory>) -> Result<Tensor, Status> {
        let range = 0..memory.bytes().len();
        Tensor::new(dtype, shape, memory, range)
    }

    /// A copy of `values`.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when there are not as many values as the shape says.
    pub fn of<T: Element>(shape: Shape, values: &[T]) -> Result<Tensor, Status> {
        Tensor::copied(T::DTYPE, shape, bytemuck::cast_slice(values))
    }

    /// A copy of `bytes`, little-endian and row-major.
    ///
    /// # Errors
    /// As [`Tensor::new`].
    pub fn copied(dtype: DType, shape: Shape, bytes: &[u8]) -> Result<Tensor, Status> {
        Tensor::whole(dtype, shape, Arc::new(AlignedBytes::copy_of(bytes)))
    }

    /// A boolean tensor.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when there are not as many values as the shape says.
    pub fn of_bools(shape: Shape, values: &[bool]) -> Result<Tensor, Status> {
        let bytes: Vec<u8> = values.iter().map(|&value| u8::from(value)).collect();
        Tensor::copied(DType::Bool, shape, &bytes)
    }

    /// A string tensor.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when there are not as many strings as the shape says.
    pub fn of_strings(shape: Shape, strings: &StringsBuilder) -> Result<Tensor, Status> {
        if strings.len() != shape.elements() {
            return Err(Status::invalid_argument(format!(
                "a tensor of shape {shape} holds {} strings, not {}",
                shape.elements(),
                strings.len()
            )));
        }
        Tensor::whole(DType::String, shape, Arc::new(strings.finish()))
    }

    /// The dtype.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The shape.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The bytes: elements row-major, or the string layout.
    pub fn bytes(&self) -> &[u8] {
        &self.memory.bytes()[self.range.clone()]
    }

    /// The same bytes under another shape with as many elements.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when the number of elements differs.
    pub fn reshaped(&self, shape: Shape) -> Result<Tensor, Status> {
        if shape.elements() != self.shape.elements() {
            return Err(Status::invalid_argument(format!(
                "a tensor of shape {} cannot take shape {shape}",
                self.shape
            )));
        }
        Ok(Tensor { shape, ..self.clone() })
    }

    /// The same bytes read as another dtype of the same width, such as `I32` as `QI32`.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when the widths differ.
    pub fn relabelled(&self, dtype: DType) -> Result<Tensor, Status> {
        if self.dtype.width().is_none() || dtype.width() != self.dtype.width() {
            return Err(Status::invalid_argument(format!(
                "{} cannot be read as {dtype}",
                self.dtype
            )));
        }
        Ok(Tensor { dtype, ..self.clone() })
    }

    /// The rows `rows` of the first dimension, in the same memory; strings are copied.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a scalar and for rows that it does not have.
    pub fn rows(&self, rows: Range<usize>) -> Result<Tensor, Status> {
        let mut dims = self.shape.dims().to_vec();
        let Some(first) =
            dims.first_mut().filter(|first| rows.start <= rows.end && rows.end <= **first)
        else {
            return Err(Status::invalid_argument(format!(
                "a tensor of shape {} has no rows {rows:?}",
                self.shape
            )));
        };
        if rows == (0..*first) {
            return Ok(self.clone());
        }
        *first = rows.len();
        let row_elements: usize = dims.iter().skip(1).product();
        let shape = Shape::new(dims)?;
        let elements = rows.start * row_elements..rows.end * row_elements;
        if let Some(strings) = self.strings() {
            let mut some = StringsBuilder::new();
            elements.filter_map(|index| strings.get(index)).for_each(|text| some.push(text));
            return Tensor::of_strings(shape, &some);
        }
        let width = self.dtype.width().unwrap_or_default();
        let start = self.range.start + elements.start * width;
        let range = start..start + elements.len() * width;
        Ok(Tensor { dtype: self.dtype, shape, memory: Arc::clone(&self.memory), range })
    }

    /// The elements in place, when the dtype is `T`'s and the bytes are aligned for it.
    pub fn as_slice<T: Element>(&self) -> Option<&[T]> {
        (self.dtype == T::DTYPE).then(|| bytemuck::try_cast_slice(self.bytes()).ok()).flatten()
    }

    /// A copy of the elements, aligned or not; `None` when the dtype is not `T`'s.
    pub fn to_vec<T: Element + NoUninit>(&self) -> Option<Vec<T>> {
        (self.dtype == T::DTYPE).then(|| bytemuck::pod_collect_to_vec(self.bytes()))
    }

    /// The strings; `None` when the dtype is another.
    pub fn strings(&self) -> Option<StringsView<'_>> {
        if self.dtype != DType::String {
            return None;
        }
        StringsView::new(self.bytes(), self.shape.elements()).ok()
    }

    /// Bytes that the strings take without their offsets; 0 for other dtypes.
    pub fn string_payload_bytes(&self) -> usize {
        if self.dtype == DType::String {
            self.bytes().len() - (self.shape.elements() + 1) * size_of::<u64>()
        } else {
            0
        }
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({} {}, {} bytes)", self.dtype, self.shape, self.bytes().len())
    }
}

/// Equal dtype, shape and bytes; NaN equals itself bit by bit.
impl PartialEq for Tensor {
    fn eq(&self, other: &Tensor) -> bool {
        if self.dtype != other.dtype || self.shape != other.shape {
            return false;
        }
        match (self.strings(), other.strings()) {
            (Some(a), Some(b)) => a.iter().eq(b.iter()),
            _ => self.bytes() == other.bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_must_match_dtype_and_shape() {
        let shape = Shape::new(vec![2, 3]).unwrap();
        assert!(Tensor::of(shape.clone(), &[0f32; 6]).is_ok());
        assert!(Tensor::of(shape.clone(), &[0f32; 5]).is_err());
        assert!(Tensor::copied(DType::Variant, Shape::scalar(), &[]).is_err());
        assert!(Tensor::copied(DType::String, shape, &[0; 8]).is_err());
    }

    #[test]
    fn unaligned_bytes_are_read_by_copy() {
        let mut bytes = AlignedBytes::zeroed(9);
        bytes.bytes_mut()[1..9].copy_from_slice(&[0, 0, 128, 63, 0, 0, 0, 64]);
        let tensor = Tensor::new(DType::F32, Shape::vector(2), Arc::new(bytes), 1..9).unwrap();
        assert_eq!(tensor.as_slice::<f32>(), None);
        assert_eq!(tensor.to_vec::<f32>(), Some(vec![1.0, 2.0]));
        assert_eq!(tensor.to_vec::<i32>(), None);
    }

    #[test]
    fn rows_are_views_of_the_same_memory() {
        let tensor = Tensor::of(Shape::new(vec![3, 2]).unwrap(), &[1i32, 2, 3, 4, 5, 6]).unwrap();
        let some = tensor.rows(1..3).unwrap();
        assert_eq!(some.shape().dims(), [2, 2]);
        assert_eq!(some.to_vec::<i32>(), Some(vec![3, 4, 5, 6]));
        assert_eq!(some.bytes().as_ptr(), tensor.bytes()[8..].as_ptr());
        assert_eq!(some.rows(1..1).unwrap().shape().dims(), [0, 2]);
        assert!(tensor.rows(2..4).is_err());
        assert!(Tensor::of(Shape::scalar(), &[1i32]).unwrap().rows(0..0).is_err());
        let mut strings = StringsBuilder::new();
        ["a", "bb", ""].iter().for_each(|text| strings.push(text.as_bytes()));
        let strings = Tensor::of_strings(Shape::vector(3), &strings).unwrap();
        let some = strings.rows(1..3).unwrap();
        assert!(some.strings().unwrap().iter().eq([&b"bb"[..], b""]));
    }

    #[test]
    fn strings_are_read_back() {
        let mut builder = StringsBuilder::new();
        builder.push(b"a");
        builder.push(b"");
        builder.push(&[0xff, 0]);
        let tensor = Tensor::of_strings(Shape::vector(3), &builder).unwrap();
        assert_eq!(tensor.strings().unwrap().get(2), Some(&[0xff, 0][..]));
        assert_eq!(tensor.string_payload_bytes(), 3);
        assert!(Tensor::of_strings(Shape::vector(2), &builder).is_err());
    }
}

//! What is known of the values of a file, and its constants.
//!
//! May not know: operators. Invariant: a constant's bytes fit its shape; what is said of the elements or
//! the range of whole numbers holds in every run.

use std::rc::Rc;

use vesta_model::DType;
use vesta_protos::onnx::TensorProto;

use super::extent::Extent;

/// ONNX's numbers of the dtypes that are read.
pub(super) const FLOAT: i32 = 1;
pub(super) const INT32: i32 = 6;
pub(super) const INT64: i32 = 7;
pub(super) const BOOL: i32 = 9;

/// Whole numbers up to this many are followed one by one.
pub(super) const ELEMENTS_MAX: usize = 1024;

/// As many floats, of which scales and sizes are made.
const FLOATS_MAX: usize = 64;

/// Up to this size a float holds every whole number.
pub(super) const WHOLE_FLOAT_MAX: i64 = 1 << 24;

pub(super) type Dims = Vec<Extent>;

/// The least and the greatest of whole numbers.
pub(super) type Range = (i64, i64);

/// All that the numeric graph holds.
pub(super) const INT32_RANGE: Range = (i32::MIN as i64, i32::MAX as i64);

/// What is known of one value.
#[derive(Clone, Debug)]
pub(super) struct Fact {
    pub(super) dtype: DType,
    pub(super) dims: Dims,
    /// Where each is a whole number or a truth that is known up to open sizes; of floats, too.
    pub(super) elements: Option<Rc<[Extent]>>,
    /// Of whole numbers, else without meaning.
    pub(super) range: Range,
}

impl Fact {
    pub(super) fn new(dtype: DType, dims: Dims) -> Fact {
        let range = match dtype {
            DType::Bool => (0, 1),
            DType::U8 => (0, 255),
            _ => INT32_RANGE,
        };
        Fact { dtype, dims, elements: None, range }
    }

    pub(super) fn is_float(&self) -> bool {
        self.dtype == DType::F32
    }

    /// Of a constant.
    pub(super) fn of(tensor: &TensorProto) -> Fact {
        let dims = tensor.dims.iter().map(|&dim| Extent::from(dim)).collect();
        let dtype = dtype_of(tensor.data_type).unwrap_or(DType::Invalid);
        let mut fact = Fact::new(dtype, dims);
        fact.elements = whole_floats(tensor);
        if let Some(values) = whole_numbers(tensor) {
            let least = values.iter().copied().min().unwrap_or(0);
            fact.range = (least, values.iter().copied().max().unwrap_or(0));
            if values.len() <= ELEMENTS_MAX {
                fact.elements = Some(values.into_iter().map(Extent::from).collect());
            }
        }
        fact
    }
}

pub(super) fn dtype_of(number: i32) -> Option<DType> {
    match number {
        FLOAT => Some(DType::F32),
        INT32 => Some(DType::I32),
        INT64 => Some(DType::I64),
        BOOL => Some(DType::Bool),
        _ => None,
    }
}

pub(super) fn number_of(dtype: DType) -> i32 {
    match dtype {
        // Bytes are held as int32, and nothing is computed with them before they are cast.
        DType::I32 | DType::U8 => INT32,
        DType::I64 => INT64,
        DType::Bool => BOOL,
        _ => FLOAT,
    }
}

/// The elements of a constant of whole numbers or truths.
pub(super) fn whole_numbers(tensor: &TensorProto) -> Option<Vec<i64>> {
    let bytes = &tensor.raw_data;
    match tensor.data_type {
        INT64 => Some(bytes.as_chunks::<8>().0.iter().map(|&w| i64::from_le_bytes(w)).collect()),
        INT32 => {
            let words = bytes.as_chunks::<4>().0;
            Some(words.iter().map(|&w| i32::from_le_bytes(w).into()).collect())
        }
        BOOL => Some(bytes.iter().map(|&byte| (byte != 0).into()).collect()),
        _ => None,
    }
}

/// The elements of a few floats that are whole and that floats can tell from their neighbours; a zero
/// below zero is none of them.
fn whole_floats(tensor: &TensorProto) -> Option<Rc<[Extent]>> {
    if tensor.raw_data.len() > 4 * FLOATS_MAX {
        return None;
    }
    let whole = |value: f32| {
        let is_whole = value.fract() == 0.0 && value.abs() <= WHOLE_FLOAT_MAX as f32;
        (is_whole && !(value == 0.0 && value.is_sign_negative())).then(|| (value as i64).into())
    };
    floats(tensor)?.into_iter().map(whole).collect()
}

pub(super) fn floats(tensor: &TensorProto) -> Option<Vec<f32>> {
    let words = tensor.raw_data.as_chunks::<4>().0;
    (tensor.data_type == FLOAT).then(|| words.iter().map(|&w| f32::from_le_bytes(w)).collect())
}

/// The constant with its numbers as raw bytes, if it is of a dtype that is read and its bytes fit its
/// shape.
pub(super) fn raw(mut tensor: TensorProto) -> Option<TensorProto> {
    let width = match tensor.data_type {
        FLOAT => {
            let floats = std::mem::take(&mut tensor.float_data);
            if tensor.raw_data.is_empty() && !floats.is_empty() {
                tensor.raw_data = floats.iter().flat_map(|value| value.to_le_bytes()).collect();
            }
            4
        }
        INT64 => {
            let numbers = std::mem::take(&mut tensor.int64_data);
            if tensor.raw_data.is_empty() && !numbers.is_empty() {
                tensor.raw_data = numbers.iter().flat_map(|value| value.to_le_bytes()).collect();
            }
            8
        }
        INT32 | BOOL => {
            let numbers = std::mem::take(&mut tensor.int32_data);
            if tensor.raw_data.is_empty() && !numbers.is_empty() {
                tensor.raw_data = match tensor.data_type {
                    INT32 => numbers.iter().flat_map(|value| value.to_le_bytes()).collect(),
                    _ => numbers.iter().map(|&value| u8::from(value != 0)).collect(),
                };
            }
            if tensor.data_type == INT32 { 4 } else { 1 }
        }
        _ => return None,
    };
    let size = |all: usize, &dim: &i64| all.checked_mul(usize::try_from(dim).ok()?);
    let bytes = tensor.dims.iter().try_fold(width, size)?;
    (bytes == tensor.raw_data.len()).then_some(tensor)
}

//! Constant tensors: reading TensorFlow's, writing ONNX's, the few rearrangements weights need.
//!
//! Invariant: `bytes` holds exactly as many little-endian elements as `dims` says, so rearranging
//! cannot go out of bounds.

use bytes::Bytes;
use vesta_model::{DType, Shape};
use vesta_protos::{onnx, tensorflow};

use crate::permute;
use crate::refusal::{Reason, refuse};

/// The most bytes that one constant may take: what fits beside others in one protobuf message.
const CONSTANT_BYTES_MAX: usize = 1 << 31;

/// A dense tensor whose values are known.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Constant {
    pub(crate) dtype: DType,
    pub(crate) dims: Vec<usize>,
    bytes: Bytes,
    width: usize,
}

impl Constant {
    /// The constant in a `Const` node. Shares `tensor_content`.
    pub(crate) fn read(proto: &tensorflow::TensorProto) -> Result<Constant, Reason> {
        let dtype = DType::from_number(proto.dtype).unwrap_or(DType::Invalid);
        let Some(width) = dtype.width().filter(|_| onnx_number(dtype).is_some()) else {
            return refuse(format!("a constant of dtype {dtype} has no place in ONNX"));
        };
        let dims: Vec<usize> = match &proto.tensor_shape {
            None => Vec::new(),
            Some(shape) => shape
                .dim
                .iter()
                .map(|dim| usize::try_from(dim.size).ok())
                .collect::<Option<_>>()
                .ok_or_else(|| Reason("a constant of unknown shape".into()))?,
        };
        let shape = Shape::new(dims).map_err(|status| Reason(status.message().to_owned()))?;
        let want = shape.bytes(width).map_err(|status| Reason(status.message().to_owned()))?;
        if want > CONSTANT_BYTES_MAX {
            return refuse(format!("a constant of {want} bytes is more than ONNX can hold"));
        }
        let bytes = if proto.tensor_content.is_empty() {
            Bytes::from(repeated_values(proto, dtype, want / width)?)
        } else {
            proto.tensor_content.clone()
        };
        if bytes.len() != want {
            return refuse(format!("a constant of {} bytes where {want} belong", bytes.len()));
        }
        Ok(Constant { dtype, dims: shape.dims().to_vec(), bytes, width })
    }

    /// A constant over raw bytes; the caller has matched their number with `dims`.
    fn raw(dtype: DType, dims: &[usize], bytes: Vec<u8>) -> Constant {
        let width = dtype.width().unwrap_or(1);
        Constant { dtype, dims: dims.to_vec(), bytes: Bytes::from(bytes), width }
    }

    /// A vector of int64.
    pub(crate) fn ints(values: &[i64]) -> Constant {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Constant::raw(DType::I64, &[values.len()], bytes)
    }

    /// f32 values of this shape; `None` when their number differs.
    pub(crate) fn floats(dims: &[usize], values: &[f32]) -> Option<Constant> {
        (dims.iter().product::<usize>() == values.len()).then(|| {
            let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            Constant::raw(DType::F32, dims, bytes)
        })
    }

    /// A scalar of `dtype` nearest to `value`; `None` for dtypes that are no numbers.
    pub(crate) fn scalar(dtype: DType, value: f64) -> Option<Constant> {
        Some(Constant::raw(dtype, &[], number_bytes(dtype, value)?))
    }

    /// Whole numbers as `dtype` (int32, int64 or bool), of a shape that holds as many.
    pub(crate) fn whole(dtype: DType, dims: &[usize], values: &[i64]) -> Option<Constant> {
        if dims.iter().product::<usize>() != values.len() {
            return None;
        }
        let bytes = match dtype {
            DType::I64 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            DType::I32 => {
                let narrow: Option<Vec<i32>> =
                    values.iter().map(|&v| i32::try_from(v).ok()).collect();
                narrow?.iter().flat_map(|v| v.to_le_bytes()).collect()
            }
            DType::Bool => values.iter().map(|&v| u8::from(v != 0)).collect(),
            _ => return None,
        };
        Some(Constant::raw(dtype, dims, bytes))
    }

    /// Number of elements.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() / self.width
    }

    /// The elements when they are whole numbers that fit; `None` for other dtypes.
    pub(crate) fn to_ints(&self) -> Option<Vec<i64>> {
        let chunks = self.bytes.chunks_exact(self.width);
        let value = |chunk: &[u8]| -> Option<i64> {
            Some(match self.dtype {
                DType::I64 => i64::from_le_bytes(chunk.try_into().ok()?),
                DType::I32 => i32::from_le_bytes(chunk.try_into().ok()?).into(),
                DType::I16 => i16::from_le_bytes(chunk.try_into().ok()?).into(),
                DType::I8 => i8::from_le_bytes(chunk.try_into().ok()?).into(),
                DType::U8 | DType::Bool => chunk.first().copied()?.into(),
                DType::U16 => u16::from_le_bytes(chunk.try_into().ok()?).into(),
                DType::U32 => u32::from_le_bytes(chunk.try_into().ok()?).into(),
                _ => return None,
            })
        };
        chunks.map(value).collect()
    }

    /// The elements when they are f32.
    pub(crate) fn to_floats(&self) -> Option<Vec<f32>> {
        (self.dtype == DType::F32).then(|| {
            let word = |c: &[u8]| f32::from_le_bytes([c[0], c[1], c[2], c[3]]);
            self.bytes.chunks_exact(4).map(word).collect()
        })
    }

    /// A single float, of either width.
    pub(crate) fn to_float(&self) -> Option<f64> {
        match (self.dtype, &self.bytes[..]) {
            (DType::F32, &[a, b, c, d]) => Some(f32::from_le_bytes([a, b, c, d]).into()),
            (DType::F64, bytes) => Some(f64::from_le_bytes(bytes.try_into().ok()?)),
            _ => None,
        }
    }

    /// The same elements under other dims; `None` when their number differs.
    pub(crate) fn reshaped(&self, dims: &[usize]) -> Option<Constant> {
        (dims.iter().product::<usize>() == self.len())
            .then(|| Constant { dims: dims.to_vec(), ..self.clone() })
    }

    /// Axis `i` of the result is axis `permutation[i]` of this; `None` when that is no permutation.
    pub(crate) fn permuted(&self, permutation: &[usize]) -> Option<Constant> {
        let rank = self.dims.len();
        let mut seen = vec![false; rank];
        for &axis in permutation {
            *seen.get_mut(axis)? = true;
        }
        if permutation.len() != rank || seen.contains(&false) {
            return None;
        }
        let dims: Vec<usize> = permutation.iter().map(|&axis| self.dims[axis]).collect();
        let out = permute::permuted(&self.bytes, self.width, &self.dims, permutation)?;
        Some(Constant::raw(self.dtype, &dims, out))
    }

    /// As an ONNX tensor of this name. Shares the bytes.
    pub(crate) fn to_onnx(&self, name: &str) -> onnx::TensorProto {
        onnx::TensorProto {
            dims: self.dims.iter().map(|&d| d as i64).collect(),
            data_type: onnx_number(self.dtype).unwrap_or(0),
            name: name.to_owned(),
            raw_data: self.bytes.clone(),
            ..Default::default()
        }
    }
}

/// One number of `dtype` as bytes; whole dtypes saturate.
fn number_bytes(dtype: DType, value: f64) -> Option<Vec<u8>> {
    Some(match dtype {
        DType::F32 => (value as f32).to_le_bytes().to_vec(),
        DType::F64 => value.to_le_bytes().to_vec(),
        DType::F16 => half::f16::from_f64(value).to_le_bytes().to_vec(),
        DType::I64 => (value as i64).to_le_bytes().to_vec(),
        DType::I32 => (value as i32).to_le_bytes().to_vec(),
        DType::I16 => (value as i16).to_le_bytes().to_vec(),
        DType::I8 => (value as i8).to_le_bytes().to_vec(),
        DType::U64 => (value as u64).to_le_bytes().to_vec(),
        DType::U32 => (value as u32).to_le_bytes().to_vec(),
        DType::U16 => (value as u16).to_le_bytes().to_vec(),
        DType::U8 => (value as u8).to_le_bytes().to_vec(),
        DType::Bool => vec![u8::from(value != 0.0)],
        _ => return None,
    })
}

/// The elements out of the field of their dtype; the last given one stands for those left out.
fn repeated_values(
    proto: &tensorflow::TensorProto,
    dtype: DType,
    count: usize,
) -> Result<Vec<u8>, Reason> {
    let words: Vec<Vec<u8>> = match dtype {
        DType::F32 => proto.float_val.iter().map(|v| v.to_le_bytes().to_vec()).collect(),
        DType::F64 => proto.double_val.iter().map(|v| v.to_le_bytes().to_vec()).collect(),
        DType::I64 => proto.int64_val.iter().map(|v| v.to_le_bytes().to_vec()).collect(),
        DType::I32 => proto.int_val.iter().map(|v| v.to_le_bytes().to_vec()).collect(),
        DType::I16 => proto.int_val.iter().map(|v| (*v as i16).to_le_bytes().to_vec()).collect(),
        DType::U16 => proto.int_val.iter().map(|v| (*v as u16).to_le_bytes().to_vec()).collect(),
        DType::I8 => proto.int_val.iter().map(|v| (*v as i8).to_le_bytes().to_vec()).collect(),
        DType::U8 => proto.int_val.iter().map(|v| vec![*v as u8]).collect(),
        DType::F16 | DType::BF16 => {
            proto.half_val.iter().map(|v| (*v as u16).to_le_bytes().to_vec()).collect()
        }
        DType::U32 => proto.uint32_val.iter().map(|v| v.to_le_bytes().to_vec()).collect(),
        DType::U64 => proto.uint64_val.iter().map(|v| v.to_le_bytes().to_vec()).collect(),
        DType::Bool => proto.bool_val.iter().map(|v| vec![u8::from(*v)]).collect(),
        _ => return refuse(format!("a constant of dtype {dtype} has no place in ONNX")),
    };
    if words.len() > count {
        return refuse(format!("a constant of {} values where {count} belong", words.len()));
    }
    let zero = vec![0; dtype.width().unwrap_or(1)];
    let last = words.last().cloned().unwrap_or(zero);
    let mut bytes = words.concat();
    for _ in words.len()..count {
        bytes.extend_from_slice(&last);
    }
    Ok(bytes)
}

/// The number of `dtype` in ONNX; `None` for what ONNX lacks or no engine here takes.
pub fn onnx_number(dtype: DType) -> Option<i32> {
    use onnx::tensor_proto::DataType as Onnx;
    let number = match dtype {
        DType::F32 => Onnx::Float,
        DType::F64 => Onnx::Double,
        DType::F16 => Onnx::Float16,
        DType::BF16 => Onnx::Bfloat16,
        DType::I64 => Onnx::Int64,
        DType::I32 => Onnx::Int32,
        DType::I16 => Onnx::Int16,
        DType::I8 => Onnx::Int8,
        DType::U64 => Onnx::Uint64,
        DType::U32 => Onnx::Uint32,
        DType::U16 => Onnx::Uint16,
        DType::U8 => Onnx::Uint8,
        DType::Bool => Onnx::Bool,
        _ => return None,
    };
    Some(number as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_fills_the_rest() {
        let proto = tensorflow::TensorProto {
            dtype: DType::F32.number(),
            tensor_shape: Some(tensorflow::TensorShapeProto {
                dim: vec![tensorflow::tensor_shape_proto::Dim { size: 3, name: String::new() }],
                unknown_rank: false,
            }),
            float_val: vec![1.0, 2.0],
            ..Default::default()
        };
        let constant = Constant::read(&proto).unwrap();
        assert_eq!(constant.to_floats(), Some(vec![1.0, 2.0, 2.0]));
        let long = tensorflow::TensorProto { float_val: vec![0.0; 4], ..proto.clone() };
        assert!(Constant::read(&long).is_err());
        let short = tensorflow::TensorProto { tensor_content: vec![0; 8].into(), ..proto };
        assert!(Constant::read(&short).is_err());
    }

    #[test]
    fn permuting_moves_the_elements() {
        let constant = Constant::floats(&[2, 3], &[0., 1., 2., 3., 4., 5.]).unwrap();
        let turned = constant.permuted(&[1, 0]).unwrap();
        assert_eq!(turned.dims, [3, 2]);
        assert_eq!(turned.to_floats(), Some(vec![0., 3., 1., 4., 2., 5.]));
        assert_eq!(constant.permuted(&[0, 0]), None);
        assert_eq!(constant.permuted(&[0, 2]), None);
    }
}

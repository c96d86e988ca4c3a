//! Tensors of the vocabulary to ONNX Runtime's and back. Numbers are not copied on either way when
//! they lie aligned; strings are, since ONNX Runtime keeps them in a form of its own.

use std::sync::Arc;

use vesta_ffi::{OnnxRuntime, OnnxRuntimeError, OnnxValue};
use vesta_model::{DType, Memory, Shape, Status, StringsBuilder, Tensor};
use vesta_protos::onnx::tensor_proto::DataType;

use crate::bound::{Fed, fit_for_kernels};

/// The dtypes that both know.
const DTYPES: &[(DataType, DType)] = &[
    (DataType::Float, DType::F32),
    (DataType::Uint8, DType::U8),
    (DataType::Int8, DType::I8),
    (DataType::Uint16, DType::U16),
    (DataType::Int16, DType::I16),
    (DataType::Int32, DType::I32),
    (DataType::Int64, DType::I64),
    (DataType::String, DType::String),
    (DataType::Bool, DType::Bool),
    (DataType::Float16, DType::F16),
    (DataType::Double, DType::F64),
    (DataType::Uint32, DType::U32),
    (DataType::Uint64, DType::U64),
    (DataType::Complex64, DType::Complex64),
    (DataType::Complex128, DType::Complex128),
    (DataType::Bfloat16, DType::BF16),
    (DataType::Float8e4m3fn, DType::F8E4M3FN),
    (DataType::Float8e4m3fnuz, DType::F8E4M3FNUZ),
    (DataType::Float8e5m2, DType::F8E5M2),
    (DataType::Float8e5m2fnuz, DType::F8E5M2FNUZ),
    (DataType::Uint4, DType::U4),
    (DataType::Int4, DType::I4),
    (DataType::Float4e2m1, DType::F4E2M1FN),
    (DataType::Uint2, DType::U2),
    (DataType::Int2, DType::I2),
];

/// The dtype with this number in ONNX.
pub(super) fn from_onnx(number: i32) -> Option<DType> {
    DTYPES.iter().find(|(onnx, _)| *onnx as i32 == number).map(|(_, dtype)| *dtype)
}

/// The number of a dtype in ONNX.
fn to_onnx(dtype: DType) -> Result<i32, Status> {
    let found = DTYPES.iter().find(|(_, known)| *known == dtype);
    found.map(|(onnx, _)| *onnx as i32).ok_or_else(|| {
        Status::invalid_argument(format!("ONNX has no tensors of {dtype}; send another dtype"))
    })
}

/// Bytes that ONNX Runtime gave.
struct Given(OnnxValue);

impl Memory for Given {
    fn bytes(&self) -> &[u8] {
        // Checked when the tensor was made.
        self.0.bytes().unwrap_or_default()
    }
}

/// What ONNX Runtime is fed for `tensor`.
pub(super) fn to_value(library: &'static OnnxRuntime, tensor: Tensor) -> Result<OnnxValue, Status> {
    let too_large =
        |_| Status::invalid_argument("a tensor has more elements in one dimension than 2^63");
    let dims: Vec<i64> = tensor
        .shape()
        .dims()
        .iter()
        .map(|&dim| i64::try_from(dim))
        .collect::<Result<_, _>>()
        .map_err(too_large)?;
    if tensor.dtype() == DType::String {
        let strings =
            tensor.strings().ok_or_else(|| Status::internal("a tensor of strings holds none"))?;
        return OnnxValue::strings(library, &dims, strings.iter()).map_err(|error| status(&error));
    }
    let tensor = fit_for_kernels(tensor)?;
    let element = to_onnx(tensor.dtype())?;
    OnnxValue::over(library, element, &dims, Arc::new(Fed(tensor))).map_err(|error| status(&error))
}

/// The tensor that ONNX Runtime gave for the output called `alias`.
///
/// # Errors
/// `UNIMPLEMENTED` for what a tensor cannot hold.
pub(super) fn from_value(alias: &str, value: OnnxValue) -> Result<Tensor, Status> {
    let unusable = || {
        Status::unimplemented(format!(
            "output `{alias}` is of a type that a response cannot carry; ask for other outputs"
        ))
    };
    let dtype = from_onnx(value.element()).ok_or_else(unusable)?;
    let dims: Option<Vec<usize>> =
        value.dims().iter().map(|&dim| usize::try_from(dim).ok()).collect();
    let shape = Shape::new(dims.ok_or_else(unusable)?)?;
    if dtype == DType::String {
        return strings(shape, &value).ok_or_else(unusable)?;
    }
    if dtype.width().is_none() || value.bytes().is_none() {
        return Err(unusable());
    }
    Tensor::whole(dtype, shape, Arc::new(Given(value)))
}

fn strings(shape: Shape, value: &OnnxValue) -> Option<Result<Tensor, Status>> {
    let texts = value.texts().ok()?;
    let ends = texts.starts.iter().skip(1).copied().chain([texts.payload.len()]);
    let mut strings = StringsBuilder::new();
    for (&start, end) in texts.starts.iter().zip(ends) {
        strings.push(texts.payload.get(start..end)?);
    }
    Some(Tensor::of_strings(shape, &strings))
}

/// What ONNX Runtime said of tensors and models.
pub(super) fn status(error: &OnnxRuntimeError) -> Status {
    if let Some(raised) = vesta_onnx::raised_error(&error.message) {
        return Status::invalid_argument(raised);
    }
    let message = error.message.trim().replace('\n', "; ");
    if message.contains("Failed to allocate memory") {
        return Status::resource_exhausted(message);
    }
    match error.code {
        OnnxRuntimeError::NOT_IMPLEMENTED => Status::unimplemented(message),
        // Its kernels tell tensors that do not fit together by several numbers.
        _ => Status::invalid_argument(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_one_dtype() {
        for &(onnx, dtype) in DTYPES {
            assert_eq!(from_onnx(onnx as i32), Some(dtype));
            assert_eq!(to_onnx(dtype).unwrap(), onnx as i32);
        }
        assert_eq!(from_onnx(0), None);
        assert!(to_onnx(DType::Resource).is_err());
    }
}

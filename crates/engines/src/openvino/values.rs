//! Tensors of the vocabulary to OpenVINO's and back, and what is lost on the way.
//!
//! OpenVINO computes 64-bit integers in 32 bits and doubles as floats on this device, and says nothing
//! of it. So integers that do not fit are refused at each run, and dtypes that would lose at every run
//! are refused with the model.

use std::sync::Arc;

use vesta_ffi::{OpenVinoError, OpenVinoInput, OpenVinoOutput};
use vesta_model::{DType, Shape, Status, Tensor};

use crate::bound::{Fed, fit_for_kernels};

/// `ov_element_type_e` of the dtypes that keep their values.
const DTYPES: &[(u32, DType)] = &[
    (1, DType::Bool),
    (2, DType::BF16),
    (3, DType::F16),
    (4, DType::F32),
    (7, DType::I8),
    (8, DType::I16),
    (9, DType::I32),
    (10, DType::I64),
    (16, DType::U8),
    (17, DType::U16),
];

/// The dtype with this number in OpenVINO; `None` where it would not keep its values.
pub(super) fn from_openvino(element: u32) -> Option<DType> {
    DTYPES.iter().find(|(number, _)| *number == element).map(|(_, dtype)| *dtype)
}

/// The number of a dtype in OpenVINO; `None` where it would not keep its values.
pub(super) fn to_openvino(dtype: DType) -> Option<u32> {
    DTYPES.iter().find(|(_, known)| *known == dtype).map(|(number, _)| *number)
}

/// The error of an end whose values OpenVINO would not keep.
pub(super) fn unfit(end: &str, dtype: &str) -> Status {
    Status::unimplemented(format!(
        "{end} is of {dtype}, which OpenVINO has no operators for or computes with fewer bits; serve \
         the model by another engine"
    ))
}

/// What OpenVINO is fed for the input called `alias`.
///
/// # Errors
/// `INVALID_ARGUMENT` for integers that OpenVINO would change.
pub(super) fn to_input(alias: &str, tensor: Tensor) -> Result<OpenVinoInput, Status> {
    let dtype = tensor.dtype();
    let element = to_openvino(dtype).ok_or_else(|| unfit(alias, &dtype.to_string()))?;
    let too_large =
        |_| Status::invalid_argument("a tensor has more elements in one dimension than 2^63");
    let dims = tensor.shape().dims().iter().map(|&dim| i64::try_from(dim));
    let dims: Vec<i64> = dims.collect::<Result<_, _>>().map_err(too_large)?;
    let tensor = fit_for_kernels(tensor)?;
    if dtype == DType::I64 && !fits_32_bits(tensor.bytes()) {
        return Err(Status::invalid_argument(format!(
            "input {alias} has integers of more than 32 bits, which OpenVINO would cut off; send \
             smaller ones, or serve the model by another engine"
        )));
    }
    Ok(OpenVinoInput { element, dims, bytes: Arc::new(Fed(tensor)) })
}

fn fits_32_bits(bytes: &[u8]) -> bool {
    let (integers, _) = bytes.as_chunks::<8>();
    integers.iter().all(|&integer| i32::try_from(i64::from_le_bytes(integer)).is_ok())
}

/// The tensor of an output, copied: OpenVINO's memory goes with its run.
///
/// # Errors
/// `INTERNAL` for another dtype than the model said.
pub(super) fn from_output(alias: &str, output: &OpenVinoOutput<'_>) -> Result<Tensor, Status> {
    let odd = || Status::internal(format!("output {alias} is not what the model said"));
    let dtype = from_openvino(output.element).ok_or_else(odd)?;
    let dims = output.dims.iter().map(|&dim| usize::try_from(dim));
    let dims: Vec<usize> = dims.collect::<Result<_, _>>().map_err(|_| odd())?;
    Tensor::copied(dtype, Shape::new(dims)?, output.bytes)
}

/// What OpenVINO said, on one line and without the places of its source.
pub(super) fn words(error: &OpenVinoError) -> String {
    let lines = error.message.lines().map(str::trim);
    let told: Vec<&str> =
        lines.filter(|line| !line.is_empty() && !line.starts_with("Exception from")).collect();
    if told.is_empty() { "it gives no reason".to_owned() } else { told.join("; ") }
}

/// What OpenVINO said of a run: its kernels tell tensors that do not fit together by no number.
pub(super) fn status(error: &OpenVinoError) -> Status {
    let words = words(error);
    Status::invalid_argument(vesta_onnx::raised_error(&words).unwrap_or(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_one_dtype() {
        for &(element, dtype) in DTYPES {
            assert_eq!(from_openvino(element), Some(dtype));
            assert_eq!(to_openvino(dtype), Some(element));
        }
        for dtype in [DType::String, DType::F64, DType::U32, DType::U64] {
            assert_eq!(to_openvino(dtype), None);
        }
    }

    #[test]
    fn integers_that_would_change_are_refused() {
        let fed = |values: &[i64]| to_input("x", Tensor::of(Shape::vector(1), values).unwrap());
        for kept in [i64::from(i32::MIN), -1, i64::from(i32::MAX)] {
            assert!(fed(&[kept]).is_ok(), "{kept}");
        }
        for lost in [i64::MIN, i64::from(i32::MAX) + 1] {
            let Err(status) = fed(&[lost]) else { panic!("{lost} was taken") };
            assert!(status.message().contains("more than 32 bits"), "{status}");
        }
    }

    #[test]
    fn places_of_source_are_left_out() {
        let message =
            "Exception from src/a.cpp:1:\nCheck 'x' failed\n\n no such layer \n".to_owned();
        let told = words(&OpenVinoError { code: -1, message });
        assert_eq!(told, "Check 'x' failed; no such layer");
    }
}

//! Tensors of the vocabulary to TensorFlow's and back. Numbers are not copied on either way; strings
//! are, since TensorFlow keeps them in a form of its own.

use std::sync::Arc;

use vesta_ffi::{TensorFlow, TensorFlowError, TensorFlowValue};
use vesta_model::{AlignedBytes, DType, Memory, Shape, Status, StringsBuilder, Tensor};

use super::status;
use crate::bound::Fed;

/// Bytes that TensorFlow gave.
struct Given(TensorFlowValue);

impl Memory for Given {
    fn bytes(&self) -> &[u8] {
        // Checked when the tensor was made.
        self.0.bytes().unwrap_or_default()
    }
}

/// What TensorFlow is fed for `tensor`.
pub(super) fn to_tensorflow(
    library: &'static TensorFlow,
    tensor: Tensor,
) -> Result<TensorFlowValue, Status> {
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
        return TensorFlowValue::strings(library, &dims, strings.iter()).map_err(status);
    }
    let tensor = clean(tensor)?;
    let (dtype, length) = (tensor.dtype().number(), tensor.bytes().len());
    TensorFlowValue::over(library, dtype, &dims, Arc::new(Fed(tensor)), 0, length).map_err(status)
}

/// TensorFlow reads a boolean as C++ does, where any byte but 0 and 1 is undefined; clients may have
/// sent one.
fn clean(tensor: Tensor) -> Result<Tensor, Status> {
    if tensor.dtype() != DType::Bool || tensor.bytes().iter().all(|&byte| byte <= 1) {
        return Ok(tensor);
    }
    let bytes: Vec<u8> = tensor.bytes().iter().map(|&byte| u8::from(byte != 0)).collect();
    Tensor::whole(DType::Bool, tensor.shape().clone(), Arc::new(AlignedBytes::copy_of(&bytes)))
}

/// The tensor that TensorFlow gave for the output called `alias`.
///
/// # Errors
/// `UNIMPLEMENTED` for what cannot leave TensorFlow, such as resources.
pub(super) fn from_tensorflow(alias: &str, value: TensorFlowValue) -> Result<Tensor, Status> {
    let number = value.dtype();
    let dtype = DType::from_number(number).ok_or_else(|| {
        Status::unimplemented(format!("output `{alias}` is of a dtype numbered {number}"))
    })?;
    let dims = value.dims().into_iter().map(|dim| usize::try_from(dim).unwrap_or_default());
    let shape = Shape::new(dims.collect::<Vec<_>>())?;
    if dtype == DType::String {
        let mut strings = StringsBuilder::new();
        let texts = value.texts().ok_or_else(|| no_bytes(alias, dtype))?;
        texts.for_each(|text| strings.push(text));
        return Tensor::of_strings(shape, &strings);
    }
    if dtype.width().is_none() || value.bytes().is_none() {
        return Err(no_bytes(alias, dtype));
    }
    Tensor::whole(dtype, shape, Arc::new(Given(value)))
}

fn no_bytes(alias: &str, dtype: DType) -> Status {
    Status::unimplemented(format!(
        "output `{alias}` is of dtype {dtype}, whose values cannot leave TensorFlow; ask for other \
         outputs"
    ))
}

/// What is wrong with an endpoint that the graph does not have, in TensorFlow's words.
pub(super) fn not_in_graph(tensor: &str) -> Status {
    status(TensorFlowError {
        code: vesta_model::Code::InvalidArgument.number(),
        message: format!(
            "Tensor {tensor}, specified in either feed_devices or fetch_devices was not found in \
             the Graph"
        ),
    })
}

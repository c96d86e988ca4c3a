//! Regression of `tf.Example`s: one value for each.
//!
//! Owns: what a signature and its output must look like, in the original's order and words.

use std::time::Instant;

use bytes::Bytes;
use vesta_model::{Signature, Status, Tensor};
use vesta_serving::{InferRequest, Lease};

use super::classify::{examples_tensor, find_signature};
use super::debug_text::debug_text;
use super::metadata::data_type_name;
use super::method_check::MethodCheck;
use super::predict::{run, signature_or_default};
use crate::metrics::{Api, Metrics};

const INPUTS: &str = "inputs";
const OUTPUTS: &str = "outputs";

/// Regresses serialised examples. An empty `signature` means the default one.
///
/// # Errors
/// `INVALID_ARGUMENT` when the signature does not regress, there is no example, or the output does
/// not fit; else those of the run.
pub(crate) async fn regress(
    lease: &Lease,
    signature: &str,
    examples: &[Bytes],
    deadline: Option<Instant>,
    check: MethodCheck,
    metrics: &Metrics,
) -> Result<Vec<f32>, Status> {
    let name = signature_or_default(signature);
    let signature = find_signature(lease.signatures(), name)?;
    check.regress(signature)?;
    let output = check_signature(signature)?;
    let inputs = vec![examples_tensor(examples)?];
    let request =
        InferRequest { signature: name.to_owned(), inputs, outputs: vec![output], deadline };
    let tensors = run(lease, request, Api::Regress, metrics).await?;
    let tensor = tensors.first().ok_or_else(|| Status::internal("the run gave no output"))?;
    values_of(tensor, examples.len())
}

/// Checks that a signature regresses; gives the position of its output.
///
/// # Errors
/// `INVALID_ARGUMENT` that says why it does not.
pub(crate) fn check_signature(signature: &Signature) -> Result<usize, Status> {
    if signature.inputs.len() != 1 {
        return Err(Status::invalid_argument("Expected one input Tensor."));
    }
    if signature.outputs.len() != 1 {
        return Err(Status::invalid_argument("Expected one output Tensor."));
    }
    let missing = |what: &str| {
        let text = debug_text(signature);
        Status::invalid_argument(format!("No regression {what} found in SignatureDef: {text}"))
    };
    if signature.input(INPUTS).is_none() {
        return Err(missing(INPUTS));
    }
    signature.output(OUTPUTS).ok_or_else(|| missing(OUTPUTS))
}

/// The values of `count` examples out of the output.
///
/// # Errors
/// `INVALID_ARGUMENT` when it has the wrong shape or dtype.
pub(crate) fn values_of(tensor: &Tensor, count: usize) -> Result<Vec<f32>, Status> {
    let shape = tensor.shape();
    let rows = match *shape.dims() {
        [rows] | [rows, 1] => rows,
        _ => {
            return Err(Status::invalid_argument(format!(
                "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got \
                 {shape}"
            )));
        }
    };
    if rows != count {
        return Err(Status::invalid_argument(format!(
            "Input batch size did not match output batch size: {count} vs. {rows}"
        )));
    }
    tensor.to_vec::<f32>().ok_or_else(|| {
        Status::invalid_argument(format!(
            "Expected output Tensor of DT_FLOAT.  Got: {}",
            data_type_name(tensor.dtype().number())
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use vesta_model::{DType, Shape, TensorSpec};

    #[test]
    fn outputs_are_checked_in_order() {
        let message = |result: Result<Vec<f32>, Status>| result.unwrap_err().message().to_owned();
        let column = Tensor::of(Shape::new(vec![2, 1]).unwrap(), &[1.5f32, 2.5]).unwrap();
        assert_eq!(values_of(&column, 2).unwrap(), [1.5, 2.5]);
        assert_eq!(
            message(values_of(&column, 3)),
            "Input batch size did not match output batch size: 3 vs. 2"
        );
        let wide = Tensor::of(Shape::new(vec![1, 2]).unwrap(), &[1.5f32, 2.5]).unwrap();
        assert_eq!(
            message(values_of(&wide, 1)),
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got [1,2]"
        );
        let double = Tensor::of(Shape::vector(1), &[1.5f64]).unwrap();
        assert_eq!(
            message(values_of(&double, 1)),
            "Expected output Tensor of DT_FLOAT.  Got: DT_DOUBLE"
        );
    }

    #[test]
    fn signatures_are_checked_in_order() {
        let spec = |name: &str| vec![TensorSpec::dense(name, DType::F32)];
        let check = |input, output| {
            let signature = Signature::new("s", "", spec(input), spec(output));
            check_signature(&signature).map_err(|status| status.message().to_owned())
        };
        assert_eq!(check("inputs", "outputs"), Ok(0));
        let text = check("inputs", "y").unwrap_err();
        assert!(text.starts_with("No regression outputs found in SignatureDef: goo.gle/"));
        let none = Signature::new("s", "", spec("inputs"), Vec::new());
        assert_eq!(check_signature(&none).unwrap_err().message(), "Expected one output Tensor.");
    }
}

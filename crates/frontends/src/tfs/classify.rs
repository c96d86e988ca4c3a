//! Classification of `tf.Example`s: labels and scores for each.
//!
//! Owns: what a signature and its outputs must look like, in the original's order and words.

use std::time::Instant;

use bytes::Bytes;
use vesta_model::{DType, Shape, Signature, Status, StringsBuilder, Tensor};
use vesta_serving::{InferRequest, Lease};

use super::debug_text::debug_text;
use super::metadata::data_type_name;
use super::method_check::MethodCheck;
use super::predict::{Signatures, run, signature_or_default};
use crate::metrics::{Api, Metrics};

/// The alias of the one input.
const INPUTS: &str = "inputs";
const CLASSES: &str = "classes";
const SCORES: &str = "scores";

/// Labels, which are bytes, and scores of one example.
pub(crate) type Classes = Vec<(Vec<u8>, f32)>;

/// Which outputs of a signature hold what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClassifyOutputs {
    classes: Option<usize>,
    scores: Option<usize>,
}

/// Classifies serialised examples. An empty `signature` means the default one.
///
/// # Errors
/// `INVALID_ARGUMENT` when the signature does not classify, there is no example, or the outputs do
/// not fit; else those of the run.
pub(crate) async fn classify(
    lease: &Lease,
    signature: &str,
    examples: &[Bytes],
    deadline: Option<Instant>,
    check: MethodCheck,
    metrics: &Metrics,
) -> Result<Vec<Classes>, Status> {
    let name = signature_or_default(signature);
    let signature = find_signature(lease.signatures(), name)?;
    check.classify(signature)?;
    let outputs = check_signature(signature)?;
    let inputs = vec![examples_tensor(examples)?];
    let request =
        InferRequest { signature: name.to_owned(), inputs, outputs: outputs.positions(), deadline };
    let tensors = run(lease, request, Api::Classify, metrics).await?;
    classes_of(&outputs, &tensors, examples.len())
}

/// The signature called `name`.
///
/// # Errors
/// `INVALID_ARGUMENT` in the words of classify and regress, which are not those of predict.
pub(crate) fn find_signature<'l>(
    signatures: &'l Signatures,
    name: &str,
) -> Result<&'l Signature, Status> {
    let found = signatures.get(name).map(|signature| &**signature);
    found.ok_or_else(|| {
        Status::invalid_argument(format!("No signature was found with the name: {name}"))
    })
}

/// Examples as the one string tensor that they are fed as.
///
/// # Errors
/// `INVALID_ARGUMENT` when there is none.
pub(crate) fn examples_tensor(examples: &[Bytes]) -> Result<Tensor, Status> {
    if examples.is_empty() {
        return Err(Status::invalid_argument("Input is empty."));
    }
    let mut strings = StringsBuilder::new();
    examples.iter().for_each(|example| strings.push(example));
    Tensor::of_strings(Shape::vector(examples.len()), &strings)
}

/// Checks that a signature classifies.
///
/// # Errors
/// `INVALID_ARGUMENT` that says why it does not.
pub(crate) fn check_signature(signature: &Signature) -> Result<ClassifyOutputs, Status> {
    if signature.inputs.len() != 1 {
        return Err(Status::invalid_argument("Expected one input Tensor."));
    }
    if !(1..=2).contains(&signature.outputs.len()) {
        return Err(Status::invalid_argument(format!(
            "Expected one or two output Tensors, found {}",
            signature.outputs.len()
        )));
    }
    if signature.input(INPUTS).is_none() {
        return Err(Status::invalid_argument(format!(
            "No classification inputs found in SignatureDef: {}",
            debug_text(signature)
        )));
    }
    let outputs =
        ClassifyOutputs { classes: signature.output(CLASSES), scores: signature.output(SCORES) };
    if outputs.positions().is_empty() {
        return Err(Status::invalid_argument(format!(
            "Expected classification signature outputs to contain at least one of \"{CLASSES}\" or \
             \"{SCORES}\". Signature was: {}",
            debug_text(signature)
        )));
    }
    Ok(outputs)
}

impl ClassifyOutputs {
    /// Positions of the outputs to ask for; the tensors given to [`classes_of`] are in this order.
    pub(crate) fn positions(&self) -> Vec<usize> {
        self.classes.into_iter().chain(self.scores).collect()
    }
}

/// Labels and scores of `count` examples out of the outputs asked for.
///
/// # Errors
/// `INVALID_ARGUMENT` when an output has the wrong shape or dtype.
pub(crate) fn classes_of(
    outputs: &ClassifyOutputs,
    tensors: &[Tensor],
    count: usize,
) -> Result<Vec<Classes>, Status> {
    let mut rest = tensors.iter();
    let classes = outputs.classes.and_then(|_| rest.next());
    let scores = outputs.scores.and_then(|_| rest.next());
    check_output(classes, CLASSES, DType::String, count)?;
    check_output(scores, SCORES, DType::F32, count)?;
    let width = |tensor: &Tensor| tensor.shape().dims()[1];
    if let (Some(classes), Some(scores)) = (classes, scores)
        && width(classes) != width(scores)
    {
        return Err(Status::invalid_argument(format!(
            "Tensors class and score should match in dim_size(1). Got {} vs. {}",
            width(classes),
            width(scores)
        )));
    }
    let columns = classes.or(scores).map_or(0, width);
    let labels = classes.and_then(Tensor::strings);
    let scores = scores.and_then(|scores| scores.to_vec::<f32>());
    let class = |at: usize| {
        let label = labels.as_ref().and_then(|labels| labels.get(at)).unwrap_or_default();
        let score = scores.as_ref().and_then(|scores| scores.get(at)).copied().unwrap_or(0.0);
        (label.to_vec(), score)
    };
    Ok((0..count).map(|row| (row * columns..(row + 1) * columns).map(class).collect()).collect())
}

fn check_output(
    tensor: Option<&Tensor>,
    name: &str,
    dtype: DType,
    count: usize,
) -> Result<(), Status> {
    let Some(tensor) = tensor else { return Ok(()) };
    let shape = tensor.shape();
    let &[rows, _] = shape.dims() else {
        return Err(Status::invalid_argument(format!(
            "Expected Tensor shape: [batch_size num_classes] but got {shape}"
        )));
    };
    if tensor.dtype() != dtype {
        return Err(Status::invalid_argument(format!(
            "Expected {name} Tensor of {}. Got: {}",
            data_type_name(dtype.number()),
            data_type_name(tensor.dtype().number())
        )));
    }
    if rows != count {
        return Err(Status::invalid_argument(format!(
            "Expected {name} output batch size of {count}. Got: {rows}"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use vesta_model::TensorSpec;

    fn signature(inputs: &[&str], outputs: &[&str]) -> Signature {
        let specs = |names: &[&str]| {
            names.iter().map(|name| TensorSpec::dense(name, DType::String)).collect()
        };
        Signature::new("s", "", specs(inputs), specs(outputs))
    }

    fn message<T: std::fmt::Debug>(result: Result<T, Status>) -> String {
        result.unwrap_err().message().to_owned()
    }

    #[test]
    fn signatures_are_checked_in_order() {
        assert_eq!(message(check_signature(&signature(&[], &[]))), "Expected one input Tensor.");
        assert_eq!(
            message(check_signature(&signature(&["x"], &["a", "b", "c"]))),
            "Expected one or two output Tensors, found 3"
        );
        let text = message(check_signature(&signature(&["x"], &["scores"])));
        assert!(text.starts_with(
            "No classification inputs found in SignatureDef: goo.gle/debugproto  \ninputs {"
        ));
        let text = message(check_signature(&signature(&["inputs"], &["y"])));
        assert!(text.starts_with("Expected classification signature outputs to contain"));
        let outputs = check_signature(&signature(&["inputs"], &["scores", "classes"])).unwrap();
        assert_eq!(outputs.positions(), [0, 1]);
    }

    #[test]
    fn outputs_become_rows() {
        let shape = Shape::new(vec![2, 2]).unwrap();
        let scores = Tensor::of(shape.clone(), &[0.5f32, 1.0, 1.5, 2.0]).unwrap();
        let only_scores = ClassifyOutputs { classes: None, scores: Some(0) };
        let rows = classes_of(&only_scores, std::slice::from_ref(&scores), 2).unwrap();
        assert_eq!(rows[1], [(Vec::new(), 1.5), (Vec::new(), 2.0)]);
        assert_eq!(
            message(classes_of(&only_scores, std::slice::from_ref(&scores), 3)),
            "Expected scores output batch size of 3. Got: 2"
        );
        let only_classes = ClassifyOutputs { classes: Some(0), scores: None };
        assert_eq!(
            message(classes_of(&only_classes, &[scores], 2)),
            "Expected classes Tensor of DT_STRING. Got: DT_FLOAT"
        );
        let vector = Tensor::of(Shape::vector(2), &[1.0f32, 2.0]).unwrap();
        assert_eq!(
            message(classes_of(&only_scores, &[vector], 2)),
            "Expected Tensor shape: [batch_size num_classes] but got [2]"
        );
    }
}

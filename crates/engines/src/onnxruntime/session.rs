//! One version in ONNX Runtime: its signatures bound to sessions, and its runs.
//!
//! May not know: where models come from. Invariant: a run feeds what its signature declares, of
//! shapes that the declaration accepts; the translation is exact for those alone.

use std::ffi::{CStr, CString};
use std::sync::Arc;
use std::time::Instant;

use vesta_ffi::{OnnxRunOptions, OnnxRuntime, OnnxSession, OnnxValue};
use vesta_model::{PartialShape, RunRequest, Signature, Status, Tensor};

use super::deadlines::Deadlines;
use super::values::{from_value, status, to_value};
use crate::bound::{Bound, Runner};

/// A version loaded in ONNX Runtime.
pub(super) struct LoadedModel {
    library: &'static OnnxRuntime,
    deadlines: Deadlines,
}

/// A signature in terms of a model.
pub(super) struct BoundModel {
    pub(super) signature: Arc<Signature>,
    pub(super) session: OnnxSession,
    /// The model's inputs, one for each of the signature's.
    pub(super) feeds: Vec<Feed>,
    /// The model's outputs, one for each of the signature's.
    pub(super) fetches: Vec<CString>,
}

/// An input of a model.
pub(super) struct Feed {
    pub(super) name: CString,
    /// The shapes that it takes.
    pub(super) shape: PartialShape,
}

impl LoadedModel {
    pub(super) fn new(library: &'static OnnxRuntime) -> LoadedModel {
        LoadedModel { library, deadlines: Deadlines::default() }
    }
}

/// A name as ONNX Runtime takes it.
///
/// # Errors
/// `INVALID_ARGUMENT` for a zero byte in it.
pub(super) fn name_of(name: &str) -> Result<CString, Status> {
    CString::new(name).map_err(|_| {
        Status::invalid_argument(format!("the name {name:?} has a zero byte in it; rename it"))
    })
}

impl Bound for BoundModel {
    fn signature(&self) -> &Signature {
        &self.signature
    }
}

impl Runner for LoadedModel {
    type Bound = BoundModel;

    fn run(
        &self,
        bound: &BoundModel,
        request: &RunRequest,
        inputs: Vec<Tensor>,
        deadline: Option<Instant>,
    ) -> Result<Vec<Tensor>, Status> {
        bound.check(&inputs)?;
        if request.outputs.is_empty() {
            return Ok(Vec::new());
        }
        if is_past(deadline) {
            return Err(late());
        }
        let options = Arc::new(OnnxRunOptions::new(self.library).map_err(|error| status(&error))?);
        let values = inputs
            .into_iter()
            .map(|input| to_value(self.library, input))
            .collect::<Result<Vec<OnnxValue>, _>>()?;
        let feeds: Vec<(&CStr, &OnnxValue)> =
            bound.feeds.iter().map(|feed| feed.name.as_c_str()).zip(&values).collect();
        let fetches: Vec<&CStr> =
            request.outputs.iter().map(|&index| bound.fetches[index].as_c_str()).collect();
        let listed = deadline
            .map(|deadline| self.deadlines.list(deadline, Arc::clone(&options)))
            .transpose()?;
        let outcome = bound.session.run(&options, &feeds, &fetches);
        drop(listed);
        // A run that was told to end says so in words alone.
        let given =
            outcome.map_err(|error| if is_past(deadline) { late() } else { status(&error) })?;
        let outputs = request.outputs.iter().zip(given);
        outputs
            .map(|(&index, value)| from_value(&bound.signature.outputs[index].alias, value))
            .collect()
    }
}

impl BoundModel {
    /// Checks that the tensors are what the model takes.
    fn check(&self, inputs: &[Tensor]) -> Result<(), Status> {
        for ((spec, feed), tensor) in self.signature.inputs.iter().zip(&self.feeds).zip(inputs) {
            if !feed.shape.accepts(tensor.shape()) {
                return Err(Status::invalid_argument(format!(
                    "input {} has shape {}, but the model declares {}, and ONNX Runtime holds it to \
                     that; send a tensor of the declared shape",
                    spec.alias,
                    tensor.shape(),
                    feed.shape
                )));
            }
            if tensor.dtype() != spec.fed_dtype() {
                return Err(Status::invalid_argument(format!(
                    "input {} is of {}, and {} was given",
                    spec.alias,
                    spec.fed_dtype(),
                    tensor.dtype()
                )));
            }
        }
        Ok(())
    }
}

fn is_past(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| Instant::now() >= deadline)
}

fn late() -> Status {
    Status::deadline_exceeded("the run was stopped at its deadline")
}

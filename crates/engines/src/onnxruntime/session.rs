//! One version in ONNX Runtime: its signatures bound to sessions, and its runs.
//!
//! May not know: where models come from. Invariant: a run feeds what its signature declares, of
//! shapes that the declaration accepts; the translation is exact for those alone.

use std::ffi::{CStr, CString};
use std::sync::Arc;
use std::time::Instant;

use vesta_ffi::{OnnxRunOptions, OnnxRuntime, OnnxRuntimeError, OnnxSession, OnnxValue};
use vesta_model::{PartialShape, RunRequest, Signature, Status, Tensor};

use super::deadlines::Deadlines;
use super::values::{from_value, status, to_value};
use crate::bound::{Bound, Runner, is_past, late};

/// A version loaded in ONNX Runtime.
pub(super) struct LoadedModel {
    library: &'static OnnxRuntime,
    deadlines: Deadlines,
}

/// A signature in terms of a model.
pub(super) struct BoundModel {
    pub(super) signature: Arc<Signature>,
    /// The shapes that its inputs take.
    pub(super) shapes: Vec<PartialShape>,
    /// What makes the network's only input of the signature's.
    pub(super) before: Option<Part>,
    /// Gives the signature's outputs.
    pub(super) network: Part,
}

/// A model, or what a signature has of one.
pub(super) struct Part {
    /// Signatures of one network have one.
    pub(super) session: Arc<OnnxSession>,
    /// Its inputs, in the order in which they are given.
    pub(super) feeds: Vec<CString>,
    /// Its outputs, as they are asked for by number.
    pub(super) fetches: Vec<CString>,
}

impl Part {
    fn run(
        &self,
        options: &OnnxRunOptions,
        values: &[OnnxValue],
        outputs: &[usize],
    ) -> Result<Vec<OnnxValue>, OnnxRuntimeError> {
        let feeds: Vec<(&CStr, &OnnxValue)> =
            self.feeds.iter().map(CString::as_c_str).zip(values).collect();
        let fetches: Vec<&CStr> =
            outputs.iter().map(|&index| self.fetches[index].as_c_str()).collect();
        self.session.run(options, &feeds, &fetches)
    }
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

    fn shapes(&self) -> &[PartialShape] {
        &self.shapes
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
        if request.outputs.is_empty() {
            return Ok(Vec::new());
        }
        let options = Arc::new(OnnxRunOptions::new(self.library).map_err(|error| status(&error))?);
        let values = inputs
            .into_iter()
            .map(|input| to_value(self.library, input))
            .collect::<Result<Vec<OnnxValue>, _>>()?;
        let listed = deadline
            .map(|deadline| self.deadlines.list(deadline, Arc::clone(&options)))
            .transpose()?;
        let outcome = match &bound.before {
            Some(before) => before
                .run(&options, &values, &[0])
                .and_then(|made| bound.network.run(&options, &made, &request.outputs)),
            None => bound.network.run(&options, &values, &request.outputs),
        };
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

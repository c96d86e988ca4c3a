//! One version in ONNX Runtime: its signatures bound to sessions, and its runs.
//!
//! May not know: where models come from. Invariant: a run feeds what its signature declares, of
//! shapes that the declaration accepts; the translation is exact for those alone.

use std::ffi::{CStr, CString};
use std::sync::Arc;
use std::time::Instant;

use vesta_ffi::{OnnxRunOptions, OnnxRuntime, OnnxRuntimeError, OnnxSession, OnnxValue};
use vesta_model::{DType, PartialShape, RunRequest, Signature, Status, Tensor};
use vesta_protos::onnx::ModelProto;

use super::deadlines::Deadlines;
use super::values::{from_onnx, from_value, status, to_value};
use crate::bound::{Bound, Runner, is_past, late};
use crate::ordinary::{Careful, Ordinary, are_ordinary, is_ordinary, is_ordinary_sum};

/// A version loaded in ONNX Runtime.
pub(super) struct LoadedModel {
    library: &'static OnnxRuntime,
    /// Answers what is not ordinary.
    careful: Option<Careful>,
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
    /// What the network was made for, if not for any run.
    pub(super) limits: Option<Limits>,
}

/// A network that is made for ordinary runs.
#[derive(Clone)]
pub(super) struct Limits {
    /// The output that says whether a run was, where its inputs do not.
    sums: Option<CString>,
}

impl Limits {
    /// Writes into the model what a run is known by; `None` where any run is ordinary.
    pub(super) fn of(
        ordinary: &Ordinary,
        model: &mut ModelProto,
    ) -> Result<Option<Limits>, Status> {
        if !ordinary.is_limited() {
            return Ok(None);
        }
        let sums = ordinary.write_sums(model).map(|name| name_of(&name)).transpose()?;
        Ok(Some(Limits { sums }))
    }
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
    /// Gives the outputs with these numbers, and then `last`.
    fn run(
        &self,
        options: &OnnxRunOptions,
        values: &[OnnxValue],
        outputs: &[usize],
        last: Option<&CStr>,
    ) -> Result<Vec<OnnxValue>, OnnxRuntimeError> {
        let feeds: Vec<(&CStr, &OnnxValue)> =
            self.feeds.iter().map(CString::as_c_str).zip(values).collect();
        let own = outputs.iter().map(|&index| self.fetches[index].as_c_str());
        let fetches: Vec<&CStr> = own.chain(last).collect();
        self.session.run(options, &feeds, &fetches)
    }
}

impl LoadedModel {
    /// `careful` answers what is not ordinary, where a signature has limits.
    pub(super) fn new(library: &'static OnnxRuntime, careful: Option<Careful>) -> LoadedModel {
        LoadedModel { library, careful, deadlines: Deadlines::default() }
    }

    /// The outputs that the request names; `None` of a run that was not ordinary.
    fn run_ordinary(
        &self,
        bound: &BoundModel,
        outputs: &[usize],
        inputs: Vec<Tensor>,
        deadline: Option<Instant>,
    ) -> Result<Option<Vec<OnnxValue>>, Status> {
        if bound.limits.is_some() && !is_ordinary(&inputs) {
            return Ok(None);
        }
        let options = Arc::new(OnnxRunOptions::new(self.library).map_err(|error| status(&error))?);
        let mut values = inputs
            .into_iter()
            .map(|input| to_value(self.library, input))
            .collect::<Result<Vec<OnnxValue>, _>>()?;
        let listed = deadline
            .map(|deadline| self.deadlines.list(deadline, Arc::clone(&options)))
            .transpose()?;
        // A run that was told to end says so in words alone.
        let failed =
            |error: OnnxRuntimeError| if is_past(deadline) { late() } else { status(&error) };
        if let Some(before) = &bound.before {
            values = before.run(&options, &values, &[0], None).map_err(failed)?;
            if bound.limits.is_some() && !values.iter().all(is_ordinary_value) {
                return Ok(None);
            }
        }
        let sums = bound.limits.as_ref().and_then(|limits| limits.sums.as_deref());
        let mut given = bound.network.run(&options, &values, outputs, sums).map_err(failed)?;
        drop(listed);
        let last = sums.and_then(|_| given.pop());
        let is_ordinary = last.is_none_or(|sum| sum.bytes().is_some_and(is_ordinary_sum));
        Ok(is_ordinary.then_some(given))
    }
}

/// Whether an ordinary run may have this value of floats.
fn is_ordinary_value(value: &OnnxValue) -> bool {
    from_onnx(value.element()) != Some(DType::F32) || value.bytes().is_some_and(are_ordinary)
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
        // Tensors share their memory.
        let again =
            bound.limits.as_ref().and(self.careful.as_ref()).map(|own| (own, inputs.clone()));
        let given = match (self.run_ordinary(bound, &request.outputs, inputs, deadline)?, again) {
            (Some(given), _) => given,
            (None, Some((careful, inputs))) => return careful.run(request, inputs, deadline),
            (None, None) => {
                return Err(Status::internal("a run is not ordinary, and none else may be"));
            }
        };
        let outputs = request.outputs.iter().zip(given);
        outputs
            .map(|(&index, value)| from_value(&bound.signature.outputs[index].alias, value))
            .collect()
    }
}

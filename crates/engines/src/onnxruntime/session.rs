//! One version in ONNX Runtime: its signatures bound to sessions, and its runs.
//!
//! May not know: where models come from. Invariant: a run feeds what its signature declares, of
//! shapes that the declaration accepts; the translation is exact for those alone.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::sync::Arc;
use std::time::Instant;

use vesta_ffi::{OnnxRunOptions, OnnxRuntime, OnnxSession, OnnxValue};
use vesta_model::{
    AlignedBytes, DType, InputLayout, ModelDescription, PartialShape, Run, RunRequest, Session,
    Signature, Status, Tensor, TensorSpec, strings_byte_len,
};

use super::deadlines::Deadlines;
use super::values::{from_value, status, to_value};

/// A version loaded in ONNX Runtime.
pub(super) struct LoadedModel {
    description: ModelDescription,
    shared: Arc<Shared>,
}

/// What the session and its runs share.
struct Shared {
    library: &'static OnnxRuntime,
    /// By the name of the signature; those that have nothing to compute are absent.
    bound: BTreeMap<String, Bound>,
    deadlines: Deadlines,
}

/// A signature in terms of a model.
pub(super) struct Bound {
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
    pub(super) fn new(
        library: &'static OnnxRuntime,
        description: ModelDescription,
        bound: BTreeMap<String, Bound>,
    ) -> LoadedModel {
        let shared = Arc::new(Shared { library, bound, deadlines: Deadlines::default() });
        LoadedModel { description, shared }
    }

    fn bound(&self, request: &RunRequest) -> Result<&Bound, Status> {
        if !self.shared.bound.contains_key(&request.signature)
            && self.description.signatures.contains_key(&request.signature)
        {
            return Err(Status::invalid_argument(format!(
                "signature {} has nothing to compute",
                request.signature
            )));
        }
        self.shared.bound(request)
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

impl Session for LoadedModel {
    fn description(&self) -> &ModelDescription {
        &self.description
    }

    fn prepare(&self, request: &RunRequest) -> Result<Box<dyn Run>, Status> {
        let bound = self.bound(request)?;
        let inputs = bound
            .signature
            .inputs
            .iter()
            .zip(&request.inputs)
            .map(|(spec, layout)| memory_for(spec, layout))
            .collect::<Result<Vec<_>, Status>>()?;
        let shared = Arc::clone(&self.shared);
        Ok(Box::new(OnnxRun { shared, request: request.clone(), inputs }))
    }

    fn run_over(
        &self,
        request: &RunRequest,
        inputs: Vec<Tensor>,
        deadline: Option<Instant>,
    ) -> Result<Vec<Tensor>, Status> {
        self.bound(request)?;
        self.shared.run(request, inputs, deadline)
    }
}

fn memory_for(spec: &TensorSpec, layout: &InputLayout) -> Result<AlignedBytes, Status> {
    let dtype = spec.fed_dtype();
    let bytes = match dtype.width() {
        Some(width) => layout.shape.bytes(width)?,
        None if dtype == DType::String => {
            strings_byte_len(layout.shape.elements(), layout.string_bytes).ok_or_else(|| {
                Status::invalid_argument(format!("input {} is too large", spec.alias))
            })?
        }
        None => {
            return Err(Status::invalid_argument(format!(
                "input {} of dtype {dtype} cannot be fed",
                spec.alias
            )));
        }
    };
    Ok(AlignedBytes::zeroed(bytes))
}

/// A run whose inputs lie on the heap.
struct OnnxRun {
    shared: Arc<Shared>,
    request: RunRequest,
    inputs: Vec<AlignedBytes>,
}

impl Run for OnnxRun {
    fn input(&mut self, index: usize) -> &mut [u8] {
        self.inputs.get_mut(index).map(AlignedBytes::bytes_mut).unwrap_or_default()
    }

    fn run(self: Box<Self>, deadline: Option<Instant>) -> Result<Vec<Tensor>, Status> {
        let OnnxRun { shared, request, inputs } = *self;
        let signature = Arc::clone(&shared.bound(&request)?.signature);
        let specs = signature.inputs.iter().zip(&request.inputs);
        let tensors = specs
            .zip(inputs)
            .map(|((spec, layout), memory)| {
                Tensor::whole(spec.fed_dtype(), layout.shape.clone(), Arc::new(memory))
            })
            .collect::<Result<Vec<_>, Status>>()?;
        shared.run(&request, tensors, deadline)
    }
}

impl Shared {
    /// The signature that a request means, if the request fits it.
    fn bound(&self, request: &RunRequest) -> Result<&Bound, Status> {
        let bound = self.bound.get(&request.signature).ok_or_else(|| {
            Status::not_found(format!("signature {} not found", request.signature))
        })?;
        if request.inputs.len() != bound.feeds.len() {
            return Err(Status::invalid_argument(format!(
                "signature {} has {} inputs, but {} were given",
                request.signature,
                bound.feeds.len(),
                request.inputs.len()
            )));
        }
        if let Some(&bad) = request.outputs.iter().find(|&&index| index >= bound.fetches.len()) {
            return Err(Status::invalid_argument(format!(
                "signature {} has no output {bad}",
                request.signature
            )));
        }
        Ok(bound)
    }

    fn run(
        &self,
        request: &RunRequest,
        inputs: Vec<Tensor>,
        deadline: Option<Instant>,
    ) -> Result<Vec<Tensor>, Status> {
        let bound = self.bound(request)?;
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

impl Bound {
    /// Checks that the tensors are what the model takes.
    fn check(&self, inputs: &[Tensor]) -> Result<(), Status> {
        if inputs.len() != self.feeds.len() {
            return Err(Status::invalid_argument(format!(
                "{} tensors were given for {} inputs",
                inputs.len(),
                self.feeds.len()
            )));
        }
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

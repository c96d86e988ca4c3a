//! One version on a native engine: its signatures, each bound to a model of the engine's, and its runs.
//!
//! Owns: what every such engine checks before a run, and the form in which C++ kernels take tensors. May
//! not know: any engine. Invariant: a run feeds what its signature declares, of shapes that the model
//! declares.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use vesta_model::{
    AlignedBytes, DType, InputLayout, ModelDescription, PartialShape, Run, RunRequest, Session,
    Signature, Status, Tensor, TensorSpec, strings_byte_len,
};

/// A model of an engine's.
pub(crate) trait Runner: Send + Sync {
    /// Runs it over `inputs`, which were checked; gives the outputs with these indices, at least one.
    ///
    /// # Errors
    /// `DEADLINE_EXCEEDED` when the run was given up at its deadline; those of the engine.
    fn run(
        &self,
        signature: &Signature,
        inputs: Vec<Tensor>,
        outputs: &[usize],
        deadline: Option<Instant>,
    ) -> Result<Vec<Tensor>, Status>;
}

/// A version, loaded.
pub(crate) struct LoadedModel {
    description: ModelDescription,
    bound: Arc<BoundSignatures>,
}

/// By the name of the signature; those that have nothing to compute are absent.
type BoundSignatures = BTreeMap<String, Bound>;

/// A signature in terms of a model.
pub(crate) struct Bound {
    pub(crate) signature: Arc<Signature>,
    /// The shapes that the model takes, one for each of the signature's inputs.
    pub(crate) shapes: Vec<PartialShape>,
    /// A model with one input and one output for each of the signature's.
    pub(crate) runner: Box<dyn Runner>,
}

impl LoadedModel {
    pub(crate) fn new(description: ModelDescription, bound: BoundSignatures) -> LoadedModel {
        LoadedModel { description, bound: Arc::new(bound) }
    }

    fn bound(&self, request: &RunRequest) -> Result<&Bound, Status> {
        if !self.bound.contains_key(&request.signature)
            && self.description.signatures.contains_key(&request.signature)
        {
            return Err(Status::invalid_argument(format!(
                "signature {} has nothing to compute",
                request.signature
            )));
        }
        find(&self.bound, request)
    }
}

/// The signature that a request means, if the request fits it.
fn find<'b>(all: &'b BoundSignatures, request: &RunRequest) -> Result<&'b Bound, Status> {
    let bound = all
        .get(&request.signature)
        .ok_or_else(|| Status::not_found(format!("signature {} not found", request.signature)))?;
    if request.inputs.len() != bound.shapes.len() {
        return Err(Status::invalid_argument(format!(
            "signature {} has {} inputs, but {} were given",
            request.signature,
            bound.shapes.len(),
            request.inputs.len()
        )));
    }
    if let Some(&bad) =
        request.outputs.iter().find(|&&index| index >= bound.signature.outputs.len())
    {
        return Err(Status::invalid_argument(format!(
            "signature {} has no output {bad}",
            request.signature
        )));
    }
    Ok(bound)
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
        let all = Arc::clone(&self.bound);
        Ok(Box::new(HeapRun { all, request: request.clone(), inputs }))
    }

    fn run_over(
        &self,
        request: &RunRequest,
        inputs: Vec<Tensor>,
        deadline: Option<Instant>,
    ) -> Result<Vec<Tensor>, Status> {
        self.bound(request)?.run(request, inputs, deadline)
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
struct HeapRun {
    all: Arc<BoundSignatures>,
    request: RunRequest,
    inputs: Vec<AlignedBytes>,
}

impl Run for HeapRun {
    fn input(&mut self, index: usize) -> &mut [u8] {
        self.inputs.get_mut(index).map(AlignedBytes::bytes_mut).unwrap_or_default()
    }

    fn run(self: Box<Self>, deadline: Option<Instant>) -> Result<Vec<Tensor>, Status> {
        let HeapRun { all, request, inputs } = *self;
        let bound = find(&all, &request)?;
        let specs = bound.signature.inputs.iter().zip(&request.inputs);
        let tensors = specs
            .zip(inputs)
            .map(|((spec, layout), memory)| {
                Tensor::whole(spec.fed_dtype(), layout.shape.clone(), Arc::new(memory))
            })
            .collect::<Result<Vec<_>, Status>>()?;
        bound.run(&request, tensors, deadline)
    }
}

impl Bound {
    fn run(
        &self,
        request: &RunRequest,
        inputs: Vec<Tensor>,
        deadline: Option<Instant>,
    ) -> Result<Vec<Tensor>, Status> {
        self.check(&inputs)?;
        if request.outputs.is_empty() {
            return Ok(Vec::new());
        }
        if is_past(deadline) {
            return Err(late());
        }
        self.runner.run(&self.signature, inputs, &request.outputs, deadline)
    }

    /// Checks that the tensors are what the model takes.
    fn check(&self, inputs: &[Tensor]) -> Result<(), Status> {
        if inputs.len() != self.shapes.len() {
            return Err(Status::invalid_argument(format!(
                "{} tensors were given for {} inputs",
                inputs.len(),
                self.shapes.len()
            )));
        }
        for ((spec, shape), tensor) in self.signature.inputs.iter().zip(&self.shapes).zip(inputs) {
            if !shape.accepts(tensor.shape()) {
                return Err(Status::invalid_argument(format!(
                    "input {} has shape {}, but the model declares {}, and the engine holds it to \
                     that; send a tensor of the declared shape",
                    spec.alias,
                    tensor.shape(),
                    shape
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

pub(crate) fn is_past(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| Instant::now() >= deadline)
}

pub(crate) fn late() -> Status {
    Status::deadline_exceeded("the run was stopped at its deadline")
}

/// A tensor whose bytes an engine reads in place.
pub(crate) struct Fed(pub(crate) Tensor);

impl AsRef<[u8]> for Fed {
    fn as_ref(&self) -> &[u8] {
        self.0.bytes()
    }
}

/// The same tensor as C++ kernels expect it.
pub(crate) fn fit_for_kernels(tensor: Tensor) -> Result<Tensor, Status> {
    aligned(clean(tensor)?)
}

/// A boolean is 0 or 1 in C++, where any other byte is undefined; clients may have sent one.
fn clean(tensor: Tensor) -> Result<Tensor, Status> {
    if tensor.dtype() != DType::Bool || tensor.bytes().iter().all(|&byte| byte <= 1) {
        return Ok(tensor);
    }
    let bytes: Vec<u8> = tensor.bytes().iter().map(|&byte| u8::from(byte != 0)).collect();
    Tensor::copied(DType::Bool, tensor.shape().clone(), &bytes)
}

/// The same tensor where kernels expect it to lie.
fn aligned(tensor: Tensor) -> Result<Tensor, Status> {
    if tensor.bytes().as_ptr().addr().is_multiple_of(AlignedBytes::ALIGNMENT) {
        return Ok(tensor);
    }
    Tensor::copied(tensor.dtype(), tensor.shape().clone(), tensor.bytes())
}

#[cfg(test)]
mod tests {
    use vesta_model::Shape;

    use super::*;

    #[test]
    fn booleans_are_zero_or_one() {
        let odd = Tensor::copied(DType::Bool, Shape::vector(3), &[0, 7, 1]).unwrap();
        assert_eq!(clean(odd).unwrap().bytes(), [0, 1, 1]);
    }
}

//! One version on a native engine: its signatures in the engine's terms, and runs whose inputs lie on
//! the heap until the engine takes them.
//!
//! Owns: what every such engine checks before a run, the memory of inputs, and the form in which C++ kernels
//! take tensors. May not know: any engine. Invariant: an engine is given a request that fits its signature,
//! with a tensor for each input, of its dtype and of a shape that the engine takes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use vesta_model::{
    AlignedBytes, DType, InputLayout, ModelDescription, PartialShape, Run, RunRequest, Session,
    Signature, Status, Tensor, TensorSpec, strings_byte_len,
};

/// An engine with a version in it.
pub(crate) trait Runner: Send + Sync + 'static {
    /// A signature in the engine's terms.
    type Bound: Bound;

    /// Runs a signature over `inputs`, one for each that it declares; gives the outputs that the
    /// request names, all of which it declares.
    ///
    /// # Errors
    /// `DEADLINE_EXCEEDED` when the run was given up at its deadline; those of the engine.
    fn run(
        &self,
        bound: &Self::Bound,
        request: &RunRequest,
        inputs: Vec<Tensor>,
        deadline: Option<Instant>,
    ) -> Result<Vec<Tensor>, Status>;
}

/// A signature in an engine's terms.
pub(crate) trait Bound: Send + Sync {
    /// As clients see it.
    fn signature(&self) -> &Signature;

    /// The shapes that the engine holds inputs to, one for each; none where it takes any.
    fn shapes(&self) -> &[PartialShape] {
        &[]
    }
}

/// A tensor whose bytes an engine reads in place.
pub(crate) struct Fed(pub(crate) Tensor);

impl AsRef<[u8]> for Fed {
    fn as_ref(&self) -> &[u8] {
        self.0.bytes()
    }
}

/// A version loaded in an engine.
pub(crate) struct BoundSession<R: Runner> {
    description: ModelDescription,
    shared: Arc<Shared<R>>,
}

/// What the session and its runs share.
struct Shared<R: Runner> {
    runner: R,
    /// By the name of the signature; those that have nothing to compute are absent.
    bound: BTreeMap<String, R::Bound>,
}

impl<R: Runner> BoundSession<R> {
    /// `bound` has the signatures of `description` that have something to compute, by their names.
    pub(crate) fn new(
        description: ModelDescription,
        runner: R,
        bound: BTreeMap<String, R::Bound>,
    ) -> BoundSession<R> {
        BoundSession { description, shared: Arc::new(Shared { runner, bound }) }
    }
}

impl<R: Runner> Session for BoundSession<R> {
    fn description(&self) -> &ModelDescription {
        &self.description
    }

    fn prepare(&self, request: &RunRequest) -> Result<Box<dyn Run>, Status> {
        let signature = find(&self.shared.bound, &self.description, request)?.signature();
        let specs = signature.inputs.iter().zip(&request.inputs);
        let inputs = specs
            .map(|(spec, layout)| memory_for(spec, layout))
            .collect::<Result<Vec<_>, Status>>()?;
        let shared = Arc::clone(&self.shared);
        Ok(Box::new(HeapRun { shared, request: request.clone(), inputs }))
    }

    fn run_over(
        &self,
        request: &RunRequest,
        inputs: Vec<Tensor>,
        deadline: Option<Instant>,
    ) -> Result<Vec<Tensor>, Status> {
        let bound = find(&self.shared.bound, &self.description, request)?;
        let wanted = bound.signature().inputs.len();
        if inputs.len() != wanted {
            return Err(Status::invalid_argument(format!(
                "{} tensors were given for {wanted} inputs",
                inputs.len()
            )));
        }
        self.shared.run(bound, request, inputs, deadline)
    }
}

impl<R: Runner> Shared<R> {
    fn run(
        &self,
        bound: &R::Bound,
        request: &RunRequest,
        inputs: Vec<Tensor>,
        deadline: Option<Instant>,
    ) -> Result<Vec<Tensor>, Status> {
        check(bound, &inputs)?;
        if is_past(deadline) {
            return Err(late());
        }
        self.runner.run(bound, request, inputs, deadline)
    }
}

/// Checks that tensors, one for each input, are what the engine takes.
fn check(bound: &impl Bound, inputs: &[Tensor]) -> Result<(), Status> {
    let specs = &bound.signature().inputs;
    for (TensorSpec { alias, .. }, (shape, tensor)) in
        specs.iter().zip(bound.shapes().iter().zip(inputs))
    {
        if !shape.accepts(tensor.shape()) {
            return Err(Status::invalid_argument(format!(
                "input {alias} has shape {}, but the model declares {shape}, and the engine holds it \
                 to that; send a tensor of the declared shape",
                tensor.shape(),
            )));
        }
    }
    for (spec, tensor) in specs.iter().zip(inputs) {
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

pub(crate) fn is_past(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| Instant::now() >= deadline)
}

pub(crate) fn late() -> Status {
    Status::deadline_exceeded("the run was stopped at its deadline")
}

/// The signature that a request means, if the request fits it.
fn find<'b, B: Bound>(
    all: &'b BTreeMap<String, B>,
    description: &ModelDescription,
    request: &RunRequest,
) -> Result<&'b B, Status> {
    let name = &request.signature;
    let Some(bound) = all.get(name) else {
        return Err(if description.signatures.contains_key(name) {
            Status::invalid_argument(format!("signature {name} has nothing to compute"))
        } else {
            Status::not_found(format!("signature {name} not found"))
        });
    };
    let signature = bound.signature();
    let (wanted, given) = (signature.inputs.len(), request.inputs.len());
    if wanted != given {
        return Err(Status::invalid_argument(format!(
            "signature {name} has {wanted} inputs, but {given} were given"
        )));
    }
    match request.outputs.iter().find(|&&index| index >= signature.outputs.len()) {
        Some(bad) => Err(Status::invalid_argument(format!("signature {name} has no output {bad}"))),
        None => Ok(bound),
    }
}

fn memory_for(spec: &TensorSpec, layout: &InputLayout) -> Result<AlignedBytes, Status> {
    let (alias, dtype) = (&spec.alias, spec.fed_dtype());
    let bytes = match dtype.width() {
        Some(width) => layout.shape.bytes(width)?,
        None if dtype == DType::String => {
            strings_byte_len(layout.shape.elements(), layout.string_bytes)
                .ok_or_else(|| Status::invalid_argument(format!("input {alias} is too large")))?
        }
        None => {
            return Err(Status::invalid_argument(format!(
                "input {alias} of dtype {dtype} cannot be fed"
            )));
        }
    };
    Ok(AlignedBytes::zeroed(bytes))
}

/// A run whose inputs lie on the heap. Its request was found to fit.
struct HeapRun<R: Runner> {
    shared: Arc<Shared<R>>,
    request: RunRequest,
    inputs: Vec<AlignedBytes>,
}

impl<R: Runner> Run for HeapRun<R> {
    fn input(&mut self, index: usize) -> &mut [u8] {
        self.inputs.get_mut(index).map(AlignedBytes::bytes_mut).unwrap_or_default()
    }

    fn run(self: Box<Self>, deadline: Option<Instant>) -> Result<Vec<Tensor>, Status> {
        let HeapRun { shared, request, inputs } = *self;
        let bound = shared.bound.get(&request.signature).ok_or_else(|| {
            Status::internal(format!("signature {} was there before", request.signature))
        })?;
        let layouts = bound.signature().inputs.iter().zip(&request.inputs).zip(inputs);
        let tensors = layouts
            .map(|((spec, layout), memory)| {
                Tensor::whole(spec.fed_dtype(), layout.shape.clone(), Arc::new(memory))
            })
            .collect::<Result<Vec<_>, Status>>()?;
        shared.run(bound, &request, tensors, deadline)
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

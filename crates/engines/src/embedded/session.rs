//! A loaded version: checks requests, holds the memory of a run, and walks the steps of a program.
//!
//! May not know: files, how programs come about. Invariant: a request that does not fit is an error
//! before anything is computed; outputs have the dtypes that the signature declares.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use vesta_model::{
    AlignedBytes, DType, ModelDescription, Run, RunRequest, Session, Shape, Signature, Status,
    Tensor, strings_byte_len,
};

use super::footprint::HostBytes;
use super::numeric::NumericModel;
use super::plan::{Program, Step};

/// A version loaded in the embedded engine.
pub struct EmbeddedSession {
    description: ModelDescription,
    inline: Result<(), String>,
    shared: Arc<Shared>,
}

/// What sessions and their runs share.
pub(crate) struct Shared {
    /// By the name of the signature; signatures that cannot be called are absent.
    pub(crate) callable: BTreeMap<String, Callable>,
    /// The numeric parts of all signatures, if there are any.
    pub(crate) numeric: Option<NumericModel>,
    pub(crate) threads: usize,
}

/// One signature that can be called.
pub(crate) struct Callable {
    pub(crate) signature: Arc<Signature>,
    pub(crate) program: Program,
}

impl fmt::Debug for EmbeddedSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signatures: Vec<&String> = self.description.signatures.keys().collect();
        f.debug_struct("EmbeddedSession")
            .field("signatures", &signatures)
            .field("inline", &self.inline)
            .finish_non_exhaustive()
    }
}

impl EmbeddedSession {
    pub(crate) fn new(
        description: ModelDescription,
        shared: Shared,
        inline: Result<(), String>,
    ) -> EmbeddedSession {
        EmbeddedSession { description, inline, shared: Arc::new(shared) }
    }

    /// Whether the version may run inside the server's process.
    ///
    /// # Errors
    /// Why not, in words for the server's operator.
    pub fn inline_verdict(&self) -> Result<(), String> {
        self.inline.clone()
    }
}

impl Session for EmbeddedSession {
    fn description(&self) -> &ModelDescription {
        &self.description
    }

    fn prepare(&self, request: &RunRequest) -> Result<Box<dyn Run>, Status> {
        let callable = self.callable(&request.signature)?;
        let signature = &callable.signature;
        if request.inputs.len() != signature.inputs.len() {
            return Err(Status::invalid_argument(format!(
                "signature {} has {} inputs, but {} were given",
                request.signature,
                signature.inputs.len(),
                request.inputs.len()
            )));
        }
        if let Some(&bad) = request.outputs.iter().find(|&&at| at >= signature.outputs.len()) {
            return Err(Status::invalid_argument(format!(
                "signature {} has no output {bad}",
                request.signature
            )));
        }
        let mut inputs = Vec::with_capacity(request.inputs.len());
        let feeds = &callable.program.feeds;
        for ((layout, spec), &(_, wanted)) in
            request.inputs.iter().zip(&signature.inputs).zip(feeds)
        {
            let bytes = if wanted == DType::String {
                strings_byte_len(layout.shape.elements(), layout.string_bytes).ok_or_else(|| {
                    Status::invalid_argument(format!("input {} takes too many bytes", spec.alias))
                })?
            } else {
                let width = wanted.width().ok_or_else(|| {
                    Status::invalid_argument(format!("input {} cannot be {wanted}", spec.alias))
                })?;
                layout.shape.bytes(width)?
            };
            inputs.push(Input { shape: layout.shape.clone(), memory: AlignedBytes::zeroed(bytes) });
        }
        Ok(Box::new(EmbeddedRun {
            shared: Arc::clone(&self.shared),
            signature: request.signature.clone(),
            inputs,
            outputs: request.outputs.clone(),
        }))
    }
}

impl EmbeddedSession {
    fn callable(&self, name: &str) -> Result<&Callable, Status> {
        self.shared.callable.get(name).ok_or_else(|| {
            if self.description.signatures.contains_key(name) {
                Status::invalid_argument(format!("signature {name} has nothing to compute"))
            } else {
                Status::not_found(format!("signature {name} not found"))
            }
        })
    }
}

struct Input {
    shape: Shape,
    memory: AlignedBytes,
}

struct EmbeddedRun {
    shared: Arc<Shared>,
    signature: String,
    inputs: Vec<Input>,
    outputs: Vec<usize>,
}

impl Run for EmbeddedRun {
    fn input(&mut self, index: usize) -> &mut [u8] {
        self.inputs[index].memory.bytes_mut()
    }

    fn run(self: Box<Self>, deadline: Option<Instant>) -> Result<Vec<Tensor>, Status> {
        let EmbeddedRun { shared, signature, inputs, outputs } = *self;
        let callable = shared
            .callable
            .get(&signature)
            .ok_or_else(|| Status::internal("a run outlived its signature"))?;
        let mut tensors = Vec::with_capacity(inputs.len());
        for (input, &(_, dtype)) in inputs.into_iter().zip(&callable.program.feeds) {
            tensors.push(Tensor::whole(dtype, input.shape, Arc::new(input.memory))?);
        }
        callable.program.run(shared.numeric.as_ref(), shared.threads, tensors, &outputs, deadline)
    }
}

impl Program {
    /// Runs the steps that the wanted outputs need.
    pub(crate) fn run(
        &self,
        numeric: Option<&NumericModel>,
        threads: usize,
        feeds: Vec<Tensor>,
        outputs: &[usize],
        deadline: Option<Instant>,
    ) -> Result<Vec<Tensor>, Status> {
        let mut slots: Vec<Option<Tensor>> = vec![None; self.slots];
        for (tensor, &(slot, _)) in feeds.into_iter().zip(&self.feeds) {
            slots[slot] = Some(tensor);
        }
        for (slot, tensor) in &self.constants {
            slots[*slot] = Some(tensor.clone());
        }
        let needed = self.needed(outputs);
        let mut host_bytes = HostBytes::default();
        for (step, needed_slots) in self.steps.iter().zip(&needed) {
            if !needed_slots.runs {
                continue;
            }
            check_deadline(deadline)?;
            match step {
                Step::Host { kernel, node, inputs, outputs, .. } => {
                    let operands = inputs
                        .iter()
                        .map(|&slot| filled(&slots, slot))
                        .collect::<Result<Vec<_>, _>>()?;
                    let results =
                        kernel.compute(&operands).map_err(|status| at_node(&status, node))?;
                    host_bytes.count(&operands, &results)?;
                    for (&slot, tensor) in outputs.iter().zip(results) {
                        slots[slot] = Some(tensor);
                    }
                }
                Step::Numeric(step) => {
                    let model = numeric.ok_or_else(|| {
                        Status::internal("a step needs a graph that is not there")
                    })?;
                    let operands = step
                        .inputs
                        .iter()
                        .map(|&(slot, feed)| Ok((feed, filled(&slots, slot)?)))
                        .collect::<Result<Vec<_>, Status>>()?;
                    let wanted: Vec<(usize, usize)> = step
                        .outputs
                        .iter()
                        .copied()
                        .filter(|(_, slot)| needed_slots.slots.contains(slot))
                        .collect();
                    let fetches: Vec<usize> = wanted.iter().map(|(fetch, _)| *fetch).collect();
                    let results = model.run(&operands, &fetches, threads)?;
                    for ((_, slot), tensor) in wanted.into_iter().zip(results) {
                        slots[slot] = Some(tensor);
                    }
                }
            }
        }
        check_deadline(deadline)?;
        outputs.iter().map(|&at| filled(&slots, self.fetches[at].0).cloned()).collect()
    }

    /// For each step whether it runs, and which of its slots somebody reads.
    fn needed(&self, outputs: &[usize]) -> Vec<Needed> {
        let mut wanted = vec![false; self.slots];
        outputs.iter().for_each(|&at| wanted[self.fetches[at].0] = true);
        let mut needed: Vec<Needed> = self
            .steps
            .iter()
            .rev()
            .map(|step| {
                let slots: Vec<usize> = step.fills().filter(|&slot| wanted[slot]).collect();
                let runs = !slots.is_empty();
                if runs {
                    step.reads().for_each(|slot| wanted[slot] = true);
                }
                Needed { runs, slots }
            })
            .collect();
        needed.reverse();
        needed
    }
}

/// Between steps: the engine cannot be stopped in the middle of one.
fn check_deadline(deadline: Option<Instant>) -> Result<(), Status> {
    if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
        return Err(Status::deadline_exceeded("Timed out waiting for notification"));
    }
    Ok(())
}

struct Needed {
    runs: bool,
    slots: Vec<usize>,
}

fn filled(slots: &[Option<Tensor>], slot: usize) -> Result<&Tensor, Status> {
    slots
        .get(slot)
        .and_then(Option::as_ref)
        .ok_or_else(|| Status::internal("a step reads a tensor that is not there"))
}

/// The error of a node with the node's name, as TensorFlow appends it.
fn at_node(status: &Status, node: &str) -> Status {
    Status::new(status.code(), format!("{}\n\t [[{{{{node {node}}}}}]]", status.message()))
}

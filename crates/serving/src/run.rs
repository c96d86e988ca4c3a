//! One run, from a request that waited to its answer. Only run threads come here.
//!
//! Owns the border behind which an engine may panic; may not know queues. Invariant: whatever the
//! engine does, the request gets an answer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use vesta_model::{RunRequest, Status, Tensor};

use crate::lease::Lease;
use crate::servable::Servable;
use crate::texts;

/// A checked request. Holds a lease, so that its version outlives a caller who went away.
pub(crate) struct RunOrder {
    pub(crate) lease: Lease,
    pub(crate) request: RunRequest,
    pub(crate) inputs: Vec<Tensor>,
}

impl RunOrder {
    /// Computes, and marks the session as broken when it panics.
    pub(crate) fn run(self, deadline: Option<Instant>) -> Result<Vec<Tensor>, Status> {
        let RunOrder { lease, request, inputs } = self;
        let servable = lease.servable();
        if servable.is_broken() {
            return Err(texts::session_broken(&servable.id));
        }
        // What a panic leaves half done is the session's own, and that is never used again.
        let outcome =
            catch_unwind(AssertUnwindSafe(|| compute(servable, &request, inputs, deadline)));
        outcome.unwrap_or_else(|_| {
            tracing::error!("the engine panicked while it ran servable {}", servable.id);
            servable.mark_broken();
            Err(texts::run_panicked(&servable.id))
        })
    }
}

fn compute(
    servable: &Servable,
    request: &RunRequest,
    inputs: Vec<Tensor>,
    deadline: Option<Instant>,
) -> Result<Vec<Tensor>, Status> {
    let mut run = servable.session.prepare(request)?;
    // Each input is freed as soon as it is copied.
    for (index, input) in inputs.into_iter().enumerate() {
        let bytes = input.bytes();
        let memory = run.input(index);
        if memory.len() != bytes.len() {
            let (want, got) = (bytes.len(), memory.len());
            return Err(texts::wrong_input_memory(&servable.id, index, want, got));
        }
        memory.copy_from_slice(bytes);
    }
    let outputs = run.run(deadline)?;
    if outputs.len() != request.outputs.len() {
        let (want, got) = (request.outputs.len(), outputs.len());
        return Err(texts::wrong_output_count(&servable.id, want, got));
    }
    Ok(outputs)
}

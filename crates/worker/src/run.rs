//! One run in a worker, from the slot for its inputs to tensors over its outputs.
//!
//! Owns the layout of a slot and the one retry. Knows nothing of processes but that they may die.
//! Invariant: a run is sent at most twice, and one of a stateful signature a second time only if the
//! worker that died had not begun it; outputs borrow the slot, so it is not used again while a view
//! of one lives.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use tracing::debug;
use vesta_ffi::SharedMemory;
use vesta_model::{AlignedBytes, Memory, Run, RunRequest, Signature, Status, Tensor};

use crate::arena::Lease;
use crate::isolated::Keeper;
use crate::link::{Ended, Link};
use crate::wake::after;
use crate::wire::{
    MARK_BYTES, WireInput, WireOutput, WireOutputs, WireRan, WireRun, WireSlot, broken, dtype,
    length, shape, tensor_bytes, wire_shape,
};

pub(crate) struct IsolatedRun {
    // Dropped first: the slot goes home while the session is surely alive.
    lease: Option<Lease>,
    request: RunRequest,
    /// Where in the slot each input lies.
    inputs: Vec<Range<usize>>,
    outputs_start: usize,
    stateful: bool,
    keeper: Arc<Keeper>,
}

/// What became of sending a run once.
enum Attempt {
    Answered(Vec<Tensor>),
    /// The worker died; the slot is back with its inputs.
    Died {
        status: Status,
        begun: bool,
    },
}

impl IsolatedRun {
    pub(crate) fn prepare(
        keeper: Arc<Keeper>,
        signature: &Signature,
        request: &RunRequest,
    ) -> Result<IsolatedRun, Status> {
        check(signature, request)?;
        let (inputs, outputs_start) = lay_out(signature, request)?;
        keeper.shared.link()?;
        let wanted = outputs_start.saturating_add(keeper.shared.sizes.expect(request));
        let lease = keeper.shared.arena.take(wanted)?;
        Ok(IsolatedRun {
            lease: Some(lease),
            request: request.clone(),
            inputs,
            outputs_start,
            stateful: signature.stateful,
            keeper,
        })
    }

    fn order(&self) -> WireRun {
        let inputs = self.request.inputs.iter().zip(&self.inputs);
        WireRun {
            id: 0,
            slot: WireSlot { id: 0, generation: 0, bytes: 0 },
            signature: self.request.signature.clone(),
            inputs: inputs
                .map(|(layout, range)| WireInput {
                    shape: wire_shape(&layout.shape),
                    string_bytes: layout.string_bytes as u64,
                    start: range.start as u64,
                })
                .collect(),
            outputs: self.request.outputs.iter().map(|&index| index as u32).collect(),
            outputs_start: self.outputs_start as u64,
            time_left_us: None,
        }
    }

    /// Runs, once more if the worker dies and that does no harm.
    fn run_to_end(&mut self, deadline: Option<Instant>) -> Result<Vec<Tensor>, Status> {
        let keeper = Arc::clone(&self.keeper);
        let shared = &keeper.shared;
        let until = deadline.unwrap_or_else(|| after(shared.options.run_limit));
        let mut may_retry = true;
        let mut link = shared.link();
        loop {
            if Instant::now() >= until {
                return Err(self.late(deadline));
            }
            let (status, begun) = match link {
                Ok(link) => match self.attempt(&link, until, deadline)? {
                    Attempt::Answered(outputs) => return Ok(outputs),
                    Attempt::Died { status, begun } => (status, begun),
                },
                Err(status) => (status, false),
            };
            if !may_retry || (begun && self.stateful) {
                return Err(status);
            }
            may_retry = false;
            debug!(model = %shared.request.model, "run waits for the next worker");
            let patience = after(shared.options.retry_wait);
            link = Ok(shared.link_before(until.min(patience)).map_err(|status| {
                if Instant::now() >= until { self.late(deadline) } else { status }
            })?);
        }
    }

    /// Sends the run and waits for what becomes of it.
    fn attempt(
        &mut self,
        link: &Arc<Link>,
        until: Instant,
        deadline: Option<Instant>,
    ) -> Result<Attempt, Status> {
        let lease = self
            .lease
            .take()
            .ok_or_else(|| Status::internal("a run was to be sent without its inputs"))?;
        let grace = self.keeper.shared.options.run_grace;
        match link.call(self.order(), lease, until, grace)? {
            Ended::Answered { lease, ran, fd } => {
                Ok(Attempt::Answered(self.outcome(link, lease, ran, fd)?))
            }
            Ended::Died { lease, status, begun } => {
                self.lease = Some(lease);
                Ok(Attempt::Died { status, begun })
            }
            Ended::TimedOut => Err(self.late(deadline)),
        }
    }

    fn outcome(
        &self,
        link: &Link,
        lease: Lease,
        ran: WireRan,
        fd: Option<OwnedFd>,
    ) -> Result<Vec<Tensor>, Status> {
        let outputs = match ran.outcome {
            Ok(outputs) => outputs,
            Err(status) => return Err(status.status()),
        };
        let tensors = self.tensors(lease, outputs, fd);
        if let Err(status) = &tensors {
            // An answer that makes no sense: nothing that the child says can be trusted.
            link.break_off(status.clone());
        }
        tensors
    }

    fn tensors(
        &self,
        lease: Lease,
        outputs: WireOutputs,
        fd: Option<OwnedFd>,
    ) -> Result<Vec<Tensor>, Status> {
        if outputs.outputs.len() != self.request.outputs.len() {
            return Err(broken("an answer with another number of outputs than asked for"));
        }
        let memory: Arc<dyn Memory> = match (outputs.own_memory_bytes, fd) {
            (None, None) => Arc::new(lease),
            (Some(bytes), Some(fd)) => {
                let memory = SharedMemory::from_fd(fd, length(bytes)?).map_err(|error| {
                    broken("an answer's memory cannot be used").with_cause(error)
                })?;
                Arc::new(lease.arena().adopt(memory))
            }
            _ => return Err(broken("an answer whose memory is missing or was not announced")),
        };
        let mut bytes = 0usize;
        let tensors = outputs
            .outputs
            .iter()
            .map(|output| {
                bytes = bytes.saturating_add(aligned(output.bytes as usize).unwrap_or(usize::MAX));
                tensor(output, &memory)
            })
            .collect::<Result<Vec<_>, _>>()?;
        self.keeper.shared.sizes.learn(&self.request, bytes);
        Ok(tensors)
    }

    fn late(&self, deadline: Option<Instant>) -> Status {
        let owner = self.keeper.shared.owner();
        match deadline {
            // The words of the original, which a run in this process ends with, too.
            Some(_) => Status::deadline_exceeded("Timed out waiting for notification"),
            None => Status::deadline_exceeded(format!(
                "a request to {owner} ran longer than the {} s that a request without deadline may",
                self.keeper.shared.options.run_limit.as_secs()
            )),
        }
    }
}

impl Run for IsolatedRun {
    fn input(&mut self, index: usize) -> &mut [u8] {
        match (&mut self.lease, self.inputs.get(index)) {
            (Some(lease), Some(range)) => {
                lease.bytes_mut().get_mut(range.clone()).unwrap_or_default()
            }
            _ => &mut [],
        }
    }

    fn run(mut self: Box<Self>, deadline: Option<Instant>) -> Result<Vec<Tensor>, Status> {
        self.run_to_end(deadline)
    }
}

fn tensor(output: &WireOutput, memory: &Arc<dyn Memory>) -> Result<Tensor, Status> {
    let start = length(output.start)?;
    let end = start
        .checked_add(length(output.bytes)?)
        .ok_or_else(|| broken("an output beyond its memory"))?;
    Tensor::new(dtype(output.dtype)?, shape(&output.shape)?, Arc::clone(memory), start..end)
        .map_err(|status| broken("an output that does not fit its memory").with_cause(status))
}

/// Whether the request names what the signature has.
fn check(signature: &Signature, request: &RunRequest) -> Result<(), Status> {
    if request.inputs.len() != signature.inputs.len() {
        return Err(Status::invalid_argument(format!(
            "signature `{}` has {} inputs, not {}",
            request.signature,
            signature.inputs.len(),
            request.inputs.len()
        )));
    }
    if let Some(index) = request.outputs.iter().find(|&&index| index >= signature.outputs.len()) {
        return Err(Status::invalid_argument(format!(
            "signature `{}` has {} outputs, so there is none at position {index}",
            request.signature,
            signature.outputs.len()
        )));
    }
    Ok(())
}

/// Where the inputs lie, behind the child's mark, and where they end, each aligned.
fn lay_out(
    signature: &Signature,
    request: &RunRequest,
) -> Result<(Vec<Range<usize>>, usize), Status> {
    let too_large = || Status::invalid_argument("the inputs of a request take too many bytes");
    let mut end = aligned(MARK_BYTES).ok_or_else(too_large)?;
    let mut ranges = Vec::with_capacity(request.inputs.len());
    for (spec, layout) in signature.inputs.iter().zip(&request.inputs) {
        let bytes = tensor_bytes(spec.fed_dtype(), &layout.shape, layout.string_bytes)
            .map_err(|status| status.prefixed(&format!("input `{}`: ", spec.alias)))?;
        let start = end;
        end = start.checked_add(bytes).ok_or_else(too_large)?;
        ranges.push(start..end);
        end = aligned(end).ok_or_else(too_large)?;
    }
    Ok((ranges, end))
}

/// The next position at which a tensor may begin.
pub(crate) fn aligned(position: usize) -> Option<usize> {
    position
        .checked_next_multiple_of(AlignedBytes::ALIGNMENT)
        .filter(|&position| position <= isize::MAX as usize)
}

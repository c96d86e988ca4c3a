//! The right to use one loaded version, and what a request does with it.
//!
//! Owns the check of a request against its signature and the wait for its answer; may not know how
//! runs are scheduled or versions unloaded. Invariant: a version is unloaded only after its last
//! hold is gone, and the hold's end is an event, never a wait.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::time::Instant;

use tokio::sync::oneshot;
use vesta_model::{InputLayout, ModelName, RunRequest, Signature, Status, Tensor, Version};

use crate::lane::{Answer, Waiting};
use crate::lifecycle::{Event, Ticket};
use crate::run::RunOrder;
use crate::servable::Servable;
use crate::texts;

/// What one request wants computed.
#[derive(Clone, Debug)]
pub struct InferRequest {
    /// Name of the signature.
    pub signature: String,
    /// One tensor per input of the signature, in its order.
    pub inputs: Vec<Tensor>,
    /// Positions of the outputs wanted, in the order wanted.
    pub outputs: Vec<usize>,
    /// When the caller stops waiting; `None` to wait for as long as it takes.
    pub deadline: Option<Instant>,
}

/// The right to use one loaded version. The version stays loaded until its last lease is dropped.
#[derive(Clone)]
pub struct Lease {
    hold: Arc<Hold>,
}

/// What the catalog and every lease of a version share.
struct Hold {
    // Fields drop in this order: the session's owner must be told only once this reference is gone,
    // else the last reference, and with it the unloading, could fall to a request's thread.
    servable: Arc<Servable>,
    _end: HoldEnd,
}

/// Tells the life cycle, when dropped, that a hold is gone.
struct HoldEnd {
    ticket: Ticket,
    events: Sender<Event>,
}

impl Lease {
    pub(crate) fn new(servable: Arc<Servable>, events: Sender<Event>) -> Lease {
        let end = HoldEnd { ticket: servable.ticket, events };
        Lease { hold: Arc::new(Hold { servable, _end: end }) }
    }

    pub(crate) fn servable(&self) -> &Servable {
        &self.hold.servable
    }

    /// The model's name.
    pub fn model(&self) -> &ModelName {
        &self.hold.servable.id.model
    }

    /// The version that was resolved.
    pub fn version(&self) -> Version {
        self.hold.servable.id.version
    }

    /// Every signature by name.
    pub fn signatures(&self) -> &BTreeMap<String, Arc<Signature>> {
        &self.hold.servable.session.description().signatures
    }

    /// Computes the outputs wanted. Dropping the future abandons the request: it leaves its queue
    /// without being run, unless it is running already.
    ///
    /// # Errors
    /// - `FAILED_PRECONDITION` for an unknown signature, `INVALID_ARGUMENT` for inputs or outputs
    ///   that are not the signature's;
    /// - `UNAVAILABLE`, at once, when too many requests wait already, the session is being replaced
    ///   or the server shuts down;
    /// - `DEADLINE_EXCEEDED` at the deadline, or `RESOURCE_EXHAUSTED` for one that waited for its
    ///   batch until then;
    /// - where requests are batched: `INVALID_ARGUMENT` for inputs without rows, of different numbers
    ///   of rows, or of too many; `FAILED_PRECONDITION` for a batch whose requests do not fit
    ///   together or whose outputs have not a row for each of theirs;
    /// - `INTERNAL` when the engine panicked, and whatever the engine itself gives.
    pub async fn infer(&self, request: InferRequest) -> Result<Vec<Tensor>, Status> {
        let deadline = request.deadline;
        let order = self.check(request)?;
        let servable = self.servable();
        if servable.is_broken() {
            return Err(texts::session_broken(&servable.id));
        }
        let now = Instant::now();
        let (reply, answer) = oneshot::channel();
        let queue = servable.queues.as_ref().and_then(|queues| queues.find(&order));
        let Some(queue) = queue else {
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Err(texts::timed_out());
            }
            servable.lane.push(Waiting { since: now, deadline, reply, work: order })?;
            return answered(answer, deadline, texts::timed_out).await;
        };
        let begun = queue.enter(order, deadline, now, reply)?;
        // One that never began waited in vain, which is another error, as in the original.
        let timed_out = move || {
            if begun.load(Ordering::Acquire) {
                texts::timed_out()
            } else {
                texts::expired_in_queue()
            }
        };
        answered(answer, deadline, timed_out).await
    }

    /// Holds a request to its signature. Shapes are not checked: the original feeds what it is
    /// given, and clients rely on it.
    fn check(&self, request: InferRequest) -> Result<RunOrder, Status> {
        let InferRequest { signature: name, inputs, outputs, .. } = request;
        let signature = self.signatures().get(&name).ok_or_else(|| texts::no_signature(&name))?;
        if inputs.len() != signature.inputs.len() {
            return Err(texts::wrong_input_count(&name, signature.inputs.len(), inputs.len()));
        }
        for (index, (spec, input)) in signature.inputs.iter().zip(&inputs).enumerate() {
            if spec.fed_dtype() != input.dtype() {
                return Err(texts::wrong_dtype(index, spec.fed_dtype(), input.dtype()));
            }
        }
        let count = signature.outputs.len();
        if let Some(&index) = outputs.iter().find(|&&index| index >= count) {
            return Err(texts::no_such_output(&name, index, count));
        }
        let layouts = inputs.iter().map(InputLayout::of).collect();
        let request = RunRequest { signature: name, inputs: layouts, outputs };
        Ok(RunOrder { lease: self.clone(), request, inputs })
    }
}

/// Waits for an answer until the deadline.
async fn answered(
    answer: oneshot::Receiver<Answer>,
    deadline: Option<Instant>,
    timed_out: impl FnOnce() -> Status,
) -> Result<Vec<Tensor>, Status> {
    let answer = match deadline {
        Some(deadline) => {
            tokio::time::timeout_at(deadline.into(), answer).await.map_err(|_| timed_out())?
        }
        None => answer.await,
    };
    // Only a scheduler that is gone drops a request without an answer.
    answer.unwrap_or_else(|_| Err(texts::shutting_down()))
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({})", self.hold.servable.id)
    }
}

impl Drop for HoldEnd {
    fn drop(&mut self) {
        // Without a life cycle there is nobody left to tell.
        let _ = self.events.send(Event::Released { ticket: self.ticket });
    }
}

//! The queues of one version: which of them a request waits in.
//!
//! Owns one queue per signature and set of outputs. May not know when batches are closed. Invariants:
//! clients cannot make queues without bound; a stateful signature has none.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use tokio::sync::oneshot;
use vesta_model::{BatchingParameters, Signature, Status};

use super::former::Limits;
use super::task::{Task, rows_of};
use crate::lane::Answer;
use crate::run::RunOrder;
use crate::scheduler::{LaneKey, Scheduler};
use crate::servable::ServableId;
use crate::texts;

/// Queues for sets of outputs that are not all of their signature's; requests for further sets are
/// run alone, for clients choose them.
const PARTIAL_QUEUES_MAX: usize = 64;

/// The queue of a request.
pub(crate) struct Queue<'q> {
    queues: &'q Queues,
    lane: Arc<LaneKey>,
    /// Positions of the outputs that its batches compute, in order.
    outputs: Vec<usize>,
}

/// The queues of one version.
pub(crate) struct Queues {
    id: ServableId,
    scheduler: Scheduler,
    parameters: Arc<BatchingParameters>,
    lanes: RwLock<Lanes>,
}

#[derive(Default)]
struct Lanes {
    by_signature: HashMap<String, Vec<Lane>>,
    partial: usize,
}

struct Lane {
    outputs: Vec<usize>,
    key: Arc<LaneKey>,
}

impl Lanes {
    fn find(&self, signature: &str, outputs: &[usize]) -> Option<Arc<LaneKey>> {
        let all = self.by_signature.get(signature)?;
        let found = all.iter().find(|lane| lane.outputs == outputs)?;
        Some(Arc::clone(&found.key))
    }
}

impl Queues {
    pub(crate) fn new(
        id: ServableId,
        scheduler: Scheduler,
        parameters: &BatchingParameters,
    ) -> Queues {
        Queues { id, scheduler, parameters: Arc::new(parameters.clone()), lanes: RwLock::default() }
    }

    /// The queue for a request; `None` to run it alone.
    pub(crate) fn find(&self, order: &RunOrder) -> Option<Queue<'_>> {
        let servable = order.lease.servable();
        let signatures = &servable.session.description().signatures;
        // A stateful one would change its state once for all of a batch.
        let signature = signatures.get(&order.request.signature).filter(|found| !found.stateful)?;
        let mut outputs = order.request.outputs.clone();
        outputs.sort_unstable();
        outputs.dedup();
        let found = {
            let lanes = self.lanes.read().unwrap_or_else(PoisonError::into_inner);
            lanes.find(&signature.name, &outputs)
        };
        let lane = found.or_else(|| self.make(signature, &outputs))?;
        Some(Queue { queues: self, lane, outputs })
    }

    fn make(&self, signature: &Signature, outputs: &[usize]) -> Option<Arc<LaneKey>> {
        let mut lanes = self.lanes.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = lanes.find(&signature.name, outputs) {
            return Some(found);
        }
        if outputs.len() < signature.outputs.len() {
            if lanes.partial >= PARTIAL_QUEUES_MAX {
                return None;
            }
            lanes.partial += 1;
        }
        let limits = Limits::of(&self.parameters);
        let threads = self.parameters.num_batch_threads.max(1);
        let lane = Arc::new(self.scheduler.batch_lane(self.id.clone(), limits, threads));
        let made = Lane { outputs: outputs.to_vec(), key: Arc::clone(&lane) };
        lanes.by_signature.entry(signature.name.clone()).or_default().push(made);
        Some(lane)
    }
}

impl Queue<'_> {
    /// Appends a request, and gives what tells whether it has begun.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a request that cannot be batched, `RESOURCE_EXHAUSTED` for one that is
    /// late already, `UNAVAILABLE` when the queue is full.
    pub(crate) fn enter(
        self,
        order: RunOrder,
        deadline: Option<Instant>,
        now: Instant,
        reply: oneshot::Sender<Answer>,
    ) -> Result<Arc<AtomicBool>, Status> {
        let rows = rows_of(&order.inputs)?;
        let model = order.lease.model();
        self.queues.scheduler.observer().entered(model, rows, order.inputs.len());
        let parameters = &self.queues.parameters;
        let is_late = deadline.is_some_and(|deadline| deadline <= now);
        let (task, begun) = Task::new(order, parameters, self.outputs, rows, deadline, now, reply);
        if is_late && rows <= parameters.max_batch_size {
            return Err(texts::expired_in_queue());
        }
        self.lane.push_batch(task.whole())?;
        Ok(begun)
    }
}

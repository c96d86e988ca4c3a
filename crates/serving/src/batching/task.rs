//! A request that is to be batched, the pieces that it may be cut to, and who waits for it.
//!
//! Owns how the outputs of pieces become one answer. May not know queues or engines. Invariant: the
//! caller is answered once: with an error as soon as one piece has one, else when the outputs of all
//! its rows are there.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::oneshot;
use vesta_model::{BatchingParameters, Status, Tensor};

use super::former::Batchable;
use super::split;
use crate::lane::Answer;
use crate::lease::Lease;
use crate::run::RunOrder;
use crate::texts;

/// A checked request. Holds a lease, so that its version outlives a caller who went away.
pub(crate) struct Task {
    pub(crate) lease: Lease,
    pub(crate) parameters: Arc<BatchingParameters>,
    pub(crate) signature: String,
    pub(crate) inputs: Vec<Tensor>,
    /// Positions of the outputs that its batch computes, sorted.
    pub(crate) batch_outputs: Vec<usize>,
    /// For each output wanted, its place among those of the batch.
    picks: Vec<usize>,
    pub(crate) rows: usize,
    pub(crate) deadline: Option<Instant>,
    pub(crate) since: Instant,
    /// Whether a piece of it left the queue to be run.
    begun: Arc<AtomicBool>,
    answer: Mutex<Gathering>,
}

/// What is there of an answer.
struct Gathering {
    /// Taken by who answers.
    reply: Option<oneshot::Sender<Answer>>,
    /// Outputs by the first of their rows.
    parts: Vec<(usize, Vec<Tensor>)>,
    rows_missing: usize,
}

/// Some rows of a task, all of them in most cases.
pub(crate) struct Piece {
    pub(crate) task: Arc<Task>,
    pub(crate) rows: Range<usize>,
}

/// The rows of a request.
///
/// # Errors
/// `INVALID_ARGUMENT` when its inputs have no rows, or not the same number.
pub(crate) fn rows_of(inputs: &[Tensor]) -> Result<usize, Status> {
    let mut rows = None;
    for input in inputs {
        let &first = input.shape().dims().first().ok_or_else(texts::batch_of_scalar)?;
        if *rows.get_or_insert(first) != first {
            return Err(texts::batch_of_uneven_rows());
        }
    }
    rows.ok_or_else(texts::batch_without_inputs)
}

impl Task {
    /// The task of a request with so many rows whose batch computes `batch_outputs`, and what tells its caller whether it has begun.
    pub(crate) fn new(
        order: RunOrder,
        parameters: &Arc<BatchingParameters>,
        batch_outputs: Vec<usize>,
        rows: usize,
        deadline: Option<Instant>,
        since: Instant,
        reply: oneshot::Sender<Answer>,
    ) -> (Task, Arc<AtomicBool>) {
        let RunOrder { lease, request, inputs } = order;
        // Each is there, for the queue is the one of these outputs.
        let place = |output: &usize| batch_outputs.binary_search(output).unwrap_or_default();
        let picks = request.outputs.iter().map(place).collect();
        let begun = Arc::new(AtomicBool::new(false));
        let task = Task {
            lease,
            parameters: Arc::clone(parameters),
            signature: request.signature,
            inputs,
            picks,
            batch_outputs,
            rows,
            deadline,
            since,
            begun: Arc::clone(&begun),
            answer: Mutex::new(Gathering {
                reply: Some(reply),
                parts: Vec::new(),
                rows_missing: rows,
            }),
        };
        (task, begun)
    }

    /// The whole of it.
    pub(crate) fn whole(self) -> Piece {
        let rows = 0..self.rows;
        Piece { task: Arc::new(self), rows }
    }

    fn gathering(&self) -> MutexGuard<'_, Gathering> {
        // Nothing in it is left half done.
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, status: Status) {
        let reply = self.gathering().reply.take();
        if let Some(reply) = reply {
            // The caller may have gone away.
            let _ = reply.send(Err(status));
        }
    }

    /// Takes in the outputs of some rows; the last one answers.
    fn gather(&self, rows: Range<usize>, outputs: Vec<Tensor>) {
        let (reply, mut parts) = {
            let mut gathering = self.gathering();
            gathering.rows_missing -= rows.len();
            gathering.parts.push((rows.start, outputs));
            if gathering.rows_missing > 0 {
                return;
            }
            (gathering.reply.take(), std::mem::take(&mut gathering.parts))
        };
        let Some(reply) = reply else { return };
        parts.sort_unstable_by_key(|(start, _)| *start);
        let parts = parts.into_iter().map(|(_, outputs)| outputs).collect();
        let answer = split::put_together(parts);
        let _ = reply.send(answer);
    }
}

impl Piece {
    /// Says that it is about to be run.
    pub(crate) fn begin(&self) {
        self.task.begun.store(true, Ordering::Release);
    }

    /// Answers with the outputs of its rows, in the order of the batch's outputs.
    pub(crate) fn answer(self, answer: Answer) {
        match answer {
            Ok(outputs) => {
                let picked = |&place: &usize| outputs.get(place).cloned();
                let wanted = self.task.picks.iter().filter_map(picked).collect();
                self.task.gather(self.rows.clone(), wanted);
            }
            Err(status) => self.task.fail(status),
        }
    }
}

impl Batchable for Piece {
    fn rows(&self) -> usize {
        self.rows.len()
    }

    fn is_over(&self, now: Instant) -> bool {
        self.task.deadline.is_some_and(|deadline| deadline <= now)
            || self.task.gathering().reply.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    fn split_off_front(&mut self, rows: usize) -> Piece {
        let cut = (self.rows.start + rows).min(self.rows.end);
        let front = Piece { task: Arc::clone(&self.task), rows: self.rows.start..cut };
        self.rows.start = cut;
        front
    }

    fn expire(self) {
        self.task.fail(texts::expired_in_queue());
    }
}

//! What waits at the scheduler under one key: requests that are run alone, or batches.
//!
//! Owns what a lane, whatever is in it, says of its turn. May not know threads. Invariant: a line
//! never has more runs in progress than it may.

use std::time::Instant;

use vesta_model::Status;

use crate::batching::{Due, Expired, Former, Piece};
use crate::lane::{Lane, Leavers, Waiting};
use crate::run::RunOrder;
use crate::servable::ServableId;
use crate::texts;

/// One line of those that take turns.
pub(crate) struct Line {
    pub(crate) id: ServableId,
    queue: Queue,
    /// Runs of this line that are being computed, and how many may be.
    pub(crate) running: usize,
    running_max: usize,
    /// Whether the line waits for its turn at the scheduler.
    pub(crate) has_turn: bool,
    /// When it is to get its turn, if it has none and waits for a time.
    pub(crate) alarm: Option<Instant>,
}

enum Queue {
    Singles(Lane<RunOrder>),
    Batches(Former<Piece>),
}

/// What a thread takes to run.
pub(crate) enum Work {
    Single(Waiting<RunOrder>),
    Batch(Vec<Piece>),
}

/// What left without being run; answered when this is dropped, outside of any lock.
#[derive(Default)]
pub(crate) struct Departed {
    singles: Leavers<RunOrder>,
    pieces: Expired<Piece>,
}

impl Line {
    /// A line of up to `runs_max` requests, each run alone.
    pub(crate) fn of_singles(id: ServableId, runs_max: usize) -> Line {
        Line::new(id, Queue::Singles(Lane::new(runs_max)), usize::MAX)
    }

    /// A line of batches, of which `running_max` may be run at once.
    pub(crate) fn of_batches(id: ServableId, former: Former<Piece>, running_max: usize) -> Line {
        Line::new(id, Queue::Batches(former), running_max)
    }

    fn new(id: ServableId, queue: Queue, running_max: usize) -> Line {
        Line { id, queue, running: 0, running_max, has_turn: false, alarm: None }
    }

    /// Lets a request in that is run alone; `waiting` is left where it is refused.
    ///
    /// # Errors
    /// `UNAVAILABLE` when it is full.
    pub(crate) fn enter(
        &mut self,
        waiting: &mut Option<Waiting<RunOrder>>,
        runs_max: usize,
        departed: &mut Departed,
    ) -> Result<(), Status> {
        let Queue::Singles(lane) = &mut self.queue else { return Err(texts::wrong_line()) };
        if !lane.has_room(&mut departed.singles) {
            return Err(texts::queue_full(&self.id, runs_max));
        }
        if let Some(waiting) = waiting.take() {
            lane.push(waiting);
        }
        Ok(())
    }

    /// Lets a request in that is to be batched; `piece` is left where it is refused.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when it is too large, `UNAVAILABLE` when the queue is full.
    pub(crate) fn enter_batch(
        &mut self,
        piece: &mut Option<Piece>,
        now: Instant,
        departed: &mut Departed,
    ) -> Result<(), Status> {
        let Queue::Batches(former) = &mut self.queue else { return Err(texts::wrong_line()) };
        let rows = piece.as_ref().map_or(0, |piece| piece.rows.len());
        former.admit(rows, now, &mut departed.pieces)?;
        if let Some(piece) = piece.take() {
            former.push(piece, now, &mut departed.pieces);
        }
        Ok(())
    }

    /// From now on its batches wait for no more requests than are there.
    pub(crate) fn hurry(&mut self) {
        if let Queue::Batches(former) = &mut self.queue {
            former.hurry();
        }
    }

    /// When it wants its turn.
    pub(crate) fn due(&self, now: Option<Instant>) -> Due {
        if self.running >= self.running_max {
            return Due::Never;
        }
        match &self.queue {
            Queue::Singles(lane) if lane.has_work() => Due::Now,
            Queue::Singles(_) => Due::Never,
            Queue::Batches(former) => former.due(now.unwrap_or_else(Instant::now)),
        }
    }

    /// What is to be run next, which counts as running from then on.
    pub(crate) fn next(&mut self, now: Instant, departed: &mut Departed) -> Option<Work> {
        if self.running >= self.running_max {
            return None;
        }
        let next = match &mut self.queue {
            Queue::Singles(lane) => lane.next(now, &mut departed.singles).map(Work::Single),
            Queue::Batches(former) => former.next(now, &mut departed.pieces).map(Work::Batch),
        };
        self.running += usize::from(next.is_some());
        next
    }

    /// Counts the end of a run; whether there were as many as there may be.
    pub(crate) fn end_run(&mut self) -> bool {
        let was_full = self.running >= self.running_max;
        self.running -= 1;
        was_full
    }

    /// Requests that wait, or pieces of them.
    pub(crate) fn waiting(&self) -> usize {
        match &self.queue {
            Queue::Singles(lane) => lane.waiting(),
            Queue::Batches(former) => former.waiting(),
        }
    }

    /// Takes out everything.
    pub(crate) fn drain(&mut self) -> Vec<Work> {
        match &mut self.queue {
            Queue::Singles(lane) => lane.drain().into_iter().map(Work::Single).collect(),
            Queue::Batches(former) => {
                former.drain().into_iter().map(|piece| Work::Batch(vec![piece])).collect()
            }
        }
    }
}

impl Work {
    /// Answers without running.
    pub(crate) fn refuse(self, status: Status) {
        match self {
            Work::Single(waiting) => waiting.refuse(status),
            Work::Batch(pieces) => {
                pieces.into_iter().for_each(|piece| piece.answer(Err(status.clone())));
            }
        }
    }
}

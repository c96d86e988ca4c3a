//! Which waiting requests become a batch, and when.
//!
//! Owns the batches of one queue: closed ones in order, and the open one. May not know what is in a
//! request, nor the time: it is told. Invariants: no batch has more rows than a batch may have; what
//! came first leaves first; what is over leaves without being run.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use vesta_model::{BatchingParameters, Status};

use crate::texts;

/// What a former puts into batches.
pub(crate) trait Batchable: Sized {
    /// Rows of it.
    fn rows(&self) -> usize;

    /// Whether running it would be in vain.
    fn is_over(&self, now: Instant) -> bool;

    /// Takes away its first `rows`, fewer than it has.
    fn split_off_front(&mut self, rows: usize) -> Self;

    /// Answers without running.
    fn expire(self);
}

/// What bounds the batches of a queue.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Rows of one request.
    pub(crate) request_rows_max: usize,
    /// Rows of one batch.
    pub(crate) batch_rows_max: usize,
    /// How long the oldest of an open batch waits for others.
    pub(crate) timeout: Duration,
    /// Batches that wait, the open one among them.
    pub(crate) batches_max: usize,
    /// Whether a request that does not fit is cut.
    pub(crate) splits: bool,
}

impl Limits {
    pub(crate) fn of(parameters: &BatchingParameters) -> Limits {
        Limits {
            request_rows_max: parameters.max_batch_size.max(1),
            batch_rows_max: parameters.batch_rows_max(),
            timeout: parameters.batch_timeout,
            batches_max: parameters.max_enqueued_batches,
            splits: parameters.enable_large_batch_splitting,
        }
    }
}

/// When something is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Not for what is there now.
    Never,
    /// At once.
    Now,
    /// At this time, unless something comes before.
    At(Instant),
}

/// The batches of one queue.
pub(crate) struct Former<T: Batchable> {
    limits: Limits,
    closed: VecDeque<Vec<T>>,
    open: Open<T>,
}

struct Open<T> {
    items: Vec<T>,
    /// Rows by [`weight`].
    rows: usize,
    /// When the first of them came.
    since: Option<Instant>,
}

/// What left a queue without being run. It is answered when this is dropped, which is to happen
/// outside of any lock, since tensors are freed then too.
pub(crate) struct Expired<T: Batchable>(Vec<T>);

impl<T: Batchable> Default for Expired<T> {
    fn default() -> Expired<T> {
        Expired(Vec::new())
    }
}

impl<T: Batchable> Drop for Expired<T> {
    fn drop(&mut self) {
        self.0.drain(..).for_each(Batchable::expire);
    }
}

impl<T> Default for Open<T> {
    fn default() -> Open<T> {
        Open { items: Vec::new(), rows: 0, since: None }
    }
}

/// What an item counts for in a batch: without rows it counts for one, so that a batch of such has an
/// end.
fn weight<T: Batchable>(item: &T) -> usize {
    item.rows().max(1)
}

impl<T: Batchable> Former<T> {
    pub(crate) fn new(limits: Limits) -> Former<T> {
        Former { limits, closed: VecDeque::new(), open: Open::default() }
    }

    /// How many requests, or pieces of them, wait.
    pub(crate) fn waiting(&self) -> usize {
        self.closed.iter().map(Vec::len).sum::<usize>() + self.open.items.len()
    }

    /// From now on nothing waits for others to come.
    pub(crate) fn hurry(&mut self) {
        self.limits.timeout = Duration::ZERO;
    }

    /// Whether a request of so many rows may enter now. Requests that are over make room.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when it is too large, `UNAVAILABLE` when the queue is full.
    pub(crate) fn admit(
        &mut self,
        rows: usize,
        now: Instant,
        expired: &mut Expired<T>,
    ) -> Result<(), Status> {
        if rows > self.limits.request_rows_max {
            return Err(texts::task_too_large(rows, self.limits.request_rows_max));
        }
        self.has_room(rows).or_else(|_| {
            self.sweep(now, expired);
            self.has_room(rows)
        })
    }

    fn has_room(&self, rows: usize) -> Result<(), Status> {
        let Limits { batch_rows_max, batches_max, splits, .. } = self.limits;
        let (batches, rows) = (self.closed.len() + 1, rows.max(1));
        let open_room = batch_rows_max.saturating_sub(self.open.rows);
        if splits {
            let further = batches_max.saturating_sub(batches);
            let capacity = further.saturating_mul(batch_rows_max).saturating_add(open_room);
            if rows > capacity {
                let open_rows = self.open.rows;
                return Err(texts::split_queue_full(
                    rows,
                    capacity,
                    batches,
                    batches_max,
                    open_rows,
                    batch_rows_max,
                ));
            }
        } else if rows > open_room && batches >= batches_max {
            return Err(texts::batch_queue_full(batches, batches_max));
        }
        Ok(())
    }

    /// Appends a request that was admitted. What is over leaves the open batch before it is closed
    /// for want of room.
    pub(crate) fn push(&mut self, mut item: T, now: Instant, expired: &mut Expired<T>) {
        let batch_rows_max = self.limits.batch_rows_max;
        if weight(&item) > batch_rows_max.saturating_sub(self.open.rows) {
            self.sweep_open(now, expired);
        }
        loop {
            let room = batch_rows_max.saturating_sub(self.open.rows);
            if weight(&item) <= room {
                return self.append(item, now);
            }
            if self.limits.splits && room > 0 {
                let front = item.split_off_front(room);
                self.append(front, now);
            } else if self.open.items.is_empty() {
                // Larger than any batch and not to be cut: it is one of its own.
                return self.append(item, now);
            }
            self.close();
        }
    }

    fn append(&mut self, item: T, now: Instant) {
        self.open.since.get_or_insert(now);
        self.open.rows += weight(&item);
        self.open.items.push(item);
    }

    /// Closes the open batch and opens another.
    fn close(&mut self) {
        self.closed.push_back(std::mem::take(&mut self.open).items);
    }

    /// When the next batch is to be run.
    pub(crate) fn due(&self, now: Instant) -> Due {
        if !self.closed.is_empty() || self.open.rows >= self.limits.batch_rows_max {
            return Due::Now;
        }
        let Some(since) = self.open.since else { return Due::Never };
        match since.checked_add(self.limits.timeout) {
            Some(at) if at <= now => Due::Now,
            Some(at) => Due::At(at),
            // Past the clock's end: the batch is closed by its size alone.
            None => Due::Never,
        }
    }

    /// The next batch that is to be run now, without what is over.
    pub(crate) fn next(&mut self, now: Instant, expired: &mut Expired<T>) -> Option<Vec<T>> {
        while self.due(now) == Due::Now {
            if self.closed.is_empty() {
                self.close();
            }
            let items = self.closed.pop_front()?;
            let live = live_of(items, now, expired);
            if !live.is_empty() {
                return Some(live);
            }
        }
        None
    }

    /// Takes out everything.
    pub(crate) fn drain(&mut self) -> Vec<T> {
        let open = std::mem::take(&mut self.open).items;
        self.closed.drain(..).flatten().chain(open).collect()
    }

    /// Takes out what is over, and batches of which nothing is left.
    fn sweep(&mut self, now: Instant, expired: &mut Expired<T>) {
        let closed = std::mem::take(&mut self.closed).into_iter();
        let live = closed.map(|items| live_of(items, now, expired));
        self.closed = live.filter(|items| !items.is_empty()).collect();
        self.sweep_open(now, expired);
    }

    fn sweep_open(&mut self, now: Instant, expired: &mut Expired<T>) {
        let open = std::mem::take(&mut self.open);
        let items = live_of(open.items, now, expired);
        let since = open.since.filter(|_| !items.is_empty());
        self.open = Open { rows: items.iter().map(weight).sum(), items, since };
    }
}

/// What is not over.
fn live_of<T: Batchable>(items: Vec<T>, now: Instant, expired: &mut Expired<T>) -> Vec<T> {
    let (over, live): (Vec<T>, Vec<T>) = items.into_iter().partition(|item| item.is_over(now));
    expired.0.extend(over);
    live
}

#[cfg(test)]
#[path = "former_tests.rs"]
mod tests;

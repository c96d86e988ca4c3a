//! The requests of one version that wait to be run, first come first served.
//!
//! Owns the bound and which requests leave without being run; may not know threads or locks: the
//! scheduler holds its own around it. Invariant: never more than `runs_max` requests wait, and a
//! request whose deadline passed or whose caller went away is never run.

use std::collections::VecDeque;
use std::time::Instant;

use tokio::sync::oneshot;
use vesta_model::{Status, Tensor};

use crate::texts;

/// What a request gets.
pub(crate) type Answer = Result<Vec<Tensor>, Status>;

/// A request with the one who waits for it.
pub(crate) struct Waiting<W> {
    pub(crate) since: Instant,
    pub(crate) deadline: Option<Instant>,
    pub(crate) reply: oneshot::Sender<Answer>,
    pub(crate) work: W,
}

impl<W> Waiting<W> {
    /// Whether running it would be in vain.
    fn is_over(&self, now: Instant) -> bool {
        self.reply.is_closed() || self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// Answers without running; nobody may be there to hear it.
    pub(crate) fn refuse(self, status: Status) {
        let _ = self.reply.send(Err(status));
    }
}

/// The requests of one version.
pub(crate) struct Lane<W> {
    waiting: VecDeque<Waiting<W>>,
    runs_max: usize,
}

/// Requests that left a lane without being run. They are answered when this is dropped, which is to
/// happen outside of any lock, since their tensors are freed then too.
pub(crate) struct Leavers<W>(Vec<Waiting<W>>);

impl<W> Default for Leavers<W> {
    fn default() -> Leavers<W> {
        Leavers(Vec::new())
    }
}

impl<W> Drop for Leavers<W> {
    fn drop(&mut self) {
        for waiting in self.0.drain(..) {
            waiting.refuse(texts::timed_out());
        }
    }
}

impl<W> Lane<W> {
    pub(crate) fn new(runs_max: usize) -> Lane<W> {
        Lane { waiting: VecDeque::new(), runs_max }
    }

    /// Whether a request waits, live or not.
    pub(crate) fn has_work(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// How many wait, live or not.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether one more may wait. Requests that are over make room.
    pub(crate) fn has_room(&mut self, leavers: &mut Leavers<W>) -> bool {
        if self.waiting.len() >= self.runs_max {
            self.sweep(Instant::now(), leavers);
        }
        self.waiting.len() < self.runs_max
    }

    /// Appends a request, for which there must be room.
    pub(crate) fn push(&mut self, waiting: Waiting<W>) {
        debug_assert!(self.waiting.len() < self.runs_max, "the lane is full");
        self.waiting.push_back(waiting);
    }

    /// The oldest request that is not over.
    pub(crate) fn next(&mut self, now: Instant, leavers: &mut Leavers<W>) -> Option<Waiting<W>> {
        while let Some(waiting) = self.waiting.pop_front() {
            if !waiting.is_over(now) {
                return Some(waiting);
            }
            leavers.0.push(waiting);
        }
        None
    }

    /// Takes out everything.
    pub(crate) fn drain(&mut self) -> Vec<Waiting<W>> {
        self.waiting.drain(..).collect()
    }

    fn sweep(&mut self, now: Instant, leavers: &mut Leavers<W>) {
        for waiting in std::mem::take(&mut self.waiting) {
            if waiting.is_over(now) {
                leavers.0.push(waiting);
            } else {
                self.waiting.push_back(waiting);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use vesta_model::Code;

    fn waiting(work: u32, deadline: Option<Instant>) -> (Waiting<u32>, oneshot::Receiver<Answer>) {
        let (reply, answer) = oneshot::channel();
        (Waiting { since: Instant::now(), deadline, reply, work }, answer)
    }

    fn push(lane: &mut Lane<u32>, waiting: Waiting<u32>) -> bool {
        let room = lane.has_room(&mut Leavers::default());
        if room {
            lane.push(waiting);
        }
        room
    }

    fn next(lane: &mut Lane<u32>) -> Option<u32> {
        lane.next(Instant::now(), &mut Leavers::default()).map(|waiting| waiting.work)
    }

    #[test]
    fn first_come_first_served_up_to_the_bound() {
        let mut lane = Lane::new(2);
        let (one, _one) = waiting(1, None);
        let (two, _two) = waiting(2, None);
        let (three, _three) = waiting(3, None);
        assert!(push(&mut lane, one));
        assert!(push(&mut lane, two));
        assert!(!push(&mut lane, three));
        assert_eq!(next(&mut lane), Some(1));
        assert_eq!(next(&mut lane), Some(2));
        assert_eq!(next(&mut lane), None);
        assert!(!lane.has_work());
    }

    #[test]
    fn abandoned_requests_make_room_and_are_not_run() {
        let mut lane = Lane::new(2);
        let (one, gone) = waiting(1, None);
        let (two, _two) = waiting(2, None);
        let (three, _three) = waiting(3, None);
        assert!(push(&mut lane, one));
        assert!(push(&mut lane, two));
        drop(gone);
        assert!(push(&mut lane, three));
        assert_eq!(next(&mut lane), Some(2));
        assert_eq!(next(&mut lane), Some(3));
    }

    #[test]
    fn expired_requests_are_told_and_not_run() {
        let mut lane = Lane::new(2);
        let (late, mut answer) = waiting(1, Some(Instant::now() - Duration::from_millis(1)));
        let (fine, _fine) = waiting(2, Some(Instant::now() + Duration::from_secs(60)));
        assert!(push(&mut lane, late));
        assert!(push(&mut lane, fine));
        assert_eq!(next(&mut lane), Some(2));
        let status = answer.try_recv().unwrap().unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert_eq!(status.message(), "Timed out waiting for notification");
    }
}

//! The jobs that loaders or unloaders have in hand, and how many more they may take.
//!
//! A load or an unload can hang for good, and no thread can be stopped from outside. So a job that
//! took longer than [`PATIENCE`] no longer counts against the threads that there are: another
//! thread comes in its place, up to [`HUNG_MAX`] of them. Owns the count; may not know what the jobs
//! do, nor threads: whoever carries them out is an [`Executor`].
//! Invariant: at most `threads` jobs that do not hang are in hand, and at most [`HUNG_MAX`] more.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::event::Ticket;
use super::pool::Executor;

/// How long a job may take before another thread is started in the place of its own. A load that
/// only takes long loses nothing by it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The most jobs that may hang before the others have to wait for them.
pub(crate) const HUNG_MAX: usize = 32;

/// Loaders, or unloaders.
pub(crate) struct Crew {
    executor: Box<dyn Executor>,
    threads: usize,
    running: BTreeMap<Ticket, Instant>,
}

impl Crew {
    /// Nobody has anything to do yet.
    pub(crate) fn new(executor: Box<dyn Executor>, threads: usize) -> Crew {
        Crew { executor, threads, running: BTreeMap::new() }
    }

    /// Whether one more job may begin.
    pub(crate) fn has_room(&self, now: Instant) -> bool {
        let hung = self.running.values().filter(|&&since| is_hung(since, now)).count();
        self.running.len() < self.threads + hung.min(HUNG_MAX)
    }

    /// Begins a job, for which there must be room.
    pub(crate) fn begin(
        &mut self,
        ticket: Ticket,
        now: Instant,
        job: impl FnOnce() + Send + 'static,
    ) {
        self.running.insert(ticket, now);
        self.executor.submit(Box::new(job));
    }

    /// A job is done.
    pub(crate) fn done(&mut self, ticket: Ticket) {
        self.running.remove(&ticket);
    }

    /// When there will be room at the latest, if there is none now and it depends on time.
    pub(crate) fn room_at(&self, now: Instant) -> Option<Instant> {
        if self.has_room(now) || self.running.len() >= self.threads + HUNG_MAX {
            return None;
        }
        let patient = self.running.values().filter(|&&since| !is_hung(since, now));
        patient.min().map(|&since| since + PATIENCE)
    }
}

fn is_hung(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) >= PATIENCE
}

#[cfg(test)]
mod tests {
    use super::super::pool::Job;
    use super::*;

    /// Lets every job hang.
    struct Never;

    impl Executor for Never {
        fn submit(&self, _: Job) {}
    }

    #[test]
    fn a_job_that_hangs_makes_room_in_the_end() {
        let start = Instant::now();
        let mut crew = Crew::new(Box::new(Never), 2);
        crew.begin(Ticket(1), start, || {});
        assert!(crew.has_room(start));
        assert_eq!(crew.room_at(start), None);
        let second = start + PATIENCE / 2;
        crew.begin(Ticket(2), second, || {});
        assert!(!crew.has_room(second));
        assert_eq!(crew.room_at(second), Some(start + PATIENCE));
        let third = start + PATIENCE;
        assert!(crew.has_room(third));
        crew.begin(Ticket(3), third, || {});
        assert!(!crew.has_room(third));
        assert_eq!(crew.room_at(third), Some(second + PATIENCE));
        crew.done(Ticket(2));
        assert!(crew.has_room(third));
    }

    #[test]
    fn what_may_hang_is_bounded() {
        let start = Instant::now();
        let mut crew = Crew::new(Box::new(Never), 1);
        let mut now = start;
        for ticket in 0..=HUNG_MAX as u64 {
            assert!(crew.has_room(now), "job {ticket}");
            crew.begin(Ticket(ticket), now, || {});
            now += PATIENCE;
        }
        assert!(!crew.has_room(now));
        assert_eq!(crew.room_at(now), None);
    }
}

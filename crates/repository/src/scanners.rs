//! The threads that look at base paths.
//!
//! Owns: who runs what, and how long it has taken. May not know: what a job does.
//! Invariants: a job that hangs takes its own thread out of the count and nobody else's turn; there
//! are never more than [`THREADS_MAX`] threads; nobody waits for a job here.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

/// Jobs that run at once, those that hang left out.
const WIDTH: usize = 2;
/// Threads in all. So many base paths may hang before others suffer.
const THREADS_MAX: usize = 64;
/// A job that has taken so long hangs, and another thread takes its turn.
const HUNG_AFTER: Duration = Duration::from_secs(1);
/// A job that has taken so long is reported, and again after each doubling of the time.
const REPORT_AFTER: Duration = Duration::from_secs(10);

/// A job, named for the log.
struct Job {
    what: String,
    work: Box<dyn FnOnce() + Send>,
}

struct Running {
    what: String,
    since: Instant,
    is_hung: bool,
    /// When it is to be reported next, counted from `since`.
    report_after: Duration,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    running: BTreeMap<u64, Running>,
    next_id: u64,
    threads: usize,
    closed: bool,
}

impl State {
    /// Threads that are at work or ready for it.
    fn live(&self) -> usize {
        self.threads - self.running.values().filter(|job| job.is_hung).count()
    }
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    more: Condvar,
}

/// Runs jobs. Dropping it lets threads end as their jobs do, and waits for none.
pub(crate) struct Scanners(Arc<Shared>);

impl Scanners {
    pub(crate) fn new() -> Scanners {
        Scanners(Arc::default())
    }

    /// Runs a job as soon as a thread is free. `what` completes "... has not answered".
    pub(crate) fn submit(&self, what: String, work: impl FnOnce() + Send + 'static) {
        let mut state = lock(&self.0);
        state.queue.push_back(Job { what, work: Box::new(work) });
        self.staff(&mut state);
        self.0.more.notify_one();
    }

    /// Finds what hangs, reports it, and puts other threads in its place. Gives the time until there
    /// is something to find again; `None` while nothing runs.
    pub(crate) fn check(&self) -> Option<Duration> {
        let mut state = lock(&self.0);
        let now = Instant::now();
        for job in state.running.values_mut() {
            let taken = now.duration_since(job.since);
            job.is_hung |= taken >= HUNG_AFTER;
            if taken >= job.report_after {
                job.report_after *= 2;
                warn!(
                    "{} has not answered for {} s; what is served of it stays as it is",
                    job.what,
                    taken.as_secs()
                );
            }
        }
        self.staff(&mut state);
        if state.live() == 0 && !state.queue.is_empty() {
            error!(
                "{THREADS_MAX} base paths do not answer; {} more wait for one of them",
                state.queue.len()
            );
        }
        let due = state.running.values().map(|job| {
            let after = if job.is_hung { job.report_after } else { HUNG_AFTER };
            after.saturating_sub(now.duration_since(job.since))
        });
        due.min()
    }

    /// Starts the threads that are missing.
    fn staff(&self, state: &mut State) {
        let wanted = if state.queue.is_empty() { 0 } else { WIDTH };
        while state.live() < wanted && state.threads < THREADS_MAX {
            let shared = Arc::clone(&self.0);
            let started =
                thread::Builder::new().name("vesta-scan".to_owned()).spawn(move || work(&shared));
            match started {
                Ok(_) => state.threads += 1,
                Err(problem) => {
                    error!("a thread that looks at base paths cannot be started: {problem}");
                    return;
                }
            }
        }
    }
}

impl Drop for Scanners {
    fn drop(&mut self) {
        lock(&self.0).closed = true;
        self.0.more.notify_all();
    }
}

/// The life of a thread.
fn work(shared: &Shared) {
    let mut state = lock(shared);
    loop {
        if state.closed || state.live() > WIDTH {
            state.threads -= 1;
            return;
        }
        let Some(job) = state.queue.pop_front() else {
            state = shared.more.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        let id = state.next_id;
        state.next_id += 1;
        let running = Running {
            what: job.what,
            since: Instant::now(),
            is_hung: false,
            report_after: REPORT_AFTER,
        };
        state.running.insert(id, running);
        drop(state);
        if catch_unwind(AssertUnwindSafe(job.work)).is_err() {
            error!("a look at a base path panicked");
        }
        state = lock(shared);
        if let Some(done) = state.running.remove(&id)
            && done.report_after > REPORT_AFTER
        {
            info!("{} answered after {} s", done.what, done.since.elapsed().as_secs());
        }
    }
}

/// Sections under the lock call nothing that could panic.
fn lock(shared: &Shared) -> MutexGuard<'_, State> {
    shared.state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// Checks as the watcher does until something comes.
    fn receive<T>(scanners: &Scanners, receiver: &mpsc::Receiver<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok(got) = receiver.recv_timeout(Duration::from_millis(10)) {
                return got;
            }
            scanners.check();
            assert!(Instant::now() < deadline, "nothing came");
        }
    }

    #[test]
    fn jobs_that_hang_hold_up_no_other() {
        let scanners = Scanners::new();
        let (release, held) = mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        for number in 0..2 * WIDTH {
            let held = Arc::clone(&held);
            scanners.submit(format!("number {number}"), move || {
                let _ = held.lock().unwrap().recv();
            });
        }
        let (send, receiver) = mpsc::channel();
        scanners.submit("the one".to_owned(), move || send.send(7).unwrap());
        assert_eq!(receive(&scanners, &receiver), 7);
        assert!(lock(&scanners.0).threads <= 2 * WIDTH + WIDTH);
        drop(release);
        let deadline = Instant::now() + PATIENCE;
        while lock(&scanners.0).threads > WIDTH {
            assert!(Instant::now() < deadline, "surplus threads stay");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn there_is_a_limit_to_threads() {
        let scanners = Scanners::new();
        let (release, held) = mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        for number in 0..THREADS_MAX + 5 {
            let held = Arc::clone(&held);
            scanners.submit(format!("number {number}"), move || {
                let _ = held.lock().unwrap().recv();
            });
        }
        for _ in 0..THREADS_MAX {
            // As if each had hung for long.
            for job in lock(&scanners.0).running.values_mut() {
                job.is_hung = true;
            }
            scanners.check();
            thread::sleep(Duration::from_millis(1));
        }
        assert!(lock(&scanners.0).threads <= THREADS_MAX);
        drop(release);
    }

    #[test]
    fn a_panic_costs_no_thread() {
        let scanners = Scanners::new();
        for _ in 0..5 {
            scanners.submit("bad".to_owned(), || panic!("wanted by the test"));
        }
        let (send, receiver) = mpsc::channel();
        scanners.submit("good".to_owned(), move || send.send(()).unwrap());
        receive(&scanners, &receiver);
        assert!(lock(&scanners.0).threads <= WIDTH);
    }
}

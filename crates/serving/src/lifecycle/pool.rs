//! Threads that take jobs which may block for minutes, or for ever.
//!
//! May not know what the jobs do. Invariant: a job that panics ends neither its thread nor the pool;
//! no job waits for another, since a thread is started where none is free. Jobs are not bounded
//! here: whoever submits them bounds them, and thereby the threads.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use vesta_model::Status;

use crate::texts;

/// Something to do.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// Carries out jobs that may block, side by side.
pub(crate) trait Executor: Send {
    /// Begins a job.
    fn submit(&self, job: Job);
}

/// The threads. They end when the pool is dropped and their jobs are done.
pub(crate) struct Pool {
    name: &'static str,
    jobs: Sender<Job>,
    shared: Arc<Shared>,
    started: AtomicUsize,
}

struct Shared {
    inbox: Mutex<Receiver<Job>>,
    /// Jobs submitted less jobs done: what is in hand or waits to be.
    open: AtomicUsize,
}

impl Pool {
    /// Starts `threads` threads; more come as they are needed.
    pub(crate) fn start(name: &'static str, threads: usize) -> Result<Pool, Status> {
        let (jobs, inbox) = channel();
        let shared = Arc::new(Shared { inbox: Mutex::new(inbox), open: AtomicUsize::new(0) });
        let pool = Pool { name, jobs, shared, started: AtomicUsize::new(0) };
        for _ in 0..threads {
            pool.start_thread().map_err(texts::no_thread)?;
        }
        Ok(pool)
    }

    fn start_thread(&self) -> std::io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let index = self.started.fetch_add(1, Ordering::Relaxed);
        let thread = std::thread::Builder::new().name(format!("vesta-{}-{index}", self.name));
        thread.spawn(move || work(&shared)).map(drop)
    }
}

impl Executor for Pool {
    fn submit(&self, job: Job) {
        let open = self.shared.open.fetch_add(1, Ordering::AcqRel) + 1;
        if open > self.started.load(Ordering::Relaxed)
            && let Err(error) = self.start_thread()
        {
            self.started.fetch_sub(1, Ordering::Relaxed);
            tracing::warn!("a job of the life cycle waits for another: {error}");
        }
        // The threads live as long as the pool, so there is always someone to take it.
        let _ = self.jobs.send(job);
    }
}

fn work(shared: &Shared) {
    loop {
        // The lock is held while this thread waits for a job, never while it does one.
        let job = shared.inbox.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        if catch_unwind(AssertUnwindSafe(job)).is_err() {
            tracing::error!("a job of the life cycle panicked");
        }
        shared.open.fetch_sub(1, Ordering::AcqRel);
    }
}

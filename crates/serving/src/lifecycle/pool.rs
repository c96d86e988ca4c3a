//! A few threads that take jobs which may block for minutes.
//!
//! May not know what the jobs do. Invariant: a job that panics ends neither its thread nor the pool.
//! Jobs are not bounded here: whoever submits them bounds them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use vesta_model::Status;

use crate::texts;

type Job = Box<dyn FnOnce() + Send>;

/// The threads. They end when the pool is dropped and their jobs are done.
pub(crate) struct Pool {
    jobs: Sender<Job>,
}

impl Pool {
    /// Starts `threads` threads.
    pub(crate) fn start(name: &str, threads: usize) -> Result<Pool, Status> {
        let (jobs, inbox) = channel();
        let inbox = Arc::new(Mutex::new(inbox));
        for index in 0..threads {
            let inbox = Arc::clone(&inbox);
            std::thread::Builder::new()
                .name(format!("vesta-{name}-{index}"))
                .spawn(move || work(&inbox))
                .map_err(texts::no_thread)?;
        }
        Ok(Pool { jobs })
    }

    /// Leaves a job to the first thread that is free.
    pub(crate) fn submit(&self, job: impl FnOnce() + Send + 'static) {
        // The threads live as long as the pool, so there is always someone to take it.
        let _ = self.jobs.send(Box::new(job));
    }
}

fn work(inbox: &Mutex<Receiver<Job>>) {
    loop {
        // The lock is held while this thread waits for a job, never while it does one.
        let job = inbox.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        if catch_unwind(AssertUnwindSafe(job)).is_err() {
            tracing::error!("a job of the life cycle panicked");
        }
    }
}

//! A version in a worker, as it is tried.
//!
//! Owns: how its processor time is read, and that it stands behind those that serve meanwhile. May not
//! know: which engine is in the worker.

use std::sync::Arc;
use std::time::Duration;

use vesta_model::Session;
use vesta_worker::{IsolatedSession, LoweredProcess};

use crate::choice::{Opened, Serve};

/// A worker on trial.
pub(super) struct OpenedWorker {
    pub(super) session: Arc<IsolatedSession>,
    /// How the version is served where this worker is for the trial alone.
    pub(super) serve: Option<Serve>,
}

impl OpenedWorker {
    /// A worker that serves when it wins.
    pub(super) fn boxed(session: Arc<IsolatedSession>) -> Box<dyn Opened> {
        Box::new(OpenedWorker { session, serve: None })
    }
}

impl Opened for OpenedWorker {
    fn session(&self) -> &dyn Session {
        &*self.session
    }

    fn cpu_time(&self) -> Option<Duration> {
        let health = self.session.health();
        // A process that took the place of another counts from nothing.
        (health.restarts == 0).then_some(())?;
        vesta_ffi::process_cpu_time(health.pid?).ok()
    }

    fn step_back(&self) -> Option<LoweredProcess> {
        LoweredProcess::new(self.session.health().pid?)
    }

    fn close(self: Box<Self>) -> Serve {
        let OpenedWorker { session, serve } = *self;
        // With another way to serve, the worker ends here.
        serve.unwrap_or_else(|| Box::new(move || Ok(session)))
    }

    fn stay(self: Box<Self>) -> Arc<dyn Session> {
        self.session
    }
}

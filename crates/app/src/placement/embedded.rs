//! Where the embedded engine runs a version: in the server's own process or in a worker.
//!
//! The embedded engine is safe Rust, but safe Rust can still abort a process (a stack overflow, an
//! allocation that cannot be had), so a version runs inline only when its graph was proven harmless
//! and a throw-away worker has loaded and run it once.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, info};
use vesta_engines::{EmbeddedEngine, EngineName, EngineOptions};
use vesta_model::{Engine, EngineIdentity, LoadRequest, Session, Status};
use vesta_worker::{IsolatedEngine, IsolatedSession, WorkerCommand, WorkerOptions, probe_session};

use super::Isolation;
use super::contenders::OpenedWorker;
use crate::choice::{Contender, Opened, Serve};
use crate::logs::LogFormat;
use crate::worker;

/// The longest that one run of a probe may take.
const PROBE_RUN_LIMIT: Duration = Duration::from_secs(60);

/// Decides for each version where it runs.
#[derive(Clone)]
pub(super) struct EmbeddedPlacement {
    command: WorkerCommand,
    isolated: Arc<IsolatedEngine>,
    isolation: Isolation,
    release: String,
}

impl EmbeddedPlacement {
    /// Workers are started by `program`.
    pub(super) fn new(program: &Path, isolation: Isolation, log_format: LogFormat) -> Self {
        let identity = EmbeddedEngine.identity();
        let command =
            worker::command(program, &identity.name, log_format, &EngineOptions::default());
        let release = identity.version.clone();
        let isolated = IsolatedEngine::new(identity, command.clone(), WorkerOptions::default());
        EmbeddedPlacement { command, isolated: Arc::new(isolated), isolation, release }
    }

    /// Loads and runs the version once in a throw-away worker.
    fn try_out(&self, request: &LoadRequest) -> Result<Arc<IsolatedSession>, Status> {
        let (probed, session) = probe_session(
            self.identity(),
            self.command.clone(),
            WorkerOptions::default(),
            request,
            PROBE_RUN_LIMIT,
        )?;
        for (signature, reason) in &probed.skipped {
            debug!(model = %request.model, version = %request.version, %signature, %reason, "not probed");
        }
        Ok(session)
    }

    /// Loads the version to serve it, after it was tried out.
    fn load_tried(&self, request: &LoadRequest) -> Result<Arc<dyn Session>, Status> {
        let session = EmbeddedEngine.load_session(request)?;
        match session.inline_verdict() {
            Ok(()) => Ok(Arc::new(session)),
            Err(reason) if self.isolation == Isolation::Inline => {
                Err(Status::failed_precondition(format!(
                    "model {} version {} may not run inside the server: {reason}; start the server \
                     with --isolation=auto or --isolation=worker",
                    request.model, request.version
                )))
            }
            Err(reason) => {
                info!(
                    model = %request.model, version = %request.version, %reason,
                    "the version runs in a worker process"
                );
                drop(session);
                self.isolated.load(request)
            }
        }
    }
}

impl Engine for EmbeddedPlacement {
    fn identity(&self) -> EngineIdentity {
        EmbeddedEngine.identity()
    }

    fn load(&self, request: &LoadRequest) -> Result<Arc<dyn Session>, Status> {
        if self.isolation == Isolation::Worker {
            return self.isolated.load(request);
        }
        // The worker loads and runs first: what is wrong is found where it does no harm.
        drop(self.try_out(request)?);
        self.load_tried(request)
    }

    fn host_runs(&self, work: Box<dyn FnOnce() + Send + '_>) {
        EmbeddedEngine.host_runs(work);
    }
}

impl Contender for EmbeddedPlacement {
    fn name(&self) -> EngineName {
        EngineName::Embedded
    }

    fn release(&self) -> &str {
        &self.release
    }

    fn open(&self, request: &LoadRequest) -> Result<Box<dyn Opened>, Status> {
        if self.isolation == Isolation::Worker {
            return Ok(OpenedWorker::boxed(self.isolated.load_isolated(request)?));
        }
        // It is tried in the worker that tries every version out, and loaded once more if it wins.
        let session = self.try_out(request)?;
        let (placement, request) = (self.clone(), request.clone());
        let serve: Serve = Box::new(move || placement.load_tried(&request));
        Ok(Box::new(OpenedWorker { session, serve: Some(serve) }))
    }
}

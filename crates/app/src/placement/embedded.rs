//! Where the embedded engine runs a version: in the server's own process or in a worker.
//!
//! The embedded engine is safe Rust, but safe Rust can still abort a process (a stack overflow, an
//! allocation that cannot be had), so a version runs inline only when its graph was proven harmless
//! and a throw-away worker has loaded and run it once.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, info};
use vesta_engines::{EmbeddedEngine, EngineOptions};
use vesta_model::{Engine, EngineIdentity, LoadRequest, Session, Status};
use vesta_worker::{IsolatedEngine, WorkerCommand, WorkerOptions, probe};

use super::Isolation;
use crate::logs::LogFormat;
use crate::worker;

/// The longest that one run of a probe may take.
const PROBE_RUN_LIMIT: Duration = Duration::from_secs(60);

/// Decides for each version where it runs.
pub(super) struct EmbeddedPlacement {
    embedded: EmbeddedEngine,
    command: WorkerCommand,
    isolated: IsolatedEngine,
    isolation: Isolation,
}

impl EmbeddedPlacement {
    /// Workers are started by `program`.
    pub(super) fn new(program: &Path, isolation: Isolation, log_format: LogFormat) -> Self {
        let embedded = EmbeddedEngine;
        let identity = embedded.identity();
        let command =
            worker::command(program, &identity.name, log_format, &EngineOptions::default());
        let isolated = IsolatedEngine::new(identity, command.clone(), WorkerOptions::default());
        EmbeddedPlacement { embedded, command, isolated, isolation }
    }

    /// Loads and runs the version once in a throw-away worker.
    fn try_out(&self, request: &LoadRequest) -> Result<(), Status> {
        let probed = probe(
            self.identity(),
            self.command.clone(),
            WorkerOptions::default(),
            request,
            PROBE_RUN_LIMIT,
        )?;
        for (signature, reason) in &probed.skipped {
            debug!(model = %request.model, version = %request.version, %signature, %reason, "not probed");
        }
        Ok(())
    }
}

impl Engine for EmbeddedPlacement {
    fn identity(&self) -> EngineIdentity {
        self.embedded.identity()
    }

    fn load(&self, request: &LoadRequest) -> Result<Arc<dyn Session>, Status> {
        if self.isolation == Isolation::Worker {
            return self.isolated.load(request);
        }
        // The worker loads and runs first: what is wrong is found where it does no harm.
        self.try_out(request)?;
        let session = self.embedded.load_session(request)?;
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

    fn host_runs(&self, work: Box<dyn FnOnce() + Send + '_>) {
        self.embedded.host_runs(work);
    }
}

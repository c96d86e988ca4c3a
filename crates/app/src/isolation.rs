//! Where the embedded engine runs a version: in the server's own process or in a worker.
//!
//! Owns: the flag, the decision, and the worker's command line. The embedded engine is safe Rust,
//! but safe Rust can still abort a process (a stack overflow, an allocation that cannot be had), so
//! a version runs inline only when its graph was proven harmless and a throw-away worker has loaded
//! and run it once.

use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, info};
use vesta_engines::{EmbeddedEngine, EngineChoice};
use vesta_model::{Engine, EngineIdentity, LoadRequest, Session, Status};
use vesta_worker::{IsolatedEngine, WorkerCommand, WorkerOptions, probe};

use crate::logs::LogFormat;

/// The flag `isolation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isolation {
    /// Inline when the graph is proven harmless, else in a worker.
    Auto,
    /// In the server's process; versions whose graph is not proven harmless are refused.
    Inline,
    /// Every version in a worker process of its own.
    Worker,
}

impl Isolation {
    /// Reads the flag.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for another word.
    pub(crate) fn parse(text: &str) -> Result<Isolation, Status> {
        match text {
            "auto" => Ok(Isolation::Auto),
            "inline" => Ok(Isolation::Inline),
            "worker" => Ok(Isolation::Worker),
            _ => Err(Status::invalid_argument(format!(
                "--isolation={text} is unknown; choose auto, inline or worker"
            ))),
        }
    }
}

/// The engine of the server: the chosen one, put where `isolation` says.
///
/// # Errors
/// When the engine is not to be had, or the server cannot find its own program.
pub(crate) fn engine(
    choice: &EngineChoice,
    isolation: Isolation,
    log_format: LogFormat,
) -> Result<Arc<dyn Engine>, Status> {
    // Refuses engines that this build does not have.
    vesta_engines::build(choice)?;
    let embedded = EmbeddedEngine;
    let program = std::env::current_exe()
        .map_err(|e| Status::internal("the path of the server's own program").with_cause(e))?;
    let command = WorkerCommand::new(program)
        .arg(crate::worker::COMMAND)
        .arg(embedded.identity().name)
        .arg(log_format.as_str());
    let isolated =
        IsolatedEngine::new(embedded.identity(), command.clone(), WorkerOptions::default());
    Ok(Arc::new(Placed { embedded, command, isolated, isolation }))
}

/// The longest that one run of a probe may take.
const PROBE_RUN_LIMIT: Duration = Duration::from_secs(60);

/// Decides for each version where it runs.
struct Placed {
    embedded: EmbeddedEngine,
    command: WorkerCommand,
    isolated: IsolatedEngine,
    isolation: Isolation,
}

impl Placed {
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

impl Engine for Placed {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_places_are_taken() {
        assert_eq!(Isolation::parse("worker"), Ok(Isolation::Worker));
        let problem = Isolation::parse("outside").unwrap_err();
        assert_eq!(
            problem.message(),
            "--isolation=outside is unknown; choose auto, inline or worker"
        );
    }
}

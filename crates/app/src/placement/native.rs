//! A native engine: a worker process per version, and a trial run before a version counts as loaded.
//!
//! TensorFlow checks a graph when it first runs it, not when it loads it, and ends the process when a
//! check fails; its first run also takes up to a second more than later ones. Both belong before the
//! moment from which clients are served.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, info};
use vesta_engines::{EngineChoice, EngineName, Installed};
use vesta_model::{Code, Engine, EngineIdentity, LoadRequest, Session, Status};
use vesta_worker::{IsolatedEngine, WorkerOptions, try_signatures};

use super::{EngineSettings, Isolation};
use crate::logs::LogFormat;
use crate::worker;

/// The longest that one trial run may take. What takes longer is still served: only a run that takes
/// the process down is held against a version.
const TRIAL_RUN_LIMIT: Duration = Duration::from_secs(60);

/// A release of a native engine, where the operator wants it to run.
pub(super) struct NativePlacement {
    identity: EngineIdentity,
    engine: Arc<dyn Engine>,
}

impl NativePlacement {
    /// Workers are started by `program`.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` when it should run inline without leave; what opening the library
    /// inline says.
    pub(super) fn new(
        program: &Path,
        installed: &Installed,
        settings: &EngineSettings,
        log_format: LogFormat,
    ) -> Result<NativePlacement, Status> {
        let (name, version) = (installed.name, installed.version.clone());
        let identity = EngineIdentity { name: name.as_str().to_owned(), version: version.clone() };
        let choice = EngineChoice::Named { name, version: Some(version) };
        if settings.isolation == Isolation::Inline {
            if !settings.allow_native_inline {
                return Err(not_inline(name));
            }
            let engine = vesta_engines::build(&choice, &settings.tensorflow)?;
            return Ok(NativePlacement { identity, engine });
        }
        let command =
            worker::command(program, &choice.to_string(), log_format, &settings.tensorflow);
        let engine = IsolatedEngine::new(identity.clone(), command, WorkerOptions::default());
        Ok(NativePlacement { identity, engine: Arc::new(engine) })
    }
}

fn not_inline(name: EngineName) -> Status {
    Status::failed_precondition(format!(
        "--isolation=inline would open {name} in the server's own process, where a crash, a leak or a \
         bad model of one version harms all; leave the flag out, or add --allow_native_inline if that \
         is wanted"
    ))
}

impl Engine for NativePlacement {
    fn identity(&self) -> EngineIdentity {
        self.identity.clone()
    }

    fn load(&self, request: &LoadRequest) -> Result<Arc<dyn Session>, Status> {
        let session = self.engine.load(request)?;
        let tried = try_signatures(session.as_ref(), TRIAL_RUN_LIMIT);
        for (signature, reason) in &tried.skipped {
            debug!(model = %request.model, version = %request.version, %signature, %reason, "not tried");
        }
        for (signature, outcome) in tried.ran {
            match outcome {
                // The worker died, and once more when it was tried again.
                Err(status) if status.code() == Code::Unavailable => {
                    return Err(Status::failed_precondition(format!(
                        "a first run of signature `{signature}` of model {} version {} ended its \
                         process: {}",
                        request.model,
                        request.version,
                        status.message()
                    )));
                }
                Err(status) => debug!(
                    model = %request.model, version = %request.version, %signature, %status,
                    "a trial run was refused"
                ),
                Ok(()) => {}
            }
        }
        info!(
            model = %request.model, version = %request.version,
            engine = %self.identity.name, release = %self.identity.version,
            "loaded"
        );
        Ok(session)
    }

    fn host_runs(&self, work: Box<dyn FnOnce() + Send + '_>) {
        self.engine.host_runs(work);
    }
}

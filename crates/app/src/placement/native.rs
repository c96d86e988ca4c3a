//! A native engine: a worker process per version, which tries its version out as it loads it.

use std::path::Path;
use std::sync::Arc;

use tracing::info;
use vesta_engines::{EngineChoice, EngineName, Installed};
use vesta_model::{Engine, EngineIdentity, LoadRequest, Session, Status};
use vesta_worker::{IsolatedEngine, WorkerOptions};

use super::{EngineSettings, Isolation, TriedEngine};
use crate::logs::LogFormat;
use crate::worker;

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
            return Ok(NativePlacement { identity, engine: Arc::new(TriedEngine::new(engine)) });
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

//! `--engine=auto`: the embedded engine where it gives the right answers, else TensorFlow.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::info;
use vesta_engines::{EngineName, EngineStore};
use vesta_model::{Code, Engine, EngineIdentity, LoadRequest, Session, Status};

use super::embedded::EmbeddedPlacement;
use super::native::NativePlacement;
use super::{EngineSettings, Isolation, embedded_identity};
use crate::logs::LogFormat;

/// Decides for each version which engine runs it.
pub(super) struct Auto {
    embedded: EmbeddedPlacement,
    program: PathBuf,
    settings: EngineSettings,
    log_format: LogFormat,
    /// TensorFlow as it was last found. It is looked up at each load that needs it, so that an
    /// engine installed meanwhile is used without a restart.
    tensorflow: Mutex<Option<Arc<NativePlacement>>>,
}

impl Auto {
    pub(super) fn new(
        embedded: EmbeddedPlacement,
        program: PathBuf,
        settings: EngineSettings,
        log_format: LogFormat,
    ) -> Auto {
        Auto { embedded, program, settings, log_format, tensorflow: Mutex::default() }
    }

    /// TensorFlow's newest installed release.
    ///
    /// # Errors
    /// `NOT_FOUND` when none is installed.
    fn tensorflow(&self) -> Result<Arc<NativePlacement>, Status> {
        let installed = EngineStore::from_env().find(EngineName::TensorFlow, None)?;
        let mut known = self.tensorflow.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.as_ref().filter(|e| e.identity().version == installed.version) {
            return Ok(Arc::clone(known));
        }
        let new = NativePlacement::new(&self.program, &installed, &self.settings, self.log_format)?;
        let new = Arc::new(new);
        *known = Some(Arc::clone(&new));
        Ok(new)
    }

    /// Whether a model that the embedded engine refuses may go to TensorFlow.
    fn may_go_native(&self) -> bool {
        self.settings.isolation != Isolation::Inline || self.settings.allow_native_inline
    }
}

impl Engine for Auto {
    fn identity(&self) -> EngineIdentity {
        embedded_identity()
    }

    fn load(&self, request: &LoadRequest) -> Result<Arc<dyn Session>, Status> {
        let refusal = match self.embedded.load(request) {
            Err(status) if status.code() == Code::Unimplemented && self.may_go_native() => status,
            other => return other,
        };
        let tensorflow =
            self.tensorflow().map_err(|missing| with_what_is_missing(&refusal, &missing))?;
        info!(
            model = %request.model, version = %request.version, reason = refusal.message(),
            "the version goes to TensorFlow"
        );
        tensorflow.load(request)
    }

    fn host_runs(&self, work: Box<dyn FnOnce() + Send + '_>) {
        self.embedded.host_runs(work);
    }
}

/// Why the embedded engine refuses a model, and what keeps TensorFlow from taking it.
fn with_what_is_missing(refusal: &Status, missing: &Status) -> Status {
    Status::new(refusal.code(), format!("{}; {}", refusal.message(), missing.message()))
}

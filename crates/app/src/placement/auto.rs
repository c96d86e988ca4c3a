//! `--engine=auto`: the embedded engine where it gives the right answers, else TensorFlow.

use std::sync::Arc;

use tracing::info;
use vesta_model::{Code, Engine, EngineIdentity, LoadRequest, Session, Status};

use super::embedded::EmbeddedPlacement;
use super::native::Newest;
use super::{EngineSettings, Isolation, embedded_identity};

/// Decides for each version which engine runs it.
pub(super) struct Auto {
    embedded: EmbeddedPlacement,
    tensorflow: Newest,
    settings: EngineSettings,
}

impl Auto {
    pub(super) fn new(
        embedded: EmbeddedPlacement,
        tensorflow: Newest,
        settings: EngineSettings,
    ) -> Auto {
        Auto { embedded, tensorflow, settings }
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
            self.tensorflow.find().map_err(|missing| with_what_is_missing(&refusal, &missing))?;
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

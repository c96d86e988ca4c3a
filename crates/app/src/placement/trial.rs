//! A trial run as a part of loading.
//!
//! TensorFlow checks a graph when it first runs it, not when it loads it, and ends the process when a
//! check fails; its first run also takes up to a second more than later ones. Both belong before the
//! moment from which clients are served.

use std::sync::Arc;
use std::time::Duration;

use tracing::debug;
use vesta_model::{Engine, EngineIdentity, LoadRequest, Session, Status};
use vesta_worker::try_signatures;

/// The longest that one trial run may take. What takes longer is still served: only a run that takes
/// the process down is held against a version.
const TRIAL_RUN_LIMIT: Duration = Duration::from_secs(60);

/// An engine whose sessions have run each stateless signature once.
pub(crate) struct TriedEngine {
    engine: Arc<dyn Engine>,
}

impl TriedEngine {
    pub(crate) fn new(engine: Arc<dyn Engine>) -> TriedEngine {
        TriedEngine { engine }
    }
}

impl Engine for TriedEngine {
    fn identity(&self) -> EngineIdentity {
        self.engine.identity()
    }

    fn load(&self, request: &LoadRequest) -> Result<Arc<dyn Session>, Status> {
        let session = self.engine.load(request)?;
        let tried = try_signatures(session.as_ref(), TRIAL_RUN_LIMIT);
        for (signature, reason) in &tried.skipped {
            debug!(model = %request.model, version = %request.version, %signature, %reason, "not tried");
        }
        for (signature, outcome) in &tried.ran {
            if let Err(status) = outcome {
                // Clients may get the same error for such inputs; that is for them to see.
                debug!(
                    model = %request.model, version = %request.version, %signature, %status,
                    "a trial run was refused"
                );
            }
        }
        Ok(session)
    }

    fn host_runs(&self, work: Box<dyn FnOnce() + Send + '_>) {
        self.engine.host_runs(work);
    }
}

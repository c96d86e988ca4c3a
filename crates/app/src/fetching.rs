//! An engine whose versions may lie in an object store: they are fetched before they are loaded, and
//! their copies stay for as long as they are loaded.
//!
//! The transfer is a part of the load: it happens on the same thread, is shown as LOADING, and is
//! tried again as a load is. May not know: which stores there are, which engine it wraps.

use std::sync::Arc;

use vesta_model::{Engine, EngineIdentity, LoadRequest, Session, Status};
use vesta_repository::Store;

use crate::holding::Holding;

/// Fetches, then loads.
pub(crate) struct Fetching {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) store: Arc<dyn Store>,
}

impl Engine for Fetching {
    fn identity(&self) -> EngineIdentity {
        self.engine.identity()
    }

    fn load(&self, request: &LoadRequest) -> Result<Arc<dyn Session>, Status> {
        if request.artifact.is_absolute() {
            return self.engine.load(request);
        }
        let fetched = self.store.fetch(&request.artifact)?;
        let request = LoadRequest { artifact: fetched.directory, ..request.clone() };
        let session = self.engine.load(&request)?;
        Ok(Holding::shared(session, fetched.hold))
    }

    fn host_runs(&self, work: Box<dyn FnOnce() + Send + '_>) {
        self.engine.host_runs(work);
    }
}

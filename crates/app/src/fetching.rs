//! An engine whose versions may lie in an object store: they are fetched before they are loaded, and
//! their copies stay for as long as they are loaded.
//!
//! The transfer is a part of the load: it happens on the same thread, is shown as LOADING, and is
//! tried again as a load is. May not know: which stores there are, which engine it wraps.

use std::sync::Arc;
use std::time::Instant;

use vesta_model::{
    BatchingParameters, Engine, EngineIdentity, HealthListener, LoadRequest, ModelDescription, Run,
    RunRequest, Session, SessionHealth, Status, Tensor,
};
use vesta_repository::{Hold, Store};

/// Fetches, then loads.
pub(crate) struct Fetching {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) store: Arc<dyn Store>,
}

/// A session, and what keeps its files.
struct Kept {
    // Fields drop in this order.
    session: Arc<dyn Session>,
    _hold: Hold,
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
        Ok(Arc::new(Kept { session, _hold: fetched.hold }))
    }

    fn host_runs(&self, work: Box<dyn FnOnce() + Send + '_>) {
        self.engine.host_runs(work);
    }
}

impl Session for Kept {
    fn description(&self) -> &ModelDescription {
        self.session.description()
    }

    fn prepare(&self, request: &RunRequest) -> Result<Box<dyn Run>, Status> {
        self.session.prepare(request)
    }

    fn batching(&self) -> Option<&BatchingParameters> {
        self.session.batching()
    }

    fn watch(&self, listener: HealthListener) -> SessionHealth {
        self.session.watch(listener)
    }

    fn run_over(
        &self,
        request: &RunRequest,
        inputs: Vec<Tensor>,
        deadline: Option<Instant>,
    ) -> Result<Vec<Tensor>, Status> {
        self.session.run_over(request, inputs, deadline)
    }
}

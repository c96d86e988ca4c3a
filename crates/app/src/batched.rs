//! An engine whose versions say how their requests are run together: a decorator.
//!
//! Owns: which parameters a version has, and when its own file is read. May not know: how batches are
//! formed. Invariant: a version whose parameters cannot be read does not load, rather than be run in
//! another way than was asked for.

use std::sync::Arc;
use std::time::Instant;

use tracing::info;
use vesta_model::{
    BatchingParameters, Engine, EngineIdentity, HealthListener, LoadRequest, ModelDescription, Run,
    RunRequest, Session, SessionHealth, SessionProcess, Status, Tensor,
};

use crate::config::{Batching, PARAMETERS_FILE, read_parameters};

/// The engine with batching.
pub(crate) struct Batched {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) batching: Batching,
}

struct BatchedSession {
    session: Arc<dyn Session>,
    parameters: BatchingParameters,
}

impl Batched {
    /// How the requests of a version are run together; `None` to run each alone.
    fn parameters(&self, request: &LoadRequest) -> Result<Option<BatchingParameters>, Status> {
        match &self.batching {
            Batching::Off => Ok(None),
            Batching::All(parameters) => Ok(Some(parameters.clone())),
            &Batching::Own { num_batch_threads } => {
                let file = request.artifact.join(PARAMETERS_FILE);
                let is_there = file.try_exists().map_err(|error| {
                    Status::unknown(format!("{}; {error}", file.display())).with_cause(error)
                })?;
                if !is_there {
                    return Ok(None);
                }
                // The threads are the server's, whatever a version says.
                let own = read_parameters(&file, num_batch_threads)?;
                Ok(Some(BatchingParameters { num_batch_threads, ..own }))
            }
        }
    }
}

impl Engine for Batched {
    fn identity(&self) -> EngineIdentity {
        self.engine.identity()
    }

    fn load(&self, request: &LoadRequest) -> Result<Arc<dyn Session>, Status> {
        let parameters = self.parameters(request)?;
        let session = self.engine.load(request)?;
        let Some(parameters) = parameters else { return Ok(session) };
        info!(
            "Wrapping session to perform batch processing: {{name: {} version: {}}} {parameters:?}",
            request.model, request.version
        );
        Ok(Arc::new(BatchedSession { session, parameters }))
    }

    fn host_runs(&self, work: Box<dyn FnOnce() + Send + '_>) {
        self.engine.host_runs(work);
    }
}

impl Session for BatchedSession {
    fn description(&self) -> &ModelDescription {
        self.session.description()
    }

    fn prepare(&self, request: &RunRequest) -> Result<Box<dyn Run>, Status> {
        self.session.prepare(request)
    }

    fn batching(&self) -> Option<&BatchingParameters> {
        Some(&self.parameters)
    }

    fn watch(&self, listener: HealthListener) -> SessionHealth {
        self.session.watch(listener)
    }

    fn process(&self) -> Option<SessionProcess> {
        self.session.process()
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

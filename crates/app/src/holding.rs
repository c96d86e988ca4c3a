//! A session that keeps something for as long as it lives.
//!
//! May not know: what it keeps, or why.

use std::sync::Arc;
use std::time::Instant;

use vesta_model::{
    BatchingParameters, HealthListener, ModelDescription, Run, RunRequest, Session, SessionHealth,
    SessionProcess, Status, Tensor,
};

/// A session, and what goes when it has gone.
pub(crate) struct Holding<T> {
    // Fields drop in this order.
    session: Arc<dyn Session>,
    _held: T,
}

impl<T: Send + Sync + 'static> Holding<T> {
    /// `session`, which keeps `held`.
    pub(crate) fn shared(session: Arc<dyn Session>, held: T) -> Arc<dyn Session> {
        Arc::new(Holding { session, _held: held })
    }
}

impl<T: Send + Sync> Session for Holding<T> {
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

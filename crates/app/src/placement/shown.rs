//! A loaded version that says which engine serves it: in the log once, on the metrics page for as long
//! as it lives.
//!
//! Owns: the words. May not know: how the engine was found.

use std::sync::Arc;
use std::time::Instant;

use tracing::info;
use vesta_frontends::{EngineChosen, Metrics, ShownChoice};
use vesta_model::{
    BatchingParameters, HealthListener, LoadRequest, ModelDescription, Run, RunRequest, Session,
    SessionHealth, Status, Tensor,
};

use super::Placed;
use crate::choice::Reason;

/// The session, and what is shown of it.
pub(super) struct ShownSession {
    session: Arc<dyn Session>,
    _shown: ShownChoice,
}

impl ShownSession {
    /// Tells where a version runs.
    pub(super) fn shown(
        placed: Placed,
        request: &LoadRequest,
        metrics: &Metrics,
    ) -> Arc<dyn Session> {
        let Placed { session, engine, reason, trial } = placed;
        let because = match &reason {
            Reason::Measured => "it is the fastest of those that agree",
            Reason::Remembered => "it was the fastest of those that agree when they were measured",
            Reason::Quick => "its runs are too short for another to be worth while",
            Reason::Only => "no other engine runs it here",
            Reason::Unmeasured(_) => "it comes first where nothing is measured",
            Reason::Named => "it was named",
        };
        info!(
            model = %request.model, version = %request.version, engine = engine.name,
            release = engine.version, reason = reason.word(), trial_ms = trial.as_millis(),
            "the engine of the version is chosen: {because}"
        );
        let shown = metrics.show_choice(EngineChosen {
            model: request.model.to_string(),
            version: request.version.0,
            engine: engine.name,
            release: engine.version,
            reason: reason.word(),
            trial,
        });
        Arc::new(ShownSession { session, _shown: shown })
    }
}

impl Session for ShownSession {
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

//! A loaded version that says which engine serves it: in the log once, on the metrics page for as long
//! as it lives.
//!
//! Owns: the words. May not know: how the engine was found.

use std::sync::Arc;

use tracing::info;
use vesta_frontends::{EngineChosen, Metrics};
use vesta_model::{LoadRequest, Session};

use super::Placed;
use crate::choice::Reason;
use crate::holding::Holding;

/// Tells where a version runs.
pub(super) fn shown(placed: Placed, request: &LoadRequest, metrics: &Metrics) -> Arc<dyn Session> {
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
    Holding::shared(session, shown)
}

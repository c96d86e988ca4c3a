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

/// Tells where a version runs. `named_by` says where an engine is named, if it is.
pub(super) fn shown(
    placed: Placed,
    request: &LoadRequest,
    named_by: &str,
    metrics: &Metrics,
) -> Arc<dyn Session> {
    let Placed { session, engine, reason, trial, weighed } = placed;
    let because = match &reason {
        Reason::Measured => "it is the fastest of those that agree".to_owned(),
        Reason::Remembered => {
            "it was the fastest of those that agree when they were measured".to_owned()
        }
        Reason::Quick => "its runs are too short for another to be worth while".to_owned(),
        Reason::Only => "no other engine runs it here".to_owned(),
        Reason::Unmeasured(why) => format!("it comes first where nothing is measured: {why}"),
        Reason::Named => format!("{named_by} names it"),
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
        because,
        trial,
        threads: request.threads,
        contenders: weighed,
        session: Arc::downgrade(&session),
    });
    Holding::shared(session, shown)
}

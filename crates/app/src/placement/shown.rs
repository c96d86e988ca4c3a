//! A loaded version that says which engine serves it: in the log once, on the metrics page for as long
//! as it lives.
//!
//! Owns: the words. May not know: how the engine was found.

use std::sync::{Arc, Mutex};

use tracing::info;
use vesta_frontends::{EngineChosen, Metrics};
use vesta_model::{LoadRequest, Session};

use super::{Placed, shadow};
use crate::choice::Reason;
use crate::holding::Holding;

/// Tells where a version runs, and has the part `shadow_rate` of its runs checked where that is possible.
/// `named_by` says where an engine is named, if it is.
pub(super) fn shown(
    placed: Placed,
    request: &LoadRequest,
    named_by: &str,
    shadow_rate: f64,
    metrics: &Metrics,
) -> Arc<dyn Session> {
    let Placed { session, engine, reason, trial, weighed, references } = placed;
    let because = because(&reason, named_by);
    info!(
        model = %request.model, version = %request.version, engine = engine.name,
        release = engine.version, reason = reason.word(), trial_ms = trial.as_millis(),
        "the engine of the version is chosen: {because}"
    );
    let chosen = EngineChosen {
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
    };
    let shown = Arc::new(Mutex::new(vec![metrics.show_choice(chosen.clone())]));
    let session = match shadow_rate {
        0.0 => session,
        rate => shadow::shadowed(session, references, request, rate, chosen, metrics, &shown),
    };
    Holding::shared(session, shown)
}

/// Why the engine serves, as a sentence.
pub(super) fn because(reason: &Reason, named_by: &str) -> String {
    match reason {
        Reason::Measured => "it is the fastest of those that agree".to_owned(),
        Reason::Remembered => {
            "it was the fastest of those that agree when they were measured".to_owned()
        }
        Reason::Quick => "its runs are too short for another to be worth while".to_owned(),
        Reason::Only => "no other engine runs it here".to_owned(),
        Reason::Unmeasured(why) => format!("it comes first where nothing is measured: {why}"),
        Reason::Named => format!("{named_by} names it"),
        Reason::Refuted(how) => format!("a shadow check refuted another: {how}"),
    }
}

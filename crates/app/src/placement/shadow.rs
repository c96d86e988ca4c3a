//! Shadow checks of a version: which engine it is held to, and what is told of them.
//!
//! Owns: the loading of the reference, metrics, log and memory of what is found. May not know: how runs are
//! kept and compared.
//! Invariant: a version for which there is no reference to be had serves without; nothing of a request
//! is told.

use std::sync::{Arc, Mutex, PoisonError};

use tracing::{error, info, warn};
use vesta_frontends::{EngineChosen, Metrics, ShownChoice, Weighed};
use vesta_model::{EngineIdentity, LoadRequest, Session};

use super::shown::because;
use crate::choice::{
    Contender, Observer, Opened, Outcome, Question, Reason, Shadowed, Verdicts, obstacle,
};

/// What the answers of a version can be held to.
pub(super) struct References {
    /// Engines that are more exact than the one that serves, the most exact first.
    pub(super) engines: Vec<Arc<dyn Contender>>,
    /// Where it is remembered that the one that serves is out,
    pub(super) verdicts: Arc<Verdicts>,
    /// and for what.
    pub(super) question: Question,
}

/// What is shown of a version, the latest last.
pub(super) type Shown = Arc<Mutex<Vec<ShownChoice>>>;

/// The version with its checks; without, where there can be none.
pub(super) fn shadowed(
    session: Arc<dyn Session>,
    references: Option<References>,
    request: &LoadRequest,
    rate: f64,
    chosen: EngineChosen,
    metrics: &Metrics,
    shown: &Shown,
) -> Arc<dyn Session> {
    let begun = begin(&session, references, request, rate, chosen, metrics, shown);
    begun.unwrap_or_else(|why| {
        info!(model = %request.model, version = %request.version, "no shadow checks are made: {why}");
        session
    })
}

/// The version with its checks.
///
/// # Errors
/// Why there are none, in words.
fn begin(
    session: &Arc<dyn Session>,
    references: Option<References>,
    request: &LoadRequest,
    rate: f64,
    chosen: EngineChosen,
    metrics: &Metrics,
    shown: &Shown,
) -> Result<Arc<dyn Session>, String> {
    let Some(References { engines, verdicts, question }) = references else {
        return Err("the engine was not chosen by measuring".to_owned());
    };
    // Before anything is loaded for them.
    if let Some(why) = obstacle(session.description(), session.description()) {
        return Err(why);
    }
    let (reference, identity) = open(&engines, request)?;
    if let Some(why) = obstacle(session.description(), reference.session().description()) {
        return Err(why);
    }
    info!(
        model = %request.model, version = %request.version, engine = chosen.engine,
        reference = identity.name, rate, "answers are checked against the reference"
    );
    for outcome in [Outcome::Agreed, Outcome::Disagreed, Outcome::Failed, Outcome::Dropped] {
        metrics.shadow_checked(&chosen.model, chosen.version, word(outcome), 0);
    }
    let (metrics, shown) = (metrics.clone(), Arc::clone(shown));
    let told = Told { chosen, reference: identity, verdicts, question, metrics, shown };
    Shadowed::start(Arc::clone(session), reference, rate, Arc::new(told))
        .map_err(|status| status.message().to_owned())
}

/// The most exact engine that loads the version.
fn open(
    engines: &[Arc<dyn Contender>],
    request: &LoadRequest,
) -> Result<(Box<dyn Opened>, EngineIdentity), String> {
    for engine in engines {
        match engine.open(request) {
            Ok(opened) => return Ok((opened, super::identity(engine.name(), engine.release()))),
            Err(status) => warn!(
                model = %request.model, version = %request.version, engine = %engine.name(),
                problem = status.message(), "an engine cannot be the reference of shadow checks"
            ),
        }
    }
    Err("no engine that is more exact than the one that serves can be had".to_owned())
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Agreed => "agreed",
        Outcome::Disagreed => "disagreed",
        Outcome::Failed => "failed",
        Outcome::Dropped => "dropped",
    }
}

/// Tells of the checks of one version.
struct Told {
    /// The engine that is checked.
    chosen: EngineChosen,
    reference: EngineIdentity,
    verdicts: Arc<Verdicts>,
    question: Question,
    metrics: Metrics,
    shown: Shown,
}

impl Observer for Told {
    fn checked(&self, outcome: Outcome) {
        let EngineChosen { model, version, .. } = &self.chosen;
        self.metrics.shadow_checked(model, *version, word(outcome), 1);
    }

    fn refuted(&self, why: &str, reference: &Arc<dyn Session>) {
        let EngineChosen { model, version, engine, release, .. } = &self.chosen;
        let EngineIdentity { name, version: newer } = &self.reference;
        error!(
            model,
            version,
            engine,
            release,
            reference = name,
            difference = why,
            "a shadow check found other answers than the reference's; the reference serves the version \
             from now on, and {engine}=={release} is out of the choice for its files"
        );
        let out = Weighed {
            engine: engine.clone(),
            release: release.clone(),
            is_reference: false,
            outcome: Err(format!("it disagreed with {name}=={newer} in a shadow check: {why}")),
        };
        let mut contenders = self.chosen.contenders.clone();
        contenders.retain(|other| !other.is_same_engine(&out));
        contenders.push(out.clone());
        let reason = Reason::Refuted(format!("{engine}=={release}, {why}"));
        let serving = EngineChosen {
            engine: name.clone(),
            release: newer.clone(),
            reason: reason.word(),
            because: because(&reason, ""),
            contenders,
            session: Arc::downgrade(reference),
            ..self.chosen.clone()
        };
        let serving = self.metrics.show_choice(serving);
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).push(serving);
        self.verdicts.refute(&self.question, model, &out);
    }
}

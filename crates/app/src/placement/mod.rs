//! Which engine runs a version, and in which process.
//!
//! Owns the flags about that, the decision, and the engines that carry it
//! out. Invariants: a native library is never opened in the server's process unless the operator said
//! `--allow_native_inline`; a model's own word (`vesta.toml`) goes before the server's (`--engine`), and
//! both before a measurement.

mod auto;
mod contenders;
mod embedded;
mod format;
mod native;
mod shadow;
mod shown;
mod trial;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use vesta_engines::{
    EmbeddedEngine, EngineChoice, EngineName, EngineOptions, EngineStore, MODEL_SETTINGS,
    model_settings, unavailable_engine,
};
use vesta_frontends::{Metrics, WarmUp, Weighed};
use vesta_model::{Engine, EngineIdentity, LoadRequest, Session, Status};

use self::auto::Auto;
use self::embedded::EmbeddedPlacement;
use self::format::ByFormat;
use self::native::{NativePlacement, Newest};
use self::shadow::References;
pub(crate) use self::trial::TriedEngine;
use crate::choice::Reason;
use crate::logs::LogFormat;
pub(crate) use vesta_engines::part_of_runs;

/// The flag `isolation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isolation {
    /// Native engines in a worker; the embedded one inline when the graph is proven harmless, else
    /// in a worker.
    Auto,
    /// In the server's process; versions whose graph is not proven harmless are refused.
    Inline,
    /// Every version in a worker process of its own.
    Worker,
}

impl Isolation {
    /// Reads the flag.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for another word.
    pub(crate) fn parse(text: &str) -> Result<Isolation, Status> {
        match text {
            "auto" => Ok(Isolation::Auto),
            "inline" => Ok(Isolation::Inline),
            "worker" => Ok(Isolation::Worker),
            _ => Err(Status::invalid_argument(format!(
                "--isolation={text} is unknown; choose auto, inline or worker"
            ))),
        }
    }
}

/// What an operator says of engines.
#[derive(Clone, Debug)]
pub(crate) struct EngineSettings {
    /// Which engine.
    pub(crate) choice: EngineChoice,
    /// Where it runs.
    pub(crate) isolation: Isolation,
    /// Whether `--isolation=inline` may open a native library in the server's process.
    pub(crate) allow_native_inline: bool,
    /// Whether a version that has both is served by its `model.tflite`.
    pub(crate) prefer_tflite: bool,
    /// Options of each engine.
    pub(crate) options: EngineOptions,
    /// Time for trying engines out at a load; zero for none.
    pub(crate) choice_budget: Duration,
    /// Where the outcome is remembered; `None` where there is no place.
    pub(crate) verdicts: Option<PathBuf>,
    /// The part of the runs of a version on a chosen engine that is made again on the reference, from 0
    /// to 1, unless the version says otherwise.
    pub(crate) shadow_check_rate: f64,
}

/// A version where it runs.
struct Placed {
    session: Arc<dyn Session>,
    engine: EngineIdentity,
    reason: Reason,
    /// What trying engines out took.
    trial: Duration,
    /// The engines that were weighed against each other.
    weighed: Vec<Weighed>,
    /// What its answers can be held to from now on, where its engine was chosen by measuring.
    references: Option<References>,
}

impl Placed {
    /// A version that no engine was tried for.
    fn without_trial(session: Arc<dyn Session>, engine: EngineIdentity, reason: Reason) -> Placed {
        let (trial, weighed) = (Duration::ZERO, Vec::new());
        Placed { session, engine, reason, trial, weighed, references: None }
    }

    /// Loads the version on an engine that nothing else was weighed against.
    fn by(engine: &dyn Engine, request: &LoadRequest, reason: Reason) -> Result<Placed, Status> {
        Ok(Placed::without_trial(engine.load(request)?, engine.identity(), reason))
    }
}

/// Decides where a version runs, and loads it there.
trait Place: Send + Sync {
    /// Loads a version.
    ///
    /// # Errors
    /// Those of the engines.
    fn place(&self, request: &LoadRequest) -> Result<Placed, Status>;
}

/// An engine that somebody named.
struct Named(Arc<dyn Engine>);

impl Place for Named {
    fn place(&self, request: &LoadRequest) -> Result<Placed, Status> {
        Placed::by(&*self.0, request, Reason::Named)
    }
}

/// The engine of the server.
///
/// # Errors
/// When the engine is not to be had, may not run where it should, or the server cannot find its own
/// program.
pub(crate) fn engine(
    settings: &EngineSettings,
    log_format: LogFormat,
    warm_up: WarmUp,
    metrics: Metrics,
) -> Result<Arc<dyn Engine>, Status> {
    let program = std::env::current_exe()
        .map_err(|e| Status::internal("the path of the server's own program").with_cause(e))?;
    let placements = Placements {
        program,
        settings: settings.clone(),
        log_format,
        warm_up,
        metrics,
        made: Mutex::default(),
    };
    // What is wrong with the server's own choice stops its start.
    placements.by_choice(&settings.choice)?;
    Ok(Arc::new(placements))
}

/// Every choice of an engine that was asked for so far: by the server's flag, by models.
struct Placements {
    program: PathBuf,
    settings: EngineSettings,
    log_format: LogFormat,
    warm_up: WarmUp,
    metrics: Metrics,
    made: Mutex<HashMap<EngineChoice, Arc<dyn Place>>>,
}

impl Placements {
    /// What carries out a choice.
    fn by_choice(&self, choice: &EngineChoice) -> Result<Arc<dyn Place>, Status> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = made.get(choice) {
            return Ok(Arc::clone(place));
        }
        let place = self.make(choice)?;
        made.insert(choice.clone(), Arc::clone(&place));
        Ok(place)
    }

    fn make(&self, choice: &EngineChoice) -> Result<Arc<dyn Place>, Status> {
        let settings = &self.settings;
        let newest =
            |name| Newest::new(name, self.program.clone(), settings.clone(), self.log_format);
        let embedded =
            || EmbeddedPlacement::new(&self.program, settings.isolation, self.log_format);
        let lite_rt = || -> Arc<dyn Place> { Arc::new(newest(EngineName::LiteRt)) };
        let (saved_models, lite_models, is_taken_alone): (Arc<dyn Place>, _, _) = match choice {
            EngineChoice::Named { name: EngineName::Embedded, .. } => {
                // Refuses another release of it.
                vesta_engines::build(choice, &settings.options)?;
                (Arc::new(Named(Arc::new(embedded()))), lite_rt(), false)
            }
            EngineChoice::Named { name, version } => {
                let installed = EngineStore::from_env().find(*name, version.as_deref())?;
                let native =
                    NativePlacement::new(&self.program, &installed, settings, self.log_format)?;
                let named = Arc::new(Named(Arc::new(native)));
                match name {
                    EngineName::LiteRt => return Ok(named),
                    // It is told what is preferred, and sees for itself what is there.
                    EngineName::OpenVino => (Arc::clone(&named) as _, named as _, false),
                    _ => (named, lite_rt(), false),
                }
            }
            EngineChoice::Auto => {
                let auto = Auto::new(embedded(), newest, settings.clone(), self.warm_up.clone());
                let auto: Arc<dyn Place> = Arc::new(auto);
                (Arc::clone(&auto), auto, true)
            }
        };
        Ok(Arc::new(ByFormat {
            saved_models,
            lite_models,
            ir_models: newest(EngineName::OpenVino),
            is_preferred: settings.prefer_tflite,
            is_taken_alone,
        }))
    }
}

impl Engine for Placements {
    fn identity(&self) -> EngineIdentity {
        EmbeddedEngine.identity()
    }

    fn load(&self, request: &LoadRequest) -> Result<Arc<dyn Session>, Status> {
        let own = model_settings(&request.artifact)?;
        let (place, named_by) = match own.engine {
            Some(engine) => {
                let place = self.by_choice(&engine);
                (place.map_err(|status| unavailable_engine(&engine, &status))?, MODEL_SETTINGS)
            }
            None => (self.by_choice(&self.settings.choice)?, "--engine"),
        };
        let placed = place.place(request)?;
        let rate = own.shadow_check_rate.unwrap_or(self.settings.shadow_check_rate);
        Ok(shown::shown(placed, request, named_by, rate, &self.metrics))
    }

    /// Any model may name the embedded engine, which runs fastest there; to others it is a thread as
    /// any.
    fn host_runs(&self, work: Box<dyn FnOnce() + Send + '_>) {
        EmbeddedEngine.host_runs(work);
    }
}

/// The release of TensorFlow that would run a model, if one is installed.
pub(crate) fn tensorflow_version() -> Option<String> {
    let installed = EngineStore::from_env().find(EngineName::TensorFlow, None).ok()?;
    Some(installed.version)
}

fn identity(name: EngineName, release: &str) -> EngineIdentity {
    EngineIdentity { name: name.as_str().to_owned(), version: release.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_places_are_taken() {
        assert_eq!(Isolation::parse("worker"), Ok(Isolation::Worker));
        let problem = Isolation::parse("outside").unwrap_err();
        assert_eq!(
            problem.message(),
            "--isolation=outside is unknown; choose auto, inline or worker"
        );
    }
}

//! Which engine runs a version, and in which process.
//!
//! Owns the flags about that, the decision, and the engines that carry it out. Invariant: a native
//! library is never opened in the server's process unless the operator said `--allow_native_inline`.

mod auto;
mod embedded;
mod native;
mod trial;

use std::sync::Arc;

use vesta_engines::{EmbeddedEngine, EngineChoice, EngineName, EngineStore, TensorFlowOptions};
use vesta_model::{Engine, Status};

use self::auto::Auto;
use self::embedded::EmbeddedPlacement;
use self::native::NativePlacement;
pub(crate) use self::trial::TriedEngine;
use crate::logs::LogFormat;

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
    /// Options of TensorFlow.
    pub(crate) tensorflow: TensorFlowOptions,
}

/// The engine of the server.
///
/// # Errors
/// When the engine is not to be had, may not run where it should, or the server cannot find its own
/// program.
pub(crate) fn engine(
    settings: &EngineSettings,
    log_format: LogFormat,
) -> Result<Arc<dyn Engine>, Status> {
    let program = std::env::current_exe()
        .map_err(|e| Status::internal("the path of the server's own program").with_cause(e))?;
    let embedded = || EmbeddedPlacement::new(&program, settings.isolation, log_format);
    match &settings.choice {
        EngineChoice::Named { name: EngineName::Embedded, .. } => {
            // Refuses another release of it.
            vesta_engines::build(&settings.choice, &settings.tensorflow)?;
            Ok(Arc::new(embedded()))
        }
        EngineChoice::Named { name, version } => {
            vesta_engines::check_adapter(*name)?;
            let installed = EngineStore::from_env().find(*name, version.as_deref())?;
            Ok(Arc::new(NativePlacement::new(&program, &installed, settings, log_format)?))
        }
        EngineChoice::Auto => {
            Ok(Arc::new(Auto::new(embedded(), program, settings.clone(), log_format)))
        }
    }
}

/// The release of TensorFlow that would run a model, if one is installed.
pub(crate) fn tensorflow_version() -> Option<String> {
    let installed = EngineStore::from_env().find(EngineName::TensorFlow, None).ok()?;
    Some(installed.version)
}

/// The embedded engine's own name and version.
fn embedded_identity() -> vesta_model::EngineIdentity {
    EmbeddedEngine.identity()
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

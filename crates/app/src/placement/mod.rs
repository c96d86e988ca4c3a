//! Which engine runs a version, and in which process.
//!
//! Owns the flags about that, the decision, and the engines that carry it out. Invariant: a native
//! library is never opened in the server's process unless the operator said `--allow_native_inline`.

mod auto;
mod embedded;
mod format;
mod native;
mod trial;

use std::sync::Arc;

use vesta_engines::{EmbeddedEngine, EngineChoice, EngineName, EngineOptions, EngineStore};
use vesta_model::{Engine, Status};

use self::auto::Auto;
use self::embedded::EmbeddedPlacement;
use self::format::ByFormat;
use self::native::{NativePlacement, Newest};
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
    /// Whether a version that has both is served by its `model.tflite`.
    pub(crate) prefer_tflite: bool,
    /// Options of each engine.
    pub(crate) options: EngineOptions,
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
    let newest = |name| Newest::new(name, program.clone(), settings.clone(), log_format);
    let (engine, alone): (Arc<dyn Engine>, _) = match &settings.choice {
        EngineChoice::Named { name: EngineName::Embedded, .. } => {
            // Refuses another release of it.
            vesta_engines::build(&settings.choice, &settings.options)?;
            (Arc::new(embedded()), false)
        }
        EngineChoice::Named { name, version } => {
            vesta_engines::check_adapter(*name)?;
            let installed = EngineStore::from_env().find(*name, version.as_deref())?;
            let native = NativePlacement::new(&program, &installed, settings, log_format)?;
            if *name == EngineName::LiteRt {
                return Ok(Arc::new(native));
            }
            (Arc::new(native), false)
        }
        EngineChoice::Auto => {
            let tensorflow = newest(EngineName::TensorFlow);
            (Arc::new(Auto::new(embedded(), tensorflow, settings.clone())), true)
        }
    };
    Ok(Arc::new(ByFormat {
        saved_models: engine,
        lite_models: newest(EngineName::LiteRt),
        onnx_models: newest(EngineName::OnnxRuntime),
        is_preferred: settings.prefer_tflite,
        is_taken_alone: alone,
    }))
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

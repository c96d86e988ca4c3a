//! The list of engines, and the choice among them.
//!
//! May not know: configuration files, isolation. Invariant: an engine that this build lacks is
//! refused by name, never replaced by another.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use vesta_model::{Engine, Status};

use crate::embedded::EmbeddedEngine;
use crate::litert::{LiteRtEngine, LiteRtOptions};
use crate::onnxruntime::OnnxRuntimeEngine;
use crate::openvino::{OpenVinoEngine, OpenVinoOptions};
use crate::store::EngineStore;
use crate::tensorflow::{TensorFlowEngine, TensorFlowOptions};

/// An engine by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EngineName {
    /// The pure-Rust engine; no library needed.
    Embedded,
    /// TensorFlow's own library.
    TensorFlow,
    /// LiteRT, the runtime of TensorFlow Lite.
    LiteRt,
    /// OpenVINO.
    OpenVino,
    /// ONNX Runtime.
    OnnxRuntime,
}

impl EngineName {
    /// Every engine that can be named.
    pub const ALL: &'static [EngineName] = &[
        EngineName::Embedded,
        EngineName::TensorFlow,
        EngineName::LiteRt,
        EngineName::OpenVino,
        EngineName::OnnxRuntime,
    ];

    /// The name as operators write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            EngineName::Embedded => EmbeddedEngine::NAME,
            EngineName::TensorFlow => TensorFlowEngine::NAME,
            EngineName::LiteRt => LiteRtEngine::NAME,
            EngineName::OpenVino => OpenVinoEngine::NAME,
            EngineName::OnnxRuntime => OnnxRuntimeEngine::NAME,
        }
    }

    /// Whether the engine may be asked to run SavedModels; its load says whether it runs a certain
    /// one.
    pub const fn runs_saved_models(self) -> bool {
        match self {
            EngineName::Embedded
            | EngineName::TensorFlow
            | EngineName::OpenVino
            | EngineName::OnnxRuntime => true,
            EngineName::LiteRt => false,
        }
    }
}

impl fmt::Display for EngineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What `--engine` says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum EngineChoice {
    /// The server picks.
    #[default]
    Auto,
    /// This engine, in this release if one is given.
    Named {
        /// Which engine.
        name: EngineName,
        /// Which release, such as `2.21.0`.
        version: Option<String>,
    },
}

impl FromStr for EngineChoice {
    type Err = Status;

    /// Reads `auto`, `NAME` or `NAME==VERSION`.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`, listing the names.
    fn from_str(text: &str) -> Result<EngineChoice, Status> {
        let (name, version) = match text.split_once("==") {
            Some((name, version)) => (name, Some(version)),
            None => (text, None),
        };
        if name == "auto" && version.is_none() {
            return Ok(EngineChoice::Auto);
        }
        let known = EngineName::ALL.iter().find(|known| known.as_str() == name).copied();
        match (known, version) {
            (Some(_), Some("")) => {
                Err(Status::invalid_argument(format!("--engine={text}: a version must follow ==")))
            }
            (Some(name), version) => {
                Ok(EngineChoice::Named { name, version: version.map(str::to_owned) })
            }
            (None, _) => {
                let names: Vec<&str> = EngineName::ALL.iter().map(|name| name.as_str()).collect();
                Err(Status::invalid_argument(format!(
                    "--engine={text}: expected auto, {} or NAME==VERSION",
                    names.join(", ")
                )))
            }
        }
    }
}

impl fmt::Display for EngineChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EngineChoice::Auto => f.write_str("auto"),
            EngineChoice::Named { name, version: None } => write!(f, "{name}"),
            EngineChoice::Named { name, version: Some(version) } => write!(f, "{name}=={version}"),
        }
    }
}

/// What an operator says of engines, each of its own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EngineOptions {
    /// Options of TensorFlow.
    pub tensorflow: TensorFlowOptions,
    /// Options of LiteRT.
    pub litert: LiteRtOptions,
    /// Options of OpenVINO.
    pub openvino: OpenVinoOptions,
}

/// The engine that a choice means, in this process; `auto` is the embedded one. Native engines are
/// taken from the store that the environment names, and opened.
///
/// # Errors
/// `NOT_FOUND` for a release that is not installed or another one of the embedded engine than this,
/// `FAILED_PRECONDITION` for a library that cannot be opened.
pub fn build(choice: &EngineChoice, options: &EngineOptions) -> Result<Arc<dyn Engine>, Status> {
    let (name, version) = match choice {
        EngineChoice::Auto => (EngineName::Embedded, None),
        EngineChoice::Named { name, version } => (*name, version.as_deref()),
    };
    match name {
        EngineName::Embedded => {
            let own = EmbeddedEngine.identity().version;
            match version {
                Some(version) if version != own => Err(Status::not_found(format!(
                    "--engine={choice}: the embedded engine is part of this program, in version \
                     {own} alone"
                ))),
                _ => Ok(Arc::new(EmbeddedEngine)),
            }
        }
        EngineName::TensorFlow => {
            let installed = EngineStore::from_env().find(name, version)?;
            Ok(Arc::new(TensorFlowEngine::open(&installed.folder, options.tensorflow.clone())?))
        }
        EngineName::LiteRt => {
            let installed = EngineStore::from_env().find(name, version)?;
            let (folder, version) = (&installed.folder, &installed.version);
            Ok(Arc::new(LiteRtEngine::open(folder, version, options.litert)?))
        }
        EngineName::OnnxRuntime => {
            let installed = EngineStore::from_env().find(name, version)?;
            Ok(Arc::new(OnnxRuntimeEngine::open(&installed.folder, &installed.version)?))
        }
        EngineName::OpenVino => {
            let installed = EngineStore::from_env().find(name, version)?;
            let (folder, version) = (&installed.folder, &installed.version);
            Ok(Arc::new(OpenVinoEngine::open(folder, version, options.openvino)?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_read_and_printed_alike() {
        for text in
            ["auto", "embedded", "tensorflow==2.21.0", "litert", "openvino", "onnxruntime==1.31.1"]
        {
            assert_eq!(text.parse::<EngineChoice>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn wrong_choices_are_told_what_is_right() {
        for text in ["", "tensorflow==", "auto==1", "Tensorflow", "torch", "embedded=1"] {
            let error = text.parse::<EngineChoice>().unwrap_err();
            assert!(error.message().starts_with(&format!("--engine={text}: ")), "{error}");
        }
    }

    #[test]
    fn what_is_not_there_is_refused_by_name() {
        let build = |text: &str| build(&text.parse().unwrap(), &EngineOptions::default());
        assert_eq!(build("auto").unwrap().identity().name, "embedded");
        assert!(build("embedded").is_ok());
        assert!(build(&format!("embedded=={}", env!("CARGO_PKG_VERSION"))).is_ok());
        assert!(build("embedded==9.9.9").err().unwrap().message().contains("in version"));
        for name in ["tensorflow==0.0.1", "onnxruntime==0.0.1", "openvino==0.0.1"] {
            let error = build(name).err().unwrap();
            let advice = format!("vesta engine install {name}");
            assert!(error.message().contains(&advice), "{error}");
        }
    }
}

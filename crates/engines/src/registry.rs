//! The list of engines, and the choice among them.
//!
//! May not know: configuration files, isolation. Invariant: an engine that this build lacks is
//! refused by name, never replaced by another.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use vesta_model::{Engine, Status};

use crate::embedded::EmbeddedEngine;

/// An engine by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EngineName {
    /// The pure-Rust engine; no library needed.
    Embedded,
    /// TensorFlow's own library.
    TensorFlow,
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
        EngineName::OpenVino,
        EngineName::OnnxRuntime,
    ];

    /// The name as operators write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            EngineName::Embedded => EmbeddedEngine::NAME,
            EngineName::TensorFlow => "tensorflow",
            EngineName::OpenVino => "openvino",
            EngineName::OnnxRuntime => "onnxruntime",
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

/// The engine that a choice means.
///
/// # Errors
/// `UNIMPLEMENTED` for engines that this build lacks, `NOT_FOUND` for another release of the
/// embedded engine than this one.
pub fn build(choice: &EngineChoice) -> Result<Arc<dyn Engine>, Status> {
    let engine = EmbeddedEngine;
    match choice {
        EngineChoice::Auto => Ok(Arc::new(engine)),
        EngineChoice::Named { name: EngineName::Embedded, version } => {
            let own = engine.identity().version;
            match version {
                Some(version) if *version != own => Err(Status::not_found(format!(
                    "--engine={choice}: the embedded engine is part of this program, in version \
                     {own} alone"
                ))),
                _ => Ok(Arc::new(engine)),
            }
        }
        EngineChoice::Named { name, .. } => Err(Status::unimplemented(format!(
            "--engine={choice}: {name} is not available in this build; choose auto or embedded"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_read_and_printed_alike() {
        for text in ["auto", "embedded", "tensorflow==2.21.0", "openvino", "onnxruntime==1.31.1"] {
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
    fn only_the_embedded_engine_is_built_in() {
        assert_eq!(build(&EngineChoice::Auto).unwrap().identity().name, "embedded");
        let build = |text: &str| build(&text.parse().unwrap());
        assert!(build("embedded").is_ok());
        assert!(build(&format!("embedded=={}", env!("CARGO_PKG_VERSION"))).is_ok());
        assert!(build("embedded==9.9.9").err().unwrap().message().contains("in version"));
        for name in ["tensorflow", "openvino==2026.4", "onnxruntime"] {
            let error = build(name).err().unwrap();
            assert!(error.message().contains("not available in this build"), "{error}");
            assert!(error.message().contains("choose auto or embedded"), "{error}");
        }
    }
}

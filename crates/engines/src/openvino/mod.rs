//! OpenVINO as an engine: for its own IR, for SavedModels by way of their translation to ONNX, for ONNX
//! files, and for `model.tflite`.
//!
//! Owns: which file of a folder is an IR, the signature that is made of one, what OpenVINO computes
//! narrower than it says, tensors to the library and back. May not know: wires, serving, where libraries
//! come from. Invariant: the library is opened once in a process and stays until it ends, so this engine
//! belongs into a worker; it reads no file of a model by itself, but for a copy that was checked and is ours.

mod constants;
mod exactness;
mod guards;
mod ir;
mod lite;
mod onnx;
mod runner;
mod values;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vesta_ffi::OpenVino;
use vesta_model::{Engine, EngineIdentity, LoadRequest, Session, Status};

pub(crate) use self::constants::narrow as narrow_constants;
pub(crate) use self::exactness::check as check_exactness;
pub use self::ir::IrModel;
#[cfg(test)]
pub(crate) use self::lite::check_graph;
pub(crate) use self::lite::{check as check_lite, check_reader};
use crate::{LiteModel, OnnxModel};

/// What an operator says of OpenVINO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenVinoOptions {
    /// Whether a version that has a `model.tflite` and a SavedModel is served by the former.
    pub prefers_lite: bool,
}

/// OpenVINO, opened in this process.
pub struct OpenVinoEngine {
    library: &'static OpenVino,
    folder: PathBuf,
    version: String,
    options: OpenVinoOptions,
}

impl OpenVinoEngine {
    /// The name that operators choose it by.
    pub const NAME: &'static str = "openvino";

    /// Opens the library in `folder`, which is of release `version`.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` when it is missing, too old or cannot be opened, with what to do.
    pub fn open(
        folder: &Path,
        version: &str,
        options: OpenVinoOptions,
    ) -> Result<OpenVinoEngine, Status> {
        let library = OpenVino::open(folder).map_err(|error| {
            Status::failed_precondition(format!(
                "OpenVINO cannot be opened: {error}; install it again with `vesta engine remove \
                 openvino=={version}` and `vesta engine install openvino`"
            ))
        })?;
        let (folder, version) = (folder.to_owned(), version.to_owned());
        Ok(OpenVinoEngine { library, folder, version, options })
    }
}

impl Engine for OpenVinoEngine {
    fn identity(&self) -> EngineIdentity {
        EngineIdentity { name: OpenVinoEngine::NAME.to_owned(), version: self.version.clone() }
    }

    fn load(&self, request: &LoadRequest) -> Result<Arc<dyn Session>, Status> {
        if LiteModel::is_served(&request.artifact, self.options.prefers_lite) {
            let loaded = lite::load(self.library, &self.folder, &self.version, request)?;
            return Ok(Arc::new(loaded));
        }
        let loaded = if IrModel::is_alone_in(&request.artifact) {
            ir::load(self.library, request)?
        } else if OnnxModel::is_alone_in(&request.artifact) {
            onnx::load_file(self.library, request)?
        } else {
            onnx::load_saved_model(self.library, request)?
        };
        Ok(Arc::new(loaded))
    }
}

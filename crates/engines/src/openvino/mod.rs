//! OpenVINO as an engine: for its own IR, for SavedModels by way of their translation to ONNX, and for
//! ONNX files.
//!
//! Owns: which file of a folder is an IR, the signature that is made of one, what OpenVINO computes
//! narrower than it says, tensors to the library and back. May not know: wires, serving, where libraries
//! come from. Invariant: the library is opened once in a process and stays until it ends, so this engine
//! belongs into a worker; it reads no file of a model by itself.

mod exactness;
mod guards;
mod ir;
mod onnx;
mod runner;
mod values;

use std::path::Path;
use std::sync::Arc;

use vesta_ffi::OpenVino;
use vesta_model::{Engine, EngineIdentity, LoadRequest, Session, Status};

pub(crate) use self::exactness::check as check_exactness;
pub use self::ir::IrModel;
use crate::OnnxModel;

/// OpenVINO, opened in this process.
pub struct OpenVinoEngine {
    library: &'static OpenVino,
    version: String,
}

impl OpenVinoEngine {
    /// The name that operators choose it by.
    pub const NAME: &'static str = "openvino";

    /// Opens the library in `folder`, which is of release `version`.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` when it is missing, too old or cannot be opened, with what to do.
    pub fn open(folder: &Path, version: &str) -> Result<OpenVinoEngine, Status> {
        let library = OpenVino::open(folder).map_err(|error| {
            Status::failed_precondition(format!(
                "OpenVINO cannot be opened: {error}; install it again with `vesta engine remove \
                 openvino=={version}` and `vesta engine install openvino`"
            ))
        })?;
        Ok(OpenVinoEngine { library, version: version.to_owned() })
    }
}

impl Engine for OpenVinoEngine {
    fn identity(&self) -> EngineIdentity {
        EngineIdentity { name: OpenVinoEngine::NAME.to_owned(), version: self.version.clone() }
    }

    fn load(&self, request: &LoadRequest) -> Result<Arc<dyn Session>, Status> {
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

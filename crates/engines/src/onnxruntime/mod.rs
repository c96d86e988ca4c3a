//! ONNX Runtime as an engine: for SavedModels by way of their translation, and for ONNX files.
//!
//! Owns: the reading of such files before the library sees them, the signature that is made of one,
//! tensors to the library and back, the end of runs at their deadlines. May not know: wires, serving,
//! where libraries come from. Invariant: the library is opened once in a process and stays until it
//! ends, so this engine belongs into a worker; it reads no file by itself.

mod deadlines;
mod exactness;
mod external;
mod file;
mod saved_model;
mod session;
mod values;
mod weights;

use std::path::Path;
use std::sync::Arc;

use vesta_ffi::OnnxRuntime;
use vesta_model::{Engine, EngineIdentity, LoadRequest, Session, Status};

pub(crate) use self::exactness::check as check_exactness;
pub use self::file::OnnxModel;
pub(crate) use self::file::Parsed as OnnxFile;

/// ONNX Runtime, opened in this process.
pub struct OnnxRuntimeEngine {
    library: &'static OnnxRuntime,
    version: String,
}

impl OnnxRuntimeEngine {
    /// The name that operators choose it by.
    pub const NAME: &'static str = "onnxruntime";

    /// Opens the library in `folder`, which is of release `version`.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` when it is missing, too old or cannot be opened, with what to do.
    pub fn open(folder: &Path, version: &str) -> Result<OnnxRuntimeEngine, Status> {
        let library = OnnxRuntime::open(folder).map_err(|error| {
            Status::failed_precondition(format!(
                "ONNX Runtime cannot be opened: {error}; install it again with `vesta engine remove \
                 onnxruntime=={version}` and `vesta engine install onnxruntime`"
            ))
        })?;
        Ok(OnnxRuntimeEngine { library, version: version.to_owned() })
    }
}

impl Engine for OnnxRuntimeEngine {
    fn identity(&self) -> EngineIdentity {
        EngineIdentity { name: OnnxRuntimeEngine::NAME.to_owned(), version: self.version.clone() }
    }

    fn load(&self, request: &LoadRequest) -> Result<Arc<dyn Session>, Status> {
        let loaded = if OnnxModel::is_alone_in(&request.artifact) {
            file::load(self.library, request)?
        } else {
            saved_model::load(self.library, request)?
        };
        Ok(Arc::new(loaded))
    }
}

//! TensorFlow's own library as an engine: the judge of all others, and the home of what cannot be
//! translated.
//!
//! Owns: which graph tensors a signature means, tensors to TensorFlow and back, session options.
//! May not know: wires, serving, where libraries come from. Invariant: the library is opened once in
//! a process and stays until it ends, so this engine belongs into a worker.

mod config;
mod import;
mod pace;
mod session;
mod values;

use std::path::Path;
use std::sync::Arc;

use vesta_ffi::{TensorFlow, TensorFlowError};
use vesta_model::{Code, Engine, EngineIdentity, LoadRequest, Session, Status};

pub use self::config::TensorFlowOptions;
use self::session::LoadedModel;
use crate::overrides::SessionOverrides;

/// TensorFlow, opened in this process.
pub struct TensorFlowEngine {
    library: &'static TensorFlow,
    options: TensorFlowOptions,
}

impl TensorFlowEngine {
    /// The name that operators choose it by.
    pub const NAME: &'static str = "tensorflow";

    /// Files that a folder of this engine holds.
    pub const FILES: &'static [&'static str] = TensorFlow::FILES;

    /// Opens the libraries in `folder`, and those of custom operators.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` when a library is missing or cannot be opened, with what to do.
    pub fn open(folder: &Path, options: TensorFlowOptions) -> Result<TensorFlowEngine, Status> {
        let library = TensorFlow::open(folder).map_err(|error| {
            Status::failed_precondition(format!(
                "TensorFlow cannot be opened: {error}; install it again with \
                 `vesta engine remove tensorflow` and `vesta engine install tensorflow`"
            ))
        })?;
        for file in &options.op_libraries {
            load_operators(library, file)?;
        }
        Ok(TensorFlowEngine { library, options })
    }
}

fn load_operators(library: &'static TensorFlow, file: &Path) -> Result<(), Status> {
    library.load_op_library(file).map_err(|error| {
        Status::failed_precondition(format!(
            "the library of custom operators {} cannot be opened by TensorFlow {}: {error}; it must \
             be built for this release",
            file.display(),
            library.version()
        ))
    })
}

impl Engine for TensorFlowEngine {
    fn identity(&self) -> EngineIdentity {
        EngineIdentity { name: TensorFlowEngine::NAME.to_owned(), version: self.library.version() }
    }

    fn load(&self, request: &LoadRequest) -> Result<Arc<dyn Session>, Status> {
        // The server has said what of them cannot be honoured.
        let overrides = SessionOverrides::of(&request.artifact);
        let config = self.options.config_for(request.threads, &overrides);
        Ok(Arc::new(LoadedModel::load(self.library, request, &config)?))
    }
}

/// Code and text as TensorFlow gave them: clients of the original know both.
fn status(error: TensorFlowError) -> Status {
    Status::new(Code::from_number(error.code).unwrap_or(Code::Unknown), error.message)
}

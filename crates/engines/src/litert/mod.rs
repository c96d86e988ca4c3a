//! LiteRT, the runtime of TensorFlow Lite, as an engine for `model.tflite`.
//!
//! Owns: the reading of such files before the library sees them, the signatures that they are served
//! by, tensors to the library and back. May not know: wires, serving, where libraries come from.
//! Invariant: the library is opened once in a process and stays until it ends, so this engine belongs
//! into a worker; it is given no file whose offsets or indices lead nowhere.

pub(crate) mod alone;
mod examples;
pub(crate) mod flatbuffer;
mod flexmap;
mod head;
mod interpreter;
mod operators;
pub(crate) mod schema;
mod session;
pub(crate) mod signatures;
mod sizes;
#[cfg(test)]
mod tests;
mod values;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use vesta_ffi::LiteRt;
use vesta_model::{Code, Engine, EngineIdentity, LoadRequest, ModelDescription, Session, Status};
use vesta_savedmodel::SavedModel;

use self::examples::Parsing;
use self::flatbuffer::File;
use self::schema::Model;
use self::session::LoadedModel;
pub(crate) use self::session::dims as sizes_of_input;

/// The file that is a model, in a version's folder.
pub const LITE_MODEL: &str = "model.tflite";

/// The largest file that can be a flatbuffer.
const FILE_BYTES_MAX: u64 = i32::MAX as u64;

/// What an operator says of LiteRT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiteRtOptions {
    /// The most interpreters of one version, each of which serves one run at a time.
    pub interpreters: usize,
}

impl Default for LiteRtOptions {
    /// As many as there are cores.
    fn default() -> LiteRtOptions {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        LiteRtOptions { interpreters: cores }
    }
}

/// LiteRT, opened in this process.
pub struct LiteRtEngine {
    library: &'static LiteRt,
    version: String,
    options: LiteRtOptions,
}

impl LiteRtEngine {
    /// The name that operators choose it by.
    pub const NAME: &'static str = "litert";

    /// Files that a folder of this engine holds.
    pub const FILES: &'static [&'static str] = LiteRt::FILES;

    /// Opens the library in `folder`, which is of release `version`.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` when it is missing or cannot be opened, with what to do.
    pub fn open(
        folder: &Path,
        version: &str,
        options: LiteRtOptions,
    ) -> Result<LiteRtEngine, Status> {
        let library = LiteRt::open(folder).map_err(|error| {
            Status::failed_precondition(format!(
                "LiteRT cannot be opened: {error}; install it again with \
                 `vesta engine remove litert=={version}` and `vesta engine install litert`"
            ))
        })?;
        Ok(LiteRtEngine { library, version: version.to_owned(), options })
    }
}

impl Engine for LiteRtEngine {
    fn identity(&self) -> EngineIdentity {
        EngineIdentity { name: LiteRtEngine::NAME.to_owned(), version: self.version.clone() }
    }

    fn load(&self, request: &LoadRequest) -> Result<Arc<dyn Session>, Status> {
        Ok(Arc::new(LoadedModel::load(self.library, request, self.options.interpreters)?))
    }
}

/// A `model.tflite`, looked into without the library.
#[derive(Clone, Debug)]
pub struct LiteModel {
    /// Its signatures.
    pub description: ModelDescription,
    /// How often each operator stands in it.
    pub operators: BTreeMap<String, usize>,
    /// Operators that are no part of TensorFlow Lite, which no installation brings.
    pub unbundled: Vec<String>,
    /// Bytes of the file.
    pub file_bytes: u64,
}

impl LiteModel {
    /// Looks into the file of a version's folder.
    ///
    /// # Errors
    /// `NOT_FOUND`, `DATA_LOSS`, `INVALID_ARGUMENT`, `UNIMPLEMENTED`, as when it is loaded.
    pub fn open(artifact: &Path) -> Result<LiteModel, Status> {
        let bytes = read_file(artifact)?;
        let file = File::new(&bytes);
        let model = Model::read(&file)?;
        let served = signatures::of(&model)?;
        let signatures = served
            .into_iter()
            .map(|one| (one.signature.name.clone(), Arc::new(one.signature)))
            .collect();
        Ok(LiteModel {
            description: ModelDescription { signatures },
            operators: model.operator_counts(),
            unbundled: unbundled(&model),
            file_bytes: bytes.len() as u64,
        })
    }

    /// Whether a version's folder has such a file.
    pub fn is_in(artifact: &Path) -> bool {
        artifact.join(LITE_MODEL).exists()
    }

    /// Whether a version is served by such a file: where there is no SavedModel beside it, or where it is
    /// preferred.
    pub fn is_served(artifact: &Path, is_preferred: bool) -> bool {
        LiteModel::is_in(artifact) && (is_preferred || SavedModel::file_in(artifact).is_none())
    }

    /// Refuses a version's file that OpenVINO does not compute as LiteRT does, or whose installation in
    /// `folder`, of release `version`, cannot read it.
    ///
    /// # Errors
    /// As when it is loaded there: `UNIMPLEMENTED` with the operators' names, `FAILED_PRECONDITION` for the
    /// installation.
    pub fn check_for_openvino(artifact: &Path, folder: &Path, version: &str) -> Result<(), Status> {
        crate::openvino::check_lite(artifact)?;
        crate::openvino::check_reader(folder, version)
    }
}

/// The operators of a model that the runtime does not bring with it.
fn unbundled(model: &Model<'_>) -> Vec<String> {
    let is_custom = |name: &&String| {
        // Names of the schema are written in capitals.
        name.chars().any(char::is_lowercase) && !operators::BUNDLED_CUSTOM.contains(&name.as_str())
    };
    let mut counts = model.operator_counts();
    for graph in &model.subgraphs {
        if let Some(parsing) = Parsing::find(graph, model) {
            let name = &model.operator_codes[graph.operators[parsing.operator].code].1;
            *counts.entry(name.clone()).or_default() -= 1;
        }
    }
    counts.retain(|_, count| *count > 0);
    counts.keys().filter(is_custom).cloned().collect()
}

/// The bytes of the model of a version. They are read, not mapped: a file that is changed in its
/// place must not change what serves.
pub(crate) fn read_file(artifact: &Path) -> Result<Vec<u8>, Status> {
    let path = artifact.join(LITE_MODEL);
    let unreadable = |error: std::io::Error| {
        let code = match error.kind() {
            std::io::ErrorKind::NotFound => Code::NotFound,
            std::io::ErrorKind::PermissionDenied => Code::PermissionDenied,
            _ => Code::FailedPrecondition,
        };
        Status::new(code, format!("{} cannot be read: {error}", path.display()))
    };
    let metadata = path.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(Status::failed_precondition(format!("{} is no file", path.display())));
    }
    if metadata.len() > FILE_BYTES_MAX {
        return Err(Status::unimplemented(format!(
            "{} is larger than 2 GB; give the SavedModel that it was made from",
            path.display()
        )));
    }
    std::fs::read(&path).map_err(unreadable)
}

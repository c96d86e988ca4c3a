//! Which file of a version is the model: an IR goes to OpenVINO, a `model.tflite` to an engine that reads
//! such, all else to the engine that runs SavedModels; or all to the choice of one, which knows ONNX files too.
//!
//! May not know: what is in the files. Invariant: of two models in one folder, `--prefer_tflite_model`
//! alone decides, as in the original.

use std::path::Path;
use std::sync::Arc;

use vesta_engines::{IrModel, LiteModel, OnnxModel};
use vesta_model::{LoadRequest, Status};

use super::native::Newest;
use super::{Place, Placed};
use crate::choice::Reason;

/// An engine for each format.
pub(super) struct ByFormat {
    pub(super) saved_models: Arc<dyn Place>,
    pub(super) lite_models: Arc<dyn Place>,
    pub(super) ir_models: Newest,
    /// Whether `model.tflite` comes before a SavedModel beside it.
    pub(super) is_preferred: bool,
    /// Whether a `model.tflite`, an ONNX file or an IR without a SavedModel is served without being preferred.
    /// The original does not; where an engine was named, neither do we.
    pub(super) is_taken_alone: bool,
}

impl ByFormat {
    fn is_lite(&self, artifact: &Path) -> bool {
        (self.is_preferred || self.is_taken_alone)
            && LiteModel::is_served(artifact, self.is_preferred)
    }
}

/// The newest release of an engine that nothing is weighed against.
impl Place for Newest {
    fn place(&self, request: &LoadRequest) -> Result<Placed, Status> {
        Placed::by(&*self.find()?, request, Reason::Only)
    }
}

impl Place for ByFormat {
    fn place(&self, request: &LoadRequest) -> Result<Placed, Status> {
        let artifact = &request.artifact;
        // Ours first: a damaged file is refused without a process, and before an engine is asked for.
        if self.is_lite(artifact) {
            LiteModel::open(artifact)?;
            return self.lite_models.place(request);
        }
        if self.is_taken_alone && OnnxModel::is_alone_in(artifact) {
            OnnxModel::open(artifact)?;
            return self.saved_models.place(request);
        }
        if self.is_taken_alone && IrModel::is_alone_in(artifact) {
            IrModel::open(artifact)?;
            return Placed::by(&*self.ir_models.find()?, request, Reason::Only);
        }
        self.saved_models.place(request)
    }
}

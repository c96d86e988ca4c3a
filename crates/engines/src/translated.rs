//! A SavedModel's signatures by way of their translation to ONNX, for engines that read it.
//!
//! May not know: any engine, or what an operator means. Invariant: each signature that clients can call
//! is there, or the version is refused, naming what is missing.

use std::sync::Arc;

use vesta_model::{Code, LoadRequest, ModelDescription, PartialShape, Signature, Status};
use vesta_onnx::{Resizing, Translation};
use vesta_savedmodel::FrozenGraph;

use crate::convert::translated;
use crate::embedded::is_callable;
use crate::model_settings::open_model;
use crate::registry::EngineName;

/// A signature in ONNX.
pub(crate) struct TranslatedSignature {
    pub(crate) name: String,
    /// The shapes that it takes, one for each input.
    pub(crate) shapes: Vec<PartialShape>,
    pub(crate) translation: Translation,
}

/// The translations of a version for `engine`, and its description, where signatures say what they are
/// fed.
///
/// # Errors
/// `UNIMPLEMENTED` for what has no exact translation; those of reading the version.
pub(crate) fn translate_all(
    engine: EngineName,
    request: &LoadRequest,
) -> Result<(ModelDescription, Vec<TranslatedSignature>), Status> {
    let model = open_model(&request.artifact, &request.tags)?;
    let mut description = model.description().clone();
    let mut signatures = Vec::new();
    for (name, signature) in &mut description.signatures {
        if !is_callable(signature) {
            continue;
        }
        let refused = |status| refused(engine, request, name, &status);
        let graph = model.freeze(name).map_err(refused)?;
        let translation = translated(&graph, resizing(engine)).map_err(refused)?;
        say_what_is_fed(signature, &graph);
        let shapes = graph.feeds.into_iter().map(|feed| feed.shape).collect();
        signatures.push(TranslatedSignature { name: name.clone(), shapes, translation });
    }
    if signatures.is_empty() {
        return Err(Status::invalid_argument(format!(
            "model {} version {} has no signature that could be called",
            request.model, request.version
        )));
    }
    Ok((description, signatures))
}

/// How a translation for this engine resizes images. OpenVINO's table has no conversion of floats to
/// indices, so that computed ones would be refused.
pub(crate) fn resizing(engine: EngineName) -> Resizing {
    if engine == EngineName::OpenVino { Resizing::Operator } else { Resizing::Computed }
}

/// Writes down where the graph takes another dtype than the signature declares.
fn say_what_is_fed(signature: &mut Arc<Signature>, graph: &FrozenGraph) {
    for (index, feed) in graph.feeds.iter().enumerate() {
        if signature.inputs.get(index).is_some_and(|spec| spec.dtype != feed.dtype) {
            Arc::make_mut(signature).inputs[index].fed_as = Some(feed.dtype);
        }
    }
}

/// What an engine cannot run, and why.
pub(crate) fn refused(
    engine: EngineName,
    request: &LoadRequest,
    signature: &str,
    status: &Status,
) -> Status {
    let advice = match status.code() {
        Code::Unimplemented => "; serve it by --engine=auto or --engine=tensorflow",
        _ => "",
    };
    Status::new(
        status.code(),
        format!(
            "the {engine} engine cannot run signature {signature} of model {} version {}: \
             {}{advice}",
            request.model,
            request.version,
            status.message()
        ),
    )
}

//! A SavedModel by way of its translation to ONNX: one session for each signature.
//!
//! May not know: what an operator means. Invariant: each signature that clients can call runs here,
//! or the version is refused, naming what is missing; weights are one copy for all sessions.

use std::collections::BTreeMap;
use std::sync::Arc;

use vesta_ffi::OnnxRuntime;
use vesta_model::{Code, LoadRequest, Signature, Status};
use vesta_onnx::Translation;
use vesta_savedmodel::FrozenGraph;

use super::exactness;
use super::session::{BoundModel, Feed, LoadedModel, name_of};
use super::values;
use super::weights::Weights;
use crate::bound::BoundSession;
use crate::convert::translated;
use crate::embedded::is_callable;
use crate::model_settings::open_model;

/// A signature in ONNX.
struct Translated {
    name: String,
    graph: FrozenGraph,
    translation: Translation,
}

/// Loads one version.
pub(super) fn load(
    library: &'static OnnxRuntime,
    request: &LoadRequest,
) -> Result<BoundSession<LoadedModel>, Status> {
    let model = open_model(&request.artifact, &request.tags)?;
    let mut description = model.description().clone();
    let (mut signatures, mut weights) = (Vec::new(), Weights::default());
    for (name, _) in description.signatures.iter().filter(|(_, own)| is_callable(own)) {
        let refused = |status| refused(request, name, &status);
        let mut graph = model.freeze(name).map_err(refused)?;
        let mut translation = translated(&graph).map_err(refused)?;
        exactness::check(&translation).map_err(refused)?;
        exactness::guard(&mut translation);
        weights.see(&translation.model);
        // The translation has all that is needed of them.
        graph.nodes = Vec::new();
        signatures.push(Translated { name: name.clone(), graph, translation });
    }
    if signatures.is_empty() {
        return Err(Status::invalid_argument(format!(
            "model {} version {} has no signature that could be called",
            request.model, request.version
        )));
    }
    let mut bound = BTreeMap::new();
    for Translated { name, graph, translation } in signatures {
        let Some(signature) = description.signatures.get_mut(&name) else { continue };
        say_what_is_fed(signature, &graph);
        let Translation { model, inputs, outputs, .. } = translation;
        let session = weights
            .open(library, model, request.threads)
            .map_err(|error| refused(request, &name, &values::status(&error)))?;
        let feeds = inputs
            .iter()
            .zip(&graph.feeds)
            .map(|(name, feed)| Ok(Feed { name: name_of(name)?, shape: feed.shape.clone() }))
            .collect::<Result<Vec<_>, Status>>()?;
        let fetches = outputs.iter().map(|name| name_of(name)).collect::<Result<_, Status>>()?;
        let signature = Arc::clone(signature);
        bound.insert(name, BoundModel { signature, session, feeds, fetches });
    }
    Ok(BoundSession::new(description, LoadedModel::new(library), bound))
}

/// Writes down where the graph takes another dtype than the signature declares.
fn say_what_is_fed(signature: &mut Arc<Signature>, graph: &FrozenGraph) {
    for (index, feed) in graph.feeds.iter().enumerate() {
        if signature.inputs.get(index).is_some_and(|spec| spec.dtype != feed.dtype) {
            Arc::make_mut(signature).inputs[index].fed_as = Some(feed.dtype);
        }
    }
}

fn refused(request: &LoadRequest, signature: &str, status: &Status) -> Status {
    let advice = match status.code() {
        Code::Unimplemented => "; serve it by --engine=auto or --engine=tensorflow",
        _ => "",
    };
    Status::new(
        status.code(),
        format!(
            "the onnxruntime engine cannot run signature {signature} of model {} version {}: \
             {}{advice}",
            request.model,
            request.version,
            status.message()
        ),
    )
}

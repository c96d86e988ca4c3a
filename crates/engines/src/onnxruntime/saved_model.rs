//! A SavedModel by way of its translation to ONNX: one session for each signature.
//!
//! May not know: what an operator means. Invariant: each signature that clients can call runs here,
//! or the version is refused, naming what is missing; weights are one copy for all sessions.

use std::collections::BTreeMap;
use std::sync::Arc;

use vesta_ffi::OnnxRuntime;
use vesta_model::{LoadRequest, Status};
use vesta_onnx::Translation;

use super::exactness;
use super::session::{BoundModel, LoadedModel, name_of};
use super::values;
use super::weights::Weights;
use crate::bound::BoundSession;
use crate::registry::EngineName;
use crate::translated::{TranslatedSignature, refused, translate_all};

/// Loads one version.
pub(super) fn load(
    library: &'static OnnxRuntime,
    request: &LoadRequest,
) -> Result<BoundSession<LoadedModel>, Status> {
    let engine = EngineName::OnnxRuntime;
    let (description, mut signatures) = translate_all(engine, request)?;
    let mut weights = Weights::new(library).map_err(|error| values::status(&error))?;
    let are_several = signatures.len() > 1;
    for TranslatedSignature { name, translation, .. } in &mut signatures {
        exactness::check(translation).map_err(|status| refused(engine, request, name, &status))?;
        exactness::guard(translation);
        if are_several {
            weights.see(&translation.model);
        }
    }
    let mut bound = BTreeMap::new();
    for TranslatedSignature { name, shapes, translation } in signatures {
        let Some(signature) = description.signatures.get(&name).map(Arc::clone) else { continue };
        let Translation { model, inputs, outputs, .. } = translation;
        let session = weights
            .open(model, request.threads)
            .map_err(|error| refused(engine, request, &name, &values::status(&error)))?;
        let feeds = inputs.iter().map(|name| name_of(name)).collect::<Result<_, Status>>()?;
        let fetches = outputs.iter().map(|name| name_of(name)).collect::<Result<_, Status>>()?;
        bound.insert(name, BoundModel { signature, session, feeds, shapes, fetches });
    }
    Ok(BoundSession::new(description, LoadedModel::new(library), bound))
}

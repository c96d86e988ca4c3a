//! A SavedModel by way of its translation to ONNX: one session for each signature.
//!
//! May not know: what an operator means. Invariant: weights are one copy for all sessions.

use std::collections::BTreeMap;
use std::sync::Arc;

use vesta_ffi::OnnxRuntime;
use vesta_model::{LoadRequest, Status};
use vesta_onnx::Translation;

use super::deadlines::Deadlines;
use super::exactness;
use super::session::{OnnxRunner, name_of};
use super::values;
use super::weights::Weights;
use crate::bound::{Bound, LoadedModel};
use crate::registry::EngineName;
use crate::translated::{TranslatedSignature, refused, translate_all};

/// Loads one version.
pub(super) fn load(
    library: &'static OnnxRuntime,
    request: &LoadRequest,
) -> Result<LoadedModel, Status> {
    let engine = EngineName::OnnxRuntime;
    let (description, mut signatures) = translate_all(engine, request)?;
    let mut weights = Weights::default();
    for TranslatedSignature { name, translation, .. } in &mut signatures {
        exactness::check(translation).map_err(|status| refused(engine, request, name, &status))?;
        exactness::guard(translation);
        weights.see(&translation.model);
    }
    let (mut bound, deadlines) = (BTreeMap::new(), Arc::<Deadlines>::default());
    for TranslatedSignature { name, shapes, translation } in signatures {
        let Some(signature) = description.signatures.get(&name).map(Arc::clone) else { continue };
        let Translation { model, inputs, outputs, .. } = translation;
        let session = weights
            .open(library, model, request.threads)
            .map_err(|error| refused(engine, request, &name, &values::status(&error)))?;
        let feeds = inputs.iter().map(|name| name_of(name)).collect::<Result<_, Status>>()?;
        let fetches = outputs.iter().map(|name| name_of(name)).collect::<Result<_, Status>>()?;
        let deadlines = Arc::clone(&deadlines);
        let runner = Box::new(OnnxRunner { library, session, feeds, fetches, deadlines });
        bound.insert(name, Bound { signature, shapes, runner });
    }
    Ok(LoadedModel::new(description, bound))
}

//! A SavedModel by way of its translation to ONNX: one session for the signatures of one network.
//!
//! May not know: what an operator means. Invariant: each signature that clients can call runs here,
//! or the version is refused, naming what is missing; weights are one copy for all sessions.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::sync::Arc;

use vesta_ffi::OnnxRuntime;
use vesta_model::{LoadRequest, Status};

use super::exactness;
use super::session::{BoundModel, LoadedModel, name_of};
use super::values;
use super::weights::Weights;
use crate::bound::BoundSession;
use crate::networks::{Member, Network, unite};
use crate::registry::EngineName;
use crate::translated::{TranslatedSignature, refused, translate_all};

/// Loads one version.
pub(super) fn load(
    library: &'static OnnxRuntime,
    request: &LoadRequest,
) -> Result<BoundSession<LoadedModel>, Status> {
    let engine = EngineName::OnnxRuntime;
    let (description, signatures) = translate_all(engine, request)?;
    for TranslatedSignature { name, translation, .. } in &signatures {
        exactness::check(translation).map_err(|status| refused(engine, request, name, &status))?;
    }
    let mut networks = unite(signatures);
    let mut weights = Weights::new(library).map_err(|error| values::status(&error))?;
    let are_several = networks.len() > 1;
    for network in &mut networks {
        exactness::guard(&mut network.translation);
        if are_several {
            weights.see(&network.translation.model);
        }
    }
    let mut bound = BTreeMap::new();
    for Network { translation, members } in networks {
        let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
        let session = weights.open(translation.model, request.threads).map_err(|error| {
            refused(engine, request, &names.join(", "), &values::status(&error))
        })?;
        let session = Arc::new(session);
        for Member { name, shapes, inputs, outputs } in members {
            let Some(signature) = description.signatures.get(&name) else { continue };
            let (signature, session) = (Arc::clone(signature), Arc::clone(&session));
            let (feeds, fetches) = (names_of(&inputs)?, names_of(&outputs)?);
            bound.insert(name, BoundModel { signature, session, feeds, shapes, fetches });
        }
    }
    Ok(BoundSession::new(description, LoadedModel::new(library), bound))
}

fn names_of(names: &[String]) -> Result<Vec<CString>, Status> {
    names.iter().map(|name| name_of(name)).collect()
}

//! A SavedModel by way of its translation to ONNX: one session for the signatures of one network.
//!
//! May not know: what an operator means. Invariant: each signature that clients can call runs here,
//! or the version is refused, naming what is missing; weights are one copy for all sessions.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::sync::Arc;

use vesta_ffi::OnnxRuntime;
use vesta_model::{LoadRequest, Status};
use vesta_onnx::Translation;

use super::exactness;
use super::session::{BoundModel, Limits, LoadedModel, Part, name_of};
use super::values;
use super::weights::Weights;
use crate::bound::BoundSession;
use crate::networks::{Member, Network, unite};
use crate::ordinary::{Careful, Ordinary};
use crate::registry::EngineName;
use crate::translated::{TranslatedSignature, refused, translate_all};

/// Loads one version.
pub(super) fn load(
    library: &'static OnnxRuntime,
    request: &LoadRequest,
) -> Result<BoundSession<LoadedModel>, Status> {
    let find = |translation: &Translation| Ordinary::of(translation, exactness::guards_nan);
    let careful =
        move |request: &LoadRequest| open(library, request, |_| Ordinary::default(), None);
    open(library, request, find, Some(Careful::new(request, careful)))
}

/// Loads one version in the form for the runs that `find` says what is known of.
fn open(
    library: &'static OnnxRuntime,
    request: &LoadRequest,
    find: fn(&Translation) -> Ordinary,
    careful: Option<Careful>,
) -> Result<BoundSession<LoadedModel>, Status> {
    let engine = EngineName::OnnxRuntime;
    let (description, signatures) = translate_all(engine, request)?;
    for TranslatedSignature { name, translation, .. } in &signatures {
        exactness::check(translation).map_err(|status| refused(engine, request, name, &status))?;
    }
    let mut networks = unite(signatures);
    let mut weights = Weights::new(library).map_err(|error| values::status(&error))?;
    let are_several = networks.len() > 1;
    let mut limits = Vec::new();
    for network in &mut networks {
        let ordinary = find(&network.translation);
        exactness::guard(&mut network.translation, &ordinary);
        limits.push(Limits::of(&ordinary, &mut network.translation.model)?);
        for before in network.members.iter_mut().flat_map(|own| &mut own.before) {
            exactness::guard(before, &Ordinary::default());
        }
        if are_several {
            weights.see(&network.translation.model);
        }
    }
    let mut bound = BTreeMap::new();
    for (Network { translation, members, .. }, limits) in networks.into_iter().zip(limits) {
        let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
        let session = weights.open(translation.model, request.threads).map_err(|error| {
            refused(engine, request, &names.join(", "), &values::status(&error))
        })?;
        let session = Arc::new(session);
        for Member { name, shapes, before, inputs, outputs } in members {
            let Some(signature) = description.signatures.get(&name) else { continue };
            let (signature, session) = (Arc::clone(signature), Arc::clone(&session));
            let (feeds, fetches) = (names_of(&inputs)?, names_of(&outputs)?);
            let before = before.map(|before| {
                let (feeds, fetches) = (names_of(&before.inputs)?, names_of(&before.outputs)?);
                let session = weights
                    .open(before.model, request.threads)
                    .map_err(|error| refused(engine, request, &name, &values::status(&error)))?;
                Ok::<_, Status>(Part { session: Arc::new(session), feeds, fetches })
            });
            let network = Part { session, feeds, fetches };
            let before = before.transpose()?;
            let limits = limits.clone();
            bound.insert(name, BoundModel { signature, shapes, before, network, limits });
        }
    }
    Ok(BoundSession::new(description, LoadedModel::new(library, careful), bound))
}

fn names_of(names: &[String]) -> Result<Vec<CString>, Status> {
    names.iter().map(|name| name_of(name)).collect()
}

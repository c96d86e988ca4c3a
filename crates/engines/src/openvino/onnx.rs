//! Models that OpenVINO reads as ONNX: files, and the translations of SavedModels.
//!
//! May not know: what an operator means. Invariant: a translation is given whole, with no file to look
//! for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use prost::Message as _;
use vesta_ffi::{OpenVino, OpenVinoModel};
use vesta_model::{LoadRequest, ModelDescription, Status, TensorSpec};
use vesta_onnx::Translation;
use vesta_protos::onnx::ModelProto;

use super::runner::{BoundModel, Compiled, Ends, Limits, Runs};
use super::values::words;
use super::{constants, exactness, guards};
use crate::bound::BoundSession;
use crate::convert::ONNX_BYTES_MAX;
use crate::networks::{Member, Network, unite};
use crate::onnxruntime::OnnxFile;
use crate::ordinary::{Careful, Ordinary};
use crate::registry::EngineName;
use crate::translated::{TranslatedSignature, refused, translate_all};

/// Loads a version that is an ONNX file.
pub(super) fn load_file(
    library: &'static OpenVino,
    request: &LoadRequest,
) -> Result<BoundSession<Runs>, Status> {
    let mut file = OnnxFile::read(&request.artifact)?;
    let signature = Arc::new(file.signature()?);
    let is_gathered = file.gather(&request.artifact)?;
    let opened = if is_gathered {
        read(library, &encoded(&file.model)?)
    } else {
        read(library, &file.bytes)
    };
    let aliases = |specs: &[TensorSpec]| -> Vec<String> {
        specs.iter().map(|spec| spec.alias.clone()).collect()
    };
    let (inputs, outputs) = (aliases(&signature.inputs), aliases(&signature.outputs));
    let ends = ends(&file.model, &inputs, &outputs)?;
    let shapes = signature.inputs.iter().map(|spec| spec.shape.clone()).collect();
    let bound = opened
        .and_then(|model| {
            BoundModel::compile(&model, Arc::clone(&signature), shapes, ends, request.threads)
        })
        .map_err(|status| {
            let text = format!("OpenVINO does not take {}: {}", file.name, status.message());
            Status::new(status.code(), text)
        })?;
    let name = signature.name.clone();
    let description = ModelDescription { signatures: [(name.clone(), signature)].into() };
    Ok(BoundSession::new(description, Runs::default(), [(name, bound)].into()))
}

/// Loads a version that is a SavedModel.
pub(super) fn load_saved_model(
    library: &'static OpenVino,
    request: &LoadRequest,
) -> Result<BoundSession<Runs>, Status> {
    let find = |translation: &Translation| Ordinary::of(translation, guards::guards_nan);
    let careful =
        move |request: &LoadRequest| open(library, request, |_| Ordinary::default(), None);
    open(library, request, find, Some(Careful::new(request, careful)))
}

/// Loads a SavedModel in the form for the runs that `find` says what is known of.
fn open(
    library: &'static OpenVino,
    request: &LoadRequest,
    find: fn(&Translation) -> Ordinary,
    careful: Option<Careful>,
) -> Result<BoundSession<Runs>, Status> {
    let engine = EngineName::OpenVino;
    let (description, mut signatures) = translate_all(engine, request)?;
    for TranslatedSignature { name, translation, .. } in &mut signatures {
        constants::narrow(translation);
        exactness::check(translation).map_err(|status| refused(engine, request, name, &status))?;
    }
    let mut bound = BTreeMap::new();
    for Network { mut translation, members, .. } in unite(signatures) {
        let ordinary = find(&translation);
        guards::guard(&mut translation, &ordinary);
        let limits = Limits::of(&ordinary, &mut translation.model);
        let model = &translation.model;
        let names: Vec<String> = members.iter().map(|member| member.name.clone()).collect();
        let refused = |status| refused(engine, request, &names.join(", "), &status);
        let compiled = compile(library, model, request).map_err(refused)?;
        for Member { name, shapes, before, inputs, outputs } in members {
            let Some(signature) = description.signatures.get(&name).map(Arc::clone) else {
                continue;
            };
            let before = before.map(|before| compile_before(library, before, request));
            let before = before.transpose().map_err(refused)?;
            let ends = ends(model, &inputs, &outputs)?;
            let own = match before {
                Some(before) => compiled.bind_behind(before, signature, shapes, ends),
                None => compiled.bind(signature, shapes, ends),
            };
            bound.insert(name, own.map_err(refused)?.within(limits));
        }
    }
    Ok(BoundSession::new(description, Runs { careful }, bound))
}

fn compile(
    library: &'static OpenVino,
    model: &ModelProto,
    request: &LoadRequest,
) -> Result<Compiled, Status> {
    let bytes = encoded(model)?;
    Compiled::new(&read(library, &bytes)?, request.threads)
}

/// What comes before a network, with where its ends stand.
fn compile_before(
    library: &'static OpenVino,
    mut before: Translation,
    request: &LoadRequest,
) -> Result<(Compiled, Ends), Status> {
    guards::guard(&mut before, &Ordinary::default());
    let ends = ends(&before.model, &before.inputs, &before.outputs)?;
    Ok((compile(library, &before.model, request)?, ends))
}

/// Where named ends stand in a model. OpenVINO keeps the file's order, and has no inputs for constants
/// that are listed as such.
fn ends(model: &ModelProto, inputs: &[String], outputs: &[String]) -> Result<Ends, Status> {
    let graphs = || model.graph.iter();
    let sparse = graphs().flat_map(|graph| &graph.sparse_initializer).flat_map(|own| &own.values);
    let constants: BTreeSet<&str> = graphs()
        .flat_map(|graph| &graph.initializer)
        .chain(sparse)
        .map(|tensor| tensor.name.as_str())
        .collect();
    let all_inputs: Vec<String> = graphs()
        .flat_map(|graph| &graph.input)
        .filter(|input| !constants.contains(input.name.as_str()))
        .map(|input| input.name.clone())
        .collect();
    let all_outputs: Vec<String> =
        graphs().flat_map(|graph| &graph.output).map(|output| output.name.clone()).collect();
    Ok(Ends {
        inputs: Ends::find(inputs, &all_inputs)?,
        outputs: Ends::find(outputs, &all_outputs)?,
    })
}

fn encoded(model: &ModelProto) -> Result<Vec<u8>, Status> {
    if model.encoded_len() > ONNX_BYTES_MAX {
        return Err(Status::unimplemented("the model takes more than 2 GB in one piece"));
    }
    Ok(model.encode_to_vec())
}

/// Such a model was looked into already: what OpenVINO cannot make of it, it cannot run.
fn read(library: &'static OpenVino, bytes: &[u8]) -> Result<OpenVinoModel, Status> {
    OpenVinoModel::read(library, bytes, None).map_err(|error| Status::unimplemented(words(&error)))
}

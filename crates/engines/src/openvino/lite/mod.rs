//! A `model.tflite` in OpenVINO: each graph that is served becomes a file of its own, which the library's
//! reader for such files takes out of a path.
//!
//! Owns: the files, and runs of other sizes than those that the model declares. May not know: how a file is
//! read before. Invariant: the library sees bytes that were checked, and no file that anybody else can change;
//! clients see what LiteRT serves.

mod exactness;
mod table;

#[cfg(test)]
pub(crate) use self::exactness::check as check_graph;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use vesta_ffi::{OpenVino, OpenVinoModel};
use vesta_model::{
    DType, LoadRequest, ModelDescription, PartialShape, RunRequest, Signature, Status, Tensor,
};

use super::runner::{BoundModel, Ends, Runs};
use super::values::words;
use crate::bound::{Bound, BoundSession, Runner, is_past, late};
use crate::litert::alone::{self, Alone};
use crate::litert::flatbuffer::File;
use crate::litert::schema::Model;
use crate::litert::signatures::{self, Served};
use crate::litert::{read_file, sizes_of_input};

/// How the library with the reader is called.
const READER: &str = "libopenvino_tensorflow_lite_frontend.so";

/// The most signatures of a file. Each is written and compiled for itself.
const SIGNATURES_MAX: usize = 256;

/// Bytes of zeros behind a file: the last field of it may be read as a wider one.
const PADDING: [u8; 8] = [0; 8];

/// Loads one version. `folder` is the installation of the library.
pub(super) fn load(
    library: &'static OpenVino,
    folder: &Path,
    version: &str,
    request: &LoadRequest,
) -> Result<BoundSession<LiteRuns>, Status> {
    let bytes = read_file(&request.artifact)?;
    let file = File::new(&bytes);
    let model = Model::read(&file)?;
    let (served, must_be_finite) = served(&model, bytes.len())?;
    check_reader(folder, version)?;
    let (mut bound, mut signatures) = (BTreeMap::new(), BTreeMap::new());
    for one in served {
        let graph = &model.subgraphs[one.subgraph];
        let alone = alone::write(&bytes, &model, graph)?;
        let read = read(library, &alone)?;
        let signature = Arc::new(one.signature.clone());
        signatures.insert(signature.name.clone(), Arc::clone(&signature));
        // A signature may declare other sizes than its graph has.
        let shapes: Vec<PartialShape> = one
            .inputs
            .iter()
            .map(|&tensor| PartialShape::Ranked(graph.tensors[tensor].dims.clone()))
            .collect();
        let ends = || ends(&read, &alone, &one);
        let (own, threads) = (Arc::clone(&signature), request.threads);
        let declared = BoundModel::compile(&read, own, shapes.clone(), ends()?, threads)
            .map_err(|status| refused(&signature.name, &status))?;
        let (ends, resized) = (ends()?, OnceLock::new());
        let is_fixed = |shape: &PartialShape| matches!(shape, PartialShape::Ranked(dims) if dims.iter().any(Option::is_some));
        let read = Mutex::new(shapes.iter().any(is_fixed).then_some((read, ends)));
        let must_be_finite = must_be_finite.contains(&one.subgraph);
        let model =
            LiteModel { signature, shapes, declared, read, resized, must_be_finite, threads };
        bound.insert(one.signature.name.clone(), model);
    }
    Ok(BoundSession::new(ModelDescription { signatures }, LiteRuns, bound))
}

/// What is served of a file, if OpenVINO computes all of it as LiteRT does, and the graphs that must be fed
/// finite numbers for it.
///
/// # Errors
/// `UNIMPLEMENTED` with what it does not, and those of the file.
fn served(model: &Model<'_>, file_bytes: usize) -> Result<(Vec<Served>, BTreeSet<usize>), Status> {
    let served = signatures::of(model)?;
    if served.len() > SIGNATURES_MAX {
        return Err(Status::unimplemented(format!(
            "the model.tflite has {} signatures; OpenVINO is given {SIGNATURES_MAX} at most",
            served.len()
        )));
    }
    let mut known = BTreeMap::new();
    for one in &served {
        if let Entry::Vacant(entry) = known.entry(one.subgraph) {
            let checked = exactness::check(model, &model.subgraphs[one.subgraph], file_bytes);
            entry.insert(checked.map_err(|status| refused(&one.signature.name, &status))?);
        }
    }
    let must_be_finite = known.into_iter().filter(|(_, must)| *must).map(|(graph, _)| graph);
    Ok((served, must_be_finite.collect()))
}

/// Refuses what a file has that OpenVINO does not compute as LiteRT does.
///
/// # Errors
/// As when it is loaded, but for what the library itself does not take.
pub(crate) fn check(artifact: &Path) -> Result<(), Status> {
    let bytes = read_file(artifact)?;
    let file = File::new(&bytes);
    served(&Model::read(&file)?, bytes.len()).map(|_| ())
}

/// Refuses an installation that was made without the reader.
///
/// # Errors
/// `FAILED_PRECONDITION` with what to do.
pub(crate) fn check_reader(folder: &Path, version: &str) -> Result<(), Status> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names = entries.map(|entry| entry.file_name());
    if names.any(|name| name.to_string_lossy().starts_with(READER)) {
        return Ok(());
    }
    Err(Status::failed_precondition(format!(
        "OpenVINO {version} was installed by an older vesta, without its reader for TensorFlow Lite; run \
         `vesta engine remove openvino=={version}` and `vesta engine install openvino=={version}`"
    )))
}

fn refused(signature: &str, status: &Status) -> Status {
    Status::new(
        status.code(),
        format!("OpenVINO does not take signature {signature}: {}", status.message()),
    )
}

/// Has the library read a graph, out of a file that is there for that long and that nobody else may open.
fn read(library: &'static OpenVino, alone: &Alone) -> Result<OpenVinoModel, Status> {
    use vesta_model::Memory as _;

    let unwritable = |error: std::io::Error| {
        Status::failed_precondition(format!(
            "OpenVINO reads a model.tflite out of a file, and none can be written in {}: {error}; set \
             TMPDIR to a folder that can be written",
            std::env::temp_dir().display()
        ))
    };
    let mut file = tempfile::Builder::new()
        .prefix("vesta-")
        .suffix(".tflite")
        .tempfile()
        .map_err(unwritable)?;
    let written = file.write_all(alone.bytes.bytes()).and_then(|()| file.write_all(&PADDING));
    written.and_then(|()| file.flush()).map_err(unwritable)?;
    let path: PathBuf = file.path().to_owned();
    OpenVinoModel::read_file(library, &path).map_err(|error| {
        Status::unimplemented(format!("OpenVINO does not take the model.tflite: {}", words(&error)))
    })
}

/// Where the ends of a signature stand in the model that was read.
fn ends(read: &OpenVinoModel, alone: &Alone, one: &Served) -> Result<Ends, Status> {
    let unread = |error| Status::unimplemented(words(&error));
    let all = |ports: Vec<vesta_ffi::OpenVinoPort>| -> Vec<String> {
        ports.into_iter().map(|port| port.name.unwrap_or_default()).collect()
    };
    let named = |ends: &[(usize, String)], tensors: &[usize]| {
        let name = |tensor: &usize| {
            let found = ends.iter().find(|(own, _)| own == tensor);
            found.map(|(_, name)| name.clone()).unwrap_or_default()
        };
        tensors.iter().map(name).collect::<Vec<String>>()
    };
    Ok(Ends {
        inputs: Ends::find(
            &named(&alone.inputs, &one.inputs),
            &all(read.inputs().map_err(unread)?),
        )?,
        outputs: Ends::find(
            &named(&alone.outputs, &one.outputs),
            &all(read.outputs().map_err(unread)?),
        )?,
    })
}

/// A signature in terms of compiled models.
pub(super) struct LiteModel {
    signature: Arc<Signature>,
    /// The sizes that the file declares.
    shapes: Vec<PartialShape>,
    /// Compiled for them.
    declared: BoundModel,
    /// What is compiled for other sizes, until that was done.
    read: Mutex<Option<(OpenVinoModel, Ends)>>,
    resized: OnceLock<Result<BoundModel, Status>>,
    must_be_finite: bool,
    threads: usize,
}

impl LiteModel {
    /// The model for these inputs. Sizes may be others than those that the file declares, as in the original;
    /// for the first request with such, the model is compiled anew.
    fn model_for(&self, inputs: &[Tensor]) -> Result<&BoundModel, Status> {
        let mut fits = self.shapes.iter().zip(inputs);
        if fits.all(|(shape, tensor)| shape.accepts(tensor.shape())) {
            return Ok(&self.declared);
        }
        for ((shape, tensor), spec) in self.shapes.iter().zip(inputs).zip(&self.signature.inputs) {
            if matches!(shape, PartialShape::Ranked(dims) if dims.len() != tensor.shape().rank()) {
                return Err(Status::invalid_argument(format!(
                    "Failed to resize input tensor: {} to {}: the model has as many dimensions as {shape}",
                    spec.alias,
                    tensor.shape()
                )));
            }
        }
        let resized = self.resized.get_or_init(|| {
            let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
            let Some((mut model, ends)) = read.take() else {
                return Err(Status::internal("a model was resized before"));
            };
            let open = |shape: &PartialShape| match shape {
                PartialShape::Ranked(dims) => PartialShape::Ranked(vec![None; dims.len()]),
                PartialShape::Unknown => PartialShape::Unknown,
            };
            let opened = model.open_sizes();
            opened.map_err(|error| Status::invalid_argument(words(&error)))?;
            let shapes = self.shapes.iter().map(open).collect();
            BoundModel::compile(&model, Arc::clone(&self.signature), shapes, ends, self.threads)
                .map_err(|status| Status::invalid_argument(status.message()))
        });
        resized.as_ref().map_err(Clone::clone)
    }
}

impl Bound for LiteModel {
    fn signature(&self) -> &Signature {
        &self.signature
    }
}

/// Runs of a version.
pub(super) struct LiteRuns;

impl Runner for LiteRuns {
    type Bound = LiteModel;

    fn run(
        &self,
        bound: &LiteModel,
        request: &RunRequest,
        inputs: Vec<Tensor>,
        deadline: Option<Instant>,
    ) -> Result<Vec<Tensor>, Status> {
        for (spec, tensor) in bound.signature.inputs.iter().zip(&inputs) {
            sizes_of_input(&spec.alias, tensor)?;
            if bound.must_be_finite {
                check_finite(&spec.alias, tensor)?;
            }
        }
        let model = bound.model_for(&inputs)?;
        if is_past(deadline) {
            return Err(late());
        }
        Runs.run(model, request, inputs, deadline)
    }
}

/// Refuses numbers that OpenVINO and LiteRT pass on in other ways.
///
/// # Errors
/// `INVALID_ARGUMENT`.
fn check_finite(alias: &str, tensor: &Tensor) -> Result<(), Status> {
    let bytes = tensor.bytes();
    let is_finite = match tensor.dtype() {
        DType::F32 => {
            let (words, _) = bytes.as_chunks::<4>();
            words.iter().all(|word| f32::from_le_bytes(*word).is_finite())
        }
        DType::F16 => {
            let (words, _) = bytes.as_chunks::<2>();
            words.iter().all(|word| u16::from_le_bytes(*word) & 0x7c00 != 0x7c00)
        }
        _ => true,
    };
    if is_finite {
        return Ok(());
    }
    Err(Status::invalid_argument(format!(
        "input {alias} has numbers that are not finite, which OpenVINO computes otherwise than LiteRT; send \
         finite ones, or serve the model by LiteRT"
    )))
}

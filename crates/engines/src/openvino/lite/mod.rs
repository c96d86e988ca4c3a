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

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tempfile::NamedTempFile;
use vesta_ffi::{OpenVino, OpenVinoModel, OpenVinoPort};
use vesta_model::{
    AlignedBytes, LoadRequest, Memory as _, ModelDescription, PartialShape, RunRequest, Signature,
    Status, Tensor,
};

use self::exactness::{Needs, are_finite};
use super::runner::{BoundModel, Ends, Runs, check_ends};
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
    let (served, needs) = served(&model, bytes.len())?;
    check_reader(folder, version)?;
    let (mut bound, mut signatures) = (BTreeMap::new(), BTreeMap::new());
    let mut graphs: BTreeMap<usize, Arc<LiteGraph>> = BTreeMap::new();
    for one in served {
        let graph = match graphs.entry(one.subgraph) {
            Entry::Occupied(known) => Arc::clone(known.get()),
            Entry::Vacant(entry) => {
                let alone = alone::write(&bytes, &model, &model.subgraphs[one.subgraph])?;
                let needs = needs.get(&one.subgraph).cloned().unwrap_or_default();
                let graph = LiteGraph::read(library, alone, request.threads, needs)?;
                Arc::clone(entry.insert(Arc::new(graph)))
            }
        };
        // A signature may declare other sizes than its graph has.
        let dims = |tensor: &usize| model.subgraphs[one.subgraph].tensors[*tensor].dims.clone();
        let shapes = one.inputs.iter().map(|tensor| PartialShape::Ranked(dims(tensor))).collect();
        let name = one.signature.name.clone();
        let served =
            LiteModel::bind(graph, &one, shapes).map_err(|status| refused(&name, &status))?;
        signatures.insert(name.clone(), Arc::clone(&served.signature));
        bound.insert(name, served);
    }
    Ok(BoundSession::new(ModelDescription { signatures }, LiteRuns, bound))
}

/// What is served of a file, if OpenVINO computes all of it as LiteRT does, and what its graphs must be fed
/// for it.
///
/// # Errors
/// `UNIMPLEMENTED` with what it does not, and those of the file.
fn served(
    model: &Model<'_>,
    file_bytes: usize,
) -> Result<(Vec<Served>, BTreeMap<usize, Needs>), Status> {
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
    Ok((served, known))
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

/// How the file for the reader is called, and how long one may be there: it is gone once it was read, but for
/// those whose process the library ended.
const FILE: (&str, &str) = ("vesta-openvino-", ".tflite");
const FILE_AGE_MAX: Duration = Duration::from_secs(3600);

/// Removes what processes that were ended left behind.
fn sweep(place: &Path) {
    let is_left = |entry: &std::fs::DirEntry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let written = entry.metadata().and_then(|found| found.modified());
        let age = written.ok().and_then(|written| written.elapsed().ok());
        name.starts_with(FILE.0) && name.ends_with(FILE.1) && age > Some(FILE_AGE_MAX)
    };
    let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
    for entry in entries.filter(is_left) {
        // Others' files stay.
        let _ = std::fs::remove_file(entry.path());
    }
}

/// Where the file for the reader may be written; the second for a root that is read-only.
fn places() -> [PathBuf; 2] {
    [std::env::temp_dir(), PathBuf::from("/dev/shm")]
}

/// Has the library read a graph, out of a file that is there for that long and that nobody else may open.
fn read(library: &'static OpenVino, alone: &Alone) -> Result<OpenVinoModel, Status> {
    let write = |place: &PathBuf| -> std::io::Result<NamedTempFile> {
        sweep(place);
        let mut builder = tempfile::Builder::new();
        let mut file = builder.prefix(FILE.0).suffix(FILE.1).tempfile_in(place)?;
        file.write_all(alone.bytes.bytes())?;
        file.write_all(&PADDING)?;
        file.flush()?;
        Ok(file)
    };
    let places = places();
    let file = write(&places[0]).or_else(|_| write(&places[1])).map_err(|error| {
        Status::failed_precondition(format!(
            "OpenVINO reads a model.tflite out of a file, and none can be written in {} or {}: {error}; \
             set TMPDIR to a folder that can be written",
            places[0].display(),
            places[1].display()
        ))
    })?;
    OpenVinoModel::read_file(library, file.path()).map_err(|error| {
        Status::unimplemented(format!("OpenVINO does not take the model.tflite: {}", words(&error)))
    })
}

/// A graph in terms of compiled models, which all of its signatures share.
struct LiteGraph {
    alone: Alone,
    inputs: Vec<OpenVinoPort>,
    outputs: Vec<OpenVinoPort>,
    needs: Needs,
    threads: usize,
    /// What is compiled for sizes that are not declared, until that was done.
    read: Mutex<Option<OpenVinoModel>>,
    /// Compiled for the sizes that the file declares, and for any.
    declared: OnceLock<Result<BoundModel, Status>>,
    resized: OnceLock<Result<BoundModel, Status>>,
}

impl LiteGraph {
    fn read(
        library: &'static OpenVino,
        mut alone: Alone,
        threads: usize,
        needs: Needs,
    ) -> Result<LiteGraph, Status> {
        let unread = |error| Status::unimplemented(words(&error));
        let model = read(library, &alone)?;
        // The library has its own.
        alone.bytes = AlignedBytes::zeroed(0);
        let inputs = model.inputs().map_err(unread)?;
        let outputs = model.outputs().map_err(unread)?;
        let read = Mutex::new(Some(model));
        let (declared, resized) = (OnceLock::new(), OnceLock::new());
        Ok(LiteGraph { alone, inputs, outputs, needs, threads, read, declared, resized })
    }

    /// Where the ends of a signature stand in the model.
    fn ends(&self, one: &Served) -> Result<Ends, Status> {
        let find = |named: &[(usize, String)], ports: &[OpenVinoPort], tensors: &[usize]| {
            let by_tensor: BTreeMap<usize, &String> =
                named.iter().map(|(tensor, name)| (*tensor, name)).collect();
            let name = |tensor| by_tensor.get(tensor).map_or_else(String::new, ToString::to_string);
            let wanted: Vec<String> = tensors.iter().map(name).collect();
            let all: Vec<String> =
                ports.iter().map(|port| port.name.clone().unwrap_or_default()).collect();
            Ends::find(&wanted, &all)
        };
        let ends = Ends {
            inputs: find(&self.alone.inputs, &self.inputs, &one.inputs)?,
            outputs: find(&self.alone.outputs, &self.outputs, &one.outputs)?,
        };
        check_ends("input", &one.signature.inputs, &ends.inputs, &self.inputs)?;
        check_ends("output", &one.signature.outputs, &ends.outputs, &self.outputs)?;
        Ok(ends)
    }

    /// The model compiled for the sizes that are declared, as one of its signatures has it.
    fn declared(&self, bound: &Binding) -> Result<BoundModel, Status> {
        let compile = || {
            let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
            let model = read.as_ref().ok_or_else(gone)?;
            let compiled = bound.compile(model, bound.shapes.clone(), self.threads);
            if bound.open_shapes() == bound.shapes {
                // There are no others.
                *read = None;
            }
            compiled
        };
        let declared = self.declared.get_or_init(compile).as_ref().map_err(Clone::clone)?;
        Ok(bound.again(declared, bound.shapes.clone()))
    }

    /// The model compiled for any sizes.
    fn resized(&self, bound: &Binding) -> Result<BoundModel, Status> {
        let compile = || {
            let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
            let mut model = read.take().ok_or_else(gone)?;
            let unfit = |error| Status::invalid_argument(words(&error));
            model.open_sizes().map_err(unfit)?;
            bound
                .compile(&model, bound.open_shapes(), self.threads)
                .map_err(|status| Status::invalid_argument(status.message()))
        };
        let resized = self.resized.get_or_init(compile).as_ref().map_err(Clone::clone)?;
        Ok(bound.again(resized, bound.open_shapes()))
    }
}

fn gone() -> Status {
    Status::internal("what was read of a model.tflite is gone")
}

/// A signature and its ends in a model.
struct Binding {
    signature: Arc<Signature>,
    /// The sizes that the file declares.
    shapes: Vec<PartialShape>,
    ends: Ends,
}

impl Binding {
    fn open_shapes(&self) -> Vec<PartialShape> {
        let open = |shape: &PartialShape| match shape {
            PartialShape::Ranked(dims) => PartialShape::Ranked(vec![None; dims.len()]),
            PartialShape::Unknown => PartialShape::Unknown,
        };
        self.shapes.iter().map(open).collect()
    }

    fn compile(
        &self,
        model: &OpenVinoModel,
        shapes: Vec<PartialShape>,
        threads: usize,
    ) -> Result<BoundModel, Status> {
        BoundModel::compile(model, Arc::clone(&self.signature), shapes, self.ends.clone(), threads)
    }

    fn again(&self, model: &BoundModel, shapes: Vec<PartialShape>) -> BoundModel {
        model.again(Arc::clone(&self.signature), shapes, self.ends.clone())
    }
}

/// A signature in terms of compiled models.
pub(super) struct LiteModel {
    signature: Arc<Signature>,
    binding: Binding,
    declared: BoundModel,
    resized: OnceLock<Result<BoundModel, Status>>,
    /// Inputs by position, whose whole numbers must be from 0 to below these.
    below: Vec<(usize, usize)>,
    graph: Arc<LiteGraph>,
}

impl LiteModel {
    fn bind(
        graph: Arc<LiteGraph>,
        one: &Served,
        shapes: Vec<PartialShape>,
    ) -> Result<LiteModel, Status> {
        let signature = Arc::new(one.signature.clone());
        let ends = graph.ends(one)?;
        let binding = Binding { signature: Arc::clone(&signature), shapes, ends };
        let declared = graph.declared(&binding)?;
        let below = one.inputs.iter().enumerate();
        let below = below.filter_map(|(n, tensor)| Some((n, *graph.needs.below.get(tensor)?)));
        let below = below.collect();
        Ok(LiteModel { signature, binding, declared, resized: OnceLock::new(), below, graph })
    }

    /// The model for these inputs. Sizes may be others than those that the file declares, as in the original;
    /// for the first request with such, the model is compiled anew.
    fn model_for(&self, inputs: &[Tensor]) -> Result<&BoundModel, Status> {
        let mut fits = self.binding.shapes.iter().zip(inputs);
        if fits.all(|(shape, tensor)| shape.accepts(tensor.shape())) {
            return Ok(&self.declared);
        }
        let specs = self.binding.shapes.iter().zip(&self.signature.inputs);
        for ((shape, spec), tensor) in specs.zip(inputs) {
            if matches!(shape, PartialShape::Ranked(dims) if dims.len() != tensor.shape().rank()) {
                return Err(Status::invalid_argument(format!(
                    "Failed to resize input tensor: {} to {}: the model has as many dimensions as {shape}",
                    spec.alias,
                    tensor.shape()
                )));
            }
        }
        let resized = self.resized.get_or_init(|| self.graph.resized(&self.binding));
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
            if bound.graph.needs.finite {
                check_finite(&spec.alias, tensor)?;
            }
        }
        for &(input, size) in &bound.below {
            check_below(&bound.signature.inputs[input].alias, &inputs[input], size)?;
        }
        let model = bound.model_for(&inputs)?;
        if is_past(deadline) {
            return Err(late());
        }
        Runs::default().run(model, request, inputs, deadline)
    }
}

/// Refuses numbers that OpenVINO and LiteRT pass on in other ways.
///
/// # Errors
/// `INVALID_ARGUMENT`.
fn check_finite(alias: &str, tensor: &Tensor) -> Result<(), Status> {
    if are_finite(tensor.dtype(), tensor.bytes()) {
        return Ok(());
    }
    Err(Status::invalid_argument(format!(
        "input {alias} has numbers that are not finite, which OpenVINO computes otherwise than LiteRT; send \
         finite ones, or serve the model by LiteRT"
    )))
}

/// Refuses an index that lies outside of what is picked from, as LiteRT does in the run.
///
/// # Errors
/// `INVALID_ARGUMENT`.
fn check_below(alias: &str, tensor: &Tensor, size: usize) -> Result<(), Status> {
    let (words, _) = tensor.bytes().as_chunks::<4>();
    let mut indices = words.iter().map(|word| i32::from_le_bytes(*word));
    match indices.find(|&index| usize::try_from(index).map_or(true, |index| index >= size)) {
        None => Ok(()),
        Some(index) => Err(Status::invalid_argument(format!(
            "input {alias} has the index {index}, and there are {size} to pick from: gather index out of \
             bounds"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_files_of_readers_are_swept() {
        let folder = tempfile::tempdir().unwrap();
        let old = std::time::SystemTime::now() - 2 * FILE_AGE_MAX;
        let made = |name: &str, is_old: bool| {
            let path = folder.path().join(name);
            let file = std::fs::File::create(&path).unwrap();
            if is_old {
                file.set_modified(old).unwrap();
            }
            path
        };
        let left = made("vesta-openvino-a.tflite", true);
        let kept = [
            made("vesta-openvino-b.tflite", false),
            made("model.tflite", true),
            made("vesta-openvino-c", true),
        ];
        sweep(folder.path());
        assert!(!left.exists());
        assert!(kept.iter().all(|path| path.exists()));
    }
}

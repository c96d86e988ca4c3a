//! ONNX files: which one of a folder is the model, the signature that is made of it, and its loading.
//!
//! May not know: how a model runs. Invariant: what the file says of its ends is checked before the
//! library sees it; names are the file's own, however odd.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use vesta_ffi::OnnxRuntime;
use vesta_model::{
    Code, DType, Encoding, LoadRequest, ModelDescription, PartialShape, Signature, Status,
    TensorSpec,
};
use vesta_protos::onnx::tensor_shape_proto::dimension;
use vesta_protos::onnx::type_proto::Value as Kind;
use vesta_protos::onnx::{
    GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, ValueInfoProto,
};
use vesta_savedmodel::SavedModel;

use super::external::{Beside, each_tensor, is_external, unreadable};
use super::session::{BoundModel, LoadedModel, Part, name_of};
use super::values::{from_onnx, status};
use super::weights::Weights;
use crate::bound::BoundSession;

/// The name that is taken when a folder has several ONNX files.
const PREFERRED: &str = "model.onnx";

/// The largest file that can be a protocol buffer.
const FILE_BYTES_MAX: u64 = i32::MAX as u64;

/// What a signature is made for, where the file does not say.
const PREDICT: &str = "tensorflow/serving/predict";

/// Operators that give other values each time.
const RANDOM: [&str; 6] = [
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
];

/// An ONNX file, looked into without the library.
#[derive(Clone, Debug)]
pub struct OnnxModel {
    /// Its signature.
    pub description: ModelDescription,
    /// How often each operator stands in it, graphs within graphs left out.
    pub operators: BTreeMap<String, usize>,
    /// Bytes of the file, without those of files that it refers to.
    pub file_bytes: u64,
}

impl OnnxModel {
    /// Looks into the ONNX file of a version's folder.
    ///
    /// # Errors
    /// `NOT_FOUND`, `DATA_LOSS`, `INVALID_ARGUMENT`, `UNIMPLEMENTED`, as when it is loaded.
    pub fn open(artifact: &Path) -> Result<OnnxModel, Status> {
        let file = Parsed::read(artifact)?;
        let signature = file.signature()?;
        let counts = vesta_onnx::count_operators(&file.model);
        Ok(OnnxModel {
            description: described(Arc::new(signature)),
            operators: counts.into_iter().map(|(op, count)| (op.to_owned(), count)).collect(),
            file_bytes: file.bytes.len() as u64,
        })
    }

    /// Whether a version's folder has an ONNX file and no SavedModel.
    pub fn is_alone_in(artifact: &Path) -> bool {
        SavedModel::file_in(artifact).is_none()
            && candidates(artifact).is_ok_and(|found| !found.is_empty())
    }
}

fn described(signature: Arc<Signature>) -> ModelDescription {
    ModelDescription { signatures: [(signature.name.clone(), signature)].into() }
}

/// Loads one version.
pub(super) fn load(
    library: &'static OnnxRuntime,
    request: &LoadRequest,
) -> Result<BoundSession<LoadedModel>, Status> {
    let mut file = Parsed::read(&request.artifact)?;
    let signature = Arc::new(file.signature()?);
    let is_changed = file.gather(&request.artifact)?;
    let session = Weights::new(library).and_then(|mut weights| match is_changed {
        true => weights.open(file.model, request.threads),
        false => weights.open_as_written(&file.bytes, request.threads),
    });
    let session = session.map_err(|error| {
        let status = status(&error);
        let text = format!("ONNX Runtime does not take {}: {}", file.name, status.message());
        Status::new(status.code(), text)
    })?;
    let named = |spec: &TensorSpec| name_of(&spec.alias);
    let feeds = signature.inputs.iter().map(named).collect::<Result<_, Status>>()?;
    let fetches = signature.outputs.iter().map(named).collect::<Result<_, Status>>()?;
    let shapes = signature.inputs.iter().map(|spec| spec.shape.clone()).collect();
    let network = Part { session: Arc::new(session), feeds, fetches };
    let own = Arc::clone(&signature);
    let limits = None;
    let bound = BoundModel { signature: own, shapes, before: None, network, limits };
    let bound = [(signature.name.clone(), bound)].into();
    Ok(BoundSession::new(described(signature), LoadedModel::new(library, None), bound))
}

/// The ONNX files of a folder.
fn candidates(artifact: &Path) -> Result<Vec<PathBuf>, Status> {
    let entries = std::fs::read_dir(artifact).map_err(|error| unreadable(artifact, &error))?;
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|ending| ending == "onnx"))
        .collect();
    found.sort();
    Ok(found)
}

/// The one that is the model.
fn chosen(artifact: &Path) -> Result<PathBuf, Status> {
    let mut found = candidates(artifact)?;
    if let Some(preferred) = found.iter().position(|path| path.ends_with(PREFERRED)) {
        return Ok(found.swap_remove(preferred));
    }
    match found.len() {
        0 => Err(Status::not_found(format!("{} has no ONNX file", artifact.display()))),
        1 => Ok(found.remove(0)),
        _ => Err(Status::invalid_argument(format!(
            "{} has several ONNX files; keep one, or call one {PREFERRED}",
            artifact.display()
        ))),
    }
}

/// A file as it was read.
pub(crate) struct Parsed {
    /// Its name.
    pub(crate) name: String,
    /// Its bytes.
    pub(crate) bytes: Bytes,
    pub(crate) model: ModelProto,
}

impl Parsed {
    /// Reads the file. It is not mapped: a file that is changed in its place must not change what
    /// serves.
    pub(crate) fn read(artifact: &Path) -> Result<Parsed, Status> {
        let path = chosen(artifact)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let metadata = path.metadata().map_err(|error| unreadable(&path, &error))?;
        if !metadata.is_file() {
            return Err(Status::failed_precondition(format!("{} is no file", path.display())));
        }
        if metadata.len() > FILE_BYTES_MAX {
            return Err(Status::unimplemented(format!(
                "{name} is larger than 2 GB; save the model with its weights in another file"
            )));
        }
        let bytes = Bytes::from(std::fs::read(&path).map_err(|error| unreadable(&path, &error))?);
        let decoded = ModelProto::decode(bytes.clone());
        let model = decoded.map_err(|error| broken(&name, &error.to_string()))?;
        Ok(Parsed { name, bytes, model })
    }

    fn graph(&self) -> Result<&GraphProto, Status> {
        self.model.graph.as_ref().ok_or_else(|| broken(&self.name, "it has no graph"))
    }

    /// The signature of the graph.
    ///
    /// # Errors
    /// `DATA_LOSS` for ends that make no sense, `UNIMPLEMENTED` for those that are no tensors that a
    /// request can carry.
    pub(crate) fn signature(&self) -> Result<Signature, Status> {
        let graph = self.graph()?;
        let sparse = graph.sparse_initializer.iter().flat_map(|sparse| &sparse.values);
        let constants: BTreeSet<&str> =
            graph.initializer.iter().chain(sparse).map(|tensor| tensor.name.as_str()).collect();
        // Older files list their constants as inputs, too: defaults that nobody overrides.
        let inputs = graph.input.iter().filter(|input| !constants.contains(input.name.as_str()));
        let inputs = self.specs("input", inputs)?;
        let outputs = self.specs("output", graph.output.iter())?;
        if outputs.is_empty() {
            return Err(broken(&self.name, "it has no output"));
        }
        let mut signature = Signature::new(Signature::DEFAULT_NAME, PREDICT, inputs, outputs);
        let in_functions = self.model.functions.iter().flat_map(|function| &function.node);
        signature.stateful = graph.node.iter().chain(in_functions).any(draws_numbers);
        Ok(signature)
    }

    fn specs<'g>(
        &self,
        side: &str,
        ends: impl Iterator<Item = &'g ValueInfoProto>,
    ) -> Result<Vec<TensorSpec>, Status> {
        let mut names = BTreeSet::new();
        ends.map(|end| {
            if end.name.is_empty() || !names.insert(end.name.as_str()) {
                let text = format!("it has two {side}s called `{}`", end.name);
                return Err(broken(&self.name, &text));
            }
            name_of(&end.name)?;
            let (dtype, shape) = self.tensor_type(side, end)?;
            let spec = TensorSpec::dense(&end.name, dtype).with_shape(shape);
            Ok(TensorSpec { encoding: Encoding::Dense(end.name.clone()), ..spec })
        })
        .collect()
    }

    /// Dtype and shape of an end.
    fn tensor_type(
        &self,
        side: &str,
        end: &ValueInfoProto,
    ) -> Result<(DType, PartialShape), Status> {
        let name = &end.name;
        let Some(Kind::TensorType(tensor)) = end.r#type.as_ref().and_then(|own| own.value.as_ref())
        else {
            return Err(Status::unimplemented(format!(
                "{side} `{name}` of {} is {}, which a request cannot carry; export the model with \
                 tensors alone",
                self.name,
                end.r#type.as_ref().map_or("of no type".to_owned(), kind_of)
            )));
        };
        let dtype = from_onnx(tensor.elem_type)
            .filter(|&dtype| dtype == DType::String || dtype.width().is_some())
            .ok_or_else(|| {
                Status::unimplemented(format!(
                    "{side} `{name}` of {} has elements of ONNX's type {}, which a request cannot \
                     carry; export the model with another type",
                    self.name, tensor.elem_type
                ))
            })?;
        let shape = tensor.shape.as_ref().map_or(PartialShape::Unknown, |shape| {
            let size = |dim: &vesta_protos::onnx::tensor_shape_proto::Dimension| match dim.value {
                Some(dimension::Value::DimValue(size)) => usize::try_from(size).ok(),
                _ => None,
            };
            PartialShape::Ranked(shape.dim.iter().map(size).collect())
        });
        Ok((dtype, shape))
    }

    /// Reads the tensors that lie in other files into the model; tells whether there were any.
    pub(crate) fn gather(&mut self, artifact: &Path) -> Result<bool, Status> {
        let mut beside = None;
        each_tensor(&mut self.model, &mut |tensor| {
            if is_external(tensor) {
                let beside = match &mut beside {
                    Some(beside) => beside,
                    None => beside.insert(Beside::new(artifact)?),
                };
                let bytes = beside.read(tensor)?;
                put_in(tensor, bytes);
            }
            Ok(())
        })?;
        Ok(beside.is_some())
    }
}

/// Puts the bytes of a tensor into the model.
fn put_in(tensor: &mut TensorProto, bytes: Bytes) {
    tensor.raw_data = bytes;
    tensor.data_location = 0;
    tensor.external_data.clear();
}

fn draws_numbers(node: &NodeProto) -> bool {
    RANDOM.contains(&node.op_type.as_str())
        || node.attribute.iter().any(|attribute| {
            let graphs = attribute.g.iter().chain(&attribute.graphs);
            graphs.flat_map(|graph| &graph.node).any(draws_numbers)
        })
}

/// What a value is that is no tensor.
fn kind_of(own: &TypeProto) -> String {
    let of =
        |inner: &Option<Box<TypeProto>>| match inner.as_ref().and_then(|own| own.value.as_ref()) {
            Some(Kind::TensorType(_)) => " of tensors",
            Some(Kind::SequenceType(_)) => " of sequences",
            Some(Kind::MapType(_)) => " of maps",
            _ => "",
        };
    match &own.value {
        None => "of no type".to_owned(),
        Some(Kind::TensorType(_)) => "a tensor".to_owned(),
        Some(Kind::SparseTensorType(_)) => "a sparse tensor".to_owned(),
        Some(Kind::SequenceType(own)) => format!("a sequence{}", of(&own.elem_type)),
        Some(Kind::MapType(own)) => format!("a map{}", of(&own.value_type)),
        Some(Kind::OptionalType(_)) => "a value that may be absent".to_owned(),
    }
}

fn broken(name: &str, why: &str) -> Status {
    Status::new(Code::DataLoss, format!("{name} is damaged: {why}; write it again"))
}

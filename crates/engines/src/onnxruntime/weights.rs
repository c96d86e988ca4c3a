//! Weights that are given to ONNX Runtime apart from their model: those of several signatures, so
//! that all sessions read one copy, and one copy of what kernels have packed; and those of models that
//! are too large to be written whole.
//!
//! Others stay in the model: ONNX Runtime lets go of a weight of its own once it has packed it for its
//! kernels, while one that is given stays where it is.

use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use vesta_ffi::{OnnxPackedWeights, OnnxRuntime, OnnxRuntimeError, OnnxSession, OnnxValue};
use vesta_model::{AlignedBytes, Memory as _};
use vesta_protos::onnx::tensor_proto::DataLocation;
use vesta_protos::onnx::{ModelProto, StringStringEntryProto, TensorProto};

use super::values::from_onnx;

/// The largest model that can be written whole.
const MODEL_BYTES_MAX: usize = i32::MAX as usize;

/// Weights from this size may be given apart. Smaller ones are looked into by ONNX Runtime as it
/// reads the graph, for they may be sizes.
const APART_BYTES_MIN: usize = 64 * 1024;

/// Which weights: a digest of their bytes, for a translation may have made them anew, and what they are.
type Key = (Digest, i32, Vec<i64>);
type Digest = [u8; 32];

/// The weights of the signatures of one version, while they are loaded.
pub(super) struct Weights {
    library: &'static OnnxRuntime,
    packed: OnnxPackedWeights,
    seen: Seen,
    /// Those that were given.
    given: HashMap<Key, Arc<dyn AsRef<[u8]> + Send + Sync>>,
}

/// How many models have which weights.
#[derive(Default)]
struct Seen {
    models: HashMap<Key, usize>,
    /// Digests of bytes that were seen, by where they lie; they are kept, so that no others come there.
    digests: HashMap<(usize, usize), (Digest, Bytes)>,
}

impl Seen {
    fn see(&mut self, model: &ModelProto) {
        let filters = filters(model);
        for tensor in model.graph.iter().flat_map(|graph| &graph.initializer) {
            if may_stand_apart(tensor) && !filters.contains(tensor.name.as_str()) {
                let bytes = &tensor.raw_data;
                let new = || (Sha256::digest(bytes).into(), bytes.clone());
                let (digest, _) = self.digests.entry(place(bytes)).or_insert_with(new);
                *self.models.entry(key(*digest, tensor)).or_default() += 1;
            }
        }
    }

    /// What weights are told apart by, where several models have them.
    fn shared(&self, tensor: &TensorProto) -> Option<Key> {
        let (digest, _) = self.digests.get(&place(&tensor.raw_data))?;
        let key = key(*digest, tensor);
        self.models.get(&key).is_some_and(|models| *models > 1).then_some(key)
    }
}

/// Weights that lie as kernels expect it.
struct Aligned(AlignedBytes);

impl AsRef<[u8]> for Aligned {
    fn as_ref(&self) -> &[u8] {
        self.0.bytes()
    }
}

impl Weights {
    /// # Errors
    /// What ONNX Runtime says.
    pub(super) fn new(library: &'static OnnxRuntime) -> Result<Weights, OnnxRuntimeError> {
        let packed = OnnxPackedWeights::new(library)?;
        Ok(Weights { library, packed, seen: Seen::default(), given: HashMap::new() })
    }

    /// Learns which weights a model has. One model alone need not be seen.
    pub(super) fn see(&mut self, model: &ModelProto) {
        self.seen.see(model);
    }

    /// Makes a session of a model.
    ///
    /// # Errors
    /// What ONNX Runtime says.
    pub(super) fn open(
        &mut self,
        mut model: ModelProto,
        threads: usize,
    ) -> Result<OnnxSession, OnnxRuntimeError> {
        let is_large = model.encoded_len() > MODEL_BYTES_MAX;
        let mut apart: Vec<(CString, OnnxValue)> = Vec::new();
        for tensor in model.graph.iter_mut().flat_map(|graph| &mut graph.initializer) {
            if !may_stand_apart(tensor) {
                continue;
            }
            let shared = self.seen.shared(tensor);
            if !is_large && shared.is_none() {
                continue;
            }
            let Ok(name) = CString::new(tensor.name.as_str()) else { continue };
            let bytes = match shared {
                Some(key) => {
                    let given = self.given.entry(key);
                    Arc::clone(given.or_insert_with(|| aligned(&tensor.raw_data)))
                }
                None => aligned(&tensor.raw_data),
            };
            apart.push((
                name,
                OnnxValue::over(self.library, tensor.data_type, &tensor.dims, bytes)?,
            ));
            declare_apart(tensor);
        }
        if model.encoded_len() > MODEL_BYTES_MAX {
            return Err(OnnxRuntimeError {
                code: OnnxRuntimeError::NOT_IMPLEMENTED,
                message: "the model takes more than 2 GB without the weights of its graph"
                    .to_owned(),
            });
        }
        let bytes = model.encode_to_vec();
        OnnxSession::load(self.library, &bytes, apart, &self.packed, threads.max(1))
    }

    /// Makes a session of a file with all weights in it.
    ///
    /// # Errors
    /// What ONNX Runtime says.
    pub(super) fn open_as_written(
        &self,
        file: &[u8],
        threads: usize,
    ) -> Result<OnnxSession, OnnxRuntimeError> {
        OnnxSession::load(self.library, file, vec![], &self.packed, threads.max(1))
    }
}

/// Initializers that a convolution takes for its filter. ONNX Runtime lays them out anew for each session,
/// and lets go of those of its own only.
fn filters(model: &ModelProto) -> HashSet<&str> {
    let nodes = model.graph.iter().flat_map(|graph| &graph.node);
    let convolutions = nodes.filter(|node| node.op_type.starts_with("Conv"));
    convolutions.filter_map(|node| node.input.get(1).map(String::as_str)).collect()
}

/// Whether weights may be given apart.
fn may_stand_apart(tensor: &TensorProto) -> bool {
    let has_width = from_onnx(tensor.data_type).is_some_and(|dtype| dtype.width().is_some());
    has_width && tensor.raw_data.len() >= APART_BYTES_MIN
}

fn key(digest: Digest, tensor: &TensorProto) -> Key {
    (digest, tensor.data_type, tensor.dims.clone())
}

fn place(bytes: &Bytes) -> (usize, usize) {
    (bytes.as_ptr().addr(), bytes.len())
}

/// The same bytes where kernels expect them to lie.
fn aligned(bytes: &Bytes) -> Arc<dyn AsRef<[u8]> + Send + Sync> {
    if bytes.as_ptr().addr().is_multiple_of(AlignedBytes::ALIGNMENT) {
        return Arc::new(bytes.clone());
    }
    Arc::new(Aligned(AlignedBytes::copy_of(bytes)))
}

/// Says that a tensor is given apart. The place is never looked at.
fn declare_apart(tensor: &mut TensorProto) {
    let length = std::mem::take(&mut tensor.raw_data).len();
    tensor.data_location = DataLocation::External as i32;
    tensor.external_data = [("location", "weights".to_owned()), ("length", length.to_string())]
        .map(|(key, value)| StringStringEntryProto { key: key.to_owned(), value })
        .to_vec();
}

#[cfg(test)]
mod tests {
    use super::*;
    use vesta_model::DType;
    use vesta_protos::onnx::{GraphProto, NodeProto};

    fn model(weights: &[Vec<u8>]) -> ModelProto {
        let tensor = |(at, bytes): (usize, &Vec<u8>)| TensorProto {
            name: format!("w{at}"),
            data_type: 1,
            dims: vec![i64::try_from(bytes.len() / 4).unwrap()],
            raw_data: bytes.clone().into(),
            ..TensorProto::default()
        };
        let initializer = weights.iter().enumerate().map(tensor).collect();
        let convolution = NodeProto {
            op_type: "Conv".to_owned(),
            input: vec!["x".to_owned(), "w0".to_owned()],
            ..NodeProto::default()
        };
        let graph = GraphProto { initializer, node: vec![convolution], ..GraphProto::default() };
        ModelProto { graph: Some(graph), ..ModelProto::default() }
    }

    #[test]
    fn weights_are_the_same_when_their_numbers_are() {
        assert_eq!(from_onnx(1), Some(DType::F32));
        let numbers = |value: u8| vec![value; APART_BYTES_MIN];
        // The first is a filter, and the third is small.
        let first = model(&[numbers(1), numbers(2), vec![2; 8]]);
        let second = model(&[numbers(1), numbers(3), numbers(2)]);
        let mut seen = Seen::default();
        seen.see(&first);
        seen.see(&second);
        let shared = |model: &ModelProto| -> Vec<bool> {
            let weights = &model.graph.as_ref().unwrap().initializer;
            weights.iter().map(|tensor| seen.shared(tensor).is_some()).collect()
        };
        assert_eq!(shared(&first), [false, true, false]);
        assert_eq!(shared(&second), [false, false, true]);
    }
}

//! Weights that are given to ONNX Runtime apart from their model: those of several signatures, so
//! that all sessions read one copy, and those of models that are too large to be written whole.
//!
//! Others stay in the model: ONNX Runtime lets go of a weight of its own once it has packed it for its
//! kernels, while one that is given stays where it is.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use vesta_ffi::{OnnxRuntime, OnnxRuntimeError, OnnxSession, OnnxValue};
use vesta_model::{AlignedBytes, Memory as _};
use vesta_protos::onnx::tensor_proto::DataLocation;
use vesta_protos::onnx::{ModelProto, StringStringEntryProto, TensorProto};

use super::values::from_onnx;

/// The largest model that can be written whole.
const MODEL_BYTES_MAX: usize = i32::MAX as usize;

/// Weights from this size may be given apart. Smaller ones are looked into by ONNX Runtime as it
/// reads the graph, for they may be sizes.
const APART_BYTES_MIN: usize = 64 * 1024;

/// Which weights: where their bytes lie, and what they are.
type Key = (usize, usize, i32, Vec<i64>);

/// The weights of the signatures of one version, while they are loaded.
#[derive(Default)]
pub(super) struct Weights {
    /// How many models have them. Their bytes are kept, so that no others come to lie there.
    seen: HashMap<Key, (usize, Bytes)>,
    /// Those that were given.
    given: HashMap<Key, Arc<dyn AsRef<[u8]> + Send + Sync>>,
}

/// Weights that lie as kernels expect it.
struct Aligned(AlignedBytes);

impl AsRef<[u8]> for Aligned {
    fn as_ref(&self) -> &[u8] {
        self.0.bytes()
    }
}

impl Weights {
    /// Learns which weights a model has.
    pub(super) fn see(&mut self, model: &ModelProto) {
        for tensor in model.graph.iter().flat_map(|graph| &graph.initializer) {
            if let Some(key) = key(tensor) {
                self.seen.entry(key).or_insert_with(|| (0, tensor.raw_data.clone())).0 += 1;
            }
        }
    }

    /// Makes a session of a model that was seen.
    ///
    /// # Errors
    /// What ONNX Runtime says.
    pub(super) fn open(
        &mut self,
        library: &'static OnnxRuntime,
        mut model: ModelProto,
        threads: usize,
    ) -> Result<OnnxSession, OnnxRuntimeError> {
        let is_large = model.encoded_len() > MODEL_BYTES_MAX;
        let mut apart: Vec<(CString, OnnxValue)> = Vec::new();
        for tensor in model.graph.iter_mut().flat_map(|graph| &mut graph.initializer) {
            let Some(key) = key(tensor) else { continue };
            let is_shared = self.seen.get(&key).is_some_and(|(models, _)| *models > 1);
            if let (true, Ok(name)) = (is_large || is_shared, CString::new(tensor.name.as_str())) {
                let bytes = self.given.entry(key).or_insert_with(|| aligned(&tensor.raw_data));
                let (element, bytes) = (tensor.data_type, Arc::clone(bytes));
                apart.push((name, OnnxValue::over(library, element, &tensor.dims, bytes)?));
                declare_apart(tensor);
            }
        }
        if model.encoded_len() > MODEL_BYTES_MAX {
            return Err(OnnxRuntimeError {
                code: OnnxRuntimeError::NOT_IMPLEMENTED,
                message: "the model takes more than 2 GB without the weights of its graph"
                    .to_owned(),
            });
        }
        let apart: Vec<(&CStr, &OnnxValue)> =
            apart.iter().map(|(name, value)| (name.as_c_str(), value)).collect();
        OnnxSession::load(library, &model.encode_to_vec(), &apart, threads.max(1))
    }
}

/// What weights are told apart by; `None` for those that are never given apart.
fn key(tensor: &TensorProto) -> Option<Key> {
    let bytes = &tensor.raw_data;
    let has_width = from_onnx(tensor.data_type).is_some_and(|dtype| dtype.width().is_some());
    (bytes.len() >= APART_BYTES_MIN && has_width)
        .then(|| (bytes.as_ptr().addr(), bytes.len(), tensor.data_type, tensor.dims.clone()))
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

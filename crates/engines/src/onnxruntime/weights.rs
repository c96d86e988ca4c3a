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
use sha2::{Digest as _, Sha256};
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

/// Which weights: a digest of their bytes, for a translation may have made them anew, and what they are.
type Key = ([u8; 32], i32, Vec<i64>);

/// The weights of the signatures of one version, while they are loaded.
#[derive(Default)]
pub(super) struct Weights {
    /// How many models have them.
    seen: HashMap<Key, usize>,
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
    /// Learns which weights a model has. One model alone need not be seen.
    pub(super) fn see(&mut self, model: &ModelProto) {
        for tensor in model.graph.iter().flat_map(|graph| &graph.initializer) {
            if may_stand_apart(tensor) {
                *self.seen.entry(key(tensor)).or_default() += 1;
            }
        }
    }

    /// Makes a session of a model.
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
            if !may_stand_apart(tensor) {
                continue;
            }
            // The digest of a model that stands alone is of no use.
            let shared = if self.seen.is_empty() { None } else { Some(key(tensor)) }
                .filter(|key| self.seen.get(key).is_some_and(|models| *models > 1));
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
            apart.push((name, OnnxValue::over(library, tensor.data_type, &tensor.dims, bytes)?));
            declare_apart(tensor);
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

/// Whether weights may be given apart.
fn may_stand_apart(tensor: &TensorProto) -> bool {
    let has_width = from_onnx(tensor.data_type).is_some_and(|dtype| dtype.width().is_some());
    has_width && tensor.raw_data.len() >= APART_BYTES_MIN
}

/// What weights are told apart by.
fn key(tensor: &TensorProto) -> Key {
    (Sha256::digest(&tensor.raw_data).into(), tensor.data_type, tensor.dims.clone())
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
    use vesta_protos::onnx::GraphProto;

    fn model(weights: &[Vec<u8>]) -> ModelProto {
        let tensor = |(at, bytes): (usize, &Vec<u8>)| TensorProto {
            name: format!("w{at}"),
            data_type: 1,
            dims: vec![i64::try_from(bytes.len() / 4).unwrap()],
            raw_data: bytes.clone().into(),
            ..TensorProto::default()
        };
        let initializer = weights.iter().enumerate().map(tensor).collect();
        let graph = GraphProto { initializer, ..GraphProto::default() };
        ModelProto { graph: Some(graph), ..ModelProto::default() }
    }

    #[test]
    fn weights_are_the_same_when_their_numbers_are() {
        assert_eq!(from_onnx(1), Some(DType::F32));
        let (kernel, other) = (vec![1; APART_BYTES_MIN], vec![2; APART_BYTES_MIN]);
        let mut weights = Weights::default();
        // Each translation turns a kernel into bytes of its own.
        weights.see(&model(&[kernel.clone(), vec![1; 8]]));
        weights.see(&model(&[other, kernel]));
        let mut models: Vec<usize> = weights.seen.into_values().collect();
        models.sort_unstable();
        assert_eq!(models, [1, 2]);
    }
}

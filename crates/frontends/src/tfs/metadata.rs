//! What a version can do, as TensorFlow's messages say it.
//!
//! Owns: signatures to `SignatureDef`, default values included. Knows neither JSON nor gRPC.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use vesta_model::{DType, Encoding, PartialShape, Signature, Tensor, TensorSpec};
use vesta_protos::tensorflow::serving::SignatureDefMap;
use vesta_protos::tensorflow::tensor_info::{self, CooSparse};
use vesta_protos::tensorflow::tensor_shape_proto::Dim;
use vesta_protos::tensorflow::{DataType, SignatureDef, TensorInfo, TensorProto, TensorShapeProto};

/// All signatures as one message, the one that both wires carry.
pub(crate) fn signature_def_map(signatures: &BTreeMap<String, Arc<Signature>>) -> SignatureDefMap {
    SignatureDefMap {
        signature_def: signatures
            .iter()
            .map(|(name, signature)| (name.clone(), signature_def(signature)))
            .collect(),
    }
}

/// One signature as a message.
pub(crate) fn signature_def(signature: &Signature) -> SignatureDef {
    let infos = |specs: &[TensorSpec]| {
        specs.iter().map(|spec| (spec.alias.clone(), tensor_info(spec))).collect()
    };
    let defaults = signature.inputs.iter().filter_map(|spec| {
        let tensor = spec.default.as_ref()?;
        Some((spec.alias.clone(), tensor_proto(tensor)))
    });
    SignatureDef {
        inputs: infos(&signature.inputs),
        outputs: infos(&signature.outputs),
        method_name: signature.method.clone(),
        defaults: defaults.collect(),
    }
}

/// The number of a declared dtype, references to variables told apart.
fn dtype_number(spec: &TensorSpec) -> i32 {
    let offset = if spec.is_reference { DType::REFERENCE_OFFSET } else { 0 };
    spec.dtype.number() + offset
}

/// The name of a declared dtype in capitals, such as `DT_FLOAT`.
pub(crate) fn dtype_name(spec: &TensorSpec) -> &'static str {
    data_type_name(dtype_number(spec))
}

/// The name of a dtype by its number, such as `DT_FLOAT`.
pub(crate) fn data_type_name(number: i32) -> &'static str {
    DataType::try_from(number).map_or("DT_INVALID", |dtype| dtype.as_str_name())
}

fn tensor_info(spec: &TensorSpec) -> TensorInfo {
    let encoding = match &spec.encoding {
        Encoding::Dense(name) => Some(tensor_info::Encoding::Name(name.clone())),
        Encoding::CooSparse { values, indices, dense_shape } => {
            Some(tensor_info::Encoding::CooSparse(CooSparse {
                values_tensor_name: values.clone(),
                indices_tensor_name: indices.clone(),
                dense_shape_tensor_name: dense_shape.clone(),
            }))
        }
        Encoding::Composite => None,
    };
    TensorInfo {
        encoding,
        dtype: dtype_number(spec),
        tensor_shape: Some(partial_shape(&spec.shape)),
    }
}

fn partial_shape(shape: &PartialShape) -> TensorShapeProto {
    match shape {
        PartialShape::Unknown => TensorShapeProto { unknown_rank: true, ..Default::default() },
        PartialShape::Ranked(dims) => TensorShapeProto {
            dim: dims.iter().map(|dim| self::dim(dim.map_or(-1, to_i64))).collect(),
            ..Default::default()
        },
    }
}

fn to_i64(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

fn dim(size: i64) -> Dim {
    Dim { size, ..Default::default() }
}

/// A default value as TensorFlow's Python writes constants: strings as strings, a lone element in
/// the field of its type, more as bytes.
fn tensor_proto(tensor: &Tensor) -> TensorProto {
    let mut proto = TensorProto {
        dtype: tensor.dtype().number(),
        tensor_shape: Some(TensorShapeProto {
            dim: tensor.shape().dims().iter().map(|&size| dim(to_i64(size))).collect(),
            ..Default::default()
        }),
        ..Default::default()
    };
    if let Some(strings) = tensor.strings() {
        proto.string_val = strings.iter().map(Bytes::copy_from_slice).collect();
        return proto;
    }
    match (tensor.dtype(), tensor.shape().elements()) {
        (DType::F32, 1) => proto.float_val = tensor.to_vec().unwrap_or_default(),
        (DType::F64, 1) => proto.double_val = tensor.to_vec().unwrap_or_default(),
        (DType::I32, 1) => proto.int_val = tensor.to_vec().unwrap_or_default(),
        (DType::I64, 1) => proto.int64_val = tensor.to_vec().unwrap_or_default(),
        (DType::Bool, 1) => proto.bool_val = tensor.bytes().iter().map(|&byte| byte != 0).collect(),
        _ => proto.tensor_content = Bytes::copy_from_slice(tensor.bytes()),
    }
    proto
}

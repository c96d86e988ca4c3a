//! SavedModels written by hand, for what no recorded model has.

use std::collections::BTreeMap;
use std::path::Path;

use prost::Message;
use vesta_model::DType;
use vesta_protos::tensorflow::attr_value::Value;
use vesta_protos::tensorflow::meta_graph_def::MetaInfoDef;
use vesta_protos::tensorflow::tensor_info::Encoding;
use vesta_protos::tensorflow::tensor_shape_proto::Dim;
use vesta_protos::tensorflow::{
    AttrValue, GraphDef, MetaGraphDef, NodeDef, SavedModel, SignatureDef, TensorInfo, TensorProto,
    TensorShapeProto,
};

/// One attribute.
pub(crate) fn attribute(name: &str, value: Value) -> (String, AttrValue) {
    (name.to_owned(), AttrValue { value: Some(value) })
}

/// A node whose attribute `T` is `dtype`.
pub(crate) fn node(op: &str, name: &str, inputs: &[&str], dtype: DType) -> NodeDef {
    let key = if matches!(op, "Placeholder" | "Const") { "dtype" } else { "T" };
    NodeDef {
        name: name.to_owned(),
        op: op.to_owned(),
        input: inputs.iter().map(|&input| input.to_owned()).collect(),
        attr: BTreeMap::from([attribute(key, Value::Type(dtype.number()))]),
        ..NodeDef::default()
    }
}

/// The same node with one more attribute.
pub(crate) fn with(mut node: NodeDef, name: &str, value: Value) -> NodeDef {
    node.attr.extend([attribute(name, value)]);
    node
}

/// Sizes, -1 for open ones.
pub(crate) fn shape(dims: &[i64]) -> TensorShapeProto {
    let dim = dims.iter().map(|&size| Dim { size, ..Dim::default() }).collect();
    TensorShapeProto { dim, unknown_rank: false }
}

/// A constant of floats.
pub(crate) fn floats(name: &str, dims: &[i64], values: &[f32]) -> NodeDef {
    let content: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let tensor = TensorProto {
        dtype: DType::F32.number(),
        tensor_shape: Some(shape(dims)),
        tensor_content: content.into(),
        ..TensorProto::default()
    };
    with(node("Const", name, &[], DType::F32), "value", Value::Tensor(Box::new(tensor)))
}

/// A constant of int32.
pub(crate) fn integers(name: &str, dims: &[i64], values: &[i32]) -> NodeDef {
    let tensor = TensorProto {
        dtype: DType::I32.number(),
        tensor_shape: Some(shape(dims)),
        int_val: values.to_vec(),
        ..TensorProto::default()
    };
    with(node("Const", name, &[], DType::I32), "value", Value::Tensor(Box::new(tensor)))
}

/// A named input or output: alias, tensor, dtype, sizes.
pub(crate) type Named<'a> = (&'a str, &'a str, DType, &'a [i64]);

fn infos(named: &[Named<'_>]) -> BTreeMap<String, TensorInfo> {
    named
        .iter()
        .map(|(alias, tensor, dtype, dims)| {
            let info = TensorInfo {
                dtype: dtype.number(),
                tensor_shape: Some(shape(dims)),
                encoding: Some(Encoding::Name((*tensor).to_owned())),
            };
            ((*alias).to_owned(), info)
        })
        .collect()
}

/// A signature of these inputs and outputs.
pub(crate) fn signature(inputs: &[Named<'_>], outputs: &[Named<'_>]) -> SignatureDef {
    SignatureDef {
        inputs: infos(inputs),
        outputs: infos(outputs),
        method_name: "tensorflow/serving/predict".to_owned(),
        ..SignatureDef::default()
    }
}

/// Writes a SavedModel into `folder`.
pub(crate) fn write(folder: &Path, nodes: Vec<NodeDef>, signatures: &[(&str, SignatureDef)]) {
    let graph = MetaGraphDef {
        meta_info_def: Some(MetaInfoDef {
            tags: vec!["serve".to_owned()],
            ..MetaInfoDef::default()
        }),
        graph_def: Some(GraphDef { node: nodes, ..GraphDef::default() }),
        signature_def: signatures
            .iter()
            .map(|(name, signature)| ((*name).to_owned(), signature.clone()))
            .collect(),
        ..MetaGraphDef::default()
    };
    let model = SavedModel { saved_model_schema_version: 1, meta_graphs: vec![graph] };
    std::fs::write(folder.join("saved_model.pb"), model.encode_to_vec()).unwrap();
}

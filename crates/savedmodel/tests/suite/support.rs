//! Graphs written by hand, saved to a directory and opened.

use std::collections::BTreeMap;

use prost::Message as _;
use tempfile::TempDir;
use vesta_model::Status;
use vesta_protos::tensorflow::attr_value::{ListValue, Value};
use vesta_protos::tensorflow::meta_graph_def::MetaInfoDef;
use vesta_protos::tensorflow::op_def::ArgDef;
use vesta_protos::tensorflow::{
    self as tf, AttrValue, FunctionDef, GraphDef, MetaGraphDef, NameAttrList, NodeDef, OpDef,
    SignatureDef, TensorInfo, TensorProto, TensorShapeProto, tensor_info,
};
use vesta_savedmodel::SavedModel;

pub(crate) const F32: i32 = 1;

pub(crate) fn attr(value: Value) -> AttrValue {
    AttrValue { value: Some(value) }
}

pub(crate) fn types(types: &[i32]) -> Value {
    Value::List(Box::new(ListValue { r#type: types.to_vec(), ..ListValue::default() }))
}

pub(crate) fn function_name(name: &str) -> Value {
    Value::Func(NameAttrList { name: name.to_owned(), attr: BTreeMap::new() })
}

pub(crate) fn node(name: &str, op: &str, inputs: &[&str]) -> NodeDef {
    NodeDef {
        name: name.to_owned(),
        op: op.to_owned(),
        input: inputs.iter().map(|&input| input.to_owned()).collect(),
        ..NodeDef::default()
    }
}

pub(crate) fn with(mut node: NodeDef, key: &str, value: Value) -> NodeDef {
    node.attr.insert(key.to_owned(), attr(value));
    node
}

pub(crate) fn placeholder(name: &str) -> NodeDef {
    with(node(name, "Placeholder", &[]), "dtype", Value::Type(F32))
}

pub(crate) fn constant(name: &str, tensor: TensorProto) -> NodeDef {
    let node = with(node(name, "Const", &[]), "dtype", Value::Type(tensor.dtype));
    with(node, "value", Value::Tensor(Box::new(tensor)))
}

pub(crate) fn float(value: f32) -> TensorProto {
    TensorProto {
        dtype: F32,
        tensor_shape: Some(TensorShapeProto::default()),
        float_val: vec![value],
        ..TensorProto::default()
    }
}

pub(crate) fn boolean(value: bool) -> TensorProto {
    TensorProto { dtype: 10, bool_val: vec![value], ..TensorProto::default() }
}

/// A call of `function` with one output.
pub(crate) fn call(name: &str, function: &str, inputs: &[&str]) -> NodeDef {
    let node = with(node(name, "StatefulPartitionedCall", inputs), "f", function_name(function));
    with(node, "Tout", types(&[F32]))
}

pub(crate) fn arg(name: &str) -> ArgDef {
    ArgDef { name: name.to_owned(), r#type: F32, ..ArgDef::default() }
}

/// A function of one-tensor arguments; `returns` pairs outputs with what they return.
pub(crate) fn function(
    name: &str,
    args: &[&str],
    returns: &[(&str, &str)],
    nodes: Vec<NodeDef>,
) -> FunctionDef {
    FunctionDef {
        signature: Some(OpDef {
            name: name.to_owned(),
            input_arg: args.iter().map(|name| arg(name)).collect(),
            output_arg: returns.iter().map(|(name, _)| arg(name)).collect(),
            ..OpDef::default()
        }),
        node_def: nodes,
        ret: returns.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect(),
        ..FunctionDef::default()
    }
}

/// A model under construction.
#[derive(Default)]
pub(crate) struct Model {
    pub(crate) meta: MetaGraphDef,
}

impl Model {
    pub(crate) fn new(nodes: Vec<NodeDef>, functions: Vec<FunctionDef>) -> Model {
        let library = tf::FunctionDefLibrary { function: functions, ..Default::default() };
        let graph = GraphDef { node: nodes, library: Some(library), ..GraphDef::default() };
        let info = MetaInfoDef { tags: vec!["serve".to_owned()], ..MetaInfoDef::default() };
        Model {
            meta: MetaGraphDef {
                meta_info_def: Some(info),
                graph_def: Some(graph),
                ..MetaGraphDef::default()
            },
        }
    }

    /// Adds a signature of float tensors.
    pub(crate) fn signature(mut self, name: &str, inputs: &[&str], outputs: &[&str]) -> Model {
        let infos = |names: &[&str]| {
            let info = |name: &&str| {
                let encoding = Some(tensor_info::Encoding::Name((*name).to_owned()));
                let info = TensorInfo { encoding, dtype: F32, ..TensorInfo::default() };
                ((*name).to_owned(), info)
            };
            names.iter().map(info).collect()
        };
        let def = SignatureDef {
            inputs: infos(inputs),
            outputs: infos(outputs),
            ..SignatureDef::default()
        };
        self.meta.signature_def.insert(name.to_owned(), def);
        self
    }

    pub(crate) fn open(&self) -> Result<SavedModel, Status> {
        let saved =
            tf::SavedModel { saved_model_schema_version: 1, meta_graphs: vec![self.meta.clone()] };
        open_bytes(&saved.encode_to_vec())
    }
}

/// Opens a model whose `saved_model.pb` is `bytes`. What it needs is read before the directory goes.
pub(crate) fn open_bytes(bytes: &[u8]) -> Result<SavedModel, Status> {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("saved_model.pb"), bytes).unwrap();
    SavedModel::open(dir.path(), &["serve".to_owned()])
}

/// Nodes as `name op input input`, one a line.
pub(crate) fn lines(nodes: &[NodeDef]) -> Vec<String> {
    nodes
        .iter()
        .map(|node| {
            format!("{} {} {}", node.name, node.op, node.input.join(" ")).trim_end().to_owned()
        })
        .collect()
}

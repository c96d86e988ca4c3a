//! Puts the ONNX model together: outputs under their names, what nobody reads left out.
//!
//! Invariant: the model has one output for each fetch, each given by a node of its own.

use std::collections::{BTreeMap, HashMap, HashSet};

use vesta_model::DType;
use vesta_protos::onnx;
use vesta_protos::onnx::attribute_proto::AttributeType;
use vesta_protos::onnx::tensor_shape_proto::{Dimension, dimension};

use crate::constant::onnx_number;
use crate::errors;
use crate::graph::{Attr, Graph, Node, Subgraph};
use crate::signature::{FrozenSignature, canonical};
use crate::translate::{Translation, operator_uses, value_facts};
use crate::value::{Dim, Dims, ValueId};

/// The operator set of every model that is written. See docs/adr/0002-translation-to-onnx.md.
pub const OPSET: i64 = 18;

/// The file format version that this operator set came with.
const IR_VERSION: i64 = 8;

/// Finishes a graph whose fetches are `fetched`.
pub(crate) fn assemble(
    mut graph: Graph,
    signature: &FrozenSignature<'_>,
    fetched: &[ValueId],
) -> Translation {
    let inputs: Vec<String> = signature.feeds.iter().map(|f| canonical(&f.tensor)).collect();
    let outputs = name_outputs(&mut graph, signature, fetched);
    drop_unread(&mut graph, &outputs);
    let declare = |names: &[String]| -> Vec<onnx::ValueInfoProto> {
        names.iter().map(|name| value_info(&graph, name)).collect()
    };
    let proto = onnx::GraphProto {
        name: "vesta".into(),
        input: declare(&inputs),
        output: declare(&outputs),
        initializer: graph.initializers.iter().map(|(n, c)| c.to_onnx(n)).collect(),
        node: graph.nodes.iter().map(|node| node_proto(&graph, node)).collect(),
        ..Default::default()
    };
    let model = onnx::ModelProto {
        ir_version: IR_VERSION,
        producer_name: "vesta".into(),
        opset_import: vec![onnx::OperatorSetIdProto { domain: String::new(), version: OPSET }],
        graph: Some(proto),
        ..Default::default()
    };
    let operators = operator_uses(&graph);
    let mut values = value_facts(&graph);
    for name in &inputs {
        values.entry(name.clone()).or_insert_with(|| crate::translate::ValueFacts {
            dtype: graph.facts.get(name).map_or(DType::Invalid, |fact| fact.0),
            shape: crate::value::to_partial(&graph.facts.get(name).and_then(|f| f.1.clone())),
            is_constant: false,
        });
    }
    Translation { model, inputs, outputs, operators, values }
}

/// Gives each fetched value the name of its fetch; adds an `Identity` where the value cannot be
/// renamed (it is fed, constant, or fetched twice).
fn name_outputs(
    graph: &mut Graph,
    signature: &FrozenSignature<'_>,
    fetched: &[ValueId],
) -> Vec<String> {
    let mut renamed: HashMap<String, String> = HashMap::new();
    let mut taken: HashSet<String> =
        signature.feeds.iter().map(|feed| canonical(&feed.tensor)).collect();
    let mut outputs = Vec::new();
    for (fetch, &id) in signature.fetches.iter().zip(fetched) {
        let held = graph.plain(id);
        let mut name = canonical(fetch);
        let mut copies = 0;
        while !taken.insert(name.clone()) {
            copies += 1;
            name = format!("{}/output_{copies}", canonical(fetch));
        }
        let given_by_node = graph.nodes.iter().any(|node| node.outputs.contains(&held));
        if given_by_node && !renamed.contains_key(&held) {
            renamed.insert(held, name.clone());
        } else {
            let (dtype, dims) = graph.facts.get(&held).cloned().unwrap_or((DType::Invalid, None));
            let copy = graph.emit("Identity", &[&held], vec![], dtype, dims);
            renamed.insert(copy, name.clone());
        }
        outputs.push(name);
    }
    graph.nodes.iter_mut().for_each(|node| rename(node, &renamed));
    for (old, new) in renamed {
        if let Some(fact) = graph.facts.remove(&old) {
            graph.facts.insert(new, fact);
        }
    }
    outputs
}

/// Gives values their new names, in the graphs within a node, too.
fn rename(node: &mut Node, renamed: &HashMap<String, String>) {
    for name in node.inputs.iter_mut().chain(&mut node.outputs) {
        if let Some(new) = renamed.get(name) {
            name.clone_from(new);
        }
    }
    for inner in node.subgraphs_mut().flat_map(|graph| &mut graph.nodes) {
        rename(inner, renamed);
    }
}

/// Leaves out nodes and initializers that no output depends on.
fn drop_unread(graph: &mut Graph, outputs: &[String]) {
    let mut read: HashSet<String> = outputs.iter().cloned().collect();
    graph.nodes = live(std::mem::take(&mut graph.nodes), &mut read);
    graph.initializers.retain(|name, _| read.contains(name));
}

/// The nodes that give something of `read`, which grows by what they read themselves.
fn live(nodes: Vec<Node>, read: &mut HashSet<String>) -> Vec<Node> {
    let mut kept: Vec<Node> = Vec::new();
    for mut node in nodes.into_iter().rev() {
        if !node.outputs.iter().any(|name| read.contains(name)) {
            continue;
        }
        read.extend(node.inputs.iter().cloned());
        for inner in node.subgraphs_mut() {
            read.extend(inner.outputs.iter().cloned());
            inner.nodes = live(std::mem::take(&mut inner.nodes), read);
        }
        kept.push(node);
    }
    kept.reverse();
    kept
}

fn value_info(graph: &Graph, name: &str) -> onnx::ValueInfoProto {
    let (dtype, dims) = graph.facts.get(name).cloned().unwrap_or((DType::Invalid, None));
    let tensor = onnx::type_proto::Tensor {
        elem_type: onnx_number(dtype).unwrap_or(0),
        shape: shape_proto(&dims),
    };
    onnx::ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(onnx::TypeProto {
            value: Some(onnx::type_proto::Value::TensorType(tensor)),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn shape_proto(dims: &Dims) -> Option<onnx::TensorShapeProto> {
    let dim = dims
        .as_ref()?
        .iter()
        .map(|dim| Dimension {
            value: Some(match dim {
                Dim::Known(n) => dimension::Value::DimValue(*n as i64),
                Dim::Symbol(symbol) => dimension::Value::DimParam(format!("d{symbol}")),
            }),
            ..Default::default()
        })
        .collect();
    Some(onnx::TensorShapeProto { dim })
}

/// The graph of a branch or loop. Sizes that are not known are left out: they may be others in each
/// round.
fn subgraph_proto(graph: &Graph, name: &str, inner: &Subgraph) -> onnx::GraphProto {
    let declare = |names: &[String]| -> Vec<onnx::ValueInfoProto> {
        let without_symbols = |name: &String| {
            let mut info = value_info(graph, name);
            if let Some(onnx::type_proto::Value::TensorType(tensor)) =
                info.r#type.as_mut().and_then(|kind| kind.value.as_mut())
                && let Some(shape) = &mut tensor.shape
            {
                for dim in &mut shape.dim {
                    dim.value.take_if(|value| matches!(value, dimension::Value::DimParam(_)));
                }
            }
            info
        };
        names.iter().map(without_symbols).collect()
    };
    onnx::GraphProto {
        name: name.to_owned(),
        input: declare(&inner.inputs),
        output: declare(&inner.outputs),
        node: inner.nodes.iter().map(|node| node_proto(graph, node)).collect(),
        ..Default::default()
    }
}

/// The first result's name is unique, so it names the node too; engines tell the name of the node at
/// which a run ended, so what that means stands before it.
fn node_name(node: &Node) -> String {
    let result = node.outputs.first().cloned().unwrap_or_default();
    match &node.error {
        Some(error) => errors::within_name(error, &node.origin, &result),
        None => result,
    }
}

fn node_proto(graph: &Graph, node: &Node) -> onnx::NodeProto {
    onnx::NodeProto {
        name: node_name(node),
        op_type: node.op.to_owned(),
        input: node.inputs.clone(),
        output: node.outputs.clone(),
        attribute: node
            .attributes
            .iter()
            .map(|(name, value)| attribute(graph, &node.origin, name, value))
            .collect(),
        ..Default::default()
    }
}

fn attribute(graph: &Graph, origin: &str, name: &str, value: &Attr) -> onnx::AttributeProto {
    let mut proto = onnx::AttributeProto { name: name.to_owned(), ..Default::default() };
    let kind = match value {
        Attr::Int(value) => {
            proto.i = Some(*value);
            AttributeType::Int
        }
        Attr::Float(value) => {
            proto.f = Some(*value);
            AttributeType::Float
        }
        Attr::Text(value) => {
            proto.s = Some(value.as_bytes().to_vec());
            AttributeType::String
        }
        Attr::Equation(value) => {
            proto.s = Some(value.clone().into_bytes());
            AttributeType::String
        }
        Attr::Ints(values) => {
            proto.ints.clone_from(values);
            AttributeType::Ints
        }
        Attr::Graph(inner) => {
            proto.g = Some(subgraph_proto(graph, &format!("{origin}/{name}"), inner));
            AttributeType::Graph
        }
    };
    proto.r#type = kind as i32;
    proto
}

/// How often each operator stands in a model; what a person wants to see of it.
pub fn count_operators(model: &onnx::ModelProto) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    let mut open: Vec<&onnx::GraphProto> = model.graph.iter().collect();
    while let Some(graph) = open.pop() {
        for node in &graph.node {
            *counts.entry(node.op_type.as_str()).or_default() += 1;
            open.extend(node.attribute.iter().filter_map(|attribute| attribute.g.as_ref()));
        }
    }
    counts
}

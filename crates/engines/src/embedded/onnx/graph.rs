//! The graph of an ONNX file while it is written anew: what is known of its values, and what was
//! written.
//!
//! May not know: what an operator means. Invariant: every value that is known here is of floats with a
//! known rank, or a constant; what stands behind a refused node is not refused for it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use vesta_model::{DType, PartialShape};
use vesta_onnx::{OPSET, Refusal, Translation, ValueFacts};
use vesta_protos::onnx::attribute_proto::AttributeType;
use vesta_protos::onnx::tensor_shape_proto::{Dimension, dimension};
use vesta_protos::onnx::type_proto::{self, Value as Kind};
use vesta_protos::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto,
};

use super::forms;
use crate::embedded::merge::Boundary;

/// ONNX's numbers of two dtypes.
pub(super) const FLOAT: i32 = 1;
pub(super) const INT64: i32 = 7;

/// The sets of operators that are read. Before the first, operators broadcast in another way.
const OPSETS: std::ops::RangeInclusive<i64> = 7..=21;

/// The version of the format that is written.
const IR_VERSION: i64 = 8;

/// Sizes, open ones as `None`.
pub(super) type Dims = Vec<Option<usize>>;

/// An attribute's value, as it is written.
pub(super) enum Written {
    Int(i64),
    Float(f32),
    Ints(Vec<i64>),
}

/// What is known, and what was written.
pub(super) struct Graph {
    pub(super) opset: i64,
    shapes: BTreeMap<String, Dims>,
    constants: BTreeMap<String, TensorProto>,
    /// Outputs of refused nodes.
    unknown: BTreeSet<String>,
    nodes: Vec<NodeProto>,
    made: usize,
}

/// Writes the graph of a file anew.
///
/// # Errors
/// Every node that has no form that is known to be right.
pub(super) fn rewrite(
    model: ModelProto,
    feeds: &[Boundary],
    fetches: &[Boundary],
) -> Result<Translation, Vec<Refusal>> {
    let refuse = |op: &str, node: &str, reason: String| Refusal {
        op: op.to_owned(),
        node: node.to_owned(),
        reason,
    };
    let opset = model.opset_import.iter().find(|set| matches!(&*set.domain, "" | "ai.onnx"));
    let opset = opset.map_or(1, |set| set.version);
    if !OPSETS.contains(&opset) {
        let reason = format!("versions {} to {} are read", OPSETS.start(), OPSETS.end());
        return Err(vec![refuse(&format!("operators of version {opset}"), "the file", reason)]);
    }
    let from = model.graph.unwrap_or_default();
    let mut graph = Graph::new(opset, feeds);
    let mut refused = Vec::new();
    if !from.sparse_initializer.is_empty() {
        refused.push(refuse("sparse constants", "the file", "they are not read".to_owned()));
    }
    for tensor in from.initializer {
        graph.add_constant(tensor);
    }
    for node in from.node {
        let inputs = node.input.iter().filter(|input| !input.is_empty());
        let name = node.output.first().filter(|_| node.name.is_empty()).unwrap_or(&node.name);
        let outcome = if !matches!(&*node.domain, "" | "ai.onnx") {
            Err(format!("it is of {}", node.domain))
        } else if !forms::known().any(|op| op == node.op_type) {
            Err("no form of it was held to ONNX Runtime".to_owned())
        } else if inputs.clone().any(|input| graph.unknown.contains(input)) {
            graph.unknown.extend(node.output.iter().cloned());
            continue;
        } else {
            forms::write(&mut graph, &node)
        };
        if let Err(reason) = outcome {
            refused.push(refuse(&node.op_type, name, reason));
            graph.unknown.extend(node.output.iter().cloned());
        }
    }
    for fetch in fetches {
        let is_made = graph.nodes.iter().any(|node| node.output.contains(&fetch.tensor));
        if refused.is_empty() && !(is_made && fetch.dtype == DType::F32) {
            let reason = "it is no float that a node computes".to_owned();
            refused.push(refuse("output", &fetch.tensor, reason));
        }
    }
    if refused.is_empty() { Ok(graph.finish(feeds, fetches)) } else { Err(refused) }
}

impl Graph {
    fn new(opset: i64, feeds: &[Boundary]) -> Graph {
        let dims = |feed: &Boundary| match &feed.shape {
            PartialShape::Ranked(dims) => dims.clone(),
            PartialShape::Unknown => Vec::new(),
        };
        Graph {
            opset,
            shapes: feeds.iter().map(|feed| (feed.tensor.clone(), dims(feed))).collect(),
            constants: BTreeMap::new(),
            unknown: BTreeSet::new(),
            nodes: Vec::new(),
            made: 0,
        }
    }

    /// Whether a value of this name is known.
    pub(super) fn has(&self, name: &str) -> bool {
        self.constants.contains_key(name) || self.shapes.contains_key(name)
    }

    /// The sizes of an input, constant or not.
    pub(super) fn dims(&self, node: &NodeProto, at: usize) -> Result<Dims, String> {
        let name = input(node, at).ok_or_else(|| format!("it lacks input {at}"))?;
        let float = |tensor: &&TensorProto| tensor.data_type == FLOAT;
        let of_constant = self.constants.get(name).filter(float).map(constant_dims);
        let known = of_constant.or_else(|| self.shapes.get(name).cloned());
        known.ok_or_else(|| format!("its input {name} is no float that is known by then"))
    }

    /// A float constant among the inputs.
    pub(super) fn floats(&self, node: &NodeProto, at: usize) -> Result<Vec<f32>, String> {
        let tensor = self.constant(node, at, FLOAT)?;
        let (words, _) = tensor.raw_data.as_chunks::<4>();
        Ok(words.iter().map(|&word| f32::from_le_bytes(word)).collect())
    }

    /// An int64 constant among the inputs.
    pub(super) fn integers(&self, node: &NodeProto, at: usize) -> Result<Vec<i64>, String> {
        let tensor = self.constant(node, at, INT64)?;
        let (words, _) = tensor.raw_data.as_chunks::<8>();
        Ok(words.iter().map(|&word| i64::from_le_bytes(word)).collect())
    }

    fn constant(&self, node: &NodeProto, at: usize, dtype: i32) -> Result<&TensorProto, String> {
        let found = input(node, at).and_then(|name| self.constants.get(name));
        let found = found.filter(|tensor| tensor.data_type == dtype);
        found.ok_or_else(|| format!("its input {at} is computed, or of another dtype"))
    }

    /// Takes a constant of the file. One of another dtype, or one whose bytes do not fit its shape, is
    /// as good as absent: who reads it is refused.
    pub(super) fn add_constant(&mut self, mut tensor: TensorProto) {
        let width = match tensor.data_type {
            FLOAT => {
                let floats = std::mem::take(&mut tensor.float_data);
                if tensor.raw_data.is_empty() && !floats.is_empty() {
                    tensor.raw_data = floats.iter().flat_map(|value| value.to_le_bytes()).collect();
                }
                4
            }
            INT64 => {
                let integers = std::mem::take(&mut tensor.int64_data);
                if tensor.raw_data.is_empty() && !integers.is_empty() {
                    tensor.raw_data =
                        integers.iter().flat_map(|value| value.to_le_bytes()).collect();
                }
                8
            }
            _ => return,
        };
        let sizes = tensor.dims.iter().map(|&dim| usize::try_from(dim).ok());
        let mut bytes = Some(width);
        for size in sizes {
            bytes =
                bytes.zip(size).and_then(|(bytes, size): (usize, usize)| bytes.checked_mul(size));
        }
        if bytes == Some(tensor.raw_data.len()) && !self.shapes.contains_key(&tensor.name) {
            self.constants.insert(tensor.name.clone(), tensor);
        }
    }

    /// A new constant; gives its name.
    pub(super) fn float(&mut self, dims: &[i64], values: &[f32]) -> String {
        self.new_constant(FLOAT, dims, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    /// A new vector of whole numbers; gives its name.
    pub(super) fn ints(&mut self, values: &[i64]) -> String {
        let dims = [i64::try_from(values.len()).unwrap_or(i64::MAX)];
        self.new_constant(INT64, &dims, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    fn new_constant(&mut self, data_type: i32, dims: &[i64], bytes: Vec<u8>) -> String {
        let name = self.new_name("constant");
        let raw_data = Bytes::from(bytes);
        let dims = dims.to_vec();
        let tensor =
            TensorProto { name: name.clone(), data_type, dims, raw_data, ..TensorProto::default() };
        self.constants.insert(name.clone(), tensor);
        name
    }

    /// A name that no file has: a zero byte is refused in those of ends, and other values are not seen.
    pub(super) fn new_name(&mut self, what: &str) -> String {
        self.made += 1;
        format!("\0{what}{}", self.made)
    }

    /// Writes a node whose one output is of these sizes.
    pub(super) fn emit(
        &mut self,
        op: &str,
        inputs: &[&str],
        output: &str,
        attributes: Vec<(&str, Written)>,
        dims: Dims,
    ) -> Result<(), String> {
        if output.is_empty() || self.has(output) {
            return Err(format!("its output `{output}` has the name of another value"));
        }
        self.shapes.insert(output.to_owned(), dims);
        self.nodes.push(NodeProto {
            name: output.to_owned(),
            op_type: op.to_owned(),
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            output: vec![output.to_owned()],
            attribute: attributes.into_iter().map(|(name, value)| attribute(name, value)).collect(),
            ..NodeProto::default()
        });
        Ok(())
    }

    fn finish(self, feeds: &[Boundary], fetches: &[Boundary]) -> Translation {
        let Graph { shapes, mut constants, nodes, .. } = self;
        let read: BTreeSet<&String> = nodes.iter().flat_map(|node| &node.input).collect();
        constants.retain(|name, _| read.contains(name));
        let facts = |dtype, dims: &Dims, is_constant| ValueFacts {
            dtype,
            shape: PartialShape::Ranked(dims.clone()),
            is_constant,
        };
        let mut values: BTreeMap<String, ValueFacts> = shapes
            .iter()
            .map(|(name, dims)| (name.clone(), facts(DType::F32, dims, false)))
            .collect();
        for (name, tensor) in &constants {
            let dtype = if tensor.data_type == FLOAT { DType::F32 } else { DType::I64 };
            values.insert(name.clone(), facts(dtype, &constant_dims(tensor), true));
        }
        let names = |ends: &[Boundary]| ends.iter().map(|end| end.tensor.clone()).collect();
        let (inputs, outputs): (Vec<String>, Vec<String>) = (names(feeds), names(fetches));
        let declare = |names: &[String]| {
            names.iter().map(|name| declared(name, shapes.get(name))).collect::<Vec<_>>()
        };
        let graph = GraphProto {
            name: "file".to_owned(),
            input: declare(&inputs),
            output: declare(&outputs),
            initializer: constants.into_values().collect(),
            node: nodes,
            ..GraphProto::default()
        };
        let model = ModelProto {
            ir_version: IR_VERSION,
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
            graph: Some(graph),
            ..ModelProto::default()
        };
        Translation { model, inputs, outputs, operators: BTreeMap::new(), values }
    }
}

/// An input that is there.
pub(super) fn input(node: &NodeProto, at: usize) -> Option<&str> {
    node.input.get(at).map(String::as_str).filter(|name| !name.is_empty())
}

fn constant_dims(tensor: &TensorProto) -> Dims {
    tensor.dims.iter().map(|&dim| usize::try_from(dim).ok()).collect()
}

fn declared(name: &str, dims: Option<&Dims>) -> ValueInfoProto {
    let dim = |size: &Option<usize>| Dimension {
        value: size.and_then(|size| i64::try_from(size).ok()).map(dimension::Value::DimValue),
        ..Dimension::default()
    };
    let shape = TensorShapeProto { dim: dims.into_iter().flatten().map(dim).collect() };
    let tensor = type_proto::Tensor { elem_type: FLOAT, shape: Some(shape) };
    let r#type = TypeProto { value: Some(Kind::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { name: name.to_owned(), r#type: Some(r#type), ..ValueInfoProto::default() }
}

fn attribute(name: &str, value: Written) -> AttributeProto {
    let mut attribute = AttributeProto { name: name.to_owned(), ..AttributeProto::default() };
    let kind = match value {
        Written::Int(value) => {
            attribute.i = Some(value);
            AttributeType::Int
        }
        Written::Float(value) => {
            attribute.f = Some(value);
            AttributeType::Float
        }
        Written::Ints(values) => {
            attribute.ints = values;
            AttributeType::Ints
        }
    };
    attribute.r#type = kind as i32;
    attribute
}

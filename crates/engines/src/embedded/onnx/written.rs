//! How attributes, values and ends are written down, and how long a run holds each value.
//!
//! May not know: operators.

use std::collections::BTreeMap;

use vesta_model::{DType, PartialShape};
use vesta_onnx::ValueFacts;
use vesta_protos::onnx::attribute_proto::AttributeType;
use vesta_protos::onnx::tensor_shape_proto::{Dimension, dimension};
use vesta_protos::onnx::type_proto::{self, Value as Kind};
use vesta_protos::onnx::{AttributeProto, NodeProto, TensorShapeProto, TypeProto, ValueInfoProto};

use super::computed::Held;
use super::extent::Extent;
use super::facts::{self, FLOAT, Fact};

/// An attribute's value, as it is written.
pub(super) enum Written {
    Int(i64),
    Float(f32),
    Ints(Vec<i64>),
    Text(&'static str),
}

/// Which values there are, from the node that computes each to the last that reads it. Inputs and outputs are
/// held to the end.
pub(super) fn held<'v>(
    facts: &BTreeMap<String, Fact>,
    nodes: &'v [NodeProto],
    mut from: BTreeMap<&'v String, usize>,
    outputs: &'v [String],
) -> Vec<Held> {
    let mut to: BTreeMap<&String, usize> = from.keys().map(|&name| (name, nodes.len())).collect();
    for (at, node) in nodes.iter().enumerate() {
        from.extend(node.output.iter().map(|name| (name, at)));
        to.extend(node.output.iter().map(|name| (name, at)));
        for name in &node.input {
            to.entry(name).and_modify(|last| *last = at.max(*last));
        }
    }
    to.extend(outputs.iter().map(|name| (name, nodes.len())));
    let one = |(name, at): (&String, usize)| {
        let dims = facts.get(name)?.dims.clone();
        Some(Held { dims, from: at, to: to.get(name).copied().unwrap_or(at) })
    };
    from.into_iter().filter_map(one).collect()
}

/// For the table of what the engine computes.
pub(super) fn stated(fact: &Fact, is_constant: bool) -> ValueFacts {
    let dims = fact.dims.iter().map(Extent::size).collect();
    let dtype = if fact.dtype == DType::U8 { DType::I32 } else { fact.dtype };
    ValueFacts { dtype, shape: PartialShape::Ranked(dims), is_constant }
}

/// An input or an output.
pub(super) fn declared(name: &str, fact: Option<&Fact>) -> ValueInfoProto {
    let dim = |size: &Extent| Dimension {
        value: size.known().map(dimension::Value::DimValue),
        ..Dimension::default()
    };
    let dims = fact.iter().flat_map(|fact| &fact.dims).map(dim).collect();
    let shape = TensorShapeProto { dim: dims };
    let elem_type = fact.map_or(FLOAT, |fact| facts::number_of(fact.dtype));
    let tensor = type_proto::Tensor { elem_type, shape: Some(shape) };
    let r#type = TypeProto { value: Some(Kind::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { name: name.to_owned(), r#type: Some(r#type), ..ValueInfoProto::default() }
}

pub(super) fn attribute(name: &str, value: Written) -> AttributeProto {
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
        Written::Text(text) => {
            attribute.s = Some(text.as_bytes().to_vec());
            AttributeType::String
        }
    };
    attribute.r#type = kind as i32;
    attribute
}

//! TF1's TensorArrays as lists of tensors.
//!
//! The flow of an array carries the list, its handle nothing. Invariant: a list grows only where its array may.

use std::collections::BTreeMap;

use vesta_model::{DType, Status};
use vesta_protos::tensorflow::attr_value::Value;
use vesta_protos::tensorflow::{AttrValue, NodeDef, TensorProto};

use crate::graph::split_tensor_name;
use crate::tensor::{shape_to_proto, tensor_from_proto};

/// Whether an operator is one of an array.
pub(crate) fn is_array(op: &str) -> bool {
    op.starts_with("TensorArray")
}

fn refuse<T>(node: &NodeDef, why: &str) -> Result<T, Status> {
    Err(Status::unimplemented(format!("{} at {} {why}", node.op, node.name)))
}

/// The tensors that the list's operator takes, but for shapes.
pub(crate) fn inputs(node: &NodeDef) -> Result<Vec<String>, Status> {
    // The handle comes first and is left out; the flow comes last.
    let order: &[usize] = match node.op.as_str() {
        "TensorArrayV3" => &[0],
        "TensorArrayReadV3" | "TensorArrayGatherV3" => &[2, 1],
        "TensorArrayWriteV3" => &[3, 1, 2],
        "TensorArrayScatterV3" => &[2],
        "TensorArrayConcatV3" | "TensorArraySizeV3" => &[1],
        _ => return refuse(node, "has no form as a list"),
    };
    order
        .iter()
        .map(|&at| node.input.get(at).cloned())
        .collect::<Option<_>>()
        .ok_or_else(|| Status::invalid_argument(format!("`{}` lacks inputs", node.name)))
}

/// What an output of an array's operator is called.
pub(crate) fn output(node: &NodeDef, output: u32) -> Result<String, Status> {
    match (node.op.as_str(), output) {
        ("TensorArrayV3", 1) => Ok(format!("{}:0", node.name)),
        ("TensorArrayConcatV3", 1) => Ok(format!("{}:1", node.name)),
        (op, 0) if op != "TensorArrayV3" => Ok(format!("{}:0", node.name)),
        _ => refuse(node, "is handed on by its handle"),
    }
}

/// The nodes of lists that do what `node` does, with `input` for [`inputs`].
pub(crate) fn listed<'g>(
    node: &NodeDef,
    mut input: Vec<String>,
    of: impl Fn(&str) -> Option<&'g NodeDef>,
) -> Result<Vec<NodeDef>, Status> {
    let attribute = |key: &str| node.attr.get(key).cloned().unwrap_or_default();
    let shape_name = format!("{}/element_shape", node.name);
    let (shape, lengths) = (format!("{shape_name}:0"), format!("{}/lengths", node.name));
    let (op, element) = match node.op.as_str() {
        "TensorArrayV3" => {
            input.insert(0, shape);
            ("TensorListReserve", attribute("dtype"))
        }
        "TensorArrayReadV3" => {
            input.push(shape);
            ("TensorListGetItem", attribute("dtype"))
        }
        "TensorArrayGatherV3" if is_all(node, &of) => {
            input.truncate(1);
            input.push(shape);
            ("TensorListStack", attribute("dtype"))
        }
        "TensorArrayGatherV3" => {
            input.push(shape);
            ("TensorListGather", attribute("dtype"))
        }
        "TensorArrayConcatV3" => {
            input.extend([shape, format!("{lengths}:0")]);
            ("TensorListConcatV2", attribute("dtype"))
        }
        "TensorArrayWriteV3" => ("TensorListSetItem", attribute("T")),
        "TensorArrayScatterV3" => {
            let flow = node.input.get(3).and_then(|flow| of(flow));
            if !counts_up(node, &of) || flow.is_none_or(|flow| flow.op != "TensorArrayV3") {
                return refuse(node, "writes into a part of an array");
            }
            input.push(shape);
            ("TensorListFromTensor", attribute("T"))
        }
        _ => ("TensorListLength", AttrValue::default()),
    };
    let int = AttrValue { value: Some(Value::Type(DType::I32.number())) };
    let mut attr = BTreeMap::from([("element_dtype".to_owned(), element)]);
    attr.insert("shape_type".to_owned(), int.clone());
    if node.op == "TensorArrayWriteV3" {
        let Some(array) = array_of(node, &of) else { return refuse(node, "writes into no array") };
        let grows = AttrValue { value: Some(Value::B(is_dynamic(array))) };
        attr.insert("resize_if_index_out_of_bounds".to_owned(), grows);
    }
    let list =
        NodeDef { name: node.name.clone(), op: op.to_owned(), input, attr, ..NodeDef::default() };
    let unknown = TensorProto {
        dtype: DType::I32.number(),
        tensor_shape: Some(shape_to_proto(&[])),
        int_val: vec![-1],
        ..TensorProto::default()
    };
    let attr = BTreeMap::from([
        ("dtype".to_owned(), int),
        ("value".to_owned(), AttrValue { value: Some(Value::Tensor(Box::new(unknown))) }),
    ]);
    let shape = NodeDef { name: shape_name, op: "Const".to_owned(), attr, ..NodeDef::default() };
    let mut nodes = vec![shape];
    if node.op == "TensorArrayConcatV3" {
        nodes.push(no_lengths(lengths));
    }
    nodes.push(list);
    Ok(nodes)
}

/// Lengths of elements that need none to be told.
fn no_lengths(name: String) -> NodeDef {
    let long = DType::I64.number();
    let none = TensorProto {
        dtype: long,
        tensor_shape: Some(shape_to_proto(&[0])),
        ..TensorProto::default()
    };
    let attr = BTreeMap::from([
        ("dtype".to_owned(), AttrValue { value: Some(Value::Type(long)) }),
        ("value".to_owned(), AttrValue { value: Some(Value::Tensor(Box::new(none))) }),
    ]);
    NodeDef { name, op: "Const".to_owned(), attr, ..NodeDef::default() }
}

/// How far a handle is followed to its array.
const STEPS_MAX: usize = 100;

/// The array whose handle a node is given, through the frames and branches on the way.
fn array_of<'g>(node: &NodeDef, of: &impl Fn(&str) -> Option<&'g NodeDef>) -> Option<&'g NodeDef> {
    let mut from = of(node.input.first()?)?;
    for _ in 0..STEPS_MAX {
        match from.op.as_str() {
            "TensorArrayV3" => return Some(from),
            "Enter" | "Exit" | "Identity" | "Merge" | "Switch" => from = of(from.input.first()?)?,
            _ => return None,
        }
    }
    None
}

fn is_dynamic(array: &NodeDef) -> bool {
    array.attr.get("dynamic_size").is_some_and(|own| own.value == Some(Value::B(true)))
}

/// Whether the indices of a node are 0, 1, 2 and so on.
fn counts_up<'g>(node: &NodeDef, of: &impl Fn(&str) -> Option<&'g NodeDef>) -> bool {
    let Some(range) = node.input.get(1).and_then(|input| of(input)) else { return false };
    let is = |at: usize, wanted: i32| {
        let constant = range.input.get(at).and_then(|input| of(input));
        let value = constant.and_then(|node| match &node.attr.get("value")?.value {
            Some(Value::Tensor(tensor)) => tensor_from_proto(tensor, 8).ok(),
            _ => None,
        });
        value.and_then(|value| value.to_vec::<i32>()) == Some(vec![wanted])
    };
    range.op == "Range" && is(0, 0) && is(2, 1)
}

/// Whether a node gathers all elements of its array, in their order.
fn is_all<'g>(node: &NodeDef, of: &impl Fn(&str) -> Option<&'g NodeDef>) -> bool {
    let limit = node.input.get(1).and_then(|input| of(input)).and_then(|range| range.input.get(1));
    let (Some(limit), Some(handle)) = (limit, node.input.first()) else { return false };
    let is_size = match of(limit) {
        Some(size) if size.op == "TensorArraySizeV3" => {
            size.input.first().map(|own| split_tensor_name(own)) == Some(split_tensor_name(handle))
        }
        // One that grows may have got more.
        _ => of(handle).is_some_and(|array| {
            array.op == "TensorArrayV3" && array.input.first() == Some(limit) && !is_dynamic(array)
        }),
    };
    is_size && counts_up(node, of)
}

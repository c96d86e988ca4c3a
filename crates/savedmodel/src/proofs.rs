//! Which checks hold whatever is fed, because what they look at is written in the graph.
//!
//! Invariant: a check is proven only when its condition is computed from constants alone, exactly.

use vesta_model::{DType, Tensor};
use vesta_protos::tensorflow::DataType;
use vesta_protos::tensorflow::attr_value::Value as Attribute;

use crate::flat::{Flat, Source};
use crate::tensor::tensor_from_proto;

/// Constants of more elements are not looked at.
const ELEMENTS_MAX: usize = 4096;

/// Nodes between a check and its constants.
const DEPTH_MAX: usize = 64;

/// The most that a constant may take.
const BYTES_MAX: usize = ELEMENTS_MAX * 8;

/// A small constant: its elements as whole numbers, and its sizes.
#[derive(Clone, Debug, PartialEq)]
struct Known {
    dims: Vec<usize>,
    values: Vec<i64>,
}

/// Whether the check at `node` never fails.
pub(crate) fn holds(flat: &Flat<'_>, node: u32) -> bool {
    let check = &flat.nodes[node as usize];
    let condition = check.inputs.first().filter(|_| check.def.op == "Assert");
    let known = condition.and_then(|&source| known(flat, source, DEPTH_MAX));
    known.is_some_and(|known| known.values == [1])
}

/// What the `Assert` at `node` says when it fails: its constant texts, and `[...]` for what only a run
/// knows.
pub(crate) fn asserted(flat: &Flat<'_>, node: u32) -> String {
    let said = flat.nodes[node as usize].inputs.iter().skip(1).map(|&source| {
        let text = flat.follow(source, |op| op == "Identity").and_then(|source| text(flat, source));
        format!("[{}]", text.as_deref().unwrap_or("..."))
    });
    said.collect::<Vec<_>>().join(" ")
}

fn text(flat: &Flat<'_>, source: Source) -> Option<String> {
    let Source::Node { node, output: 0 } = source else { return None };
    let node = &flat.nodes[node as usize].def;
    let Attribute::Tensor(proto) = node.attr.get("value")?.value.as_ref()? else { return None };
    let is_text = node.op == "Const" && proto.dtype == DataType::DtString as i32;
    let [text] = &proto.string_val[..] else { return None };
    is_text.then(|| String::from_utf8_lossy(text).into_owned())
}

fn known(flat: &Flat<'_>, source: Source, depth: usize) -> Option<Known> {
    let Source::Node { node, output: 0 } = source else { return None };
    let node = &flat.nodes[node as usize];
    let depth = depth.checked_sub(1)?;
    let input = |at: usize| known(flat, *node.inputs.get(at)?, depth);
    match node.def.op.as_str() {
        "Const" => match node.def.attr.get("value")?.value.as_ref()? {
            Attribute::Tensor(proto) => whole(&tensor_from_proto(proto, BYTES_MAX).ok()?),
            _ => None,
        },
        "Identity" => input(0),
        "All" => {
            // Over every axis, or of a single truth: anything else is no condition.
            let (truths, axes) = (input(0)?, input(1)?);
            (axes.values.len() == truths.dims.len()).then(|| Known {
                dims: vec![],
                values: vec![truths.values.iter().all(|&truth| truth == 1).into()],
            })
        }
        "Equal" => compared(&input(0)?, &input(1)?, |a, b| a == b),
        "NotEqual" => compared(&input(0)?, &input(1)?, |a, b| a != b),
        "Less" => compared(&input(0)?, &input(1)?, |a, b| a < b),
        "LessEqual" => compared(&input(0)?, &input(1)?, |a, b| a <= b),
        "Greater" => compared(&input(0)?, &input(1)?, |a, b| a > b),
        "GreaterEqual" => compared(&input(0)?, &input(1)?, |a, b| a >= b),
        "LogicalAnd" => compared(&input(0)?, &input(1)?, |a, b| a == 1 && b == 1),
        "LogicalOr" => compared(&input(0)?, &input(1)?, |a, b| a == 1 || b == 1),
        _ => None,
    }
}

fn whole(tensor: &Tensor) -> Option<Known> {
    let dims = tensor.shape().dims().to_vec();
    let values: Vec<i64> = match tensor.dtype() {
        DType::Bool => tensor.bytes().iter().map(|&byte| i64::from(byte != 0)).collect(),
        DType::I32 => tensor.to_vec::<i32>()?.into_iter().map(i64::from).collect(),
        DType::I64 => tensor.to_vec::<i64>()?,
        _ => return None,
    };
    (values.len() <= ELEMENTS_MAX).then_some(Known { dims, values })
}

/// Two tensors of the same sizes, or one of them a scalar.
fn compared(a: &Known, b: &Known, holds: impl Fn(i64, i64) -> bool) -> Option<Known> {
    let dims = match (&a.dims[..], &b.dims[..]) {
        (x, y) if x == y => x,
        ([], y) => y,
        (x, []) => x,
        _ => return None,
    };
    let count = a.values.len().max(b.values.len()).min(dims.iter().product());
    let at = |known: &Known, index: usize| {
        known.values.get(if known.dims.is_empty() { 0 } else { index }).copied()
    };
    let values: Option<Vec<i64>> =
        (0..count).map(|index| Some(holds(at(a, index)?, at(b, index)?).into())).collect();
    Some(Known { dims: dims.to_vec(), values: values? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(values: &[i64]) -> Known {
        Known { dims: vec![values.len()], values: values.to_vec() }
    }

    #[test]
    fn scalars_are_compared_with_every_element() {
        let two = Known { dims: vec![], values: vec![2] };
        let less = |a: &Known, b: &Known| compared(a, b, |a, b| a < b).map(|known| known.values);
        assert_eq!(less(&vector(&[1, 2]), &two), Some(vec![1, 0]));
        assert_eq!(less(&two, &vector(&[1, 3])), Some(vec![0, 1]));
        assert_eq!(less(&vector(&[]), &two), Some(vec![]));
        assert_eq!(less(&vector(&[1]), &vector(&[1, 2])), None);
    }
}

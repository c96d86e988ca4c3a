//! What is known of shapes before a request comes, for what enters the numeric graph.
//!
//! Invariant: a shape said here follows from the declared shapes of the feeds and the constants of
//! the graph; where it does not, it is unknown. Since feeds are not held to their declaration by
//! the original, a run checks what enters against it.

use vesta_model::PartialShape;

use super::analysis::{Analysis, Operation, Origin, SignatureGraph, ValueId};
use super::graph::Attributes;
use super::host::integers;

type Dims = Vec<Option<usize>>;

/// The shape of each value of a signature, as far as it is known.
pub(crate) fn sizes(analysis: &Analysis<'_>, graph: &SignatureGraph) -> Vec<PartialShape> {
    let mut sizes = vec![PartialShape::Unknown; analysis.values.len()];
    for (&id, feed) in analysis.feeds.iter().zip(&graph.feeds) {
        sizes[id] = feed.shape.clone();
    }
    for (id, value) in analysis.values.iter().enumerate() {
        if matches!(value.origin, Origin::Folded(_) | Origin::Weights(_))
            && let Ok(Some(tensor)) = analysis.constant(id)
        {
            sizes[id] =
                PartialShape::Ranked(tensor.shape().dims().iter().copied().map(Some).collect());
        }
    }
    for operation in &analysis.operations {
        for (at, &output) in operation.outputs.iter().enumerate() {
            if let Some(dims) = output_dims(analysis, &sizes, operation, at) {
                sizes[output] = PartialShape::Ranked(dims);
            }
        }
    }
    sizes
}

fn known(sizes: &[PartialShape], operation: &Operation<'_>, at: usize) -> Option<Dims> {
    known_of(sizes, *operation.inputs.get(at)?)
}

fn known_of(sizes: &[PartialShape], id: ValueId) -> Option<Dims> {
    match sizes.get(id)? {
        PartialShape::Ranked(dims) => Some(dims.clone()),
        PartialShape::Unknown => None,
    }
}

/// The values of a constant operand.
fn constant(analysis: &Analysis<'_>, operation: &Operation<'_>, at: usize) -> Option<Vec<i64>> {
    let id: ValueId = *operation.inputs.get(at)?;
    integers(&analysis.constant(id).ok()??).ok()
}

fn axis(axis: i64, rank: usize) -> Option<usize> {
    let rank = i64::try_from(rank).ok()?;
    let axis = if axis < 0 { axis + rank } else { axis };
    usize::try_from(axis).ok().filter(|&axis| (axis as i64) < rank)
}

fn output_dims(
    analysis: &Analysis<'_>,
    sizes: &[PartialShape],
    operation: &Operation<'_>,
    at: usize,
) -> Option<Dims> {
    let input = |at| known(sizes, operation, at);
    let constant = |at| constant(analysis, operation, at);
    match operation.node.op.as_str() {
        op if KEEPS_SHAPE.contains(&op) => input(0),
        op if BROADCASTS.contains(&op) => broadcast(&input(0)?, &input(1)?),
        "SelectV2" => broadcast(&broadcast(&input(0)?, &input(1)?)?, &input(2)?),
        "Shape" => Some(vec![Some(input(0)?.len())]),
        "Size" | "Rank" => Some(vec![]),
        "Sum" | "Prod" | "Mean" | "Max" | "Min" | "All" | "Any" => {
            let dims = input(0)?;
            let axes: Option<Vec<usize>> =
                constant(1)?.iter().map(|&at| axis(at, dims.len())).collect();
            let (axes, keep) = (axes?, Attributes(operation.node).flag("keep_dims"));
            let left = (0..dims.len()).filter(|at| keep || !axes.contains(at));
            Some(left.map(|at| if axes.contains(&at) { Some(1) } else { dims[at] }).collect())
        }
        "Pack" => {
            let mut dims = input(0)?;
            let at = axis(Attributes(operation.node).int("axis", 0), dims.len() + 1)?;
            dims.insert(at, Some(operation.inputs.len()));
            Some(dims)
        }
        "StridedSlice" => cut(analysis, sizes, operation),
        "Slice" => {
            let (dims, begins, wanted) = (input(0)?, constant(1), constant(2));
            let left = |at: usize| {
                let size = *wanted.as_ref()?.get(at)?;
                let begin = usize::try_from(*begins.as_ref()?.get(at)?).ok()?;
                usize::try_from(size).ok().or_else(|| dims[at]?.checked_sub(begin))
            };
            Some((0..dims.len()).map(left).collect())
        }
        "ConcatV2" => joined(analysis, sizes, operation),
        "MatMul" => {
            let attributes = Attributes(operation.node);
            let (a, b) = (input(0)?, input(1)?);
            let rows = usize::from(attributes.flag("transpose_a"));
            let columns = usize::from(!attributes.flag("transpose_b"));
            Some(vec![*a.get(rows)?, *b.get(columns)?])
        }
        "BatchMatMul" | "BatchMatMulV2" | "BatchMatMulV3" => {
            let attributes = Attributes(operation.node);
            let (mut a, mut b) = (input(0)?, input(1)?);
            let (a_last, b_last) =
                (a.split_off(a.len().checked_sub(2)?), b.split_off(b.len().checked_sub(2)?));
            let mut dims = broadcast(&a, &b)?;
            dims.push(a_last[usize::from(attributes.flag("adj_x"))]);
            dims.push(b_last[usize::from(!attributes.flag("adj_y"))]);
            Some(dims)
        }
        "Reshape" => {
            let dims = match constant(1) {
                Some(dims) => dims.into_iter().map(Some).collect(),
                None => packed(analysis, sizes, *operation.inputs.get(1)?)?,
            };
            Some(dims.into_iter().map(|dim| usize::try_from(dim?).ok()).collect())
        }
        "ExpandDims" => {
            let mut dims = input(0)?;
            let at = axis(*constant(1)?.first()?, dims.len() + 1)?;
            dims.insert(at, Some(1));
            Some(dims)
        }
        "Squeeze" => {
            let dims = input(0)?;
            let axes = Attributes(operation.node).ints("squeeze_dims");
            let axes: Option<Vec<usize>> = axes.iter().map(|&at| axis(at, dims.len())).collect();
            // Without axes the rank depends on which sizes are 1.
            let axes = axes.filter(|axes| !axes.is_empty())?;
            let left = (0..dims.len()).filter(|at| !axes.contains(at));
            Some(left.map(|at| dims[at]).collect())
        }
        "Transpose" => {
            let dims = input(0)?;
            let order = constant(1)?;
            order.iter().map(|&at| dims.get(axis(at, dims.len())?).copied()).collect()
        }
        "Gather" | "GatherV2" => {
            let params = input(0)?;
            let at = if operation.node.op == "Gather" { 0 } else { *constant(2)?.first()? };
            let at = axis(at, params.len())?;
            Some([&params[..at], &input(1)?, &params[at + 1..]].concat())
        }
        "ParseExample" | "ParseExampleV2" => {
            let attributes = Attributes(operation.node);
            let dense = at.checked_sub(3 * attributes.dtypes("sparse_types").len())?;
            let shape = attributes.shapes("dense_shapes").into_iter().nth(dense)??;
            // One example alone gives no batch axis.
            let batch = input(0).map(|dims| dims.first().copied());
            let lead = match batch {
                Some(Some(batch)) => vec![batch],
                Some(None) => vec![],
                None => return None,
            };
            let dims = shape.iter().map(|&dim| usize::try_from(dim).ok());
            Some(lead.into_iter().chain(dims).collect())
        }
        _ => None,
    }
}

/// Operators whose result has the shape of their first input.
const KEEPS_SHAPE: &[&str] = &[
    "Abs",
    "BiasAdd",
    "Cast",
    "Cumsum",
    "Elu",
    "Erf",
    "Erfc",
    "Exp",
    "Floor",
    "LeakyRelu",
    "Log",
    "LogSoftmax",
    "LogicalNot",
    "Neg",
    "OnesLike",
    "Relu",
    "Relu6",
    "Rsqrt",
    "Selu",
    "Sigmoid",
    "Sign",
    "Softmax",
    "Softplus",
    "Sqrt",
    "Square",
    "StringLength",
    "StringLower",
    "StringStrip",
    "StringUpper",
    "Tanh",
    "ZerosLike",
];

/// Operators that combine two inputs element by element.
const BROADCASTS: &[&str] = &[
    "Add",
    "AddV2",
    "Div",
    "Equal",
    "FloorDiv",
    "FloorMod",
    "Greater",
    "GreaterEqual",
    "Less",
    "LessEqual",
    "LogicalAnd",
    "LogicalOr",
    "Maximum",
    "Minimum",
    "Mul",
    "NotEqual",
    "Pow",
    "RealDiv",
    "SquaredDifference",
    "Sub",
];

/// A vector of sizes that a request decides, as far as its elements are known.
fn packed(
    analysis: &Analysis<'_>,
    sizes: &[PartialShape],
    id: ValueId,
) -> Option<Vec<Option<i64>>> {
    let [Some(count)] = known_of(sizes, id)?[..] else { return None };
    let unknown = vec![None; count];
    let Origin::Operation(at) = analysis.values[id].origin else { return Some(unknown) };
    let operation = &analysis.operations[at];
    if operation.node.op != "Pack" || operation.inputs.len() != count {
        return Some(unknown);
    }
    let element = |at: usize| constant(analysis, operation, at)?.first().copied();
    Some((0..count).map(element).collect())
}

/// A strided slice, whose rank follows from its masks; sizes that its bounds decide are open, but
/// where an axis is taken whole.
fn cut(analysis: &Analysis<'_>, sizes: &[PartialShape], operation: &Operation<'_>) -> Option<Dims> {
    let dims = known(sizes, operation, 0)?;
    let places = constant(analysis, operation, 3)?.len();
    let attributes = Attributes(operation.node);
    let has = |mask: &str, at: usize| attributes.int(mask, 0) >> at & 1 == 1;
    let named = (0..places).filter(|&at| !has("ellipsis_mask", at) && !has("new_axis_mask", at));
    let open = dims.len().checked_sub(named.count())?;
    let mut rest = dims.into_iter();
    let mut left = Dims::new();
    for at in 0..places {
        if has("ellipsis_mask", at) {
            left.extend(rest.by_ref().take(open));
        } else if has("new_axis_mask", at) {
            left.push(Some(1));
        } else {
            let dim = rest.next()?;
            let whole = has("begin_mask", at) && has("end_mask", at);
            let step = constant(analysis, operation, 3)?[at];
            if !has("shrink_axis_mask", at) {
                left.push(dim.filter(|_| whole && step.abs() == 1));
            }
        }
    }
    left.extend(rest);
    Some(left)
}

/// Tensors one behind the other along an axis that is known.
fn joined(
    analysis: &Analysis<'_>,
    sizes: &[PartialShape],
    operation: &Operation<'_>,
) -> Option<Dims> {
    let count = operation.inputs.len().checked_sub(1)?;
    let mut dims = known(sizes, operation, 0)?;
    let at = axis(*constant(analysis, operation, count)?.first()?, dims.len())?;
    for part in 1..count {
        let part = known(sizes, operation, part)?;
        dims[at] = dims[at].zip(*part.get(at)?).and_then(|(all, own)| all.checked_add(own));
    }
    Some(dims)
}

fn broadcast(a: &Dims, b: &Dims) -> Option<Dims> {
    let rank = a.len().max(b.len());
    let dim =
        |dims: &Dims, at: usize| (at + dims.len()).checked_sub(rank).map_or(Some(1), |at| dims[at]);
    Some(
        (0..rank)
            .map(|at| match (dim(a, at), dim(b, at)) {
                (Some(1), other) | (other, Some(1)) => other,
                (Some(size), _) | (_, Some(size)) => Some(size),
                (None, None) => None,
            })
            .collect(),
    )
}

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
    match sizes.get(*operation.inputs.get(at)?)? {
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
        "Cast" | "Neg" | "Abs" | "Sign" | "Square" | "LogicalNot" | "ZerosLike" | "StringUpper"
        | "StringLower" | "StringStrip" | "StringLength" => input(0),
        "Add" | "AddV2" | "Sub" | "Mul" | "RealDiv" | "Div" | "FloorDiv" | "FloorMod"
        | "Maximum" | "Minimum" | "SquaredDifference" => broadcast(&input(0)?, &input(1)?),
        "Reshape" => {
            let dims = constant(1)?;
            Some(dims.iter().map(|&dim| usize::try_from(dim).ok()).collect())
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

//! Shorthands for what computed sizes and indices need, and errors that a run raises itself.
//!
//! Invariant: a guarded value is the value, to the bit, in every run that passes; a run that does not
//! pass ends in an error of the engine, since an index is out of range.

use vesta_model::DType;

use crate::graph::{Attr, Given, Graph};
use crate::refusal::Reason;
use crate::value::{Dim, Dims};

/// What is known of an ONNX value.
pub(super) fn facts(g: &Graph, name: &str) -> Given {
    g.facts.get(name).cloned().unwrap_or((DType::Invalid, None))
}

/// A node of two inputs without attributes.
pub(super) fn two(g: &mut Graph, op: &'static str, a: &str, b: &str, given: Given) -> String {
    g.emit(op, &[a, b], vec![], given.0, given.1)
}

/// A node of two int64 inputs that gives int64 numbers of these sizes.
pub(super) fn whole(g: &mut Graph, op: &'static str, a: &str, b: &str, dims: &Dims) -> String {
    two(g, op, a, b, (DType::I64, dims.clone()))
}

/// A comparison or a combination of truths.
pub(super) fn test(g: &mut Graph, op: &'static str, a: &str, b: &str, dims: &Dims) -> String {
    two(g, op, a, b, (DType::Bool, dims.clone()))
}

/// `then` where `condition` holds, else `other`, of these sizes; the dtype is that of `then`.
pub(super) fn choose(g: &mut Graph, of: [&str; 3], dims: &Dims) -> String {
    let dtype = facts(g, of[1]).0;
    g.emit("Where", &of, vec![], dtype, dims.clone())
}

/// Sizes `start..end` of a value, as an int64 vector; to the last without an `end`.
pub(super) fn sizes(g: &mut Graph, name: &str, start: usize, end: Option<usize>) -> String {
    let rank = facts(g, name).1.map(|dims| dims.len());
    let dims = end.or(rank).map(|end| vec![Dim::Known(end.saturating_sub(start))]);
    let mut attributes = vec![("start", Attr::Int(start as i64))];
    attributes.extend(end.map(|end| ("end", Attr::Int(end as i64))));
    g.emit("Shape", &[name], attributes, DType::I64, dims)
}

/// One size of a value, as an int64 scalar.
pub(super) fn size(g: &mut Graph, name: &str, axis: usize) -> String {
    let vector = sizes(g, name, axis, Some(axis + 1));
    g.reshape(&vector, &[], Some(vec![]))
}

/// Vectors of int64 one behind the other.
pub(super) fn joined(g: &mut Graph, parts: &[&str]) -> String {
    let lengths = parts.iter().map(|part| facts(g, part).1.and_then(|dims| dims.first()?.known()));
    let length: Option<usize> = lengths.sum();
    let length = length.map_or_else(|| g.symbol(), Dim::Known);
    let attributes = vec![("axis", Attr::Int(0))];
    g.emit("Concat", parts, attributes, DType::I64, Some(vec![length]))
}

/// `start..end` of an int64 vector.
pub(super) fn part(g: &mut Graph, vector: &str, start: usize, end: usize) -> String {
    let (starts, ends) = (g.ints(&[start as i64]), g.ints(&[end as i64]));
    let (axes, steps) = (g.ints(&[0]), g.ints(&[1]));
    let inputs = [vector, &starts, &ends, &axes, &steps];
    g.emit("Slice", &inputs, vec![], DType::I64, Some(vec![Dim::Known(end - start)]))
}

/// The whole numbers below `count` (int64, scalar), as an int64 vector of this size.
pub(super) fn counted(g: &mut Graph, count: &str, dim: Dim) -> Result<String, Reason> {
    let (zero, one) = (g.scalar(DType::I64, 0.0)?, g.scalar(DType::I64, 1.0)?);
    Ok(g.emit("Range", &[&zero, count, &one], vec![], DType::I64, Some(vec![dim])))
}

/// A value with axes of size 1 put in, which are counted in the result.
pub(super) fn spread(g: &mut Graph, name: &str, axes: &[i64]) -> String {
    let (dtype, dims) = facts(g, name);
    let dims = dims.map(|mut dims| {
        for &axis in axes {
            dims.insert((axis as usize).min(dims.len()), Dim::Known(1));
        }
        dims
    });
    let axes = g.ints(axes);
    g.emit("Unsqueeze", &[name, &axes], vec![], dtype, dims)
}

/// Reshapes to sizes that are computed in the run.
pub(super) fn reshaped(g: &mut Graph, name: &str, shape: &str, dims: Dims) -> String {
    let dtype = facts(g, name).0;
    g.emit("Reshape", &[name, shape], vec![("allowzero", Attr::Int(1))], dtype, dims)
}

/// How many truths there are among `truths`, as an int64 scalar.
pub(super) fn count(g: &mut Graph, truths: &str) -> String {
    let dims = facts(g, truths).1;
    let numbers = g.cast(truths, DType::I64, dims);
    let attributes = vec![("keepdims", Attr::Int(0)), ("noop_with_empty_axes", Attr::Int(0))];
    g.emit("ReduceSum", &[&numbers], attributes, DType::I64, Some(vec![]))
}

/// `name` as it is, in a run that fails with `error` where one of `truths` holds.
pub(super) fn unless(g: &mut Graph, name: &str, truths: &str, error: &str) -> String {
    let number = count(g, truths);
    if_none(g, name, &number, error)
}

/// `name` as it is, in a run that fails with `error` unless a number (int64, scalar) is 0: it is picked
/// out of a row of one.
pub(super) fn if_none(g: &mut Graph, name: &str, number: &str, error: &str) -> String {
    let (dtype, dims) = facts(g, name);
    let row = spread(g, name, &[0]);
    let picked = g.emit("Gather", &[&row, number], vec![("axis", Attr::Int(0))], dtype, dims);
    g.fails_with(error);
    picked
}

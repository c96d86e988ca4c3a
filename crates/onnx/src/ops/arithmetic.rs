//! Operators of two or more inputs that are combined element by element.

use vesta_model::DType;

use super::layout::{broadcast_all, combine};
use super::{FLOATS, NUMBERS, expect_dtype, folding};
use crate::call::Call;
use crate::graph::Graph;
use crate::refusal::{Reason, refuse};
use crate::registry::{Family, Outcome};
use crate::translate::alias;
use crate::value::{ValueId, known_dims};

pub(super) const FAMILY: Family = &[
    ("Add", add),
    ("AddN", add_n),
    ("AddV2", add),
    ("ClipByValue", clip_by_value),
    ("DivNoNan", div_no_nan),
    ("Equal", |g, c| equality(g, c, "Equal")),
    ("Greater", |g, c| compare(g, c, "Greater")),
    ("GreaterEqual", |g, c| compare(g, c, "GreaterOrEqual")),
    ("Less", |g, c| compare(g, c, "Less")),
    ("LessEqual", |g, c| compare(g, c, "LessOrEqual")),
    ("LogicalAnd", |g, c| logical(g, c, "And")),
    ("LogicalOr", |g, c| logical(g, c, "Or")),
    ("Maximum", |g, c| binary(g, c, "Max", NUMBERS)),
    ("Minimum", |g, c| binary(g, c, "Min", NUMBERS)),
    ("Mul", multiply),
    ("MulNoNan", mul_no_nan),
    ("NotEqual", |g, c| equality(g, c, "NotEqual")),
    ("Pow", |g, c| binary(g, c, "Pow", FLOATS)),
    ("RealDiv", |g, c| binary(g, c, "Div", FLOATS)),
    ("Select", select),
    ("SelectV2", select_broadcast),
    ("SquaredDifference", squared_difference),
    ("Sub", |g, c| binary(g, c, "Sub", NUMBERS)),
];

pub(super) fn pair(c: &Call<'_>) -> Result<[ValueId; 2], Reason> {
    Ok([c.input(0)?, c.input(1)?])
}

/// A node over `ids`, with their broadcast sizes and the dtype of the first.
pub(super) fn over(g: &mut Graph, op: &'static str, ids: &[ValueId]) -> Result<ValueId, Reason> {
    let dtype = ids.first().map_or(DType::Invalid, |&id| g.get(id).dtype);
    over_into(g, op, ids, dtype)
}

pub(super) fn over_into(
    g: &mut Graph,
    op: &'static str,
    ids: &[ValueId],
    dtype: DType,
) -> Result<ValueId, Reason> {
    let dims = broadcast_all(g, ids);
    combine(g, op, ids, vec![], dtype, dims)
}

fn binary(g: &mut Graph, c: &Call<'_>, op: &'static str, dtypes: &[DType]) -> Outcome {
    let ids = pair(c)?;
    expect_dtype(g.get(ids[0]).dtype, dtypes)?;
    Ok(vec![over(g, op, &ids)?])
}

/// A constant that a convolution is multiplied by goes into its weights.
fn multiply(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let [a, b] = pair(c)?;
    if let Some(id) = folding::multiply(g, a, b).or_else(|| folding::multiply(g, b, a)) {
        return Ok(vec![id]);
    }
    binary(g, c, "Mul", NUMBERS)
}

/// A constant that is added to a convolution becomes its bias.
fn add(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let [a, b] = pair(c)?;
    expect_dtype(g.get(a).dtype, NUMBERS)?;
    if let Some(id) = folding::add_bias(g, a, b).or_else(|| folding::add_bias(g, b, a)) {
        return Ok(vec![id]);
    }
    Ok(vec![over(g, "Add", &[a, b])?])
}

fn add_n(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let mut sum = c.input(0)?;
    expect_dtype(g.get(sum).dtype, NUMBERS)?;
    if c.inputs.len() == 1 {
        return Ok(vec![alias(g, sum)]);
    }
    for &next in &c.inputs[1..] {
        sum = over(g, "Add", &[sum, next])?;
    }
    Ok(vec![sum])
}

fn squared_difference(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let ids = pair(c)?;
    expect_dtype(g.get(ids[0]).dtype, NUMBERS)?;
    let difference = over(g, "Sub", &ids)?;
    Ok(vec![over(g, "Mul", &[difference, difference])?])
}

fn clip_by_value(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let (x, low, high) = (c.input(0)?, c.input(1)?, c.input(2)?);
    expect_dtype(g.get(x).dtype, NUMBERS)?;
    let capped = over(g, "Min", &[x, high])?;
    Ok(vec![over(g, "Max", &[capped, low])?])
}

pub(super) fn zero(g: &mut Graph, dtype: DType) -> Result<ValueId, Reason> {
    match crate::constant::Constant::scalar(dtype, 0.0) {
        Some(zero) => Ok(g.constant(zero)),
        None => refuse("its zero has no constant"),
    }
}

/// Zero where the factor is, whatever the other is.
fn mul_no_nan(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let ids = pair(c)?;
    let dtype = g.get(ids[0]).dtype;
    expect_dtype(dtype, &[DType::F32, DType::F64])?;
    let zero = zero(g, dtype)?;
    let product = over(g, "Mul", &ids)?;
    let is_zero = over_into(g, "Equal", &[ids[1], zero], DType::Bool)?;
    Ok(vec![over_into(g, "Where", &[is_zero, zero, product], dtype)?])
}

/// Zero where the divisor is.
fn div_no_nan(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let ids = pair(c)?;
    let dtype = g.get(ids[0]).dtype;
    expect_dtype(dtype, &[DType::F32, DType::F64])?;
    let zero = zero(g, dtype)?;
    let quotient = over(g, "Div", &ids)?;
    let is_zero = over_into(g, "Equal", &[ids[1], zero], DType::Bool)?;
    Ok(vec![over_into(g, "Where", &[is_zero, zero, quotient], dtype)?])
}

fn compare(g: &mut Graph, c: &Call<'_>, op: &'static str) -> Outcome {
    let ids = pair(c)?;
    expect_dtype(g.get(ids[0]).dtype, NUMBERS)?;
    Ok(vec![over_into(g, op, &ids, DType::Bool)?])
}

fn equality(g: &mut Graph, c: &Call<'_>, op: &str) -> Outcome {
    let ids = pair(c)?;
    let dtype = g.get(ids[0]).dtype;
    super::expect_movable(dtype)?;
    if !c.flag("incompatible_shape_error", true)? && !surely_broadcast(g, &ids) {
        return refuse("it compares tensors whose shapes may not fit each other");
    }
    let equal = over_into(g, "Equal", &ids, DType::Bool)?;
    if op == "Equal" {
        return Ok(vec![equal]);
    }
    Ok(vec![over(g, "Not", &[equal])?])
}

fn surely_broadcast(g: &Graph, ids: &[ValueId; 2]) -> bool {
    let dims = |id: ValueId| known_dims(&g.get(id).dims);
    match (dims(ids[0]), dims(ids[1])) {
        (Some(a), Some(b)) => {
            a.iter().rev().zip(b.iter().rev()).all(|(a, b)| a == b || *a == 1 || *b == 1)
        }
        _ => g.get(ids[0]).rank() == Some(0) || g.get(ids[1]).rank() == Some(0),
    }
}

fn logical(g: &mut Graph, c: &Call<'_>, op: &'static str) -> Outcome {
    let ids = pair(c)?;
    expect_dtype(g.get(ids[0]).dtype, &[DType::Bool])?;
    Ok(vec![over(g, op, &ids)?])
}

fn select_broadcast(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let (condition, x, y) = (c.input(0)?, c.input(1)?, c.input(2)?);
    let dtype = g.get(x).dtype;
    super::expect_movable(dtype)?;
    Ok(vec![over_into(g, "Where", &[condition, x, y], dtype)?])
}

/// The older form: a condition of rank 1 picks rows, it does not broadcast.
fn select(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let (condition, x, y) = (c.input(0)?, c.input(1)?, c.input(2)?);
    let (Some(own), Some(rank)) = (g.get(condition).rank(), g.get(x).rank()) else {
        return refuse("the ranks of its inputs are not known");
    };
    if own == 1 && rank > 1 {
        let name = g.plain(condition);
        let axes: Vec<i64> = (1..rank as i64).collect();
        let axes = g.ints(&axes);
        let mut dims = g.dims(condition)?;
        dims.resize(rank, crate::value::Dim::Known(1));
        let rows = g.emit("Unsqueeze", &[&name, &axes], vec![], DType::Bool, Some(dims));
        let rows = g.result(rows);
        let dtype = g.get(x).dtype;
        return Ok(vec![over_into(g, "Where", &[rows, x, y], dtype)?]);
    }
    if own != 0 && own != rank {
        return refuse("its condition has another rank than its inputs");
    }
    select_broadcast(g, c)
}

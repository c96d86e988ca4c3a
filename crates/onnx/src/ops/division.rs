//! Division and what it leaves.
//!
//! Invariant: whole numbers are divided by 0 in no engine, which would end its process: that run fails
//! before, as TensorFlow's does; nor by -1, whose quotient can be one more than there are numbers.

use vesta_model::DType;

use super::arithmetic::{over, over_into, pair, zero};
use super::layout::{broadcast_all, combine};
use super::{FLOATS, expect_dtype, guards};
use crate::call::Call;
use crate::constant::Constant;
use crate::graph::{Attr, Graph};
use crate::refusal::{Reason, refuse};
use crate::registry::{Family, Outcome};
use crate::value::{Dim, ValueId};

pub(super) const FAMILY: Family = &[
    ("Div", |g, c| divide(g, c, Rounding::ToZero)),
    ("FloorDiv", |g, c| divide(g, c, Rounding::Down)),
    ("FloorMod", floor_mod),
    ("Mod", truncate_mod),
    ("TruncateDiv", |g, c| divide(g, c, Rounding::ToZero)),
    ("TruncateMod", truncate_mod),
    ("UnravelIndex", unravel),
];

/// The most axes of cells: each takes nodes of its own.
const AXES_MAX: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Rounding {
    ToZero,
    Down,
}

fn divide(g: &mut Graph, c: &Call<'_>, rounding: Rounding) -> Outcome {
    let ids = pair(c)?;
    let dtype = g.get(ids[0]).dtype;
    if FLOATS.contains(&dtype) {
        let quotient = over(g, "Div", &ids)?;
        return Ok(vec![match rounding {
            Rounding::Down => over(g, "Floor", &[quotient])?,
            Rounding::ToZero if c.node.op == "TruncateDiv" => {
                return refuse("there is no truncating division of floating-point numbers");
            }
            Rounding::ToZero => quotient,
        }]);
    }
    let ids = harmless(g, ids)?;
    let quotient = over(g, "Div", &ids)?;
    if rounding == Rounding::ToZero {
        return Ok(vec![quotient]);
    }
    // One less where something is left and the signs differ.
    let zero = zero(g, dtype)?;
    let rest = modulus(g, &ids, false)?;
    let is_below = over_into(g, "Less", &[ids[0], zero], DType::Bool)?;
    let is_divisor_below = over_into(g, "Less", &[ids[1], zero], DType::Bool)?;
    let differs = over_into(g, "Xor", &[is_below, is_divisor_below], DType::Bool)?;
    let is_whole = over_into(g, "Equal", &[rest, zero], DType::Bool)?;
    let is_left = over_into(g, "Not", &[is_whole], DType::Bool)?;
    let is_high = over_into(g, "And", &[differs, is_left], DType::Bool)?;
    let one = number(g, dtype, 1.0)?;
    let less = over_into(g, "Where", &[is_high, one, zero], dtype)?;
    Ok(vec![over(g, "Sub", &[quotient, less])?])
}

fn number(g: &mut Graph, dtype: DType, value: f64) -> Result<ValueId, Reason> {
    match Constant::scalar(dtype, value) {
        Some(constant) => Ok(g.constant(constant)),
        None => refuse(format!("no constant of dtype {dtype} can be written")),
    }
}

/// Dividends and divisors of the same quotients and rests, by which every engine can divide.
fn harmless(g: &mut Graph, [dividend, divisor]: [ValueId; 2]) -> Result<[ValueId; 2], Reason> {
    let dtype = g.get(divisor).dtype;
    expect_dtype(dtype, &[DType::I32, DType::I64])?;
    let known = g.constant_ints(divisor, "divisors").ok();
    let mut ids = [dividend, divisor];
    match &known {
        Some(known) if known.contains(&0) => {
            return refuse("a division of whole numbers by 0");
        }
        Some(known) if !known.contains(&-1) => return Ok(ids),
        Some(_) => {}
        None => {
            let (name, zero) = (g.plain(divisor), g.scalar(dtype, 0.0)?);
            let dims = g.get(divisor).dims.clone();
            let is_zero = guards::test(g, "Equal", &name, &zero, &dims);
            let guarded = guards::unless(g, &name, &is_zero, "Integer division by zero");
            ids[1] = g.result(guarded);
        }
    }
    let (one, minus_one) = (number(g, dtype, 1.0)?, number(g, dtype, -1.0)?);
    let turns = over_into(g, "Equal", &[ids[1], minus_one], DType::Bool)?;
    let turned = over(g, "Neg", &[dividend])?;
    ids[0] = over_into(g, "Where", &[turns, turned, dividend], dtype)?;
    ids[1] = over_into(g, "Where", &[turns, one, ids[1]], dtype)?;
    Ok(ids)
}

/// What is left: with the sign of the divisor, or of the dividend where it is a remainder in C.
fn modulus(g: &mut Graph, ids: &[ValueId; 2], is_of_c: bool) -> Result<ValueId, Reason> {
    let dtype = g.get(ids[0]).dtype;
    let dims = broadcast_all(g, ids);
    combine(g, "Mod", ids, vec![("fmod", Attr::Int(is_of_c.into()))], dtype, dims)
}

fn floor_mod(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let ids = pair(c)?;
    if FLOATS.contains(&g.get(ids[0]).dtype) {
        return Ok(vec![float_modulus(g, &ids)?]);
    }
    let ids = harmless(g, ids)?;
    Ok(vec![modulus(g, &ids, false)?])
}

/// The places of cells, axis by axis, by their numbers.
fn unravel(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let (id, dims) = (c.input(0)?, c.input(1)?);
    let dtype = g.get(id).dtype;
    let [Dim::Known(rank)] = g.dims(dims)?[..] else { return refuse("the rank is open") };
    let own = g.dims(id)?;
    if own.len() > 1 || !(1..=AXES_MAX).contains(&rank) {
        return refuse(format!("its numbers are no vector, or the cells have {rank} axes"));
    }
    let line = Some(vec![own.first().copied().unwrap_or(Dim::Known(1))]);
    let sizes = g.wide(dims)?;
    let all = Some(vec![Dim::Known(rank)]);
    let zero = g.scalar(DType::I64, 0.0)?;
    let is_none = guards::test(g, "Equal", &sizes, &zero, &all);
    let sizes = guards::unless(g, &sizes, &is_none, "Input dims cannot contain a dim of zero");
    let wide = g.wide(id)?;
    let wide = g.reshape(&wide, &[-1], line.clone());
    let count = guards::sizes(g, &wide, 0, Some(1));
    let has_none = guards::test(g, "Equal", &count, &zero, &Some(vec![Dim::Known(1)]));
    let mut rest = guards::unless(g, &wide, &has_none, "received empty tensor indices");
    let mut places = Vec::with_capacity(rank);
    for axis in (0..rank).rev() {
        let size = guards::part(g, &sizes, axis, axis + 1);
        let fmod = vec![("fmod", Attr::Int(1))];
        let place = g.emit("Mod", &[&rest, &size], fmod, DType::I64, line.clone());
        places.push(if own.is_empty() { place } else { guards::spread(g, &place, &[0]) });
        rest = guards::whole(g, "Div", &rest, &size, &line);
    }
    let is_past = guards::test(g, "Greater", &rest, &zero, &line);
    places.reverse();
    let places: Vec<&str> = places.iter().map(String::as_str).collect();
    let mut found = vec![Dim::Known(rank)];
    found.extend(own);
    let along = vec![("axis", Attr::Int(0))];
    let name = g.emit("Concat", &places, along, DType::I64, Some(found));
    let name = guards::unless(g, &name, &is_past, "index is out of bound as with dims");
    Ok(vec![g.narrowed(name, dtype)])
}

fn truncate_mod(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let ids = pair(c)?;
    if FLOATS.contains(&g.get(ids[0]).dtype) {
        return Ok(vec![modulus(g, &ids, true)?]);
    }
    // Not by `Mod`, which engines compute with real numbers here.
    let ids = harmless(g, ids)?;
    let quotient = over(g, "Div", &ids)?;
    let whole = over(g, "Mul", &[quotient, ids[1]])?;
    Ok(vec![over(g, "Sub", &[ids[0], whole])?])
}

/// What is left when both are divided as numbers, moved to the sign of the divisor.
fn float_modulus(g: &mut Graph, ids: &[ValueId; 2]) -> Result<ValueId, Reason> {
    let dtype = g.get(ids[0]).dtype;
    let zero = zero(g, dtype)?;
    let dims = broadcast_all(g, ids);
    let rest = combine(g, "Mod", ids, vec![("fmod", Attr::Int(1))], dtype, dims)?;
    let is_below = over_into(g, "Less", &[rest, zero], DType::Bool)?;
    let is_divisor_below = over_into(g, "Less", &[ids[1], zero], DType::Bool)?;
    let differs = over_into(g, "Xor", &[is_below, is_divisor_below], DType::Bool)?;
    let is_none = over_into(g, "Equal", &[rest, zero], DType::Bool)?;
    let is_some = over_into(g, "Not", &[is_none], DType::Bool)?;
    let moves = over_into(g, "And", &[differs, is_some], DType::Bool)?;
    let moved = over(g, "Add", &[rest, ids[1]])?;
    over_into(g, "Where", &[moves, moved, rest], dtype)
}

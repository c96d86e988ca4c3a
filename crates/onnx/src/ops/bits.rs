//! Operators on the bits of whole numbers.

use vesta_model::DType;

use super::arithmetic::{over, over_into, pair, zero};
use super::expect_dtype;
use crate::call::Call;
use crate::constant::Constant;
use crate::graph::{Attr, Graph};
use crate::refusal::{Reason, refuse};
use crate::registry::{Family, Outcome};
use crate::value::ValueId;

pub(super) const FAMILY: Family = &[
    ("BitwiseAnd", |g, c| bitwise(g, c, "BitwiseAnd")),
    ("BitwiseOr", |g, c| bitwise(g, c, "BitwiseOr")),
    ("BitwiseXor", |g, c| bitwise(g, c, "BitwiseXor")),
    ("Invert", |g, c| {
        let id = c.input(0)?;
        expect_dtype(g.get(id).dtype, WHOLE)?;
        Ok(vec![over(g, "BitwiseNot", &[id])?])
    }),
    ("LeftShift", left_shift),
    ("RightShift", right_shift),
];

const WHOLE: &[DType] =
    &[DType::I8, DType::I16, DType::I32, DType::I64, DType::U8, DType::U16, DType::U32, DType::U64];

fn bitwise(g: &mut Graph, c: &Call<'_>, op: &'static str) -> Outcome {
    let ids = pair(c)?;
    expect_dtype(g.get(ids[0]).dtype, WHOLE)?;
    Ok(vec![over(g, op, &ids)?])
}

/// A product with a power of two, whose overflow is what a shift loses.
fn left_shift(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let [id, by] = pair(c)?;
    let factors = powers(g, id, by, |bit| 1i64 << bit)?;
    Ok(vec![over(g, "Mul", &[id, factors])?])
}

/// A quotient by a power of two, rounded down. The largest power has no number with a sign, so it is
/// divided by half of it and once more.
fn right_shift(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let [id, by] = pair(c)?;
    let dtype = g.get(id).dtype;
    let most = bits_of(dtype) - 2;
    let divisors = powers(g, id, by, |bit| 1i64 << bit.min(most))?;
    let last = powers(g, id, by, |bit| if bit > most { 2 } else { 1 })?;
    let (zero, none) = (zero(g, dtype)?, whole(g, dtype, &[], &[-1])?);
    let is_below = over_into(g, "Less", &[id, zero], DType::Bool)?;
    let turned = over(g, "Sub", &[none, id])?;
    let magnitude = over_into(g, "Where", &[is_below, turned, id], dtype)?;
    let quotient = over(g, "Div", &[magnitude, divisors])?;
    let quotient = over(g, "Div", &[quotient, last])?;
    let turned = over(g, "Sub", &[none, quotient])?;
    Ok(vec![over_into(g, "Where", &[is_below, turned, quotient], dtype)?])
}

fn bits_of(dtype: DType) -> i64 {
    if dtype == DType::I32 { 32 } else { 64 }
}

/// What `power` says of the bits that are shifted by. TensorFlow shifts by none for less than that,
/// and by all bits but one for more.
fn powers(
    g: &mut Graph,
    id: ValueId,
    by: ValueId,
    power: impl Fn(i64) -> i64,
) -> Result<ValueId, Reason> {
    let dtype = g.get(id).dtype;
    expect_dtype(dtype, &[DType::I32, DType::I64])?;
    let bits = bits_of(dtype);
    let (zero, most) = (zero(g, dtype)?, whole(g, dtype, &[], &[bits - 1])?);
    let is_below = over_into(g, "Less", &[by, zero], DType::Bool)?;
    let by = over_into(g, "Where", &[is_below, zero, by], dtype)?;
    let is_above = over_into(g, "Greater", &[by, most], DType::Bool)?;
    let by = over_into(g, "Where", &[is_above, most, by], dtype)?;
    let fitted = |number: i64| if bits == 32 { (number as i32).into() } else { number };
    let powers: Vec<i64> = (0..bits).map(|bit| fitted(power(bit))).collect();
    let powers = whole(g, dtype, &[bits as usize], &powers)?;
    let (powers, places, dims) = (g.plain(powers), g.plain(by), g.get(by).dims.clone());
    let attributes = vec![("axis", Attr::Int(0))];
    let factors = g.emit("Gather", &[&powers, &places], attributes, dtype, dims);
    Ok(g.result(factors))
}

fn whole(g: &mut Graph, dtype: DType, dims: &[usize], values: &[i64]) -> Result<ValueId, Reason> {
    match Constant::whole(dtype, dims, values) {
        Some(constant) => Ok(g.constant(constant)),
        None => refuse("its powers have no constant"),
    }
}

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
];

const WHOLE: &[DType] =
    &[DType::I8, DType::I16, DType::I32, DType::I64, DType::U8, DType::U16, DType::U32, DType::U64];

fn bitwise(g: &mut Graph, c: &Call<'_>, op: &'static str) -> Outcome {
    let ids = pair(c)?;
    expect_dtype(g.get(ids[0]).dtype, WHOLE)?;
    Ok(vec![over(g, op, &ids)?])
}

/// A product with a power of two, whose overflow is what a shift loses. TensorFlow shifts by none for
/// less than that, and by all bits but one for more.
fn left_shift(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let [id, by] = pair(c)?;
    let dtype = g.get(id).dtype;
    expect_dtype(dtype, &[DType::I32, DType::I64])?;
    let bits = if dtype == DType::I32 { 32 } else { 64 };
    let (zero, most) = (zero(g, dtype)?, whole(g, dtype, &[], &[bits - 1])?);
    let is_below = over_into(g, "Less", &[by, zero], DType::Bool)?;
    let by = over_into(g, "Where", &[is_below, zero, by], dtype)?;
    let is_above = over_into(g, "Greater", &[by, most], DType::Bool)?;
    let by = over_into(g, "Where", &[is_above, most, by], dtype)?;
    let powers: Vec<i64> =
        (0..bits).map(|bit| if bits == 32 { (1i32 << bit).into() } else { 1i64 << bit }).collect();
    let powers = whole(g, dtype, &[bits as usize], &powers)?;
    let (powers, places, dims) = (g.plain(powers), g.plain(by), g.get(by).dims.clone());
    let attributes = vec![("axis", Attr::Int(0))];
    let factors = g.emit("Gather", &[&powers, &places], attributes, dtype, dims);
    let factors = g.result(factors);
    Ok(vec![over(g, "Mul", &[id, factors])?])
}

fn whole(g: &mut Graph, dtype: DType, dims: &[usize], values: &[i64]) -> Result<ValueId, Reason> {
    match Constant::whole(dtype, dims, values) {
        Some(constant) => Ok(g.constant(constant)),
        None => refuse("its powers have no constant"),
    }
}

//! Functions of real numbers that ONNX has no operator for, by those that it has.

use vesta_model::DType;

use super::elementwise::log_of_one_more;
use super::expect_dtype;
use super::formula::Formula;
use crate::call::Call;
use crate::graph::Graph;
use crate::refusal::Reason;
use crate::registry::{Family, Outcome};
use crate::value::ValueId;

pub(super) const FAMILY: Family = &[
    ("ApproximateEqual", approximately_equal),
    ("Atan2", atan2),
    ("Xdivy", |g, c| unless_zero(g, c, |f, x, y| f.node("Div", &[x, y]))),
    ("Xlog1py", |g, c| {
        unless_zero(g, c, |f, x, y| {
            let log = log_of_one_more(f.g, y)?;
            f.node("Mul", &[x, log])
        })
    }),
    ("Xlogy", |g, c| {
        unless_zero(g, c, |f, x, y| {
            let log = f.node("Log", &[y])?;
            f.node("Mul", &[x, log])
        })
    }),
];

/// Where a number is zero and has a minus.
pub(crate) fn negative_zero(g: &mut Graph, x: ValueId) -> Result<ValueId, Reason> {
    let dtype = g.get(x).dtype;
    expect_dtype(dtype, &[DType::F32, DType::F64])?;
    let mut f = Formula { g, dtype };
    let (zero, one) = (f.number(0.0)?, f.number(1.0)?);
    let is_zero = f.test("Equal", &[x, zero])?;
    let turned = f.node("Div", &[one, x])?;
    let is_below = f.test("Less", &[turned, zero])?;
    f.test("And", &[is_zero, is_below])
}

fn pair(g: &mut Graph, c: &Call<'_>) -> Result<(ValueId, ValueId, DType), Reason> {
    let (a, b) = (c.input(0)?, c.input(1)?);
    let dtype = g.get(a).dtype;
    expect_dtype(dtype, &[DType::F32, DType::F64])?;
    Ok((a, b, dtype))
}

/// The angle of the smaller to the larger side, which is never steep, turned to where it belongs.
pub(super) fn atan2(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let (y, x, dtype) = pair(g, c)?;
    let mut f = Formula { g, dtype };
    let (zero, one) = (f.number(0.0)?, f.number(1.0)?);
    let (half_turn, quarter) =
        (f.number(std::f64::consts::PI)?, f.number(std::f64::consts::FRAC_PI_2)?);
    let (tall, wide) = (f.node("Abs", &[y])?, f.node("Abs", &[x])?);
    let is_steep = f.test("Greater", &[tall, wide])?;
    let less = f.node("Where", &[is_steep, wide, tall])?;
    let more = f.node("Where", &[is_steep, tall, wide])?;
    let quotient = f.node("Div", &[less, more])?;
    // Both zero or both infinite: their quotient is no number, their angle is one.
    let is_even = f.test("Equal", &[less, more])?;
    let is_none = f.test("Equal", &[more, zero])?;
    let even = f.node("Where", &[is_none, zero, one])?;
    let slope = f.node("Where", &[is_even, even, quotient])?;
    let angle = f.node("Atan", &[slope])?;
    let turned = f.node("Sub", &[quarter, angle])?;
    let angle = f.node("Where", &[is_steep, turned, angle])?;
    let is_left = f.is_negative(x, zero)?;
    let turned = f.node("Sub", &[half_turn, angle])?;
    let angle = f.node("Where", &[is_left, turned, angle])?;
    let is_below = f.is_negative(y, zero)?;
    let turned = f.node("Neg", &[angle])?;
    let angle = f.node("Where", &[is_below, turned, angle])?;
    // A comparison takes what is no number for something.
    let sum = f.node("Add", &[y, x])?;
    let (x_is, y_is) = (f.test("IsNaN", &[x])?, f.test("IsNaN", &[y])?);
    let is_nan = f.test("Or", &[x_is, y_is])?;
    Ok(vec![f.node("Where", &[is_nan, sum, angle])?])
}

/// What a function makes of both, and zero where `x` is, whatever `y` is.
fn unless_zero(
    g: &mut Graph,
    c: &Call<'_>,
    of: fn(&mut Formula<'_>, ValueId, ValueId) -> Result<ValueId, Reason>,
) -> Outcome {
    let (x, y, dtype) = pair(g, c)?;
    let mut f = Formula { g, dtype };
    let zero = f.number(0.0)?;
    let result = of(&mut f, x, y)?;
    let is_zero = f.test("Equal", &[x, zero])?;
    Ok(vec![f.node("Where", &[is_zero, zero, result])?])
}

fn approximately_equal(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let (x, y, dtype) = pair(g, c)?;
    let tolerance = c.float("tolerance", 1e-5)?;
    let mut f = Formula { g, dtype };
    let tolerance = f.number(tolerance.into())?;
    let difference = f.node("Sub", &[x, y])?;
    let distance = f.node("Abs", &[difference])?;
    Ok(vec![f.test("LessOrEqual", &[distance, tolerance])?])
}

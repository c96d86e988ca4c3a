//! Operators of one input that treat each element alone.

use vesta_model::DType;
use vesta_protos::tensorflow::attr_value::Value as Attribute;

use super::layout::combine;
use super::{FLOATS, NUMBERS, SIGNED, expect_dtype};
use crate::call::Call;
use crate::constant::{Constant, onnx_number};
use crate::graph::{Attr, Graph};
use crate::refusal::{Reason, refuse};
use crate::registry::{Family, Outcome};
use crate::translate::alias;
use crate::value::ValueId;

pub(super) const FAMILY: Family = &[
    ("Abs", |g, c| unary(g, c, "Abs", NUMBERS)),
    ("Acos", |g, c| unary(g, c, "Acos", FLOATS)),
    ("Acosh", |g, c| unary(g, c, "Acosh", FLOATS)),
    ("Asin", |g, c| unary(g, c, "Asin", FLOATS)),
    ("Asinh", |g, c| unary(g, c, "Asinh", FLOATS)),
    ("Atan", |g, c| unary(g, c, "Atan", FLOATS)),
    ("Atanh", |g, c| unary(g, c, "Atanh", FLOATS)),
    ("Cast", cast),
    ("Ceil", |g, c| unary(g, c, "Ceil", FLOATS)),
    ("Cos", |g, c| unary(g, c, "Cos", FLOATS)),
    ("Cosh", |g, c| unary(g, c, "Cosh", FLOATS)),
    ("Elu", |g, c| activation(g, c, "Elu", vec![("alpha", Attr::Float(1.0))])),
    ("EnsureShape", ensure_shape),
    ("Erf", |g, c| unary(g, c, "Erf", FLOATS)),
    ("Erfc", erfc),
    ("Exp", |g, c| unary(g, c, "Exp", FLOATS)),
    ("Expm1", expm1),
    ("Floor", |g, c| unary(g, c, "Floor", FLOATS)),
    ("IsFinite", is_finite),
    ("IsInf", |g, c| predicate(g, c, "IsInf")),
    ("IsNan", |g, c| predicate(g, c, "IsNaN")),
    ("LeakyRelu", leaky_relu),
    ("Log", |g, c| unary(g, c, "Log", FLOATS)),
    ("Log1p", |g, c| Ok(vec![log_of_one_more(g, c.input(0)?)?])),
    ("LogicalNot", |g, c| unary(g, c, "Not", &[DType::Bool])),
    ("Neg", |g, c| unary(g, c, "Neg", SIGNED)),
    ("Reciprocal", |g, c| unary(g, c, "Reciprocal", FLOATS)),
    ("Inv", |g, c| unary(g, c, "Reciprocal", FLOATS)),
    ("Relu", |g, c| unary(g, c, "Relu", SIGNED)),
    ("Relu6", relu6),
    ("Rint", |g, c| unary(g, c, "Round", FLOATS)),
    ("Round", |g, c| unary(g, c, "Round", FLOATS)),
    ("Rsqrt", rsqrt),
    ("Selu", selu),
    ("Sigmoid", |g, c| unary(g, c, "Sigmoid", FLOATS)),
    ("Sign", |g, c| unary(g, c, "Sign", SIGNED)),
    ("Sin", |g, c| unary(g, c, "Sin", FLOATS)),
    ("Sinh", |g, c| unary(g, c, "Sinh", FLOATS)),
    ("Softplus", |g, c| unary(g, c, "Softplus", FLOATS)),
    ("Softsign", |g, c| unary(g, c, "Softsign", FLOATS)),
    ("Sqrt", |g, c| unary(g, c, "Sqrt", FLOATS)),
    ("Square", square),
    ("Tan", |g, c| unary(g, c, "Tan", FLOATS)),
    ("Tanh", |g, c| unary(g, c, "Tanh", FLOATS)),
];

/// A node of one input whose result has the dtype and sizes of the input.
fn same(
    g: &mut Graph,
    id: ValueId,
    op: &'static str,
    attributes: Vec<(&'static str, Attr)>,
) -> Result<ValueId, Reason> {
    let (dtype, dims) = (g.get(id).dtype, g.get(id).dims.clone());
    combine(g, op, &[id], attributes, dtype, dims)
}

fn unary(g: &mut Graph, c: &Call<'_>, op: &'static str, dtypes: &[DType]) -> Outcome {
    let id = c.input(0)?;
    expect_dtype(g.get(id).dtype, dtypes)?;
    Ok(vec![same(g, id, op, vec![])?])
}

fn activation(
    g: &mut Graph,
    c: &Call<'_>,
    op: &'static str,
    attributes: Vec<(&'static str, Attr)>,
) -> Outcome {
    let id = c.input(0)?;
    expect_dtype(g.get(id).dtype, FLOATS)?;
    Ok(vec![same(g, id, op, attributes)?])
}

fn leaky_relu(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let alpha = c.float("alpha", 0.2)?;
    activation(g, c, "LeakyRelu", vec![("alpha", Attr::Float(alpha))])
}

/// TensorFlow's constants; ONNX states other digits as its defaults.
fn selu(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let attributes = vec![("alpha", Attr::Float(1.673_263_2)), ("gamma", Attr::Float(1.050_701))];
    activation(g, c, "Selu", attributes)
}

fn relu6(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let id = c.input(0)?;
    let (dtype, dims) = (g.get(id).dtype, g.get(id).dims.clone());
    expect_dtype(dtype, &[DType::F32, DType::F64, DType::F16, DType::I32, DType::I64])?;
    let bounds: Option<Vec<Constant>> =
        [0.0, 6.0].iter().map(|&bound| Constant::scalar(dtype, bound)).collect();
    let Some(bounds) = bounds else { return refuse("its bounds have no constant") };
    let mut ids = vec![id];
    ids.extend(bounds.into_iter().map(|bound| g.constant(bound)));
    Ok(vec![combine(g, "Clip", &ids, vec![], dtype, dims)?])
}

/// The value as another dtype of floats, wherever its channels lie.
pub(super) fn cast_to(g: &mut Graph, id: ValueId, to: DType) -> Result<ValueId, Reason> {
    match onnx_number(to) {
        Some(number) => as_number(g, id, to, number),
        None => refuse(format!("ONNX has no {to}")),
    }
}

fn as_number(g: &mut Graph, id: ValueId, to: DType, number: i32) -> Result<ValueId, Reason> {
    let dims = g.get(id).dims.clone();
    combine(g, "Cast", &[id], vec![("to", Attr::Int(number.into()))], to, dims)
}

/// See [`crate::gelu`] for where there is one.
fn erfc(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let Some((x, scale)) = c.gelu_of else {
        return refuse("ONNX has no operator that gives its small values");
    };
    let (dtype, dims) = (g.get(x).dtype, g.get(x).dims.clone());
    expect_dtype(dtype, &[DType::F32, DType::F64])?;
    let constants = [scale, 1.0].map(|n| Constant::scalar(dtype, n));
    let [Some(scale), Some(one)] = constants else { return refuse("it has no constants") };
    let (scale, one) = (g.constant(scale), g.constant(one));
    let scaled = combine(g, "Mul", &[x, scale], vec![], dtype, dims.clone())?;
    let erf = same(g, scaled, "Erf", vec![])?;
    Ok(vec![combine(g, "Add", &[erf, one], vec![], dtype, dims)?])
}

/// One node of two inputs, the result as `like`.
fn pair(
    g: &mut Graph,
    op: &'static str,
    ids: [ValueId; 2],
    like: ValueId,
    dtype: DType,
) -> Result<ValueId, Reason> {
    let dims = g.get(like).dims.clone();
    combine(g, op, &ids, vec![], dtype, dims)
}

/// `then` where two tensors are equal, else `other`.
fn where_equal(
    g: &mut Graph,
    ids: [ValueId; 2],
    then: ValueId,
    other: ValueId,
) -> Result<ValueId, Reason> {
    let (dtype, dims) = (g.get(other).dtype, g.get(other).dims.clone());
    let is_equal = combine(g, "Equal", &ids, vec![], DType::Bool, dims.clone())?;
    combine(g, "Where", &[is_equal, then, other], vec![], dtype, dims)
}

/// A value, and numbers of its dtype.
fn with_numbers<const N: usize>(
    g: &mut Graph,
    id: ValueId,
    numbers: [f64; N],
) -> Result<(ValueId, DType, [ValueId; N]), Reason> {
    let dtype = g.get(id).dtype;
    expect_dtype(dtype, &[DType::F32, DType::F64])?;
    let mut ids = [id; N];
    for (at, number) in numbers.into_iter().enumerate() {
        let Some(constant) = Constant::scalar(dtype, number) else {
            return refuse("it has no constants");
        };
        ids[at] = g.constant(constant);
    }
    Ok((id, dtype, ids))
}

/// `log(u) * x / (u - 1)` with `u = 1 + x`: what rounding takes from `u` is in both factors, so small
/// values keep their digits.
pub(super) fn log_of_one_more(g: &mut Graph, id: ValueId) -> Result<ValueId, Reason> {
    let (x, dtype, [one, zero]) = with_numbers(g, id, [1.0, 0.0])?;
    let sum = pair(g, "Add", [x, one], x, dtype)?;
    let difference = pair(g, "Sub", [sum, one], x, dtype)?;
    let log = same(g, sum, "Log", vec![])?;
    let product = pair(g, "Mul", [log, x], x, dtype)?;
    let quotient = pair(g, "Div", [product, difference], x, dtype)?;
    let y = where_equal(g, [difference, zero], x, quotient)?;
    // From where on one more is none.
    where_equal(g, [sum, x], log, y)
}

/// `(u - 1) * x / log(u)` with `u = exp(x)`, likewise.
fn expm1(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let (x, dtype, [one, minus_one]) = with_numbers(g, c.input(0)?, [1.0, -1.0])?;
    let power = same(g, x, "Exp", vec![])?;
    let difference = pair(g, "Sub", [power, one], x, dtype)?;
    let log = same(g, power, "Log", vec![])?;
    let product = pair(g, "Mul", [difference, x], x, dtype)?;
    let quotient = pair(g, "Div", [product, log], x, dtype)?;
    let y = where_equal(g, [power, one], x, quotient)?;
    let y = where_equal(g, [difference, minus_one], minus_one, y)?;
    Ok(vec![where_equal(g, [difference, power], power, y)?])
}

/// A check of a shape, where it is sure to hold.
fn ensure_shape(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let id = c.input(0)?;
    let Some(Attribute::Shape(wanted)) = c.attribute("shape") else {
        return refuse("it names no shape");
    };
    let holds = wanted.unknown_rank
        || g.get(id).dims.as_ref().is_some_and(|dims| {
            dims.len() == wanted.dim.len()
                && dims.iter().zip(&wanted.dim).all(|(dim, wanted)| {
                    wanted.size < 0 || dim.known().map(|n| n as i64) == Some(wanted.size)
                })
        });
    if holds {
        return Ok(vec![alias(g, id)]);
    }
    refuse("whether its input has that shape is known only when the model runs")
}

fn rsqrt(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let id = c.input(0)?;
    expect_dtype(g.get(id).dtype, FLOATS)?;
    let root = same(g, id, "Sqrt", vec![])?;
    Ok(vec![same(g, root, "Reciprocal", vec![])?])
}

fn square(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let id = c.input(0)?;
    let (dtype, dims) = (g.get(id).dtype, g.get(id).dims.clone());
    expect_dtype(dtype, NUMBERS)?;
    Ok(vec![combine(g, "Mul", &[id, id], vec![], dtype, dims)?])
}

fn predicate(g: &mut Graph, c: &Call<'_>, op: &'static str) -> Outcome {
    let id = c.input(0)?;
    Ok(vec![test(g, id, op)?])
}

fn test(g: &mut Graph, id: ValueId, op: &'static str) -> Result<ValueId, Reason> {
    expect_dtype(g.get(id).dtype, &[DType::F32, DType::F64])?;
    let attributes = if op == "IsInf" {
        vec![("detect_negative", Attr::Int(1)), ("detect_positive", Attr::Int(1))]
    } else {
        vec![]
    };
    let dims = g.get(id).dims.clone();
    combine(g, op, &[id], attributes, DType::Bool, dims)
}

fn is_finite(g: &mut Graph, c: &Call<'_>) -> Outcome {
    Ok(vec![finite(g, c.input(0)?)?])
}

/// Where a number is finite.
pub(super) fn finite(g: &mut Graph, id: ValueId) -> Result<ValueId, Reason> {
    let (nan, infinite) = (test(g, id, "IsNaN")?, test(g, id, "IsInf")?);
    let dims = g.get(id).dims.clone();
    let either = combine(g, "Or", &[nan, infinite], vec![], DType::Bool, dims)?;
    same(g, either, "Not", vec![])
}

/// Between dtypes whose conversion C++ defines, which is what TensorFlow and the engines do.
fn cast(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let id = c.input(0)?;
    let from = g.get(id).dtype;
    let to = c.dtype("DstT", from)?;
    if c.flag("Truncate", false)? {
        return refuse("a cast that truncates");
    }
    if from == to {
        return Ok(vec![alias(g, id)]);
    }
    let takes = |dtype| dtype == DType::Bool || NUMBERS.contains(&dtype);
    let (true, true, Some(number)) = (takes(from), takes(to), onnx_number(to)) else {
        return refuse(format!("there is no exact cast from {from} to {to}"));
    };
    if to == DType::Bool {
        return Ok(vec![is_not_zero(g, id)?]);
    }
    let result = as_number(g, id, to, number)?;
    if from == DType::I32 && to == DType::I64 {
        g.get_mut(result).wide = g.get(result).plain.clone();
    }
    Ok(vec![result])
}

/// What a number is as a truth. Stated as a comparison, since an engine that holds truths as
/// numbers may take a cast for a change of name.
fn is_not_zero(g: &mut Graph, id: ValueId) -> Result<ValueId, Reason> {
    let mut id = id;
    if matches!(g.get(id).dtype, DType::I8 | DType::U8 | DType::I16 | DType::U16) {
        // Few engines compare numbers this small.
        let (name, dims) = (g.plain(id), g.get(id).dims.clone());
        let wider = g.cast(&name, DType::I32, dims);
        id = g.result(wider);
    }
    let Some(zero) = Constant::scalar(g.get(id).dtype, 0.0) else {
        return refuse(format!("there is no exact cast from {} to bool", g.get(id).dtype));
    };
    let zero = g.constant(zero);
    let dims = g.get(id).dims.clone();
    let is_zero = combine(g, "Equal", &[id, zero], vec![], DType::Bool, dims)?;
    same(g, is_zero, "Not", vec![])
}

//! What is computed element by element.
//!
//! Invariant: whole numbers that a request decides are computed with only where no result can leave 32
//! bits.

use vesta_model::DType;
use vesta_protos::onnx::NodeProto;

use super::{Outcome, expect_attributes, expect_inputs, float, int, joined, output, output_at};
use crate::embedded::onnx::extent::Extent;
use crate::embedded::onnx::facts::{Fact, INT32_RANGE, Range, dtype_of, number_of};
use crate::embedded::onnx::graph::{Graph, Written, input};

/// Of one input of floats, whose output has its sizes.
pub(super) const ALIKE: &[&str] = &[
    "Abs",
    "Acos",
    "Asin",
    "Atan",
    "Atanh",
    "Ceil",
    "Cos",
    "Cosh",
    "Erf",
    "Exp",
    "Floor",
    "Log",
    "Neg",
    "Reciprocal",
    "Relu",
    "Round",
    "Sigmoid",
    "Sin",
    "Sinh",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Tan",
    "Tanh",
];
/// Such with numbers besides.
pub(super) const SCALED: &[&str] = &["Elu", "LeakyRelu", "Selu"];
pub(super) const BROADCAST: &[&str] = &["Add", "Div", "Mul", "Pow", "Sub"];
pub(super) const VARIADIC: &[&str] = &["Max", "Mean", "Min", "Sum"];
pub(super) const COMPARISONS: &[&str] =
    &["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"];
pub(super) const LOGIC: &[&str] = &["And", "Not", "Or", "Xor"];
pub(super) const OTHERS: &[&str] =
    &["Cast", "Clip", "Dropout", "Identity", "IsNaN", "PRelu", "Where"];

pub(super) fn other(g: &mut Graph, node: &NodeProto) -> Outcome {
    match node.op_type.as_str() {
        "Cast" => cast(g, node),
        "Clip" => clip(g, node),
        "Dropout" => dropout(g, node),
        "Identity" => identity(g, node),
        "IsNaN" => is_nan(g, node),
        "PRelu" => parametric(g, node),
        _ => choose(g, node),
    }
}

pub(super) fn alike(g: &mut Graph, node: &NodeProto) -> Outcome {
    expect_inputs(node, 1..=1)?;
    expect_attributes(node, &[])?;
    let dims = g.float_dims(node, 0)?;
    g.emit(&node.op_type, &[&node.input[0]], output(node), vec![], dims)
}

pub(super) fn scaled(g: &mut Graph, node: &NodeProto) -> Outcome {
    let floats: &[(&str, f32)] = match node.op_type.as_str() {
        "Elu" => &[("alpha", 1.0)],
        "LeakyRelu" => &[("alpha", 0.01)],
        _ => &[("alpha", 1.673_263_2), ("gamma", 1.050_701)],
    };
    expect_inputs(node, 1..=1)?;
    let known: Vec<&str> = floats.iter().map(|(name, _)| *name).collect();
    expect_attributes(node, &known)?;
    let dims = g.float_dims(node, 0)?;
    let written = floats
        .iter()
        .map(|&(name, default)| (name, Written::Float(float(node, name, default))))
        .collect();
    g.emit(&node.op_type, &[&node.input[0]], output(node), written, dims)
}

fn identity(g: &mut Graph, node: &NodeProto) -> Outcome {
    expect_inputs(node, 1..=1)?;
    expect_attributes(node, &[])?;
    pass(g, &node.input[0], output(node))
}

fn pass(g: &mut Graph, from: &str, to: &str) -> Outcome {
    let mut fact = g.fact_of(from)?.clone();
    fact.elements = None;
    g.emit_all("Identity", &[from], vec![], &[(to, fact)])
}

/// In a served net nothing is dropped.
fn dropout(g: &mut Graph, node: &NodeProto) -> Outcome {
    expect_inputs(node, 1..=3)?;
    expect_attributes(node, &["ratio", "seed"])?;
    if !output_at(node, 1).is_empty() {
        return Err("its mask is read".to_owned());
    }
    if input(node, 2).is_some() && g.integers(node, 2)? != [0] {
        return Err("it drops".to_owned());
    }
    g.float_dims(node, 0)?;
    pass(g, &node.input[0], output(node))
}

fn is_nan(g: &mut Graph, node: &NodeProto) -> Outcome {
    expect_inputs(node, 1..=1)?;
    expect_attributes(node, &[])?;
    let fact = Fact::new(DType::Bool, g.float_dims(node, 0)?);
    g.emit_all("IsNaN", &[&node.input[0]], vec![], &[(output(node), fact)])
}

pub(super) fn broadcast(g: &mut Graph, node: &NodeProto) -> Outcome {
    expect_inputs(node, 2..=2)?;
    expect_attributes(node, &[])?;
    let (a, b) = (g.fact(node, 0)?.clone(), g.fact(node, 1)?.clone());
    let dims = joined(&mut g.extents, &a.dims, &b.dims)?;
    let (x, mut y) = (node.input[0].clone(), node.input[1].clone());
    if node.op_type == "Pow" && a.is_float() && matches!(b.dtype, DType::I32 | DType::I64) {
        match g.integers(node, 1)?[..] {
            [power] if power.unsigned_abs() <= 64 => y = g.number(power as f32),
            _ => return Err("its power is no small number".to_owned()),
        }
    } else if a.dtype != b.dtype {
        return Err(format!("its inputs are of {} and {}", a.dtype, b.dtype));
    } else if !a.is_float() {
        let fact = whole(&node.op_type, &a, &b, dims)?;
        return g.emit_all(&node.op_type, &[&x, &y], vec![], &[(output(node), fact)]);
    }
    g.emit(&node.op_type, &[&x, &y], output(node), vec![], dims)
}

/// Arithmetic of whole numbers that stays within 32 bits.
fn whole(op: &str, a: &Fact, b: &Fact, dims: Vec<Extent>) -> Result<Fact, String> {
    let both = |each: fn(i64, i64) -> i64| {
        let all = [each(a.range.0, b.range.0), each(a.range.0, b.range.1)];
        let all = [all, [each(a.range.1, b.range.0), each(a.range.1, b.range.1)]].concat();
        (all.iter().copied().min().unwrap_or(0), all.iter().copied().max().unwrap_or(0))
    };
    if !matches!(a.dtype, DType::I32 | DType::I64) {
        return Err(format!("it is of {}", a.dtype));
    }
    let range = match op {
        "Add" => both(i64::saturating_add),
        "Sub" => both(i64::saturating_sub),
        "Mul" => both(i64::saturating_mul),
        _ => return Err(format!("it is of {}", a.dtype)),
    };
    let mut fact = Fact::new(a.dtype, dims);
    fact.range = within(range)?;
    Ok(fact)
}

fn within(range: Range) -> Result<Range, String> {
    let fits = range.0 >= INT32_RANGE.0 && range.1 <= INT32_RANGE.1;
    fits.then_some(range).ok_or_else(|| "its whole numbers may leave 32 bits".to_owned())
}

/// Of any number of inputs, in their order.
pub(super) fn variadic(g: &mut Graph, node: &NodeProto) -> Outcome {
    expect_inputs(node, 1..=64)?;
    expect_attributes(node, &[])?;
    let op = if node.op_type == "Mean" { "Add" } else { node.op_type.as_str() };
    let op = if op == "Sum" { "Add" } else { op };
    let mut dims = g.float_dims(node, 0)?;
    let mut name = node.input[0].clone();
    for at in 1..node.input.len() {
        let more = g.float_dims(node, at)?;
        dims = joined(&mut g.extents, &dims, &more)?;
        name = g.step(op, &[&name, &node.input[at]], &dims)?;
    }
    if node.op_type == "Mean" {
        let count = g.number(node.input.len() as f32);
        return g.emit("Div", &[&name, &count], output(node), vec![], dims);
    }
    pass(g, &name, output(node))
}

pub(super) fn compare(g: &mut Graph, node: &NodeProto) -> Outcome {
    expect_inputs(node, 2..=2)?;
    expect_attributes(node, &[])?;
    let (a, b) = (g.fact(node, 0)?.clone(), g.fact(node, 1)?.clone());
    if a.dtype != b.dtype || (a.dtype == DType::Bool && node.op_type != "Equal") {
        return Err(format!("its inputs are of {} and {}", a.dtype, b.dtype));
    }
    let fact = Fact::new(DType::Bool, joined(&mut g.extents, &a.dims, &b.dims)?);
    let inputs = [node.input[0].as_str(), &node.input[1]];
    g.emit_all(&node.op_type, &inputs, vec![], &[(output(node), fact)])
}

pub(super) fn logic(g: &mut Graph, node: &NodeProto) -> Outcome {
    let count = if node.op_type == "Not" { 1 } else { 2 };
    expect_inputs(node, count..=count)?;
    expect_attributes(node, &[])?;
    let mut dims = Vec::new();
    for at in 0..count {
        let own = g.fact(node, at)?.clone();
        if own.dtype != DType::Bool {
            return Err(format!("its input {at} is of {}", own.dtype));
        }
        dims = joined(&mut g.extents, &dims, &own.dims)?;
    }
    let fact = Fact::new(DType::Bool, dims);
    let inputs: Vec<&str> = node.input.iter().map(String::as_str).collect();
    if node.op_type == "Xor" {
        let same = g.step_with("Equal", &inputs, vec![], fact.clone())?;
        return g.emit_all("Not", &[&same], vec![], &[(output(node), fact)]);
    }
    g.emit_all(&node.op_type, &inputs, vec![], &[(output(node), fact)])
}

fn cast(g: &mut Graph, node: &NodeProto) -> Outcome {
    expect_inputs(node, 1..=1)?;
    expect_attributes(node, &["to", "saturate"])?;
    let from = g.fact(node, 0)?.clone();
    let to = i32::try_from(int(node, "to", 0)).ok().and_then(dtype_of);
    let to = to.ok_or_else(|| format!("it is to dtype {}", int(node, "to", 0)))?;
    let mut fact = Fact::new(to, from.dims.clone());
    if from.dtype == to {
        return pass(g, &node.input[0], output(node));
    }
    if to == DType::Bool {
        let zero = if from.is_float() { g.number(0.0) } else { g.scalar(&Extent::from(0)) };
        let own = Fact::new(DType::Bool, from.dims.clone());
        let is_zero = g.step_with("Equal", &[&node.input[0], &zero], vec![], own.clone())?;
        return g.emit_all("Not", &[&is_zero], vec![], &[(output(node), own)]);
    }
    if from.is_float() {
        return Err(format!("it is from floats of any size to {to}"));
    }
    if to != DType::F32 {
        fact.range = from.range;
    }
    let to = vec![("to", Written::Int(number_of(to).into()))];
    g.emit_all("Cast", &[&node.input[0]], to, &[(output(node), fact)])
}

fn choose(g: &mut Graph, node: &NodeProto) -> Outcome {
    expect_inputs(node, 3..=3)?;
    expect_attributes(node, &[])?;
    let (which, a, b) = (g.dims(node, 0)?, g.fact(node, 1)?.clone(), g.fact(node, 2)?.clone());
    if a.dtype != b.dtype || g.fact(node, 0)?.dtype != DType::Bool {
        return Err(format!("it chooses between {} and {}", a.dtype, b.dtype));
    }
    let dims = joined(&mut g.extents, &a.dims, &b.dims)?;
    let mut fact = Fact::new(a.dtype, joined(&mut g.extents, &which, &dims)?);
    fact.range = (a.range.0.min(b.range.0), a.range.1.max(b.range.1));
    let inputs: Vec<&str> = node.input.iter().map(String::as_str).collect();
    g.emit_all("Where", &inputs, vec![], &[(output(node), fact)])
}

/// The slope broadcasts to the input, and is for what is below zero.
fn parametric(g: &mut Graph, node: &NodeProto) -> Outcome {
    expect_inputs(node, 2..=2)?;
    expect_attributes(node, &[])?;
    let (dims, slope) = (g.float_dims(node, 0)?, g.float_dims(node, 1)?);
    if joined(&mut g.extents, &dims, &slope)? != dims {
        return Err("its slope is larger than its input".to_owned());
    }
    let (x, zero) = (node.input[0].as_str(), g.number(0.0));
    let below = Fact::new(DType::Bool, dims.clone());
    let below = g.step_with("Less", &[x, &zero], vec![], below)?;
    let small = g.step("Mul", &[x, &node.input[1]], &dims)?;
    g.emit("Where", &[&below, &small, x], output(node), vec![], dims)
}

/// Bounds are attributes at first, then inputs.
fn clip(g: &mut Graph, node: &NodeProto) -> Outcome {
    let is_early = g.opset < 11;
    expect_inputs(node, if is_early { 1..=1 } else { 1..=3 })?;
    expect_attributes(node, if is_early { &["min", "max"] } else { &[] })?;
    let dims = g.float_dims(node, 0)?;
    // Without a bound, infinities become the last finite numbers.
    let mut bounds = Vec::new();
    for (at, (name, last)) in [("min", f32::MIN), ("max", f32::MAX)].into_iter().enumerate() {
        let value = match (is_early, input(node, at + 1)) {
            (true, _) => g.number(float(node, name, last)),
            (false, None) => g.number(last),
            (false, Some(bound)) => match &g.float_dims(node, at + 1)?[..] {
                [] => bound.to_owned(),
                [one] if one.is(1) => g.reshaped(bound, vec![])?,
                _ => return Err(format!("its {name} is no number")),
            },
        };
        bounds.push(value);
    }
    g.emit("Clip", &[&node.input[0], &bounds[0], &bounds[1]], output(node), vec![], dims)
}

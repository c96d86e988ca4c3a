//! Operators that say where something is: the place of an extreme, running sums, marks at indices.
//!
//! Invariant: places are computed as floats only where a float holds every one of them; a run in which an
//! axis is longer is an error.

use vesta_model::DType;
use vesta_protos::onnx::NodeProto;

use super::reduce::over;
use super::{Outcome, axis_of, expect_attributes, expect_inputs, int, output};
use crate::embedded::onnx::extent::Extent;
use crate::embedded::onnx::facts::{Dims, FLOAT, Fact, INT64, WHOLE_FLOAT_MAX, number_of};
use crate::embedded::onnx::graph::{Graph, Written, input};

pub(super) const ALL: &[&str] = &["ArgMax", "ArgMin", "CumSum", "OneHot", "Trilu"];

pub(super) fn write(g: &mut Graph, node: &NodeProto) -> Outcome {
    match node.op_type.as_str() {
        "ArgMax" | "ArgMin" => extreme(g, node),
        "CumSum" => sums(g, node),
        "OneHot" => marks(g, node),
        _ => triangle(g, node),
    }
}

/// Ends a run in which an axis is longer than floats can count.
fn expect_countable(g: &mut Graph, dim: &Extent) -> Outcome {
    let left = Extent::from(WHOLE_FLOAT_MAX).minus(dim)?;
    match left.known() {
        Some(left) if left < 0 => Err("its axis is too long".to_owned()),
        Some(_) => Ok(()),
        None => {
            g.extents.natural(&left);
            Ok(())
        }
    }
}

/// The numbers from nothing on, as many as a size says, along the first of so many axes.
fn count_up(g: &mut Graph, dim: &Extent, rank: usize) -> Result<String, String> {
    let (start, end, step) = (g.scalar(&0.into()), g.scalar(dim), g.scalar(&1.into()));
    let fact = Fact { range: (0, WHOLE_FLOAT_MAX), ..Fact::new(DType::I64, vec![dim.clone()]) };
    let places = g.step_with("Range", &[&start, &end, &step], vec![], fact)?;
    let mut dims: Dims = vec![1.into(); rank];
    if let Some(first) = dims.first_mut() {
        *first = dim.clone();
    }
    g.reshaped(&places, dims)
}

fn cast(g: &mut Graph, from: &str, to: i32) -> Result<String, String> {
    let own = g.fact_of(from)?.clone();
    let dtype = if to == FLOAT { DType::F32 } else { DType::I64 };
    let fact = Fact { dtype, elements: None, ..own };
    g.step_with("Cast", &[from], vec![("to", Written::Int(to.into()))], fact)
}

/// The first place of the extreme, or the last.
fn extreme(g: &mut Graph, node: &NodeProto) -> Outcome {
    expect_inputs(node, 1..=1)?;
    expect_attributes(node, &["axis", "keepdims", "select_last_index"])?;
    let dims = g.float_dims(node, 0)?;
    let axis = axis_of(int(node, "axis", 0), dims.len())?;
    expect_countable(g, &dims[axis])?;
    if dims[axis].is(0) {
        return Err("it has no elements".to_owned());
    }
    // In a run, too.
    let more = dims[axis].minus(&1.into())?;
    g.extents.natural(&more);
    let x = node.input[0].as_str();
    let (op, least) = match node.op_type.as_str() {
        "ArgMax" => ("ReduceMax", f32::NEG_INFINITY),
        _ => ("ReduceMin", f32::INFINITY),
    };
    // What is no number is passed over, but in the first place, where nothing is compared with it.
    let truth = Fact::new(DType::Bool, dims.clone());
    let odd = g.step_with("IsNaN", &[x], vec![], truth.clone())?;
    let least = g.number(least);
    let clean = g.step("Where", &[&odd, &least, x], &dims)?;
    let best = g.new_name("step");
    over(g, op, &clean, &best, &[axis], true)?;
    let is_best = g.step_with("Equal", &[&clean, &best], vec![], truth.clone())?;
    let is_number = g.step_with("Not", &[&odd], vec![], truth.clone())?;
    let is_best = g.step_with("And", &[&is_best, &is_number], vec![], truth)?;
    let places = count_up(g, &dims[axis], dims.len() - axis)?;
    let places = cast(g, &places, FLOAT)?;
    let is_last = int(node, "select_last_index", 0) != 0;
    let none = g.number(if is_last { -1.0 } else { WHOLE_FLOAT_MAX as f32 });
    let found = g.step("Where", &[&is_best, &places, &none], &dims)?;
    let keeps = int(node, "keepdims", 1) != 0;
    let place = g.new_name("step");
    let choice = if is_last { "ReduceMax" } else { "ReduceMin" };
    over(g, choice, &found, &place, &[axis], keeps)?;
    let left = g.fact_of(&place)?.dims.clone();
    let mut first = dims;
    first[axis] = 1.into();
    let [start, end, axes] = [0, 1, axis as i64].map(|own| g.ints(&[own]));
    let first = Fact::new(DType::Bool, first);
    let first = g.step_with("Slice", &[&odd, &start, &end, &axes], vec![], first)?;
    let first = g.reshaped(&first, left.clone())?;
    let zero = g.number(0.0);
    let place = g.step("Where", &[&first, &zero, &place], &left)?;
    let fact = Fact::new(DType::I64, left);
    let fact = Fact { range: (0, WHOLE_FLOAT_MAX), ..fact };
    let to = vec![("to", Written::Int(INT64.into()))];
    g.emit_all("Cast", &[&place], to, &[(output(node), fact)])
}

/// Of floats, or of whole numbers whose sums floats hold.
fn sums(g: &mut Graph, node: &NodeProto) -> Outcome {
    expect_inputs(node, 2..=2)?;
    expect_attributes(node, &["exclusive", "reverse"])?;
    let [axis] = g.integers(node, 1)?[..] else { return Err("it has no one axis".to_owned()) };
    if int(node, "exclusive", 0) != 0 || int(node, "reverse", 0) != 0 {
        return Err("it leaves out or goes back".to_owned());
    }
    let fact = g.fact(node, 0)?.clone();
    let axis = axis_of(axis, fact.dims.len())?;
    let place = g.scalar(&(axis as i64).into());
    if fact.is_float() {
        return g.emit("CumSum", &[&node.input[0], &place], output(node), vec![], fact.dims);
    }
    if fact.dtype == DType::Bool || fact.range.0 < 0 || fact.range.1 > 1 {
        return Err("its sums may be larger than floats hold".to_owned());
    }
    expect_countable(g, &fact.dims[axis])?;
    let x = cast(g, &node.input[0], FLOAT)?;
    let sum = g.step("CumSum", &[&x, &place], &fact.dims)?;
    let own = Fact { range: (0, WHOLE_FLOAT_MAX), elements: None, ..fact };
    let to = vec![("to", Written::Int(number_of(own.dtype).into()))];
    g.emit_all("Cast", &[&sum], to, &[(output(node), own)])
}

/// One value at the indices, which may count from the end, and another elsewhere.
fn marks(g: &mut Graph, node: &NodeProto) -> Outcome {
    expect_inputs(node, 3..=3)?;
    expect_attributes(node, &["axis"])?;
    let which = g.fact(node, 0)?.clone();
    let [depth] = &g.numbers(node, 1)?[..] else { return Err("it has no one depth".to_owned()) };
    let depth = g.extents.natural(depth);
    let [off, on] = g.floats(node, 2)?[..] else { return Err("it has no two values".to_owned()) };
    if which.dtype != DType::I64 {
        return Err(format!("its indices are of {}", which.dtype));
    }
    let axis = axis_of(int(node, "axis", -1), which.dims.len() + 1)?;
    let mut dims = which.dims;
    dims.insert(axis, 1.into());
    let own = g.reshaped(&node.input[0], dims.clone())?;
    dims[axis] = depth.clone();
    let places = count_up(g, &depth, dims.len() - axis)?;
    let size = g.scalar(&depth);
    let from_end = g.fact_of(&places)?.clone();
    let from_end = g.step_with("Sub", &[&places, &size], vec![], from_end)?;
    let truth = Fact::new(DType::Bool, dims.clone());
    let ahead = g.step_with("Equal", &[&own, &places], vec![], truth.clone())?;
    let behind = g.step_with("Equal", &[&own, &from_end], vec![], truth.clone())?;
    let either = g.step_with("Or", &[&ahead, &behind], vec![], truth)?;
    let (on, off) = (g.number(on), g.number(off));
    g.emit("Where", &[&either, &on, &off], output(node), vec![], dims)
}

fn triangle(g: &mut Graph, node: &NodeProto) -> Outcome {
    expect_inputs(node, 1..=2)?;
    expect_attributes(node, &["upper"])?;
    let dims = g.float_dims(node, 0)?;
    let diagonal = match input(node, 1) {
        Some(_) => g.integers(node, 1)?,
        None => vec![0],
    };
    let (2.., [diagonal @ -65_536..=65_536]) = (dims.len(), &diagonal[..]) else {
        return Err("it has no matrices, or another diagonal than is known".to_owned());
    };
    let diagonal = g.scalar(&(*diagonal).into());
    let upper = vec![("upper", Written::Int((int(node, "upper", 1) != 0).into()))];
    g.emit("Trilu", &[&node.input[0], &diagonal], output(node), upper, dims)
}

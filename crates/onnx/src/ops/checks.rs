//! Checks that give nothing but an error: where they fail.
//!
//! Invariant: a check that is said to fail nowhere never fails.

use vesta_model::DType;
use vesta_protos::tensorflow::attr_value::Value as Attribute;

use super::guards::{count, if_none, test, whole};
use super::{elementwise, expect_dtype, expect_movable, lists, shaping};
use crate::call::Call;
use crate::constant::Constant;
use crate::graph::Graph;
use crate::refusal::{Reason, refuse};
use crate::value::{Dim, Value, ValueId};

/// The attribute of an `Assert` that has what it says, as freezing writes it.
const ASSERTED: &str = "_asserted";

/// An int64 zero (scalar) in a run that passes the check; `None` when every run does.
pub(crate) fn passed(g: &mut Graph, c: &Call<'_>) -> Result<Option<String>, Reason> {
    let Some(truths) = failing(g, c)? else { return Ok(None) };
    let number = count(g, &truths);
    let zero = g.scalar(DType::I64, 0.0)?;
    Ok(Some(if_none(g, &zero, &number, &error(c))))
}

/// What TensorFlow says where the check fails, without the numbers of the run.
fn error(c: &Call<'_>) -> String {
    let text = |attribute: &str| match c.attribute(attribute) {
        Some(Attribute::S(text)) => String::from_utf8_lossy(text).into_owned(),
        _ => String::new(),
    };
    match c.node.op.as_str() {
        "Assert" => format!("assertion failed: {}", text(ASSERTED)),
        "EnsureShape" => {
            format!("Shape of tensor {} is not compatible with expected shape.", c.node.name)
        }
        _ => format!("{} : Tensor had NaN or Inf values", text("message")),
    }
}

/// Truths, one of which holds where the check fails; `None` when none ever does.
fn failing(g: &mut Graph, c: &Call<'_>) -> Result<Option<String>, Reason> {
    match c.node.op.as_str() {
        "Assert" => condition(g, c),
        "CheckNumerics" | "CheckNumericsV2" => {
            let id = c.input(0)?;
            let finite = elementwise::finite(g, id)?;
            let (name, dims) = (g.plain(finite), g.get(finite).dims.clone());
            Ok(Some(g.emit("Not", &[&name], vec![], DType::Bool, dims)))
        }
        "EnsureShape" => shape(g, c),
        _ => within(g, c.input(0)?),
    }
}

fn condition(g: &mut Graph, c: &Call<'_>) -> Result<Option<String>, Reason> {
    let id = c.input(0)?;
    let value = g.get(id);
    expect_dtype(value.dtype, &[DType::Bool])?;
    let known = value.constant.as_ref().and_then(Constant::to_ints);
    match known {
        Some(values) if values.iter().all(|&value| value == 1) => Ok(None),
        Some(_) => refuse("a check that always fails"),
        None => {
            let (name, dims) = (g.plain(id), g.get(id).dims.clone());
            Ok(Some(g.emit("Not", &[&name], vec![], DType::Bool, dims)))
        }
    }
}

/// Checks within a branch or loop, which fail there: nothing more can, once it has given `id`.
fn within(g: &mut Graph, id: ValueId) -> Result<Option<String>, Reason> {
    let (dtype, dims) = (g.get(id).dtype, g.get(id).dims.clone());
    expect_movable(dtype)?;
    let name = g.plain(id);
    if dtype != DType::Bool {
        return Ok(Some(test(g, "Less", &name, &name, &dims)));
    }
    let other = g.emit("Not", &[&name], vec![], DType::Bool, dims.clone());
    Ok(Some(test(g, "And", &name, &other, &dims)))
}

fn shape(g: &mut Graph, c: &Call<'_>) -> Result<Option<String>, Reason> {
    let id = c.input(0)?;
    let Some(Attribute::Shape(wanted)) = c.attribute("shape") else {
        return refuse("it names no shape");
    };
    if wanted.unknown_rank {
        return Ok(None);
    }
    let wanted: Vec<i64> = wanted.dim.iter().map(|dim| dim.size).collect();
    let dims = g.dims(id)?;
    if dims.len() != wanted.len() {
        return refuse(format!("a check for {} axes of a tensor of {}", wanted.len(), dims.len()));
    }
    let is_sure =
        |(dim, &size): (&Dim, &i64)| size < 0 || dim.known() == usize::try_from(size).ok();
    if dims.iter().zip(&wanted).all(is_sure) {
        return Ok(None);
    }
    let line = Some(vec![Dim::Known(wanted.len())]);
    let own = shaping::runtime_shape(g, id);
    let (wanted, zero) = (g.ints(&wanted), g.scalar(DType::I64, 0.0)?);
    let is_open = test(g, "Less", &wanted, &zero, &line);
    let is_same = test(g, "Equal", &own, &wanted, &line);
    let fits = test(g, "Or", &is_open, &is_same, &line);
    Ok(Some(g.emit("Not", &[&fits], vec![], DType::Bool, line)))
}

/// What was fetched, in a run that fails unless these zeros are there. A handle has no value that
/// could wait for that; what a body gives besides does.
pub(crate) fn guarded(g: &mut Graph, fetched: Vec<ValueId>, zeros: &[String]) -> Vec<ValueId> {
    let add = |sum: String, zero: &String| whole(g, "Add", &sum, zero, &Some(vec![]));
    let Some((first, others)) = zeros.split_first() else { return fetched };
    let zero = others.iter().fold(first.clone(), add);
    let guard = |id: ValueId, g: &mut Graph| {
        let value = g.get(id).clone();
        if value.dtype == DType::Resource || lists::is_unmade(&value) {
            return id;
        }
        let name = g.plain(id);
        let plain = Some(if_none(g, &name, &zero, "a check failed"));
        g.add(Value { plain, list: value.list, ..Value::new(value.dtype, value.dims) })
    };
    fetched.into_iter().map(|id| guard(id, g)).collect()
}

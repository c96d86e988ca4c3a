//! Checks that give nothing but an error: where they fail.
//!
//! Invariant: a check that is said to fail nowhere never fails.

use vesta_model::DType;
use vesta_protos::tensorflow::attr_value::Value as Attribute;

use super::guards::{count, test, whole};
use super::{elementwise, expect_dtype, expect_movable, shaping};
use crate::call::Call;
use crate::constant::Constant;
use crate::graph::Graph;
use crate::refusal::{Reason, refuse};
use crate::value::{Dim, ValueId};

/// Truths, one of which holds where the check fails; `None` when none ever does.
pub(crate) fn failing(g: &mut Graph, c: &Call<'_>) -> Result<Option<String>, Reason> {
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

/// How many of these truths hold, as an int64 scalar.
pub(crate) fn number_of(g: &mut Graph, truths: &[String]) -> String {
    let mut sum: Option<String> = None;
    for truths in truths {
        let more = count(g, truths);
        sum = Some(match sum {
            None => more,
            Some(sum) => whole(g, "Add", &sum, &more, &Some(vec![])),
        });
    }
    sum.unwrap_or_default()
}

//! Tensors made from their shape.

use vesta_model::DType;

use super::shaping::{runtime_shape, target_dims};
use super::{NUMBERS, expect_dtype};
use crate::call::Call;
use crate::graph::{Attr, Graph};
use crate::refusal::{Reason, refuse};
use crate::registry::{Family, Outcome};
use crate::value::{Dim, Dims, ValueId};

pub(super) const FAMILY: Family = &[
    ("Fill", fill),
    ("OnesLike", |g, c| like(g, c, 1.0)),
    ("Range", range),
    ("ZerosLike", |g, c| like(g, c, 0.0)),
];

fn fill(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let (target, value) = (c.input(0)?, c.input(1)?);
    let dtype = g.get(value).dtype;
    if dtype != DType::Bool {
        expect_dtype(dtype, NUMBERS)?;
    }
    let dims: Dims = match g.get(target).elements.clone() {
        Some(elements) => Some(target_dims(g, &elements)?),
        None => match g.get(target).dims.as_deref() {
            Some([Dim::Known(rank)]) => Some(g.symbols(*rank)),
            _ => None,
        },
    };
    let (value, shape) = (g.plain(value), g.wide(target)?);
    let name = g.emit("Expand", &[&value, &shape], vec![], dtype, dims);
    Ok(vec![g.result(name)])
}

fn like(g: &mut Graph, c: &Call<'_>, value: f64) -> Outcome {
    let id = c.input(0)?;
    let (dtype, dims) = (g.get(id).dtype, g.get(id).dims.clone());
    let value = g.scalar(dtype, value)?;
    let shape = shape_of(g, id)?;
    let name = g.emit("Expand", &[&value, &shape], vec![], dtype, dims);
    Ok(vec![g.result(name)])
}

/// The sizes of a tensor, stated when they are known.
fn shape_of(g: &mut Graph, id: ValueId) -> Result<String, Reason> {
    match crate::value::known_dims(&g.get(id).dims) {
        Some(dims) => {
            let sizes: Vec<i64> = dims.iter().map(|&n| n as i64).collect();
            Ok(g.ints(&sizes))
        }
        None => Ok(runtime_shape(g, id)),
    }
}

fn range(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let ids: Vec<ValueId> = vec![c.input(0)?, c.input(1)?, c.input(2)?];
    let dtype = g.get(ids[0]).dtype;
    expect_dtype(dtype, &[DType::F32, DType::F64, DType::I32, DType::I64])?;
    let step = g.get(ids[2]).constant.clone();
    let steps = step.as_ref().and_then(crate::constant::Constant::to_ints);
    if matches!(dtype, DType::I32 | DType::I64) && steps.is_none_or(|all| all == [0]) {
        return refuse("its step is 0 or known only when the model runs");
    }
    let names: Vec<String> = ids.iter().map(|&id| g.plain(id)).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let size = g.symbol();
    // The operator set has no attributes for it; those of later ones are their defaults.
    let attributes: Vec<(&'static str, Attr)> = vec![];
    let name = g.emit("Range", &names, attributes, dtype, Some(vec![size]));
    Ok(vec![g.result(name)])
}

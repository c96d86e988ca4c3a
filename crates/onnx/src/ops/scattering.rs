//! Writing by indices, and telling equal values apart.
//!
//! Invariant: an index that TensorFlow refuses is refused by the engine too; see
//! [`super::gathering`].

use vesta_model::DType;

use super::gathering::guarded_wide;
use super::{NUMBERS, expect_dtype};
use crate::call::Call;
use crate::graph::{Attr, Graph};
use crate::refusal::refuse;
use crate::registry::{Family, Outcome};
use crate::value::{Dim, Dims};

pub(super) const FAMILY: Family = &[
    ("ScatterNd", scatter_nd),
    ("TensorScatterAdd", |g, c| scatter_into(g, c, "add")),
    ("TensorScatterMax", |g, c| scatter_into(g, c, "max")),
    ("TensorScatterMin", |g, c| scatter_into(g, c, "min")),
    ("TensorScatterSub", |g, c| scatter_into(g, c, "sub")),
    ("TensorScatterUpdate", |g, c| scatter_into(g, c, "none")),
    ("Unique", unique),
    ("UniqueV2", unique),
    ("UniqueWithCounts", unique),
    ("UniqueWithCountsV2", unique),
];

/// Into zeros; what is written to one place twice is added.
fn scatter_nd(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let (indices, updates, target) = (c.input(0)?, c.input(1)?, c.input(2)?);
    let dtype = g.get(updates).dtype;
    expect_dtype(dtype, NUMBERS)?;
    let dims: Dims = match g.get(target).elements.clone() {
        Some(elements) => Some(super::shaping::target_dims(g, &elements)?),
        None => match g.get(target).dims.as_deref() {
            Some([Dim::Known(rank)]) => Some(g.symbols(*rank)),
            _ => None,
        },
    };
    let (zero, shape) = (g.scalar(dtype, 0.0)?, g.wide(target)?);
    let zeros = g.emit("Expand", &[&zero, &shape], vec![], dtype, dims.clone());
    let (indices, updates) = (guarded_wide(g, indices)?, g.plain(updates));
    let attributes = vec![("reduction", Attr::Text("add"))];
    let name = g.emit("ScatterND", &[&zeros, &indices, &updates], attributes, dtype, dims);
    Ok(vec![g.result(name)])
}

fn scatter_into(g: &mut Graph, c: &Call<'_>, reduction: &'static str) -> Outcome {
    let (id, indices, updates) = (c.input(0)?, c.input(1)?, c.input(2)?);
    let dtype = g.get(id).dtype;
    if dtype != DType::Bool || reduction != "none" {
        expect_dtype(dtype, NUMBERS)?;
    }
    let dims = g.get(id).dims.clone();
    let (name, mut updates_name) = (g.plain(id), g.plain(updates));
    let indices = guarded_wide(g, indices)?;
    let reduction = if reduction == "sub" {
        expect_dtype(dtype, super::SIGNED)?;
        let dims = g.get(updates).dims.clone();
        updates_name = g.emit("Neg", &[&updates_name], vec![], dtype, dims);
        "add"
    } else {
        reduction
    };
    let attributes = vec![("reduction", Attr::Text(reduction))];
    let name = g.emit("ScatterND", &[&name, &indices, &updates_name], attributes, dtype, dims);
    Ok(vec![g.result(name)])
}

/// In the order in which they are seen first.
fn unique(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let id = c.input(0)?;
    let dtype = g.get(id).dtype;
    expect_dtype(dtype, NUMBERS)?;
    let dims = g.dims(id)?;
    if dims.len() != 1 {
        return refuse(format!("it looks at a tensor of rank {}", dims.len()));
    }
    if c.node.op.ends_with("V2") && !matches!(g.constant_ints(c.input(1)?, "axis")?[..], [] | [0]) {
        return refuse("it tells slices apart");
    }
    let output = c.dtype("out_idx", DType::I32)?;
    expect_dtype(output, &[DType::I32, DType::I64])?;
    let count = vec![g.symbol()];
    // More engines compare the wider of the whole numbers.
    let is_narrow = dtype == DType::I32;
    let name = if is_narrow { g.wide(id)? } else { g.plain(id) };
    let held = if is_narrow { DType::I64 } else { dtype };
    let given = vec![
        (held, Some(count.clone())),
        (DType::I64, Some(count.clone())),
        (DType::I64, Some(dims)),
        (DType::I64, Some(count)),
    ];
    let names = g.emit_many("Unique", &[&name], vec![("sorted", Attr::Int(0))], given);
    let [values, _, places, counts] = &names[..] else { return refuse("it gives four tensors") };
    let values = values.clone();
    let values = if is_narrow { g.narrowed(values, dtype) } else { g.result(values) };
    let mut results = vec![values, g.narrowed(places.clone(), output)];
    if c.node.op.starts_with("UniqueWithCounts") {
        results.push(g.narrowed(counts.clone(), output));
    }
    Ok(results)
}

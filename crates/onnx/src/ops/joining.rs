//! Joining tensors, taking them apart, repeating them.

use vesta_model::DType;

use super::layout::is_channels_first;
use super::{expect_movable, guards};
use crate::call::Call;
use crate::graph::{Attr, Graph, axis_of};
use crate::refusal::{Reason, refuse};
use crate::registry::{Family, Outcome};
use crate::translate::alias;
use crate::value::{Dim, Element, ValueId, permute, to_channels_first};

pub(super) const FAMILY: Family = &[
    ("BroadcastTo", broadcast_to),
    ("Concat", |g, c| match c.inputs.split_first() {
        Some((&axis, parts)) => concat(g, parts, axis),
        None => refuse("it has no inputs"),
    }),
    ("ConcatV2", |g, c| match c.inputs.split_last() {
        Some((&axis, parts)) => concat(g, parts, axis),
        None => refuse("it has no inputs"),
    }),
    ("Pack", pack),
    ("Split", split_evenly),
    ("SplitV", split_by_sizes),
    ("Tile", tile),
    ("Unpack", unpack),
];

fn concat(g: &mut Graph, parts: &[ValueId], axis: ValueId) -> Outcome {
    let axis = g.constant_int(axis, "axis")?;
    let Some(&first) = parts.first() else { return refuse("it joins nothing") };
    let dtype = g.get(first).dtype;
    expect_movable(dtype)?;
    let mut dims = g.dims(first)?;
    let rank = dims.len();
    let axis = axis_of(axis, rank)?;
    if parts.len() == 1 {
        return Ok(vec![alias(g, first)]);
    }
    let mut along = Some(0usize);
    for &part in parts {
        let own = g.dims(part)?;
        if own.len() != rank {
            return refuse("it joins tensors of different ranks");
        }
        along = along.zip(own[axis].known()).and_then(|(a, b)| a.checked_add(b));
        for (dim, other) in dims.iter_mut().zip(&own) {
            if other.known().is_some() {
                *dim = *other;
            }
        }
    }
    dims[axis] = along.map_or_else(|| g.symbol(), Dim::Known);
    let moved = parts.iter().any(|&part| is_channels_first(g, part))
        && parts
            .iter()
            .all(|&part| g.get(part).channels_first.is_some() || g.get(part).constant.is_some());
    let order = if moved { to_channels_first(rank) } else { (0..rank).collect() };
    let mut names = Vec::new();
    for &part in parts {
        names.push(if moved { g.channels_first(part)? } else { g.plain(part) });
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let at = order.iter().position(|&a| a == axis).unwrap_or(axis);
    let attributes = vec![("axis", Attr::Int(at as i64))];
    let name = g.emit("Concat", &names, attributes, dtype, Some(permute(&dims, &order)));
    Ok(vec![if moved { g.result_channels_first(name) } else { g.result(name) }])
}

fn pack(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let first = c.input(0)?;
    let dtype = g.get(first).dtype;
    expect_movable(dtype)?;
    let mut dims = g.dims(first)?;
    let axis = axis_of(c.int("axis", 0)?, dims.len() + 1)?;
    dims.insert(axis, Dim::Known(1));
    // Whole numbers, mostly sizes, join as int64, which is what a `Reshape` reads.
    let wide = dtype == DType::I32;
    let axes = g.ints(&[axis as i64]);
    let mut names = Vec::new();
    for &part in &c.inputs {
        let name = if wide { g.wide(part)? } else { g.plain(part) };
        let of = if wide { DType::I64 } else { dtype };
        names.push(g.emit("Unsqueeze", &[&name, &axes], vec![], of, Some(dims.clone())));
    }
    dims[axis] = Dim::Known(names.len());
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let attributes = vec![("axis", Attr::Int(axis as i64))];
    let of = if wide { DType::I64 } else { dtype };
    let name = g.emit("Concat", &names, attributes, of, Some(dims));
    Ok(vec![if wide { g.narrowed(name, dtype) } else { g.result(name) }])
}

fn unpack(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let id = c.input(0)?;
    let dims = g.dims(id)?;
    let axis = axis_of(c.int("axis", 0)?, dims.len())?;
    let count = usize::try_from(c.int("num", 0)?).unwrap_or(0);
    let parts = split(g, id, axis, &vec![1; count])?;
    let mut kept = dims;
    kept.remove(axis);
    let axes = g.ints(&[axis as i64]);
    let dtype = g.get(id).dtype;
    let mut results = Vec::new();
    for part in parts {
        let name = g.plain(part);
        let name = g.emit("Squeeze", &[&name, &axes], vec![], dtype, Some(kept.clone()));
        results.push(g.result(name));
    }
    Ok(results)
}

/// Outputs of one node that more than this many would be an attack rather than a model.
const PARTS_MAX: usize = 1 << 16;

fn split(g: &mut Graph, id: ValueId, axis: usize, sizes: &[usize]) -> Result<Vec<ValueId>, Reason> {
    let (dims, dtype) = (g.dims(id)?, g.get(id).dtype);
    expect_movable(dtype)?;
    if sizes.is_empty() || sizes.len() > PARTS_MAX {
        return refuse(format!("it makes {} parts", sizes.len()));
    }
    let moved = is_channels_first(g, id);
    let order = if moved { to_channels_first(dims.len()) } else { (0..dims.len()).collect() };
    let given = sizes
        .iter()
        .map(|&size| {
            let mut dims = dims.clone();
            dims[axis] = Dim::Known(size);
            (dtype, Some(permute(&dims, &order)))
        })
        .collect();
    let name = if moved { g.channels_first(id)? } else { g.plain(id) };
    let numbers: Vec<i64> = sizes.iter().map(|&n| n as i64).collect();
    let numbers = g.ints(&numbers);
    let at = order.iter().position(|&a| a == axis).unwrap_or(axis);
    let attributes = vec![("axis", Attr::Int(at as i64))];
    let names = g.emit_many("Split", &[&name, &numbers], attributes, given);
    Ok(names
        .into_iter()
        .map(|name| if moved { g.result_channels_first(name) } else { g.result(name) })
        .collect())
}

fn split_evenly(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let id = c.input(1)?;
    let dims = g.dims(id)?;
    let axis = axis_of(g.constant_int(c.input(0)?, "axis")?, dims.len())?;
    let count = usize::try_from(c.int("num_split", 0)?).unwrap_or(0);
    match dims[axis] {
        Dim::Known(n) if count > 0 && count <= PARTS_MAX && n % count == 0 => {
            split(g, id, axis, &vec![n / count; count])
        }
        Dim::Known(n) => refuse(format!("{count} equal parts of {n}")),
        Dim::Symbol(_) if (1..=PARTS_MAX).contains(&count) => split_by_run(g, id, axis, count),
        Dim::Symbol(_) => refuse(format!("{count} equal parts")),
    }
}

/// Equal parts of a size that is computed in the run, which fails where they do not make up all of it.
fn split_by_run(g: &mut Graph, id: ValueId, axis: usize, count: usize) -> Outcome {
    let (dims, dtype) = (g.dims(id)?, g.get(id).dtype);
    expect_movable(dtype)?;
    let name = g.plain(id);
    let one = Some(vec![Dim::Known(1)]);
    let (size, divisor) = (guards::sizes(g, &name, axis, Some(axis + 1)), g.ints(&[count as i64]));
    let each = guards::whole(g, "Div", &size, &divisor, &one);
    let all = Some(vec![Dim::Known(count)]);
    let numbers = g.emit("Expand", &[&each, &divisor], vec![], DType::I64, all);
    let mut part = dims;
    part[axis] = g.symbol();
    let attributes = vec![("axis", Attr::Int(axis as i64))];
    let given = vec![(dtype, Some(part)); count];
    let names = g.emit_many("Split", &[&name, &numbers], attributes, given);
    Ok(names.into_iter().map(|name| g.result(name)).collect())
}

fn split_by_sizes(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let id = c.input(0)?;
    let sizes = g.constant_ints(c.input(1)?, "sizes")?;
    let dims = g.dims(id)?;
    let axis = axis_of(g.constant_int(c.input(2)?, "axis")?, dims.len())?;
    let stated: usize =
        sizes.iter().filter_map(|&n| usize::try_from(n).ok()).fold(0, usize::saturating_add);
    let rest = dims[axis].known().and_then(|n| n.checked_sub(stated));
    let sizes: Option<Vec<usize>> =
        sizes.iter().map(|&n| if n == -1 { rest } else { usize::try_from(n).ok() }).collect();
    match sizes {
        Some(sizes) => split(g, id, axis, &sizes),
        None => refuse("a part whose size is known only when the model runs"),
    }
}

fn tile(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let (id, times) = (c.input(0)?, c.input(1)?);
    let dtype = g.get(id).dtype;
    expect_movable(dtype)?;
    let dims = g.dims(id)?;
    let factors = g.get(times).elements.clone();
    let mut tiled = Vec::new();
    for (i, dim) in dims.iter().enumerate() {
        let factor = factors.as_ref().and_then(|all| all.get(i).copied());
        tiled.push(match (dim, factor) {
            (dim, Some(Element::Known(1))) => *dim,
            (Dim::Known(1), Some(Element::Size(symbol))) => Dim::Symbol(symbol),
            (Dim::Known(n), Some(Element::Known(k))) => match usize::try_from(k) {
                Ok(k) => Dim::Known(n.saturating_mul(k)),
                Err(_) => return refuse("a negative number of repetitions"),
            },
            _ => g.symbol(),
        });
    }
    let (name, times) = (g.plain(id), g.wide(times)?);
    let name = g.emit("Tile", &[&name, &times], vec![], dtype, Some(tiled));
    Ok(vec![g.result(name)])
}

fn broadcast_to(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let (id, target) = (c.input(0)?, c.input(1)?);
    let dtype = g.get(id).dtype;
    expect_movable(dtype)?;
    let dims = match g.get(target).elements.clone() {
        Some(elements) => Some(super::shaping::target_dims(g, &elements)?),
        None => match g.get(target).dims.as_deref() {
            Some([Dim::Known(rank)]) => Some(g.symbols(*rank)),
            _ => None,
        },
    };
    let (name, shape) = (g.plain(id), g.wide(target)?);
    let name = g.emit("Expand", &[&name, &shape], vec![], dtype, dims);
    Ok(vec![g.result(name)])
}

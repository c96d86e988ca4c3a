//! Operators that change a tensor's shape or the order of its axes, and those that ask for it.

use vesta_model::DType;

use super::guards;
use crate::call::Call;
use crate::graph::{Attr, Graph, axis_of};
use crate::refusal::{Reason, refuse};
use crate::registry::{Family, Outcome};
use crate::translate::alias;
use crate::value::{
    Dim, Dims, Element, Value, ValueId, known_dims, permute, to_channels_first, to_channels_last,
};

pub(super) const FAMILY: Family = &[
    ("BroadcastArgs", broadcast_sizes),
    ("ExpandDims", expand_dims),
    ("Rank", rank),
    ("Reshape", reshape),
    ("Shape", shape),
    ("ShapeN", |g, c| {
        let one = |&id: &ValueId| Ok(shape(g, &Call { inputs: vec![id], ..c.clone() })?[0]);
        c.inputs.iter().map(one).collect()
    }),
    ("Size", size),
    ("Squeeze", squeeze),
    ("Transpose", transpose),
];

fn reshape(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let (id, target) = (c.input(0)?, c.input(1)?);
    let elements = g.get(target).elements.clone();
    if let Some(elements) = &elements
        && let Some((sizes, dims)) = static_target(g, id, elements)
    {
        if known_dims(&Some(dims.clone())).is_some() && g.get(id).dims.as_ref() == Some(&dims) {
            return Ok(vec![alias(g, id)]);
        }
        let name = g.plain(id);
        let reshaped = g.reshape(&name, &sizes, Some(dims));
        return Ok(vec![g.result(reshaped)]);
    }
    let dims: Dims = match &elements {
        Some(elements) => Some(target_dims(g, elements)?),
        None => match g.get(target).dims.as_deref() {
            Some([Dim::Known(rank)]) => Some(g.symbols(*rank)),
            _ => None,
        },
    };
    let (name, shape) = (g.plain(id), g.wide(target)?);
    let dtype = g.get(id).dtype;
    // A size that is 0 in a run means 0, not "as before".
    let allow_zero = !elements.as_ref().is_some_and(|all| all.contains(&Element::Known(-1)));
    let attributes = vec![("allowzero", Attr::Int(i64::from(allow_zero)))];
    let reshaped = g.emit("Reshape", &[&name, &shape], attributes, dtype, dims);
    Ok(vec![g.result(reshaped)])
}

/// Sizes for ONNX when they can be stated now: all known but one, which is either -1 or surely
/// the one that is left over.
fn static_target(g: &mut Graph, id: ValueId, elements: &[Element]) -> Option<(Vec<i64>, Vec<Dim>)> {
    let from = g.get(id).dims.clone();
    let mut sizes = Vec::new();
    let mut dims = Vec::new();
    let mut open = None;
    for (i, element) in elements.iter().enumerate() {
        match element {
            Element::Known(n) if *n > 0 => {
                sizes.push(*n);
                dims.push(Dim::Known(usize::try_from(*n).ok()?));
            }
            Element::Known(-1) | Element::Size(_) if open.is_none() => {
                open = Some((i, *element));
                sizes.push(-1);
                dims.push(Dim::Known(1));
            }
            _ => return None,
        }
    }
    let Some((at, element)) = open else { return Some((sizes, dims)) };
    let left = from.as_deref().and_then(|from| left_over(from, &dims));
    dims[at] = match (left, element) {
        (Some(dim), Element::Known(_)) => dim,
        (Some(dim), Element::Size(symbol)) if dim == Dim::Symbol(symbol) => dim,
        (None, Element::Known(_)) => g.symbol(),
        _ => return None,
    };
    Some((sizes, dims))
}

/// The size that is left of `from` for the one open place in `to`, where it is counted as 1.
fn left_over(from: &[Dim], to: &[Dim]) -> Option<Dim> {
    let known = |dims: &[Dim]| {
        dims.iter().filter_map(|d| d.known()).try_fold(1usize, |n, d| n.checked_mul(d))
    };
    let symbols: Vec<Dim> = from.iter().copied().filter(|d| d.known().is_none()).collect();
    let (from, to) = (known(from)?, known(to)?);
    match symbols.as_slice() {
        [] if to != 0 && from % to == 0 => Some(Dim::Known(from / to)),
        [one] if to == from && to != 0 => Some(*one),
        _ => None,
    }
}

/// What a target shape says of the result. Negative sizes other than -1 are no shape.
pub(super) fn target_dims(g: &mut Graph, elements: &[Element]) -> Result<Vec<Dim>, Reason> {
    let mut dims = Vec::new();
    for element in elements {
        dims.push(match element {
            Element::Known(n) => match usize::try_from(*n) {
                Ok(n) => Dim::Known(n),
                Err(_) if *n == -1 => g.symbol(),
                Err(_) => return refuse(format!("a size of {n}")),
            },
            Element::Size(symbol) => Dim::Symbol(*symbol),
            Element::Unknown => g.symbol(),
        });
    }
    Ok(dims)
}

fn expand_dims(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let id = c.input(0)?;
    let axis = g.constant_int(c.input(1)?, "axis")?;
    let mut dims = g.dims(id)?;
    let axis = axis_of(axis, dims.len() + 1)?;
    dims.insert(axis, Dim::Known(1));
    let name = g.plain(id);
    let axes = g.ints(&[axis as i64]);
    let dtype = g.get(id).dtype;
    let name = g.emit("Unsqueeze", &[&name, &axes], vec![], dtype, Some(dims));
    Ok(vec![g.result(name)])
}

fn squeeze(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let id = c.input(0)?;
    let mut axes = c.ints("squeeze_dims", &[])?;
    if axes.is_empty() {
        axes = c.ints("axis", &[])?;
    }
    let dims = g.dims(id)?;
    let mut axes: Vec<usize> =
        axes.iter().map(|&axis| axis_of(axis, dims.len())).collect::<Result<_, _>>()?;
    if axes.is_empty() {
        if known_dims(&Some(dims.clone())).is_none() {
            return refuse("it drops all axes of size 1 of a tensor whose sizes are not known");
        }
        axes = (0..dims.len()).filter(|&axis| dims[axis] == Dim::Known(1)).collect();
    }
    if axes.is_empty() {
        return Ok(vec![alias(g, id)]);
    }
    let kept = dims.iter().enumerate().filter(|(axis, _)| !axes.contains(axis));
    let kept: Vec<Dim> = kept.map(|(_, dim)| *dim).collect();
    let name = drop_axes(g, id, &axes, kept)?;
    Ok(vec![g.result(name)])
}

/// Squeezes from whichever order of axes is there, when both give the same.
fn drop_axes(g: &mut Graph, id: ValueId, axes: &[usize], kept: Vec<Dim>) -> Result<String, Reason> {
    let rank = g.rank(id)?;
    let order = to_channels_first(rank);
    let remaining: Vec<usize> = order.iter().copied().filter(|a| !axes.contains(a)).collect();
    let (name, mut axes) = if super::layout::is_channels_first(g, id) && remaining.is_sorted() {
        let moved = (0..rank).filter(|&at| axes.contains(&order[at])).map(|at| at as i64);
        (g.channels_first(id)?, moved.collect::<Vec<i64>>())
    } else {
        (g.plain(id), axes.iter().map(|&axis| axis as i64).collect())
    };
    axes.sort_unstable();
    axes.dedup();
    let axes = g.ints(&axes);
    let dtype = g.get(id).dtype;
    Ok(g.emit("Squeeze", &[&name, &axes], vec![], dtype, Some(kept)))
}

/// Moving channels is a change of names only when the tensor is there in the other order.
fn transpose(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let id = c.input(0)?;
    let order = g.constant_ints(c.input(1)?, "order of axes")?;
    let order: Vec<usize> =
        order.iter().map(|&axis| axis_of(axis, order.len())).collect::<Result<_, _>>()?;
    let mut sorted = order.clone();
    sorted.sort_unstable();
    if !sorted.into_iter().eq(0..order.len()) {
        return refuse("its order of axes is no permutation");
    }
    let (rank, dtype) = (order.len(), g.get(id).dtype);
    let dims = match g.get(id).dims.clone() {
        Some(dims) if dims.len() == rank => permute(&dims, &order),
        Some(_) => return refuse("its order of axes is for another rank"),
        None => g.symbols(rank),
    };
    if order.iter().copied().eq(0..rank) {
        return Ok(vec![alias(g, id)]);
    }
    let mut result = Value::new(dtype, Some(dims.clone()));
    if order == to_channels_first(rank) {
        result.plain = g.get(id).channels_first.clone();
    } else if order == to_channels_last(rank) {
        result.channels_first = g.get(id).plain.clone();
    }
    if result.plain.is_none() && result.channels_first.is_none() {
        if let Some(constant) = g.get(id).constant.as_ref().and_then(|c| c.permuted(&order)) {
            return Ok(vec![g.constant(constant)]);
        }
        let name = g.plain(id);
        result.plain = Some(g.transpose(&name, &order, dtype, Some(dims)));
    }
    Ok(vec![g.add(result)])
}

/// The int64 value as it is, in a run that fails where one of its numbers is negative: a zero is added
/// to each, which is picked from a place that is not there then.
pub(super) fn none_below_zero(g: &mut Graph, name: &str, dims: Dims) -> Result<String, Reason> {
    let (zero, zeros) = (g.scalar(DType::I64, 0.0)?, g.ints(&[0]));
    let is_below = g.emit("Less", &[name, &zero], vec![], DType::Bool, dims.clone());
    let place = g.cast(&is_below, DType::I64, dims.clone());
    let attributes = vec![("axis", Attr::Int(0))];
    let more = g.emit("Gather", &[&zeros, &place], attributes, DType::I64, dims.clone());
    Ok(g.emit("Add", &[name, &more], vec![], DType::I64, dims))
}

/// The sizes of two tensors combined element by element. The shorter begins with ones.
fn broadcast_sizes(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let ids = [c.input(0)?, c.input(1)?];
    let dtype = g.get(ids[0]).dtype;
    let mut lengths = [0; 2];
    for (length, id) in lengths.iter_mut().zip(ids) {
        let [Dim::Known(known)] = g.dims(id)?[..] else {
            return refuse("how many sizes it combines is known only when the model runs");
        };
        *length = known;
    }
    let rank = lengths[0].max(lengths[1]);
    let line = Some(vec![Dim::Known(rank)]);
    let mut names = Vec::new();
    for (length, id) in lengths.into_iter().zip(ids) {
        let name = g.wide(id)?;
        names.push(if length == rank {
            name
        } else {
            let ones = g.ints(&vec![1; rank - length]);
            guards::joined(g, &[&ones, &name])
        });
    }
    let one = g.scalar(DType::I64, 1.0)?;
    let is_one = guards::test(g, "Equal", &names[0], &one, &line);
    let is_other_one = guards::test(g, "Equal", &names[1], &one, &line);
    let is_same = guards::test(g, "Equal", &names[0], &names[1], &line);
    let either = guards::test(g, "Or", &is_one, &is_other_one, &line);
    let fits = guards::test(g, "Or", &either, &is_same, &line);
    let is_wrong = g.emit("Not", &[&fits], vec![], DType::Bool, line.clone());
    let name = guards::choose(g, [&is_one, &names[1], &names[0]], &line);
    let name = guards::unless(g, &name, &is_wrong, "shapes cannot be broadcast to each other");
    Ok(vec![g.narrowed(name, dtype)])
}

/// The sizes as an int64 value, wherever the tensor lies.
pub(super) fn runtime_shape(g: &mut Graph, id: ValueId) -> String {
    let name = g.plain(id);
    let dims = g.get(id).rank().map(|rank| vec![Dim::Known(rank)]);
    g.emit("Shape", &[&name], vec![("start", Attr::Int(0))], DType::I64, dims)
}

fn shape(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let id = c.input(0)?;
    let dtype = c.dtype("out_type", DType::I32)?;
    let wide = runtime_shape(g, id);
    Ok(vec![g.narrowed(wide, dtype)])
}

fn size(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let id = c.input(0)?;
    let dtype = c.dtype("out_type", DType::I32)?;
    let name = g.plain(id);
    let wide = g.emit("Size", &[&name], vec![], DType::I64, Some(vec![]));
    Ok(vec![g.narrowed(wide, dtype)])
}

/// A known rank was answered before this is asked.
fn rank(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let id = c.input(0)?;
    let shape = runtime_shape(g, id);
    let wide = g.emit("Size", &[&shape], vec![], DType::I64, Some(vec![]));
    Ok(vec![g.narrowed(wide, DType::I32)])
}

//! Reductions over axes that are known, arg-extrema and the largest k.

use vesta_model::DType;

use super::layout::is_channels_first;
use super::{FLOATS, NUMBERS, WIDE_NUMBERS, expect_dtype};
use crate::call::Call;
use crate::graph::{Attr, Graph, axis_of};
use crate::refusal::{Reason, refuse};
use crate::registry::{Family, Outcome};
use crate::translate::alias;
use crate::value::{Dim, ValueId, permute, to_channels_first};

pub(super) const FAMILY: Family = &[
    ("All", |g, c| reduce_bools(g, c, "ReduceMin")),
    ("Any", |g, c| reduce_bools(g, c, "ReduceMax")),
    ("ArgMax", |g, c| arg_extremum(g, c, "ArgMax")),
    ("ArgMin", |g, c| arg_extremum(g, c, "ArgMin")),
    ("Cumsum", cumsum),
    ("EuclideanNorm", |g, c| reduce(g, c, "ReduceL2", FLOATS)),
    ("L2Loss", half_of_squares),
    ("Max", |g, c| reduce(g, c, "ReduceMax", EXTREMA)),
    ("Mean", |g, c| reduce(g, c, "ReduceMean", FLOATS)),
    ("Min", |g, c| reduce(g, c, "ReduceMin", EXTREMA)),
    ("Prod", |g, c| reduce(g, c, "ReduceProd", WIDE_NUMBERS)),
    ("Sum", |g, c| reduce(g, c, "ReduceSum", WIDE_NUMBERS)),
    ("TopK", top_k),
    ("TopKV2", top_k),
];

/// What ONNX takes the extrema of.
const EXTREMA: &[DType] = &[
    DType::F32,
    DType::F64,
    DType::F16,
    DType::I32,
    DType::I64,
    DType::U32,
    DType::U64,
    DType::I8,
    DType::U8,
];

/// The axes of a reduction, ascending, each once.
fn axes(g: &Graph, c: &Call<'_>, rank: usize) -> Result<Vec<usize>, Reason> {
    let axes = g.constant_ints(c.input(1)?, "axes")?;
    let mut axes: Vec<usize> =
        axes.iter().map(|&axis| axis_of(axis, rank)).collect::<Result<_, _>>()?;
    axes.sort_unstable();
    axes.dedup();
    Ok(axes)
}

fn reduce(g: &mut Graph, c: &Call<'_>, op: &'static str, dtypes: &[DType]) -> Outcome {
    let id = c.input(0)?;
    expect_dtype(g.get(id).dtype, dtypes)?;
    let axes = axes(g, c, g.rank(id)?)?;
    if axes.is_empty() {
        return Ok(vec![alias(g, id)]);
    }
    Ok(vec![reduce_over(g, id, op, &axes, c.flag("keep_dims", false)?)?])
}

/// Half the sum of all squares.
fn half_of_squares(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let id = c.input(0)?;
    let dtype = g.get(id).dtype;
    expect_dtype(dtype, &[DType::F32, DType::F64])?;
    let name = g.plain(id);
    let attributes = vec![("keepdims", Attr::Int(0)), ("noop_with_empty_axes", Attr::Int(0))];
    let sum = g.emit("ReduceSumSquare", &[&name], attributes, dtype, Some(vec![]));
    let half = g.scalar(dtype, 0.5)?;
    let name = g.emit("Mul", &[&sum, &half], vec![], dtype, Some(vec![]));
    Ok(vec![g.result(name)])
}

/// The operator set reduces numbers only, so a truth is a number for the while.
fn reduce_bools(g: &mut Graph, c: &Call<'_>, op: &'static str) -> Outcome {
    let id = c.input(0)?;
    expect_dtype(g.get(id).dtype, &[DType::Bool])?;
    let dims = g.dims(id)?;
    let axes = axes(g, c, dims.len())?;
    if axes.is_empty() {
        return Ok(vec![alias(g, id)]);
    }
    if axes.iter().any(|&axis| dims[axis] == Dim::Known(0)) {
        return refuse("it reduces an axis of size 0");
    }
    let name = g.plain(id);
    let numbers = g.cast(&name, DType::I32, Some(dims));
    let numbers = g.result(numbers);
    let reduced = reduce_over(g, numbers, op, &axes, c.flag("keep_dims", false)?)?;
    let (name, dims) = (g.plain(reduced), g.get(reduced).dims.clone());
    let truths = g.cast(&name, DType::Bool, dims);
    Ok(vec![g.result(truths)])
}

/// Reduces a tensor in the order of axes that it lies in, when the result lies in order too.
fn reduce_over(
    g: &mut Graph,
    id: ValueId,
    op: &'static str,
    axes: &[usize],
    keep: bool,
) -> Result<ValueId, Reason> {
    let (dims, dtype) = (g.dims(id)?, g.get(id).dtype);
    let rank = dims.len();
    let order = to_channels_first(rank);
    let in_order = order.iter().filter(|axis| !axes.contains(axis)).collect::<Vec<_>>().is_sorted();
    let moved = is_channels_first(g, id) && (keep || in_order);
    let lying = if moved { order } else { (0..rank).collect() };
    let name = if moved { g.channels_first(id)? } else { g.plain(id) };
    let at: Vec<i64> = (0..rank).filter(|&i| axes.contains(&lying[i])).map(|i| i as i64).collect();
    let reduced: Vec<Dim> = permute(&dims, &lying)
        .into_iter()
        .zip(&lying)
        .filter(|(_, axis)| keep || !axes.contains(axis))
        .map(|(dim, axis)| if axes.contains(axis) { Dim::Known(1) } else { dim })
        .collect();
    let at = g.ints(&at);
    let attributes =
        vec![("keepdims", Attr::Int(keep.into())), ("noop_with_empty_axes", Attr::Int(0))];
    let name = g.emit(op, &[&name, &at], attributes, dtype, Some(reduced));
    Ok(if moved && keep { g.result_channels_first(name) } else { g.result(name) })
}

fn arg_extremum(g: &mut Graph, c: &Call<'_>, op: &'static str) -> Outcome {
    let id = c.input(0)?;
    expect_dtype(g.get(id).dtype, NUMBERS)?;
    let mut dims = g.dims(id)?;
    let axis = axis_of(g.constant_int(c.input(1)?, "axis")?, dims.len())?;
    dims.remove(axis);
    let name = g.plain(id);
    let attributes = vec![
        ("axis", Attr::Int(axis as i64)),
        ("keepdims", Attr::Int(0)),
        ("select_last_index", Attr::Int(0)),
    ];
    let wide = g.emit(op, &[&name], attributes, DType::I64, Some(dims));
    let output = c.dtype("output_type", DType::I64)?;
    expect_dtype(output, &[DType::I32, DType::I64])?;
    Ok(vec![g.narrowed(wide, output)])
}

fn top_k(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let id = c.input(0)?;
    let dtype = g.get(id).dtype;
    expect_dtype(dtype, NUMBERS)?;
    let mut dims = g.dims(id)?;
    let (name, k, known) = if c.node.op == "TopK" {
        let k = c.int("k", 0)?;
        (g.plain(id), g.ints(&[k]), Some(k))
    } else {
        let count = c.input(1)?;
        let known = g.constant_int(count, "number").ok();
        let k = match known {
            Some(k) => g.ints(&[k]),
            None => {
                let wide = g.wide(count)?;
                g.reshape(&wide, &[1], Some(vec![Dim::Known(1)]))
            }
        };
        (g.plain(id), k, known)
    };
    let Some(last) = dims.last_mut() else { return refuse("the largest of a scalar") };
    *last = match known.map(usize::try_from) {
        Some(Ok(k)) => Dim::Known(k),
        Some(Err(_)) => return refuse("a negative number of values"),
        None => g.symbol(),
    };
    let attributes = vec![
        ("axis", Attr::Int(-1)),
        ("largest", Attr::Int(1)),
        ("sorted", Attr::Int(c.flag("sorted", true)?.into())),
    ];
    let given = vec![(dtype, Some(dims.clone())), (DType::I64, Some(dims))];
    let mut results = g.emit_many("TopK", &[&name, &k], attributes, given);
    let indices = results.pop().unwrap_or_default();
    let values = results.pop().unwrap_or_default();
    let output = c.dtype("index_type", DType::I32)?;
    expect_dtype(output, &[DType::I32, DType::I64])?;
    Ok(vec![g.result(values), g.narrowed(indices, output)])
}

fn cumsum(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let id = c.input(0)?;
    let dtype = g.get(id).dtype;
    expect_dtype(dtype, &[DType::F32, DType::F64, DType::I32, DType::I64])?;
    let dims = g.dims(id)?;
    let axis = axis_of(g.constant_int(c.input(1)?, "axis")?, dims.len())?;
    let name = g.plain(id);
    let Some(axis) = crate::constant::Constant::scalar(DType::I64, axis as f64) else {
        return refuse("its axis has no constant");
    };
    let axis = g.initializer(axis);
    let attributes = vec![
        ("exclusive", Attr::Int(c.flag("exclusive", false)?.into())),
        ("reverse", Attr::Int(c.flag("reverse", false)?.into())),
    ];
    let name = g.emit("CumSum", &[&name, &axis], attributes, dtype, Some(dims));
    Ok(vec![g.result(name)])
}

//! Picking by indices.
//!
//! Invariant: an index that TensorFlow refuses is refused by the engine too. ONNX counts negative
//! indices from the end; TensorFlow has none, so they become one that is past every end.

use vesta_model::DType;

use super::{expect_dtype, expect_movable};
use crate::call::Call;
use crate::constant::Constant;
use crate::graph::{Attr, Graph, axis_of};
use crate::refusal::{Reason, refuse};
use crate::registry::{Family, Outcome};
use crate::value::{Dim, Dims, ValueId};

pub(super) const FAMILY: Family = &[
    ("Gather", gather),
    ("GatherNd", gather_nd),
    ("GatherV2", gather),
    ("OneHot", one_hot),
    ("Where", indices_of_true),
];

/// An index past the end of any axis that fits in memory, in either dtype of indices.
const PAST_THE_END: f64 = i32::MAX as f64;

/// Indices none of which is negative.
fn guarded(g: &mut Graph, id: ValueId) -> Result<String, Reason> {
    let dtype = g.get(id).dtype;
    expect_dtype(dtype, &[DType::I32, DType::I64])?;
    let known = g.get(id).constant.as_ref().and_then(Constant::to_ints);
    let name = g.plain(id);
    match known {
        Some(indices) if indices.iter().any(|&i| i < 0) => refuse("a negative index"),
        Some(_) => Ok(name),
        None => {
            let dims = g.get(id).dims.clone();
            let (zero, past) = (g.scalar(dtype, 0.0)?, g.scalar(dtype, PAST_THE_END)?);
            let below = g.emit("Less", &[&name, &zero], vec![], DType::Bool, dims.clone());
            Ok(g.emit("Where", &[&below, &past, &name], vec![], dtype, dims))
        }
    }
}

/// The same as int64.
pub(super) fn guarded_wide(g: &mut Graph, id: ValueId) -> Result<String, Reason> {
    let name = guarded(g, id)?;
    if g.get(id).dtype == DType::I64 {
        return Ok(name);
    }
    let dims = g.get(id).dims.clone();
    Ok(g.cast(&name, DType::I64, dims))
}

fn gather(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let (id, indices) = (c.input(0)?, c.input(1)?);
    let dtype = g.get(id).dtype;
    expect_movable(dtype)?;
    let dims = g.dims(id)?;
    let axis = match c.inputs.get(2) {
        Some(&axis) => axis_of(g.constant_int(axis, "axis")?, dims.len())?,
        None => axis_of(0, dims.len())?,
    };
    let batch = c.int("batch_dims", 0)?;
    if batch != 0 {
        let rank = g.rank(indices)?;
        let batch = if batch < 0 { batch + rank as i64 } else { batch };
        return gather_batches(g, id, indices, axis, usize::try_from(batch).unwrap_or(usize::MAX));
    }
    let picked: Dims = g.get(indices).dims.clone().map(|own| {
        let mut all = dims[..axis].to_vec();
        all.extend(own);
        all.extend(&dims[axis + 1..]);
        all
    });
    let (name, indices) = (g.plain(id), guarded(g, indices)?);
    let attributes = vec![("axis", Attr::Int(axis as i64))];
    let name = g.emit("Gather", &[&name, &indices], attributes, dtype, picked);
    Ok(vec![g.result(name)])
}

/// Rows by index within each batch, which is ONNX's `GatherND` with indices of one number. Axes
/// between the batch and the one that is picked from go behind it for the while.
fn gather_batches(
    g: &mut Graph,
    id: ValueId,
    indices: ValueId,
    axis: usize,
    batch: usize,
) -> Outcome {
    let (dims, own) = (g.dims(id)?, g.dims(indices)?);
    if axis < batch || batch > own.len() {
        return refuse("it picks before its batch axes");
    }
    let dtype = g.get(id).dtype;
    let mut name = g.plain(id);
    let between = axis - batch;
    let mut order: Vec<usize> = (0..dims.len()).collect();
    order.remove(axis);
    order.insert(batch, axis);
    let dims = crate::value::permute(&dims, &order);
    name = g.transpose(&name, &order, dtype, Some(dims.clone()));
    let (mut lengthened, at) = (own.clone(), own.len() as i64);
    lengthened.push(Dim::Known(1));
    let wide = guarded_wide(g, indices)?;
    let axes = g.ints(&[at]);
    let rows = g.emit("Unsqueeze", &[&wide, &axes], vec![], DType::I64, Some(lengthened));
    let (mut picked, last) = (own.clone(), own.len());
    picked.extend(&dims[batch + 1..]);
    let attributes = vec![("batch_dims", Attr::Int(batch as i64))];
    let name = g.emit("GatherND", &[&name, &rows], attributes, dtype, Some(picked.clone()));
    // Batch, what lay between, indices, the rest.
    let mut back: Vec<usize> = (0..batch).collect();
    back.extend(last..last + between);
    back.extend(batch..last);
    back.extend(last + between..picked.len());
    let name = g.transpose(&name, &back, dtype, Some(crate::value::permute(&picked, &back)));
    Ok(vec![g.result(name)])
}

fn gather_nd(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let (id, indices) = (c.input(0)?, c.input(1)?);
    let dtype = g.get(id).dtype;
    expect_movable(dtype)?;
    let (dims, own) = (g.dims(id)?, g.dims(indices)?);
    let Some((Dim::Known(depth), batch)) = own.split_last() else {
        return refuse("how many numbers make an index is known only when the model runs");
    };
    if *depth == 0 || *depth > dims.len() {
        return refuse(format!("indices of {depth} numbers into rank {}", dims.len()));
    }
    let mut picked = batch.to_vec();
    picked.extend(&dims[*depth..]);
    let name = g.plain(id);
    let wide = guarded_wide(g, indices)?;
    let attributes = vec![("batch_dims", Attr::Int(0))];
    let name = g.emit("GatherND", &[&name, &wide], attributes, dtype, Some(picked));
    Ok(vec![g.result(name)])
}

/// A comparison with every position, since ONNX's own operator counts negative indices from the
/// end, where TensorFlow's gives a row without a hot one.
fn one_hot(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let (indices, on, off) = (c.input(0)?, c.input(2)?, c.input(3)?);
    let depth = g.constant_int(c.input(1)?, "depth")?;
    let depth = usize::try_from(depth).ok().filter(|&n| n <= 1 << 20);
    let Some(depth) = depth else { return refuse("its depth is out of range") };
    let (dtype, index_dtype) = (g.get(on).dtype, g.get(indices).dtype);
    expect_movable(dtype)?;
    expect_dtype(index_dtype, &[DType::I32, DType::I64])?;
    let mut dims = g.dims(indices)?;
    let axis = match c.int("axis", -1)? {
        -1 => dims.len(),
        axis => axis_of(axis, dims.len() + 1)?,
    };
    let mut shape = vec![1; dims.len() + 1];
    shape[axis] = depth;
    let positions: Vec<i64> = (0..depth as i64).collect();
    let Some(positions) = Constant::whole(index_dtype, &shape, &positions) else {
        return refuse("its positions have no constant");
    };
    let positions = g.initializer(positions);
    let name = g.plain(indices);
    let axes = g.ints(&[axis as i64]);
    dims.insert(axis, Dim::Known(1));
    let rows = g.emit("Unsqueeze", &[&name, &axes], vec![], index_dtype, Some(dims.clone()));
    dims[axis] = Dim::Known(depth);
    let hot = g.emit("Equal", &[&rows, &positions], vec![], DType::Bool, Some(dims.clone()));
    let (on, off) = (g.plain(on), g.plain(off));
    let name = g.emit("Where", &[&hot, &on, &off], vec![], dtype, Some(dims));
    Ok(vec![g.result(name)])
}

fn indices_of_true(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let id = c.input(0)?;
    expect_movable(g.get(id).dtype)?;
    let rank = g.rank(id)?;
    if rank == 0 {
        return refuse("the indices of a scalar");
    }
    let name = g.plain(id);
    let count = g.symbol();
    let columns = vec![Dim::Known(rank), count];
    let found = g.emit("NonZero", &[&name], vec![], DType::I64, Some(columns));
    let rows = g.transpose(&found, &[1, 0], DType::I64, Some(vec![count, Dim::Known(rank)]));
    Ok(vec![g.result(rows)])
}

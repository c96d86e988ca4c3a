//! Finding the place of values among others.

use vesta_model::DType;
use vesta_protos::tensorflow::attr_value::Value as Attribute;

use super::guards::{choose, facts, spread, test, two};
use super::{NUMBERS, expect_dtype, guards, shaping};
use crate::call::Call;
use crate::constant::Constant;
use crate::graph::{Attr, Graph};
use crate::refusal::{Reason, refuse};
use crate::registry::{Family, Outcome};
use crate::value::{Dim, Dims, ValueId};

pub(super) const FAMILY: Family = &[
    ("Bucketize", bucketize),
    ("InTopK", in_top),
    ("InTopKV2", in_top),
    ("InvertPermutation", invert),
    ("ListDiff", without),
    ("LowerBound", |g, c| bound(g, c, "Less")),
    ("UpperBound", |g, c| bound(g, c, "LessOrEqual")),
];

/// Boundaries of one operator; each value is compared with each.
const BOUNDARIES_MAX: usize = 1 << 12;

/// How many truths there are along the last axis, as whole numbers of `dtype`.
fn count_last(g: &mut Graph, truths: &str, dtype: DType) -> Result<ValueId, Reason> {
    expect_dtype(dtype, &[DType::I32, DType::I64])?;
    let mut dims = facts(g, truths).1;
    let numbers = g.cast(truths, dtype, dims.clone());
    let Some(axis) = dims.as_mut().and_then(|dims| dims.pop().map(|_| dims.len())) else {
        return refuse("the rank of its input is not known");
    };
    // Not counted from the end: ONNX Runtime leaves an axis of no cells where it is, then.
    let last = g.ints(&[axis as i64]);
    let attributes = vec![("keepdims", Attr::Int(0)), ("noop_with_empty_axes", Attr::Int(0))];
    let name = g.emit("ReduceSum", &[&numbers, &last], attributes, dtype, dims);
    Ok(g.result(name))
}

/// How many boundaries a value is not below. What is no number is below none.
fn bucketize(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let id = c.input(0)?;
    let dtype = g.get(id).dtype;
    expect_dtype(dtype, &[DType::F32, DType::F64, DType::I32, DType::I64])?;
    let Some(Attribute::List(list)) = c.attribute("boundaries") else {
        return refuse("it has no boundaries");
    };
    let (mut dims, length) = (g.dims(id)?, list.f.len());
    if length > BOUNDARIES_MAX {
        return refuse(format!("{length} boundaries"));
    }
    let name = g.plain(id);
    // TensorFlow compares whole numbers with these as f32 numbers.
    let (name, held) = match dtype {
        DType::F64 => (name, DType::F64),
        DType::F32 => (name, DType::F32),
        _ => (g.cast(&name, DType::F32, Some(dims.clone())), DType::F32),
    };
    let Some(boundaries) = Constant::floats(&[length], &list.f) else {
        return refuse("its boundaries have no constant");
    };
    let boundaries = g.initializer(boundaries);
    let boundaries = match held {
        DType::F64 => g.cast(&boundaries, DType::F64, Some(vec![Dim::Known(length)])),
        _ => boundaries,
    };
    let column = spread(g, &name, &[dims.len() as i64]);
    dims.push(Dim::Known(length));
    let is_below = test(g, "Less", &column, &boundaries, &Some(dims.clone()));
    let is_past = g.emit("Not", &[&is_below], vec![], DType::Bool, Some(dims));
    Ok(vec![count_last(g, &is_past, DType::I32)?])
}

/// How many of each sorted row a value is above, or not below.
fn bound(g: &mut Graph, c: &Call<'_>, comparison: &'static str) -> Outcome {
    let (rows, values) = (c.input(0)?, c.input(1)?);
    expect_dtype(g.get(rows).dtype, NUMBERS)?;
    let (own, wanted) = (g.dims(rows)?, g.dims(values)?);
    let (&[batch, length], &[_, number]) = (&own[..], &wanted[..]) else {
        return refuse("it looks in a tensor of another rank than 2");
    };
    let (rows, values) = (g.plain(rows), g.plain(values));
    let (rows, values) = (spread(g, &rows, &[1]), spread(g, &values, &[2]));
    let dims = Some(vec![batch, number, length]);
    let is_before = test(g, comparison, &rows, &values, &dims);
    let dtype = c.dtype("out_type", DType::I32)?;
    Ok(vec![count_last(g, &is_before, dtype)?])
}

/// Whether fewer than `k` classes are more probable. A class that is not there, and a probability
/// that is no finite number, are in no such list.
fn in_top(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let (predictions, targets) = (c.input(0)?, c.input(1)?);
    expect_dtype(g.get(predictions).dtype, &[DType::F32])?;
    let dims = g.dims(predictions)?;
    let &[batch, _] = &dims[..] else { return refuse("predictions of another rank than 2") };
    let k = match c.inputs.get(2) {
        Some(&k) => g.wide(k)?,
        None => {
            let k = c.int("k", 0)?;
            g.scalar(DType::I64, k as f64)?
        }
    };
    let (name, targets) = (g.plain(predictions), g.wide(targets)?);
    let lines = Some(vec![batch]);
    let (zero, number) = (g.scalar(DType::I64, 0.0)?, guards::size(g, &name, 1));
    let is_low = test(g, "Less", &targets, &zero, &lines);
    let is_high = test(g, "GreaterOrEqual", &targets, &number, &lines);
    let is_foreign = test(g, "Or", &is_low, &is_high, &lines);
    let places = choose(g, [&is_foreign, &zero, &targets], &lines);
    let column = spread(g, &places, &[1]);
    let column_dims = Some(vec![batch, Dim::Known(1)]);
    let attributes = vec![("axis", Attr::Int(1))];
    let inputs = [&*name, &column];
    let own = g.emit("GatherElements", &inputs, attributes, DType::F32, column_dims);
    let is_more = test(g, "Greater", &name, &own, &Some(dims.clone()));
    let more = count_last(g, &is_more, DType::I64)?;
    let more = g.plain(more);
    let is_in = test(g, "Less", &more, &k, &lines);
    // Nothing but a finite number is itself less itself.
    let rest = two(g, "Sub", &name, &name, (DType::F32, Some(dims.clone())));
    let is_odd = g.emit("IsNaN", &[&rest], vec![], DType::Bool, Some(dims));
    let odd = count_last(g, &is_odd, DType::I64)?;
    let odd = g.plain(odd);
    let is_finite = test(g, "Equal", &odd, &zero, &lines);
    let is_known = g.emit("Not", &[&is_foreign], vec![], DType::Bool, lines.clone());
    let is_valid = test(g, "And", &is_finite, &is_known, &lines);
    let name = test(g, "And", &is_in, &is_valid, &lines);
    Ok(vec![g.result(name)])
}

/// Where each number stands. A number that stands twice leaves a place empty, which is an error.
fn invert(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let id = c.input(0)?;
    let dtype = g.get(id).dtype;
    expect_dtype(dtype, &[DType::I32, DType::I64])?;
    let dims = g.dims(id)?;
    let &[length] = &dims[..] else { return refuse("a permutation that is no vector") };
    let dims: Dims = Some(dims);
    let places = super::gathering::guarded_wide(g, id)?;
    let shape = shaping::runtime_shape(g, id);
    let empty = g.scalar(DType::I64, -1.0)?;
    let empty = g.emit("Expand", &[&empty, &shape], vec![], DType::I64, dims.clone());
    let count = g.reshape(&shape, &[], Some(vec![]));
    let numbers = guards::counted(g, &count, length)?;
    let attributes = vec![("axis", Attr::Int(0)), ("reduction", Attr::Text("none"))];
    let inputs = [&*empty, &places, &numbers];
    let name = g.emit("ScatterElements", &inputs, attributes, DType::I64, dims.clone());
    let name = shaping::none_below_zero(g, &name, dims)?;
    Ok(vec![g.narrowed(name, dtype)])
}

/// What is in the first list and not in the second, and where.
fn without(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let (id, other) = (c.input(0)?, c.input(1)?);
    let dtype = g.get(id).dtype;
    expect_dtype(dtype, &[DType::F32, DType::F64, DType::I32, DType::I64])?;
    let (own, others) = (g.dims(id)?, g.dims(other)?);
    let (&[length], &[number]) = (&own[..], &others[..]) else {
        return refuse("a list that is no vector");
    };
    let output = c.dtype("out_idx", DType::I32)?;
    let (name, other) = (g.plain(id), g.plain(other));
    let column = spread(g, &name, &[1]);
    let is_same = test(g, "Equal", &column, &other, &Some(vec![length, number]));
    let same = count_last(g, &is_same, DType::I64)?;
    let (same, zero) = (g.plain(same), g.scalar(DType::I64, 0.0)?);
    let is_left = test(g, "Equal", &same, &zero, &Some(vec![length]));
    let left = g.symbol();
    let columns = Some(vec![Dim::Known(1), left]);
    let places = g.emit("NonZero", &[&is_left], vec![], DType::I64, columns);
    let places = g.reshape(&places, &[-1], Some(vec![left]));
    let attributes = vec![("axis", Attr::Int(0))];
    let values = g.emit("Gather", &[&name, &places], attributes, dtype, Some(vec![left]));
    Ok(vec![g.result(values), g.narrowed(places, output)])
}

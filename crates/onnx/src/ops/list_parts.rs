//! Several elements of a list at once: put in by their places, joined, taken apart.

use vesta_model::DType;

use super::gathering::guarded_wide;
use super::guards::{
    choose, counted, facts, joined, reshaped, size, sizes, spread, test, unless, whole,
};
use super::lists::{expect_element, growing, listed, made_for, made_list};
use crate::call::Call;
use crate::graph::{Attr, Graph};
use crate::refusal::{Reason, refuse};
use crate::registry::{Family, Outcome};
use crate::value::{Dim, ValueId};

pub(super) const FAMILY: Family = &[
    ("TensorListConcatV2", concat),
    ("TensorListPopBack", pop_back),
    ("TensorListScatterIntoExistingList", scatter_into),
    ("TensorListScatterV2", scatter),
    ("TensorListSplit", split),
];

/// TensorFlow's word, without the numbers, for a place past the stated end of a list.
const PAST_THE_END: &str = "TensorListScatter: Trying to scatter at index past num_elements";

/// Elements one behind the other along their first axis, and how long each is.
fn concat(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let (name, list, dims) = made_list(g, c.input(0)?)?;
    if list.grown.is_some() || dims.len() < 2 {
        return refuse("elements of unknown sizes, or scalars, are put together");
    }
    let (number, length) = (sizes(g, &name, 0, Some(1)), sizes(g, &name, 1, Some(2)));
    let total = whole(g, "Mul", &number, &length, &Some(vec![Dim::Known(1)]));
    let rest = sizes(g, &name, 2, Some(dims.len()));
    let shape = joined(g, &[&total, &rest]);
    let first = match (dims[0], dims[1]) {
        (Dim::Known(n), Dim::Known(length)) => Dim::Known(n * length),
        _ => g.symbol(),
    };
    let all = [first].into_iter().chain(dims[2..].iter().copied()).collect();
    let tensor = reshaped(g, &name, &shape, Some(all));
    let each = g.emit("Expand", &[&length, &number], vec![], DType::I64, Some(vec![dims[0]]));
    Ok(vec![g.result(tensor), g.result(each)])
}

/// A tensor taken apart along its first axis. ONNX's list has elements of one length.
fn split(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let (id, lengths) = (c.input(0)?, c.input(2)?);
    expect_element(g.get(id).dtype)?;
    let dims = g.dims(id)?;
    let [number] = g.dims(lengths)?[..] else { return refuse("lengths that are no vector") };
    if dims.is_empty() {
        return refuse("a list out of a scalar");
    }
    let wide = g.wide(lengths)?;
    let first = g.ints(&[0]);
    let along = vec![("axis", Attr::Int(0))];
    let one = Some(vec![Dim::Known(1)]);
    let length = g.emit("Gather", &[&wide, &first], along, DType::I64, one);
    let is_equal = test(g, "Equal", &wide, &length, &Some(vec![number]));
    let differs = g.emit("Not", &[&is_equal], vec![], DType::Bool, Some(vec![number]));
    let length = unless(g, &length, &differs, "its list has elements of different shapes");
    let (count, rest) = (sizes(g, &wide, 0, Some(1)), {
        let name = g.plain(id);
        sizes(g, &name, 1, Some(dims.len()))
    });
    let shape = joined(g, &[&count, &length, &rest]);
    let mut all = vec![number, g.symbol()];
    all.extend(&dims[1..]);
    let name = g.plain(id);
    let name = reshaped(g, &name, &shape, Some(all));
    Ok(vec![listed(g, name)])
}

/// All but the last element, and that.
fn pop_back(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let (name, list, mut dims) = made_list(g, c.input(0)?)?;
    let number = size(g, &name, 0);
    let none = g.scalar(DType::I64, 0.0)?;
    let is_empty = test(g, "Equal", &number, &none, &Some(vec![]));
    let name = unless(g, &name, &is_empty, "Trying to pop from an empty list.");
    let along = || vec![("axis", Attr::Int(0))];
    let last = g.scalar(DType::I64, -1.0)?;
    let row = Some(dims.get(1..).unwrap_or_default().to_vec());
    let item = g.emit("Gather", &[&name, &last], along(), list.dtype, row);
    if let Some(number) = dims.first_mut() {
        *number = match *number {
            Dim::Known(n) if n > 0 => Dim::Known(n - 1),
            _ => g.symbol(),
        };
    }
    let (start, end) = (g.ints(&[0]), g.ints(&[-1]));
    let (axes, step) = (g.ints(&[0]), g.ints(&[1]));
    let inputs = [&*name, &start, &end, &axes, &step];
    let rest = g.emit("Slice", &inputs, vec![], list.dtype, Some(dims));
    Ok(vec![growing(g, rest, list.grown), g.result(item)])
}

/// Rows of a tensor by their places in a list, which is as long as the highest says at least.
fn scatter_into(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let (id, rows, places) = (c.input(0)?, c.input(1)?, c.input(2)?);
    let item = first_row(g, rows)?;
    let (name, list, dims) = made_for(g, id, item)?;
    let own = sizes(g, &name, 0, Some(1));
    let (placed, is_there, count) = by_place(g, rows, places, &own)?;
    // What no row is put to stays, and is zero where the list was not that long.
    let one = Some(vec![Dim::Known(1)]);
    let missing = whole(g, "Sub", &count, &own, &one);
    let none = g.ints(&vec![0; dims.len()]);
    let rest = g.ints(&vec![0; dims.len() - 1]);
    let pads = joined(g, &[&none, &missing, &rest]);
    let zero = g.scalar(list.dtype, 0.0)?;
    let mode = vec![("mode", Attr::Text("constant"))];
    let all = facts(g, &placed).1;
    let before = g.emit("Pad", &[&name, &pads, &zero], mode, list.dtype, all.clone());
    let name = choose(g, [&is_there, &placed, &before], &all);
    Ok(vec![listed(g, name)])
}

/// Rows of a tensor by their places in a new list.
fn scatter(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let (rows, places, number) = (c.input(0)?, c.input(1)?, c.input(3)?);
    let dtype = g.get(rows).dtype;
    expect_element(dtype)?;
    let stated = g.constant_int(number, "number of elements")?;
    if stated < -1 {
        return refuse(format!("a list of {stated} elements"));
    }
    let number = g.ints(&[stated.max(0)]);
    let (mut placed, is_there, count) = by_place(g, rows, places, &number)?;
    if stated >= 0 {
        let is_more = test(g, "Greater", &count, &number, &Some(vec![Dim::Known(1)]));
        placed = unless(g, &placed, &is_more, PAST_THE_END);
    }
    let zero = g.scalar(dtype, 0.0)?;
    let all = facts(g, &placed).1;
    let name = choose(g, [&is_there, &placed, &zero], &all);
    Ok(vec![listed(g, name)])
}

fn first_row(g: &mut Graph, rows: ValueId) -> Result<ValueId, Reason> {
    let dims = g.dims(rows)?;
    if dims.is_empty() {
        return refuse("rows of a scalar");
    }
    // Zeros of the size of a row, also where there is none.
    let dtype = g.get(rows).dtype;
    let name = g.plain(rows);
    let shape = sizes(g, &name, 1, Some(dims.len()));
    let zero = g.scalar(dtype, 0.0)?;
    let row = g.emit("Expand", &[&zero, &shape], vec![], dtype, Some(dims[1..].to_vec()));
    Ok(g.result(row))
}

/// As many rows as `least` (int64, vector of one) or the highest place says, each the last that was put to
/// its place; whether one was, with axes of size 1 behind; and how many rows.
fn by_place(
    g: &mut Graph,
    rows: ValueId,
    places: ValueId,
    least: &str,
) -> Result<(String, String, String), Reason> {
    let (dims, dtype) = (g.dims(rows)?, g.get(rows).dtype);
    let [given] = g.dims(places)?[..] else { return refuse("places that are no vector") };
    let along = || vec![("axis", Attr::Int(0))];
    let (wide, step) = (guarded_wide(g, places)?, g.ints(&[1]));
    let ends = whole(g, "Add", &wide, &step, &Some(vec![given]));
    let all = joined(g, &[least, &ends]);
    let attributes = vec![("keepdims", Attr::Int(1)), ("noop_with_empty_axes", Attr::Int(0))];
    let one = Some(vec![Dim::Known(1)]);
    let count = g.emit("ReduceMax", &[&all], attributes, DType::I64, one);
    let line = g.symbol();
    let nobody = g.scalar(DType::I64, -1.0)?;
    let start = g.emit("Expand", &[&nobody, &count], vec![], DType::I64, Some(vec![line]));
    let name = g.plain(rows);
    let number = size(g, &wide, 0);
    let numbers = counted(g, &number, given)?;
    let attributes = vec![("axis", Attr::Int(0)), ("reduction", Attr::Text("max"))];
    let inputs = [&*start, &wide, &numbers];
    let last = g.emit("ScatterElements", &inputs, attributes, DType::I64, Some(vec![line]));
    let zero = g.scalar(DType::I64, 0.0)?;
    let is_none = test(g, "Less", &last, &zero, &Some(vec![line]));
    let is_there = g.emit("Not", &[&is_none], vec![], DType::Bool, Some(vec![line]));
    // A row of zeros before all stands for those that nobody put.
    let mut longer = dims.clone();
    longer[0] = g.symbol();
    let mut before = vec![0; 2 * dims.len()];
    before[0] = 1;
    let (pads, filler) = (g.ints(&before), g.scalar(dtype, 0.0)?);
    let mode = vec![("mode", Attr::Text("constant"))];
    let padded = g.emit("Pad", &[&name, &pads, &filler], mode, dtype, Some(longer));
    let shifted = whole(g, "Add", &last, &step, &Some(vec![line]));
    let mut all = dims;
    all[0] = line;
    let placed = g.emit("Gather", &[&padded, &shifted], along(), dtype, Some(all.clone()));
    let axes: Vec<i64> = (1..all.len() as i64).collect();
    let is_there = if axes.is_empty() { is_there } else { spread(g, &is_there, &axes) };
    Ok((placed, is_there, count))
}

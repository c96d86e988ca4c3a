//! Putting parts of tensors together by the places that they say.
//!
//! Invariant: where several rows say one place, the last of them stands there.

use vesta_model::DType;

use super::expect_movable;
use super::gathering::guarded_wide;
use super::guards::{counted, joined, reshaped, size, sizes, spread, whole};
use crate::call::Call;
use crate::graph::{Attr, Graph};
use crate::refusal::refuse;
use crate::registry::{Family, Outcome};
use crate::value::Dim;

pub(super) const FAMILY: Family = &[("DynamicStitch", stitch), ("ParallelDynamicStitch", stitch)];

/// As many rows as the largest place says. A place that no row says is undefined in TensorFlow.
fn stitch(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let half = c.inputs.len() / 2;
    if half == 0 || !c.inputs.len().is_multiple_of(2) {
        return refuse("it has not as many places as rows");
    }
    let dtype = g.get(c.input(half)?).dtype;
    expect_movable(dtype)?;
    let (mut places, mut rows, mut row) = (Vec::new(), Vec::new(), Vec::new());
    for (&at, &part) in c.inputs[..half].iter().zip(&c.inputs[half..]) {
        let lead = g.rank(at)?;
        let dims = g.dims(part)?;
        let Some(own) = dims.get(lead..) else { return refuse("rows of fewer axes than places") };
        row = own.to_vec();
        let line = g.symbol();
        let wide = guarded_wide(g, at)?;
        places.push(g.reshape(&wide, &[-1], Some(vec![line])));
        let part = g.plain(part);
        let number = size(g, places.last().map_or("", String::as_str), 0);
        let number = spread(g, &number, &[0]);
        let rest = sizes(g, &part, lead, Some(dims.len()));
        let shape = joined(g, &[&number, &rest]);
        let all = [line].into_iter().chain(row.iter().copied()).collect();
        rows.push(reshaped(g, &part, &shape, Some(all)));
    }
    let line = g.symbol();
    let along = || vec![("axis", Attr::Int(0))];
    let places: Vec<&str> = places.iter().map(String::as_str).collect();
    let places = g.emit("Concat", &places, along(), DType::I64, Some(vec![line]));
    let all: Vec<Dim> = [line].into_iter().chain(row.iter().copied()).collect();
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    let rows = g.emit("Concat", &rows, along(), dtype, Some(all));
    // One more than the largest; none without any.
    let none = g.ints(&[-1]);
    let with_none = joined(g, &[&none, &places]);
    let attributes = vec![("keepdims", Attr::Int(1)), ("noop_with_empty_axes", Attr::Int(0))];
    let one = Some(vec![Dim::Known(1)]);
    let largest = g.emit("ReduceMax", &[&with_none], attributes, DType::I64, one.clone());
    let step = g.ints(&[1]);
    let number = whole(g, "Add", &largest, &step, &one);
    let total = g.symbol();
    let zero = g.scalar(DType::I64, 0.0)?;
    let start = g.emit("Expand", &[&zero, &number], vec![], DType::I64, Some(vec![total]));
    let counted_rows = size(g, &places, 0);
    let numbers = counted(g, &counted_rows, line)?;
    let attributes = vec![("axis", Attr::Int(0)), ("reduction", Attr::Text("max"))];
    let inputs = [&*start, &places, &numbers];
    let last = g.emit("ScatterElements", &inputs, attributes, DType::I64, Some(vec![total]));
    let all = [total].into_iter().chain(row).collect();
    let name = g.emit("Gather", &[&rows, &last], along(), dtype, Some(all));
    Ok(vec![g.result(name)])
}

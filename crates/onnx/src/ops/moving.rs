//! The same elements in another order.

use vesta_model::DType;

use super::guards::{choose, counted, size, spread, test, whole};
use super::{expect_movable, guards};
use crate::call::Call;
use crate::graph::{Attr, Graph, axis_of};
use crate::refusal::refuse;
use crate::registry::{Family, Outcome};
use crate::value::{Dim, permute};

pub(super) const FAMILY: Family = &[("ReverseSequence", reverse_sequence), ("Roll", roll)];

/// Each cell from as many before it as it is moved by.
fn roll(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let (id, by, axes) = (c.input(0)?, c.input(1)?, c.input(2)?);
    let (dtype, dims) = (g.get(id).dtype, g.dims(id)?);
    expect_movable(dtype)?;
    let axes = g.constant_ints(axes, "axes")?;
    let shifts = g.wide(by)?;
    let shifts = g.reshape(&shifts, &[-1], Some(vec![Dim::Known(axes.len())]));
    let mut name = g.plain(id);
    for (at, &axis) in axes.iter().enumerate() {
        let axis = axis_of(axis, dims.len())?;
        let shift = guards::part(g, &shifts, at, at + 1);
        let (number, line) = (size(g, &name, axis), Some(vec![dims[axis]]));
        let cells = counted(g, &number, dims[axis])?;
        let from = whole(g, "Sub", &cells, &shift, &line);
        // Of no cells there is nothing to divide, and no engine shall divide by it.
        let one = g.scalar(DType::I64, 1.0)?;
        let divisor = whole(g, "Max", &number, &one, &Some(vec![]));
        let attributes = vec![("fmod", Attr::Int(0))];
        let from = g.emit("Mod", &[&from, &divisor], attributes, DType::I64, line);
        let attributes = vec![("axis", Attr::Int(axis as i64))];
        name = g.emit("Gather", &[&name, &from], attributes, dtype, Some(dims.clone()));
    }
    Ok(vec![g.result(name)])
}

/// The first cells of each example backwards, as many as it says. Written as a choice of rows: the
/// operator of ONNX takes two orders of axes only, and few engines have it.
fn reverse_sequence(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let (id, lengths) = (c.input(0)?, c.input(1)?);
    let (dtype, dims) = (g.get(id).dtype, g.dims(id)?);
    expect_movable(dtype)?;
    let rank = dims.len();
    let time = axis_of(c.int("seq_dim", 0)?, rank)?;
    let batch = axis_of(c.int("batch_dim", 0)?, rank)?;
    if time == batch {
        return refuse("its batch is the axis that it turns");
    }
    let mut order: Vec<usize> = vec![batch, time];
    order.extend((0..rank).filter(|axis| *axis != batch && *axis != time));
    let moved = permute(&dims, &order);
    let name = g.plain(id);
    let name = g.transpose(&name, &order, dtype, Some(moved.clone()));
    let lengths = g.wide(lengths)?;
    let one = Some(vec![moved[0], Dim::Known(1)]);
    let (lines, all) = (Some(vec![moved[0]]), Some(vec![moved[0], moved[1]]));
    let (number, zero) = (size(g, &name, 1), g.scalar(DType::I64, 0.0)?);
    let is_long = test(g, "Greater", &lengths, &number, &lines);
    let is_below = test(g, "Less", &lengths, &zero, &lines);
    let is_wrong = test(g, "Or", &is_long, &is_below, &lines);
    let lengths = guards::unless(
        g,
        &lengths,
        &is_wrong,
        "a length of a sequence is below 0 or beyond its axis",
    );
    let column = spread(g, &lengths, &[1]);
    let cells = counted(g, &number, moved[1])?;
    let is_turned = test(g, "Less", &cells, &column, &all);
    let least = g.scalar(DType::I64, 1.0)?;
    let last = whole(g, "Sub", &column, &least, &one);
    let turned = whole(g, "Sub", &last, &cells, &all);
    let from = choose(g, [&is_turned, &turned, &cells], &all);
    let rows = spread(g, &from, &[2]);
    let attributes = vec![("batch_dims", Attr::Int(1))];
    let name = g.emit("GatherND", &[&name, &rows], attributes, dtype, Some(moved.clone()));
    let mut back = vec![0; rank];
    order.iter().enumerate().for_each(|(at, &axis)| back[axis] = at);
    let name = g.transpose(&name, &back, dtype, Some(dims));
    Ok(vec![g.result(name)])
}

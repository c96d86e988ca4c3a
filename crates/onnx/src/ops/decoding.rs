//! Texts out of the scores of a recurrent network: the best class of each step, repeats and blanks left
//! out.
//!
//! Shapes: scores `[steps, batch, classes]`; what is decoded is a sparse tensor of `[batch, longest]`.

use vesta_model::DType;

use super::guards::{choose, facts, sizes, spread, test, unless};
use super::{expect_dtype, guards};
use crate::call::Call;
use crate::graph::{Attr, Graph};
use crate::refusal::{Reason, refuse};
use crate::registry::{Family, Outcome};
use crate::value::Dim;

pub(super) const FAMILY: Family = &[("CTCGreedyDecoder", greedy)];

fn greedy(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let (id, lengths) = (c.input(0)?, c.input(1)?);
    expect_dtype(g.get(id).dtype, &[DType::F32, DType::F64])?;
    expect_dtype(g.get(lengths).dtype, &[DType::I32])?;
    let [steps, batch, classes] = g.dims(id)?[..] else {
        return refuse("scores that are not of rank 3");
    };
    if g.rank(lengths)? != 1 {
        return refuse("lengths that are no vector");
    }
    let (dtype, lengths) = (g.get(id).dtype, g.wide(lengths)?);
    let scores = g.plain(id);
    let scores = g.transpose(&scores, &[1, 0, 2], dtype, Some(vec![batch, steps, classes]));
    let rows = Some(vec![batch, steps]);
    let lengths = within(g, &scores, &lengths, batch)?;
    let last = g.ints(&[2]);
    let attributes = vec![
        ("axis", Attr::Int(2)),
        ("keepdims", Attr::Int(0)),
        ("select_last_index", Attr::Int(0)),
    ];
    let best = g.emit("ArgMax", &[&scores], attributes, DType::I64, rows.clone());
    // Steps behind the end of a text count as blanks, with a score of zero.
    let count = guards::size(g, &scores, 1);
    let numbers = guards::counted(g, &count, steps)?;
    let ends = spread(g, &lengths, &[1]);
    let is_read = test(g, "Less", &numbers, &ends, &rows);
    let is_written = written(g, c, &scores, [&best, &is_read], steps)?;
    let attributes = vec![("keepdims", Attr::Int(0)), ("noop_with_empty_axes", Attr::Int(0))];
    let largest = g.emit("ReduceMax", &[&scores, &last], attributes.clone(), dtype, rows.clone());
    let zero = g.scalar(dtype, 0.0)?;
    let largest = choose(g, [&is_read, &largest, &zero], &rows);
    let axis = g.ints(&[1]);
    let one = Some(vec![batch, Dim::Known(1)]);
    let kept = vec![("keepdims", Attr::Int(1)), ("noop_with_empty_axes", Attr::Int(0))];
    let sum = g.emit("ReduceSum", &[&largest, &axis], kept, dtype, one.clone());
    let loss = g.emit("Neg", &[&sum], vec![], dtype, one);
    let (indices, values, shape) = sparse(g, &best, &is_written, [batch, steps])?;
    Ok([indices, values, shape, loss].into_iter().map(|name| g.result(name)).collect())
}

/// The lengths, in a run that fails where one is longer than there are steps.
fn within(g: &mut Graph, scores: &str, lengths: &str, batch: Dim) -> Result<String, Reason> {
    let steps = guards::size(g, scores, 1);
    let is_longer = test(g, "Greater", lengths, &steps, &facts(g, lengths).1);
    let lengths = unless(g, lengths, &is_longer, "sequence_length is greater than max_time");
    let (texts, rows) = (sizes(g, &lengths, 0, Some(1)), sizes(g, scores, 0, Some(1)));
    let same = test(g, "Equal", &texts, &rows, &Some(vec![Dim::Known(1)]));
    let differ = g.emit("Not", &[&same], vec![], DType::Bool, Some(vec![Dim::Known(1)]));
    let lengths = unless(g, &lengths, &differ, "len(sequence_length) != batch_size");
    g.facts.insert(lengths.clone(), (DType::I64, Some(vec![batch])));
    Ok(lengths)
}

/// Where a step writes its class: no blank, and not what the step before was, if repeats are merged.
fn written(
    g: &mut Graph,
    c: &Call<'_>,
    scores: &str,
    [best, is_read]: [&str; 2],
    steps: Dim,
) -> Result<String, Reason> {
    let rows = facts(g, best).1;
    let batch = rows.as_ref().and_then(|rows| rows.first().copied());
    let blank = match c.int("blank_index", -1)? {
        given @ 0.. => g.scalar(DType::I64, given as f64)?,
        given => {
            let (classes, back) = (guards::size(g, scores, 2), g.scalar(DType::I64, given as f64)?);
            guards::whole(g, "Add", &classes, &back, &Some(vec![]))
        }
    };
    let is_blank = test(g, "Equal", best, &blank, &rows);
    let is_class = g.emit("Not", &[&is_blank], vec![], DType::Bool, rows.clone());
    let mut is_written = test(g, "And", is_read, &is_class, &rows);
    if c.flag("merge_repeated", false)? {
        // The step before the first is of no class.
        let (ends, none) = (g.ints(&[0, 1, 0, 0]), g.scalar(DType::I64, -1.0)?);
        let longer = batch.zip(steps.known()).map(|(batch, n)| vec![batch, Dim::Known(n + 1)]);
        let attributes = vec![("mode", Attr::Text("constant"))];
        let moved = g.emit("Pad", &[best, &ends, &none], attributes, DType::I64, longer);
        let (starts, end) = (g.ints(&[0]), g.ints(&[-1]));
        let (axes, strides) = (g.ints(&[1]), g.ints(&[1]));
        let inputs = [&*moved, &starts, &end, &axes, &strides];
        let before = g.emit("Slice", &inputs, vec![], DType::I64, rows.clone());
        let is_same = test(g, "Equal", best, &before, &rows);
        let is_new = g.emit("Not", &[&is_same], vec![], DType::Bool, rows.clone());
        is_written = test(g, "And", &is_written, &is_new, &rows);
    }
    Ok(is_written)
}

/// Indices, values and shape of what is written, row by row.
fn sparse(
    g: &mut Graph,
    best: &str,
    is_written: &str,
    [batch, steps]: [Dim; 2],
) -> Result<(String, String, String), Reason> {
    let found = g.symbol();
    let pairs = Some(vec![found, Dim::Known(2)]);
    let columns = Some(vec![Dim::Known(2), found]);
    let places = g.emit("NonZero", &[is_written], vec![], DType::I64, columns);
    let places = g.transpose(&places, &[1, 0], DType::I64, pairs.clone());
    let pick = |g: &mut Graph, from: &str| {
        let attributes = vec![("batch_dims", Attr::Int(0))];
        g.emit("GatherND", &[from, &places], attributes, DType::I64, Some(vec![found]))
    };
    let values = pick(g, best);
    // The place of a class in its text: how many come before it.
    let rows = Some(vec![batch, steps]);
    let ones = g.cast(is_written, DType::I64, rows.clone());
    let axis = g.scalar(DType::I64, 1.0)?;
    let attributes = vec![("exclusive", Attr::Int(1)), ("reverse", Attr::Int(0))];
    let before = g.emit("CumSum", &[&ones, &axis], attributes, DType::I64, rows);
    let at = pick(g, &before);
    let at = spread(g, &at, &[1]);
    let (starts, ends) = (g.ints(&[0]), g.ints(&[1]));
    let (axes, strides) = (g.ints(&[1]), g.ints(&[1]));
    let inputs = [&*places, &starts, &ends, &axes, &strides];
    let one = Some(vec![found, Dim::Known(1)]);
    let texts = g.emit("Slice", &inputs, vec![], DType::I64, one);
    let attributes = vec![("axis", Attr::Int(1))];
    let indices = g.emit("Concat", &[&texts, &at], attributes, DType::I64, pairs);
    // The longest text; none is none, also where there are no texts.
    let along = g.ints(&[1]);
    let plain = || vec![("keepdims", Attr::Int(0)), ("noop_with_empty_axes", Attr::Int(0))];
    let lengths = g.emit("ReduceSum", &[&ones, &along], plain(), DType::I64, Some(vec![batch]));
    let nothing = g.ints(&[0]);
    let more = Some(vec![g.symbol()]);
    let attributes = vec![("axis", Attr::Int(0))];
    let lengths = g.emit("Concat", &[&nothing, &lengths], attributes, DType::I64, more);
    let first = g.ints(&[0]);
    let kept = vec![("keepdims", Attr::Int(1)), ("noop_with_empty_axes", Attr::Int(0))];
    let one = Some(vec![Dim::Known(1)]);
    let longest = g.emit("ReduceMax", &[&lengths, &first], kept, DType::I64, one);
    let count = sizes(g, best, 0, Some(1));
    let shape = guards::joined(g, &[&count, &longest]);
    Ok((indices, values, shape))
}

//! Suppression that lowers the scores of boxes that overlap instead of dropping them.
//!
//! ONNX has no operator for it, so it is a loop: the best box is taken, all others lose score by how
//! much they share with it. Invariant: overlaps and weights are computed by the same operations in
//! the same order as TensorFlow's; of equals the earlier box is taken.

use vesta_model::DType;

use super::guards::{choose, count, counted, facts, size, test, two};
use crate::graph::{Attr, Graph, Subgraph};
use crate::refusal::Reason;
use crate::value::Dim;

/// What is chosen from: boxes `[n, 4]` and scores `[n]`, f32.
pub(super) struct Field<'a> {
    pub(super) boxes: &'a str,
    pub(super) scores: &'a str,
    /// The most that are taken, int64, a vector of one.
    pub(super) most: &'a str,
    /// Scores must be above it, f32, a vector of one.
    pub(super) lowest: &'a str,
    pub(super) sigma: f32,
}

/// What is taken: numbers of boxes (int64) and their scores.
pub(super) struct Taken {
    pub(super) chosen: String,
    pub(super) scores: String,
}

/// Corners and areas of boxes, `[n]` each.
struct Boxes {
    low: [String; 2],
    high: [String; 2],
    area: String,
}

fn floats(g: &mut Graph, op: &'static str, a: &str, b: &str, dims: &[Dim]) -> String {
    two(g, op, a, b, (DType::F32, Some(dims.to_vec())))
}

fn corners(g: &mut Graph, boxes: &str, number: Dim) -> Result<Boxes, Reason> {
    let line = [number];
    let mut sides = Vec::new();
    for at in 0..4 {
        let at = g.scalar(DType::I64, f64::from(at))?;
        let attributes = vec![("axis", Attr::Int(1))];
        sides.push(g.emit("Gather", &[boxes, &at], attributes, DType::F32, Some(line.to_vec())));
    }
    let ends = |g: &mut Graph, op: &'static str| {
        [0, 1].map(|at| floats(g, op, &sides[at], &sides[at + 2], &line))
    };
    let (low, high) = (ends(g, "Min"), ends(g, "Max"));
    let height = floats(g, "Sub", &high[0], &low[0], &line);
    let width = floats(g, "Sub", &high[1], &low[1], &line);
    let area = floats(g, "Mul", &height, &width, &line);
    Ok(Boxes { low, high, area })
}

/// The share of the boxes' union that lies in both, with the box at `best`; none with an empty one.
fn overlaps(g: &mut Graph, boxes: &Boxes, best: &str, number: Dim) -> Result<String, Reason> {
    let (line, zero) = ([number], g.scalar(DType::F32, 0.0)?);
    let picked = |g: &mut Graph, name: &str| {
        let attributes = vec![("axis", Attr::Int(0))];
        g.emit("Gather", &[name, best], attributes, DType::F32, Some(vec![]))
    };
    let mut sides = Vec::new();
    for (low, high) in boxes.low.iter().zip(&boxes.high) {
        let (own_low, own_high) = (picked(g, low), picked(g, high));
        let low = floats(g, "Max", low, &own_low, &line);
        let high = floats(g, "Min", high, &own_high, &line);
        let side = floats(g, "Sub", &high, &low, &line);
        sides.push(floats(g, "Max", &side, &zero, &line));
    }
    let own = picked(g, &boxes.area);
    let shared = floats(g, "Mul", &sides[0], &sides[1], &line);
    let both = floats(g, "Add", &own, &boxes.area, &line);
    let union = floats(g, "Sub", &both, &shared, &line);
    let share = floats(g, "Div", &shared, &union, &line);
    let truths = Some(line.to_vec());
    let has_area = test(g, "Greater", &boxes.area, &zero, &truths);
    let has_own = test(g, "Greater", &own, &zero, &Some(vec![]));
    let is_box = test(g, "And", &has_area, &has_own, &truths);
    Ok(choose(g, [&is_box, &share, &zero], &truths))
}

/// Scores that are above the threshold; all others are at the bottom.
fn left(g: &mut Graph, scores: &str, lowest: &str, bottom: &str) -> (String, String) {
    let dims = facts(g, scores).1;
    let is_above = test(g, "Greater", scores, lowest, &dims);
    (choose(g, [&is_above, scores, bottom], &dims), is_above)
}

/// Whether any of `truths` holds.
fn any(g: &mut Graph, truths: &str) -> Result<String, Reason> {
    let number = count(g, truths);
    let none = g.scalar(DType::I64, 0.0)?;
    Ok(test(g, "Greater", &number, &none, &Some(vec![])))
}

/// Takes boxes one by one, each time the best of what is left.
pub(super) fn suppress(g: &mut Graph, it: &Field<'_>) -> Result<Taken, Reason> {
    let number = facts(g, it.scores).1.and_then(|dims| dims.first().copied());
    let number = number.unwrap_or_else(|| g.symbol());
    let line = Some(vec![number]);
    let boxes = corners(g, it.boxes, number)?;
    let cells = size(g, it.scores, 0);
    let cells = counted(g, &cells, number)?;
    let bottom = g.scalar(DType::F32, f64::NEG_INFINITY)?;
    let scale = g.scalar(DType::F32, f64::from(-0.5f32 / it.sigma))?;
    let (start, is_above) = left(g, it.scores, it.lowest, &bottom);
    let goes_on = any(g, &is_above)?;
    let outer = g.enter();
    let inputs = vec![
        g.argument(DType::I64, Some(vec![])),
        g.argument(DType::Bool, Some(vec![])),
        g.argument(DType::F32, line.clone()),
    ];
    let before = inputs[2].clone();
    let attributes = vec![("axis", Attr::Int(0)), ("keepdims", Attr::Int(0))];
    let best = g.emit("ArgMax", &[&before], attributes, DType::I64, Some(vec![]));
    let attributes = vec![("axis", Attr::Int(0))];
    let score = g.emit("Gather", &[&before, &best], attributes, DType::F32, Some(vec![]));
    let after = lowered(g, &boxes, &before, &best, &scale)?;
    let is_best = test(g, "Equal", &cells, &best, &line);
    let after = choose(g, [&is_best, &bottom, &after], &line);
    let (after, is_above) = left(g, &after, it.lowest, &bottom);
    let again = any(g, &is_above)?;
    let nodes = g.leave(outer);
    let graph = Subgraph { inputs, nodes, outputs: vec![again, after, best, score] };
    let taken = g.symbol();
    let one_each = Some(vec![taken]);
    let given = vec![(DType::F32, line), (DType::I64, one_each.clone()), (DType::F32, one_each)];
    let attributes = vec![("body", Attr::Graph(Box::new(graph)))];
    let most = g.reshape(it.most, &[], Some(vec![]));
    let mut names = g.emit_many("Loop", &[&most, &goes_on, &start], attributes, given);
    let (scores, chosen) = (names.pop().unwrap_or_default(), names.pop().unwrap_or_default());
    Ok(Taken { chosen, scores })
}

/// Scores after the box at `best` was taken.
fn lowered(
    g: &mut Graph,
    boxes: &Boxes,
    scores: &str,
    best: &str,
    scale: &str,
) -> Result<String, Reason> {
    let line = facts(g, scores).1.unwrap_or_default();
    let number = line.first().copied().unwrap_or(Dim::Known(0));
    let share = overlaps(g, boxes, best, number)?;
    let power = floats(g, "Mul", scale, &share, &line);
    let power = floats(g, "Mul", &power, &share, &line);
    let weight = g.emit("Exp", &[&power], vec![], DType::F32, Some(line.clone()));
    Ok(floats(g, "Mul", scores, &weight, &line))
}

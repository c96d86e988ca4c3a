//! Resizing by cells and weights that are computed in the run.
//!
//! Invariant: places, cells and weights are TensorFlow's, by the same operations in the same order. An
//! engine's own operator has other roundings of the places, which at cell 200 is another colour.

use vesta_model::DType;

use super::guards::{choose, counted, facts, part, size, spread, test, two, whole};
use super::resampling::{SUM_MIN, TABLE_LEN, from_table, sharpness};
use super::{NUMBERS, expect_dtype};
use crate::call::Call;
use crate::constant::Constant;
use crate::graph::{Attr, Graph};
use crate::refusal::{Reason, refuse};
use crate::registry::Outcome;
use crate::value::Dim;

/// How the cells of an image lie on those of another.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lie {
    Corners,
    Aligned,
    HalfPixels,
}

/// The four cells that one axis of the new image is made of, and their weights, `[to]` each.
struct Cells {
    at: Vec<String>,
    weights: Vec<String>,
    to: Dim,
}

fn lie_of(c: &Call<'_>) -> Result<Lie, Reason> {
    match (c.flag("align_corners", false)?, c.flag("half_pixel_centers", false)?) {
        (true, true) => refuse("both align_corners and half_pixel_centers"),
        (true, false) => Ok(Lie::Aligned),
        (false, true) => Ok(Lie::HalfPixels),
        (false, false) => Ok(Lie::Corners),
    }
}

/// The size of an axis and its new one, int64 scalars, and what is known of the new one.
fn sizes_of(
    g: &mut Graph,
    name: &str,
    target: &str,
    known: Option<&[i64]>,
    axis: usize,
) -> (String, String, Dim) {
    let known = known.and_then(|sizes| usize::try_from(*sizes.get(axis - 2)?).ok());
    let to = part(g, target, axis - 2, axis - 1);
    let to = g.reshape(&to, &[], Some(vec![]));
    let dim = known.map_or_else(|| g.symbol(), Dim::Known);
    (size(g, name, axis), to, dim)
}

/// An f32 image with channels second between the two cells next to each place: columns, then rows.
pub(super) fn bilinear(g: &mut Graph, c: &Call<'_>, image: &str) -> Result<String, Reason> {
    let lie = lie_of(c)?;
    let target = c.input(1)?;
    let known = g.constant_ints(target, "target").ok();
    let target = g.wide(target)?;
    let mut name = image.to_owned();
    for axis in [3, 2] {
        let (from, to, dim) = sizes_of(g, &name, &target, known.as_deref(), axis);
        let line = Some(vec![dim]);
        let (at, cell) = places(g, [&from, &to], dim, lie)?;
        let given = (DType::F32, line.clone());
        let mut share = two(g, "Sub", &at, &cell, given);
        let next = g.emit("Ceil", &[&at], vec![], DType::F32, line.clone());
        let (cell, next) =
            (g.cast(&cell, DType::I64, line.clone()), g.cast(&next, DType::I64, line.clone()));
        let (first, one) = (g.scalar(DType::I64, 0.0)?, g.scalar(DType::I64, 1.0)?);
        let last = whole(g, "Sub", &from, &one, &Some(vec![]));
        let cell = whole(g, "Max", &cell, &first, &line);
        let next = whole(g, "Min", &next, &last, &line);
        let mut dims = facts(g, &name).1.unwrap_or_default();
        if let Some(own) = dims.get_mut(axis) {
            *own = dim;
        }
        let given = (DType::F32, Some(dims));
        let pick = |g: &mut Graph, at: &str| {
            let attributes = vec![("axis", Attr::Int(axis as i64))];
            g.emit("Gather", &[&name, at], attributes, DType::F32, given.1.clone())
        };
        let (cell, next) = (pick(g, &cell), pick(g, &next));
        if axis == 2 {
            share = spread(g, &share, &[1]);
        }
        let way = two(g, "Sub", &next, &cell, given.clone());
        let way = two(g, "Mul", &way, &share, given.clone());
        name = two(g, "Add", &cell, &way, given);
    }
    Ok(name)
}

/// An image (channels second, `image` its sizes) by cubic weights.
pub(super) fn bicubic(g: &mut Graph, c: &Call<'_>, image: Vec<Dim>) -> Outcome {
    let (id, target) = (c.input(0)?, c.input(1)?);
    let dtype = g.get(id).dtype;
    expect_dtype(dtype, NUMBERS)?;
    let lie = lie_of(c)?;
    let known = g.constant_ints(target, "target").ok();
    let mut name = g.channels_first(id)?;
    if dtype != DType::F32 {
        name = g.cast(&name, DType::F32, Some(image.clone()));
    }
    let target = g.wide(target)?;
    for axis in [2, 3] {
        let (from, to, dim) = sizes_of(g, &name, &target, known.as_deref(), axis);
        let cells = cells(g, [&from, &to], dim, lie)?;
        name = weighed(g, &name, &cells, axis);
    }
    Ok(vec![g.result_channels_first(name)])
}

/// The sum of four cells of one axis, each by its weight.
fn weighed(g: &mut Graph, name: &str, cells: &Cells, axis: usize) -> String {
    let mut dims = facts(g, name).1.unwrap_or_default();
    if let Some(dim) = dims.get_mut(axis) {
        *dim = cells.to;
    }
    let given = (DType::F32, Some(dims));
    let mut sum: Option<String> = None;
    for (at, weight) in cells.at.iter().zip(&cells.weights) {
        let attributes = vec![("axis", Attr::Int(axis as i64))];
        let picked = g.emit("Gather", &[name, at], attributes, DType::F32, given.1.clone());
        // Rows have the columns behind them.
        let weight = if axis == 2 { spread(g, weight, &[1]) } else { weight.clone() };
        let product = two(g, "Mul", &picked, &weight, given.clone());
        sum = Some(match sum {
            Some(sum) => two(g, "Add", &sum, &product, given.clone()),
            None => product,
        });
    }
    sum.unwrap_or_default()
}

fn cells(g: &mut Graph, [from, to]: [&str; 2], dim: Dim, lie: Lie) -> Result<Cells, Reason> {
    let line = Some(vec![dim]);
    let floats = |g: &mut Graph, op, a: &str, b: &str| two(g, op, a, b, (DType::F32, line.clone()));
    let (at, cell) = places(g, [from, to], dim, lie)?;
    let rest = floats(g, "Sub", &at, &cell);
    let places = g.scalar(DType::F32, TABLE_LEN as f64)?;
    let place = floats(g, "Mul", &rest, &places);
    let place = g.emit("Round", &[&place], vec![], DType::F32, line.clone());
    let (cell, place) =
        (g.cast(&cell, DType::I64, line.clone()), g.cast(&place, DType::I64, line.clone()));
    let table = table(g, lie)?;
    let attributes = vec![("axis", Attr::Int(0))];
    let by_place = Some(vec![dim, Dim::Known(4)]);
    let weights = g.emit("Gather", &[&table, &place], attributes, DType::F32, by_place);
    let one = g.scalar(DType::I64, 1.0)?;
    let (first, last) = (g.scalar(DType::I64, 0.0)?, whole(g, "Sub", from, &one, &Some(vec![])));
    let mut all = Cells { at: Vec::new(), weights: Vec::new(), to: dim };
    let nothing = g.scalar(DType::F32, 0.0)?;
    for (column, by) in [-1.0, 0.0, 1.0, 2.0].into_iter().enumerate() {
        let column = g.scalar(DType::I64, column as f64)?;
        let attributes = vec![("axis", Attr::Int(1))];
        let weight = g.emit("Gather", &[&weights, &column], attributes, DType::F32, line.clone());
        let by = g.scalar(DType::I64, by)?;
        let at = whole(g, "Add", &cell, &by, &line);
        let within = whole(g, "Max", &at, &first, &line);
        let within = whole(g, "Min", &within, &last, &line);
        let is_within = test(g, "Equal", &within, &at, &line);
        all.weights.push(match lie {
            Lie::HalfPixels => choose(g, [&is_within, &weight, &nothing], &line),
            Lie::Corners | Lie::Aligned => weight,
        });
        all.at.push(within);
    }
    if lie == Lie::HalfPixels {
        all.weights = shared(g, all.weights, dim)?;
    }
    Ok(all)
}

/// Where each new cell lies among the old ones, and the cell that is below it, f32.
fn places(
    g: &mut Graph,
    [from, to]: [&str; 2],
    dim: Dim,
    lie: Lie,
) -> Result<(String, String), Reason> {
    let line = Some(vec![dim]);
    let floats = |g: &mut Graph, op, a: &str, b: &str| two(g, op, a, b, (DType::F32, line.clone()));
    let scale = scale(g, from, to, lie)?;
    let numbers = counted(g, to, dim)?;
    let numbers = g.cast(&numbers, DType::F32, line.clone());
    let at = match lie {
        Lie::HalfPixels => {
            let half = g.scalar(DType::F32, 0.5)?;
            let middle = floats(g, "Add", &numbers, &half);
            let middle = floats(g, "Mul", &middle, &scale);
            floats(g, "Sub", &middle, &half)
        }
        Lie::Corners | Lie::Aligned => floats(g, "Mul", &numbers, &scale),
    };
    let cell = g.emit("Floor", &[&at], vec![], DType::F32, line.clone());
    Ok((at, cell))
}

/// Cells before for each cell after.
fn scale(g: &mut Graph, from: &str, to: &str, lie: Lie) -> Result<String, Reason> {
    let none = Some(vec![]);
    let quotient = |g: &mut Graph, from: &str, to: &str| {
        let (from, to) =
            (g.cast(from, DType::F32, none.clone()), g.cast(to, DType::F32, none.clone()));
        two(g, "Div", &from, &to, (DType::F32, none.clone()))
    };
    let plain = quotient(g, from, to);
    if lie != Lie::Aligned {
        return Ok(plain);
    }
    let one = g.scalar(DType::I64, 1.0)?;
    let (last, last_new) = (whole(g, "Sub", from, &one, &none), whole(g, "Sub", to, &one, &none));
    let aligned = quotient(g, &last, &last_new);
    let is_more = test(g, "Greater", to, &one, &none);
    Ok(choose(g, [&is_more, &aligned, &plain], &none))
}

/// The four weights of each place.
fn table(g: &mut Graph, lie: Lie) -> Result<String, Reason> {
    let a = sharpness(lie == Lie::HalfPixels);
    let weights = (0..=TABLE_LEN).flat_map(|place| {
        let ((near, far), (next, last)) = (from_table(place, a), from_table(TABLE_LEN - place, a));
        [far, near, next, last]
    });
    let weights: Vec<f32> = weights.collect();
    match Constant::floats(&[TABLE_LEN + 1, 4], &weights) {
        Some(constant) => Ok(g.initializer(constant)),
        None => refuse("its weights have no constant"),
    }
}

/// Weights as parts of their sum.
fn shared(g: &mut Graph, weights: Vec<String>, dim: Dim) -> Result<Vec<String>, Reason> {
    let line = Some(vec![dim]);
    let given = (DType::F32, line.clone());
    let mut sum = g.scalar(DType::F32, 0.0)?;
    for weight in &weights {
        sum = two(g, "Add", &sum, weight, given.clone());
    }
    let one = g.scalar(DType::F32, 1.0)?;
    let least = g.scalar(DType::F32, f64::from(SUM_MIN))?;
    let magnitude = g.emit("Abs", &[&sum], vec![], DType::F32, line.clone());
    let is_enough = test(g, "GreaterOrEqual", &magnitude, &least, &line);
    let sum = choose(g, [&is_enough, &sum, &one], &line);
    let part = two(g, "Div", &one, &sum, given.clone());
    Ok(weights.iter().map(|weight| two(g, "Mul", weight, &part, given.clone())).collect())
}

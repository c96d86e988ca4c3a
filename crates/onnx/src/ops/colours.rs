//! Colours and contrast of images, as networks that were saved with their preparation have them.

use vesta_model::DType;

use super::expect_dtype;
use super::formula::Formula;
use crate::call::Call;
use crate::graph::{Attr, Graph};
use crate::refusal::{Reason, refuse};
use crate::registry::{Family, Outcome};
use crate::value::{Dim, ValueId};

pub(super) const FAMILY: Family = &[
    ("AdjustContrastv2", contrast),
    ("AdjustHue", |g, c| changed(g, c, turned)),
    ("AdjustSaturation", |g, c| changed(g, c, saturated)),
    ("HSVToRGB", to_colours),
    ("RGBToHSV", to_hues),
];

/// The distance of each cell to its channel's mean, times a factor.
fn contrast(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let (id, factor) = (c.input(0)?, c.input(1)?);
    let dtype = g.get(id).dtype;
    expect_dtype(dtype, &[DType::F32])?;
    let mut dims = g.dims(id)?;
    let rank = dims.len();
    if rank < 3 {
        return refuse(format!("an image of rank {rank}"));
    }
    for axis in [rank - 3, rank - 2] {
        dims[axis] = Dim::Known(1);
    }
    let (name, axes) = (g.plain(id), g.ints(&[-3, -2]));
    let attributes = vec![("keepdims", Attr::Int(1)), ("noop_with_empty_axes", Attr::Int(0))];
    let mean = g.emit("ReduceMean", &[&name, &axes], attributes, dtype, Some(dims));
    let mean = g.result(mean);
    let mut f = Formula { g, dtype };
    let distance = f.node("Sub", &[id, mean])?;
    let distance = f.node("Mul", &[distance, factor])?;
    Ok(vec![f.node("Add", &[distance, mean])?])
}

/// The three channels of an image, each with a last axis of size 1.
fn channels(g: &mut Graph, id: ValueId) -> Result<[ValueId; 3], Reason> {
    let dtype = g.get(id).dtype;
    expect_dtype(dtype, &[DType::F32, DType::F64])?;
    let mut dims = g.dims(id)?;
    match dims.last_mut() {
        Some(last) if *last == Dim::Known(3) => *last = Dim::Known(1),
        _ => return refuse("an image that is not known to have 3 channels"),
    }
    let name = g.plain(id);
    let attributes = vec![("axis", Attr::Int(-1)), ("num_outputs", Attr::Int(3))];
    let given = vec![(dtype, Some(dims)); 3];
    let names = g.emit_many("Split", &[&name], attributes, given);
    let mut ids = names.into_iter().map(|name| g.result(name));
    match (ids.next(), ids.next(), ids.next()) {
        (Some(a), Some(b), Some(c)) => Ok([a, b, c]),
        _ => refuse("an image without channels"),
    }
}

fn joined(g: &mut Graph, of: &[ValueId; 3]) -> ValueId {
    let names = of.map(|id| g.plain(id));
    let value = g.get(of[0]);
    let (dtype, mut dims) = (value.dtype, value.dims.clone());
    if let Some(last) = dims.as_mut().and_then(|dims| dims.last_mut()) {
        *last = Dim::Known(3);
    }
    let names = [&*names[0], &names[1], &names[2]];
    let name = g.emit("Concat", &names, vec![("axis", Attr::Int(-1))], dtype, dims);
    g.result(name)
}

/// A colour by its hue, from 0 to 1, its largest part, and how far the smallest is below that.
struct Colour {
    hue: ValueId,
    range: ValueId,
    value: ValueId,
}

impl Colour {
    fn of([red, green, blue]: [ValueId; 3], f: &mut Formula<'_>) -> Result<Colour, Reason> {
        let (zero, one, six) = (f.number(0.0)?, f.number(1.0)?, f.number(6.0)?);
        let value = f.node("Max", &[red, green, blue])?;
        let least = f.node("Min", &[red, green, blue])?;
        let range = f.node("Sub", &[value, least])?;
        let unit = f.node("Mul", &[six, range])?;
        let unit = f.node("Div", &[one, unit])?;
        let mut side = |a: ValueId, b: ValueId, turn: f64| {
            let turn = f.number(turn)?;
            let distance = f.node("Sub", &[a, b])?;
            let angle = f.node("Mul", &[unit, distance])?;
            f.node("Add", &[angle, turn])
        };
        let reddish = side(green, blue, 0.0)?;
        let greenish = side(blue, red, 2.0 / 6.0)?;
        let bluish = side(red, green, 4.0 / 6.0)?;
        let is_green = f.test("Equal", &[green, value])?;
        let hue = f.node("Where", &[is_green, greenish, bluish])?;
        let is_red = f.test("Equal", &[red, value])?;
        let hue = f.node("Where", &[is_red, reddish, hue])?;
        let is_coloured = f.test("Greater", &[range, zero])?;
        let hue = f.node("Where", &[is_coloured, hue, zero])?;
        let is_below = f.test("Less", &[hue, zero])?;
        let turned = f.node("Add", &[hue, one])?;
        let hue = f.node("Where", &[is_below, turned, hue])?;
        Ok(Colour { hue, range, value })
    }

    /// The share of the largest part that the range is.
    fn saturation(&self, f: &mut Formula<'_>) -> Result<ValueId, Reason> {
        let zero = f.number(0.0)?;
        let is_lit = f.test("Greater", &[self.value, zero])?;
        let share = f.node("Div", &[self.range, self.value])?;
        f.node("Where", &[is_lit, share, zero])
    }

    /// Red, green and blue.
    fn parts(&self, f: &mut Formula<'_>) -> Result<[ValueId; 3], Reason> {
        let (zero, one, two, six) =
            (f.number(0.0)?, f.number(1.0)?, f.number(2.0)?, f.number(6.0)?);
        let turn = f.node("Mul", &[self.hue, six])?;
        let mut part = |middle: f64| {
            let middle_id = f.number(middle)?;
            let offset = f.node("Sub", &[turn, middle_id])?;
            let distance = f.node("Abs", &[offset])?;
            // Red is what is far from the middle of green and blue, the others what is near to theirs.
            let sides = if middle == 3.0 { [distance, one] } else { [two, distance] };
            let share = f.node("Sub", &sides)?;
            let share = f.node("Max", &[share, zero])?;
            let share = f.node("Min", &[share, one])?;
            let rest = f.node("Sub", &[one, share])?;
            let missing = f.node("Mul", &[self.range, rest])?;
            f.node("Sub", &[self.value, missing])
        };
        Ok([part(3.0)?, part(2.0)?, part(4.0)?])
    }
}

fn to_hues(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let parts = channels(g, c.input(0)?)?;
    let dtype = g.get(parts[0]).dtype;
    let mut f = Formula { g, dtype };
    let colour = Colour::of(parts, &mut f)?;
    let saturation = colour.saturation(&mut f)?;
    Ok(vec![joined(g, &[colour.hue, saturation, colour.value])])
}

fn to_colours(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let [hue, saturation, value] = channels(g, c.input(0)?)?;
    let dtype = g.get(hue).dtype;
    let mut f = Formula { g, dtype };
    let range = f.node("Mul", &[saturation, value])?;
    let parts = Colour { hue, range, value }.parts(&mut f)?;
    Ok(vec![joined(g, &parts)])
}

/// A scalar as the factor of an image; more than that is refused.
fn scalar(g: &Graph, id: ValueId) -> Result<ValueId, Reason> {
    if g.get(id).rank() == Some(0) { Ok(id) } else { refuse("its factor is no scalar") }
}

/// The image with its colours changed by a scalar.
fn changed(
    g: &mut Graph,
    c: &Call<'_>,
    how: fn(&mut Formula<'_>, Colour, ValueId) -> Result<Colour, Reason>,
) -> Outcome {
    let by = scalar(g, c.input(1)?)?;
    let parts = channels(g, c.input(0)?)?;
    expect_dtype(g.get(parts[0]).dtype, &[DType::F32])?;
    let mut f = Formula { g, dtype: DType::F32 };
    let colour = Colour::of(parts, &mut f)?;
    let parts = how(&mut f, colour, by)?.parts(&mut f)?;
    Ok(vec![joined(g, &parts)])
}

fn turned(f: &mut Formula<'_>, colour: Colour, delta: ValueId) -> Result<Colour, Reason> {
    let sum = f.node("Add", &[colour.hue, delta])?;
    let turns = f.node("Floor", &[sum])?;
    Ok(Colour { hue: f.node("Sub", &[sum, turns])?, ..colour })
}

fn saturated(f: &mut Formula<'_>, colour: Colour, factor: ValueId) -> Result<Colour, Reason> {
    let (zero, one) = (f.number(0.0)?, f.number(1.0)?);
    let saturation = colour.saturation(f)?;
    let saturation = f.node("Mul", &[saturation, factor])?;
    let saturation = f.node("Max", &[saturation, zero])?;
    let saturation = f.node("Min", &[saturation, one])?;
    Ok(Colour { range: f.node("Mul", &[saturation, colour.value])?, ..colour })
}

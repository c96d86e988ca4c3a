//! Cutting boxes out of images and giving them one size.
//!
//! ONNX cuts one box in one way (`Resize`) or averages over cells (`RoiAlign`); neither is what
//! TensorFlow does, so the cells are picked and weighed here. Invariant: positions are computed by
//! the same operations in the same order as TensorFlow's, since a cell more or less outside of the
//! image is another answer.

use vesta_model::DType;

use super::convolution::{Format, image_dims};
use super::gathering::guarded_wide;
use super::guards::spread;
use super::{NUMBERS, expect_dtype};
use crate::call::Call;
use crate::constant::Constant;
use crate::graph::{Attr, Graph};
use crate::refusal::{Reason, refuse};
use crate::registry::{Family, Outcome};
use crate::value::Dim;

pub(super) const FAMILY: Family = &[("CropAndResize", crop_and_resize)];

/// The largest size that boxes are given.
const SIZE_MAX: i64 = 1 << 14;

/// Where the cells of one axis lie in the image, `[boxes, cells]`.
struct Positions {
    at: String,
    is_inside: String,
    /// Sizes of both.
    dims: Vec<Dim>,
}

fn floats(g: &mut Graph, op: &'static str, a: &str, b: &str, dims: &[Dim]) -> String {
    g.emit(op, &[a, b], vec![], DType::F32, Some(dims.to_vec()))
}

/// The last cell of an axis of the image, as f32 and its number of cells as int64, both scalar.
fn extent(g: &mut Graph, image: &str, axis: i64) -> Result<(String, String), Reason> {
    let attributes = vec![("start", Attr::Int(axis)), ("end", Attr::Int(axis + 1))];
    let size = g.emit("Shape", &[image], attributes, DType::I64, Some(vec![Dim::Known(1)]));
    let size = g.reshape(&size, &[], Some(vec![]));
    let one = g.scalar(DType::I64, 1.0)?;
    let last = g.emit("Sub", &[&size, &one], vec![], DType::I64, Some(vec![]));
    Ok((g.cast(&last, DType::F32, Some(vec![])), size))
}

/// Cells from `low` to `high` (`[boxes, 1]`, in shares of the image).
fn positions(
    g: &mut Graph,
    low: &str,
    high: &str,
    last: &str,
    count: (usize, Dim),
) -> Result<Positions, Reason> {
    let (cells, boxes) = count;
    let (one_each, all) = (vec![boxes, Dim::Known(1)], vec![boxes, Dim::Known(cells)]);
    let at = if cells > 1 {
        let span = floats(g, "Sub", high, low, &one_each);
        let span = floats(g, "Mul", &span, last, &one_each);
        let steps = g.scalar(DType::F32, (cells - 1) as f64)?;
        let scale = floats(g, "Div", &span, &steps, &one_each);
        let numbers: Vec<f32> = (0..cells).map(|cell| cell as f32).collect();
        let Some(numbers) = Constant::floats(&[1, cells], &numbers) else {
            return refuse("its cells have no constant");
        };
        let numbers = g.initializer(numbers);
        let start = floats(g, "Mul", low, last, &one_each);
        let way = floats(g, "Mul", &numbers, &scale, &all);
        floats(g, "Add", &start, &way, &all)
    } else {
        let half = g.scalar(DType::F32, 0.5)?;
        let sum = floats(g, "Add", low, high, &one_each);
        let middle = floats(g, "Mul", &half, &sum, &one_each);
        floats(g, "Mul", &middle, last, &one_each)
    };
    let zero = g.scalar(DType::F32, 0.0)?;
    let inputs = [&*at, &zero];
    let is_above = g.emit("GreaterOrEqual", &inputs, vec![], DType::Bool, Some(all.clone()));
    let is_below = g.emit("LessOrEqual", &[&at, last], vec![], DType::Bool, Some(all.clone()));
    let is_inside = g.emit("And", &[&is_above, &is_below], vec![], DType::Bool, Some(all.clone()));
    let at = g.emit("Where", &[&is_inside, &at, &zero], vec![], DType::F32, Some(all.clone()));
    Ok(Positions { at, is_inside, dims: all })
}

/// A cell nearest to each position; a half goes up.
fn nearest(g: &mut Graph, it: &Positions) -> Result<String, Reason> {
    let dims = Some(it.dims.clone());
    let low = g.emit("Floor", &[&it.at], vec![], DType::F32, dims.clone());
    let over = floats(g, "Sub", &it.at, &low, &it.dims);
    let half = g.scalar(DType::F32, 0.5)?;
    let is_up = g.emit("GreaterOrEqual", &[&over, &half], vec![], DType::Bool, dims.clone());
    let up = g.cast(&is_up, DType::F32, dims);
    Ok(floats(g, "Add", &low, &up, &it.dims))
}

/// The image's cells as rows, and what it takes to find them.
struct Rows {
    rows: String,
    /// The first row of each box's image, `[boxes, 1, 1]`.
    first: String,
    /// Rows of a line of the image, scalar.
    width: String,
    /// Of what is picked: boxes, lines, cells, channels.
    dims: Vec<Dim>,
}

impl Rows {
    /// The cells at the whole numbers `y` and `x` (f32, `[boxes, n]`).
    fn pick(&self, g: &mut Graph, y: &str, x: &str) -> String {
        let whole = |g: &mut Graph, name: &str, axis: i64| {
            let dims = g.facts.get(name).and_then(|fact| fact.1.clone());
            let name = g.cast(name, DType::I64, dims);
            spread(g, &name, &[axis])
        };
        let (y, x) = (whole(g, y, 2), whole(g, x, 1));
        let lines = vec![self.dims[0], self.dims[1], Dim::Known(1)];
        let line = g.emit("Mul", &[&y, &self.width], vec![], DType::I64, Some(lines.clone()));
        let line = g.emit("Add", &[&line, &self.first], vec![], DType::I64, Some(lines));
        let all = Some(self.dims[..3].to_vec());
        let at = g.emit("Add", &[&line, &x], vec![], DType::I64, all);
        let attributes = vec![("axis", Attr::Int(0))];
        let picked = Some(self.dims.clone());
        g.emit("Gather", &[&self.rows, &at], attributes, DType::F32, picked)
    }
}

fn crop_and_resize(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let (id, boxes, images) = (c.input(0)?, c.input(1)?, c.input(2)?);
    expect_dtype(g.get(id).dtype, NUMBERS)?;
    expect_dtype(g.get(boxes).dtype, &[DType::F32])?;
    let method = c.text("method", "bilinear")?;
    let beyond = c.float("extrapolation_value", 0.0)?;
    let sizes = g.constant_ints(c.input(3)?, "size of the boxes")?;
    let &[lines, cells] = &sizes[..] else { return refuse("a size that is not two numbers") };
    if !(1..=SIZE_MAX).contains(&lines) || !(1..=SIZE_MAX).contains(&cells) {
        return refuse(format!("boxes of {lines} by {cells}"));
    }
    let (lines, cells) = (lines as usize, cells as usize);
    let dims = image_dims(g, id, Format::ChannelsLast, 4)?;
    let image = g.plain(id);
    let (last_y, height) = extent(g, &image, 1)?;
    let (last_x, width) = extent(g, &image, 2)?;
    let number = g.dims(boxes)?.first().copied().unwrap_or(Dim::Known(0));
    let boxes = g.plain(boxes);
    let ones = g.ints(&[1; 4]);
    let each = (DType::F32, Some(vec![number, Dim::Known(1)]));
    let attributes = vec![("axis", Attr::Int(1))];
    let edges = g.emit_many("Split", &[&boxes, &ones], attributes, vec![each; 4]);
    let y = positions(g, &edges[0], &edges[2], &last_y, (lines, number))?;
    let x = positions(g, &edges[1], &edges[3], &last_x, (cells, number))?;
    let dims = vec![number, Dim::Known(lines), Dim::Known(cells), dims[1]];
    let images = guarded_wide(g, images)?;
    let rows = rows(g, &image, (&height, width), images, dims.clone());
    let result = match method.as_str() {
        "nearest" => {
            let (y, x) = (nearest(g, &y)?, nearest(g, &x)?);
            rows.pick(g, &y, &x)
        }
        "bilinear" => weighed(g, &rows, &y, &x),
        other => return refuse(format!("method {other}")),
    };
    let (in_y, in_x) = (spread(g, &y.is_inside, &[2, 3]), spread(g, &x.is_inside, &[1, 3]));
    let mut covered = dims[..3].to_vec();
    covered.push(Dim::Known(1));
    let is_inside = g.emit("And", &[&in_y, &in_x], vec![], DType::Bool, Some(covered));
    let beyond = g.scalar(DType::F32, beyond.into())?;
    let name = g.emit("Where", &[&is_inside, &result, &beyond], vec![], DType::F32, Some(dims));
    Ok(vec![g.result(name)])
}

fn rows(
    g: &mut Graph,
    image: &str,
    (height, width): (&str, String),
    images: String,
    dims: Vec<Dim>,
) -> Rows {
    let dtype = g.facts.get(image).map_or(DType::Invalid, |fact| fact.0);
    let own = g.facts.get(image).and_then(|fact| fact.1.clone());
    let image = if dtype == DType::F32 { image.to_owned() } else { g.cast(image, DType::F32, own) };
    let (count, channels) = (g.symbol(), dims[3]);
    let rows = match channels {
        Dim::Known(channels) => {
            let sizes = [-1, channels as i64];
            g.reshape(&image, &sizes, Some(vec![count, Dim::Known(channels)]))
        }
        Dim::Symbol(_) => {
            let attributes = vec![("start", Attr::Int(3))];
            let one = Some(vec![Dim::Known(1)]);
            let channels_name = g.emit("Shape", &[&image], attributes, DType::I64, one);
            let open = g.ints(&[-1]);
            let attributes = vec![("axis", Attr::Int(0))];
            let two = Some(vec![Dim::Known(2)]);
            let shape = g.emit("Concat", &[&open, &channels_name], attributes, DType::I64, two);
            let attributes = vec![("allowzero", Attr::Int(0))];
            let all = Some(vec![count, channels]);
            g.emit("Reshape", &[&image, &shape], attributes, DType::F32, all)
        }
    };
    let size = g.emit("Mul", &[height, &width], vec![], DType::I64, Some(vec![]));
    let each = Some(vec![dims[0]]);
    let first = g.emit("Mul", &[&images, &size], vec![], DType::I64, each);
    let first = spread(g, &first, &[1, 2]);
    Rows { rows, first, width, dims }
}

/// Between the four cells around each position.
fn weighed(g: &mut Graph, rows: &Rows, y: &Positions, x: &Positions) -> String {
    let around = |g: &mut Graph, it: &Positions| {
        let dims = Some(it.dims.clone());
        let low = g.emit("Floor", &[&it.at], vec![], DType::F32, dims.clone());
        let high = g.emit("Ceil", &[&it.at], vec![], DType::F32, dims);
        let share = floats(g, "Sub", &it.at, &low, &it.dims);
        (low, high, share)
    };
    let (top, bottom, down) = around(g, y);
    let (left, right, across) = around(g, x);
    let (down, across) = (spread(g, &down, &[2, 3]), spread(g, &across, &[1, 3]));
    let line = |g: &mut Graph, y: &str| {
        let (from, to) = (rows.pick(g, y, &left), rows.pick(g, y, &right));
        blend(g, &from, &to, &across, &rows.dims)
    };
    let (above, below) = (line(g, &top), line(g, &bottom));
    blend(g, &above, &below, &down, &rows.dims)
}

fn blend(g: &mut Graph, from: &str, to: &str, share: &str, dims: &[Dim]) -> String {
    let way = floats(g, "Sub", to, from, dims);
    let way = floats(g, "Mul", &way, share, dims);
    floats(g, "Add", from, &way, dims)
}

//! Images to another size by weights for each of its cells, which are known when both sizes are; cubic
//! ones are computed in the run where a size is open.
//!
//! Invariant: the weights are computed as TensorFlow computes them; its cubic ones come from a table of
//! 1024 places, so no engine's own cubic resizing gives them.

use vesta_model::DType;

use super::convolution::{Format, image_dims};
use super::{NUMBERS, expect_dtype};
use crate::call::Call;
use crate::constant::Constant;
use crate::graph::Graph;
use crate::refusal::{Reason, refuse};
use crate::registry::{Family, Outcome};
use crate::value::Dim;

pub(super) const FAMILY: Family =
    &[("ResizeArea", |g, c| resize(g, c, area)), ("ResizeBicubic", bicubic)];

/// Places of TensorFlow's table of cubic weights.
pub(super) const TABLE_LEN: usize = 1024;

/// Sums of weights below it are left as they are.
pub(super) const SUM_MIN: f32 = 1000.0 * f32::MIN_POSITIVE;

/// Weights of one axis; beyond, they take more room than an image.
const WEIGHTS_MAX: usize = 1 << 24;

/// One axis: sizes before and after, and how cells of both lie.
struct Axis {
    from: usize,
    to: usize,
    /// Cells before for each cell after.
    scale: f32,
    has_half_pixels: bool,
}

fn axis(c: &Call<'_>, from: usize, to: usize) -> Result<Axis, Reason> {
    let is_aligned = c.flag("align_corners", false)?;
    let has_half_pixels = c.flag("half_pixel_centers", false)?;
    if is_aligned && has_half_pixels {
        return refuse("both align_corners and half_pixel_centers");
    }
    let scale = if is_aligned && to > 1 {
        (from - 1) as f32 / (to - 1) as f32
    } else {
        from as f32 / to as f32
    };
    Ok(Axis { from, to, scale, has_half_pixels })
}

fn bicubic(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let image = image_dims(g, c.input(0)?, Format::ChannelsLast, 4)?;
    let is_known = image[2..].iter().all(|dim| dim.known().is_some());
    if is_known && g.constant_ints(c.input(1)?, "target").is_ok() {
        return resize(g, c, cubic);
    }
    super::resampling_open::bicubic(g, c, image)
}

/// Two products with weights of known number: rows, then columns.
fn resize(g: &mut Graph, c: &Call<'_>, weights: fn(&Axis) -> Vec<f32>) -> Outcome {
    let (id, target) = (c.input(0)?, c.input(1)?);
    let dtype = g.get(id).dtype;
    expect_dtype(dtype, NUMBERS)?;
    let image = image_dims(g, id, Format::ChannelsLast, 4)?;
    let target = g.constant_ints(target, "target")?;
    let (&[_, _, Dim::Known(height), Dim::Known(width)], &[rows, columns]) =
        (&image[..], &target[..])
    else {
        return refuse("it gives weights to cells of an image whose size is not known");
    };
    let sizes = [(height, rows), (width, columns)];
    let mut matrices = Vec::new();
    for (from, to) in sizes {
        let to = usize::try_from(to).unwrap_or(0);
        if from == 0 || to == 0 || from.saturating_mul(to) > WEIGHTS_MAX {
            return refuse(format!("{from} cells to {to}"));
        }
        let axis = axis(c, from, to)?;
        let Some(constant) = Constant::floats(&[to, from], &weights(&axis)) else {
            return refuse("its weights have no constant");
        };
        matrices.push((to, constant));
    }
    let mut name = g.channels_first(id)?;
    if dtype != DType::F32 {
        name = g.cast(&name, DType::F32, Some(image.clone()));
    }
    let (Some((columns, across)), Some((rows, down))) = (matrices.pop(), matrices.pop()) else {
        return refuse("it has not two axes");
    };
    let Some(across) = across.permuted(&[1, 0]) else { return refuse("its weights do not turn") };
    let mut dims = image;
    let across = g.initializer(across);
    dims[3] = Dim::Known(columns);
    name = g.emit("MatMul", &[&name, &across], vec![], DType::F32, Some(dims.clone()));
    let down = g.initializer(down);
    dims[2] = Dim::Known(rows);
    name = g.emit("MatMul", &[&down, &name], vec![], DType::F32, Some(dims));
    Ok(vec![g.result_channels_first(name)])
}

/// How sharp TensorFlow's cubic weights are.
pub(super) fn sharpness(has_half_pixels: bool) -> f64 {
    if has_half_pixels { -0.5 } else { -0.75 }
}

/// The weights of the inner and the outer cell at a distance of `place` 1024ths.
pub(super) fn from_table(place: usize, a: f64) -> (f32, f32) {
    let x = (place as f64 / TABLE_LEN as f64) as f32;
    let inner = ((a + 2.0) * f64::from(x) - (a + 3.0)) * f64::from(x) * f64::from(x) + 1.0;
    let x = f64::from(x + 1.0);
    let outer = ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a;
    (inner as f32, outer as f32)
}

fn cubic(axis: &Axis) -> Vec<f32> {
    let mut all = vec![0.0; axis.to * axis.from];
    let a = sharpness(axis.has_half_pixels);
    for (to, row) in all.chunks_mut(axis.from).enumerate() {
        let at = if axis.has_half_pixels {
            (to as f32 + 0.5) * axis.scale - 0.5
        } else {
            to as f32 * axis.scale
        };
        let cell = at.floor();
        let place = ((at - cell) * TABLE_LEN as f32).round_ties_even() as usize;
        let (near, far) = from_table(place, a);
        let (next, last) = from_table(TABLE_LEN - place, a);
        let mut weights = [far, near, next, last];
        let last_cell = axis.from as i64 - 1;
        let cells = [-1, 0, 1, 2].map(|by| cell as i64 + by);
        if axis.has_half_pixels {
            // Cells outside of the image count nothing, and the others as much more.
            for (weight, cell) in weights.iter_mut().zip(cells) {
                *weight = if (0..=last_cell).contains(&cell) { *weight } else { 0.0 };
            }
            let sum: f32 = weights.iter().sum();
            if sum.abs() >= SUM_MIN {
                weights.iter_mut().for_each(|weight| *weight *= 1.0 / sum);
            }
        }
        for (weight, cell) in weights.iter().zip(cells) {
            row[cell.clamp(0, last_cell) as usize] += weight;
        }
    }
    all
}

/// How much of each cell before lies in a cell after.
fn area(axis: &Axis) -> Vec<f32> {
    let mut all = vec![0.0; axis.to * axis.from];
    let scale = axis.scale;
    for (to, row) in all.chunks_mut(axis.from).enumerate() {
        let (low, high) = (to as f32 * scale, (to + 1) as f32 * scale);
        for cell in low.floor() as i64..high.ceil() as i64 {
            let at = cell as f32;
            let share = match (at < low, at + 1.0 > high) {
                (true, true) => scale,
                (true, false) => at + 1.0 - low,
                (false, true) => high - at,
                (false, false) => 1.0,
            };
            row[cell.clamp(0, axis.from as i64 - 1) as usize] += share / scale;
        }
    }
    all
}

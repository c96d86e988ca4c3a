//! Images sampled through a kernel, as `tf.image.resize` does with `antialias`, and Lanczos at all times.
//!
//! Invariant: both axes are products with a matrix of weights, one row for each cell of the result; a
//! row whose place is outside of the image is zero, any other sums to one.

use vesta_model::DType;

use super::convolution::{Format, image_dims, in_order};
use super::formula::Formula;
use super::guards::{counted, size, spread};
use super::{NUMBERS, expect_dtype};
use crate::call::Call;
use crate::graph::{Attr, Graph};
use crate::refusal::{Reason, refuse};
use crate::registry::{Family, Outcome};
use crate::value::{Dim, Element, ValueId};

pub(super) const FAMILY: Family = &[("ScaleAndTranslate", sample)];

/// What a cell counts by its distance.
#[derive(Clone, Copy)]
enum Kernel {
    /// `sin` of its first arch, with this radius.
    Lanczos(f64),
    Gaussian,
    Box,
    Triangle,
    /// Numbers of two cubic polynomials, the highest power first, below and above a distance of one.
    Cubic([f64; 4], [f64; 4]),
}

impl Kernel {
    fn read(c: &Call<'_>) -> Result<Kernel, Reason> {
        Ok(match c.text("kernel_type", "lanczos3")?.as_str() {
            "lanczos1" => Kernel::Lanczos(1.0),
            "lanczos3" => Kernel::Lanczos(3.0),
            "lanczos5" => Kernel::Lanczos(5.0),
            "gaussian" => Kernel::Gaussian,
            "box" => Kernel::Box,
            "triangle" => Kernel::Triangle,
            "keyscubic" => Kernel::Cubic([1.5, -2.5, 0.0, 1.0], [-0.5, 2.5, -4.0, 2.0]),
            "mitchellcubic" => Kernel::Cubic(
                [7.0 / 6.0, -2.0, 0.0, 8.0 / 9.0],
                [-7.0 / 18.0, 2.0, -10.0 / 3.0, 16.0 / 9.0],
            ),
            other => return refuse(format!("the kernel {other}")),
        })
    }

    fn radius(self) -> f64 {
        match self {
            Kernel::Lanczos(radius) => radius,
            Kernel::Gaussian => 1.5,
            Kernel::Box | Kernel::Triangle => 1.0,
            Kernel::Cubic(..) => 2.0,
        }
    }

    /// What cells at these distances count.
    fn at(self, f: &mut Formula<'_>, x: ValueId) -> Result<ValueId, Reason> {
        let (zero, one) = (f.number(0.0)?, f.number(1.0)?);
        let weight = match self {
            Kernel::Lanczos(radius) => {
                let (pi, times) = (f.number(std::f64::consts::PI)?, f.number(radius)?);
                let turn = f.node("Mul", &[x, pi])?;
                let slow = f.node("Div", &[turn, times])?;
                let (fast_wave, slow_wave) = (f.node("Sin", &[turn])?, f.node("Sin", &[slow])?);
                let waves = f.node("Mul", &[fast_wave, slow_wave])?;
                let waves = f.node("Mul", &[waves, times])?;
                let square = f.node("Mul", &[turn, turn])?;
                let weight = f.node("Div", &[waves, square])?;
                let near = f.number(1e-3)?;
                let is_near = f.test("Less", &[x, near])?;
                f.node("Where", &[is_near, one, weight])?
            }
            Kernel::Gaussian => {
                let spread = 1.5 / 3.0;
                let factor = f.number(-1.0 / (2.0 * spread * spread))?;
                let square = f.node("Mul", &[x, x])?;
                let power = f.node("Mul", &[square, factor])?;
                f.node("Exp", &[power])?
            }
            Kernel::Box => {
                let half = f.number(0.5)?;
                let (is_in, is_edge) = (f.test("Less", &[x, half])?, f.test("Equal", &[x, half])?);
                let edge = f.node("Where", &[is_edge, half, zero])?;
                f.node("Where", &[is_in, one, edge])?
            }
            Kernel::Triangle => f.node("Sub", &[one, x])?,
            Kernel::Cubic(near, far) => {
                let (near, far) = (polynomial(f, x, near)?, polynomial(f, x, far)?);
                let is_near = f.test("Less", &[x, one])?;
                f.node("Where", &[is_near, near, far])?
            }
        };
        let radius = f.number(self.radius())?;
        let is_in = match self {
            Kernel::Lanczos(_) => f.test("LessOrEqual", &[x, radius])?,
            _ => f.test("Less", &[x, radius])?,
        };
        f.node("Where", &[is_in, weight, zero])
    }
}

fn polynomial(f: &mut Formula<'_>, x: ValueId, numbers: [f64; 4]) -> Result<ValueId, Reason> {
    let mut sum = f.number(numbers[0])?;
    for number in &numbers[1..] {
        let number = f.number(*number)?;
        let product = f.node("Mul", &[sum, x])?;
        sum = f.node("Add", &[product, number])?;
    }
    Ok(sum)
}

fn sample(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let (id, target) = (c.input(0)?, c.input(1)?);
    expect_dtype(g.get(id).dtype, NUMBERS)?;
    let kernel = Kernel::read(c)?;
    let is_smoothed = c.flag("antialias", true)?;
    let image = in_order(Format::ChannelsLast, &image_dims(g, id, Format::ChannelsLast, 4)?);
    let elements = g.get(target).elements.clone();
    let elements = elements.unwrap_or_else(|| vec![Element::Unknown; 2]);
    let [rows, columns] = super::shaping::target_dims(g, &elements)?[..] else {
        return refuse("its target is not two sizes");
    };
    let mut name = g.plain(id);
    if g.get(id).dtype != DType::F32 {
        name = g.cast(&name, DType::F32, Some(image.clone()));
    }
    let mut weights = Vec::new();
    for (axis, to) in [rows, columns].into_iter().enumerate() {
        let of = Axis { from: image[axis + 1], to, is_smoothed, kernel };
        weights.push(of.weights(g, c, &name, axis)?);
    }
    // A row is one long vector to the matrix of rows.
    let [batch, from, across, depth] = image[..] else { return refuse("an image of another rank") };
    let flat = match (across, depth) {
        (Dim::Known(across), Dim::Known(depth)) => Dim::Known(across * depth),
        _ => g.symbol(),
    };
    let long = g.reshape(&name, &[0, 0, -1], Some(vec![batch, from, flat]));
    let dims = Some(vec![batch, rows, flat]);
    let sampled = g.emit("MatMul", &[&weights[0], &long], vec![], DType::F32, dims);
    let ends =
        [super::guards::sizes(g, &sampled, 0, Some(2)), super::guards::sizes(g, &name, 2, Some(4))];
    let shape = super::guards::joined(g, &[&ends[0], &ends[1]]);
    let dims = Some(vec![batch, rows, across, depth]);
    let sampled = super::guards::reshaped(g, &sampled, &shape, dims);
    let dims = Some(vec![batch, rows, columns, depth]);
    let name = g.emit("MatMul", &[&weights[1], &sampled], vec![], DType::F32, dims);
    Ok(vec![g.result(name)])
}

/// One axis of an image.
struct Axis {
    from: Dim,
    to: Dim,
    is_smoothed: bool,
    kernel: Kernel,
}

impl Axis {
    /// Its matrix: a row for each cell of the result, a column for each cell of the image.
    fn weights(
        &self,
        g: &mut Graph,
        c: &Call<'_>,
        image: &str,
        axis: usize,
    ) -> Result<String, Reason> {
        let element = |g: &mut Graph, input: usize| -> Result<String, Reason> {
            let id = c.input(input)?;
            let (name, at) = (g.plain(id), g.scalar(DType::I64, axis as f64)?);
            let dtype = g.get(id).dtype;
            let along = vec![("axis", Attr::Int(0))];
            Ok(g.emit("Gather", &[&name, &at], along, dtype, Some(vec![])))
        };
        let (wanted, scale, shift) = (element(g, 1)?, element(g, 2)?, element(g, 3)?);
        let wanted = g.cast(&wanted, DType::I64, Some(vec![]));
        let own = size(g, image, axis + 1);
        let (to, from) = (counted(g, &wanted, self.to)?, counted(g, &own, self.from)?);
        let to = g.cast(&to, DType::F32, Some(vec![self.to]));
        let from = g.cast(&from, DType::F32, Some(vec![self.from]));
        let length = g.cast(&own, DType::F32, Some(vec![]));
        let to = spread(g, &to, &[1]);
        let [to, from, length, scale, shift] =
            [to, from, length, scale, shift].map(|name| g.result(name));
        let mut f = Formula { g, dtype: DType::F32 };
        let (zero, half, one) = (f.number(0.0)?, f.number(0.5)?, f.number(1.0)?);
        let step = f.node("Div", &[one, scale])?;
        let offset = f.node("Mul", &[step, shift])?;
        let centre = f.node("Add", &[to, half])?;
        let centre = f.node("Mul", &[centre, step])?;
        let centre = f.node("Sub", &[centre, offset])?;
        let width = if self.is_smoothed { f.node("Max", &[step, one])? } else { one };
        let narrow = f.node("Div", &[one, width])?;
        let cell = f.node("Add", &[from, half])?;
        let distance = f.node("Sub", &[cell, centre])?;
        let distance = f.node("Mul", &[distance, narrow])?;
        let distance = f.node("Abs", &[distance])?;
        let weights = self.kernel.at(&mut f, distance)?;
        let (before, past) =
            (f.test("Less", &[centre, zero])?, f.test("Greater", &[centre, length])?);
        let is_outside = f.test("Or", &[before, past])?;
        let weights_name = f.g.plain(weights);
        let (axes, dims) = (f.g.ints(&[1]), Some(vec![self.to, Dim::Known(1)]));
        let attributes = vec![("keepdims", Attr::Int(1)), ("noop_with_empty_axes", Attr::Int(0))];
        let sum = f.g.emit("ReduceSum", &[&weights_name, &axes], attributes, DType::F32, dims);
        let sum = f.g.result(sum);
        // A sum of nothing is left as it is.
        let (size, least) =
            (f.node("Abs", &[sum])?, f.number(1000.0 * f64::from(f32::MIN_POSITIVE))?);
        let is_nothing = f.test("Less", &[size, least])?;
        let sum = f.node("Where", &[is_nothing, one, sum])?;
        let weights = f.node("Div", &[weights, sum])?;
        let weights = f.node("Where", &[is_outside, zero, weights])?;
        Ok(g.plain(weights))
    }
}

//! Changing the size of images.

use vesta_model::DType;

use super::convolution::{Format, image_dims};
use super::{NUMBERS, expect_dtype};
use crate::call::Call;
use crate::graph::{Attr, Graph};
use crate::refusal::{Reason, refuse};
use crate::registry::{Family, Outcome};
use crate::signature::Resizing;
use crate::value::{Dim, Element, ValueId};

pub(super) const FAMILY: Family = &[
    ("ResizeBilinear", |g, c| resize(g, c, "linear")),
    ("ResizeNearestNeighbor", |g, c| resize(g, c, "nearest")),
];

/// How TensorFlow's flags name the cells that a result is computed from.
fn coordinates(c: &Call<'_>, mode: &str) -> Result<(&'static str, &'static str), Reason> {
    match (c.flag("align_corners", false)?, c.flag("half_pixel_centers", false)?) {
        (true, true) => refuse("both align_corners and half_pixel_centers"),
        (true, false) => Ok(("align_corners", "round_prefer_ceil")),
        // A cell's centre rounded down is its corner rounded to the nearest.
        (false, true) if mode == "nearest" => Ok(("half_pixel", "round_prefer_ceil")),
        (false, true) => Ok(("half_pixel", "floor")),
        (false, false) => Ok(("asymmetric", "floor")),
    }
}

fn resize(g: &mut Graph, c: &Call<'_>, mode: &'static str) -> Outcome {
    let (id, target) = (c.input(0)?, c.input(1)?);
    let dtype = g.get(id).dtype;
    expect_dtype(dtype, NUMBERS)?;
    let (transformation, nearest) = coordinates(c, mode)?;
    let image = image_dims(g, id, Format::ChannelsLast, 4)?;
    let elements = g.get(target).elements.clone();
    let elements = elements.unwrap_or_else(|| vec![Element::Unknown; 2]);
    let sizes = super::shaping::target_dims(g, &elements)?;
    if sizes.len() != 2 {
        return refuse("its target is not two sizes");
    }
    let mut name = g.channels_first(id)?;
    let mut dtype = dtype;
    // TensorFlow's answer is of floats, whatever the image is of.
    if mode == "linear" && dtype != DType::F32 {
        name = g.cast(&name, DType::F32, Some(image.clone()));
        dtype = DType::F32;
    }
    let is_computed = g.resizing == Resizing::Computed && has_rounded_places(&image, &sizes);
    if mode == "linear" && is_computed {
        let name = super::resampling_open::bilinear(g, c, &name)?;
        return Ok(vec![g.result_channels_first(name)]);
    }
    let shape = full_shape(g, &name, &image, target)?;
    let attributes = vec![
        ("antialias", Attr::Int(0)),
        ("coordinate_transformation_mode", Attr::Text(transformation)),
        ("cubic_coeff_a", Attr::Float(-0.75)),
        ("exclude_outside", Attr::Int(0)),
        ("extrapolation_value", Attr::Float(0.0)),
        ("keep_aspect_ratio_policy", Attr::Text("stretch")),
        ("mode", Attr::Text(mode)),
        ("nearest_mode", Attr::Text(nearest)),
    ];
    let mut dims = image[..2].to_vec();
    dims.extend(sizes);
    let name = g.emit("Resize", &[&name, "", "", &shape], attributes, dtype, Some(dims));
    Ok(vec![g.result_channels_first(name)])
}

/// Channels of what is an image, rather than what a network made of one.
const CHANNELS_MAX: usize = 4;

/// Whether an engine's own operator would take other places of an image than TensorFlow does: sizes
/// whose quotient is no power of two are rounded elsewhere. Within a network that is less than what
/// its products are rounded by, and the operator is faster.
fn has_rounded_places(image: &[Dim], sizes: &[Dim]) -> bool {
    let is_image = matches!(image[1], Dim::Known(channels) if channels <= CHANNELS_MAX);
    let is_exact = |(from, to): (&Dim, &Dim)| match (from, to) {
        (Dim::Known(from), Dim::Known(to)) if *from > 0 && *to > 0 => {
            let (low, high) = (from.min(to), from.max(to));
            high % low == 0 && (high / low).is_power_of_two()
        }
        _ => false,
    };
    is_image && !image[2..].iter().zip(sizes).all(is_exact)
}

/// Batch and channels of the image and the two target sizes, as one int64 value.
fn full_shape(g: &mut Graph, image: &str, dims: &[Dim], target: ValueId) -> Result<String, Reason> {
    let known = g.constant_ints(target, "target").ok();
    if let (Some(batch), Some(channels), Some(sizes)) = (dims[0].known(), dims[1].known(), known) {
        let mut all = vec![batch as i64, channels as i64];
        all.extend(sizes);
        return Ok(g.ints(&all));
    }
    let shape = g.emit(
        "Shape",
        &[image],
        vec![("start", Attr::Int(0))],
        DType::I64,
        Some(vec![Dim::Known(4)]),
    );
    let (start, end) = (g.ints(&[0]), g.ints(&[2]));
    let (axes, steps) = (g.ints(&[0]), g.ints(&[1]));
    let two = Some(vec![Dim::Known(2)]);
    let inputs = [&*shape, &start, &end, &axes, &steps];
    let before = g.emit("Slice", &inputs, vec![], DType::I64, two);
    let sizes = g.wide(target)?;
    let attributes = vec![("axis", Attr::Int(0))];
    let four = Some(vec![Dim::Known(4)]);
    Ok(g.emit("Concat", &[&before, &sizes], attributes, DType::I64, four))
}

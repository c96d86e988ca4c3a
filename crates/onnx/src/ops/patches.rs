//! Windows of an image as its channels.

use super::convolution::{Format, Padding, Window, image_dims, in_order};
use super::{NUMBERS, expect_dtype};
use crate::call::Call;
use crate::graph::{Attr, Graph};
use crate::refusal::refuse;
use crate::registry::{Family, Outcome};
use crate::value::Dim;

pub(super) const FAMILY: Family = &[("ExtractImagePatches", patches)];

/// Cells of one window; each is a cut of the image.
const CELLS_MAX: usize = 1024;

/// A cut of the whole image for each place in the window, one behind the other.
fn patches(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let id = c.input(0)?;
    let dtype = g.get(id).dtype;
    expect_dtype(dtype, NUMBERS)?;
    let image = image_dims(g, id, Format::ChannelsLast, 4)?;
    let kernel = Window::list(c, Format::ChannelsLast, "ksizes", 4)?;
    let strides = Window::list(c, Format::ChannelsLast, "strides", 4)?;
    let dilations = Window::list(c, Format::ChannelsLast, "rates", 4)?;
    if kernel.iter().product::<usize>() > CELLS_MAX {
        return refuse(format!("windows of {kernel:?}"));
    }
    let window = Window { kernel, strides, dilations };
    let Padding::Fixed(pads) = window.padding(c, Format::ChannelsLast, &image)? else {
        return refuse("its padding depends on the size of the image");
    };
    let dims = window.output(g, &image, &Padding::Fixed(pads.clone()));
    let mut name = g.plain(id);
    let mut padded = in_order(Format::ChannelsLast, &image);
    if pads.iter().any(|pair| *pair != (0, 0)) {
        let mut ends = vec![0; 8];
        for (axis, (before, after)) in pads.iter().enumerate() {
            (ends[1 + axis], ends[5 + axis]) = (*before as i64, *after as i64);
            padded[1 + axis] = match padded[1 + axis] {
                Dim::Known(n) => Dim::Known(n + before + after),
                Dim::Symbol(_) => g.symbol(),
            };
        }
        let (ends, zero) = (g.ints(&ends), g.scalar(dtype, 0.0)?);
        let attributes = vec![("mode", Attr::Text("constant"))];
        name = g.emit("Pad", &[&name, &ends, &zero], attributes, dtype, Some(padded));
    }
    let cut = vec![image[0], dims[0], dims[1], image[1]];
    let axes = g.ints(&[1, 2]);
    let steps = g.ints(&[window.strides[0] as i64, window.strides[1] as i64]);
    let mut pieces = Vec::new();
    for row in 0..window.kernel[0] {
        for column in 0..window.kernel[1] {
            let (mut from, mut to) = (Vec::new(), Vec::new());
            for (axis, place) in [row, column].into_iter().enumerate() {
                let start = place * window.dilations[axis];
                // So many cells stand between the last of this place and the end.
                let left = (window.span(axis) - 1 - start) as i64;
                from.push(start as i64);
                to.push(if left == 0 { i64::from(i32::MAX) } else { -left });
            }
            let (from, to) = (g.ints(&from), g.ints(&to));
            let inputs = [&*name, &from, &to, &axes, &steps];
            pieces.push(g.emit("Slice", &inputs, vec![], dtype, Some(cut.clone())));
        }
    }
    let mut joined = cut;
    joined[3] = match image[1] {
        Dim::Known(n) => Dim::Known(n * pieces.len()),
        Dim::Symbol(_) => g.symbol(),
    };
    let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
    let attributes = vec![("axis", Attr::Int(3))];
    let name = g.emit("Concat", &pieces, attributes, dtype, Some(joined));
    Ok(vec![g.result(name)])
}

//! Pooling over windows.

use vesta_model::DType;

use super::convolution::{Format, Window, image_dims, positive};
use super::elementwise::cast_to;
use super::{FLOATS, expect_dtype};
use crate::call::Call;
use crate::graph::{Attr, Graph};
use crate::refusal::refuse;
use crate::registry::{Family, Outcome};

pub(super) const FAMILY: Family = &[
    ("AvgPool", |g, c| pool(g, c, "AveragePool", 4)),
    ("AvgPool3D", |g, c| pool(g, c, "AveragePool", 5)),
    ("MaxPool", |g, c| pool(g, c, "MaxPool", 4)),
    ("MaxPool3D", |g, c| pool(g, c, "MaxPool", 5)),
];

fn pool(g: &mut Graph, c: &Call<'_>, op: &'static str, rank: usize) -> Outcome {
    let id = c.input(0)?;
    let dtype = g.get(id).dtype;
    expect_dtype(dtype, FLOATS)?;
    if dtype == DType::F16 && op == "AveragePool" {
        // Engines have no kernel of it, and sums of half would be rounded at every step.
        let (wide, mut call) = (cast_to(g, id, DType::F32)?, c.clone());
        call.inputs[0] = wide;
        let averages = pool(g, &call, op, rank)?[0];
        return Ok(vec![cast_to(g, averages, DType::F16)?]);
    }
    let format = Format::read(c, rank)?;
    let kernel = c.ints("ksize", &[])?;
    let channels = format.channels(rank);
    if kernel.len() != rank || kernel[0] != 1 || kernel[channels] != 1 {
        return refuse(format!("its window {kernel:?} covers batch or channels"));
    }
    let image = image_dims(g, id, format, rank)?;
    let window = Window::read(c, format, positive(&format.spatial(&kernel), "windows")?)?;
    let padding = window.padding(c, format, &image)?;
    let mut dims = image[..2].to_vec();
    dims.extend(window.output(g, &image, &padding));
    let mut attributes = window.attributes(&padding);
    attributes.push(("ceil_mode", Attr::Int(0)));
    if op == "MaxPool" {
        attributes.push(("storage_order", Attr::Int(0)));
    } else {
        // The operator set has no dilations for averages; TensorFlow's have none either.
        attributes.retain(|(name, _)| *name != "dilations");
        attributes.push(("count_include_pad", Attr::Int(0)));
    }
    let name = format.image(g, id)?;
    let name = g.emit(op, &[&name], attributes, dtype, Some(dims));
    Ok(vec![format.result(g, name)])
}

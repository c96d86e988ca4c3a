//! Normalisation by batch statistics, and softmax.

use vesta_model::DType;

use super::convolution::{Format, image_dims, in_order};
use super::elementwise::cast_to;
use super::layout::{combine, is_channels_first};
use super::{FLOATS, expect_dtype, folding};
use crate::call::Call;
use crate::constant::Constant;
use crate::graph::{Attr, Graph};
use crate::refusal::{Reason, refuse};
use crate::registry::{Family, Outcome};
use crate::value::{Dim, ValueId};

pub(super) const FAMILY: Family = &[
    ("BatchNormWithGlobalNormalization", with_global_statistics),
    ("FusedBatchNorm", batch_norm),
    ("FusedBatchNormV2", batch_norm),
    ("FusedBatchNormV3", batch_norm),
    ("LRN", local_response),
    ("LogSoftmax", |g, c| softmax(g, c, "LogSoftmax")),
    ("Softmax", |g, c| softmax(g, c, "Softmax")),
];

/// With stored statistics, as in inference. Folded into a convolution before it; else ONNX's own
/// where the image lies channels-first anyway; else a product and a sum.
fn batch_norm(g: &mut Graph, c: &Call<'_>) -> Outcome {
    if c.flag("is_training", true)? {
        return norm_by_itself(g, c);
    }
    with_statistics(g, c)
}

/// The form of the first releases, with the offset before the scale, which may be there for nothing.
fn with_global_statistics(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let scale = if c.flag("scale_after_normalization", false)? {
        c.input(4)?
    } else {
        let [Dim::Known(channels)] = g.dims(c.input(2)?)?[..] else {
            return refuse("the number of its channels is open");
        };
        let ones = Constant::floats(&[channels], &vec![1.0; channels]);
        let Some(ones) = ones else { return refuse("its scale has no constant") };
        g.constant(ones)
    };
    let inputs = vec![c.input(0)?, scale, c.input(3)?, c.input(1)?, c.input(2)?];
    let epsilon = c.float("variance_epsilon", 0.0)?;
    let mut results = normalised(g, &Call { inputs, ..c.clone() }, epsilon)?;
    results.truncate(1);
    Ok(results)
}

/// With the statistics that it is given.
pub(super) fn with_statistics(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let epsilon = c.float("epsilon", 1e-4)?;
    normalised(g, c, epsilon)
}

fn normalised(g: &mut Graph, c: &Call<'_>, epsilon: f32) -> Outcome {
    let id = c.input(0)?;
    if g.get(id).dtype == DType::F16 {
        // TensorFlow, too, computes in float, and rounds the results.
        let (wide, mut call) = (cast_to(g, id, DType::F32)?, c.clone());
        call.inputs[0] = wide;
        let mut results = normalised(g, &call, epsilon)?;
        results[0] = cast_to(g, results[0], DType::F16)?;
        return Ok(results);
    }
    expect_dtype(g.get(id).dtype, &[DType::F32])?;
    let rank = if c.text("data_format", "NHWC")?.len() == 5 { 5 } else { 4 };
    let format = Format::read(c, rank)?;
    let image = image_dims(g, id, format, rank)?;
    let factors = factors(g, c, epsilon);
    let same_axis = (format == Format::ChannelsLast) == g.get(id).channels_first.is_some();
    let folded = match &factors {
        Some((scales, offsets)) if same_axis => folding::rescale(g, id, scales, offsets),
        _ => None,
    };
    let y = match (folded, factors) {
        (Some(id), _) => id,
        (None, Some((scales, offsets)))
            if format == Format::ChannelsLast && !is_channels_first(g, id) =>
        {
            scale_and_shift(g, id, &scales, &offsets)?
        }
        _ => {
            let mut names = vec![format.image(g, id)?];
            for i in 1..5 {
                let parameter = c.input(i)?;
                names.push(g.plain(parameter));
            }
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let attributes = vec![
                ("epsilon", Attr::Float(epsilon)),
                ("momentum", Attr::Float(0.9)),
                ("training_mode", Attr::Int(0)),
            ];
            g.get_mut(id).dims = Some(in_order(format, &image));
            let name = g.emit("BatchNormalization", &names, attributes, DType::F32, Some(image));
            format.result(g, name)
        }
    };
    // The statistics are passed on; what follows them is for training.
    Ok(vec![y, c.input(3)?, c.input(4)?])
}

/// What each channel is multiplied by, and what is added then.
fn factors(g: &Graph, c: &Call<'_>, epsilon: f32) -> Option<(Vec<f32>, Vec<f32>)> {
    let floats = |i: usize| g.get(c.input(i).ok()?).constant.as_ref()?.to_floats();
    let (scale, offset, mean, variance) = (floats(1)?, floats(2)?, floats(3)?, floats(4)?);
    let channels = scale.len();
    if [&offset, &mean, &variance].iter().any(|all| all.len() != channels) {
        return None;
    }
    let mut scales = Vec::with_capacity(channels);
    let mut offsets = Vec::with_capacity(channels);
    for i in 0..channels {
        let factor = f64::from(scale[i]) / (f64::from(variance[i]) + f64::from(epsilon)).sqrt();
        scales.push(factor as f32);
        offsets.push((f64::from(offset[i]) - f64::from(mean[i]) * factor) as f32);
    }
    Some((scales, offsets))
}

fn scale_and_shift(
    g: &mut Graph,
    id: ValueId,
    scales: &[f32],
    offsets: &[f32],
) -> Result<ValueId, Reason> {
    let mut id = id;
    for (op, numbers) in [("Mul", scales), ("Add", offsets)] {
        let Some(constant) = Constant::floats(&[numbers.len()], numbers) else {
            return refuse("its parameters have no constant");
        };
        let constant = g.constant(constant);
        let dims = g.get(id).dims.clone();
        id = combine(g, op, &[id, constant], vec![], DType::F32, dims)?;
    }
    Ok(id)
}

/// By the statistics of what is given, as layers that normalise each example state it, with examples in
/// the place of channels. The statistics themselves are no output here; who reads them is refused.
fn norm_by_itself(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let id = c.input(0)?;
    expect_dtype(g.get(id).dtype, &[DType::F32])?;
    let rank = if c.text("data_format", "NHWC")?.len() == 5 { 5 } else { 4 };
    let format = Format::read(c, rank)?;
    let dims = in_order(format, &image_dims(g, id, format, rank)?);
    let channels = format.channels(rank);
    let axes: Vec<i64> =
        (0..rank).filter(|&axis| axis != channels).map(|axis| axis as i64).collect();
    let axes = g.ints(&axes);
    let mut of_channels = vec![Dim::Known(1); rank];
    of_channels[channels] = dims[channels];
    let mean = |g: &mut Graph, name: &str| {
        let attributes = vec![("keepdims", Attr::Int(1)), ("noop_with_empty_axes", Attr::Int(0))];
        let inputs = [name, axes.as_str()];
        g.emit("ReduceMean", &inputs, attributes, DType::F32, Some(of_channels.clone()))
    };
    let two = |g: &mut Graph, op: &'static str, a: &str, b: &str, dims: &[Dim]| {
        g.emit(op, &[a, b], vec![], DType::F32, Some(dims.to_vec()))
    };
    let by_channel = |g: &mut Graph, input: usize| -> Result<String, Reason> {
        let id = c.input(input)?;
        let name = g.plain(id);
        let mut sizes = vec![1; rank];
        sizes[channels] = -1;
        Ok(g.reshape(&name, &sizes, Some(of_channels.clone())))
    };
    let name = g.plain(id);
    let middle = mean(g, &name);
    let centred = two(g, "Sub", &name, &middle, &dims);
    let squares = two(g, "Mul", &centred, &centred, &dims);
    let variance = mean(g, &squares);
    let epsilon = g.scalar(DType::F32, c.float("epsilon", 1e-4)?.into())?;
    let spread = two(g, "Add", &variance, &epsilon, &of_channels);
    let spread = g.emit("Sqrt", &[&spread], vec![], DType::F32, Some(of_channels.clone()));
    let (scale, offset) = (by_channel(g, 1)?, by_channel(g, 2)?);
    let scale = two(g, "Div", &scale, &spread, &of_channels);
    let scaled = two(g, "Mul", &centred, &scale, &dims);
    let name = two(g, "Add", &scaled, &offset, &dims);
    Ok(vec![g.result(name)])
}

/// Over the last axis, which for a tensor that lies channels-first is the second.
fn softmax(g: &mut Graph, c: &Call<'_>, op: &'static str) -> Outcome {
    let id = c.input(0)?;
    let dtype = g.get(id).dtype;
    expect_dtype(dtype, FLOATS)?;
    let axis = if is_channels_first(g, id) { 1 } else { -1 };
    let dims = g.get(id).dims.clone();
    Ok(vec![combine(g, op, &[id], vec![("axis", Attr::Int(axis))], dtype, dims)?])
}

/// Each cell by a power of the squares of the channels near its own. TensorFlow counts the channels
/// to either side and takes `alpha` for each; ONNX counts all and takes it for their mean.
fn local_response(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let id = c.input(0)?;
    expect_dtype(g.get(id).dtype, &[DType::F32])?;
    let radius = c.int("depth_radius", 5)?;
    let Some(size) = usize::try_from(radius).ok().filter(|&n| n < 1 << 16).map(|n| 2 * n + 1)
    else {
        return refuse(format!("a radius of {radius}"));
    };
    let alpha = c.float("alpha", 1.0)? * size as f32;
    let image = image_dims(g, id, Format::ChannelsLast, 4)?;
    let attributes = vec![
        ("alpha", Attr::Float(alpha)),
        ("beta", Attr::Float(c.float("beta", 0.5)?)),
        ("bias", Attr::Float(c.float("bias", 1.0)?)),
        ("size", Attr::Int(size as i64)),
    ];
    let name = g.channels_first(id)?;
    let name = g.emit("LRN", &[&name], attributes, DType::F32, Some(image));
    Ok(vec![g.result_channels_first(name)])
}

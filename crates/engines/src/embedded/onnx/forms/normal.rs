//! Normalisations.

use vesta_protos::onnx::NodeProto;

use super::reduce::over;
use super::{Outcome, axis_of, expect_attributes, expect_inputs, float, int, output, product};
use crate::embedded::onnx::extent::Extent;
use crate::embedded::onnx::facts::Dims;
use crate::embedded::onnx::graph::{Graph, Written, input};

pub(super) const ALL: &[&str] = &[
    "BatchNormalization",
    "GroupNormalization",
    "InstanceNormalization",
    "LRN",
    "LayerNormalization",
];

pub(super) fn write(g: &mut Graph, node: &NodeProto) -> Outcome {
    match node.op_type.as_str() {
        "BatchNormalization" => batch(g, node),
        "GroupNormalization" => group(g, node),
        "InstanceNormalization" => instance(g, node),
        "LRN" => local_response(g, node),
        _ => layer(g, node),
    }
}

/// By moments that are constants: a factor and a summand for each channel.
fn batch(g: &mut Graph, node: &NodeProto) -> Outcome {
    expect_inputs(node, 5..=5)?;
    expect_attributes(node, &["epsilon", "momentum", "spatial", "training_mode"])?;
    if int(node, "spatial", 1) != 1 || int(node, "training_mode", 0) != 0 {
        return Err("it normalises in another way than a served net does".to_owned());
    }
    let dims = g.float_dims(node, 0)?;
    let channels = dims.get(1).ok_or("it has no channels")?.clone();
    let mut moments = Vec::new();
    for at in 1..5 {
        moments.push(g.floats(node, at)?);
        let count = Extent::from(moments[0].len() as i64);
        g.extents.expect_same(&channels, &count)?;
        if g.float_dims(node, at)? != [count] {
            return Err("it is no normalisation of channels".to_owned());
        }
    }
    let epsilon = float(node, "epsilon", 1e-5);
    if dims.len() == 4 {
        let inputs: Vec<&str> = node.input.iter().map(String::as_str).collect();
        let epsilon = vec![("epsilon", Written::Float(epsilon))];
        return g.emit(&node.op_type, &inputs, output(node), epsilon, dims);
    }
    let [scale, bias, mean, variance] = &moments[..] else {
        return Err("it has no four moments".to_owned());
    };
    let times = scale.iter().zip(variance).map(|(scale, own)| scale / (own + epsilon).sqrt());
    let times: Vec<f32> = times.collect();
    let more = bias.iter().zip(mean).zip(&times).map(|((bias, mean), times)| bias - mean * times);
    let more: Vec<f32> = more.collect();
    let mut sizes = vec![1i64; dims.len() - 1];
    sizes[0] = times.len() as i64;
    let (times, more) = (g.float(&sizes, &times), g.float(&sizes, &more));
    let scaled = g.step("Mul", &[&node.input[0], &times], &dims)?;
    g.emit("Add", &[&scaled, &more], output(node), vec![], dims)
}

fn local_response(g: &mut Graph, node: &NodeProto) -> Outcome {
    expect_inputs(node, 1..=1)?;
    expect_attributes(node, &["alpha", "beta", "bias", "size"])?;
    let (dims, size) = (g.float_dims(node, 0)?, int(node, "size", 0));
    if dims.len() != 4 || !(1..=63).contains(&size) || size % 2 == 0 {
        return Err("it is no sum over an odd number of channels of images".to_owned());
    }
    let attributes = vec![
        ("alpha", Written::Float(float(node, "alpha", 1e-4))),
        ("beta", Written::Float(float(node, "beta", 0.75))),
        ("bias", Written::Float(float(node, "bias", 1.0))),
        ("size", Written::Int(size)),
    ];
    g.emit(&node.op_type, &[&node.input[0]], output(node), attributes, dims)
}

/// What is left when the mean over some axes is taken off and the deviation divided out.
fn standard(g: &mut Graph, x: &str, axes: &[usize], epsilon: f32) -> Result<String, String> {
    let dims = g.fact_of(x)?.dims.clone();
    let mean = |g: &mut Graph, of: &str| {
        let name = g.new_name("step");
        over(g, "ReduceMean", of, &name, axes, true).map(|()| name)
    };
    let middle = mean(g, x)?;
    let rest = g.step("Sub", &[x, &middle], &dims)?;
    let squares = g.step("Mul", &[&rest, &rest], &dims)?;
    let variance = mean(g, &squares)?;
    let small = g.fact_of(&variance)?.dims.clone();
    let epsilon = g.number(epsilon);
    let sum = g.step("Add", &[&variance, &epsilon], &small)?;
    let deviation = g.step("Sqrt", &[&sum], &small)?;
    g.step("Div", &[&rest, &deviation], &dims)
}

fn layer(g: &mut Graph, node: &NodeProto) -> Outcome {
    expect_inputs(node, 2..=3)?;
    expect_attributes(node, &["axis", "epsilon", "stash_type"])?;
    let dims = g.float_dims(node, 0)?;
    let first = axis_of(int(node, "axis", -1), dims.len())?;
    let axes: Vec<usize> = (first..dims.len()).collect();
    let plain = standard(g, &node.input[0], &axes, float(node, "epsilon", 1e-5))?;
    scaled(g, node, &plain, &dims, [input(node, 1), input(node, 2)])
}

/// Times a scale, and a bias more; both broadcast to the whole.
fn scaled(
    g: &mut Graph,
    node: &NodeProto,
    plain: &str,
    dims: &Dims,
    [scale, bias]: [Option<&str>; 2],
) -> Outcome {
    for own in [scale, bias].into_iter().flatten() {
        let fact = g.fact_of(own)?.clone();
        if !fact.is_float() || super::joined(&mut g.extents, dims, &fact.dims)? != *dims {
            return Err("its scale or bias does not fit".to_owned());
        }
    }
    let scale = scale.ok_or("it has no scale")?;
    match bias {
        Some(bias) => {
            let times = g.step("Mul", &[plain, scale], dims)?;
            g.emit("Add", &[&times, bias], output(node), vec![], dims.clone())
        }
        None => g.emit("Mul", &[plain, scale], output(node), vec![], dims.clone()),
    }
}

/// Constants of the channels, with axes behind them so that they broadcast.
fn of_channels(g: &mut Graph, node: &NodeProto, dims: &Dims) -> Result<[String; 2], String> {
    let mut names = [String::new(), String::new()];
    for (at, name) in names.iter_mut().enumerate() {
        let values = g.floats(node, at + 1)?;
        if !dims[1].is(values.len() as i64) {
            return Err("its scale or bias does not fit its channels".to_owned());
        }
        let mut sizes = vec![1i64; dims.len() - 1];
        sizes[0] = values.len() as i64;
        *name = g.float(&sizes, &values);
    }
    Ok(names)
}

fn instance(g: &mut Graph, node: &NodeProto) -> Outcome {
    expect_inputs(node, 3..=3)?;
    expect_attributes(node, &["epsilon"])?;
    let dims = g.float_dims(node, 0)?;
    if dims.len() < 3 {
        return Err(format!("its input has {} axes", dims.len()));
    }
    let [scale, bias] = of_channels(g, node, &dims)?;
    let axes: Vec<usize> = (2..dims.len()).collect();
    let plain = standard(g, &node.input[0], &axes, float(node, "epsilon", 1e-5))?;
    scaled(g, node, &plain, &dims, [Some(&scale), Some(&bias)])
}

/// From version 21 on scale and bias are of the channels; before, of the groups.
fn group(g: &mut Graph, node: &NodeProto) -> Outcome {
    expect_inputs(node, 3..=3)?;
    expect_attributes(node, &["epsilon", "num_groups", "stash_type"])?;
    let dims = g.float_dims(node, 0)?;
    let groups = int(node, "num_groups", 0);
    if g.opset < 21 || dims.len() < 3 || groups <= 0 {
        return Err("its scale is of groups, or it has no planes".to_owned());
    }
    let [scale, bias] = of_channels(g, node, &dims)?;
    if dims[1].known().is_none_or(|channels| channels % groups != 0) {
        return Err("its channels are no whole groups".to_owned());
    }
    let rest = g.extents.quotient(&product(&dims[1..])?, &Extent::from(groups))?;
    let rows = g.reshaped(&node.input[0], vec![dims[0].clone(), groups.into(), rest])?;
    let plain = standard(g, &rows, &[2], float(node, "epsilon", 1e-5))?;
    let plain = g.reshaped(&plain, dims.clone())?;
    scaled(g, node, &plain, &dims, [Some(&scale), Some(&bias)])
}

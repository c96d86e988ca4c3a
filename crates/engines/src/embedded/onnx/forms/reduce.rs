//! Reductions, and softmax.

use vesta_model::DType;
use vesta_protos::onnx::NodeProto;

use super::{
    Outcome, axes, axes_of, axis_of, expect_attributes, expect_inputs, int, output, product,
};
use crate::embedded::onnx::facts::{Dims, Fact};
use crate::embedded::onnx::graph::{Graph, Written};

pub(super) const ALL: &[&str] = &[
    "GlobalAveragePool",
    "GlobalMaxPool",
    "LogSoftmax",
    "ReduceL1",
    "ReduceL2",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
    "Softmax",
];

pub(super) fn reduce(g: &mut Graph, node: &NodeProto) -> Outcome {
    let op = node.op_type.as_str();
    match op {
        "GlobalAveragePool" => return whole_planes(g, node, "ReduceMean"),
        "GlobalMaxPool" => return whole_planes(g, node, "ReduceMax"),
        "LogSoftmax" | "Softmax" => return softmax(g, node),
        _ => {}
    }
    expect_inputs(node, 1..=2)?;
    expect_attributes(node, &["axes", "keepdims", "noop_with_empty_axes"])?;
    let dims = g.float_dims(node, 0)?;
    let own = axes(g, node, if op == "ReduceSum" { 13 } else { 18 })?.unwrap_or_default();
    if own.is_empty() && int(node, "noop_with_empty_axes", 0) != 0 {
        return Err("it has no axes".to_owned());
    }
    let own: Vec<i64> = if own.is_empty() { (0..dims.len() as i64).collect() } else { own };
    let own = axes_of(&own, dims.len())?;
    let keeps = int(node, "keepdims", 1) != 0;
    let x = node.input[0].clone();
    match op {
        "ReduceL1" => {
            let of = g.step("Abs", &[&x], &dims)?;
            over(g, "ReduceSum", &of, output(node), &own, keeps)
        }
        "ReduceSumSquare" => {
            let of = g.step("Mul", &[&x, &x], &dims)?;
            over(g, "ReduceSum", &of, output(node), &own, keeps)
        }
        op => over(g, op, &x, output(node), &own, keeps),
    }
}

/// Sizes without some axes, or with ones in their places.
fn left(dims: &Dims, axes: &[usize], keeps: bool) -> Dims {
    let left = dims.iter().enumerate().filter_map(|(axis, dim)| match axes.contains(&axis) {
        false => Some(dim.clone()),
        true => keeps.then(|| 1.into()),
    });
    left.collect()
}

/// Reduces over axes in order.
pub(super) fn over(
    g: &mut Graph,
    op: &str,
    from: &str,
    output: &str,
    axes: &[usize],
    keeps: bool,
) -> Outcome {
    let dims = left(&g.fact_of(from)?.dims, axes, keeps);
    if axes.is_empty() {
        return Err("it has no axes".to_owned());
    }
    let axes: Vec<i64> = axes.iter().map(|&axis| axis as i64).collect();
    let axes = g.ints(&axes);
    g.emit(op, &[from, &axes], output, vec![("keepdims", Written::Int(keeps.into()))], dims)
}

fn whole_planes(g: &mut Graph, node: &NodeProto, op: &str) -> Outcome {
    expect_inputs(node, 1..=1)?;
    expect_attributes(node, &[])?;
    match g.float_dims(node, 0)?.len() {
        rank @ 3..=4 => {
            let axes: Vec<usize> = (2..rank).collect();
            over(g, op, &node.input[0], output(node), &axes, true)
        }
        rank => Err(format!("its input has {rank} axes, not 3 or 4")),
    }
}

/// Up to version 12, over all axes from this one on as if they were one.
fn softmax(g: &mut Graph, node: &NodeProto) -> Outcome {
    expect_inputs(node, 1..=1)?;
    expect_attributes(node, &["axis"])?;
    let (op, x) = (node.op_type.as_str(), node.input[0].as_str());
    let dims = g.float_dims(node, 0)?;
    let axis = axis_of(int(node, "axis", if g.opset < 13 { 1 } else { -1 }), dims.len())?;
    let last = || vec![("axis", Written::Int(-1))];
    let rank = dims.len();
    if axis + 1 == rank {
        return g.emit(op, &[x], output(node), last(), dims);
    }
    if g.opset < 13 {
        let flat = vec![product(&dims[..axis])?, product(&dims[axis..])?];
        let rows = g.reshaped(x, flat.clone())?;
        let done = g.step_with(op, &[&rows], last(), Fact::new(DType::F32, flat))?;
        return g.reshape(&done, output(node), dims);
    }
    let mut order: Vec<usize> = (0..rank).collect();
    order.swap(axis, rank - 1);
    let turned = g.transposed(x, &order)?;
    let own = g.fact_of(&turned)?.clone();
    let done = g.step_with(op, &[&turned], last(), own)?;
    g.transpose(&done, output(node), &order)
}

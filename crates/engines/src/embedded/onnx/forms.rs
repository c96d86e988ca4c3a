//! Operators of ONNX files, each in the forms that were held to ONNX Runtime.
//!
//! May not know: rten. Invariant: an attribute that is not known, or a form that another version of the
//! operator means otherwise, is refused; defaults are written out.

use vesta_protos::onnx::NodeProto;

use super::graph::{Dims, Graph, Written, input};
use super::windows;

/// What is said of a form that is not taken.
type Outcome = Result<(), String>;

/// Operators of one input, whose output has its sizes.
const ALIKE: &[&str] = &[
    "Abs",
    "Ceil",
    "Cos",
    "Erf",
    "Exp",
    "Floor",
    "Identity",
    "Log",
    "Neg",
    "Reciprocal",
    "Relu",
    "Sigmoid",
    "Sin",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Tanh",
];
/// Operators of two inputs, which broadcast.
const BROADCAST: &[&str] = &["Add", "Div", "Max", "Min", "Mul", "Pow", "Sub"];
const REDUCE: &[&str] = &["ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"];
const OTHERS: &[&str] = &[
    "AveragePool",
    "BatchNormalization",
    "Clip",
    "Concat",
    "Constant",
    "Conv",
    "Dropout",
    "Elu",
    "Flatten",
    "Gemm",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "LRN",
    "LeakyRelu",
    "LogSoftmax",
    "MatMul",
    "MaxPool",
    "Reshape",
    "Softmax",
    "Squeeze",
    "Sum",
    "Transpose",
    "Unsqueeze",
];

/// The operators that have a form here.
pub(super) fn known() -> impl Iterator<Item = &'static str> {
    [ALIKE, BROADCAST, REDUCE, OTHERS].into_iter().flatten().copied()
}

/// Writes a node.
pub(super) fn write(g: &mut Graph, node: &NodeProto) -> Outcome {
    if node.op_type == "Dropout" {
        return dropout(g, node);
    }
    if node.output.iter().skip(1).any(|output| !output.is_empty()) {
        return Err("more than its first output is read".to_owned());
    }
    match node.op_type.as_str() {
        op if ALIKE.contains(&op) => alike(g, node, &[]),
        op if BROADCAST.contains(&op) => broadcast(g, node),
        op if REDUCE.contains(&op) => reduce(g, node),
        "Elu" => alike(g, node, &[("alpha", 1.0)]),
        "LeakyRelu" => alike(g, node, &[("alpha", 0.01)]),
        "AveragePool" | "Conv" | "MaxPool" => windows::write(g, node),
        "GlobalAveragePool" => whole_planes(g, node, "ReduceMean"),
        "GlobalMaxPool" => whole_planes(g, node, "ReduceMax"),
        "BatchNormalization" => normalization(g, node),
        "LRN" => local_response(g, node),
        "Clip" => clip(g, node),
        "Concat" => concat(g, node),
        "Constant" => constant(g, node),
        "Gemm" => gemm(g, node),
        "MatMul" => matmul(g, node),
        "Sum" => sum(g, node),
        "Softmax" | "LogSoftmax" => softmax(g, node),
        "Transpose" => transpose(g, node),
        "Flatten" | "Reshape" | "Squeeze" | "Unsqueeze" => reshape(g, node),
        _ => Err("it has no form".to_owned()),
    }
}

/// Refuses attributes beside these.
pub(super) fn expect_attributes(node: &NodeProto, known: &[&str]) -> Outcome {
    match node.attribute.iter().find(|own| !known.contains(&own.name.as_str())) {
        Some(odd) => Err(format!("its attribute {} is not known", odd.name)),
        None => Ok(()),
    }
}

pub(super) fn int(node: &NodeProto, name: &str, default: i64) -> i64 {
    let own = node.attribute.iter().find(|own| own.name == name);
    own.map_or(default, |own| own.i.unwrap_or_default())
}

fn float(node: &NodeProto, name: &str, default: f32) -> f32 {
    let own = node.attribute.iter().find(|own| own.name == name);
    own.map_or(default, |own| own.f.unwrap_or_default())
}

pub(super) fn ints(node: &NodeProto, name: &str) -> Option<Vec<i64>> {
    node.attribute.iter().find(|own| own.name == name).map(|own| own.ints.clone())
}

pub(super) fn output(node: &NodeProto) -> &str {
    node.output.first().map_or("", String::as_str)
}

fn expect_inputs(node: &NodeProto, counts: std::ops::RangeInclusive<usize>) -> Outcome {
    let absent = (0..*counts.start()).any(|at| input(node, at).is_none());
    match counts.contains(&node.input.len()) && !absent {
        true => Ok(()),
        false => Err(format!("it has {} inputs", node.input.len())),
    }
}

/// An axis of so many, counted from the end if it is negative.
fn axis_of(axis: i64, rank: usize) -> Result<usize, String> {
    let signed = i64::try_from(rank).unwrap_or(i64::MAX);
    let own = if axis < 0 { axis + signed } else { axis };
    let own = usize::try_from(own).ok().filter(|&own| own < rank);
    own.ok_or_else(|| format!("axis {axis} is none of {rank}"))
}

fn alike(g: &mut Graph, node: &NodeProto, floats: &[(&str, f32)]) -> Outcome {
    expect_inputs(node, 1..=1)?;
    let known: Vec<&str> = floats.iter().map(|(name, _)| *name).collect();
    expect_attributes(node, &known)?;
    let dims = g.dims(node, 0)?;
    let written = floats
        .iter()
        .map(|&(name, default)| (name, Written::Float(float(node, name, default))))
        .collect();
    g.emit(&node.op_type, &[&node.input[0]], output(node), written, dims)
}

/// In a served net nothing is dropped.
fn dropout(g: &mut Graph, node: &NodeProto) -> Outcome {
    expect_inputs(node, 1..=2)?;
    expect_attributes(node, &["ratio", "seed"])?;
    if input_of_output(node, 1).is_some() {
        return Err("its mask is read".to_owned());
    }
    let dims = g.dims(node, 0)?;
    g.emit("Identity", &[&node.input[0]], output(node), vec![], dims)
}

fn input_of_output(node: &NodeProto, at: usize) -> Option<&str> {
    node.output.get(at).map(String::as_str).filter(|name| !name.is_empty())
}

/// Sizes after broadcasting; of an open size and a known one over one, the run finds out.
fn broadcast_dims(a: &Dims, b: &Dims) -> Result<Dims, String> {
    let rank = a.len().max(b.len());
    let at = |dims: &Dims, axis: usize| (axis + dims.len()).checked_sub(rank).map(|at| dims[at]);
    (0..rank)
        .map(|axis| match (at(a, axis).unwrap_or(Some(1)), at(b, axis).unwrap_or(Some(1))) {
            (Some(1), other) | (other, Some(1)) => Ok(other),
            (Some(a), Some(b)) if a != b => Err(format!("sizes {a} and {b} do not fit")),
            (Some(known), _) | (None, Some(known)) => Ok(Some(known)),
            (None, None) => Ok(None),
        })
        .collect()
}

fn broadcast(g: &mut Graph, node: &NodeProto) -> Outcome {
    expect_inputs(node, 2..=2)?;
    expect_attributes(node, &[])?;
    let dims = broadcast_dims(&g.dims(node, 0)?, &g.dims(node, 1)?)?;
    g.emit(&node.op_type, &[&node.input[0], &node.input[1]], output(node), vec![], dims)
}

fn sum(g: &mut Graph, node: &NodeProto) -> Outcome {
    expect_inputs(node, 1..=64)?;
    expect_attributes(node, &[])?;
    let (mut name, mut dims) = (node.input[0].clone(), g.dims(node, 0)?);
    if node.input.len() == 1 {
        return g.emit("Identity", &[&name], output(node), vec![], dims);
    }
    for at in 1..node.input.len() {
        let is_last = at + 1 == node.input.len();
        dims = broadcast_dims(&dims, &g.dims(node, at)?)?;
        let next = if is_last { output(node).to_owned() } else { g.new_name("sum") };
        g.emit("Add", &[&name, &node.input[at]], &next, vec![], dims.clone())?;
        name = next;
    }
    Ok(())
}

fn reduce(g: &mut Graph, node: &NodeProto) -> Outcome {
    expect_attributes(node, &["axes", "keepdims", "noop_with_empty_axes"])?;
    let dims = g.dims(node, 0)?;
    let in_input = if node.op_type == "ReduceSum" { 13 } else { 18 };
    let axes = if g.opset >= in_input { g.integers(node, 1).ok() } else { ints(node, "axes") };
    if axes.is_none() && input(node, 1).is_some() {
        return Err("its axes are computed".to_owned());
    }
    let axes = axes.unwrap_or_default();
    if axes.is_empty() && int(node, "noop_with_empty_axes", 0) != 0 {
        return Err("it has no axes".to_owned());
    }
    let axes = if axes.is_empty() { (0..dims.len() as i64).collect() } else { axes };
    reduce_over(g, node, &node.op_type, &axes, int(node, "keepdims", 1) != 0)
}

fn reduce_over(g: &mut Graph, node: &NodeProto, op: &str, axes: &[i64], keeps: bool) -> Outcome {
    let dims = g.dims(node, 0)?;
    let mut own =
        axes.iter().map(|&axis| axis_of(axis, dims.len())).collect::<Result<Vec<_>, _>>()?;
    own.sort_unstable();
    own.dedup();
    let is_gone = |axis: usize| own.contains(&axis);
    let left = dims.iter().enumerate().filter_map(|(axis, &dim)| match (is_gone(axis), keeps) {
        (false, _) => Some(dim),
        (true, true) => Some(Some(1)),
        (true, false) => None,
    });
    let left = left.collect();
    let axes: Vec<i64> = own.iter().map(|&axis| axis as i64).collect();
    let axes = g.ints(&axes);
    let keeps = vec![("keepdims", Written::Int(keeps.into()))];
    g.emit(op, &[&node.input[0], &axes], output(node), keeps, left)
}

fn whole_planes(g: &mut Graph, node: &NodeProto, op: &str) -> Outcome {
    expect_inputs(node, 1..=1)?;
    expect_attributes(node, &[])?;
    match g.dims(node, 0)?.len() {
        4 => reduce_over(g, node, op, &[2, 3], true),
        rank => Err(format!("its input has {rank} axes, not 4")),
    }
}

fn normalization(g: &mut Graph, node: &NodeProto) -> Outcome {
    expect_inputs(node, 5..=5)?;
    expect_attributes(node, &["epsilon", "momentum", "spatial", "training_mode"])?;
    if int(node, "spatial", 1) != 1 || int(node, "training_mode", 0) != 0 {
        return Err("it normalises in another way than a served net does".to_owned());
    }
    let dims = g.dims(node, 0)?;
    let channels = dims.get(1).copied().flatten();
    for at in 1..5 {
        let count = g.floats(node, at)?.len();
        if dims.len() != 4
            || g.dims(node, at)?.len() != 1
            || channels.is_some_and(|own| own != count)
        {
            return Err("it is no normalisation of the channels of images".to_owned());
        }
    }
    let inputs: Vec<&str> = node.input.iter().map(String::as_str).collect();
    let epsilon = Written::Float(float(node, "epsilon", 1e-5));
    g.emit(&node.op_type, &inputs, output(node), vec![("epsilon", epsilon)], dims)
}

fn local_response(g: &mut Graph, node: &NodeProto) -> Outcome {
    expect_inputs(node, 1..=1)?;
    expect_attributes(node, &["alpha", "beta", "bias", "size"])?;
    let (dims, size) = (g.dims(node, 0)?, int(node, "size", 0));
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

/// Bounds are attributes at first, then inputs.
fn clip(g: &mut Graph, node: &NodeProto) -> Outcome {
    let is_early = g.opset < 11;
    expect_inputs(node, if is_early { 1..=1 } else { 1..=3 })?;
    expect_attributes(node, if is_early { &["min", "max"] } else { &[] })?;
    let dims = g.dims(node, 0)?;
    let mut bounds = [String::new(), String::new()];
    for (at, (bound, name)) in bounds.iter_mut().zip(["min", "max"]).enumerate() {
        let value = match (is_early, input(node, at + 1)) {
            (true, _) => node.attribute.iter().find(|own| own.name == name).and_then(|own| own.f),
            (false, None) => None,
            (false, Some(_)) => match g.floats(node, at + 1)?[..] {
                [value] => Some(value),
                _ => return Err(format!("its {name} is no number")),
            },
        };
        if let Some(value) = value {
            *bound = g.float(&[], &[value]);
        }
    }
    if bounds.iter().all(String::is_empty) {
        return g.emit("Identity", &[&node.input[0]], output(node), vec![], dims);
    }
    g.emit("Clip", &[&node.input[0], &bounds[0], &bounds[1]], output(node), vec![], dims)
}

fn concat(g: &mut Graph, node: &NodeProto) -> Outcome {
    expect_inputs(node, 1..=4096)?;
    expect_attributes(node, &["axis"])?;
    let mut dims = g.dims(node, 0)?;
    let axis = axis_of(int(node, "axis", 0), dims.len())?;
    for at in 1..node.input.len() {
        let more = g.dims(node, at)?;
        if more.len() != dims.len() {
            return Err("its inputs have different numbers of axes".to_owned());
        }
        for (own, (dim, other)) in dims.iter_mut().zip(more).enumerate() {
            *dim = match (*dim, other) {
                (Some(a), Some(b)) if own == axis => a.checked_add(b),
                _ if own == axis => None,
                (Some(a), Some(b)) if a != b => {
                    return Err(format!("sizes {a} and {b} do not fit"));
                }
                (known, other) => known.or(other),
            };
        }
    }
    let inputs: Vec<&str> = node.input.iter().map(String::as_str).collect();
    let attributes = vec![("axis", Written::Int(axis as i64))];
    g.emit(&node.op_type, &inputs, output(node), attributes, dims)
}

fn constant(g: &mut Graph, node: &NodeProto) -> Outcome {
    expect_inputs(node, 0..=0)?;
    expect_attributes(node, &["value"])?;
    let Some(mut tensor) = node.attribute.first().and_then(|own| own.t.clone()) else {
        return Err("its attribute value is absent".to_owned());
    };
    if g.has(output(node)) {
        return Err(format!("its output `{}` has the name of another value", output(node)));
    }
    output(node).clone_into(&mut tensor.name);
    g.add_constant(tensor);
    Ok(())
}

fn matmul(g: &mut Graph, node: &NodeProto) -> Outcome {
    expect_inputs(node, 2..=2)?;
    expect_attributes(node, &[])?;
    let (mut a, mut b) = (g.dims(node, 0)?, g.dims(node, 1)?);
    let (Some(inner), Some(columns), true) = (a.pop(), b.pop(), !a.is_empty()) else {
        return Err("it multiplies vectors".to_owned());
    };
    let (Some(rows), Some(other)) = (a.pop(), b.pop()) else {
        return Err("it multiplies vectors".to_owned());
    };
    if inner.zip(other).is_some_and(|(inner, other)| inner != other) {
        return Err("the sizes of its matrices do not fit".to_owned());
    }
    let mut dims = broadcast_dims(&a, &b)?;
    dims.extend([rows, columns]);
    g.emit(&node.op_type, &[&node.input[0], &node.input[1]], output(node), vec![], dims)
}

/// A product, and a sum.
fn gemm(g: &mut Graph, node: &NodeProto) -> Outcome {
    expect_inputs(node, 2..=3)?;
    expect_attributes(node, &["alpha", "beta", "transA", "transB"])?;
    let (a, mut b) = (g.dims(node, 0)?, g.dims(node, 1)?);
    let is_plain = [float(node, "alpha", 1.0), float(node, "beta", 1.0)].map(f32::to_bits)
        == [1.0f32, 1.0].map(f32::to_bits);
    if !is_plain || int(node, "transA", 0) != 0 || (a.len(), b.len()) != (2, 2) {
        return Err("it does more than to multiply and add".to_owned());
    }
    let mut weights = node.input[1].clone();
    if int(node, "transB", 0) != 0 {
        b.reverse();
        let turned = g.new_name("turned");
        let order = vec![("perm", Written::Ints(vec![1, 0]))];
        g.emit("Transpose", &[&weights], &turned, order, b.clone())?;
        weights = turned;
    }
    if a[1].zip(b[0]).is_some_and(|(a, b)| a != b) {
        return Err("the sizes of its matrices do not fit".to_owned());
    }
    let dims = vec![a[0], b[1]];
    let Some(bias) = input(node, 2) else {
        return g.emit("MatMul", &[&node.input[0], &weights], output(node), vec![], dims);
    };
    let sum = broadcast_dims(&dims, &g.dims(node, 2)?)?;
    if sum != dims {
        return Err("what it adds is larger than the product".to_owned());
    }
    let product = g.new_name("product");
    g.emit("MatMul", &[&node.input[0], &weights], &product, vec![], dims)?;
    g.emit("Add", &[&product, bias], output(node), vec![], sum)
}

/// Up to version 12, over all axes from this one on; which is the same for the last.
fn softmax(g: &mut Graph, node: &NodeProto) -> Outcome {
    expect_inputs(node, 1..=1)?;
    expect_attributes(node, &["axis"])?;
    let dims = g.dims(node, 0)?;
    let axis = int(node, "axis", if g.opset < 13 { 1 } else { -1 });
    if axis_of(axis, dims.len())? + 1 != dims.len() {
        return Err("it is not along the last axis".to_owned());
    }
    g.emit(&node.op_type, &[&node.input[0]], output(node), vec![("axis", Written::Int(-1))], dims)
}

fn transpose(g: &mut Graph, node: &NodeProto) -> Outcome {
    expect_inputs(node, 1..=1)?;
    expect_attributes(node, &["perm"])?;
    let dims = g.dims(node, 0)?;
    let order = ints(node, "perm").unwrap_or_else(|| (0..dims.len() as i64).rev().collect());
    let axes = order.iter().map(|&at| axis_of(at, dims.len())).collect::<Result<Vec<_>, _>>()?;
    let mut sorted = axes.clone();
    sorted.sort_unstable();
    if !sorted.iter().copied().eq(0..dims.len()) {
        return Err("its order leaves axes out".to_owned());
    }
    let turned = axes.iter().map(|&at| dims[at]).collect();
    let order = axes.iter().map(|&axis| axis as i64).collect();
    g.emit(
        &node.op_type,
        &[&node.input[0]],
        output(node),
        vec![("perm", Written::Ints(order))],
        turned,
    )
}

/// The operators that change sizes alone; each is written as a `Reshape`.
fn reshape(g: &mut Graph, node: &NodeProto) -> Outcome {
    let dims = g.dims(node, 0)?;
    let wanted = match node.op_type.as_str() {
        "Flatten" => flattened(node, &dims)?,
        "Reshape" => reshaped(g, node, &dims)?,
        "Squeeze" => squeezed(&axes(g, node)?, &dims)?,
        _ => unsqueezed(&axes(g, node)?, &dims)?,
    };
    let open = wanted.iter().filter(|dim| dim.is_none()).count();
    let product =
        |dims: &Dims| dims.iter().try_fold(1usize, |product, dim| product.checked_mul((*dim)?));
    let fits = match (product(&dims), open) {
        (Some(elements), 0) => product(&wanted) == Some(elements),
        // One open size is left for the run to find.
        (None, 1) => true,
        _ => return Err("more than one of its sizes is open".to_owned()),
    };
    if !fits {
        return Err("its sizes do not fit".to_owned());
    }
    let sizes: Vec<i64> = wanted.iter().map(|dim| dim.map_or(-1, |dim| dim as i64)).collect();
    if sizes.contains(&0) {
        return Err("it has no elements".to_owned());
    }
    let sizes = g.ints(&sizes);
    let attributes = vec![("allowzero", Written::Int(0))];
    g.emit("Reshape", &[&node.input[0], &sizes], output(node), attributes, wanted)
}

/// Axes are an attribute at first, then an input.
fn axes(g: &Graph, node: &NodeProto) -> Result<Vec<i64>, String> {
    if g.opset >= 13 {
        expect_attributes(node, &[])?;
        return g.integers(node, 1);
    }
    expect_attributes(node, &["axes"])?;
    ints(node, "axes").ok_or_else(|| "it names no axes".to_owned())
}

fn flattened(node: &NodeProto, dims: &Dims) -> Result<Dims, String> {
    expect_attributes(node, &["axis"])?;
    let axis = int(node, "axis", 1);
    let axis = if axis == dims.len() as i64 { dims.len() } else { axis_of(axis, dims.len())? };
    let product = |dims: &[Option<usize>]| {
        dims.iter().try_fold(1usize, |product, dim| product.checked_mul((*dim)?))
    };
    Ok(vec![product(&dims[..axis]), product(&dims[axis..])])
}

fn reshaped(g: &Graph, node: &NodeProto, dims: &Dims) -> Result<Dims, String> {
    expect_inputs(node, 2..=2)?;
    expect_attributes(node, &["allowzero"])?;
    let sizes = g.integers(node, 1)?;
    if int(node, "allowzero", 0) != 0 && sizes.contains(&0) {
        return Err("it has no elements".to_owned());
    }
    let rest = sizes.iter().position(|&size| size == -1);
    let mut wanted = Dims::new();
    for (at, &size) in sizes.iter().enumerate() {
        wanted.push(match size {
            -1 if rest == Some(at) => None,
            0 => *dims.get(at).ok_or("it keeps an axis that is not there")?,
            size => Some(usize::try_from(size).map_err(|_| format!("it has a size of {size}"))?),
        });
    }
    let elements = dims.iter().try_fold(1usize, |product, dim| product.checked_mul((*dim)?));
    if let (Some(at), Some(elements)) = (rest, elements) {
        let others = wanted.iter().flatten().try_fold(1usize, |all, &dim| all.checked_mul(dim));
        let others = others.filter(|&others| others > 0 && elements.is_multiple_of(others));
        wanted[at] = Some(elements / others.ok_or("its sizes do not fit")?);
    } else if let (Some(at), None) = (rest, elements) {
        // Where the open sizes are kept, the one that is left out follows from the others.
        let kept: Vec<usize> = (0..sizes.len()).filter(|&axis| sizes[axis] == 0).collect();
        let open_is_kept = |axis: usize| dims[axis].is_some() || kept.contains(&axis);
        if (0..dims.len()).all(open_is_kept) {
            let known = |dims: &[Option<usize>]| {
                dims.iter().flatten().try_fold(1usize, |all, &dim| all.checked_mul(dim))
            };
            let (all, others) = (known(dims), known(&wanted));
            let rest = all.zip(others).filter(|&(all, own)| own > 0 && all.is_multiple_of(own));
            wanted[at] = rest.map(|(all, own)| all / own);
        }
    }
    Ok(wanted)
}

fn squeezed(axes: &[i64], dims: &Dims) -> Result<Dims, String> {
    let mut gone = vec![false; dims.len()];
    for &axis in axes {
        let axis = axis_of(axis, dims.len())?;
        if dims[axis] != Some(1) {
            return Err("it takes an axis out whose size is not one".to_owned());
        }
        gone[axis] = true;
    }
    Ok(dims.iter().zip(gone).filter_map(|(&dim, gone)| (!gone).then_some(dim)).collect())
}

fn unsqueezed(axes: &[i64], dims: &Dims) -> Result<Dims, String> {
    let rank = dims.len() + axes.len();
    let mut is_new = vec![false; rank];
    for &axis in axes {
        let own = axis_of(axis, rank)?;
        if std::mem::replace(&mut is_new[own], true) {
            return Err(format!("axis {axis} is named twice"));
        }
    }
    let mut old = dims.iter().copied();
    Ok(is_new.iter().map(|&is_new| if is_new { Some(1) } else { old.next().flatten() }).collect())
}

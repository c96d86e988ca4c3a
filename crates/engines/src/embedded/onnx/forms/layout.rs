//! Operators that put the same elements into other places.

use vesta_protos::onnx::NodeProto;

use super::{
    Outcome, axes, axis_of, expect_attributes, expect_inputs, int, joined, output, product, text,
};
use crate::embedded::onnx::extent::Extent;
use crate::embedded::onnx::facts::Dims;
use crate::embedded::onnx::graph::{Graph, Written};

pub(super) const ALL: &[&str] = &[
    "Concat",
    "DepthToSpace",
    "Expand",
    "Flatten",
    "Reshape",
    "SpaceToDepth",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
];

pub(super) fn write(g: &mut Graph, node: &NodeProto) -> Outcome {
    match node.op_type.as_str() {
        "Concat" => concat(g, node),
        "DepthToSpace" => depth_to_space(g, node),
        "Expand" => expand(g, node),
        "SpaceToDepth" => space_to_depth(g, node),
        "Tile" => tile(g, node),
        "Transpose" => transpose(g, node),
        _ => {
            let dims = sizes(g, node)?;
            g.reshape(&node.input[0], output(node), dims)
        }
    }
}

/// What an operator that changes sizes alone makes of them.
pub(super) fn sizes(g: &mut Graph, node: &NodeProto) -> Result<Dims, String> {
    let dims = g.dims(node, 0)?;
    match node.op_type.as_str() {
        "Flatten" => flattened(node, &dims),
        "Reshape" => reshaped(g, node, &dims),
        "Squeeze" => squeezed(g, node, dims),
        _ => unsqueezed(g, node, dims),
    }
}

fn flattened(node: &NodeProto, dims: &Dims) -> Result<Dims, String> {
    expect_attributes(node, &["axis"])?;
    let axis = int(node, "axis", 1);
    let axis = if axis == dims.len() as i64 { dims.len() } else { axis_of(axis, dims.len())? };
    Ok(vec![product(&dims[..axis])?, product(&dims[axis..])?])
}

fn reshaped(g: &mut Graph, node: &NodeProto, dims: &Dims) -> Result<Dims, String> {
    expect_inputs(node, 2..=2)?;
    expect_attributes(node, &["allowzero"])?;
    let sizes = g.numbers(node, 1)?;
    let keeps = int(node, "allowzero", 0) == 0;
    let (mut wanted, mut rest) = (Dims::new(), None);
    for (at, size) in sizes.into_iter().enumerate() {
        wanted.push(match size.known() {
            Some(-1) if rest.is_none() => {
                rest = Some(at);
                Extent::from(1)
            }
            Some(0) if keeps => {
                dims.get(at).cloned().ok_or("it keeps an axis that is not there")?
            }
            Some(size) if size <= 0 => return Err(format!("it has a size of {size}")),
            Some(_) => size,
            // Minus one would be another order.
            None => g.extents.natural(&size),
        });
    }
    let (all, others) = (product(dims)?, product(&wanted)?);
    if let Some(at) = rest {
        wanted[at] = g.extents.quotient(&all, &others)?;
        if all.known().is_some_and(|all| Some(all) != product(&wanted).ok().and_then(|p| p.known()))
        {
            return Err("its sizes do not fit".to_owned());
        }
    } else if all.known().zip(others.known()).is_some_and(|(all, own)| all != own) {
        return Err("its sizes do not fit".to_owned());
    }
    Ok(wanted)
}

fn squeezed(g: &Graph, node: &NodeProto, dims: Dims) -> Result<Dims, String> {
    expect_attributes(node, &["axes"])?;
    let Some(axes) = axes(g, node, 13)? else {
        let known: Option<Vec<usize>> = dims.iter().map(Extent::size).collect();
        known.ok_or("it names no axes of open sizes")?;
        return Ok(dims.into_iter().filter(|dim| !dim.is(1)).collect());
    };
    let mut gone = vec![false; dims.len()];
    for axis in axes {
        let axis = axis_of(axis, dims.len())?;
        // The run finds out whether an open size is one.
        if dims[axis].known().is_some_and(|dim| dim != 1) {
            return Err("it takes an axis out whose size is not one".to_owned());
        }
        gone[axis] = true;
    }
    Ok(dims.into_iter().zip(gone).filter_map(|(dim, gone)| (!gone).then_some(dim)).collect())
}

fn unsqueezed(g: &Graph, node: &NodeProto, dims: Dims) -> Result<Dims, String> {
    expect_attributes(node, &["axes"])?;
    let axes = axes(g, node, 13)?.ok_or("it names no axes")?;
    let rank = dims.len() + axes.len();
    let mut is_new = vec![false; rank];
    for axis in axes {
        let own = axis_of(axis, rank)?;
        if std::mem::replace(&mut is_new[own], true) {
            return Err(format!("axis {axis} is named twice"));
        }
    }
    let mut old = dims.into_iter();
    let next = |is_new| if is_new { Some(Extent::from(1)) } else { old.next() };
    is_new.into_iter().map(next).collect::<Option<_>>().ok_or_else(|| "odd axes".to_owned())
}

/// The order of axes.
pub(super) fn order(node: &NodeProto, rank: usize) -> Result<Vec<usize>, String> {
    expect_inputs(node, 1..=1)?;
    expect_attributes(node, &["perm"])?;
    let order = super::ints(node, "perm").unwrap_or_else(|| (0..rank as i64).rev().collect());
    let axes = order.iter().map(|&at| axis_of(at, rank)).collect::<Result<Vec<_>, _>>()?;
    let mut sorted = axes.clone();
    sorted.sort_unstable();
    match sorted.iter().copied().eq(0..rank) {
        true => Ok(axes),
        false => Err("its order leaves axes out".to_owned()),
    }
}

fn transpose(g: &mut Graph, node: &NodeProto) -> Outcome {
    let order = order(node, g.dims(node, 0)?.len())?;
    g.transpose(&node.input[0], output(node), &order)
}

fn concat(g: &mut Graph, node: &NodeProto) -> Outcome {
    expect_inputs(node, 1..=4096)?;
    expect_attributes(node, &["axis"])?;
    let mut fact = g.fact(node, 0)?.clone();
    let axis = axis_of(int(node, "axis", 0), fact.dims.len())?;
    for at in 1..node.input.len() {
        let more = g.fact(node, at)?.clone();
        if more.dims.len() != fact.dims.len() || more.dtype != fact.dtype {
            return Err("its inputs have different numbers of axes, or dtypes".to_owned());
        }
        fact.range = (fact.range.0.min(more.range.0), fact.range.1.max(more.range.1));
        for (own, (dim, other)) in fact.dims.iter_mut().zip(more.dims).enumerate() {
            if own == axis {
                *dim = dim.plus(&other)?;
                continue;
            }
            // Of two open ones the run finds out.
            match (dim.known(), other.known()) {
                (Some(a), Some(b)) if a != b => {
                    return Err(format!("sizes {a} and {b} do not fit"));
                }
                (None, Some(_)) => *dim = other,
                _ => {}
            }
        }
    }
    fact.elements = None;
    let inputs: Vec<&str> = node.input.iter().map(String::as_str).collect();
    let attributes = vec![("axis", Written::Int(axis as i64))];
    g.emit_all("Concat", &inputs, attributes, &[(output(node), fact)])
}

fn expand(g: &mut Graph, node: &NodeProto) -> Outcome {
    expect_inputs(node, 2..=2)?;
    expect_attributes(node, &[])?;
    let sizes = g.numbers(node, 1)?;
    let mut fact = g.fact(node, 0)?.clone();
    let sizes: Dims = sizes.iter().map(|size| g.extents.natural(size)).collect();
    fact.dims = joined(&mut g.extents, &fact.dims, &sizes)?;
    fact.elements = None;
    let target = g.vector(&fact.dims);
    g.emit_all("Expand", &[&node.input[0], &target], vec![], &[(output(node), fact)])
}

fn tile(g: &mut Graph, node: &NodeProto) -> Outcome {
    expect_inputs(node, 2..=2)?;
    expect_attributes(node, &[])?;
    let times = g.numbers(node, 1)?;
    let mut fact = g.fact(node, 0)?.clone();
    if times.len() != fact.dims.len() {
        return Err("it repeats other axes than there are".to_owned());
    }
    let times: Dims = times.iter().map(|times| g.extents.natural(times)).collect();
    for (dim, times) in fact.dims.iter_mut().zip(&times) {
        *dim = dim.times(times)?;
    }
    fact.elements = None;
    let times = g.vector(&times);
    g.emit_all("Tile", &[&node.input[0], &times], vec![], &[(output(node), fact)])
}

fn block(node: &NodeProto, dims: &Dims) -> Result<i64, String> {
    let size = int(node, "blocksize", 0);
    let fits = dims.len() == 4 && (1..=1024).contains(&size);
    fits.then_some(size).ok_or_else(|| "its blocks are none of images".to_owned())
}

/// Channels are blocks of the planes, before the kept channels or behind them.
fn depth_to_space(g: &mut Graph, node: &NodeProto) -> Outcome {
    expect_inputs(node, 1..=1)?;
    expect_attributes(node, &["blocksize", "mode"])?;
    let dims = g.float_dims(node, 0)?;
    let size = block(node, &dims)?;
    let channels = dims[1].known().filter(|all| all % (size * size) == 0);
    let own = Extent::from(channels.ok_or("its channels are no whole blocks")? / (size * size));
    let (b, block) = (dims[0].clone(), Extent::from(size));
    let (h, w) = (dims[2].clone(), dims[3].clone());
    let is_first = match text(node, "mode").unwrap_or(b"DCR") {
        b"DCR" => true,
        b"CRD" => false,
        _ => return Err("its order is not known".to_owned()),
    };
    let kept = own.clone();
    let (parts, order) = match is_first {
        true => (
            vec![b.clone(), block.clone(), block.clone(), kept, h.clone(), w.clone()],
            [0, 3, 4, 1, 5, 2],
        ),
        false => (
            vec![b.clone(), kept, block.clone(), block.clone(), h.clone(), w.clone()],
            [0, 1, 4, 2, 5, 3],
        ),
    };
    let parts = g.reshaped(&node.input[0], parts)?;
    let turned = g.transposed(&parts, &order)?;
    g.reshape(&turned, output(node), vec![b, own, h.times(&block)?, w.times(&block)?])
}

fn space_to_depth(g: &mut Graph, node: &NodeProto) -> Outcome {
    expect_inputs(node, 1..=1)?;
    expect_attributes(node, &["blocksize"])?;
    let dims = g.float_dims(node, 0)?;
    let size = block(node, &dims)?;
    let block = Extent::from(size);
    // What is no whole block is refused when it comes, as the elements do not fit then.
    let (h, w) = (g.extents.quotient(&dims[2], &block)?, g.extents.quotient(&dims[3], &block)?);
    let parts = [&dims[0], &dims[1], &h, &block, &w, &block].map(Clone::clone);
    let parts = g.reshaped(&node.input[0], parts.to_vec())?;
    let turned = g.transposed(&parts, &[0, 3, 5, 1, 2, 4])?;
    let depth = dims[1].times(&block)?.times(&block)?;
    g.reshape(&turned, output(node), vec![dims[0].clone(), depth, h, w])
}

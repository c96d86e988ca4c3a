//! In which order of axes an operator that treats all elements alike is written.
//!
//! Invariant: it follows its inputs, so a chain behind a convolution stays channels-first to its
//! end and no transpose stands in between; images that are normalised are turned before.

use crate::graph::{Attr, Graph};
use crate::refusal::Reason;
use crate::value::{Dim, Dims, ValueId, permute, to_channels_first};
use vesta_model::DType;

/// Inputs under one order of axes.
pub(super) struct Aligned {
    pub(super) names: Vec<String>,
    pub(super) is_channels_first: bool,
}

/// Whether the tensor is there with channels first only.
pub(super) fn is_channels_first(graph: &Graph, id: ValueId) -> bool {
    let value = graph.get(id);
    value.channels_first.is_some() && value.plain.is_none() && value.constant.is_none()
}

/// The inputs of an operator that combines tensors element by element.
pub(super) fn align(graph: &mut Graph, ids: &[ValueId]) -> Result<Aligned, Reason> {
    let is_first = |&id: &ValueId| is_channels_first(graph, id);
    let leading = ids.iter().copied().find(is_first).or_else(|| image_by_channels(graph, ids));
    if let Some(rank) = leading.and_then(|id| graph.get(id).rank()) {
        let fits = ids.iter().all(|&id| {
            let value = graph.get(id);
            let is_constant = value.constant.is_some();
            value.rank().is_some_and(|r| r == 0 || r == rank || (r < rank && is_constant))
        });
        if fits {
            let names: Result<_, _> = ids.iter().map(|&id| moved(graph, id, rank)).collect();
            return Ok(Aligned { names: names?, is_channels_first: true });
        }
    }
    let names = ids.iter().map(|&id| graph.plain(id)).collect();
    Ok(Aligned { names, is_channels_first: false })
}

/// Channels up to which an image is better turned: beside each other they are too few for vectors.
const CHANNELS_MAX: usize = 4;

/// Rows and columns from which it is worth while.
const SIDE_MIN: usize = 16;

/// The image, of a pair of one with few channels and a constant with a number for each of them: kernels take
/// long for so short rows, and a network turns the image anyway.
fn image_by_channels(graph: &Graph, ids: &[ValueId]) -> Option<ValueId> {
    let [a, b] = *ids else { return None };
    let (image, factors) = if graph.get(a).constant.is_some() { (b, a) } else { (a, b) };
    let Some([_, rows, columns, Dim::Known(channels)]) = graph.get(image).dims.as_deref() else {
        return None;
    };
    let is_long = |side: &Dim| side.known().is_none_or(|size| size >= SIDE_MIN);
    let is_image = graph.get(image).constant.is_none()
        && (2..=CHANNELS_MAX).contains(channels)
        && is_long(rows)
        && is_long(columns);
    let [others @ .., own] = &graph.get(factors).constant.as_ref()?.dims[..] else { return None };
    let is_one_each = own == channels && others.len() < 4 && others.iter().all(|&size| size == 1);
    (is_image && is_one_each).then_some(image)
}

/// An input as it combines with channels-first tensors of `rank`.
fn moved(graph: &mut Graph, id: ValueId, rank: usize) -> Result<String, Reason> {
    let value = graph.get(id);
    match (value.rank(), &value.constant) {
        (Some(0), _) => Ok(graph.plain(id)),
        (Some(own), Some(constant)) if own < rank => {
            let mut dims = vec![1; rank - own];
            dims.extend(&constant.dims);
            let full = constant.reshaped(&dims);
            match full.and_then(|constant| constant.permuted(&to_channels_first(rank))) {
                Some(constant) => Ok(graph.initializer(constant)),
                None => graph.channels_first(id),
            }
        }
        _ => graph.channels_first(id),
    }
}

/// Writes an operator that combines `ids` element by element into a tensor of `dims` (in
/// TensorFlow's order of axes).
pub(super) fn combine(
    graph: &mut Graph,
    op: &'static str,
    ids: &[ValueId],
    attributes: Vec<(&'static str, Attr)>,
    dtype: DType,
    dims: Dims,
) -> Result<ValueId, Reason> {
    let aligned = align(graph, ids)?;
    let names: Vec<&str> = aligned.names.iter().map(String::as_str).collect();
    if aligned.is_channels_first {
        let moved = dims.map(|dims| permute(&dims, &to_channels_first(dims.len())));
        let name = graph.emit(op, &names, attributes, dtype, moved);
        Ok(graph.result_channels_first(name))
    } else {
        let name = graph.emit(op, &names, attributes, dtype, dims);
        Ok(graph.result(name))
    }
}

/// The sizes of tensors combined element by element.
pub(super) fn broadcast_all(graph: &mut Graph, ids: &[ValueId]) -> Dims {
    let mut dims: Dims = Some(Vec::new());
    for &id in ids {
        let own = graph.get(id).dims.clone();
        dims = graph.broadcast(&dims, &own);
    }
    dims
}

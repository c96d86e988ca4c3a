//! Folds what follows a convolution into its weights: a bias, a normalisation by constants.
//!
//! Invariant: a convolution is changed only when what follows is all that reads it.

use crate::constant::Constant;
use crate::graph::Graph;
use crate::value::{ConvolutionOrigin, ValueId};

/// Adds a constant of one number for each channel to the convolution that gives `id`. `None` when
/// that cannot be; then nothing was changed.
pub(super) fn add_bias(g: &mut Graph, id: ValueId, bias: ValueId) -> Option<ValueId> {
    let offsets = by_channel(g, id, bias)?;
    rescale(g, id, &vec![1.0; offsets.len()], &offsets)
}

/// As [`add_bias`], of a factor for each channel.
pub(super) fn multiply(g: &mut Graph, id: ValueId, factor: ValueId) -> Option<ValueId> {
    let scales = by_channel(g, id, factor)?;
    rescale(g, id, &scales, &vec![0.0; scales.len()])
}

/// The numbers of a constant that has one for each channel that the convolution behind `id` gives.
fn by_channel(g: &Graph, id: ValueId, constant: ValueId) -> Option<Vec<f32>> {
    // With channels second, the constant would run along the rows instead.
    g.get(id).channels_first.as_ref()?;
    let constant = g.get(constant).constant.as_ref()?;
    let (channels, others) = constant.dims.split_last()?;
    let kernel_dims = &g.get(id).convolution.as_ref()?.kernel.dims;
    let is_alike = Some(channels) == kernel_dims.first()
        && others.iter().all(|&n| n == 1)
        && constant.dims.len() <= kernel_dims.len();
    if is_alike { constant.to_floats() } else { None }
}

/// Multiplies each channel that the convolution behind `id` gives and then adds to it.
pub(super) fn rescale(
    g: &mut Graph,
    id: ValueId,
    scales: &[f32],
    offsets: &[f32],
) -> Option<ValueId> {
    let value = g.get(id);
    if value.uses != 1 {
        return None;
    }
    let origin = value.convolution.clone()?;
    let channels = *origin.kernel.dims.first()?;
    if scales.len() != channels || offsets.len() != channels || channels == 0 {
        return None;
    }
    let kernel = if scales.iter().all(|&scale| scale == 1.0) {
        origin.kernel.clone()
    } else {
        let mut weights = origin.kernel.to_floats()?;
        let each = weights.len() / channels;
        if each == 0 {
            return None;
        }
        for (weights, scale) in weights.chunks_mut(each).zip(scales) {
            weights.iter_mut().for_each(|weight| *weight *= scale);
        }
        // A product that overflows here need not in a run, where the image comes between.
        if !weights.iter().all(|weight| weight.is_finite()) {
            return None;
        }
        Constant::floats(&origin.kernel.dims, &weights)?
    };
    let before = origin.bias.unwrap_or_else(|| vec![0.0; channels]);
    let bias: Vec<f32> =
        before.iter().zip(scales).zip(offsets).map(|((b, s), o)| b.mul_add(*s, *o)).collect();
    let bias_name = g.initializer(Constant::floats(&[channels], &bias)?);
    let kernel_name = g.initializer(kernel.clone());
    let node = g.nodes.get_mut(origin.node)?;
    let replaced = node.inputs.split_off(1);
    node.inputs.extend([kernel_name, bias_name]);
    // Each convolution has weights of its own, so that nothing else reads those before.
    g.release(&replaced);
    let value = g.get_mut(id);
    // The one reader is folded in; those of its result are counted when it is bound.
    value.uses = 0;
    value.convolution = Some(ConvolutionOrigin { node: origin.node, kernel, bias: Some(bias) });
    Some(id)
}

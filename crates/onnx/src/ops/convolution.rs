//! Convolutions, and the window arithmetic that pooling shares.
//!
//! Invariant: windows are stated in full (kernel, strides, dilations, pads), since not every engine
//! knows ONNX's defaults; `auto_pad` stands only where the size of the image is not known and the
//! stride makes the padding depend on it.

use vesta_model::DType;

use super::{FLOATS, expect_dtype};
use crate::call::Call;
use crate::graph::{Attr, Graph};
use crate::refusal::{Reason, refuse};
use crate::registry::{Family, Outcome};
use crate::value::{ConvolutionOrigin, Dim, ValueId, known_dims, permute, to_channels_last};

pub(super) const FAMILY: Family = &[
    ("Conv2D", |g, c| convolve(g, c, 4)),
    ("Conv3D", |g, c| convolve(g, c, 5)),
    ("DepthwiseConv2dNative", convolve_by_channel),
];

/// Where the axes of an image tensor are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    ChannelsLast,
    ChannelsFirst,
}

impl Format {
    pub(super) fn read(c: &Call<'_>, rank: usize) -> Result<Format, Reason> {
        let default = if rank == 5 { "NDHWC" } else { "NHWC" };
        match c.text("data_format", default)?.as_str() {
            "NHWC" | "NDHWC" => Ok(Format::ChannelsLast),
            "NCHW" | "NCDHW" => Ok(Format::ChannelsFirst),
            other => refuse(format!("data format {other}")),
        }
    }

    /// The axis of the channels.
    pub(super) fn channels(self, rank: usize) -> usize {
        if self == Format::ChannelsFirst { 1 } else { rank.saturating_sub(1) }
    }

    /// The items of a list with one for each axis that belong to the image's axes.
    pub(super) fn spatial<T: Copy>(self, items: &[T]) -> Vec<T> {
        let range = match self {
            Format::ChannelsFirst => 2..items.len(),
            Format::ChannelsLast => 1..items.len().saturating_sub(1),
        };
        items.get(range).unwrap_or_default().to_vec()
    }

    /// The ONNX value with channels second.
    pub(super) fn image(self, g: &mut Graph, id: ValueId) -> Result<String, Reason> {
        match self {
            Format::ChannelsFirst => Ok(g.plain(id)),
            Format::ChannelsLast => g.channels_first(id),
        }
    }

    /// The tensor in an ONNX value with channels second.
    pub(super) fn result(self, g: &mut Graph, name: String) -> ValueId {
        match self {
            Format::ChannelsFirst => g.result(name),
            Format::ChannelsLast => g.result_channels_first(name),
        }
    }
}

/// The sizes of an image tensor, with channels second; a rank that is not known is what the
/// operator takes.
pub(super) fn image_dims(
    g: &mut Graph,
    id: ValueId,
    format: Format,
    rank: usize,
) -> Result<Vec<Dim>, Reason> {
    let dims = match g.get(id).dims.clone() {
        Some(dims) if dims.len() == rank => dims,
        Some(dims) => return refuse(format!("an image of rank {}, not {rank}", dims.len())),
        None => {
            let dims = g.symbols(rank);
            g.get_mut(id).dims = Some(dims.clone());
            dims
        }
    };
    Ok(match format {
        Format::ChannelsFirst => dims,
        Format::ChannelsLast => permute(&dims, &crate::value::to_channels_first(rank)),
    })
}

/// How a window moves over the axes of an image.
pub(super) struct Window {
    pub(super) kernel: Vec<usize>,
    pub(super) strides: Vec<usize>,
    pub(super) dilations: Vec<usize>,
}

/// How an image is padded before.
pub(super) enum Padding {
    Fixed(Vec<(usize, usize)>),
    /// As much as the image needs when it comes.
    Same,
}

impl Window {
    /// The strides and dilations of a node.
    pub(super) fn read(c: &Call<'_>, format: Format, kernel: Vec<usize>) -> Result<Window, Reason> {
        let rank = kernel.len() + 2;
        let list = |name: &str| Window::list(c, format, name, rank);
        Ok(Window { strides: list("strides")?, dilations: list("dilations")?, kernel })
    }

    /// An attribute with a number for each axis: those of the image's axes.
    pub(super) fn list(
        c: &Call<'_>,
        format: Format,
        name: &str,
        rank: usize,
    ) -> Result<Vec<usize>, Reason> {
        let all = c.ints(name, &vec![1; rank])?;
        let channels = format.channels(rank);
        if all.len() != rank || all.first() != Some(&1) || all.get(channels) != Some(&1) {
            return refuse(format!("its {name} {all:?} move over batch or channels"));
        }
        positive(&format.spatial(&all), name)
    }

    /// Cells from the first to the last that a window touches.
    pub(super) fn span(&self, axis: usize) -> usize {
        (self.kernel[axis].saturating_sub(1)).saturating_mul(self.dilations[axis]).saturating_add(1)
    }

    /// Padding as TensorFlow computes it for an image of these sizes.
    pub(super) fn padding(
        &self,
        c: &Call<'_>,
        format: Format,
        image: &[Dim],
    ) -> Result<Padding, Reason> {
        match c.text("padding", "")?.as_str() {
            "VALID" => Ok(Padding::Fixed(vec![(0, 0); self.kernel.len()])),
            "SAME" => self.same(image),
            "EXPLICIT" => {
                let all = c.ints("explicit_paddings", &[])?;
                let pairs: Vec<(i64, i64)> = all.chunks_exact(2).map(|p| (p[0], p[1])).collect();
                let channels = format.channels(pairs.len());
                let none = |at: usize| pairs.get(at) == Some(&(0, 0));
                if pairs.len() != self.kernel.len() + 2 || !none(0) || !none(channels) {
                    return refuse(format!("its paddings {all:?} are for other axes"));
                }
                let pads: Option<Vec<(usize, usize)>> = format
                    .spatial(&pairs)
                    .into_iter()
                    .map(|(a, b)| Some((usize::try_from(a).ok()?, usize::try_from(b).ok()?)))
                    .collect();
                pads.map(Padding::Fixed).ok_or_else(|| Reason("a negative padding".into()))
            }
            other => refuse(format!("padding {other:?}")),
        }
    }

    fn same(&self, image: &[Dim]) -> Result<Padding, Reason> {
        let mut pads = Vec::new();
        for axis in 0..self.kernel.len() {
            let (span, stride) = (self.span(axis), self.strides[axis]);
            let total = match image.get(axis + 2) {
                _ if stride == 1 => span - 1,
                Some(Dim::Known(size)) => {
                    let steps = size.div_ceil(stride).saturating_sub(1);
                    (steps.saturating_mul(stride).saturating_add(span)).saturating_sub(*size)
                }
                _ if self.dilations.iter().all(|&d| d == 1) => return Ok(Padding::Same),
                _ => return refuse("its padding depends on the size of the image"),
            };
            pads.push((total / 2, total - total / 2));
        }
        Ok(Padding::Fixed(pads))
    }

    /// Sizes after the window has moved over the axes of `image`.
    pub(super) fn output(&self, g: &mut Graph, image: &[Dim], padding: &Padding) -> Vec<Dim> {
        (0..self.kernel.len())
            .map(|axis| {
                let stride = self.strides[axis];
                match (image.get(axis + 2), padding) {
                    (Some(Dim::Known(n)), Padding::Fixed(pads)) => {
                        let full = n.saturating_add(pads[axis].0).saturating_add(pads[axis].1);
                        Dim::Known(full.checked_sub(self.span(axis)).map_or(0, |n| n / stride + 1))
                    }
                    (Some(&symbol @ Dim::Symbol(_)), Padding::Fixed(pads))
                        if stride == 1 && pads[axis].0 + pads[axis].1 + 1 == self.span(axis) =>
                    {
                        symbol
                    }
                    (Some(Dim::Known(n)), Padding::Same) => Dim::Known(n.div_ceil(stride)),
                    _ => g.symbol(),
                }
            })
            .collect()
    }

    /// All as ONNX attributes.
    pub(super) fn attributes(&self, padding: &Padding) -> Vec<(&'static str, Attr)> {
        let ints = |items: &[usize]| Attr::Ints(items.iter().map(|&n| n as i64).collect());
        let mut attributes = vec![
            ("kernel_shape", ints(&self.kernel)),
            ("strides", ints(&self.strides)),
            ("dilations", ints(&self.dilations)),
        ];
        match padding {
            Padding::Same => attributes.push(("auto_pad", Attr::Text("SAME_UPPER"))),
            Padding::Fixed(pads) => {
                let ends = pads.iter().map(|p| p.0).chain(pads.iter().map(|p| p.1));
                attributes.push(("pads", ints(&ends.collect::<Vec<_>>())));
            }
        }
        attributes
    }
}

pub(super) fn positive(items: &[i64], what: &str) -> Result<Vec<usize>, Reason> {
    items
        .iter()
        .map(|&n| usize::try_from(n).ok().filter(|&n| n > 0))
        .collect::<Option<_>>()
        .ok_or_else(|| Reason(format!("its {what} are not positive: {items:?}")))
}

/// The sizes of a kernel, which must all be known and positive.
pub(super) fn kernel_dims(g: &Graph, id: ValueId, rank: usize) -> Result<Vec<usize>, Reason> {
    known_dims(&g.get(id).dims)
        .filter(|dims| dims.len() == rank && !dims.contains(&0))
        .ok_or_else(|| Reason("the shape of its kernel is not known".into()))
}

/// A kernel with its axes in another order and then under other sizes.
pub(super) fn arrange_kernel(
    g: &mut Graph,
    id: ValueId,
    order: &[usize],
    dims: &[usize],
) -> (String, Option<crate::constant::Constant>) {
    let constant = g.get(id).constant.as_ref().and_then(|c| c.permuted(order)?.reshaped(dims));
    if let Some(constant) = constant {
        return (g.initializer(constant.clone()), Some(constant));
    }
    let dtype = g.get(id).dtype;
    let moved = g.get(id).dims.as_ref().map(|dims| permute(dims, order));
    let name = g.plain(id);
    let name = g.transpose(&name, order, dtype, moved);
    let sizes: Vec<i64> = dims.iter().map(|&n| n as i64).collect();
    let known = dims.iter().map(|&n| Dim::Known(n)).collect();
    (g.reshape(&name, &sizes, Some(known)), None)
}

/// A convolution whose kernel is ready; remembers it for what can be folded in.
fn finish(
    g: &mut Graph,
    format: Format,
    node: (String, Vec<(&'static str, Attr)>, DType, Vec<Dim>),
    kernel: (String, Option<crate::constant::Constant>),
) -> ValueId {
    let (image, attributes, dtype, dims) = node;
    let name = g.emit("Conv", &[&image, &kernel.0], attributes, dtype, Some(dims));
    let id = format.result(g, name);
    let at = g.nodes.len() - 1;
    if let Some(kernel) = kernel.1.filter(|kernel| kernel.dtype == DType::F32) {
        g.get_mut(id).convolution = Some(ConvolutionOrigin { node: at, kernel, bias: None });
    }
    id
}

pub(super) fn convolve(g: &mut Graph, c: &Call<'_>, rank: usize) -> Outcome {
    let (id, filter) = (c.input(0)?, c.input(1)?);
    expect_dtype(g.get(id).dtype, FLOATS)?;
    let format = Format::read(c, rank)?;
    let sizes = kernel_dims(g, filter, rank)?;
    let (depth_in, depth_out) = (sizes[rank - 2], sizes[rank - 1]);
    let image = image_dims(g, id, format, rank)?;
    let Dim::Known(channels) = image[1] else {
        return refuse("the number of its input's channels is not known");
    };
    if channels % depth_in != 0 {
        return refuse(format!("a kernel for {depth_in} channels over {channels}"));
    }
    let window = Window::read(c, format, sizes[..rank - 2].to_vec())?;
    let padding = window.padding(c, format, &image)?;
    let mut dims = vec![image[0], Dim::Known(depth_out)];
    dims.extend(window.output(g, &image, &padding));
    let mut attributes = window.attributes(&padding);
    attributes.push(("group", Attr::Int((channels / depth_in) as i64)));
    let mut order = vec![rank - 1, rank - 2];
    order.extend(0..rank - 2);
    let kernel = arrange_kernel(g, filter, &order, &permute(&sizes, &order));
    let name = format.image(g, id)?;
    let dtype = g.get(id).dtype;
    let is_of_cells = window.kernel.iter().chain(&window.strides).all(|&n| n == 1);
    if is_of_cells
        && depth_in == channels
        && depth_out < channels
        && let Some((from, average)) = average_before(g, id, &name)
    {
        let mut cells_dims = dims.clone();
        if let Some(own) = g.facts.get(&from).and_then(|fact| fact.1.clone()) {
            cells_dims.splice(2.., own.into_iter().skip(2));
        }
        let cells = finish(g, format, (from, attributes, dtype, cells_dims), kernel);
        let origin = g.get(cells).convolution.clone();
        let cells = format.image(g, cells)?;
        let name = g.emit("AveragePool", &[&cells], average, dtype, Some(dims));
        let id = format.result(g, name);
        g.get_mut(id).convolution = origin;
        return Ok(vec![id]);
    }
    Ok(vec![finish(g, format, (name, attributes, dtype, dims), kernel)])
}

/// What is averaged to the image `name`, and how, if a convolution that takes each cell by itself may as well
/// come first: it leaves fewer channels to average. Both orders add the same products, and a bias is the
/// average of itself, since averages leave out what is padded.
fn average_before(
    g: &Graph,
    id: ValueId,
    name: &str,
) -> Option<(String, Vec<(&'static str, Attr)>)> {
    if g.get(id).uses != 1 {
        return None;
    }
    let node = g.nodes.iter().rev().find(|node| node.outputs.iter().any(|own| own == name))?;
    let is_steady = node.attributes.iter().any(|(name, value)| {
        *name == "strides"
            && matches!(value, Attr::Ints(strides) if strides.iter().all(|&n| n == 1))
    });
    let from = node.inputs.first().filter(|_| node.op == "AveragePool" && is_steady)?;
    Some((from.clone(), node.attributes.clone()))
}

fn convolve_by_channel(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let (id, filter) = (c.input(0)?, c.input(1)?);
    expect_dtype(g.get(id).dtype, FLOATS)?;
    let format = Format::read(c, 4)?;
    let sizes = kernel_dims(g, filter, 4)?;
    let (channels, each) = (sizes[2], sizes[3]);
    let image = image_dims(g, id, format, 4)?;
    let window = Window::read(c, format, sizes[..2].to_vec())?;
    let padding = window.padding(c, format, &image)?;
    let mut dims = vec![image[0], Dim::Known(channels.saturating_mul(each))];
    dims.extend(window.output(g, &image, &padding));
    let mut attributes = window.attributes(&padding);
    attributes.push(("group", Attr::Int(channels as i64)));
    let arranged = [channels.saturating_mul(each), 1, sizes[0], sizes[1]];
    let kernel = arrange_kernel(g, filter, &[2, 3, 0, 1], &arranged);
    let name = format.image(g, id)?;
    Ok(vec![finish(g, format, (name, attributes, g.get(id).dtype, dims), kernel)])
}

/// As [`Format::image`] says, backwards: sizes in TensorFlow's order of axes.
pub(super) fn in_order(format: Format, dims: &[Dim]) -> Vec<Dim> {
    match format {
        Format::ChannelsFirst => dims.to_vec(),
        Format::ChannelsLast => permute(dims, &to_channels_last(dims.len())),
    }
}

//! Transposed convolutions, which TensorFlow states as the gradient of a convolution.
//!
//! Invariant: a size that does not follow from the input is an error, when the graph is translated or in
//! the run.

use vesta_model::DType;

use super::convolution::{Format, Padding, Window, arrange_kernel, image_dims, kernel_dims};
use super::guards::{joined, part, sizes, test, whole};
use super::{FLOATS, expect_dtype, guards};
use crate::call::Call;
use crate::graph::{Attr, Graph};
use crate::refusal::{Reason, refuse};
use crate::registry::{Family, Outcome};
use crate::value::{Dim, ValueId, permute, to_channels_first};

pub(super) const FAMILY: Family = &[
    ("Conv2DBackpropInput", |g, c| convolve(g, c, 4, false)),
    ("Conv3DBackpropInputV2", |g, c| convolve(g, c, 5, false)),
    ("DepthwiseConv2dNativeBackpropInput", |g, c| convolve(g, c, 4, true)),
];

/// What is the same whether the sizes are known or not.
struct Transposed {
    format: Format,
    window: Window,
    /// The ONNX values of the image and the kernel.
    image: String,
    kernel: String,
    group: usize,
    dtype: DType,
    /// Sizes of the input, channels second, and channels of the result.
    dims: Vec<Dim>,
    channels: usize,
}

fn convolve(g: &mut Graph, c: &Call<'_>, rank: usize, is_by_channel: bool) -> Outcome {
    let (target, filter, id) = (c.input(0)?, c.input(1)?, c.input(2)?);
    let dtype = g.get(id).dtype;
    expect_dtype(dtype, FLOATS)?;
    let format = Format::read(c, rank)?;
    let sizes = kernel_dims(g, filter, rank)?;
    let dims = image_dims(g, id, format, rank)?;
    let window = Window::read(c, format, sizes[..rank - 2].to_vec())?;
    let (channels, last) = (sizes[rank - 2], sizes[rank - 1]);
    let (order, arranged) = if is_by_channel {
        let given = channels.saturating_mul(last);
        (vec![2, 3, 0, 1], vec![given, 1, sizes[0], sizes[1]])
    } else {
        let mut order = vec![rank - 1, rank - 2];
        order.extend(0..rank - 2);
        let arranged = permute(&sizes, &order);
        (order, arranged)
    };
    if dims[1] != Dim::Known(arranged[0]) {
        return refuse("the channels of its input do not fit its kernel");
    }
    let (kernel, _) = arrange_kernel(g, filter, &order, &arranged);
    let image = format.image(g, id)?;
    let group = if is_by_channel { channels } else { 1 };
    let it = Transposed { format, window, image, kernel, group, dtype, dims, channels };
    if let Some(known) = known_target(g, c, target, &it)? {
        return by_known_sizes(g, &it, known);
    }
    by_run(g, c, target, &it)
}

/// Sizes of a result, channels second, and the padding of each axis that leads to them.
type Target = (Vec<Dim>, Vec<(usize, usize)>);

/// Those that are wanted, when both are known.
fn known_target(
    g: &mut Graph,
    c: &Call<'_>,
    target: ValueId,
    it: &Transposed,
) -> Result<Option<Target>, Reason> {
    let rank = it.dims.len();
    let Some(wanted) = g.get(target).elements.clone().filter(|all| all.len() == rank) else {
        return Ok(None);
    };
    let wanted = super::shaping::target_dims(g, &wanted)?;
    let wanted = match it.format {
        Format::ChannelsFirst => wanted,
        Format::ChannelsLast => permute(&wanted, &to_channels_first(rank)),
    };
    if let Dim::Known(channels) = wanted[1]
        && channels != it.channels
    {
        return refuse(format!("{channels} channels out of a kernel for {}", it.channels));
    }
    let is_known = wanted[2..].iter().chain(&it.dims[2..]).all(|dim| dim.known().is_some());
    if wanted[0] != it.dims[0] || wanted[1] != Dim::Known(it.channels) || !is_known {
        return Ok(None);
    }
    let Padding::Fixed(pads) = it.window.padding(c, it.format, &wanted)? else { return Ok(None) };
    let forward = it.window.output(g, &wanted, &Padding::Fixed(pads.clone()));
    if forward != it.dims[2..] {
        return refuse("the size of its result does not follow from its input");
    }
    Ok(Some((wanted, pads)))
}

fn by_known_sizes(g: &mut Graph, it: &Transposed, (wanted, pads): Target) -> Outcome {
    // Cells at the end that no window reached when the image was made smaller.
    let mut extra = Vec::new();
    for (axis, pads) in pads.iter().enumerate() {
        let (Some(small), Some(large)) = (it.dims[axis + 2].known(), wanted[axis + 2].known())
        else {
            return refuse("the size of its input is known only when the model runs");
        };
        let covered = small
            .saturating_sub(1)
            .saturating_mul(it.window.strides[axis])
            .saturating_add(it.window.span(axis));
        let full = large.saturating_add(pads.0).saturating_add(pads.1);
        extra.push(full.saturating_sub(covered) as i64);
    }
    let name = write(g, it, pads, extra, wanted);
    Ok(vec![it.format.result(g, name)])
}

fn write(
    g: &mut Graph,
    it: &Transposed,
    pads: Vec<(usize, usize)>,
    extra: Vec<i64>,
    dims: Vec<Dim>,
) -> String {
    let mut attributes = it.window.attributes(&Padding::Fixed(pads));
    attributes.push(("group", Attr::Int(it.group as i64)));
    attributes.push(("output_padding", Attr::Ints(extra)));
    let inputs = [&*it.image, &it.kernel];
    g.emit("ConvTranspose", &inputs, attributes, it.dtype, Some(dims))
}

/// All that windows reach, then the part that is wanted: how much is left out on both sides follows
/// from sizes that are computed in the run.
fn by_run(g: &mut Graph, c: &Call<'_>, target: ValueId, it: &Transposed) -> Outcome {
    let is_same = match c.text("padding", "")?.as_str() {
        "SAME" => true,
        "VALID" => false,
        other => return refuse(format!("padding {other} into sizes that are computed")),
    };
    let (rank, axes) = (it.dims.len(), it.dims.len() - 2);
    let mut reached = vec![it.dims[0], Dim::Known(it.channels)];
    reached.extend(g.symbols(axes));
    let full = write(g, it, vec![(0, 0); axes], vec![0; axes], reached);
    let target_name = g.wide(target)?;
    let first = if it.format == Format::ChannelsFirst { 2 } else { 1 };
    let wanted = part(g, &target_name, first, first + axes);
    let line = Some(vec![Dim::Known(axes)]);
    let zero = g.ints(&vec![0; axes]);
    let reached = sizes(g, &full, 2, None);
    let before = if is_same {
        let over = whole(g, "Sub", &reached, &wanted, &line);
        let over = whole(g, "Max", &over, &zero, &line);
        let two = g.ints(&vec![2; axes]);
        whole(g, "Div", &over, &two, &line)
    } else {
        zero.clone()
    };
    let before = checked(g, it, (&target_name, &wanted), before, is_same);
    let end = whole(g, "Add", &before, &wanted, &line);
    let missing = whole(g, "Sub", &end, &reached, &line);
    let missing = whole(g, "Max", &missing, &zero, &line);
    let none = g.ints(&vec![0; rank + 2]);
    let pads = joined(g, &[&none, &missing]);
    let nothing = g.scalar(it.dtype, 0.0)?;
    let mut padded = vec![it.dims[0], Dim::Known(it.channels)];
    padded.extend(g.symbols(axes));
    let attributes = vec![("mode", Attr::Text("constant"))];
    let inputs = [&*full, &pads, &nothing];
    let name = g.emit("Pad", &inputs, attributes, it.dtype, Some(padded));
    let mut dims = vec![it.dims[0], Dim::Known(it.channels)];
    let elements = g.get(target).elements.clone().filter(|all| all.len() == rank);
    match elements {
        Some(all) => dims.extend(super::shaping::target_dims(g, &all[first..first + axes])?),
        None => dims.extend(g.symbols(axes)),
    }
    let which: Vec<i64> = (2..rank as i64).collect();
    let (which, steps) = (g.ints(&which), g.ints(&vec![1; axes]));
    let inputs = [&*name, &before, &end, &which, &steps];
    let name = g.emit("Slice", &inputs, vec![], it.dtype, Some(dims));
    Ok(vec![it.format.result(g, name)])
}

/// `before` as it is, in a run that fails where a convolution of the result would not give the input's
/// sizes.
fn checked(
    g: &mut Graph,
    it: &Transposed,
    (target, wanted): (&str, &str),
    before: String,
    is_same: bool,
) -> String {
    let (rank, axes) = (it.dims.len(), it.dims.len() - 2);
    let line = Some(vec![Dim::Known(axes)]);
    let strides: Vec<i64> = it.window.strides.iter().map(|&n| n as i64).collect();
    let more: Vec<i64> = (0..axes)
        .map(|axis| {
            let over = if is_same { 1 } else { it.window.span(axis) as i64 };
            strides[axis] - over
        })
        .collect();
    let (strides, more) = (g.ints(&strides), g.ints(&more));
    let forward = whole(g, "Add", wanted, &more, &line);
    let forward = whole(g, "Div", &forward, &strides, &line);
    let channels_at = if it.format == Format::ChannelsFirst { 1 } else { rank - 1 };
    let (batch, channels) = (part(g, target, 0, 1), part(g, target, channels_at, channels_at + 1));
    let given = joined(g, &[&batch, &channels, &forward]);
    let (batch, own) = (sizes(g, &it.image, 0, Some(1)), g.ints(&[it.channels as i64]));
    let cells = sizes(g, &it.image, 2, None);
    let needed = joined(g, &[&batch, &own, &cells]);
    let all = Some(vec![Dim::Known(rank)]);
    let fits = test(g, "Equal", &given, &needed, &all);
    let is_wrong = g.emit("Not", &[&fits], vec![], DType::Bool, all);
    guards::unless(g, &before, &is_wrong, "sizes of the output do not fit the input")
}

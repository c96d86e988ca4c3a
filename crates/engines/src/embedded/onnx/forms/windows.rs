//! Convolutions and pools over images and sequences.
//!
//! May not know: rten. Invariant: padding is told in numbers, and windows fit into the image: where its
//! size is open, a run finds out before anything is computed.

use vesta_model::DType;
use vesta_protos::onnx::NodeProto;

use super::picks::pad_by;
use super::{Outcome, expect_attributes, expect_inputs, int, ints, output, product, text};
use crate::embedded::onnx::extent::{Extent, Extents};
use crate::embedded::onnx::facts::{Dims, Fact};
use crate::embedded::onnx::graph::{Graph, Written, input};

pub(super) const ALL: &[&str] = &["AveragePool", "Conv", "ConvTranspose", "MaxPool"];

/// How a window moves over the axes of an image.
struct Window {
    kernel: Vec<i64>,
    strides: Vec<i64>,
    dilations: Vec<i64>,
    /// Before all axes, then behind them.
    pads: Vec<Extent>,
    is_ceiled: bool,
}

pub(super) fn write(g: &mut Graph, node: &NodeProto) -> Outcome {
    let dims = g.float_dims(node, 0)?;
    if !(3..=4).contains(&dims.len()) {
        return Err(format!("its input has {} axes, not 3 or 4", dims.len()));
    }
    match node.op_type.as_str() {
        "Conv" => convolution(g, node, dims),
        "ConvTranspose" => transposed(g, node, &dims),
        _ => pool(g, node, dims),
    }
}

/// The sizes of weights, which are known.
fn weights(g: &Graph, node: &NodeProto, rank: usize) -> Result<Vec<i64>, String> {
    expect_inputs(node, 2..=3)?;
    let sizes = g.float_dims(node, 1)?;
    let sizes: Option<Vec<i64>> = sizes.iter().map(Extent::known).collect();
    let sizes = sizes.filter(|sizes| sizes.len() == rank && sizes.iter().all(|&size| size > 0));
    let sizes = sizes.ok_or("its weights are not of as many dimensions")?;
    let kernel = ints(node, "kernel_shape");
    if kernel.is_some_and(|own| own != sizes[2..]) {
        return Err("its weights do not fit its kernel".to_owned());
    }
    Ok(sizes)
}

fn bias<'n>(g: &Graph, node: &'n NodeProto, features: i64) -> Result<&'n str, String> {
    let Some(bias) = input(node, 2) else { return Ok("") };
    match g.float_dims(node, 2)?[..] == [features.into()] {
        true => Ok(bias),
        false => Err("its bias does not fit".to_owned()),
    }
}

fn convolution(g: &mut Graph, node: &NodeProto, mut dims: Dims) -> Outcome {
    let known = ["auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"];
    expect_attributes(node, &known)?;
    let weights = weights(g, node, dims.len())?;
    let (features, channels) = (weights[0], weights[1]);
    let group = int(node, "group", 1);
    let fits = group > 0 && channels.checked_mul(group).is_some_and(|all| dims[1].is(all));
    if !fits || features % group != 0 {
        return Err("its weights do not fit its input".to_owned());
    }
    let bias = bias(g, node, features)?;
    let mut window = Window::of(&mut g.extents, node, &weights[2..], &dims)?;
    let x = window.pad_first(g, &node.input[0], &mut dims, 0.0)?;
    let mut attributes = window.attributes();
    attributes.push(("dilations", Written::Ints(window.dilations.clone())));
    attributes.push(("group", Written::Int(group)));
    let mut result = vec![dims[0].clone(), features.into()];
    result.extend(window.sizes(&mut g.extents, &dims)?);
    let inputs = [&x, &node.input[1], bias];
    let inputs = if bias.is_empty() { &inputs[..2] } else { &inputs[..] };
    g.emit(&node.op_type, inputs, output(node), attributes, result)
}

fn transposed(g: &mut Graph, node: &NodeProto, dims: &Dims) -> Outcome {
    let known =
        ["auto_pad", "dilations", "group", "kernel_shape", "output_padding", "pads", "strides"];
    expect_attributes(node, &known)?;
    let weights = weights(g, node, dims.len())?;
    let group = int(node, "group", 1);
    if group < 1 || weights[0] % group != 0 || !dims[1].is(weights[0]) {
        return Err("its weights do not fit its input".to_owned());
    }
    let features = weights[1].checked_mul(group).ok_or("it has too many features")?;
    let bias = bias(g, node, features)?;
    if !matches!(text(node, "auto_pad").unwrap_or(b"NOTSET"), b"NOTSET" | b"" | b"VALID") {
        return Err("its padding is not told in numbers".to_owned());
    }
    let window = Window::of(&mut g.extents, node, &weights[2..], dims)?;
    let axes = dims.len() - 2;
    let more = ints(node, "output_padding").unwrap_or_else(|| vec![0; axes]);
    let more = counts(more, "output_padding", 0, axes)?;
    let mut result = vec![dims[0].clone(), features.into()];
    for axis in 0..axes {
        let reach = (window.kernel[axis] - 1) * window.dilations[axis] + 1;
        let pads = window.pads[axis].plus(&window.pads[axis + axes])?;
        let moved = dims[axis + 2].minus(&1.into())?.times(&window.strides[axis].into())?;
        let size = moved.plus(&Extent::from(reach + more[axis]))?.minus(&pads)?;
        result.push(g.extents.natural(&size));
        // A kernel that is padded by more than itself, or longer behind than a step, was not held.
        let is_odd = window.pads[axis].known().is_none_or(|pad| pad >= reach)
            || window.pads[axis + axes].known().is_none_or(|pad| pad >= reach)
            || more[axis] >= window.strides[axis].max(window.dilations[axis]);
        if is_odd {
            return Err("its padding is larger than is known".to_owned());
        }
    }
    // Every pixel times the whole kernel, before they are summed.
    let kernel = window.kernel.iter().fold(1i64, |all, &own| all.saturating_mul(own));
    g.count(product(&[features.into(), kernel.into(), product(&dims[2..])?])?);
    let mut attributes = window.attributes();
    attributes.push(("dilations", Written::Ints(window.dilations.clone())));
    attributes.push(("group", Written::Int(group)));
    attributes.push(("output_padding", Written::Ints(more)));
    let inputs = [node.input[0].as_str(), &node.input[1], bias];
    let inputs = if bias.is_empty() { &inputs[..2] } else { &inputs[..] };
    g.emit("ConvTranspose", inputs, output(node), attributes, result)
}

fn pool(g: &mut Graph, node: &NodeProto, mut dims: Dims) -> Outcome {
    let known = [
        "auto_pad",
        "ceil_mode",
        "count_include_pad",
        "dilations",
        "kernel_shape",
        "pads",
        "storage_order",
        "strides",
    ];
    expect_inputs(node, 1..=1)?;
    expect_attributes(node, &known)?;
    let axes = dims.len() - 2;
    let kernel = ints(node, "kernel_shape").ok_or("it has no kernel")?;
    let kernel = counts(kernel, "kernel_shape", 1, axes)?;
    let mut window = Window::of(&mut g.extents, node, &kernel, &dims)?;
    let is_mean = node.op_type == "AveragePool";
    let counts_all = int(node, "count_include_pad", 0) != 0;
    if window.dilations.iter().any(|&own| own != 1) {
        return Err("its windows have gaps".to_owned());
    }
    if is_mean && window.has_open_pads() {
        return Err("its padding follows from open sizes".to_owned());
    }
    if is_mean && counts_all && window.is_ceiled {
        return Err("it counts padding where the last window may reach beyond it".to_owned());
    }
    let mut x = window.pad_first(g, &node.input[0], &mut dims, f32::NEG_INFINITY)?;
    window.lay_last(&dims)?;
    let is_wide = |at: usize| window.pads[at].known().is_none_or(|pad| pad >= kernel[at % axes]);
    if (0..2 * axes).any(is_wide) {
        return Err("its windows lie in padding alone".to_owned());
    }
    let mut result = dims[..2].to_vec();
    result.extend(window.sizes(&mut g.extents, &dims)?);
    let is_flat = axes == 1;
    if is_flat {
        window.add_axis();
        dims.insert(2, 1.into());
        x = g.reshaped(&x, dims)?;
    }
    let mut attributes = window.attributes();
    attributes.push(("kernel_shape", Written::Ints(window.kernel.clone())));
    attributes.push(("ceil_mode", Written::Int(0)));
    if is_mean {
        attributes.push(("count_include_pad", Written::Int(counts_all.into())));
    }
    if !is_flat {
        return g.emit(&node.op_type, &[&x], output(node), attributes, result);
    }
    let mut whole = result.clone();
    whole.insert(2, 1.into());
    let done = g.step_with(&node.op_type, &[&x], attributes, Fact::new(DType::F32, whole))?;
    g.reshape(&done, output(node), result)
}

impl Window {
    fn of(
        extents: &mut Extents,
        node: &NodeProto,
        kernel: &[i64],
        dims: &Dims,
    ) -> Result<Window, String> {
        let axes = dims.len() - 2;
        let of =
            |name: &str| counts(ints(node, name).unwrap_or_else(|| vec![1; axes]), name, 1, axes);
        let mut window = Window {
            kernel: counts(kernel.to_vec(), "kernel_shape", 1, axes)?,
            strides: of("strides")?,
            dilations: of("dilations")?,
            pads: vec![Extent::from(0); 2 * axes],
            is_ceiled: int(node, "ceil_mode", 0) != 0,
        };
        match (text(node, "auto_pad").unwrap_or(b"NOTSET"), ints(node, "pads")) {
            (b"NOTSET" | b"", Some(pads)) => {
                let pads = counts(pads, "pads", 0, 2 * axes)?;
                window.pads = pads.into_iter().map(Extent::from).collect();
            }
            (b"NOTSET" | b"" | b"VALID", _) => {}
            (b"SAME_UPPER", _) => window.keep_size(extents, dims, false)?,
            (b"SAME_LOWER", _) => window.keep_size(extents, dims, true)?,
            (other, _) => {
                return Err(format!("its padding {} is not known", String::from_utf8_lossy(other)));
            }
        }
        Ok(window)
    }

    fn reach(&self, axis: usize) -> i64 {
        (self.kernel[axis] - 1) * self.dilations[axis] + 1
    }

    /// As much padding as makes a window begin at every step, halved, the odd one on one of both sides.
    fn keep_size(&mut self, extents: &mut Extents, dims: &Dims, is_first: bool) -> Outcome {
        let axes = self.kernel.len();
        if self.dilations.iter().any(|&own| own != 1) {
            return Err("its padding follows from windows with gaps".to_owned());
        }
        for axis in 0..axes {
            let (image, stride) = (&dims[axis + 2], self.strides[axis]);
            let rounded = image.plus(&Extent::from(stride - 1))?;
            let count = extents.quotient(&rounded, &stride.into())?;
            let moved = count.minus(&1.into())?.times(&stride.into())?;
            let all = moved.plus(&self.reach(axis).into())?.minus(image)?;
            let all = extents.larger(&all, &0.into())?;
            let half = extents.quotient(&all, &2.into())?;
            let rest = all.minus(&half)?;
            let (before, behind) = if is_first { (rest, half) } else { (half, rest) };
            (self.pads[axis], self.pads[axis + axes]) = (before, behind);
        }
        // What is beyond the last whole step is padding, too.
        self.is_ceiled = false;
        Ok(())
    }

    fn has_open_pads(&self) -> bool {
        self.pads.iter().any(|pad| pad.known().is_none())
    }

    /// Padding that follows from open sizes is put around the image itself.
    fn pad_first(
        &mut self,
        g: &mut Graph,
        from: &str,
        dims: &mut Dims,
        value: f32,
    ) -> Result<String, String> {
        if !self.has_open_pads() {
            return Ok(from.to_owned());
        }
        let axes = self.kernel.len();
        let mut pads = vec![Extent::from(0); 2 * dims.len()];
        for axis in 0..axes {
            pads[axis + 2] = g.extents.natural(&self.pads[axis]);
            pads[axis + 2 + dims.len()] = g.extents.natural(&self.pads[axis + axes]);
        }
        let padded = g.new_name("step");
        pad_by(g, from, &padded, &pads, ("constant", value))?;
        dims.clone_from(&g.fact_of(&padded)?.dims);
        self.pads = vec![Extent::from(0); 2 * axes];
        Ok(padded)
    }

    /// With `ceil_mode` a last window may reach beyond the image, but begins within it or the padding
    /// before it: as if there was more padding behind.
    fn lay_last(&mut self, dims: &Dims) -> Outcome {
        let axes = self.kernel.len();
        for axis in (0..axes).filter(|_| self.is_ceiled) {
            let (stride, reach) = (self.strides[axis], self.reach(axis));
            let behind = self.pads[axis + axes].known().ok_or("its padding is open")?;
            if reach > behind + stride - 1 {
                self.pads[axis + axes] = (behind + stride - 1).into();
                continue;
            }
            let before = self.pads[axis].known().ok_or("its padding is open")?;
            let image =
                dims[axis + 2].known().ok_or("its last window lies where sizes are open")?;
            let way = image + before + behind - reach;
            if way < 0 {
                return Err("its window is larger than the image".to_owned());
            }
            let mut count = (way + stride - 1) / stride + 1;
            if (count - 1) * stride >= image + before {
                count -= 1;
            }
            let all = (count - 1) * stride + reach - image - before;
            self.pads[axis + axes] = all.max(0).into();
        }
        Ok(())
    }

    /// One before the only axis, along which nothing moves.
    fn add_axis(&mut self) {
        self.kernel.insert(0, 1);
        self.strides.insert(0, 1);
        self.dilations.insert(0, 1);
        self.pads.insert(1, 0.into());
        self.pads.insert(0, 0.into());
    }

    fn attributes(&self) -> Vec<(&'static str, Written)> {
        let pads: Vec<i64> = self.pads.iter().filter_map(Extent::known).collect();
        vec![("strides", Written::Ints(self.strides.clone())), ("pads", Written::Ints(pads))]
    }

    /// How many windows there are along the axes.
    fn sizes(&self, extents: &mut Extents, dims: &Dims) -> Result<Dims, String> {
        let axes = self.kernel.len();
        let mut size = |axis: usize| {
            let padded = dims[axis + 2].plus(&self.pads[axis])?.plus(&self.pads[axis + axes])?;
            let way = padded.minus(&self.reach(axis).into())?;
            if way.known().is_some_and(|way| way < 0) {
                return Err("its window is larger than the image".to_owned());
            }
            extents.quotient(&way, &self.strides[axis].into())?.plus(&1.into())
        };
        (0..axes).map(&mut size).collect()
    }
}

/// So many numbers from `least` on that an image's axis could have.
fn counts(values: Vec<i64>, name: &str, least: i64, count: usize) -> Result<Vec<i64>, String> {
    if values.len() != count {
        return Err(format!("its attribute {name} is not of {count} numbers"));
    }
    match values.iter().all(|own| (least..=1 << 20).contains(own)) {
        true => Ok(values),
        false => Err(format!("its attribute {name} has odd values")),
    }
}

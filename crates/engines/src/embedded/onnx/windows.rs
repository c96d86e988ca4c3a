//! Convolutions and pools over images.
//!
//! May not know: rten. Invariant: padding is told in numbers, and windows fit into the image where its
//! size is known.

use vesta_protos::onnx::NodeProto;

use super::forms::{expect_attributes, int, ints, output};
use super::graph::{Dims, Graph, Written, input};

/// How a window moves over the two axes of an image.
struct Window {
    kernel: [usize; 2],
    strides: [usize; 2],
    dilations: [usize; 2],
    /// Before both axes, then behind them.
    pads: [usize; 4],
}

/// Writes a `Conv`, a `MaxPool` or an `AveragePool`.
pub(super) fn write(g: &mut Graph, node: &NodeProto) -> Result<(), String> {
    let dims = g.dims(node, 0)?;
    if dims.len() != 4 {
        return Err(format!("its input has {} axes, not 4", dims.len()));
    }
    if node.op_type == "Conv" { convolution(g, node, &dims) } else { pool(g, node, &dims) }
}

fn convolution(g: &mut Graph, node: &NodeProto, dims: &Dims) -> Result<(), String> {
    let known = ["auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"];
    expect_attributes(node, &known)?;
    g.floats(node, 1)?;
    let weights: Vec<usize> = g.dims(node, 1)?.into_iter().flatten().collect();
    let &[features, channels, height, width] = &weights[..] else {
        return Err("its weights are not of two dimensions".to_owned());
    };
    let group = usize::try_from(int(node, "group", 1)).unwrap_or_default();
    let fits = |own: usize| channels.checked_mul(group) == Some(own);
    let is_empty = weights.contains(&0);
    if group == 0 || is_empty || features % group != 0 || !dims[1].is_some_and(fits) {
        return Err("its weights do not fit its input".to_owned());
    }
    let own = ints(node, "kernel_shape").unwrap_or_else(|| vec![height as i64, width as i64]);
    if own != [height as i64, width as i64] {
        return Err("its weights do not fit its kernel".to_owned());
    }
    let window = Window::of(node, [height, width])?;
    let mut inputs = vec![&*node.input[0], &*node.input[1]];
    if let Some(bias) = input(node, 2) {
        if g.floats(node, 2)?.len() != features || g.dims(node, 2)?.len() != 1 {
            return Err("its bias does not fit".to_owned());
        }
        inputs.push(bias);
    }
    let mut attributes = window.attributes();
    attributes.push(("dilations", Written::Ints(signed(&window.dilations))));
    attributes.push(("group", Written::Int(group as i64)));
    let sizes = window.sizes(dims)?;
    let result = vec![dims[0], Some(features), sizes[0], sizes[1]];
    g.emit(&node.op_type, &inputs, output(node), attributes, result)
}

fn pool(g: &mut Graph, node: &NodeProto, dims: &Dims) -> Result<(), String> {
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
    expect_attributes(node, &known)?;
    let kernel = pair(ints(node, "kernel_shape"), "kernel_shape")?.ok_or("it has no kernel")?;
    let window = Window::of(node, kernel)?;
    let is_padded = window.pads.iter().any(|&pad| pad > 0);
    let is_wide = (0..4).any(|at| window.pads[at] >= kernel[at % 2]);
    let counts = int(node, "count_include_pad", 0) != 0 && is_padded;
    if int(node, "ceil_mode", 0) != 0 || window.dilations != [1, 1] || is_wide || counts {
        return Err("its windows lie, or count, in another way than is known".to_owned());
    }
    let mut attributes = window.attributes();
    attributes.push(("kernel_shape", Written::Ints(signed(&kernel))));
    attributes.push(("ceil_mode", Written::Int(0)));
    if node.op_type == "AveragePool" {
        attributes.push(("count_include_pad", Written::Int(0)));
    }
    let sizes = window.sizes(dims)?;
    let result = vec![dims[0], dims[1], sizes[0], sizes[1]];
    g.emit(&node.op_type, &[&node.input[0]], output(node), attributes, result)
}

impl Window {
    fn of(node: &NodeProto, kernel: [usize; 2]) -> Result<Window, String> {
        let padding = node.attribute.iter().find(|own| own.name == "auto_pad");
        let padding = padding.and_then(|own| own.s.as_deref()).unwrap_or(b"NOTSET");
        let stated = ints(node, "pads");
        let pads = match (padding, stated) {
            (b"NOTSET" | b"", Some(pads)) => counts(&pads, "pads", 0)?
                .try_into()
                .map_err(|_| "its attribute pads is not of two dimensions".to_owned())?,
            (b"NOTSET" | b"" | b"VALID", _) => [0; 4],
            (other, _) => {
                let other = String::from_utf8_lossy(other);
                return Err(format!("its padding {other} is not told in numbers"));
            }
        };
        Ok(Window {
            kernel,
            strides: pair(ints(node, "strides"), "strides")?.unwrap_or([1, 1]),
            dilations: pair(ints(node, "dilations"), "dilations")?.unwrap_or([1, 1]),
            pads,
        })
    }

    fn attributes(&self) -> Vec<(&'static str, Written)> {
        vec![
            ("strides", Written::Ints(signed(&self.strides))),
            ("pads", Written::Ints(signed(&self.pads))),
        ]
    }

    /// How many windows there are along both axes.
    fn sizes(&self, dims: &Dims) -> Result<[Option<usize>; 2], String> {
        let mut sizes = [None; 2];
        for (at, size) in sizes.iter_mut().enumerate() {
            let Some(image) = dims[at + 2] else { continue };
            let padded = image.saturating_add(self.pads[at]).saturating_add(self.pads[at + 2]);
            let reach = self.kernel[at].saturating_sub(1).saturating_mul(self.dilations[at]);
            let room = padded.checked_sub(reach.saturating_add(1));
            *size = Some(room.ok_or("its window is larger than the image")? / self.strides[at] + 1);
        }
        Ok(sizes)
    }
}

fn pair(values: Option<Vec<i64>>, name: &str) -> Result<Option<[usize; 2]>, String> {
    let Some(values) = values else { return Ok(None) };
    let values = counts(&values, name, 1)?.try_into();
    values.map(Some).map_err(|_| format!("its attribute {name} is not of two dimensions"))
}

/// Numbers from `least` on that an image's axis could have.
fn counts(values: &[i64], name: &str, least: usize) -> Result<Vec<usize>, String> {
    let count =
        |&value: &i64| usize::try_from(value).ok().filter(|own| (least..=1 << 20).contains(own));
    let all: Option<Vec<usize>> = values.iter().map(count).collect();
    all.ok_or_else(|| format!("its attribute {name} has odd values"))
}

fn signed(values: &[usize]) -> Vec<i64> {
    values.iter().map(|&value| value as i64).collect()
}

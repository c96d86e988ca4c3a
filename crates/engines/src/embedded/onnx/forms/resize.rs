//! Resizing of images.
//!
//! Invariant: neighbours are repeated a whole number of times, which leaves nothing to round; what lies
//! between is computed from coordinates that ONNX Runtime takes, too.

use vesta_protos::onnx::NodeProto;

use super::{Outcome, expect_attributes, expect_inputs, int, ints, output, text};
use crate::embedded::onnx::extent::Extent;
use crate::embedded::onnx::facts::{Dims, Fact};
use crate::embedded::onnx::graph::{Graph, Written, input};

pub(super) const ALL: &[&str] = &["Resize", "Upsample"];

pub(super) fn write(g: &mut Graph, node: &NodeProto) -> Outcome {
    let known = [
        "antialias",
        "axes",
        "coordinate_transformation_mode",
        "cubic_coeff_a",
        "extrapolation_value",
        "keep_aspect_ratio_policy",
        "mode",
        "nearest_mode",
        "scales",
    ];
    expect_attributes(node, &known)?;
    let dims = g.float_dims(node, 0)?;
    if dims.len() != 4 || int(node, "antialias", 0) != 0 || ints(node, "axes").is_some() {
        return Err("it resizes no images, smooths, or names axes".to_owned());
    }
    if text(node, "keep_aspect_ratio_policy").is_some_and(|own| own != b"stretch") {
        return Err("it keeps the aspect ratio".to_owned());
    }
    let is_first = node.op_type == "Upsample" || g.opset < 11;
    let (wanted, scales) = target(g, node, &dims, is_first)?;
    if wanted[..2] != dims[..2] {
        return Err("it resizes channels".to_owned());
    }
    let way = text(node, "coordinate_transformation_mode");
    let way = way.unwrap_or(if is_first { b"asymmetric" } else { b"half_pixel" });
    match text(node, "mode").unwrap_or(b"nearest") {
        b"nearest" => {
            let rounding = text(node, "nearest_mode");
            let rounding =
                rounding.unwrap_or(if is_first { b"floor" } else { b"round_prefer_floor" });
            let is_floor = matches!(
                (way, rounding),
                (b"asymmetric", b"floor")
                    | (b"half_pixel" | b"pytorch_half_pixel", b"round_prefer_floor")
            );
            let [Some(high), Some(wide)] = scales else {
                return Err("it repeats neighbours another than a whole number of times".to_owned());
            };
            if !is_floor {
                return Err("it rounds coordinates in another way than is known".to_owned());
            }
            repeat(g, node, &dims, [high, wide])
        }
        b"linear" | b"bilinear" => linear(g, node, &dims, wanted, (way, scales)),
        _ => Err("its mode is not known".to_owned()),
    }
}

/// The sizes that are wanted, and by which whole numbers the last two grow, where they do.
fn target(
    g: &mut Graph,
    node: &NodeProto,
    dims: &Dims,
    is_first: bool,
) -> Result<(Dims, [Option<i64>; 2]), String> {
    let at = if is_first { 1 } else { 2 };
    expect_inputs(node, if node.input.len() == 1 { 1..=1 } else { 1..=4 })?;
    let scales = match ints(node, "scales") {
        Some(_) if g.opset < 9 => {
            let own = node.attribute.iter().find(|own| own.name == "scales");
            Some(own.map(|own| own.floats.clone()).unwrap_or_default())
        }
        _ => input(node, at).map(|_| g.floats(node, at)).transpose()?,
    };
    let scales = scales.filter(|scales| !scales.is_empty());
    let mut wanted = Dims::new();
    match scales {
        Some(scales) if scales.len() == dims.len() => {
            for (dim, &scale) in dims.iter().zip(&scales) {
                wanted.push(scaled(dim, scale)?);
            }
        }
        Some(_) => return Err("it has not a scale for each axis".to_owned()),
        None => {
            wanted = g.numbers(node, 3)?;
            wanted = wanted.iter().map(|size| g.extents.natural(size)).collect();
        }
    }
    if wanted.len() != 4 || wanted.iter().any(|size| size.is(0)) {
        return Err("it has not a size for each axis".to_owned());
    }
    let mut whole = [None; 2];
    for (axis, own) in whole.iter_mut().enumerate() {
        let ratio = g.extents.quotient(&wanted[axis + 2], &dims[axis + 2]).ok();
        let ratio = ratio.and_then(|ratio| ratio.known()).filter(|ratio| *ratio >= 1);
        let is_whole = |ratio: &i64| {
            dims[axis + 2].times(&Extent::from(*ratio)).is_ok_and(|own| own == wanted[axis + 2])
        };
        *own = ratio.filter(is_whole);
    }
    Ok((wanted, whole))
}

/// A size times a scale, where that is no fraction: of one, coordinates would not be those of the sizes.
fn scaled(dim: &Extent, scale: f32) -> Result<Extent, String> {
    let odd = || format!("its scale {scale} gives no whole sizes");
    if !(scale.is_finite() && scale > 0.0 && scale <= 4096.0) {
        return Err(odd());
    }
    if scale.fract() == 0.0 {
        return dim.times(&Extent::from(scale as i64));
    }
    let size = dim.known().filter(|&size| (0..1 << 20).contains(&size)).ok_or_else(odd)?;
    let wanted = f64::from(scale) * size as f64;
    if wanted.fract() == 0.0 && wanted >= 1.0 {
        Ok(Extent::from(wanted as i64))
    } else {
        Err(odd())
    }
}

fn repeat(g: &mut Graph, node: &NodeProto, dims: &Dims, [high, wide]: [i64; 2]) -> Outcome {
    let (high, wide, one) = (Extent::from(high), Extent::from(wide), Extent::from(1));
    let [b, c, h, w] = &dims[..] else { return Err("it resizes no images".to_owned()) };
    let rows = b.times(c)?;
    let with = |high: &Extent, wide: &Extent| -> Dims {
        [&rows, h, high, w, wide].map(Clone::clone).to_vec()
    };
    let apart = g.reshaped(&node.input[0], with(&one, &one))?;
    let own = with(&high, &wide);
    let target = g.vector(&own);
    let repeated =
        g.step_with("Expand", &[&apart, &target], vec![], Fact::new(vesta_model::DType::F32, own))?;
    let dims = vec![b.clone(), c.clone(), h.times(&high)?, w.times(&wide)?];
    g.reshape(&repeated, output(node), dims)
}

fn linear(
    g: &mut Graph,
    node: &NodeProto,
    dims: &Dims,
    wanted: Dims,
    (way, scales): (&[u8], [Option<i64>; 2]),
) -> Outcome {
    let way = match way {
        b"half_pixel" => "half_pixel",
        b"asymmetric" => "asymmetric",
        b"pytorch_half_pixel" => "pytorch_half_pixel",
        // With corners aligned the engine is right as long as it enlarges.
        b"align_corners" if scales.iter().all(Option::is_some) => "align_corners",
        _ => return Err("its coordinates lie in another way than is known".to_owned()),
    };
    if wanted == *dims {
        return g.emit("Identity", &[&node.input[0]], output(node), vec![], wanted);
    }
    let sizes = g.vector(&wanted);
    let attributes = vec![
        ("mode", Written::Text("linear")),
        ("coordinate_transformation_mode", Written::Text(way)),
    ];
    g.emit("Resize", &[&node.input[0], "", "", &sizes], output(node), attributes, wanted)
}

//! Recurrent layers, with the activations that they have by default.

use vesta_model::DType;
use vesta_protos::onnx::NodeProto;

use super::{Outcome, expect_attributes, expect_inputs, int, output_at, text};
use crate::embedded::onnx::extent::Extent;
use crate::embedded::onnx::facts::{Dims, Fact};
use crate::embedded::onnx::graph::{Graph, Written, input};

pub(super) const ALL: &[&str] = &["GRU", "LSTM"];

pub(super) fn write(g: &mut Graph, node: &NodeProto) -> Outcome {
    let is_lstm = node.op_type == "LSTM";
    let (gates, states) = if is_lstm { (4, 2) } else { (3, 1) };
    expect_inputs(node, 3..=5 + states)?;
    expect_attributes(
        node,
        &["direction", "hidden_size", "input_forget", "layout", "linear_before_reset"],
    )?;
    if int(node, "layout", 0) != 0 || int(node, "input_forget", 0) != 0 || input(node, 4).is_some()
    {
        return Err("it has lengths, another layout or coupled gates".to_owned());
    }
    let (direction, directions) = match text(node, "direction").unwrap_or(b"forward") {
        b"forward" => ("forward", 1i64),
        b"reverse" => ("reverse", 1),
        b"bidirectional" => ("bidirectional", 2),
        _ => return Err("its direction is not known".to_owned()),
    };
    let [length, rows, features] = &g.float_dims(node, 0)?[..] else {
        return Err("its input has no three axes".to_owned());
    };
    let (length, rows, features) = (length.clone(), rows.clone(), features.clone());
    let hidden = int(node, "hidden_size", 0);
    if !(1..=1 << 16).contains(&hidden) {
        return Err("it states no size of its state".to_owned());
    }
    let own = |sizes: &[i64]| -> Dims { sizes.iter().map(|&size| Extent::from(size)).collect() };
    let state = vec![Extent::from(directions), rows.clone(), Extent::from(hidden)];
    let wanted: [(usize, Dims); 5] = [
        (1, vec![directions.into(), (gates * hidden).into(), features]),
        (2, own(&[directions, gates * hidden, hidden])),
        (3, own(&[directions, 2 * gates * hidden])),
        (5, state.clone()),
        (6, state.clone()),
    ];
    for (at, dims) in wanted {
        if input(node, at).is_none() {
            continue;
        }
        let found = g.float_dims(node, at)?;
        if found.len() != dims.len() {
            return Err(format!("its input {at} does not fit"));
        }
        for (own, dim) in found.iter().zip(&dims) {
            g.extents.expect_same(own, dim)?;
        }
    }
    let float = |dims: Dims| Fact::new(DType::F32, dims);
    let all = vec![length.clone(), directions.into(), rows.clone(), hidden.into()];
    // Products of the whole sequence with the weights.
    let products = [Extent::from(gates * hidden), length, rows];
    g.count(super::product(&products)?);
    let mut outputs =
        vec![(output_at(node, 0), float(all)), (output_at(node, 1), float(state.clone()))];
    let mut attributes =
        vec![("direction", Written::Text(direction)), ("hidden_size", Written::Int(hidden))];
    if is_lstm {
        outputs.push((output_at(node, 2), float(state)));
    } else {
        if int(node, "linear_before_reset", 0) == 0 {
            return Err("it resets before the product".to_owned());
        }
        attributes.push(("linear_before_reset", Written::Int(1)));
    }
    let inputs: Vec<&str> = node.input.iter().map(String::as_str).collect();
    g.emit_all(&node.op_type, &inputs, attributes, &outputs)
}

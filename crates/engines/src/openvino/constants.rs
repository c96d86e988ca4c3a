//! Constants in double precision that a translation has only to make floats of them.
//!
//! OpenVINO holds doubles in floats, so that they are refused wherever they are; a conversion of what is in
//! the file needs none. Invariant: a number becomes the float nearest to it, as in TensorFlow.

use std::collections::{BTreeMap, BTreeSet};

use vesta_onnx::Translation;
use vesta_protos::onnx::tensor_proto::DataType;
use vesta_protos::onnx::{NodeProto, TensorProto};

/// Converts constants of doubles where all that reads them is a conversion to floats.
pub(crate) fn narrow(translation: &mut Translation) {
    let Some(graph) = &mut translation.model.graph else { return };
    // Graphs within see the constants of those around them; they are refused besides.
    if graph.node.iter().any(|node| node.attribute.iter().any(|own| own.g.is_some())) {
        return;
    }
    let double = DataType::Double as i32;
    let doubles: BTreeMap<String, usize> = graph
        .initializer
        .iter()
        .enumerate()
        .filter(|(_, own)| own.data_type == double && own.external_data.is_empty())
        .map(|(place, own)| (own.name.clone(), place))
        .collect();
    let given: BTreeSet<String> = graph.output.iter().map(|own| own.name.clone()).collect();
    let mut made = Vec::new();
    graph.node.retain(|node| {
        let constant = converted(node).and_then(|input| doubles.get(input));
        let (Some(&place), Some(output)) = (constant, node.output.first()) else { return true };
        if given.contains(output) {
            return true;
        }
        made.push(as_floats(&graph.initializer[place], output));
        false
    });
    for constant in &made {
        if let Some(facts) = translation.values.get_mut(&constant.name) {
            facts.is_constant = true;
        }
    }
    graph.initializer.extend(made);
    let read: BTreeSet<&String> = graph.node.iter().flat_map(|node| &node.input).collect();
    let is_needed = |own: &TensorProto| {
        own.data_type != double || read.contains(&own.name) || given.contains(&own.name)
    };
    graph.initializer.retain(is_needed);
}

/// What a node converts to floats.
fn converted(node: &NodeProto) -> Option<&String> {
    let to = node.attribute.iter().find(|own| own.name == "to").and_then(|own| own.i);
    (node.op_type == "Cast" && to == Some(DataType::Float as i64)).then(|| node.input.first())?
}

#[expect(clippy::cast_possible_truncation, reason = "the nearest float is meant")]
fn as_floats(doubles: &TensorProto, name: &str) -> TensorProto {
    let (words, _) = doubles.raw_data.as_chunks::<8>();
    let floats: Vec<u8> =
        words.iter().flat_map(|word| (f64::from_le_bytes(*word) as f32).to_le_bytes()).collect();
    TensorProto {
        name: name.to_owned(),
        data_type: DataType::Float as i32,
        dims: doubles.dims.clone(),
        raw_data: floats.into(),
        ..TensorProto::default()
    }
}

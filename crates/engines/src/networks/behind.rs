//! A network behind what prepares its input: one signature takes a picture as it was sent, another what a
//! network takes.
//!
//! Invariant: what comes before a network gives its only input, and nothing else of a signature reaches it.

use std::collections::{HashMap, HashSet};

use vesta_model::PartialShape;
use vesta_onnx::{Translation, onnx_number};
use vesta_protos::onnx::tensor_shape_proto::{Dimension, dimension};
use vesta_protos::onnx::type_proto::{Tensor, Value};
use vesta_protos::onnx::{
    GraphProto, NodeProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto,
};

use super::spare::note_reads;
use super::union::is_same;
use super::{Member, Network, are_alike};
use crate::guards::node;
use crate::translated::TranslatedSignature;

/// Places where a signature may come to a network's own values; others are not looked at.
const PLACES_MAX: usize = 4;

/// A network with another signature in it that comes to one of the network's values on a way of its own.
pub(super) fn follow(network: &Network, signature: &TranslatedSignature) -> Option<Network> {
    let added = &signature.translation;
    places(&network.translation, added)
        .into_iter()
        .map(|place| ahead(&network.translation, added, place))
        .filter(|(own, other)| are_alike(&network.translation, own, added, other))
        .find_map(|(own, other)| meet(network, signature, own, other))
}

/// Values that both have: what the same weights are applied to in the same way, from the first of them on.
fn places<'t>(base: &'t Translation, added: &'t Translation) -> Vec<(&'t str, &'t str)> {
    let (base, added) = (weighted(base), weighted(added));
    let found = base.iter().filter_map(|(own, weights)| {
        let is_same = |(other, others): &&(&NodeProto, &TensorProto)| {
            own.op_type == other.op_type
                && own.attribute == other.attribute
                && weights.dims == others.dims
                && is_same(weights, others)
        };
        let (same, _) = added.iter().find(is_same)?;
        Some((own.input.first()?.as_str(), same.input.first()?.as_str()))
    });
    found.take(PLACES_MAX).collect()
}

/// The same, from where both are made in the same way of one value each.
fn ahead<'t>(
    base: &'t Translation,
    added: &'t Translation,
    (mut own, mut other): (&'t str, &'t str),
) -> (&'t str, &'t str) {
    while let (Some(node), Some(same)) = (maker(base, own), maker(added, other))
        && let ([input], [from]) = (&node.input[..], &same.input[..])
        && node.op_type == same.op_type
        && node.attribute == same.attribute
        && are_alike(base, input, added, from)
    {
        (own, other) = (input, from);
    }
    (own, other)
}

/// The node that gives a value.
fn maker<'t>(model: &'t Translation, name: &str) -> Option<&'t NodeProto> {
    let nodes = model.model.graph.iter().flat_map(|graph| &graph.node);
    nodes.into_iter().find(|node| node.output.iter().any(|output| output == name))
}

/// Convolutions and products, and their weights.
fn weighted(model: &Translation) -> Vec<(&NodeProto, &TensorProto)> {
    let Some(graph) = &model.model.graph else { return Vec::new() };
    let weights: HashMap<&str, &TensorProto> =
        graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
    let is_weighted =
        |node: &&NodeProto| matches!(node.op_type.as_str(), "Conv" | "ConvTranspose" | "MatMul");
    let all = graph.node.iter().filter(is_weighted);
    all.filter_map(|node| Some((node, *weights.get(node.input.get(1)?.as_str())?))).collect()
}

/// Puts a signature to a network, whose value `own` is what `other` is in the signature.
fn meet(
    network: &Network,
    signature: &TranslatedSignature,
    own: &str,
    other: &str,
) -> Option<Network> {
    let TranslatedSignature { name, shapes, translation: added } = signature;
    let (before, behind) = cut(added, other)?;
    let is_most = |part: &Translation| bytes(part).saturating_mul(2) >= bytes(added);
    if !is_most(&behind) {
        return None;
    }
    let (network, before) = match &network.translation.inputs[..] {
        [input] if input == own => (network, before),
        [input] => match turned_back(&network.translation, input, own, before.as_ref()) {
            Some(before) => (network, Some(before)),
            None => (&opened(network, own)?, before),
        },
        _ => (&opened(network, own)?, before),
    };
    let (united, outputs) = network.with(&behind, &[own.to_owned()])?;
    let (name, shapes, inputs) = (name.clone(), shapes.clone(), united.inputs.clone());
    Some(network.and(united, Member { name, shapes, before, inputs, outputs }))
}

/// What comes before, with its output turned back to how the network's input lies, where the network only turns
/// it into `own`: its other signatures need not be cut then.
fn turned_back(
    network: &Translation,
    input: &str,
    own: &str,
    before: Option<&Translation>,
) -> Option<Translation> {
    let mut before = before?.clone();
    let turn = maker(network, own)?;
    if turn.op_type != "Transpose" || turn.input != [input] {
        return None;
    }
    let order = turn.attribute.iter().find(|own| own.name == "perm")?;
    let mut back = order.clone();
    for (at, &from) in order.ints.iter().enumerate() {
        *back.ints.get_mut(usize::try_from(from).ok()?)? = at as i64;
    }
    let given = before.outputs.pop()?;
    let name = format!("{given}~turned_back");
    let facts = network.values.get(input)?.clone();
    before.values.insert(name.clone(), facts);
    let mut turn = node("Transpose", &[&given], &name);
    turn.attribute.push(back);
    let output = info(&before, &name)?;
    let graph = before.model.graph.as_mut()?;
    graph.node.push(turn);
    graph.output = vec![output];
    before.outputs = vec![name];
    Some(before)
}

/// A network whose only input is one of its values, with what came before that before its members.
fn opened(network: &Network, at: &str) -> Option<Network> {
    let (before, translation) = cut(&network.translation, at)?;
    let mut members = network.members.clone();
    for member in &mut members {
        // What comes before one already would have to be before this as well.
        if member.before.is_some() || member.inputs != network.translation.inputs {
            return None;
        }
        member.before.clone_from(&before);
        member.inputs = vec![at.to_owned()];
    }
    let shapes = vec![translation.values.get(at)?.shape.clone()];
    Some(Network { translation, shapes, members })
}

/// What computes a value, and what follows from that alone; the first is absent for an input.
fn cut(whole: &Translation, at: &str) -> Option<(Option<Translation>, Translation)> {
    if whole.inputs == [at] {
        return Some((None, whole.clone()));
    }
    let behind = part(whole, vec![at.to_owned()], whole.outputs.clone())?;
    let before = part(whole, whole.inputs.clone(), vec![at.to_owned()])?;
    Some((Some(before), behind))
}

/// What computes `outputs` from `inputs` and nothing else that is fed.
fn part(whole: &Translation, inputs: Vec<String>, outputs: Vec<String>) -> Option<Translation> {
    let graph = whole.model.graph.as_ref()?;
    let fed: HashSet<&str> = inputs.iter().map(String::as_str).collect();
    let mut read: HashSet<&str> = outputs.iter().map(String::as_str).collect();
    let mut nodes = Vec::new();
    for node in graph.node.iter().rev() {
        let is_read =
            |output: &String| read.contains(output.as_str()) && !fed.contains(output.as_str());
        if node.output.iter().any(is_read) {
            note_reads(node, &mut read);
            nodes.push(node.clone());
        }
    }
    nodes.reverse();
    let is_open = |name: &String| read.contains(name.as_str()) && !fed.contains(name.as_str());
    let given: HashSet<&str> =
        nodes.iter().flat_map(|node| &node.output).map(String::as_str).collect();
    if whole.inputs.iter().any(is_open) || !outputs.iter().all(|name| given.contains(name.as_str()))
    {
        return None;
    }
    let initializer = graph.initializer.iter().filter(|tensor| is_open(&tensor.name));
    let infos = |names: &[String]| -> Option<Vec<ValueInfoProto>> {
        names.iter().map(|name| info(whole, name)).collect()
    };
    let part = GraphProto {
        name: graph.name.clone(),
        input: infos(&inputs)?,
        output: infos(&outputs)?,
        initializer: initializer.cloned().collect(),
        node: nodes,
        ..GraphProto::default()
    };
    let mut model = whole.model.clone();
    model.graph = Some(part);
    let (operators, values) = (whole.operators.clone(), whole.values.clone());
    Some(Translation { model, inputs, outputs, operators, values })
}

/// How a value is declared: as an end of the whole, or by what is known of it.
fn info(whole: &Translation, name: &str) -> Option<ValueInfoProto> {
    let graph = whole.model.graph.as_ref()?;
    if let Some(known) = graph.input.iter().chain(&graph.output).find(|info| info.name == name) {
        return Some(known.clone());
    }
    let facts = whole.values.get(name)?;
    let dim = |size: &Option<usize>| Dimension {
        value: size.map(|size| dimension::Value::DimValue(size as i64)),
        ..Dimension::default()
    };
    let shape = match &facts.shape {
        PartialShape::Ranked(dims) => {
            Some(TensorShapeProto { dim: dims.iter().map(dim).collect() })
        }
        PartialShape::Unknown => None,
    };
    let tensor = Tensor { elem_type: onnx_number(facts.dtype)?, shape };
    let r#type = TypeProto { value: Some(Value::TensorType(tensor)), ..TypeProto::default() };
    Some(ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(r#type),
        ..ValueInfoProto::default()
    })
}

/// How much the weights of a model take.
fn bytes(model: &Translation) -> usize {
    let weights = model.model.graph.iter().flat_map(|graph| &graph.initializer);
    weights.map(|tensor| tensor.raw_data.len()).sum()
}

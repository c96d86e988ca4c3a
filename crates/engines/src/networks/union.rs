//! Two models as one: nodes that compute the same from the same, and weights of the same numbers, are there
//! once.
//!
//! Invariant: what was there keeps its names and its order; every node stands after those it reads.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use prost::Message as _;
use vesta_onnx::{Translation, ValueFacts};
use vesta_protos::onnx::tensor_shape_proto::dimension;
use vesta_protos::onnx::type_proto::Value;
use vesta_protos::onnx::{GraphProto, NodeProto, TensorProto, ValueInfoProto};

/// What makes two nodes the same.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    op: String,
    inputs: Vec<String>,
    attributes: Vec<u8>,
    /// Which outputs it gives.
    outputs: Vec<bool>,
    /// What its name tells of a run that ends there.
    error: Option<String>,
}

/// A model that takes in others.
pub(super) struct Union {
    united: Translation,
    /// Outputs of the nodes so far, by what they compute.
    known: HashMap<Key, Vec<String>>,
    /// Places of initializers of one type and shape.
    weights: HashMap<(i32, Vec<i64>), Vec<usize>>,
    taken: HashSet<String>,
}

impl Union {
    pub(super) fn new(base: &Translation) -> Union {
        let united = base.clone();
        let mut union = Union {
            united,
            known: HashMap::new(),
            weights: HashMap::new(),
            taken: base.inputs.iter().chain(&base.outputs).cloned().collect(),
        };
        if let Some(graph) = &base.model.graph {
            for (place, tensor) in graph.initializer.iter().enumerate() {
                union.weights.entry(kind(tensor)).or_default().push(place);
                union.taken.insert(tensor.name.clone());
            }
            for node in &graph.node {
                union.take_names(node);
                union.known.entry(key(node)).or_insert_with(|| node.output.clone());
            }
        }
        union
    }

    pub(super) fn finish(self) -> Translation {
        self.united
    }

    /// Adds a model that is fed by `inputs`; gives its outputs. `None` where a loop or branch is not there
    /// already, for what it computes is not looked into.
    pub(super) fn add(&mut self, added: &Translation, inputs: &[String]) -> Option<Vec<String>> {
        let graph = added.model.graph.as_ref()?;
        let mut names: HashMap<String, String> =
            added.inputs.iter().cloned().zip(inputs.iter().cloned()).collect();
        for tensor in &graph.initializer {
            let name = self.weight(tensor, &added.values)?;
            names.insert(tensor.name.clone(), name);
        }
        for node in &graph.node {
            let mut own = node.clone();
            rename(&mut own, &names);
            let key = key(&own);
            let known = self.known.get(&key).cloned();
            let outputs = match known {
                Some(outputs) => outputs,
                None if own.attribute.iter().any(|attribute| attribute.g.is_some()) => return None,
                None => self.node(own, key, &added.values)?,
            };
            names.extend(node.output.iter().cloned().zip(outputs));
        }
        let outputs = added.outputs.iter().map(|name| names.get(name).cloned());
        let outputs: Vec<String> = outputs.collect::<Option<_>>()?;
        for (name, own) in outputs.iter().zip(&added.outputs) {
            if !self.united.outputs.contains(name) {
                let info = graph.output.iter().find(|info| info.name == *own)?;
                self.united.outputs.push(name.clone());
                self.graph()?.output.push(without_symbols(info, name));
            }
        }
        for (used, node) in &added.operators {
            self.united.operators.entry(used.clone()).or_insert_with(|| node.clone());
        }
        Some(outputs)
    }

    fn graph(&mut self) -> Option<&mut GraphProto> {
        self.united.model.graph.as_mut()
    }

    /// The name of weights, which are added if they are not there.
    fn weight(
        &mut self,
        tensor: &TensorProto,
        values: &BTreeMap<String, ValueFacts>,
    ) -> Option<String> {
        let kind = kind(tensor);
        let held = &self.united.model.graph.as_ref()?.initializer;
        let places = self.weights.get(&kind).into_iter().flatten();
        let mut alike = places.filter_map(|&place| held.get(place));
        if let Some(same) = alike.find(|own| is_same(own, tensor)) {
            return Some(same.name.clone());
        }
        let place = held.len();
        let mut own = tensor.clone();
        own.name = self.unused(&tensor.name);
        let name = own.name.clone();
        self.tell(&name, values.get(&tensor.name));
        self.graph()?.initializer.push(own);
        self.weights.entry(kind).or_default().push(place);
        Some(name)
    }

    /// Adds a node that is not there; gives its outputs.
    fn node(
        &mut self,
        mut node: NodeProto,
        key: Key,
        values: &BTreeMap<String, ValueFacts>,
    ) -> Option<Vec<String>> {
        let is_named_so = node.output.first() == Some(&node.name);
        for output in node.output.iter_mut().filter(|output| !output.is_empty()) {
            let own = self.unused(output);
            self.tell(&own, values.get(output));
            *output = own;
        }
        if let (true, Some(first)) = (is_named_so, node.output.first()) {
            node.name.clone_from(first);
        }
        let outputs = node.output.clone();
        self.known.insert(key, outputs.clone());
        self.graph()?.node.push(node);
        Some(outputs)
    }

    fn tell(&mut self, name: &str, facts: Option<&ValueFacts>) {
        if let Some(facts) = facts {
            self.united.values.insert(name.to_owned(), facts.clone());
        }
    }

    /// A name that nothing has, and nothing else will get.
    fn unused(&mut self, wished: &str) -> String {
        let mut name = wished.to_owned();
        let mut copy = 1;
        while !self.taken.insert(name.clone()) {
            copy += 1;
            name = format!("{wished}~{copy}");
        }
        name
    }

    /// Notes the names within a node, those of graphs within it, too.
    fn take_names(&mut self, node: &NodeProto) {
        self.taken.extend(node.output.iter().cloned());
        for inner in node.attribute.iter().filter_map(|attribute| attribute.g.as_ref()) {
            self.taken.extend(inner.input.iter().map(|info| info.name.clone()));
            inner.node.iter().for_each(|node| self.take_names(node));
        }
    }
}

fn kind(tensor: &TensorProto) -> (i32, Vec<i64>) {
    (tensor.data_type, tensor.dims.clone())
}

fn key(node: &NodeProto) -> Key {
    let attribute = node.attribute.clone();
    let attributes = NodeProto { attribute, ..NodeProto::default() }.encode_to_vec();
    Key {
        op: node.op_type.clone(),
        inputs: node.input.clone(),
        attributes,
        outputs: node.output.iter().map(|output| !output.is_empty()).collect(),
        error: vesta_onnx::raised_error(&node.name),
    }
}

/// Whether two initializers hold the same. Bytes that lie at the same place need not be looked at.
pub(super) fn is_same(a: &TensorProto, b: &TensorProto) -> bool {
    let place = |own: &TensorProto| (own.raw_data.as_ptr(), own.raw_data.len());
    let rest = |own: &TensorProto| TensorProto {
        name: String::new(),
        raw_data: Bytes::new(),
        ..own.clone()
    };
    rest(a) == rest(b) && (place(a) == place(b) || a.raw_data == b.raw_data)
}

/// Gives what a node reads its new names, in the graphs within it, too.
fn rename(node: &mut NodeProto, names: &HashMap<String, String>) {
    for name in &mut node.input {
        if let Some(new) = names.get(name) {
            name.clone_from(new);
        }
    }
    for inner in node.attribute.iter_mut().filter_map(|attribute| attribute.g.as_mut()) {
        inner.node.iter_mut().for_each(|node| rename(node, names));
        for info in &mut inner.output {
            if let Some(new) = names.get(&info.name) {
                info.name.clone_from(new);
            }
        }
    }
}

/// An output under another name. Symbols of open sizes mean something in their own model alone.
fn without_symbols(info: &ValueInfoProto, name: &str) -> ValueInfoProto {
    let mut info = ValueInfoProto { name: name.to_owned(), ..info.clone() };
    let kind = info.r#type.as_mut().and_then(|kind| kind.value.as_mut());
    if let Some(Value::TensorType(tensor)) = kind {
        for dim in tensor.shape.iter_mut().flat_map(|shape| &mut shape.dim) {
            dim.value.take_if(|value| matches!(value, dimension::Value::DimParam(_)));
        }
    }
    info
}

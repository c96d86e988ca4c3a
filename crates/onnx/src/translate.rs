//! From a frozen signature to an ONNX model: which nodes matter, in what order they are translated,
//! how the result is put together.
//!
//! Invariant: a model comes out only when every node that a fetch depends on was translated.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use vesta_model::{DType, PartialShape};
use vesta_protos::onnx;
use vesta_protos::tensorflow::NodeDef;

use crate::call::Call;
use crate::elements;
use crate::gelu::Unit;
use crate::graph::Graph;
use crate::refusal::{Reason, Refusal, Untranslatable};
use crate::registry::translator;
use crate::signature::{FrozenSignature, canonical, producer};
use crate::value::{Dim, Dims, Element, Value, ValueId, to_partial};
use crate::write;

/// What is known of one value of the model before it runs.
#[derive(Clone, Debug, PartialEq)]
pub struct ValueFacts {
    /// Its dtype.
    pub dtype: DType,
    /// Its shape as far as it is known.
    pub shape: PartialShape,
    /// Whether it is an initializer.
    pub is_constant: bool,
}

/// An operator of the model with the dtypes it reads and gives; an absent input is `Invalid`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OperatorUse {
    /// The ONNX operator, such as `Conv`.
    pub op: String,
    /// Dtypes of its inputs.
    pub inputs: Vec<DType>,
    /// Dtypes of its outputs.
    pub outputs: Vec<DType>,
}

/// A translated signature.
#[derive(Clone, Debug)]
pub struct Translation {
    /// The model. Its weights share the buffers that the nodes were read from.
    pub model: onnx::ModelProto,
    /// The model's inputs: the feeds' tensors, in their order.
    pub inputs: Vec<String>,
    /// The model's outputs, one for each fetch, in their order.
    pub outputs: Vec<String>,
    /// What an engine needs to be capable of, with the TensorFlow node that needs it first.
    pub operators: BTreeMap<OperatorUse, String>,
    /// Every value of the model, by name.
    pub values: BTreeMap<String, ValueFacts>,
}

/// Translates one signature.
///
/// # Errors
/// Every node that cannot be translated exactly.
pub fn translate(signature: &FrozenSignature<'_>) -> Result<Translation, Untranslatable> {
    let mut run = Translating::new(signature);
    run.bind_feeds();
    let needed = run.needed();
    run.count_uses(&needed);
    for node in signature.nodes.iter().filter(|node| needed.contains(node.name.as_str())) {
        run.node(node);
    }
    let fetched: Vec<Option<ValueId>> =
        signature.fetches.iter().map(|fetch| run.fetched(fetch)).collect();
    let mut refusals = run.refusals;
    match fetched.into_iter().collect::<Option<Vec<ValueId>>>() {
        Some(fetched) if refusals.is_empty() => Ok(write::assemble(run.graph, signature, &fetched)),
        _ => {
            refusals.dedup();
            Err(Untranslatable { operators: refusals })
        }
    }
}

struct Translating<'a> {
    signature: &'a FrozenSignature<'a>,
    nodes: HashMap<&'a str, &'a NodeDef>,
    graph: Graph,
    bound: HashMap<String, ValueId>,
    /// How many edges read each tensor.
    uses: HashMap<String, usize>,
    /// Units of Gauss's error function, by the node of its complementary error function.
    gelus: HashMap<&'a str, Unit>,
    /// Nodes that were refused, and those that read their results.
    lost: HashSet<&'a str>,
    refusals: Vec<Refusal>,
}

impl<'a> Translating<'a> {
    fn new(signature: &'a FrozenSignature<'a>) -> Translating<'a> {
        Translating {
            signature,
            nodes: signature.nodes.iter().map(|node| (node.name.as_str(), node)).collect(),
            graph: Graph::default(),
            bound: HashMap::new(),
            uses: HashMap::new(),
            gelus: crate::gelu::units(signature.nodes, &signature.fetches),
            lost: HashSet::new(),
            refusals: Vec::new(),
        }
    }

    fn refuse(&mut self, op: &str, node: &str, reason: impl Into<String>) {
        self.refusals.push(Refusal { op: op.into(), node: node.into(), reason: reason.into() });
    }

    fn bind_feeds(&mut self) {
        for feed in &self.signature.feeds {
            let name = canonical(&feed.tensor);
            if crate::constant::onnx_number(feed.dtype).is_none() {
                let reason = format!("ONNX models here take no {}", feed.dtype);
                self.refuse("Placeholder", producer(&feed.tensor), reason);
            }
            let dims: Dims = match &feed.shape {
                PartialShape::Unknown => None,
                PartialShape::Ranked(sizes) => Some(
                    sizes
                        .iter()
                        .map(|size| size.map_or_else(|| self.graph.symbol(), Dim::Known))
                        .collect(),
                ),
            };
            let id = self.graph.feed(&name, feed.dtype, dims);
            self.bound.insert(name, id);
        }
    }

    /// Nodes that the fetches depend on, through control edges too: a check that may fail is part
    /// of what a graph does.
    fn needed(&self) -> HashSet<&'a str> {
        let mut needed = HashSet::new();
        let mut open: Vec<&str> = Vec::new();
        for fetch in &self.signature.fetches {
            if !self.bound.contains_key(&canonical(fetch)) {
                open.push(producer(fetch));
            }
        }
        while let Some(name) = open.pop() {
            let Some(node) = self.nodes.get(name) else { continue };
            if !needed.insert(node.name.as_str()) {
                continue;
            }
            for edge in &node.input {
                let is_fed = !edge.starts_with('^') && self.bound.contains_key(&canonical(edge));
                if !is_fed {
                    open.push(producer(edge));
                }
            }
        }
        needed
    }

    fn count_uses(&mut self, needed: &HashSet<&str>) {
        let readers = self.signature.nodes.iter().filter(|n| needed.contains(n.name.as_str()));
        let edges = readers.flat_map(|node| node.input.iter()).chain(&self.signature.fetches);
        for edge in edges.filter(|edge| !edge.starts_with('^')) {
            *self.uses.entry(canonical(edge)).or_default() += 1;
        }
        for (tensor, &id) in &self.bound {
            self.graph.get_mut(id).uses = self.uses.get(tensor).copied().unwrap_or(0);
        }
    }

    fn node(&mut self, node: &'a NodeDef) {
        let mut inputs = Vec::new();
        let mut reads_lost = false;
        for edge in node.input.iter().filter(|edge| !edge.starts_with('^')) {
            match self.bound.get(&canonical(edge)) {
                Some(&id) => inputs.push(id),
                None if self.lost.contains(producer(edge)) => reads_lost = true,
                None => {
                    self.lost.insert(&node.name);
                    let reason = format!("its input {edge} does not come before it");
                    return self.refuse(&node.op, &node.name, reason);
                }
            }
        }
        let Some(translator) = translator(&node.op) else {
            self.lost.insert(&node.name);
            return self.refuse(&node.op, &node.name, "no translation");
        };
        if reads_lost {
            self.lost.insert(&node.name);
            return;
        }
        self.graph.origin.clone_from(&node.name);
        let unit = self.gelus.get(node.name.as_str());
        let gelu_of = unit.and_then(|unit| Some((*self.bound.get(&unit.x)?, unit.scale)));
        let call = Call { node, inputs, gelu_of };
        let outcome = match self.computed(&call) {
            Computed::Whole(id) => Ok(vec![id]),
            Computed::Part(elements) => translator(&mut self.graph, &call).inspect(|ids| {
                if let [id] = ids.as_slice() {
                    self.graph.get_mut(*id).elements = Some(elements);
                }
            }),
            Computed::Nothing => translator(&mut self.graph, &call),
        };
        match outcome {
            Ok(results) => self.bind(node, &results),
            Err(Reason(reason)) => {
                self.lost.insert(&node.name);
                self.refuse(&node.op, &node.name, reason);
            }
        }
    }

    fn computed(&mut self, call: &Call<'_>) -> Computed {
        let Some(dtype) = elements::result_dtype(&self.graph, call) else {
            return Computed::Nothing;
        };
        let Some(mut computed) = elements::compute(&self.graph, call) else {
            return Computed::Nothing;
        };
        for element in &mut computed.elements {
            let overflows = matches!(element, Element::Known(n) if i32::try_from(*n).is_err());
            if dtype == DType::I32 && overflows {
                *element = Element::Unknown;
            }
        }
        match computed.constant(dtype) {
            Some(constant) => Computed::Whole(self.graph.constant(constant)),
            None => Computed::Part(computed.elements),
        }
    }

    fn bind(&mut self, node: &NodeDef, results: &[ValueId]) {
        for (i, &id) in results.iter().enumerate() {
            let tensor = format!("{}:{i}", node.name);
            let uses = self.uses.get(&tensor).copied().unwrap_or(0);
            self.graph.get_mut(id).uses += uses;
            // A fed tensor stays what was fed, whatever its node would give.
            self.bound.entry(tensor).or_insert(id);
        }
    }

    fn fetched(&mut self, fetch: &str) -> Option<ValueId> {
        let found = self.bound.get(&canonical(fetch)).copied();
        if found.is_none() && !self.lost.contains(producer(fetch)) {
            self.refuse("fetch", fetch, "the graph has no such tensor");
        }
        found
    }
}

enum Computed {
    Whole(ValueId),
    Part(Vec<Element>),
    Nothing,
}

/// The operators in use, for the check of an engine's capabilities.
pub(crate) fn operator_uses(graph: &Graph) -> BTreeMap<OperatorUse, String> {
    let dtype = |name: &String| graph.facts.get(name).map_or(DType::Invalid, |fact| fact.0);
    let mut uses = BTreeMap::new();
    for node in &graph.nodes {
        let operator = OperatorUse {
            op: node.op.to_owned(),
            inputs: node.inputs.iter().map(dtype).collect(),
            outputs: node.outputs.iter().map(dtype).collect(),
        };
        uses.entry(operator).or_insert_with(|| node.origin.clone());
    }
    uses
}

/// Facts of all values that the graph still has.
pub(crate) fn value_facts(graph: &Graph) -> BTreeMap<String, ValueFacts> {
    let nodes = graph.nodes.iter().flat_map(|node| node.inputs.iter().chain(&node.outputs));
    let live: BTreeSet<&String> = nodes.collect();
    graph
        .facts
        .iter()
        .filter(|(name, _)| live.contains(name))
        .map(|(name, (dtype, dims))| {
            let is_constant = graph.initializers.contains_key(name);
            (name.clone(), ValueFacts { dtype: *dtype, shape: to_partial(dims), is_constant })
        })
        .collect()
}

/// A tensor that is another one under a second name. The edge between the two no longer counts.
pub(crate) fn alias(graph: &mut Graph, id: ValueId) -> ValueId {
    let value: &mut Value = graph.get_mut(id);
    value.uses = value.uses.saturating_sub(1);
    id
}

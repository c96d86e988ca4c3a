//! From a frozen signature to an ONNX model: which nodes matter, in what order they are translated,
//! how the result is put together.
//!
//! Invariant: a model comes out only when every node that a fetch depends on was translated.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use vesta_model::{DType, PartialShape};
use vesta_protos::onnx;
use vesta_protos::tensorflow::NodeDef;

use crate::call::Call;
use crate::control;
use crate::elements;
use crate::floats;
use crate::gelu::Unit;
use crate::graph::{Graph, Node};
use crate::ops::{checks, spectra};
use crate::refusal::{Reason, Refusal, Untranslatable};
use crate::registry::{Outcome, Translator, translator};
use crate::signature::{Body, FeedSpec, FrozenSignature, canonical, producer};
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
    let piece = Piece {
        nodes: signature.nodes,
        fetches: &signature.fetches,
        checks: signature.checks,
        bodies: &signature.bodies,
        path: String::new(),
    };
    let mut graph = Graph::default();
    graph.resizing = signature.resizing;
    let mut run = Translating::new(piece, graph);
    run.bind_feeds(&signature.feeds);
    let fetched = run.translate();
    let mut refusals = run.refusals;
    match fetched {
        Some(fetched) if refusals.is_empty() => Ok(write::assemble(run.graph, signature, &fetched)),
        _ => {
            refusals.dedup();
            Err(Untranslatable { operators: refusals })
        }
    }
}

/// A signature, or the body of a branch or loop.
pub(crate) struct Piece<'a> {
    pub(crate) nodes: &'a [NodeDef],
    pub(crate) fetches: &'a [String],
    pub(crate) checks: &'a [NodeDef],
    pub(crate) bodies: &'a [Body<'a>],
    /// Where it stands: goes before the names of its nodes.
    pub(crate) path: String,
}

/// Nodes that one translation may look at. Loops are gone through more than once, and so is what
/// stands within them.
const NODES_MAX: usize = 2_000_000;

pub(crate) struct Translating<'a> {
    pub(crate) piece: Piece<'a>,
    nodes: HashMap<&'a str, &'a NodeDef>,
    pub(crate) graph: Graph,
    bound: HashMap<String, ValueId>,
    /// How many edges read each tensor.
    uses: HashMap<String, usize>,
    /// Units of Gauss's error function, by the node of its complementary error function.
    gelus: HashMap<&'a str, Unit>,
    /// Tests for negative zeros, by the node that gives them: what they look at; see [`crate::signs`].
    negative_zeros: HashMap<&'a str, String>,
    /// Nodes that were refused, and those that read their results.
    lost: HashSet<&'a str>,
    pub(crate) refusals: Vec<Refusal>,
}

impl<'a> Translating<'a> {
    /// Goes on with `graph`.
    pub(crate) fn new(piece: Piece<'a>, graph: Graph) -> Translating<'a> {
        Translating {
            nodes: piece.nodes.iter().map(|node| (node.name.as_str(), node)).collect(),
            graph,
            bound: HashMap::new(),
            uses: HashMap::new(),
            gelus: crate::gelu::units(piece.nodes, piece.fetches),
            negative_zeros: crate::signs::tests(piece.nodes),
            lost: HashSet::new(),
            refusals: Vec::new(),
            piece,
        }
    }

    /// Translates what the fetches need; gives them when nothing was refused.
    pub(crate) fn translate(&mut self) -> Option<Vec<ValueId>> {
        let needed = self.needed();
        self.count_uses(&needed);
        let nodes = self.piece.nodes;
        for node in nodes.iter().filter(|node| needed.contains(node.name.as_str())) {
            self.node(node);
        }
        let zeros: Vec<String> =
            self.piece.checks.iter().filter_map(|check| self.check(check)).collect();
        let fetches = self.piece.fetches;
        let fetched: Vec<Option<ValueId>> =
            fetches.iter().map(|fetch| self.fetched(fetch)).collect();
        Some(checks::guarded(&mut self.graph, fetched.into_iter().collect::<Option<_>>()?, &zeros))
    }

    /// A zero, in a run that passes the check. `None` where it never fails, or was refused.
    fn check(&mut self, check: &'a NodeDef) -> Option<String> {
        let looked_at = check.input.first().and_then(|edge| self.bound.get(&canonical(edge)));
        let Some(&id) = looked_at else {
            if !check.input.first().is_some_and(|edge| self.lost.contains(producer(edge))) {
                self.refuse(&check.op, &check.name, "what it looks at is not there");
            }
            return None;
        };
        self.graph.origin = format!("{}{}", self.piece.path, check.name);
        let call = Call { node: check, inputs: vec![id], gelu_of: None };
        match checks::passed(&mut self.graph, &call) {
            Ok(passed) => passed,
            Err(Reason(reason)) => {
                self.refuse(&check.op, &check.name, reason);
                None
            }
        }
    }

    pub(crate) fn refuse(&mut self, op: &str, node: &str, reason: impl Into<String>) {
        let node = format!("{}{node}", self.piece.path);
        self.refusals.push(Refusal { op: op.into(), node, reason: reason.into() });
    }

    /// A tensor under the name that the piece has for it.
    pub(crate) fn bind_argument(&mut self, tensor: &str, id: ValueId) {
        self.bound.insert(canonical(tensor), id);
    }

    fn bind_feeds(&mut self, feeds: &[FeedSpec]) {
        for feed in feeds {
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
        let looked_at = self.piece.checks.iter().filter_map(|check| check.input.first());
        for fetch in self.piece.fetches.iter().chain(looked_at) {
            if !self.bound.contains_key(&canonical(fetch)) {
                open.push(producer(fetch));
            }
        }
        while let Some(name) = open.pop() {
            let Some(node) = self.nodes.get(name) else { continue };
            if !needed.insert(node.name.as_str()) {
                continue;
            }
            for edge in edges(node, &self.negative_zeros) {
                let is_fed = !edge.starts_with('^') && self.bound.contains_key(&canonical(edge));
                if !is_fed {
                    open.push(producer(edge));
                }
            }
        }
        needed
    }

    fn count_uses(&mut self, needed: &HashSet<&str>) {
        let readers = self.piece.nodes.iter().filter(|n| needed.contains(n.name.as_str()));
        let negative_zeros = &self.negative_zeros;
        let looked_at = self.piece.checks.iter().filter_map(|check| check.input.first());
        let edges = readers.flat_map(|node| edges(node, negative_zeros));
        let edges = edges.chain(self.piece.fetches).chain(looked_at);
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
        let own = self.negative_zeros.get(node.name.as_str()).cloned();
        let edges = own.iter().chain(node.input.iter().filter(|_| own.is_none()));
        for edge in edges.filter(|edge| !edge.starts_with('^')) {
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
        let is_control = control::is_control(&node.op);
        let translator = translator(&node.op);
        if translator.is_none() && !is_control {
            self.lost.insert(&node.name);
            return self.refuse(&node.op, &node.name, "no translation");
        }
        self.graph.looked_at += 1;
        if self.graph.looked_at > NODES_MAX {
            self.lost.insert(&node.name);
            return self.refuse(&node.op, &node.name, "loops within loops take too long");
        }
        if reads_lost {
            self.lost.insert(&node.name);
            return;
        }
        self.graph.origin = format!("{}{}", self.piece.path, node.name);
        let Some(translator) = translator.filter(|_| !is_control) else {
            match self.control(node, &inputs) {
                Some(results) => self.bind(node, &results),
                None => {
                    self.lost.insert(&node.name);
                }
            }
            return;
        };
        if let Some(what) = self.handle_among(node, &inputs) {
            self.lost.insert(&node.name);
            return self.refuse(&node.op, &node.name, format!("it takes {what}"));
        }
        if own.is_some() {
            let test = inputs.first().map(|&x| crate::ops::negative_zero(&mut self.graph, x));
            return match test {
                Some(Ok(id)) => self.bind(node, &[id]),
                _ => {
                    self.lost.insert(&node.name);
                    self.refuse(&node.op, &node.name, "it looks at bits");
                }
            };
        }
        let unit = self.gelus.get(node.name.as_str());
        let gelu_of = unit.and_then(|unit| Some((*self.bound.get(&unit.x)?, unit.scale)));
        let call = Call { node, inputs, gelu_of };
        let outcome = match self.computed(&call) {
            Computed::Whole(id) => Ok(vec![id]),
            Computed::Part(elements) => self.written_as(&call, translator).inspect(|ids| {
                if let [id] = ids.as_slice() {
                    self.graph.get_mut(*id).elements = Some(elements);
                }
            }),
            Computed::Nothing => self.written_as(&call, translator),
        };
        match outcome {
            Ok(results) => self.bind(node, &results),
            Err(Reason(reason)) => {
                self.lost.insert(&node.name);
                self.refuse(&node.op, &node.name, reason);
            }
        }
    }

    /// What no operator takes but those that are made for it.
    fn handle_among(&self, node: &NodeDef, inputs: &[ValueId]) -> Option<&'static str> {
        if node.op.starts_with("TensorList") || matches!(&*node.op, "Identity" | "IdentityN") {
            return None;
        }
        inputs.iter().find_map(|&id| match self.graph.get(id).dtype {
            DType::Variant => Some("a list of tensors"),
            DType::Resource => Some("the handle of a variable"),
            _ => None,
        })
    }

    fn written_as(&mut self, call: &Call<'_>, translator: Translator) -> Outcome {
        let is_complex = call.inputs.iter().any(|&id| self.graph.get(id).parts.is_some());
        if is_complex {
            spectra::of_complex(&mut self.graph, call, translator)
        } else {
            translator(&mut self.graph, call)
        }
    }

    fn computed(&mut self, call: &Call<'_>) -> Computed {
        if let Some(constant) = elements::compared(&self.graph, call) {
            return Computed::Whole(self.graph.constant(constant));
        }
        if let Some(constant) = floats::compute(&mut self.graph, call) {
            return Computed::Whole(self.graph.constant(constant));
        }
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
        if found.is_some_and(|id| self.graph.get(id).parts.is_some()) {
            self.refuse("fetch", fetch, "complex numbers are no result here");
            return None;
        }
        if found.is_none() && !self.lost.contains(producer(fetch)) {
            self.refuse("fetch", fetch, "the graph has no such tensor");
        }
        found
    }
}

/// What a node reads, and waits for; a test for negative zeros reads what it is of.
fn edges<'n>(
    node: &'n NodeDef,
    negative_zeros: &'n HashMap<&str, String>,
) -> impl Iterator<Item = &'n String> {
    let own = negative_zeros.get(node.name.as_str());
    own.into_iter().chain(node.input.iter().filter(move |_| own.is_none()))
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
    let mut nodes: Vec<&Node> = Vec::new();
    graph.nodes.iter().for_each(|node| node.visit(&mut |node| nodes.push(node)));
    for node in nodes {
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
    let mut live: BTreeSet<&String> = BTreeSet::new();
    for node in &graph.nodes {
        node.visit(&mut |node| {
            live.extend(node.inputs.iter().chain(&node.outputs));
            live.extend(node.subgraphs().flat_map(|graph| &graph.inputs));
        });
    }
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

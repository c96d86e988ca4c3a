//! The graph of an ONNX file while it is written anew: what is known of its values, and what was
//! written.
//!
//! May not know: what an operator means. Invariant: every value that is known here has a known rank,
//! sizes that follow from those of the inputs, and a dtype that the numeric graph holds; what stands
//! behind a refused node is not refused for it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use vesta_model::{DType, PartialShape};
use vesta_onnx::{OPSET, Refusal, Translation, ValueFacts};
use vesta_protos::onnx::{GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto};

use super::computed::{self, Computed, Given, Held};
use super::extent::{Extent, Extents};
use super::facts::{self, Dims, FLOAT, Fact, INT64};
use super::forms;
pub(super) use super::written::Written;
use super::written::{attribute, declared, held, stated};
use crate::embedded::footprint::VALUE_BYTES_MAX;
use crate::embedded::merge::Boundary;

/// The sets of operators that are read. Before the first, operators broadcast in another way.
const OPSETS: std::ops::RangeInclusive<i64> = 7..=21;

/// The longest chain of nodes; rten goes along it by recursion.
const DEPTH_MAX: usize = 4_000;

/// As many numbers are followed in a file.
const FOLLOWED_MAX: usize = 1 << 18;

/// The longest axis that is considered.
const SIZE_MAX: i64 = 1 << 40;

/// The version of the format that is written.
const IR_VERSION: i64 = 8;

/// What is known, and what was written.
pub(super) struct Graph {
    pub(super) opset: i64,
    pub(super) extents: Extents,
    facts: BTreeMap<String, Fact>,
    constants: BTreeMap<String, TensorProto>,
    /// Whole numbers that a run computes before the numeric graph does anything, by their names there.
    given: Vec<(String, Given)>,
    /// Their places.
    given_at: BTreeMap<Given, usize>,
    /// How many numbers are followed in all.
    followed: usize,
    /// Where numbers that are followed were given already.
    places: BTreeMap<String, String>,
    /// What a run takes besides the values, and at which node.
    more: Vec<(usize, Extent)>,
    /// Values that no input decides, which the numeric graph computes as it loads and keeps, and their
    /// bytes.
    fixed: BTreeSet<String>,
    fixed_bytes: u128,
    /// Behind how many others each written value stands.
    depths: BTreeMap<String, usize>,
    /// Outputs of refused nodes.
    unknown: BTreeSet<String>,
    nodes: Vec<NodeProto>,
    made: usize,
}

/// A file, written anew.
pub(super) struct Rewritten {
    pub(super) translation: Translation,
    pub(super) computed: Computed,
}

/// Writes the graph of a file anew.
///
/// # Errors
/// Every node that has no form that is known to be right.
pub(super) fn rewrite(
    model: ModelProto,
    feeds: &[Boundary],
    fetches: &[Boundary],
) -> Result<Rewritten, Vec<Refusal>> {
    let refuse = |op: &str, node: &str, reason: String| Refusal {
        op: op.to_owned(),
        node: node.to_owned(),
        reason,
    };
    let opset = model.opset_import.iter().find(|set| matches!(&*set.domain, "" | "ai.onnx"));
    let opset = opset.map_or(1, |set| set.version);
    if !OPSETS.contains(&opset) {
        let reason = format!("versions {} to {} are read", OPSETS.start(), OPSETS.end());
        return Err(vec![refuse(&format!("operators of version {opset}"), "the file", reason)]);
    }
    let from = model.graph.unwrap_or_default();
    let mut graph = Graph::new(opset, feeds);
    let mut refused = Vec::new();
    if !from.sparse_initializer.is_empty() {
        refused.push(refuse("sparse constants", "the file", "they are not read".to_owned()));
    }
    for feed in feeds {
        if graph.fact_of(&feed.tensor).is_ok_and(|fact| is_absurd(&fact.dims)) {
            refused.push(refuse("input", &feed.tensor, "it is of an absurd size".to_owned()));
            return Err(refused);
        }
    }
    for tensor in from.initializer {
        graph.add_constant(tensor);
    }
    let ends = fetches.iter().map(|fetch| fetch.tensor.clone());
    let read: BTreeSet<String> =
        from.node.iter().flat_map(|node| node.input.iter().cloned()).chain(ends).collect();
    for mut node in from.node {
        // What nobody reads is not written.
        node.output.iter_mut().filter(|own| !read.contains(*own)).for_each(String::clear);
        if node.output.iter().all(String::is_empty) {
            continue;
        }
        let inputs = node.input.iter().filter(|input| !input.is_empty());
        let name = node.output.first().filter(|_| node.name.is_empty()).unwrap_or(&node.name);
        let outcome = if !matches!(&*node.domain, "" | "ai.onnx") {
            Err(format!("it is of {}", node.domain))
        } else if !forms::known().any(|op| op == node.op_type) {
            Err("no form of it was held to ONNX Runtime".to_owned())
        } else if inputs.clone().any(|input| graph.unknown.contains(input)) {
            graph.unknown.extend(node.output.iter().cloned());
            continue;
        } else {
            forms::write(&mut graph, &node)
        };
        if let Err(reason) = outcome {
            refused.push(refuse(&node.op_type, name, reason));
            graph.unknown.extend(node.output.iter().cloned());
        }
    }
    for fetch in fetches {
        if let (true, Err(reason)) = (refused.is_empty(), graph.settle(fetch)) {
            refused.push(refuse("output", &fetch.tensor, reason));
        }
    }
    if refused.is_empty() { Ok(graph.finish(feeds, fetches)) } else { Err(refused) }
}

impl Graph {
    fn new(opset: i64, feeds: &[Boundary]) -> Graph {
        let mut graph = Graph {
            opset,
            extents: Extents::default(),
            facts: BTreeMap::new(),
            constants: BTreeMap::new(),
            given: Vec::new(),
            given_at: BTreeMap::new(),
            followed: 0,
            places: BTreeMap::new(),
            more: Vec::new(),
            fixed: BTreeSet::new(),
            fixed_bytes: 0,
            depths: BTreeMap::new(),
            unknown: BTreeSet::new(),
            nodes: Vec::new(),
            made: 0,
        };
        for (at, feed) in feeds.iter().enumerate() {
            let PartialShape::Ranked(dims) = &feed.shape else { continue };
            let size = |(axis, dim): (usize, &Option<usize>)| match dim {
                Some(dim) => Extent::from(i64::try_from(*dim).unwrap_or(i64::MAX)),
                None => graph.extents.axis(at, axis),
            };
            let dims = dims.iter().enumerate().map(size).collect();
            graph.facts.insert(feed.tensor.clone(), Fact::new(feed.dtype, dims));
        }
        graph
    }

    /// Whether a value of this name is known.
    pub(super) fn has(&self, name: &str) -> bool {
        self.facts.contains_key(name)
    }

    pub(super) fn fact_of(&self, name: &str) -> Result<&Fact, String> {
        self.facts.get(name).ok_or_else(|| format!("its input {name} is not known by then"))
    }

    /// What is known of an input.
    pub(super) fn fact(&self, node: &NodeProto, at: usize) -> Result<&Fact, String> {
        self.fact_of(input(node, at).ok_or_else(|| format!("it lacks input {at}"))?)
    }

    /// The sizes of an input of any dtype.
    pub(super) fn dims(&self, node: &NodeProto, at: usize) -> Result<Dims, String> {
        Ok(self.fact(node, at)?.dims.clone())
    }

    /// The sizes of an input of floats.
    pub(super) fn float_dims(&self, node: &NodeProto, at: usize) -> Result<Dims, String> {
        let fact = self.fact(node, at)?;
        match fact.is_float() {
            true => Ok(fact.dims.clone()),
            false => Err(format!("its input {at} is of {}", fact.dtype)),
        }
    }

    /// A float constant among the inputs.
    pub(super) fn floats(&self, node: &NodeProto, at: usize) -> Result<Vec<f32>, String> {
        let found = input(node, at).and_then(|name| self.constants.get(name));
        let found = found.and_then(facts::floats);
        found.ok_or_else(|| format!("its input {at} is computed, or of another dtype"))
    }

    /// Whole numbers among the inputs, each known up to open sizes.
    pub(super) fn numbers(&self, node: &NodeProto, at: usize) -> Result<Vec<Extent>, String> {
        let elements = self.fact(node, at)?.elements.as_ref();
        let elements = elements.ok_or_else(|| format!("its input {at} is computed in the run"))?;
        Ok(elements.to_vec())
    }

    /// Whole numbers among the inputs that no size decides.
    pub(super) fn integers(&self, node: &NodeProto, at: usize) -> Result<Vec<i64>, String> {
        let numbers = self.numbers(node, at)?;
        let known: Option<Vec<i64>> = numbers.iter().map(Extent::known).collect();
        known.ok_or_else(|| format!("its input {at} depends on open sizes"))
    }

    /// Takes a constant of the file. One of another dtype, or one whose bytes do not fit its shape, is
    /// as good as absent: who reads it is refused.
    pub(super) fn add_constant(&mut self, tensor: TensorProto) {
        if let Some(tensor) = facts::raw(tensor)
            && !self.facts.contains_key(&tensor.name)
        {
            let mut fact = Fact::of(&tensor);
            self.followed += fact.elements.as_ref().map_or(0, |all| all.len());
            if self.followed > FOLLOWED_MAX {
                fact.elements = None;
            }
            self.facts.insert(tensor.name.clone(), fact);
            self.constants.insert(tensor.name.clone(), tensor);
        }
    }

    /// A new constant; gives its name.
    pub(super) fn float(&mut self, dims: &[i64], values: &[f32]) -> String {
        self.new_constant(FLOAT, dims, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    /// A new vector of whole numbers; gives its name.
    pub(super) fn ints(&mut self, values: &[i64]) -> String {
        let dims = [i64::try_from(values.len()).unwrap_or(i64::MAX)];
        self.new_constant(INT64, &dims, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    fn new_constant(&mut self, data_type: i32, dims: &[i64], bytes: Vec<u8>) -> String {
        let name = self.new_name("constant");
        let raw_data = Bytes::from(bytes);
        let dims = dims.to_vec();
        let tensor =
            TensorProto { name: name.clone(), data_type, dims, raw_data, ..TensorProto::default() };
        self.facts.insert(name.clone(), Fact::of(&tensor));
        self.constants.insert(name.clone(), tensor);
        name
    }

    /// A vector of whole numbers as an operand: a constant where all are known, else given by the run.
    pub(super) fn vector(&mut self, values: &[Extent]) -> String {
        let known: Option<Vec<i64>> = values.iter().map(Extent::known).collect();
        match known {
            Some(known) => self.ints(&known),
            None => self.give(vec![values.len()], values),
        }
    }

    /// One whole number as an operand without axes.
    pub(super) fn scalar(&mut self, value: &Extent) -> String {
        match value.known() {
            Some(value) => self.new_constant(INT64, &[], value.to_le_bytes().to_vec()),
            None => self.give(vec![], std::slice::from_ref(value)),
        }
    }

    fn give(&mut self, dims: Vec<usize>, elements: &[Extent]) -> String {
        let given = Given { dims, elements: elements.to_vec() };
        if let Some((name, _)) = self.given_at.get(&given).and_then(|&at| self.given.get(at)) {
            return name.clone();
        }
        let name = self.new_name("sizes");
        let own: Dims = given.dims.iter().map(|&dim| Extent::from(dim as i64)).collect();
        self.facts.insert(name.clone(), Fact::new(DType::I64, own));
        self.given_at.insert(given.clone(), self.given.len());
        self.given.push((name.clone(), given));
        name
    }

    /// The name under which the numeric graph has a value; numbers that were only followed so far become
    /// a constant, or are given by the run.
    pub(super) fn operand(&mut self, name: &str) -> Result<String, String> {
        let fact = self.fact_of(name)?.clone();
        let (false, Some(elements)) = (self.constants.contains_key(name), &fact.elements) else {
            return Ok(name.to_owned());
        };
        if let Some(place) = self.places.get(name) {
            return Ok(place.clone());
        }
        let dims: Option<Vec<usize>> = fact.dims.iter().map(Extent::size).collect();
        let dims = dims.ok_or("its sizes are open")?;
        let known: Option<Vec<i64>> = elements.iter().map(Extent::known).collect();
        let place = match known {
            Some(known) => {
                let dims: Vec<i64> = dims.iter().map(|&dim| dim as i64).collect();
                let bytes: Vec<u8> = match fact.dtype {
                    DType::Bool => known.iter().map(|&value| u8::from(value != 0)).collect(),
                    DType::F32 => {
                        known.iter().flat_map(|&value| (value as f32).to_le_bytes()).collect()
                    }
                    DType::I32 => {
                        known.iter().flat_map(|&value| (value as i32).to_le_bytes()).collect()
                    }
                    _ => known.iter().flat_map(|value| value.to_le_bytes()).collect(),
                };
                self.new_constant(facts::number_of(fact.dtype), &dims, bytes)
            }
            None if fact.is_float() => {
                let given = self.give(dims, elements);
                let cast = self.new_name("step");
                let to = vec![("to", Written::Int(FLOAT.into()))];
                let own = Fact::new(DType::F32, fact.dims.clone());
                self.emit_all("Cast", &[&given], to, &[(&cast, own)])?;
                cast
            }
            None => self.give(dims, elements),
        };
        self.places.insert(name.to_owned(), place.clone());
        Ok(place)
    }

    /// A name that no file has: a zero byte is refused in those of ends, and other values are not seen.
    pub(super) fn new_name(&mut self, what: &str) -> String {
        self.made += 1;
        format!("\0{what}{}", self.made)
    }

    /// Another name of a constant that was made here.
    pub(super) fn rename(&mut self, from: &str, to: &str) -> Result<(), String> {
        self.expect_new(to)?;
        if let Some(mut tensor) = self.constants.remove(from) {
            self.facts.remove(from);
            to.clone_into(&mut tensor.name);
            self.add_constant(tensor);
        }
        Ok(())
    }

    /// Takes what is known of a value that no node computes: numbers that are followed.
    pub(super) fn follow(
        &mut self,
        output: &str,
        dtype: DType,
        dims: Dims,
        elements: Vec<Extent>,
    ) -> Result<(), String> {
        self.expect_new(output)?;
        self.followed += elements.len();
        if self.followed > FOLLOWED_MAX {
            return Err("the file computes too many numbers from sizes".to_owned());
        }
        let known: Option<Vec<i64>> = elements.iter().map(Extent::known).collect();
        let range = known.and_then(|all| Some((*all.iter().min()?, *all.iter().max()?)));
        let mut fact = Fact::new(dtype, dims);
        fact.range = range.unwrap_or(fact.range);
        fact.elements = Some(elements.into());
        self.facts.insert(output.to_owned(), fact);
        Ok(())
    }

    fn expect_new(&self, output: &str) -> Result<(), String> {
        match output.is_empty() || self.has(output) {
            true => Err(format!("its output `{output}` has the name of another value")),
            false => Ok(()),
        }
    }

    /// Counts what a kernel takes besides its result, in elements.
    pub(super) fn count(&mut self, elements: Extent) {
        self.more.push((self.nodes.len(), elements));
    }

    /// Writes a node whose one output is of floats of these sizes.
    pub(super) fn emit(
        &mut self,
        op: &str,
        inputs: &[&str],
        output: &str,
        attributes: Vec<(&str, Written)>,
        dims: Dims,
    ) -> Result<(), String> {
        self.emit_all(op, inputs, attributes, &[(output, Fact::new(DType::F32, dims))])
    }

    /// Writes a node; outputs without a name are not read.
    pub(super) fn emit_all(
        &mut self,
        op: &str,
        inputs: &[&str],
        attributes: Vec<(&str, Written)>,
        outputs: &[(&str, Fact)],
    ) -> Result<(), String> {
        let mut operands = Vec::with_capacity(inputs.len());
        for &input in inputs {
            operands.push(if input.is_empty() { String::new() } else { self.operand(input)? });
        }
        let depth = operands.iter().filter_map(|name| self.depths.get(name)).max();
        let depth = depth.map_or(1, |depth| depth + 1);
        if depth > DEPTH_MAX {
            return Err(format!("it stands behind more than {DEPTH_MAX} others"));
        }
        let is_set = |name: &String| self.constants.contains_key(name) || self.fixed.contains(name);
        let is_fixed = operands.iter().filter(|name| !name.is_empty()).all(is_set);
        for (output, fact) in outputs.iter().filter(|(output, _)| !output.is_empty()) {
            self.expect_new(output)?;
            if is_absurd(&fact.dims) {
                return Err("its result is of an absurd size".to_owned());
            }
            if is_fixed {
                let sizes = fact.dims.iter().filter_map(Extent::known);
                self.fixed_bytes = self.fixed_bytes.saturating_add(computed::bytes(sizes));
                self.fixed.insert((*output).to_owned());
            }
            if self.fixed_bytes > VALUE_BYTES_MAX {
                return Err("its constants take too much together".to_owned());
            }
            self.depths.insert((*output).to_owned(), depth);
            self.facts.insert((*output).to_owned(), fact.clone());
        }
        let names: Vec<String> = outputs.iter().map(|(output, _)| (*output).to_owned()).collect();
        let first = names.iter().find(|name| !name.is_empty()).cloned().unwrap_or_default();
        self.nodes.push(NodeProto {
            name: first,
            op_type: op.to_owned(),
            input: operands,
            output: names,
            attribute: attributes.into_iter().map(|(name, value)| attribute(name, value)).collect(),
            ..NodeProto::default()
        });
        Ok(())
    }

    /// Makes sure that a node computes an output of the file.
    fn settle(&mut self, fetch: &Boundary) -> Result<(), String> {
        let fact = self.fact_of(&fetch.tensor).map_err(|_| "nothing computes it".to_owned())?;
        if fact.dtype != fetch.dtype {
            return Err(format!("it is of {}, and declared as {}", fact.dtype, fetch.dtype));
        }
        if fact.dtype == DType::U8 {
            return Err("it is of uint8".to_owned());
        }
        let is_given = fact.elements.is_some() && !self.constants.contains_key(&fetch.tensor);
        if self.nodes.iter().any(|node| node.output.contains(&fetch.tensor)) {
            return Ok(());
        }
        if !is_given {
            return Err("no node computes it".to_owned());
        }
        let place = self.operand(&fetch.tensor)?;
        self.nodes.push(NodeProto {
            name: fetch.tensor.clone(),
            op_type: "Identity".to_owned(),
            input: vec![place],
            output: vec![fetch.tensor.clone()],
            ..NodeProto::default()
        });
        Ok(())
    }

    fn finish(self, feeds: &[Boundary], fetches: &[Boundary]) -> Rewritten {
        let Graph { facts, mut constants, nodes, mut given, extents, more, .. } = self;
        let read: BTreeSet<&String> = nodes.iter().flat_map(|node| &node.input).collect();
        constants.retain(|name, _| read.contains(name));
        given.retain(|(name, _)| read.contains(name));
        let names = |ends: &[Boundary]| ends.iter().map(|end| end.tensor.clone()).collect();
        let (mut inputs, outputs): (Vec<String>, Vec<String>) = (names(feeds), names(fetches));
        inputs.extend(given.iter().map(|(name, _)| name.clone()));
        let made: BTreeSet<&String> = nodes.iter().flat_map(|node| &node.output).collect();
        let is_written = |name: &String| made.contains(name) || inputs.contains(name);
        let written = facts.iter().filter(|(name, _)| is_written(name));
        let values: BTreeMap<String, ValueFacts> = written
            .map(|(name, fact)| (name.clone(), stated(fact, false)))
            .chain(constants.iter().map(|(name, own)| (name.clone(), stated(&Fact::of(own), true))))
            .collect();
        let ends = inputs.iter().map(|name| (name, 0));
        let held = held(&facts, &nodes, ends.collect(), &outputs);
        let more = more.into_iter().map(|(at, own)| Held { dims: vec![own], from: at, to: at });
        let computed = Computed::new(
            extents,
            held.into_iter().chain(more).collect(),
            given.into_iter().map(|(_, given)| given).collect(),
        );
        let declare = |names: &[String]| {
            names.iter().map(|name| declared(name, facts.get(name))).collect::<Vec<_>>()
        };
        let graph = GraphProto {
            name: "file".to_owned(),
            input: declare(&inputs),
            output: declare(&outputs),
            initializer: constants.into_values().collect(),
            node: nodes,
            ..GraphProto::default()
        };
        let model = ModelProto {
            ir_version: IR_VERSION,
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
            graph: Some(graph),
            ..ModelProto::default()
        };
        let translation =
            Translation { model, inputs, outputs, operators: BTreeMap::new(), values };
        Rewritten { translation, computed }
    }
}

/// Whether a known size is none of a tensor; sums of others are far from the end of 64 bits.
fn is_absurd(dims: &Dims) -> bool {
    dims.iter().filter_map(Extent::known).any(|dim| !(0..=SIZE_MAX).contains(&dim))
}

/// An input that is there.
pub(super) fn input(node: &NodeProto, at: usize) -> Option<&str> {
    node.input.get(at).map(String::as_str).filter(|name| !name.is_empty())
}

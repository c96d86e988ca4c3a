//! The numeric parts of all signatures as one graph.
//!
//! Nodes that compute the same from the same are one node, whatever they are called: signatures
//! that share a network share its nodes and so its weights, also where each has inlined a copy.
//!
//! May not know: placement. Invariant: every node stands after those it reads.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use prost::Message;
use vesta_model::{DType, PartialShape, Status};
use vesta_protos::tensorflow::attr_value::Value as Attribute;
use vesta_protos::tensorflow::{AttrValue, NodeDef};
use vesta_savedmodel::tensor_to_proto;

use super::analysis::{Analysis, Operation, Origin, ValueId};
use super::graph::{Attributes, tensor_name};
use super::plan::NumericStep;

/// Constants from this size are the same when they lie at the same place in memory; the reader of
/// the model shares the bytes of a variable among all that read it.
const SHARED_BYTES_MIN: usize = 64;

/// A tensor that enters or leaves the numeric graph.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Boundary {
    pub(crate) tensor: String,
    pub(crate) dtype: DType,
    /// What the graph was made for; a run is held to it.
    pub(crate) shape: PartialShape,
}

/// A graph for the numeric engine.
#[derive(Clone, Debug, Default)]
pub(crate) struct NumericGraph {
    pub(crate) nodes: Vec<NodeDef>,
    pub(crate) feeds: Vec<Boundary>,
    pub(crate) fetches: Vec<Boundary>,
}

/// What makes two nodes the same: operator, inputs and attributes.
#[derive(PartialEq, Eq, Hash)]
enum Key {
    Node { op: String, inputs: Vec<String>, attributes: Vec<u8> },
    Shared { dtype: i32, dims: Vec<i64>, place: usize, len: usize },
}

/// The common graph in the making.
#[derive(Default)]
pub(crate) struct Merger {
    graph: NumericGraph,
    /// Names of the nodes so far, by what they compute.
    known: HashMap<Key, String>,
    names: HashSet<String>,
}

impl Merger {
    /// Begins a signature; its `sizes` are what is known of each value's shape.
    pub(crate) fn signature<'m, 'p, 'a>(
        &'m mut self,
        analysis: &'p Analysis<'a>,
        sizes: &'p [PartialShape],
    ) -> Part<'m, 'p, 'a> {
        Part {
            merger: self,
            analysis,
            sizes,
            tensors: HashMap::new(),
            entries: Vec::new(),
            used: BTreeSet::new(),
        }
    }

    pub(crate) fn finish(self) -> NumericGraph {
        self.graph
    }

    /// The name of the node that computes this, which is added if there is none.
    fn node(&mut self, wished: &str, node: NodeDef, key: Key) -> String {
        if let Some(name) = self.known.get(&key) {
            return name.clone();
        }
        let mut name = wished.to_owned();
        let mut copy = 1;
        while !self.names.insert(name.clone()) {
            copy += 1;
            name = format!("{wished}~{copy}");
        }
        self.graph.nodes.push(NodeDef { name: name.clone(), ..node });
        self.known.insert(key, name.clone());
        name
    }

    fn boundary(boundaries: &mut Vec<Boundary>, new: Boundary) -> usize {
        boundaries.iter().position(|known| *known == new).unwrap_or_else(|| {
            boundaries.push(new);
            boundaries.len() - 1
        })
    }
}

/// One signature on its way into the common graph.
pub(crate) struct Part<'m, 'p, 'a> {
    merger: &'m mut Merger,
    analysis: &'p Analysis<'a>,
    sizes: &'p [PartialShape],
    /// Names of tensors of the common graph, for values that it computes or holds.
    tensors: HashMap<ValueId, String>,
    /// Values that come in, in order of their first use in this signature, and their feeds.
    entries: Vec<(ValueId, usize)>,
    /// Values that the step in the making takes in.
    used: BTreeSet<ValueId>,
}

impl Part<'_, '_, '_> {
    /// Adds an operation; what is not `inside` its step comes in through a feed.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for constants that contradict themselves.
    pub(crate) fn add(
        &mut self,
        operation: &Operation<'_>,
        inside: &BTreeSet<ValueId>,
    ) -> Result<(), Status> {
        let inputs = operation
            .inputs
            .iter()
            .map(|&id| self.input(id, inside))
            .collect::<Result<Vec<_>, _>>()?;
        let node = NodeDef {
            op: operation.node.op.clone(),
            input: inputs.clone(),
            attr: operation.node.attr.clone(),
            ..NodeDef::default()
        };
        let attributes = encoded(&node);
        let key = Key::Node { op: node.op.clone(), inputs, attributes };
        let name = self.merger.node(&operation.node.name, node, key);
        for (at, &id) in operation.outputs.iter().enumerate() {
            self.tensors.insert(id, tensor_name(&name, at));
        }
        Ok(())
    }

    /// The tensor of the common graph that an operation reads.
    fn input(&mut self, id: ValueId, inside: &BTreeSet<ValueId>) -> Result<String, Status> {
        match &self.analysis.values[id].origin {
            Origin::Weights(node) => {
                if let Some(known) = self.tensors.get(&id) {
                    return Ok(known.clone());
                }
                super::analysis::check_constant(node)?;
                let key = constant_key(node);
                let copy = NodeDef {
                    op: "Const".to_owned(),
                    attr: node.attr.clone(),
                    ..NodeDef::default()
                };
                Ok(self.remember(id, &node.name, copy, key))
            }
            Origin::Folded(tensor) => {
                if let Some(known) = self.tensors.get(&id) {
                    return Ok(known.clone());
                }
                let attribute = |value| AttrValue { value: Some(value) };
                let proto = Box::new(tensor_to_proto(tensor));
                let attr = BTreeMap::from([
                    ("dtype".to_owned(), attribute(Attribute::Type(tensor.dtype().number()))),
                    ("value".to_owned(), attribute(Attribute::Tensor(proto))),
                ]);
                let node = NodeDef { op: "Const".to_owned(), attr, ..NodeDef::default() };
                let key =
                    Key::Node { op: node.op.clone(), inputs: vec![], attributes: encoded(&node) };
                let name = self.analysis.values[id].name.replace(':', "~");
                Ok(self.remember(id, &name, node, key))
            }
            Origin::Operation(_) if inside.contains(&id) => {
                self.tensors.get(&id).cloned().ok_or_else(|| {
                    Status::internal("an operation stands before one that it reads from")
                })
            }
            Origin::Operation(_) | Origin::Feed => {
                self.used.insert(id);
                let feed = self.entry(id);
                Ok(self.merger.graph.feeds[feed].tensor.clone())
            }
        }
    }

    fn remember(&mut self, id: ValueId, wished: &str, node: NodeDef, key: Key) -> String {
        let name = tensor_name(&self.merger.node(wished, node, key), 0);
        self.tensors.insert(id, name.clone());
        name
    }

    /// The feed through which a value comes in. Feeds of two signatures are the same when they are
    /// the same in number, dtype and shape, so that equal networks become one.
    fn entry(&mut self, id: ValueId) -> usize {
        if let Some((_, feed)) = self.entries.iter().find(|(known, _)| *known == id) {
            return *feed;
        }
        let ordinal = self.entries.len();
        let (dtype, shape) = (self.analysis.values[id].dtype, self.sizes[id].clone());
        let alike = |known: &Boundary| {
            known.tensor.starts_with(&format!("entry~{ordinal}~"))
                && known.dtype == dtype
                && known.shape == shape
        };
        let feeds = &mut self.merger.graph.feeds;
        let feed = feeds.iter().position(alike).unwrap_or_else(|| {
            let tensor = format!("entry~{ordinal}~{}:0", feeds.len());
            Merger::boundary(feeds, Boundary { tensor, dtype, shape })
        });
        self.entries.push((id, feed));
        feed
    }

    /// Closes a step: what was added since the last one, giving `outputs`.
    ///
    /// # Errors
    /// `INTERNAL` when an output was not added.
    pub(crate) fn step(
        &mut self,
        outputs: impl Iterator<Item = ValueId>,
    ) -> Result<NumericStep, Status> {
        let mut step = NumericStep { inputs: Vec::new(), outputs: Vec::new() };
        for id in std::mem::take(&mut self.used) {
            step.inputs.push((id, self.entry(id)));
        }
        for id in outputs {
            let tensor = self.tensors.get(&id).cloned();
            let tensor = tensor.ok_or_else(|| Status::internal("a step gives what it lacks"))?;
            let dtype = self.analysis.values[id].dtype;
            let fetch = Boundary { tensor, dtype, shape: PartialShape::Unknown };
            step.outputs.push((Merger::boundary(&mut self.merger.graph.fetches, fetch), id));
        }
        Ok(step)
    }
}

/// The attributes of a node as bytes; equal attributes give equal bytes.
fn encoded(node: &NodeDef) -> Vec<u8> {
    NodeDef { attr: node.attr.clone(), ..NodeDef::default() }.encode_to_vec()
}

fn constant_key(node: &NodeDef) -> Key {
    match Attributes(node).tensor("value") {
        Some(proto) if proto.tensor_content.len() >= SHARED_BYTES_MIN => Key::Shared {
            dtype: proto.dtype,
            dims: proto
                .tensor_shape
                .iter()
                .flat_map(|shape| shape.dim.iter().map(|dim| dim.size))
                .collect(),
            place: proto.tensor_content.as_ptr() as usize,
            len: proto.tensor_content.len(),
        },
        _ => Key::Node { op: "Const".to_owned(), inputs: vec![], attributes: encoded(node) },
    }
}

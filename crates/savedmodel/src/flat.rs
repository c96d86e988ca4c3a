//! A graph without calls: its nodes, each in the call it stands in.
//!
//! Owns what names, attributes and state mean inside a call. Knows not how the graph came about.
//! Invariant: following a tensor ends, in circles too.

use std::collections::BTreeMap;
use std::rc::Rc;

use vesta_model::Status;
use vesta_protos::tensorflow::attr_value::Value;
use vesta_protos::tensorflow::{AttrValue, NodeDef};

use crate::effects::{holds_state, passes_on};
use crate::graph::{Body, substitute};

/// What TensorFlow writes where a resource has no shared name.
const ANONYMOUS: &str = "cd2c89b7-88b7-44c8-ad83-06c2a9158347";

/// Where a tensor comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// The feed of this position.
    Feed(u32),
    /// An output of a node.
    Node {
        /// Position in [`Flat::nodes`].
        node: u32,
        /// Which of its outputs.
        output: u32,
    },
}

/// A node that runs, in one of the calls of its function.
#[derive(Debug)]
pub(crate) struct FlatNode<'a> {
    pub(crate) def: &'a NodeDef,
    pub(crate) scope: u32,
    /// Inputs that carry tensors; those for order alone are not kept.
    pub(crate) inputs: Vec<Source>,
}

/// A graph without calls.
#[derive(Debug)]
pub(crate) struct Flat<'a> {
    /// Everything that runs, in no order: also what only has to run before or beside the fetches.
    pub(crate) nodes: Vec<FlatNode<'a>>,
    /// One per fetch.
    pub(crate) fetches: Vec<Source>,
    pub(crate) scopes: Vec<Scope<'a>>,
}

/// A tensor as a name means it, not yet followed through calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Ref {
    Output { scope: u32, node: u32, output: u32 },
    Argument { scope: u32, index: u32 },
}

/// The main graph or one call of a function.
#[derive(Debug)]
pub(crate) struct Scope<'a> {
    pub(crate) body: Rc<Body<'a>>,
    pub(crate) parent: Option<u32>,
    pub(crate) depth: u32,
    /// Goes before the names of its nodes.
    pub(crate) path: String,
    /// What its attributes stand for in this call.
    pub(crate) bindings: BTreeMap<String, AttrValue>,
    /// The tensors that it was called with.
    pub(crate) arguments: Vec<Ref>,
    /// First and number of the tensors of each declared argument.
    pub(crate) argument_spans: Vec<(usize, usize)>,
    /// Per returned tensor its name inside, and which of the tensors of that name.
    pub(crate) returns: Vec<(&'a str, usize)>,
}

impl<'a> Scope<'a> {
    /// The outermost scope, over `body`.
    pub(crate) fn root(body: Rc<Body<'a>>) -> Scope<'a> {
        Scope {
            body,
            parent: None,
            depth: 0,
            path: String::new(),
            bindings: BTreeMap::new(),
            arguments: Vec::new(),
            argument_spans: Vec::new(),
            returns: Vec::new(),
        }
    }
}

impl<'a> Flat<'a> {
    /// The name of a node, with the calls it stands in.
    pub(crate) fn name(&self, node: u32) -> String {
        let node = &self.nodes[node as usize];
        format!("{}{}", self.scopes[node.scope as usize].path, node.def.name)
    }

    /// Whether a node stands in the main graph, so that its name is its own.
    pub(crate) fn is_in_main(&self, node: u32) -> bool {
        self.nodes[node as usize].scope == 0
    }

    /// An attribute of a node as its call means it.
    pub(crate) fn attr(&self, node: u32, key: &str) -> Option<&AttrValue> {
        let node = &self.nodes[node as usize];
        let value = node.def.attr.get(key)?;
        match &value.value {
            Some(Value::Placeholder(name)) => self.scopes[node.scope as usize].bindings.get(name),
            _ => Some(value),
        }
    }

    /// All attributes of a node but those that TensorFlow keeps to itself, as its call means them.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when the call lacks one that is referred to.
    pub(crate) fn attrs(&self, node: u32) -> Result<BTreeMap<String, AttrValue>, Status> {
        let node = &self.nodes[node as usize];
        let bindings = &self.scopes[node.scope as usize].bindings;
        let attrs = node.def.attr.iter().filter(|(key, _)| !key.starts_with('_'));
        attrs
            .map(|(key, value)| {
                Ok((key.clone(), substitute(value, &|name: &str| bindings.get(name))?))
            })
            .collect()
    }

    /// The name of the variable or table that a node stands for.
    pub(crate) fn state_name(&self, node: u32) -> Option<&str> {
        let def = self.nodes[node as usize].def;
        if !holds_state(&def.op) {
            return None;
        }
        match self.attr(node, "shared_name").map(|value| &value.value) {
            Some(Some(Value::S(name))) if !name.is_empty() && name != ANONYMOUS.as_bytes() => {
                std::str::from_utf8(name).ok()
            }
            _ => Some(&def.name),
        }
    }

    /// The variable or table that a handle or reference leads to.
    pub(crate) fn state_behind(&self, source: Source) -> Option<&str> {
        match self.follow(source, passes_on)? {
            Source::Node { node, .. } => self.state_name(node),
            Source::Feed(_) => None,
        }
    }

    /// Follows first inputs as long as the operator is one of those `through` names; `None` when
    /// that leads round in a circle.
    pub(crate) fn follow(&self, source: Source, through: impl Fn(&str) -> bool) -> Option<Source> {
        let mut at = source;
        for _ in 0..=self.nodes.len() {
            let Source::Node { node, .. } = at else { return Some(at) };
            let node = &self.nodes[node as usize];
            match node.inputs.first() {
                Some(&input) if through(&node.def.op) => at = input,
                _ => return Some(at),
            }
        }
        None
    }
}

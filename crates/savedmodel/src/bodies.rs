//! Branches and loops: the functions that they call, each frozen for the place that calls it.
//!
//! Knows of these operators only which of their inputs become arguments. Invariant: the variables
//! that a call hands in are constants in the body, as they are in the graph around it; one bound on
//! bodies and nodes holds for all bodies of a signature together.

use std::collections::BTreeMap;

use vesta_model::{DType, PartialShape, Status};
use vesta_protos::tensorflow::attr_value::Value as Attribute;
use vesta_protos::tensorflow::{NameAttrList, NodeDef, TensorProto};

use crate::flat::{Flat, Source};
use crate::flatten::flatten_function;
use crate::freeze::{self, Feed};
use crate::graph::Program;
use crate::plan::{Held, plan};
use crate::variables::{Declared, declared};

/// Branches and loops within each other.
const DEPTH_MAX: usize = 32;
/// Bodies of one signature.
const BODIES_MAX: usize = 10_000;
/// Nodes of all of them.
const NODES_MAX: usize = 300_000;

/// A function as one branch or loop calls it.
#[derive(Clone, Debug, Default)]
pub struct FrozenBody {
    /// The node that calls it.
    pub node: String,
    /// The attribute of the node that names it, such as `then_branch` or `branches[0]`.
    pub attribute: String,
    /// Its nodes, as those of [`crate::FrozenGraph`]; their names are their own.
    pub nodes: Vec<NodeDef>,
    /// The tensors that it is given, in the order of the call; no node gives them.
    pub arguments: Vec<String>,
    /// The tensors that it gives, in their order.
    pub results: Vec<String>,
    /// Its checks, as those of [`crate::FrozenGraph`].
    pub checks: Vec<NodeDef>,
    /// What its own branches and loops call.
    pub bodies: Vec<FrozenBody>,
}

/// Whether an operator is a branch or loop whose functions are frozen.
pub(crate) fn is_control(op: &str) -> bool {
    is_branch(op) || matches!(op, "While" | "StatelessWhile")
}

/// Whether an operator goes one way of several, as its first input says.
fn is_branch(op: &str) -> bool {
    matches!(op, "Case" | "If" | "StatelessCase" | "StatelessIf")
}

/// The freezing of all bodies of a signature.
pub(crate) struct Bodies<'b, 'a> {
    program: &'b Program<'a>,
    value: &'b dyn Fn(&Declared) -> Result<TensorProto, Status>,
    count: usize,
    nodes: usize,
    depth: usize,
    /// Names of checks that were left out.
    pub(crate) checks: Vec<String>,
}

impl<'b, 'a> Bodies<'b, 'a> {
    /// Freezes with the variables that `value` gives.
    pub(crate) fn new(
        program: &'b Program<'a>,
        value: &'b dyn Fn(&Declared) -> Result<TensorProto, Status>,
    ) -> Bodies<'b, 'a> {
        Bodies { program, value, count: 0, nodes: 0, depth: 0, checks: Vec::new() }
    }

    /// The bodies of the branches and loops `controls` of a graph, whose feeds may be `handles` of
    /// variables.
    ///
    /// # Errors
    /// Those of flattening and freezing; `RESOURCE_EXHAUSTED` beyond the limits; `UNIMPLEMENTED` for
    /// a loop that goes on with another variable.
    pub(crate) fn of(
        &mut self,
        flat: &Flat<'_>,
        handles: &[Option<Declared>],
        controls: &[(u32, String)],
    ) -> Result<Vec<FrozenBody>, Status> {
        let mut bodies = Vec::new();
        for (node, name) in controls {
            let inner = &flat.nodes[*node as usize];
            let condition = usize::from(is_branch(&inner.def.op));
            let given = inner.inputs.get(condition..).unwrap_or_default();
            let handles: Vec<Option<Declared>> =
                given.iter().map(|&source| handle(flat, handles, source)).collect();
            for (attribute, value) in flat.attrs(*node)? {
                for (attribute, function) in functions(attribute, value.value) {
                    let body = self
                        .body(name, attribute, function, &handles)
                        .map_err(|error| error.prefixed(&format!("{name}: ")))?;
                    bodies.push(body);
                }
            }
        }
        Ok(bodies)
    }

    fn body(
        &mut self,
        node: &str,
        attribute: String,
        function: NameAttrList,
        handles: &[Option<Declared>],
    ) -> Result<FrozenBody, Status> {
        self.count += 1;
        if self.count > BODIES_MAX || self.depth >= DEPTH_MAX {
            return Err(Status::resource_exhausted(format!(
                "branches and loops have more than {BODIES_MAX} bodies, or nest more than \
                 {DEPTH_MAX} deep"
            )));
        }
        let kept = |(key, _): &(String, _)| !key.starts_with('_');
        let bindings: BTreeMap<_, _> = function.attr.into_iter().filter(kept).collect();
        let (flat, arguments) = flatten_function(self.program, &function.name, bindings)?;
        if attribute == "body" {
            check_handles(&flat, handles)?;
        }
        let is_held = |feed: u32| handles.get(feed as usize).is_some_and(Option::is_some);
        let plan = plan(self.program, &flat, true, &is_held)?;
        let feeds: Vec<Feed> = (0..arguments).map(argument).collect();
        let written = freeze::write(self.program, &flat, &plan, &feeds, |held| {
            let declared = match held {
                Held::Node(node) => declared(&flat, node),
                Held::Argument(at) => handles.get(at as usize).cloned().flatten(),
            };
            let unknown = || Status::internal("a body reads what is no variable");
            (self.value)(&declared.ok_or_else(unknown)?)
        })?;
        self.nodes += written.nodes.len();
        if self.nodes > NODES_MAX {
            return Err(Status::resource_exhausted(format!(
                "branches and loops have more than {NODES_MAX} nodes"
            )));
        }
        self.checks.extend(plan.checks.iter().map(|&(at, _)| format!("{node}/{}", flat.name(at))));
        self.depth += 1;
        let bodies = self.of(&flat, handles, &written.controls)?;
        self.depth -= 1;
        Ok(FrozenBody {
            node: node.to_owned(),
            attribute,
            nodes: written.nodes,
            arguments: feeds.into_iter().map(|feed| feed.tensor).collect(),
            results: written.fetches,
            checks: written.checks,
            bodies,
        })
    }
}

/// The functions that an attribute of a branch or loop names, each with what names it alone.
fn functions(attribute: String, value: Option<Attribute>) -> Vec<(String, NameAttrList)> {
    match (attribute.as_str(), value) {
        ("cond" | "body" | "then_branch" | "else_branch", Some(Attribute::Func(function))) => {
            vec![(attribute, function)]
        }
        ("branches", Some(Attribute::List(list))) => {
            let numbered = list.func.into_iter().enumerate();
            numbered.map(|(at, function)| (format!("branches[{at}]"), function)).collect()
        }
        _ => Vec::new(),
    }
}

/// The tensor of an argument; no node of a graph can have such a name.
fn argument(at: usize) -> Feed {
    Feed {
        alias: String::new(),
        tensor: format!("<{at}>:0"),
        dtype: DType::Invalid,
        shape: PartialShape::Unknown,
    }
}

/// The variable whose handle `source` is.
fn handle(flat: &Flat<'_>, handles: &[Option<Declared>], source: Source) -> Option<Declared> {
    match flat.follow(source, |op| op == "Identity")? {
        Source::Feed(feed) => handles.get(feed as usize).cloned().flatten(),
        Source::Node { node, .. } => {
            declared(flat, node).filter(|_| flat.nodes[node as usize].def.op == "VarHandleOp")
        }
    }
}

/// A loop hands the variables that it is given on to its next round, each in its place.
fn check_handles(flat: &Flat<'_>, handles: &[Option<Declared>]) -> Result<(), Status> {
    for (at, handle) in handles.iter().enumerate() {
        let (Some(handle), Some(&result)) = (handle, flat.fetches.get(at)) else { continue };
        let next = flat.follow(result, |op| op == "Identity");
        if next != Some(Source::Feed(at as u32)) {
            return Err(Status::unimplemented(format!(
                "a loop goes on with another variable than `{}`",
                handle.name
            )));
        }
    }
    Ok(())
}

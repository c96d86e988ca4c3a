//! TF1 branches whose condition is known: models made for training and serving alike choose between
//! the two by a placeholder that nobody feeds.
//!
//! Looks at the main graph alone, for functions have no such branches. Invariant: what is called
//! dead never runs, so it neither computes anything nor has an effect.

use std::collections::{HashMap, HashSet};

use vesta_protos::tensorflow::attr_value::Value;
use vesta_protos::tensorflow::{NodeDef, TensorProto};

use crate::graph::{Body, split_tensor_name};
use crate::tensor::tensor_from_proto;

/// How far a condition is followed to its constant.
const CONDITION_STEPS_MAX: usize = 64;

/// What is known of the branches of a graph.
#[derive(Debug, Default)]
pub(crate) struct Branches {
    /// Outputs that are simply an input of their node: which one, among those with tensors.
    pub(crate) passed: HashMap<(u32, u32), u32>,
    /// Nodes that never run.
    pub(crate) dead: HashSet<u32>,
}

/// One use of a node: by whom, and of which output; `None` is for order alone.
type Use = (u32, Option<u32>);

impl Branches {
    /// Decides the branches of `graph`, in which the tensors `is_fed` are given.
    pub(crate) fn decide(graph: &Body<'_>, is_fed: impl Fn(u32, u32) -> bool) -> Branches {
        let mut branches = Branches::default();
        let mut dead_tensors = Vec::new();
        for (node, at) in graph.nodes.iter().zip(0..) {
            if !matches!(node.op.as_str(), "Switch" | "RefSwitch") {
                continue;
            }
            if let Some(taken) = tensor_inputs(node).nth(1).and_then(|c| known(graph, c, &is_fed)) {
                branches.passed.insert((at, u32::from(taken)), 0);
                dead_tensors.push((at, u32::from(!taken)));
            }
        }
        if !dead_tensors.is_empty() {
            branches.spread(graph, dead_tensors, &is_fed);
        }
        branches
    }

    /// Follows dead tensors to all that needs them. Only a merge lives on what is left to it.
    fn spread(
        &mut self,
        graph: &Body<'_>,
        dead_tensors: Vec<(u32, u32)>,
        is_fed: &impl Fn(u32, u32) -> bool,
    ) {
        let uses = uses(graph);
        let mut dead_inputs: HashMap<u32, HashSet<(u32, u32)>> = HashMap::new();
        // All outputs of a dead node are dead; of a switch, one.
        let mut pending: Vec<(u32, Option<u32>)> =
            dead_tensors.into_iter().map(|(node, output)| (node, Some(output))).collect();
        while let Some((node, only)) = pending.pop() {
            for &(user, output) in uses.get(&node).map_or(&[][..], Vec::as_slice) {
                let is_hit = only.is_none() || (output.is_some() && output == only);
                if !is_hit || output.is_some_and(|output| is_fed(node, output)) {
                    continue;
                }
                if graph.nodes[user as usize].op.ends_with("Merge") {
                    let Some(output) = output else { continue };
                    let dead = dead_inputs.entry(user).or_default();
                    dead.insert((node, output));
                    if alive(graph, user, dead).next().is_some() {
                        continue;
                    }
                }
                if self.dead.insert(user) {
                    pending.push((user, None));
                }
            }
        }
        for (merge, dead) in dead_inputs {
            let mut alive = alive(graph, merge, &dead);
            if let (Some(input), None) = (alive.next(), alive.next()) {
                self.passed.insert((merge, 0), input);
            }
        }
    }
}

/// Positions of the inputs of a merge that are not dead.
fn alive<'g>(
    graph: &'g Body<'_>,
    merge: u32,
    dead: &'g HashSet<(u32, u32)>,
) -> impl Iterator<Item = u32> + 'g {
    let inputs = tensor_inputs(&graph.nodes[merge as usize]).zip(0..);
    inputs.filter_map(|(input, at)| match resolved(graph, input) {
        Some(tensor) if dead.contains(&tensor) => None,
        _ => Some(at),
    })
}

/// The inputs of a node that carry tensors.
pub(crate) fn tensor_inputs(node: &NodeDef) -> impl Iterator<Item = &str> {
    node.input.iter().map(String::as_str).filter(|input| !input.starts_with('^'))
}

fn resolved(graph: &Body<'_>, name: &str) -> Option<(u32, u32)> {
    let (node, output) = split_tensor_name(name);
    Some((*graph.index.get(node)?, output))
}

fn uses(graph: &Body<'_>) -> HashMap<u32, Vec<Use>> {
    let mut uses: HashMap<u32, Vec<Use>> = HashMap::new();
    for (node, at) in graph.nodes.iter().zip(0..) {
        // What closes a loop does not carry deadness on.
        if node.op.ends_with("NextIteration") {
            continue;
        }
        for input in &node.input {
            let (from, output) = match input.strip_prefix('^') {
                Some(name) => (graph.index.get(name).copied(), None),
                None => match resolved(graph, input) {
                    Some((node, output)) => (Some(node), Some(output)),
                    None => (None, None),
                },
            };
            if let Some(from) = from {
                uses.entry(from).or_default().push((at, output));
            }
        }
    }
    uses
}

/// The value of a condition, when it is always the same.
fn known(graph: &Body<'_>, name: &str, is_fed: &impl Fn(u32, u32) -> bool) -> Option<bool> {
    let mut negated = false;
    let mut name = name;
    for _ in 0..CONDITION_STEPS_MAX {
        let (at, output) = resolved(graph, name)?;
        if is_fed(at, output) || output != 0 {
            return None;
        }
        let node = &graph.nodes[at as usize];
        match node.op.as_str() {
            "Const" => return Some(boolean(node)? ^ negated),
            "LogicalNot" => negated = !negated,
            "Identity" | "PlaceholderWithDefault" => {}
            _ => return None,
        }
        name = tensor_inputs(node).next()?;
    }
    None
}

fn boolean(node: &NodeDef) -> Option<bool> {
    let Some(Value::Tensor(tensor)) = &node.attr.get("value")?.value else { return None };
    let tensor: &TensorProto = tensor;
    let tensor = tensor_from_proto(tensor, 1).ok()?;
    let is_boolean = tensor.dtype() == vesta_model::DType::Bool;
    tensor.bytes().first().filter(|_| is_boolean).map(|&byte| byte != 0)
}

//! What a frozen graph will hold: the nodes that fetches need, in the order they can run, with
//! nodes that only pass a tensor on taken out and variables taken as constants.
//!
//! Reads no variable. Invariant: each step's inputs are feeds or earlier steps, but for the edge
//! that closes a TF1 loop.

use std::collections::{HashMap, HashSet};

use vesta_model::Status;
use vesta_protos::tensorflow::NodeDef;

use crate::bodies::is_control;
use crate::effects::is_variable;
use crate::flat::{Flat, Source};
use crate::graph::{Program, functions_named};
use crate::proofs;

/// What stands for a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Held {
    /// The node at this position in the flat graph.
    Node(u32),
    /// The argument of this position, in the body of a branch or loop.
    Argument(u32),
}

/// Where a tensor of the frozen graph comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Value {
    /// The feed of this position.
    Feed(u32),
    /// An output of a node that is kept.
    Node {
        /// Position in the flat graph.
        node: u32,
        /// Which of its outputs.
        output: u32,
    },
    /// The value of a variable.
    Variable(Held),
}

/// One node of the frozen graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A node of the flat graph.
    Keep {
        /// Position in the flat graph.
        node: u32,
        /// Its inputs.
        inputs: Vec<Value>,
    },
    /// The value of a variable.
    Variable(Held),
}

/// A frozen graph to be.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    pub(crate) fetches: Vec<Value>,
    /// Nodes that may have refused some inputs and are left out, with what they look at.
    pub(crate) checks: Vec<(u32, Value)>,
}

/// Plans the freezing of `flat`. Without `variables`, these stay nodes. `is_held` says of a feed
/// whether it is the handle of a variable.
///
/// # Errors
/// `INVALID_ARGUMENT` when nodes depend on each other in a circle.
pub(crate) fn plan(
    program: &Program<'_>,
    flat: &Flat<'_>,
    variables: bool,
    is_held: &dyn Fn(u32) -> bool,
) -> Result<Plan, Status> {
    let mut planner = Planner {
        flat,
        variables,
        is_held,
        held: HashSet::new(),
        canonical: HashMap::new(),
        states: vec![State::New; flat.nodes.len()],
        steps: Vec::new(),
        loops: Vec::new(),
    };
    let fetches =
        flat.fetches.iter().map(|&fetch| planner.value(fetch)).collect::<Result<Vec<_>, _>>()?;
    for &fetch in &fetches {
        planner.visit(fetch)?;
    }
    let mut checks = Vec::new();
    for (node, at) in flat.nodes.iter().zip(0..) {
        let value = if self::checks(&node.def.op) && !proofs::holds(flat, at) {
            match node.inputs.first() {
                Some(&looked_at) => planner.value(looked_at)?,
                None => continue,
            }
        } else if is_control(&node.def.op) && holds_checks(program, flat, at) {
            // It may run for nothing but its checks; then they wait for what it gives.
            Value::Node { node: at, output: 0 }
        } else {
            continue;
        };
        planner.visit(value)?;
        checks.push((at, value));
    }
    // The edges that close loops were left out; what computes them is part of the graph.
    while let Some(source) = planner.loops.pop() {
        let value = planner.value(source)?;
        planner.visit(value)?;
    }
    Ok(Plan { steps: planner.steps, fetches, checks })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    Open,
    Done,
}

struct Planner<'f, 'a> {
    flat: &'f Flat<'a>,
    variables: bool,
    is_held: &'f dyn Fn(u32) -> bool,
    /// Variables that have their step.
    held: HashSet<Held>,
    /// The first node of each variable stands for all of them.
    canonical: HashMap<&'f str, u32>,
    states: Vec<State>,
    steps: Vec<Step>,
    loops: Vec<Source>,
}

impl Planner<'_, '_> {
    /// Follows a tensor through nodes that only pass it on.
    fn value(&mut self, source: Source) -> Result<Value, Status> {
        let mut at = source;
        for _ in 0..=self.flat.nodes.len() {
            let Source::Node { node, output } = at else {
                let Source::Feed(feed) = at else { break };
                return Ok(Value::Feed(feed));
            };
            let inner = &self.flat.nodes[node as usize];
            let op = inner.def.op.as_str();
            let passed = match op {
                "IdentityN" => inner.inputs.get(output as usize),
                _ if passes(op) && output == 0 => inner.inputs.first(),
                _ => None,
            };
            match passed {
                Some(&input) => at = input,
                None => return Ok(self.value_of(node, output)),
            }
        }
        Err(Status::invalid_argument("nodes that pass a tensor on form a circle"))
    }

    fn value_of(&mut self, node: u32, output: u32) -> Value {
        let inner = &self.flat.nodes[node as usize];
        match inner.def.op.as_str() {
            "VariableV2" | "Variable" if self.variables => self.variable(node),
            "ReadVariableOp" if self.variables => match inner.inputs.first() {
                Some(&handle) => {
                    self.variable_behind(handle).unwrap_or(Value::Node { node, output })
                }
                None => Value::Node { node, output },
            },
            _ => Value::Node { node, output },
        }
    }

    fn variable(&mut self, node: u32) -> Value {
        let name = self.flat.state_name(node).unwrap_or_default();
        Value::Variable(Held::Node(*self.canonical.entry(name).or_insert(node)))
    }

    fn variable_behind(&mut self, handle: Source) -> Option<Value> {
        match self.flat.follow(handle, |op| op == "Identity")? {
            Source::Feed(feed) => {
                (self.is_held)(feed).then_some(Value::Variable(Held::Argument(feed)))
            }
            Source::Node { node, .. } => {
                is_variable(&self.flat.nodes[node as usize].def.op).then(|| self.variable(node))
            }
        }
    }

    /// The inputs of a node that is kept. Those that read a variable take its value.
    fn inputs(&mut self, node: u32) -> Result<Vec<Value>, Status> {
        let flat = self.flat;
        let inner = &flat.nodes[node as usize];
        let op = inner.def.op.as_str();
        let mut values = Vec::with_capacity(inner.inputs.len());
        for (index, &input) in inner.inputs.iter().enumerate() {
            let by_handle = index == 0 && self.variables && reads_by_handle(op);
            let value = match by_handle.then(|| self.variable_behind(input)).flatten() {
                Some(value) => value,
                None => self.value(input)?,
            };
            values.push(value);
        }
        Ok(values)
    }

    /// Appends what `value` needs, then what gives it.
    fn visit(&mut self, value: Value) -> Result<(), Status> {
        let mut open: Vec<(u32, Vec<Value>, usize)> = Vec::new();
        self.enter(value, &mut open)?;
        while let Some((node, inputs, next)) = open.last_mut() {
            if let Some(&input) = inputs.get(*next) {
                *next += 1;
                let is_merge = self.flat.nodes[*node as usize].def.op.ends_with("Merge");
                if is_merge && let Some(source) = self.closes_loop(input) {
                    self.loops.push(source);
                } else {
                    self.enter(input, &mut open)?;
                }
            } else {
                self.states[*node as usize] = State::Done;
                self.steps.push(Step::Keep { node: *node, inputs: std::mem::take(inputs) });
                open.pop();
            }
        }
        Ok(())
    }

    fn enter(
        &mut self,
        value: Value,
        open: &mut Vec<(u32, Vec<Value>, usize)>,
    ) -> Result<(), Status> {
        let node = match value {
            Value::Feed(_) => return Ok(()),
            // Its handle may be needed besides, for a branch or loop.
            Value::Variable(held) => {
                if self.held.insert(held) {
                    self.steps.push(Step::Variable(held));
                }
                return Ok(());
            }
            Value::Node { node, .. } => node,
        };
        match self.states[node as usize] {
            State::Done => Ok(()),
            State::Open => Err(Status::invalid_argument(format!(
                "node `{}` depends on itself",
                self.flat.name(node)
            ))),
            State::New => {
                self.states[node as usize] = State::Open;
                let inputs = self.inputs(node)?;
                open.push((node, inputs, 0));
                Ok(())
            }
        }
    }

    /// The tensor that closes a TF1 loop, if `value` is one.
    fn closes_loop(&self, value: Value) -> Option<Source> {
        let Value::Node { node, output } = value else { return None };
        let op = self.flat.nodes[node as usize].def.op.as_str();
        op.ends_with("NextIteration").then_some(Source::Node { node, output })
    }
}

/// Operators whose output is their first input.
fn passes(op: &str) -> bool {
    checks(op)
        || matches!(
            op,
            "Identity"
                | "RefIdentity"
                | "StopGradient"
                | "PreventGradient"
                | "Snapshot"
                | "PlaceholderWithDefault"
        )
}

/// Whether a branch or loop may come to a check, in whatever it calls.
fn holds_checks(program: &Program<'_>, flat: &Flat<'_>, node: u32) -> bool {
    fn named(node: &NodeDef) -> impl Iterator<Item = &str> {
        node.attr.values().flat_map(functions_named)
    }
    let mut seen: HashSet<&str> = HashSet::new();
    let mut pending: Vec<&str> = named(flat.nodes[node as usize].def).collect();
    while let Some(name) = pending.pop() {
        let Some((&name, function)) = program.functions.get_key_value(name) else { continue };
        if seen.insert(name) {
            if function.node_def.iter().any(|node| checks(&node.op)) {
                return true;
            }
            pending.extend(function.node_def.iter().flat_map(named));
        }
    }
    false
}

/// Operators that give nothing but an error.
fn checks(op: &str) -> bool {
    matches!(op, "CheckNumerics" | "CheckNumericsV2" | "EnsureShape" | "Assert")
}

/// Operators that read the variable whose handle is their first input.
pub(crate) fn reads_by_handle(op: &str) -> bool {
    matches!(op, "ResourceGather" | "ResourceGatherNd" | "VariableShape")
}

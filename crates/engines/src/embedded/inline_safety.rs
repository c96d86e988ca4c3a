//! Whether a loaded version may run inside the server's own process.
//!
//! Safe code, too, can take a process down: by a stack that overflows or by an allocation that
//! cannot be met. So only programs whose sizes follow from the sizes of their inputs run inline.
//!
//! May not know: requests. Invariant: says no when in doubt.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use vesta_protos::tensorflow::NodeDef;

use super::graph::split_tensor;
use super::plan::{Plan, Program, Step};

/// More nodes than this are not a short run.
const NODES_MAX: usize = 20_000;
/// The longest chain of nodes.
const DEPTH_MAX: usize = 5_000;

/// Operators whose output can be far larger than their inputs, by the values of an operand.
const SIZED_BY_VALUES: &[(&str, usize)] = &[
    ("Tile", 1),
    ("Fill", 0),
    ("BroadcastTo", 1),
    ("Range", 1),
    ("OneHot", 1),
    ("Pad", 1),
    ("PadV2", 1),
    ("MirrorPad", 1),
    ("ResizeBilinear", 1),
    ("ResizeNearestNeighbor", 1),
    ("ResizeBicubic", 1),
    ("SpaceToBatchND", 1),
    ("BatchToSpaceND", 1),
    ("ScatterNd", 2),
    ("Conv2DBackpropInput", 0),
];

/// Operators that run others a number of times that values decide.
const LOOPS: &[&str] = &[
    "While",
    "StatelessWhile",
    "If",
    "StatelessIf",
    "Case",
    "StatelessCase",
    "Enter",
    "Exit",
    "Switch",
    "Merge",
    "NextIteration",
    "LoopCond",
    "Map",
    "Scan",
];

/// Operators whose result is numbers that tell of shapes, not of values.
const SHAPES: &[&str] = &["Shape", "ShapeN", "Size", "Rank"];

/// Checks all signatures.
///
/// # Errors
/// Why the version may not run inline, in words for an operator of the server.
pub(crate) fn check(plan: &Plan) -> Result<(), String> {
    check_nodes(&plan.numeric.nodes)?;
    plan.programs.iter().try_for_each(check_program)
}

fn check_nodes(nodes: &[NodeDef]) -> Result<(), String> {
    if nodes.len() > NODES_MAX {
        return Err(format!("it has {} nodes, more than {NODES_MAX}", nodes.len()));
    }
    // Depth, and whether values (not only shapes) of an input flow into a tensor.
    let mut seen: HashMap<&str, (usize, bool)> = HashMap::new();
    for node in nodes {
        if LOOPS.contains(&node.op.as_str()) {
            return Err(format!("{} ({}) decides at run time how much is run", node.name, node.op));
        }
        let of = |input: &str| {
            let (name, _) = split_tensor(input).unwrap_or((input, 0));
            // What no node computes enters from outside.
            seen.get(name).copied().unwrap_or((0, true))
        };
        let inputs: Vec<(usize, bool)> = node.input.iter().map(|input| of(input)).collect();
        for (op, operand) in SIZED_BY_VALUES {
            if node.op == *op && inputs.get(*operand).is_some_and(|(_, by_values)| *by_values) {
                return Err(format!(
                    "the size of {} ({op}) depends on the values of an input",
                    node.name
                ));
            }
        }
        let depth = 1 + inputs.iter().map(|(depth, _)| *depth).max().unwrap_or(0);
        if depth > DEPTH_MAX {
            return Err(format!("it is more than {DEPTH_MAX} nodes deep"));
        }
        let by_values =
            !SHAPES.contains(&node.op.as_str()) && inputs.iter().any(|(_, by_values)| *by_values);
        seen.insert(&node.name, (depth, by_values));
    }
    Ok(())
}

fn check_program(program: &Program) -> Result<(), String> {
    if program.steps.len() > NODES_MAX {
        return Err(format!("it has {} steps, more than {NODES_MAX}", program.steps.len()));
    }
    let mut by_values: BTreeSet<usize> = program.feeds.iter().map(|(slot, _)| *slot).collect();
    let operands: BTreeMap<&str, usize> = SIZED_BY_VALUES.iter().copied().collect();
    for step in &program.steps {
        if let Step::Host { op, node, inputs, .. } = step {
            let sized = operands.get(op.as_str()).and_then(|&at| inputs.get(at));
            if sized.is_some_and(|slot| by_values.contains(slot)) {
                return Err(format!("the size of {node} ({op}) depends on the values of an input"));
            }
            if SHAPES.contains(&op.as_str()) {
                continue;
            }
        }
        if step.reads().any(|slot| by_values.contains(&slot)) {
            by_values.extend(step.fills());
        }
    }
    Ok(())
}

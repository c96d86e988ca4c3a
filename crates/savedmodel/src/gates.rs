//! Which branches of TF1 conditions tensors stand in.
//!
//! Knows `Switch`, `Merge` and the heads of loops. Invariant: a merge closes one condition, or it is not
//! known which.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use vesta_protos::tensorflow::NodeDef;

use crate::graph::split_tensor_name;

/// The tensor that tells which branch is taken.
pub(crate) type Predicate = String;

/// The open branches of a tensor.
type Sides = Rc<BTreeSet<(Predicate, bool)>>;

/// The branches of a graph.
#[derive(Debug, Default)]
pub(crate) struct Gates {
    closed: HashMap<String, (Predicate, [bool; 2])>,
}

impl Gates {
    /// Those of `nodes`, which stand in the order they can run.
    pub(crate) fn of(nodes: &[NodeDef]) -> Gates {
        let ops: HashMap<&str, &str> =
            nodes.iter().map(|node| (node.name.as_str(), node.op.as_str())).collect();
        let op = |tensor: &str| ops.get(split_tensor_name(tensor).0).copied().unwrap_or_default();
        let mut gates = Gates::default();
        let mut open: HashMap<String, Sides> = HashMap::new();
        for node in nodes {
            let of = |tensor: &String| {
                let name = split_tensor_name(tensor).0;
                // Only a switch's outputs differ.
                open.get(tensor).or_else(|| open.get(name)).cloned().unwrap_or_default()
            };
            let is_switch = node.op == "Switch" && node.input.len() == 2;
            if is_switch && op(&node.input[1]) != "LoopCond" {
                let around = union([of(&node.input[0]), of(&node.input[1])]);
                for (output, side) in [(0, false), (1, true)] {
                    let mut sides = (*around).clone();
                    sides.insert((node.input[1].clone(), side));
                    open.insert(format!("{}:{output}", node.name), Rc::new(sides));
                }
                continue;
            }
            let is_header = node.input.iter().any(|input| op(input) == "NextIteration");
            let sides = match &node.input[..] {
                [first, second] if node.op == "Merge" && !is_header => {
                    let given = [of(first), of(second)];
                    let all = union(given.clone());
                    match closing(&given, |predicate| of(predicate)) {
                        Some((predicate, sides)) => {
                            let rest = all.iter().filter(|(own, _)| *own != predicate).cloned();
                            let rest = Rc::new(rest.collect());
                            gates.closed.insert(node.name.clone(), (predicate, sides));
                            rest
                        }
                        None => all,
                    }
                }
                inputs => union(inputs.iter().map(of)),
            };
            if !sides.is_empty() {
                open.insert(node.name.clone(), sides);
            }
        }
        gates
    }

    /// The condition that a merge closes, and which side each of its inputs is.
    pub(crate) fn closed_by(&self, merge: &str) -> Option<&(Predicate, [bool; 2])> {
        self.closed.get(merge)
    }
}

fn union(all: impl IntoIterator<Item = Sides>) -> Sides {
    let mut merged = Sides::default();
    for sides in all {
        if merged.is_empty() {
            merged = sides;
        } else if !sides.is_subset(&merged) {
            merged = Rc::new(merged.union(&sides).cloned().collect());
        }
    }
    merged
}

/// The condition whose two sides the inputs of a merge are. A side that is constant tells none; then the
/// other is the innermost that is open.
fn closing(given: &[Sides; 2], of: impl Fn(&Predicate) -> Sides) -> Option<(Predicate, [bool; 2])> {
    let [first, second] = given;
    let mut opposed = first.iter().filter(|(own, side)| second.contains(&(own.clone(), !side)));
    if let Some((predicate, side)) = opposed.next() {
        return opposed.next().is_none().then(|| (predicate.clone(), [*side, !side]));
    }
    let (told, is_first) = match (first.is_subset(second), second.is_subset(first)) {
        (false, true) => (first.difference(second), true),
        (true, false) => (second.difference(first), false),
        _ => return None,
    };
    let told: Vec<&(Predicate, bool)> = told.collect();
    let is_innermost = |(predicate, _): &&&(Predicate, bool)| {
        let around = of(predicate);
        told.iter().all(|other| other.0 == *predicate || around.contains(*other))
    };
    let mut innermost = told.iter().filter(is_innermost);
    let (Some((predicate, side)), None) = (innermost.next(), innermost.next()) else { return None };
    Some((predicate.clone(), if is_first { [*side, !side] } else { [!side, *side] }))
}

//! What is written around nodes of a translation that OpenVINO computes otherwise than TensorFlow: it loses
//! NaN at some operators, and takes an index that is out of range for one of a zero.
//!
//! Invariant: a guarded model computes what the translation means; a run that must end with an error does.

use std::collections::{BTreeMap, BTreeSet};

use vesta_model::DType;
use vesta_onnx::{Translation, ValueFacts};
use vesta_protos::onnx::NodeProto;
use vesta_protos::onnx::tensor_proto::DataType;

use crate::guards::{add_constant, add_nan, cast, graphs_within, node, node_with, with_nan};
use crate::ordinary::Ordinary;

/// Operators of one float that lose NaN. `Erf` does not by itself, but OpenVINO makes one operator of it
/// and what stands around it in a GELU, which on some processors gives NaN for infinity; a guard between
/// keeps it from that.
const OF_ONE: [&str; 4] = ["Relu", "Clip", "Erf", "Exp"];

/// Comparisons that hold for NaN on some processors, and what says the same of the operands in the other
/// order.
const TURNED: [(&str, &str); 2] = [("Greater", "Less"), ("GreaterOrEqual", "LessOrEqual")];

/// Numbers as vectors. No tensor of TensorFlow's has such a name.
const AXES: &str = "?zero_and_one";
const ZERO: &str = "?zero";
const ZERO_NARROW: &str = "?zero_narrow";

/// Whether the operator has a guard for NaN.
pub(super) fn guards_nan(op: &str, dtype: DType) -> bool {
    let is_one = OF_ONE.contains(&op) || matches!(op, "Max" | "Min" | "ReduceMax" | "ReduceMin");
    is_one && dtype == DType::F32
}

/// Guards a translation, in graphs within the graph, too; but for NaN where `ordinary` knows that there is
/// none.
pub(super) fn guard(translation: &mut Translation, ordinary: &Ordinary) {
    let Translation { model, values, .. } = translation;
    let Some(graph) = &mut model.graph else { return };
    let mut guards = Guards { values, ordinary, numbers: BTreeSet::new(), picks: false };
    graph.node = guards.around(std::mem::take(&mut graph.node));
    let Guards { numbers, picks, .. } = guards;
    for number in numbers {
        add_nan(graph, number);
    }
    if picks {
        let wide = DataType::Int64 as i32;
        add_constant(graph, AXES, wide, &[2], &[0i64.to_le_bytes(), 1i64.to_le_bytes()].concat());
        add_constant(graph, ZERO, wide, &[1], &0i64.to_le_bytes());
        add_constant(graph, ZERO_NARROW, DataType::Int32 as i32, &[1], &0i32.to_le_bytes());
    }
}

/// What was guarded so far.
struct Guards<'t> {
    values: &'t BTreeMap<String, ValueFacts>,
    ordinary: &'t Ordinary,
    /// Types of which a NaN is needed.
    numbers: BTreeSet<i32>,
    /// Whether something is picked by an index that a run computes.
    picks: bool,
}

impl Guards<'_> {
    /// The nodes of one graph with their guards.
    fn around(&mut self, nodes: Vec<NodeProto>) -> Vec<NodeProto> {
        let mut guarded = Vec::with_capacity(nodes.len());
        for mut own in nodes {
            for inner in graphs_within(&mut own) {
                inner.node = self.around(std::mem::take(&mut inner.node));
            }
            if self.ordinary.needs_no_guard(&own) {
                guarded.push(own);
                continue;
            }
            let facts = own.input.first().and_then(|name| self.values.get(name));
            let turned = TURNED.iter().find(|(op, _)| *op == own.op_type);
            if let (Some((_, other)), Some(DType::F32)) = (turned, facts.map(|facts| facts.dtype)) {
                own.op_type = (*other).to_owned();
                own.input.reverse();
                guarded.push(own);
                continue;
            }
            match (own.op_type.as_str(), facts.map(|facts| facts.dtype)) {
                (op, Some(DType::F32)) if OF_ONE.contains(&op) => guarded.extend(or_nan(own, 1)),
                ("Max" | "Min", Some(DType::F32)) => guarded.extend(or_nan(own, 2)),
                ("ReduceMax" | "ReduceMin", Some(DType::F32)) => {
                    self.numbers.insert(DataType::Float as i32);
                    guarded.extend(with_nan(own, DataType::Float as i32));
                }
                ("Gather", _) => guarded.extend(self.within_range(own)),
                _ => guarded.push(own),
            }
        }
        guarded
    }

    /// A node that picks by indices, each of which must be there: else something is put past the end of a
    /// row of one zero, which is an error, under the node's name, which may say what is wrong.
    fn within_range(&mut self, mut gather: NodeProto) -> Vec<NodeProto> {
        let ([read, index], Some(output)) = (&gather.input[..], gather.output.first()) else {
            return vec![gather];
        };
        let Some(facts) = self.values.get(index).filter(|facts| !facts.is_constant) else {
            return vec![gather];
        };
        let (is_narrow, index) = (facts.dtype == DType::I32, index.clone());
        self.picks = true;
        let named = |what: &str| format!("{output}?{what}");
        let axis = gather.attribute.iter().find(|own| own.name == "axis").and_then(|own| own.i);
        let (start, wide) = (axis.unwrap_or(0), named("wide"));
        let mut nodes = vec![node_with(("start", start), "Shape", &[read], &named("sizes"))];
        let first = node_with(("axis", 0), "Gather", &[&named("sizes"), ZERO], &named("size"));
        nodes.push(first);
        nodes.push(cast(&index, &wide, DataType::Int64));
        nodes.push(node("Neg", &[&named("size")], &named("lowest")));
        nodes.push(node("Less", &[&wide, &named("lowest")], &named("below")));
        nodes.push(node("GreaterOrEqual", &[&wide, &named("size")], &named("past")));
        nodes.push(node("Or", &[&named("below"), &named("past")], &named("out")));
        nodes.push(cast(&named("out"), &named("marks"), DataType::Int32));
        let count = named("count");
        nodes.push(node_with(("keepdims", 0), "ReduceSum", &[&named("marks")], &count));
        nodes.push(cast(&count, &named("count_wide"), DataType::Int64));
        nodes.push(node("Unsqueeze", &[&named("count_wide"), AXES], &named("place")));
        // OpenVINO may call a node by its output.
        let nothing = format!("{}?nothing", gather.name);
        let zero = if is_narrow { ZERO_NARROW } else { ZERO };
        let mut placed = node("ScatterND", &[zero, &named("place"), zero], &nothing);
        placed.name.clone_from(&gather.name);
        nodes.push(placed);
        gather.name.push_str("?picked");
        let number = named("number");
        nodes.push(node_with(("keepdims", 0), "ReduceSum", &[&nothing, ZERO], &number));
        nodes.push(node("Add", &[&index, &number], &named("index")));
        gather.input[1] = named("index");
        nodes.push(gather);
        nodes
    }
}

/// A node of floats that gives NaN where one of its first `count` inputs is NaN.
fn or_nan(mut own: NodeProto, count: usize) -> Vec<NodeProto> {
    let (Some(output), Some(read)) = (own.output.first().cloned(), own.input.get(..count)) else {
        return vec![own];
    };
    let read = read.to_vec();
    let named = |what: &str, number: usize| format!("{output}?{what}{number}");
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let mut inner = named("without", 0);
    own.output[0].clone_from(&inner);
    for (number, input) in read.iter().enumerate() {
        before.push(node("IsNaN", &[input], &named("is_nan", number)));
        let is_last = number + 1 == read.len();
        let outer = if is_last { output.clone() } else { named("with", number) };
        after.push(node("Where", &[&named("is_nan", number), input, &inner], &outer));
        inner = outer;
    }
    before.push(own);
    before.extend(after);
    before
}

#[cfg(test)]
mod tests {
    use super::*;
    use vesta_model::PartialShape;
    use vesta_protos::onnx::{GraphProto, ModelProto};

    /// What is written for one node of `a` and `b`.
    fn guarded(op: &str, dtype: DType) -> Vec<NodeProto> {
        let shape = PartialShape::Ranked(vec![None]);
        let facts = ValueFacts { dtype, shape, is_constant: false };
        let values = ["a", "b"].map(|name| (name.to_owned(), facts.clone())).into_iter().collect();
        let graph = GraphProto { node: vec![node(op, &["a", "b"], "y")], ..Default::default() };
        let model = ModelProto { graph: Some(graph), ..Default::default() };
        let (inputs, outputs, operators) = Default::default();
        let mut translation = Translation { model, inputs, outputs, operators, values };
        guard(&mut translation, &Ordinary::default());
        translation.model.graph.unwrap().node
    }

    fn operators(nodes: &[NodeProto]) -> Vec<&str> {
        nodes.iter().map(|node| node.op_type.as_str()).collect()
    }

    #[test]
    fn comparisons_are_asked_the_other_way_round() {
        for (op, other) in [("Greater", "Less"), ("GreaterOrEqual", "LessOrEqual")] {
            let nodes = guarded(op, DType::F32);
            assert_eq!(operators(&nodes), [other]);
            assert_eq!(nodes[0].input, ["b", "a"]);
            let whole = guarded(op, DType::I32);
            assert_eq!(operators(&whole), [op]);
            assert_eq!(whole[0].input, ["a", "b"]);
        }
        assert_eq!(guarded("Less", DType::F32)[0].input, ["a", "b"]);
    }

    #[test]
    fn operators_that_lose_nan_are_followed_by_a_choice() {
        for op in ["Relu", "Clip", "Erf", "Exp"] {
            let nodes = guarded(op, DType::F32);
            assert_eq!(operators(&nodes), ["IsNaN", op, "Where"], "{op}");
            let [is_nan, own, choice] = &nodes[..] else { unreachable!() };
            assert_eq!(is_nan.input, ["a"]);
            assert_eq!(choice.input, [&is_nan.output[0], "a", &own.output[0]]);
            assert_eq!(choice.output, ["y"]);
            assert_eq!(operators(&guarded(op, DType::I32)), [op]);
        }
        let two = ["IsNaN", "IsNaN", "Max", "Where", "Where"];
        assert_eq!(operators(&guarded("Max", DType::F32)), two);
    }

    #[test]
    fn indices_that_a_run_gives_are_looked_at() {
        let nodes = guarded("Gather", DType::F32);
        assert_eq!(operators(&nodes).last(), Some(&"Gather"));
        assert_ne!(nodes.last().unwrap().input[1], "b");
        assert!(operators(&nodes).contains(&"ScatterND"));
    }
}

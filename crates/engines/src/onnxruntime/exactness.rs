//! What ONNX Runtime computes otherwise than TensorFlow: such a translation is refused, or guarded.
//!
//! Owns the list, which `crates/engines/tests/operators` earns. May not know: TensorFlow's operators.
//! Invariant: a guarded model computes what the translation means.

use std::collections::{BTreeMap, BTreeSet};

use vesta_model::{DType, Status};
use vesta_onnx::{OperatorUse, Translation, ValueFacts};
use vesta_protos::onnx::NodeProto;
use vesta_protos::onnx::tensor_proto::DataType;

use crate::guards::{self, add_constant, add_nan, graphs_within, node, with_nan};
use crate::ordinary::Ordinary;

/// Operators that it computes in another way for these dtypes, and how that shows.
const OTHERWISE: &[(&str, &[DType], &str)] = &[
    ("Clip", &[DType::I64, DType::U64], NARROWED),
    ("Max", &[DType::U64], NARROWED),
    ("Min", &[DType::U64], NARROWED),
    ("ReduceProd", &[DType::I64, DType::U64], NARROWED),
    ("Relu", &[DType::I64, DType::U64], NARROWED),
    ("Sign", &[DType::I64, DType::U64], NARROWED),
    ("MaxPool", &[DType::BF16, DType::F64], "NaN is lost"),
    ("ReduceMax", &[DType::BF16], WITHOUT_NAN),
    ("ReduceMin", &[DType::BF16], WITHOUT_NAN),
];

const NARROWED: &str = "numbers beyond 32 bits are cut";
const WITHOUT_NAN: &str = "NaN is passed over";

/// Refuses a translation that has such an operator.
///
/// # Errors
/// `UNIMPLEMENTED`, naming each with a node where it stands.
pub(crate) fn check(translation: &Translation) -> Result<(), Status> {
    let otherwise = |(used, node): (&OperatorUse, &String)| {
        let reads = |dtypes: &[DType]| used.inputs.first().is_some_and(|own| dtypes.contains(own));
        // Of two whole numbers there is a guard.
        let is_unguarded = matches!(used.op.as_str(), "Max" | "Min")
            && reads(&[DType::I64])
            && used.inputs.len() != 2;
        let listed = OTHERWISE.iter().find(|(op, dtypes, _)| *op == used.op && reads(dtypes));
        let why = listed.map(|(_, _, why)| *why).or(is_unguarded.then_some(NARROWED))?;
        Some(format!("{} of {} at {node} ({why})", used.op, used.inputs[0]))
    };
    let found: Vec<String> = translation.operators.iter().filter_map(otherwise).collect();
    if found.is_empty() {
        return Ok(());
    }
    Err(Status::unimplemented(format!(
        "ONNX Runtime computes operators otherwise than TensorFlow: {}",
        found.join("; ")
    )))
}

/// Whether the operator has a guard for NaN.
pub(super) fn guards_nan(op: &str, dtype: DType) -> bool {
    matches!(op, "MaxPool" | "ReduceMax" | "ReduceMin") && dtype == DType::F32
}

/// Makes maxima and minima exact and treat NaN as TensorFlow's do, in graphs within the graph, too; but
/// for NaN where `ordinary` knows that there is none.
pub(super) fn guard(translation: &mut Translation, ordinary: &Ordinary) {
    let Translation { model, values, .. } = translation;
    let Some(graph) = &mut model.graph else { return };
    let padded = graph.node.iter().filter(|node| node.op_type == "Pad");
    let padded = padded.flat_map(|node| node.output.clone()).collect();
    let (windows, numbers) = (false, BTreeSet::new());
    let mut guards = Guards { values, ordinary, padded, count: 0, windows, numbers };
    graph.node = guards.around(std::mem::take(&mut graph.node));
    let Guards { windows, numbers, .. } = guards;
    // Graphs within see the constants of those around them.
    if windows {
        add_constant(graph, LOWEST, DataType::Float as i32, &[], &f32::MIN.to_le_bytes());
    }
    for number in numbers {
        add_nan(graph, number);
    }
}

/// What was guarded so far.
struct Guards<'t> {
    values: &'t BTreeMap<String, ValueFacts>,
    ordinary: &'t Ordinary,
    /// What `Pad` gives.
    padded: BTreeSet<String>,
    /// Guarded windows: names are told apart by it.
    count: usize,
    windows: bool,
    /// Types of which a NaN is needed.
    numbers: BTreeSet<i32>,
}

impl Guards<'_> {
    /// The nodes of one graph with their guards.
    fn around(&mut self, nodes: Vec<NodeProto>) -> Vec<NodeProto> {
        let mut guarded = Vec::with_capacity(nodes.len());
        for mut node in nodes {
            for inner in graphs_within(&mut node) {
                inner.node = self.around(std::mem::take(&mut inner.node));
            }
            if self.ordinary.needs_no_guard(&node) && !self.is_padded_pool(&node) {
                guarded.push(node);
                continue;
            }
            let facts = node.input.first().and_then(|name| self.values.get(name));
            let dtype = facts.map(|facts| facts.dtype);
            let is_of_half = matches!(node.op_type.as_str(), "MaxPool" | "ReduceMax" | "ReduceMin")
                && dtype == Some(DType::F16);
            let (dtype, narrower) = if is_of_half {
                let (wider, narrower) = self.in_float(&mut node);
                guarded.push(wider);
                (Some(DType::F32), Some(narrower))
            } else {
                (dtype, None)
            };
            match (node.op_type.as_str(), dtype, node.input.first_mut()) {
                ("MaxPool", Some(DType::F32), Some(read)) => {
                    self.windows = true;
                    self.count += 1;
                    let name = format!("{read}?without_nan{}", self.count);
                    guarded.extend(without_nan(read, &name));
                    *read = name;
                    guarded.push(node);
                }
                ("ReduceMax" | "ReduceMin", Some(DType::F32), _) => {
                    self.numbers.insert(DataType::Float as i32);
                    guarded.extend(with_nan(node, DataType::Float as i32));
                }
                ("ReduceMax" | "ReduceMin", Some(DType::F64), _) => {
                    self.numbers.insert(DataType::Double as i32);
                    guarded.extend(with_nan(node, DataType::Double as i32));
                }
                ("Max" | "Min", Some(DType::I64), _) => guarded.extend(by_comparing(node)),
                _ => guarded.push(node),
            }
            guarded.extend(narrower);
        }
        guarded
    }

    /// Whether a pool reads what was padded. ONNX Runtime makes one operator of both and takes no zeros of the
    /// padding for the largest, whatever its number; a guard between keeps it from that.
    fn is_padded_pool(&self, node: &NodeProto) -> bool {
        node.op_type == "MaxPool" && node.input.iter().any(|input| self.padded.contains(input))
    }

    /// Makes a node of half read and give floats, which hold every half; gives the casts before and
    /// behind it.
    fn in_float(&mut self, node_of_half: &mut NodeProto) -> (NodeProto, NodeProto) {
        self.count += 1;
        let cast = |name: &mut String, way: &str, to: DataType| {
            let other = format!("{name}?{way}{}", self.count);
            let own = std::mem::replace(name, other.clone());
            let (read, given) = if to == DataType::Float { (own, other) } else { (other, own) };
            guards::cast(&read, &given, to)
        };
        let mut none = String::new();
        let read = node_of_half.input.first_mut().unwrap_or(&mut none);
        let wider = cast(read, "in_float", DataType::Float);
        let mut none = String::new();
        let given = node_of_half.output.first_mut().unwrap_or(&mut none);
        let narrower = cast(given, "of_float", DataType::Float16);
        // Nodes have the names of what they give.
        node_of_half.name.clone_from(given);
        (wider, narrower)
    }
}

/// The name of the least number. No tensor of TensorFlow's has such a name.
const LOWEST: &str = "?lowest";

/// Puts the least number in the place of NaN: over windows TensorFlow's maximum passes over it, and
/// ONNX Runtime's loses what it saw before.
fn without_nan(read: &str, name: &str) -> [NodeProto; 2] {
    let is_nan = format!("{name}/is");
    [node("IsNaN", &[read], &is_nan), node("Where", &[&is_nan, LOWEST, read], name)]
}

/// The larger or smaller of whole numbers by comparing them, which is exact: the kernel of the operator
/// itself cuts them to 32 bits.
fn by_comparing(node_of_two: NodeProto) -> Vec<NodeProto> {
    let ([a, b], Some(output)) = (&node_of_two.input[..], node_of_two.output.first()) else {
        return vec![node_of_two];
    };
    let compares = if node_of_two.op_type == "Max" { "Greater" } else { "Less" };
    let is_first = format!("{output}?is_first");
    vec![node(compares, &[a, b], &is_first), node("Where", &[&is_first, a, b], output)]
}

#[cfg(test)]
mod tests {
    use vesta_model::PartialShape;
    use vesta_protos::onnx::type_proto::{Tensor, Value};
    use vesta_protos::onnx::{GraphProto, ModelProto, TypeProto, ValueInfoProto};

    use super::*;

    #[test]
    fn a_pool_of_what_was_padded_keeps_its_guard() {
        let operators = |nodes: Vec<NodeProto>| {
            let shape = PartialShape::Ranked(vec![Some(1); 4]);
            let facts = ValueFacts { dtype: DType::F32, shape, is_constant: false };
            let values = ["x", "a"].map(|name| (name.to_owned(), facts.clone())).into();
            let floats = Value::TensorType(Tensor { elem_type: 1, shape: None });
            let r#type = Some(TypeProto { value: Some(floats), ..TypeProto::default() });
            let input = ValueInfoProto { name: "x".to_owned(), r#type, ..Default::default() };
            let graph = GraphProto { node: nodes, input: vec![input], ..GraphProto::default() };
            let model = ModelProto { graph: Some(graph), ..ModelProto::default() };
            let (inputs, outputs, operators) = (vec!["x".to_owned()], vec![], Default::default());
            let mut translation = Translation { model, inputs, outputs, operators, values };
            let ordinary = Ordinary::of(&translation, guards_nan);
            guard(&mut translation, &ordinary);
            let nodes = translation.model.graph.unwrap().node;
            nodes.iter().map(|node| node.op_type.clone()).collect::<Vec<_>>().join(" ")
        };
        let pool = || node("MaxPool", &["a"], "y");
        // A bound of one, whatever it is fed.
        let bounded = |op: &str| vec![node("Sigmoid", &["x"], "s"), node(op, &["s"], "a"), pool()];
        assert_eq!(operators(bounded("Neg")), "Sigmoid Neg MaxPool");
        assert_eq!(operators(bounded("Pad")), "Sigmoid Pad IsNaN Where MaxPool");
    }
}

//! A twin of a graph for runs whose values are surely finite.
//!
//! rten's own `Relu` and `Clip` work in place with vectors, but make a bound of a NaN, where TensorFlow
//! passes it on, and its `MaxPool` gives infinity for a window without a number. For values that have a bound
//! the twin has rten's own operators. A run takes the twin when its inputs are numbers of at most
//! [`INPUT_MAX`]; any other takes the graph as it is.
//!
//! May not know: rten. Invariant: the twin gives what the graph gives, for every run that takes it.

use std::collections::{BTreeMap, HashMap, HashSet};

use vesta_onnx::ValueFacts;
use vesta_protos::onnx::{ModelProto, NodeProto};

use crate::bounds::Magnitudes;

/// The largest magnitude of an input for which there is a twin.
pub(super) const INPUT_MAX: f32 = 65_536.0;

/// Ends of the names of what the twin has for itself.
const TWIN: &str = "~finite";

/// A twin that was written into a model.
#[derive(Debug, Default)]
pub(super) struct Twin {
    /// Its values for the outputs of the model, in the order asked for.
    pub(super) outputs: Vec<String>,
    /// Values that rten's own operators give, as they are.
    pub(super) own: HashSet<String>,
}

impl Twin {
    /// The value of the graph that a value of the twin's stands for.
    pub(super) fn original(name: &str) -> &str {
        name.strip_suffix(TWIN).unwrap_or(name)
    }
}

/// Writes a twin beside the graph of `model`, with the values of its own among the outputs; `None`
/// where nothing would be gained.
pub(super) fn write_twin(
    model: &mut ModelProto,
    inputs: &[String],
    outputs: &[String],
    values: &BTreeMap<String, ValueFacts>,
) -> Option<Twin> {
    let graph = model.graph.as_mut()?;
    let magnitudes = Magnitudes::new(graph, inputs, values, None);
    let bounds = magnitudes.bounds(f64::from(INPUT_MAX), &HashMap::new()).known;
    let is_loose = |node: &&NodeProto| {
        matches!(node.op_type.as_str(), "Clip" | "MaxPool" | "Relu")
            && node.input.first().is_some_and(|input| bounds.contains_key(input.as_str()))
    };
    let loose: HashSet<String> =
        graph.node.iter().filter(is_loose).flat_map(|node| node.output.clone()).collect();
    if loose.is_empty() || graph.node.iter().any(has_graph) {
        return None;
    }
    let mut renamed: HashMap<String, String> = HashMap::new();
    let mut twins = Vec::new();
    for node in &graph.node {
        let is_loose = node.output.iter().any(|output| loose.contains(output));
        if !is_loose && !node.input.iter().any(|input| renamed.contains_key(input)) {
            continue;
        }
        let mut twin = node.clone();
        for input in &mut twin.input {
            if let Some(other) = renamed.get(input) {
                input.clone_from(other);
            }
        }
        for output in twin.output.iter_mut().filter(|output| !output.is_empty()) {
            let other = format!("{output}{TWIN}");
            renamed.insert(std::mem::replace(output, other.clone()), other);
        }
        twins.push(twin);
    }
    let of = |name: &String| renamed.get(name).unwrap_or(name).clone();
    let own = loose.iter().map(of).collect();
    let infos: Vec<_> = graph
        .output
        .iter()
        .filter_map(|info| {
            let mut info = info.clone();
            info.name = renamed.get(&info.name)?.clone();
            Some(info)
        })
        .collect();
    graph.output.extend(infos);
    graph.node.extend(twins);
    Some(Twin { outputs: outputs.iter().map(of).collect(), own })
}

fn has_graph(node: &NodeProto) -> bool {
    node.attribute.iter().any(|attribute| attribute.g.is_some() || !attribute.graphs.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guards::node;
    use vesta_model::{DType, PartialShape};
    use vesta_protos::onnx::tensor_proto::DataType;
    use vesta_protos::onnx::type_proto::{Tensor, Value};
    use vesta_protos::onnx::{GraphProto, TensorProto, TypeProto, ValueInfoProto};

    fn floats(name: &str, dims: &[i64], value: f32) -> TensorProto {
        let count: i64 = dims.iter().product();
        let bytes = value.to_le_bytes().repeat(usize::try_from(count).unwrap());
        TensorProto {
            name: name.to_owned(),
            data_type: DataType::Float as i32,
            dims: dims.to_vec(),
            raw_data: bytes.into(),
            ..TensorProto::default()
        }
    }

    fn info(name: &str) -> ValueInfoProto {
        let tensor = Tensor { elem_type: DataType::Float as i32, shape: None };
        let r#type = TypeProto { value: Some(Value::TensorType(tensor)), ..TypeProto::default() };
        ValueInfoProto { name: name.to_owned(), r#type: Some(r#type), ..ValueInfoProto::default() }
    }

    /// A model of `x` and `y`, and its twin.
    fn twin(nodes: Vec<NodeProto>, weights: Vec<TensorProto>) -> (GraphProto, Option<Twin>) {
        let graph = GraphProto {
            node: nodes,
            initializer: weights,
            input: vec![info("x")],
            output: vec![info("y")],
            ..GraphProto::default()
        };
        let mut model = ModelProto { graph: Some(graph), ..ModelProto::default() };
        let shape = PartialShape::Ranked(vec![None, Some(4)]);
        let facts = ValueFacts { dtype: DType::F32, shape, is_constant: false };
        let values = [("a".to_owned(), facts)].into();
        let twin = write_twin(&mut model, &["x".to_owned()], &["y".to_owned()], &values);
        (model.graph.unwrap(), twin)
    }

    #[test]
    fn what_follows_an_activation_has_a_twin() {
        let nodes = vec![
            node("MatMul", &["x", "w"], "a"),
            node("Relu", &["a"], "b"),
            node("Concat", &["b", "a"], "y"),
        ];
        let (graph, twin) = twin(nodes, vec![floats("w", &[4, 4], 0.5)]);
        let twin = twin.unwrap();
        assert_eq!(twin.outputs, ["y~finite"]);
        assert_eq!(twin.own, HashSet::from(["b~finite".to_owned()]));
        let added = &graph.node[3..];
        assert_eq!(added[0].input, ["a"]);
        assert_eq!(added[1].input, ["b~finite", "a"]);
        assert_eq!(graph.output[1].name, "y~finite");
    }

    #[test]
    fn what_may_overflow_has_none() {
        let chain = |times: usize| {
            let mut nodes = vec![];
            for at in 0..times {
                let from = if at == 0 { "x".to_owned() } else { format!("p{at}") };
                nodes.push(node("MatMul", &[&from, "w"], &format!("p{}", at + 1)));
            }
            nodes.push(node("Relu", &[&format!("p{times}")], "y"));
            nodes
        };
        let weights = |value| vec![floats("w", &[4, 4], value)];
        // 2^16 times 4e4 for each product.
        assert!(twin(chain(6), weights(1e4)).1.is_some());
        assert!(twin(chain(8), weights(1e4)).1.is_none());
        assert!(twin(chain(1), weights(f32::NAN)).1.is_none());
        assert!(twin(chain(1), weights(f32::INFINITY)).1.is_none());
    }

    #[test]
    fn what_may_be_no_number_has_none() {
        let after = |op: &str| vec![node(op, &["x"], "a"), node("Relu", &["a"], "y")];
        assert!(twin(after("Tanh"), vec![]).1.is_some());
        for op in ["Log", "Sqrt", "Exp", "Reciprocal", "Unheard"] {
            assert!(twin(after(op), vec![]).1.is_none(), "{op}");
        }
    }

    #[test]
    fn a_clip_has_its_own_bounds() {
        let weights =
            || vec![floats("w", &[4, 4], 1e20), floats("low", &[], 0.0), floats("high", &[], 6.0)];
        let nodes = |clip: &[&str]| {
            vec![
                node("MatMul", &["x", "w"], "a"),
                node("Clip", clip, "b"),
                node("MatMul", &["b", "w"], "c"),
                node("Relu", &["c"], "y"),
            ]
        };
        let own = |clip: &[&str]| twin(nodes(clip), weights()).1.unwrap().own.len();
        assert_eq!(own(&["a", "low", "high"]), 2);
        assert_eq!(own(&["a", "low", ""]), 1);
        assert_eq!(own(&["a", "low"]), 1);
    }

    #[test]
    fn the_mean_of_nothing_is_no_number() {
        let after = |from: &str, axes: Vec<i64>| {
            let known = node("Tanh", &["x"], "a");
            let mean = node("ReduceMean", &[from, "axes"], "m");
            let axes = TensorProto {
                name: "axes".to_owned(),
                data_type: DataType::Int64 as i32,
                dims: vec![axes.len() as i64],
                raw_data: axes.iter().flat_map(|axis| axis.to_le_bytes()).collect(),
                ..TensorProto::default()
            };
            twin(vec![known, mean, node("Relu", &["m"], "y")], vec![axes]).1.is_some()
        };
        // Of `a`, the first size is open and the second is 4; of `x` nothing is known.
        assert!(after("a", vec![1]));
        assert!(after("a", vec![-1]));
        for open in [vec![0], vec![0, 1], vec![-2], vec![2], vec![-3], vec![]] {
            assert!(!after("a", open.clone()), "{open:?}");
        }
        assert!(!after("x", vec![1]));
    }
}

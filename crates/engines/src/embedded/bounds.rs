//! Which values of a graph are surely finite, and a twin of the graph that makes use of it.
//!
//! rten's own `Relu` and `Clip` work in place with vectors, but make a bound of a NaN, where TensorFlow
//! passes it on. Sums and products of finite numbers that cannot overflow are never NaN: before the
//! activations of such values the twin has rten's own operators. A run takes the twin when its inputs
//! are numbers of at most [`INPUT_MAX`]; any other takes the graph as it is.
//!
//! May not know: rten. Invariant: a value is in the table only with a bound that holds for every run of
//! the twin, roundings included.

use std::collections::{BTreeMap, HashMap, HashSet};

use vesta_model::PartialShape;
use vesta_onnx::ValueFacts;
use vesta_protos::onnx::tensor_proto::DataType;
use vesta_protos::onnx::{GraphProto, ModelProto, NodeProto, TensorProto};

/// The largest magnitude of an input for which the table is made.
pub(super) const INPUT_MAX: f32 = 65_536.0;

/// The largest bound in the table: so far from overflow that roundings of long sums do not matter.
const BOUND_MAX: f64 = 1e37;

/// The longest sum in which they do not.
const SUMMANDS_MAX: usize = 1 << 22;

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

/// Writes a twin beside the graph of `model`, with the values of its own among the outputs; `None`
/// where nothing would be gained.
pub(super) fn write_twin(
    model: &mut ModelProto,
    inputs: &[String],
    outputs: &[String],
    values: &BTreeMap<String, ValueFacts>,
) -> Option<Twin> {
    let graph = model.graph.as_mut()?;
    let bounds = bounds(graph, inputs, values);
    let is_loose = |node: &&NodeProto| {
        matches!(node.op_type.as_str(), "Relu" | "Clip")
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

/// Bounds of magnitudes, by the names of values.
fn bounds<'g>(
    graph: &'g GraphProto,
    inputs: &'g [String],
    values: &BTreeMap<String, ValueFacts>,
) -> HashMap<&'g str, f64> {
    let of = |dtype: i32| {
        let own = graph.initializer.iter().filter(move |tensor| tensor.data_type == dtype);
        own.map(|tensor| (tensor.name.as_str(), tensor)).collect::<HashMap<_, _>>()
    };
    let (weights, axes) = (of(DataType::Float as i32), of(DataType::Int64 as i32));
    let floats: HashSet<&str> = graph.input.iter().filter_map(float_input).collect();
    let mut known: HashMap<&str, f64> = inputs
        .iter()
        .filter(|input| floats.contains(input.as_str()))
        .map(|input| (input.as_str(), f64::from(INPUT_MAX)))
        .collect();
    for node in &graph.node {
        let step = Step { node, known: &known, weights: &weights, axes: &axes, values };
        let Some(bound) = step.bound().filter(|bound| *bound <= BOUND_MAX) else { continue };
        known.extend(node.output.iter().map(|output| (output.as_str(), bound)));
    }
    known
}

fn float_input(info: &vesta_protos::onnx::ValueInfoProto) -> Option<&str> {
    use vesta_protos::onnx::type_proto::Value;
    match info.r#type.as_ref()?.value.as_ref()? {
        Value::TensorType(tensor) if tensor.elem_type == DataType::Float as i32 => Some(&info.name),
        _ => None,
    }
}

/// A node whose inputs may have bounds.
struct Step<'s, 'g> {
    node: &'g NodeProto,
    known: &'s HashMap<&'g str, f64>,
    /// Initializers of floats.
    weights: &'s HashMap<&'g str, &'g TensorProto>,
    /// Those of whole numbers in 64 bits.
    axes: &'s HashMap<&'g str, &'g TensorProto>,
    values: &'s BTreeMap<String, ValueFacts>,
}

impl Step<'_, '_> {
    fn bound(&self) -> Option<f64> {
        let of = |at: usize| self.input(at);
        let given = (0..self.node.input.len()).filter(|&at| self.is_given(at));
        let largest_of_all =
            || given.clone().try_fold(0.0, |most: f64, at| Some(most.max(of(at)?)));
        Some(match self.node.op_type.as_str() {
            "Abs" | "AveragePool" | "DepthToSpace" | "Expand" | "Flatten" | "Gather"
            | "Identity" | "MaxPool" | "Neg" | "Relu" | "Reshape" | "Slice" | "SpaceToDepth"
            | "Split" | "Squeeze" | "Tile" | "Transpose" | "Unsqueeze" => of(0)?,
            "Add" | "Sub" | "Sum" => given.clone().map(of).sum::<Option<f64>>()?,
            "Clip" => largest_of_all()?.min(self.range()?),
            "Concat" | "Max" | "Min" => largest_of_all()?,
            "Conv" => self.convolved()?,
            "Cos" | "Erf" | "Sigmoid" | "Sin" | "Softmax" | "Softsign" | "Tanh" => {
                of(0)?;
                1.0
            }
            "MatMul" => {
                let tensor = self.weights.get(self.node.input.get(1)?.as_str())?;
                let summands = usize::try_from(*tensor.dims.iter().nth_back(1)?).ok()?;
                of(0)?.max(1.0) * of(1)? * sum_of(summands)?
            }
            // rten may scale weights or a product instead of an operand: what is small is no help before it.
            "Mul" => of(0)?.max(1.0) * of(1)?.max(1.0),
            // Of no elements the mean would be none, too.
            "ReduceMax" | "ReduceMean" | "ReduceMin" if self.reduces_elements() => of(0)?,
            "Pad" => of(0)?.max(if self.is_given(2) { of(2)? } else { 0.0 }),
            "Softplus" => of(0)? + 1.0,
            _ => return None,
        })
    }

    fn is_given(&self, at: usize) -> bool {
        self.node.input.get(at).is_some_and(|name| !name.is_empty())
    }

    /// Whether a reduction surely has elements along each axis that it reduces.
    fn reduces_elements(&self) -> bool {
        let of = |at: usize| self.node.input.get(at).map(String::as_str);
        let facts = of(0).and_then(|name| self.values.get(name));
        let Some(PartialShape::Ranked(dims)) = facts.map(|facts| &facts.shape) else {
            return false;
        };
        let Some(axes) = of(1).and_then(|name| self.axes.get(name)) else { return false };
        let (axes, []) = axes.raw_data.as_chunks::<8>() else { return false };
        !axes.is_empty()
            && axes.iter().all(|axis| {
                let axis = i64::from_le_bytes(*axis);
                let axis = if axis < 0 { axis + dims.len() as i64 } else { axis };
                let size = usize::try_from(axis).ok().and_then(|axis| dims.get(axis));
                size.copied().flatten().is_some_and(|size| size > 0)
            })
    }

    /// The bound of an input.
    fn input(&self, at: usize) -> Option<f64> {
        let name = self.node.input.get(at)?.as_str();
        let own = || self.weights.get(name).and_then(|tensor| largest(tensor));
        self.known.get(name).copied().or_else(own)
    }

    /// The largest magnitude between the bounds of a clip; without bound where there is only one.
    fn range(&self) -> Option<f64> {
        if self.is_given(1) && self.is_given(2) {
            Some(self.input(1)?.max(self.input(2)?))
        } else {
            Some(f64::INFINITY)
        }
    }

    fn convolved(&self) -> Option<f64> {
        let tensor = self.weights.get(self.node.input.get(1)?.as_str())?;
        let channels = usize::try_from(*tensor.dims.first()?).ok().filter(|&n| n > 0)?;
        let weights = floats(tensor)?;
        let each = weights.len() / channels;
        sum_of(each)?;
        let sums = weights
            .chunks(each.max(1))
            .map(|own| own.iter().map(|weight| f64::from(weight.abs())).sum::<f64>());
        let gain = sums.fold(0.0, f64::max);
        let bias = if self.is_given(2) { self.input(2)? } else { 0.0 };
        // A sum that is NaN would have been passed over by the comparison.
        let bound = self.input(0)?.max(1.0) * gain + bias;
        largest(tensor).map(|_| bound)
    }
}

/// The number of summands, where their roundings do not matter.
fn sum_of(summands: usize) -> Option<f64> {
    (summands <= SUMMANDS_MAX).then_some(summands as f64)
}

/// The numbers of an initializer that holds them as bytes.
fn floats(tensor: &TensorProto) -> Option<Vec<f32>> {
    let (chunks, []) = tensor.raw_data.as_chunks::<4>() else { return None };
    let count = tensor.dims.iter().try_fold(1i64, |count, &size| count.checked_mul(size));
    if count.and_then(|count| usize::try_from(count).ok()) != Some(chunks.len()) {
        return None;
    }
    Some(chunks.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

/// The largest magnitude, where all numbers are finite.
fn largest(tensor: &TensorProto) -> Option<f64> {
    let values = floats(tensor)?;
    let is_finite = values.iter().all(|value| value.is_finite());
    is_finite.then(|| values.iter().fold(0.0, |most: f64, v| most.max(f64::from(v.abs()))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vesta_model::DType;
    use vesta_protos::onnx::type_proto::{Tensor, Value};
    use vesta_protos::onnx::{TypeProto, ValueInfoProto};

    fn node(op: &str, inputs: &[&str], output: &str) -> NodeProto {
        NodeProto {
            op_type: op.to_owned(),
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            output: vec![output.to_owned()],
            ..NodeProto::default()
        }
    }

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

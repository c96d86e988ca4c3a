//! Where a run leaves rten for a convolution of our own, and goes on behind it.
//!
//! rten takes no operators of others, but it computes any value from any others. So a run may stop at what
//! such a convolution reads, and go on from what it gives: where all that follows comes of that one value.
//! The first layers of a network are like that, and they have the large images.
//!
//! May not know: placement, signatures. Invariant: a stage computes what the nodes in its place compute.

use std::collections::{BTreeMap, HashMap, HashSet};

use rten::{Model, NodeId, RunError, RunOptions, Value, ValueOrView};
use rten_tensor::prelude::*;
use vesta_model::PartialShape;
use vesta_onnx::ValueFacts;
use vesta_protos::onnx::tensor_proto::DataType;
use vesta_protos::onnx::type_proto::{Tensor as TensorKind, Value as Kind};
use vesta_protos::onnx::{
    GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, ValueInfoProto,
};

use super::direct::DirectConvolution;
use super::twin::Twin;

/// Cells of an image from which a stop is worth while.
const CELLS_MIN: usize = 24 * 24;

/// Bytes of weights up to which they stay near the processor while the image goes by.
const WEIGHTS_MAX: usize = 1 << 20;

/// Stops in one run.
const STAGES_MAX: usize = 16;

/// A convolution between two runs of rten, in terms of a graph.
pub(super) struct PlannedStage {
    /// The value that it reads, and the one that it gives.
    ends: [String; 2],
    convolution: DirectConvolution,
}

/// A convolution between two runs of rten.
pub(super) struct Stage {
    ends: [NodeId; 2],
    convolution: DirectConvolution,
}

/// Finds the stages of the twin of a graph, and has their ends among the graph's outputs.
pub(super) fn plan(
    model: &mut ModelProto,
    inputs: &[String],
    twin: &Twin,
    values: &BTreeMap<String, ValueFacts>,
) -> Vec<PlannedStage> {
    let Some(graph) = &mut model.graph else { return Vec::new() };
    let found = Plan::new(graph, inputs, twin, values).stages();
    for stage in &found {
        for end in &stage.ends {
            if !graph.output.iter().any(|info| info.name == *end) {
                graph.output.push(floats(end));
            }
        }
    }
    found
}

fn floats(name: &str) -> ValueInfoProto {
    let tensor = TensorKind { elem_type: DataType::Float as i32, shape: None };
    let r#type = TypeProto { value: Some(Kind::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { name: name.to_owned(), r#type: Some(r#type), ..ValueInfoProto::default() }
}

struct Plan<'g> {
    twin: &'g Twin,
    values: &'g BTreeMap<String, ValueFacts>,
    inputs: HashSet<&'g str>,
    weights: HashMap<&'g str, &'g TensorProto>,
    producers: HashMap<&'g str, &'g NodeProto>,
    /// The nodes that the twin's outputs are computed from, in their order.
    nodes: Vec<&'g NodeProto>,
}

impl<'g> Plan<'g> {
    fn new(
        graph: &'g GraphProto,
        inputs: &'g [String],
        twin: &'g Twin,
        values: &'g BTreeMap<String, ValueFacts>,
    ) -> Plan<'g> {
        let named = |node: &'g NodeProto| node.output.iter().map(move |own| (own.as_str(), node));
        let producers = graph.node.iter().flat_map(named).collect();
        let weights = graph.initializer.iter().map(|own| (own.name.as_str(), own)).collect();
        let inputs = inputs.iter().map(String::as_str).collect();
        let mut plan = Plan { twin, values, inputs, weights, producers, nodes: Vec::new() };
        let (seen, _) = plan.behind(None);
        let is_seen = |node: &&NodeProto| node.output.iter().any(|own| seen.contains(own.as_str()));
        plan.nodes = graph.node.iter().filter(is_seen).collect();
        plan
    }

    /// The values that the twin's outputs are computed from where `known` is given, and whether an input is
    /// among them.
    fn behind(&self, known: Option<&str>) -> (HashSet<&'g str>, bool) {
        let (mut seen, mut reads_input) = (HashSet::new(), false);
        let mut open: Vec<&str> = self.twin.outputs.iter().map(String::as_str).collect();
        while let Some(name) = open.pop() {
            if Some(name) == known || !seen.insert(name) {
                continue;
            }
            reads_input |= self.inputs.contains(name);
            let producer = self.producers.get(name);
            open.extend(
                producer.into_iter().flat_map(|node| node.input.iter().map(String::as_str)),
            );
        }
        (seen, reads_input)
    }

    fn stages(&self) -> Vec<PlannedStage> {
        let all = self.nodes.iter().filter_map(|node| self.stage(node));
        all.filter(|stage| !self.behind(Some(&stage.ends[1])).1).take(STAGES_MAX).collect()
    }

    /// A node as a stage, if it is a convolution that is worth it.
    fn stage(&self, node: &NodeProto) -> Option<PlannedStage> {
        let [read, kernel, bias @ ..] = &node.input[..] else { return None };
        let [output] = &node.output[..] else { return None };
        if node.op_type != "Conv" || !self.is_large(output) {
            return None;
        }
        let window = Window::of(node)?;
        let kernel = self.weights.get(kernel.as_str())?;
        let dims: Vec<usize> =
            kernel.dims.iter().map(|&size| usize::try_from(size).ok()).collect::<Option<_>>()?;
        let dims @ [_, _, rows, columns] = <[usize; 4]>::try_from(dims).ok()?;
        if rows * columns < 3 || kernel.raw_data.len() > WEIGHTS_MAX {
            return None;
        }
        let bias = match bias {
            [] => None,
            [name] => Some(numbers(self.weights.get(name.as_str())?)?),
            _ => return None,
        };
        let activation = self.activation(output);
        let is_active = activation.is_some();
        let weights = numbers(kernel)?;
        let convolution =
            DirectConvolution::new(&weights, dims, bias.as_deref(), window.pads, is_active)?;
        let given = activation.unwrap_or(output).to_owned();
        Some(PlannedStage { ends: [read.clone(), given], convolution })
    }

    /// What rten's own `Relu` makes of a value that nobody else reads.
    fn activation(&self, value: &str) -> Option<&'g str> {
        if self.twin.outputs.iter().any(|output| output == value) {
            return None;
        }
        let mut readers =
            self.nodes.iter().filter(|node| node.input.iter().any(|own| own == value));
        let (reader, other) = (readers.next()?, readers.next());
        let [output] = &reader.output[..] else { return None };
        let is_own = reader.op_type == "Relu" && self.twin.own.contains(output);
        (is_own && other.is_none()).then_some(output.as_str())
    }

    /// Whether a value surely has a large image.
    fn is_large(&self, name: &str) -> bool {
        let facts = self.values.get(Twin::original(name));
        match facts.map(|facts| &facts.shape) {
            Some(PartialShape::Ranked(dims)) => match dims[..] {
                [_, _, Some(rows), Some(columns)] => rows.saturating_mul(columns) >= CELLS_MIN,
                _ => false,
            },
            _ => false,
        }
    }
}

/// The window of a convolution with strides of one, of one group.
struct Window {
    pads: [usize; 4],
}

impl Window {
    fn of(node: &NodeProto) -> Option<Window> {
        let mut pads = [0; 4];
        for attribute in &node.attribute {
            let is_all_one = attribute.ints.iter().all(|&own| own == 1);
            match attribute.name.as_str() {
                "strides" | "dilations" if is_all_one => {}
                "group" if attribute.i == Some(1) => {}
                "kernel_shape" => {}
                "pads" => {
                    let own = <[i64; 4]>::try_from(&attribute.ints[..]).ok()?;
                    for (pad, own) in pads.iter_mut().zip(own) {
                        *pad = usize::try_from(own).ok()?;
                    }
                }
                _ => return None,
            }
        }
        Some(Window { pads })
    }
}

/// The numbers of a tensor of floats that holds them as bytes.
fn numbers(tensor: &TensorProto) -> Option<Vec<f32>> {
    let (chunks, []) = tensor.raw_data.as_chunks::<4>() else { return None };
    let is_floats = tensor.data_type == DataType::Float as i32;
    is_floats.then(|| chunks.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

impl PlannedStage {
    /// The stage in a loaded model.
    ///
    /// # Errors
    /// What rten says where it does not know an end.
    pub(super) fn in_model(self, model: &Model) -> Result<Stage, String> {
        let find = |name: &String| model.node_id(name).map_err(|error| error.to_string());
        let [read, given] = &self.ends;
        Ok(Stage { ends: [find(read)?, find(given)?], convolution: self.convolution })
    }
}

impl Stage {
    /// Runs the model up to each of the stages, and each of them; gives what the rest is computed from. `None`
    /// where an image is none that a stage takes.
    ///
    /// # Errors
    /// Those of rten.
    pub(super) fn run_all<'v>(
        stages: &[Stage],
        model: &Model,
        values: Vec<(NodeId, ValueOrView<'v>)>,
        options: &dyn Fn() -> RunOptions,
    ) -> Result<Option<Vec<(NodeId, ValueOrView<'v>)>>, RunError> {
        let mut values = values;
        for Stage { ends: [read, given], convolution } in stages {
            let mut found = model.run(values, &[*read], Some(options()))?;
            let Some(made) = found.pop().and_then(|value| run_images(convolution, value)) else {
                return Ok(None);
            };
            values = vec![(*given, made.into())];
        }
        Ok(Some(values))
    }
}

/// A convolution over each image of a batch.
fn run_images(convolution: &DirectConvolution, images: Value) -> Option<Value> {
    let Value::FloatTensor(images) = images else { return None };
    let &[count, channels, rows, columns] = images.shape() else { return None };
    let [out_rows, out_columns] = convolution.size_of([rows, columns])?;
    let out_channels = convolution.out_channels();
    let images = images.into_data();
    let mut given = vec![0.0; count * out_channels * out_rows * out_columns];
    let (each, each_given) = (channels * rows * columns, out_channels * out_rows * out_columns);
    if each == 0 || each_given == 0 {
        return None;
    }
    for (image, given) in images.chunks_exact(each).zip(given.chunks_exact_mut(each_given)) {
        convolution.run(image, [rows, columns], given)?;
    }
    let dims = [count, out_channels, out_rows, out_columns];
    Some(Value::from(rten_tensor::Tensor::from_data(&dims, given)))
}

#[cfg(test)]
mod tests {
    use vesta_model::{DType, Shape, Tensor};
    use vesta_protos::tensorflow::attr_value::{ListValue, Value as Attribute};
    use vesta_protos::tensorflow::tensor_shape_proto::Dim;
    use vesta_protos::tensorflow::{AttrValue, NodeDef, TensorProto, TensorShapeProto};

    use super::super::merge::{Boundary, NumericGraph};
    use super::super::numeric::NumericModel;
    use super::*;

    fn node(name: &str, op: &str, inputs: &[&str], attributes: &[(&str, Attribute)]) -> NodeDef {
        let attribute = |(key, value): &(&str, Attribute)| {
            ((*key).to_owned(), AttrValue { value: Some(value.clone()) })
        };
        NodeDef {
            name: name.to_owned(),
            op: op.to_owned(),
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            attr: attributes.iter().map(attribute).collect(),
            ..NodeDef::default()
        }
    }

    fn weights(name: &str, dims: &[usize]) -> NodeDef {
        let count: usize = dims.iter().product();
        let value = |at: usize| ((at * 37 + name.len() * 11) % 23) as f32 / 23.0 - 0.45;
        let sizes = dims.iter().map(|&size| Dim { size: size as i64, name: String::new() });
        let tensor = TensorProto {
            dtype: DType::F32.number(),
            tensor_shape: Some(TensorShapeProto { dim: sizes.collect(), unknown_rank: false }),
            tensor_content: (0..count).flat_map(|at| value(at).to_le_bytes()).collect(),
            ..TensorProto::default()
        };
        node(name, "Const", &[], &[("value", Attribute::Tensor(Box::new(tensor)))])
    }

    fn conv(name: &str, inputs: &[&str], stride: i64, padding: &str) -> NodeDef {
        let list = ListValue { i: vec![1, stride, stride, 1], ..ListValue::default() };
        let padding = Attribute::S(padding.as_bytes().to_vec());
        let strides = Attribute::List(Box::new(list));
        node(name, "Conv2D", inputs, &[("strides", strides), ("padding", padding)])
    }

    /// A model of `nodes` over images `x`, which gives `fetches`.
    fn model(nodes: Vec<NodeDef>, fetches: &[&str]) -> NumericModel {
        let shape = PartialShape::Ranked(vec![None, Some(30), Some(27), Some(2)]);
        let end =
            |tensor: &str, shape| Boundary { tensor: tensor.to_owned(), dtype: DType::F32, shape };
        let feeds = vec![end("x:0", shape)];
        let fetches = fetches.iter().map(|name| end(name, PartialShape::Unknown)).collect();
        NumericModel::load(NumericGraph { nodes, feeds, fetches }).unwrap()
    }

    /// What one thread, which stops at the stages, and two, which do not, give for some images.
    fn assert_same(model: &NumericModel, rows: usize, extra: f32) {
        let shape = Shape::new(vec![rows, 30, 27, 2]).unwrap();
        let mut images: Vec<f32> =
            (0..shape.elements()).map(|at| (at % 29) as f32 / 29.0 - 0.5).collect();
        if let Some(last) = images.last_mut() {
            *last = extra;
        }
        let images = Tensor::of(shape, &images).unwrap();
        let run = |threads| model.run(&[(0, &images)], &[0], threads).unwrap().remove(0);
        let (staged, plain) = (run(1), run(2));
        assert_eq!(staged.shape(), plain.shape());
        let (staged, plain) = (staged.to_vec::<f32>().unwrap(), plain.to_vec::<f32>().unwrap());
        for (a, b) in staged.iter().zip(&plain) {
            let is_near = (a - b).abs() <= 1e-5 * b.abs().max(1.0);
            assert!(is_near || (a.is_nan() && b.is_nan()) || a == b, "{a} {b}");
        }
    }

    fn pool(name: &str, input: &str) -> NodeDef {
        let two =
            || Attribute::List(Box::new(ListValue { i: vec![1, 2, 2, 1], ..ListValue::default() }));
        let padding = Attribute::S(b"VALID".to_vec());
        node(
            name,
            "MaxPool",
            &[input],
            &[("ksize", two()), ("strides", two()), ("padding", padding)],
        )
    }

    #[test]
    fn the_first_layers_are_stages() {
        let nodes = vec![
            weights("k1", &[3, 3, 2, 9]),
            conv("c1", &["x", "k1"], 1, "SAME"),
            weights("b1", &[9]),
            node("a1", "BiasAdd", &["c1", "b1"], &[]),
            node("r1", "Relu", &["a1"], &[]),
            weights("k2", &[1, 5, 9, 12]),
            conv("c2", &["r1", "k2"], 1, "VALID"),
            node("t2", "Tanh", &["c2"], &[]),
            // These are left to rten: a stride, a small image, one cell.
            weights("k3", &[3, 3, 12, 4]),
            conv("c3", &["t2", "k3"], 2, "SAME"),
            node("r3", "Relu", &["c3"], &[]),
            pool("p", "r3"),
            weights("k4", &[3, 3, 4, 4]),
            conv("c4", &["p", "k4"], 1, "SAME"),
            node("y", "Relu", &["c4"], &[]),
        ];
        let model = model(nodes, &["y"]);
        assert_eq!(model.stages().len(), 2);
        for rows in [1, 3] {
            assert_same(&model, rows, 0.25);
        }
        for odd in [f32::NAN, f32::INFINITY, 1e9] {
            assert_same(&model, 2, odd);
        }
    }

    #[test]
    fn what_others_need_too_is_no_stage() {
        let block = |ends: Vec<NodeDef>| {
            let mut nodes = vec![
                weights("k1", &[3, 3, 2, 2]),
                conv("c1", &["x", "k1"], 1, "SAME"),
                node("r1", "Relu", &["c1"], &[]),
            ];
            nodes.extend(ends);
            nodes
        };
        let around = block(vec![node("y", "AddV2", &["r1", "x"], &[])]);
        let around = model(around, &["y"]);
        assert!(around.stages().is_empty());
        assert_same(&around, 2, 0.5);
        // The activation is not the only reader: it stays in the graph, and the convolution alone is a stage.
        let both = model(block(vec![node("y", "AddV2", &["r1", "c1"], &[])]), &["y"]);
        assert_eq!(both.stages().len(), 1);
        assert_same(&both, 2, 0.5);
        let several = model(block(vec![node("y", "Tanh", &["x"], &[])]), &["r1", "y"]);
        assert!(several.stages().is_empty());
    }
}

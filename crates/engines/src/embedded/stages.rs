//! Where a run leaves rten for a convolution of our own, and goes on behind it.
//!
//! rten takes no operators of others, but it computes any values from any others. So a run stops at what
//! such a convolution reads, keeps what is needed later, and goes on with what the convolution gives.
//!
//! May not know: placement, signatures. Invariant: a stage computes what the nodes in its place compute.

use std::collections::{BTreeMap, HashMap, HashSet};

use rten::{Model, NodeId, RunError, RunOptions, Value, ValueOrView, ValueView};
use rten_tensor::prelude::*;
use vesta_model::PartialShape;
use vesta_onnx::ValueFacts;
use vesta_protos::onnx::tensor_proto::DataType;
use vesta_protos::onnx::{GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};

use super::direct::DirectConvolution;
use super::twin::Twin;

/// Cells of an image from which a stop is worth while.
const CELLS_MIN: usize = 24 * 24;

/// Weights up to which they stay near the processor while the image goes by, a mebibyte of floats.
const WEIGHTS_MAX: usize = 1 << 18;

/// Stops in one run.
const STAGES_MAX: usize = 32;

/// Padding on one side; a window has no use for more.
const PAD_MAX: usize = 64;

/// Outputs of a graph; what each needs is looked up by itself.
const OUTPUTS_MAX: usize = 64;

/// The stages of a run, as `V` names values.
pub(super) struct Stages<V> {
    stages: Vec<Stage<V>>,
    /// What is computed behind the last stage reads these.
    last: Vec<V>,
    /// Outputs that need all stages.
    outputs: HashSet<V>,
}

/// A part that rten computes, and the convolution behind it.
struct Stage<V> {
    /// What the part reads, besides weights.
    reads: Vec<V>,
    /// What of the part is needed behind it.
    gives: Vec<V>,
    /// What the convolution reads, and what it gives.
    ends: [V; 2],
    convolution: DirectConvolution,
    /// What nobody reads any more.
    over: Vec<V>,
}

/// Finds the stages of the twin of a graph, and has what passes between them among the graph's outputs.
pub(super) fn plan(
    model: &mut ModelProto,
    inputs: &[String],
    twin: &Twin,
    values: &BTreeMap<String, ValueFacts>,
) -> Option<Stages<String>> {
    let graph = model.graph.as_mut()?;
    let found = Plan::new(graph, inputs, twin, values).stages()?;
    for Stage { gives, ends, .. } in &found.stages {
        for name in gives.iter().chain(ends) {
            if !graph.output.iter().any(|info| info.name == *name) {
                // Nothing is said of it: it may be of any type.
                graph.output.push(ValueInfoProto { name: name.clone(), ..Default::default() });
            }
        }
    }
    Some(found)
}

struct Plan<'g> {
    twin: &'g Twin,
    values: &'g BTreeMap<String, ValueFacts>,
    inputs: HashSet<&'g str>,
    weights: HashMap<&'g str, &'g TensorProto>,
    producers: HashMap<&'g str, &'g NodeProto>,
    /// The twin's outputs.
    outputs: HashSet<&'g str>,
    /// Those of `nodes` that read a value.
    readers: HashMap<&'g str, Vec<&'g NodeProto>>,
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
        let outputs: HashSet<&str> = twin.outputs.iter().map(String::as_str).collect();
        let (readers, nodes) = (HashMap::new(), Vec::new());
        let mut plan = Plan { twin, values, inputs, weights, producers, outputs, readers, nodes };
        let outputs: Vec<&str> = plan.outputs.iter().copied().collect();
        let seen = plan.behind(&outputs, &HashSet::new());
        let is_seen = |node: &&NodeProto| node.output.iter().any(|own| seen.contains(own.as_str()));
        plan.nodes = graph.node.iter().filter(is_seen).collect();
        for &node in &plan.nodes {
            for input in &node.input {
                plan.readers.entry(input).or_default().push(node);
            }
        }
        plan
    }

    /// What `names` are computed from, and themselves, as far as it is neither `known` nor a weight.
    fn behind(&self, names: &[&'g str], known: &HashSet<&str>) -> HashSet<&'g str> {
        let mut seen = HashSet::new();
        let mut open = names.to_vec();
        while let Some(name) = open.pop() {
            if known.contains(name) || self.weights.contains_key(name) || !seen.insert(name) {
                continue;
            }
            let producer = self.producers.get(name);
            open.extend(
                producer.into_iter().flat_map(|node| node.input.iter().map(String::as_str)),
            );
        }
        seen.remove("");
        seen
    }

    fn stages(&self) -> Option<Stages<String>> {
        if self.outputs.len() > OUTPUTS_MAX {
            return None;
        }
        let mut known: HashSet<&str> = self.inputs.clone();
        let mut held: HashSet<&str> = self.inputs.clone();
        let mut stages = Vec::new();
        let candidates = self.nodes.iter().filter_map(|node| self.candidate(node));
        for ([read, given], convolution) in candidates.take(STAGES_MAX) {
            let part = self.behind(&[read], &known);
            let reads = self.read_by(&part, &held);
            known.extend(&part);
            known.extend(self.between(read, given));
            // What the convolution gives is needed, or it would not be here.
            let is_needed = |name: &&&str| self.is_needed(name, &known);
            let gives: Vec<&str> =
                part.iter().copied().filter(|own| self.is_needed(own, &known)).collect();
            held.extend(&gives);
            held.insert(given);
            let over: Vec<&str> = held.iter().filter(|own| !is_needed(own)).copied().collect();
            for name in &over {
                held.remove(name);
            }
            let ends = [read, given].map(str::to_owned);
            let (reads, gives, over) = (owned(reads), owned(gives), owned(over));
            stages.push(Stage { reads, gives, ends, convolution, over });
        }
        if stages.is_empty() {
            return None;
        }
        let outputs: Vec<&str> = self.outputs.iter().copied().collect();
        let part = self.behind(&outputs, &known);
        let last = owned(self.read_by(&part, &held));
        let needs_all = |output: &&String| {
            let behind = self.behind(&[output.as_str()], &HashSet::new());
            stages.iter().all(|stage| behind.contains(stage.ends[1].as_str()))
        };
        let outputs = self.twin.outputs.iter().filter(needs_all).cloned().collect();
        Some(Stages { stages, last, outputs })
    }

    /// What nodes of a part read of what is there.
    fn read_by(&self, part: &HashSet<&str>, held: &HashSet<&'g str>) -> Vec<&'g str> {
        let is_of = |node: &&&NodeProto| node.output.iter().any(|own| part.contains(own.as_str()));
        let all = self.nodes.iter().filter(is_of).flat_map(|node| &node.input);
        let read: HashSet<&str> = all.map(String::as_str).collect();
        held.iter().copied().filter(|own| read.contains(own)).collect()
    }

    /// The values between the ends of a convolution that take part in nothing else, and its result.
    fn between(&self, read: &str, given: &'g str) -> Vec<&'g str> {
        let mut values = vec![given];
        let producer = self.producers.get(given).filter(|node| node.op_type == "Relu");
        let inner = producer.and_then(|node| node.input.first());
        values.extend(inner.map(String::as_str).filter(|inner| *inner != read));
        values
    }

    /// Whether an output is, or a node reads it of which something is not known yet.
    fn is_needed(&self, name: &str, known: &HashSet<&str>) -> bool {
        let is_open =
            |node: &NodeProto| node.output.iter().any(|own| !known.contains(own.as_str()));
        let readers = self.readers.get(name);
        self.outputs.contains(name)
            || readers.is_some_and(|all| all.iter().any(|node| is_open(node)))
    }

    /// A node as a stage, if it is a convolution that is worth it: its ends and what is computed.
    fn candidate(&self, node: &'g NodeProto) -> Option<([&'g str; 2], DirectConvolution)> {
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
        let count = dims.iter().try_fold(1usize, |count, &size| count.checked_mul(size))?;
        if rows * columns < 3 || count > WEIGHTS_MAX {
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
        Some(([read, activation.unwrap_or(output)], convolution))
    }

    /// What rten's own `Relu` makes of a value that nobody else reads.
    fn activation(&self, value: &str) -> Option<&'g str> {
        let [reader] = self.readers.get(value)?[..] else { return None };
        if self.outputs.contains(value) {
            return None;
        }
        let [output] = &reader.output[..] else { return None };
        let is_own = reader.op_type == "Relu" && self.twin.own.contains(output);
        is_own.then_some(output.as_str())
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
                        *pad = usize::try_from(own).ok().filter(|&own| own <= PAD_MAX)?;
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

fn owned(mut names: Vec<&str>) -> Vec<String> {
    names.sort_unstable();
    names.into_iter().map(str::to_owned).collect()
}

impl Stages<String> {
    /// The stages in a loaded model.
    ///
    /// # Errors
    /// What rten says where it does not know a value.
    pub(super) fn in_model(self, model: &Model) -> Result<Stages<NodeId>, String> {
        let find = |name: &String| model.node_id(name).map_err(|error| error.to_string());
        let all = |names: &[String]| names.iter().map(find).collect::<Result<Vec<NodeId>, _>>();
        let stage = |stage: Stage<String>| {
            let [read, given] = &stage.ends;
            Ok(Stage {
                reads: all(&stage.reads)?,
                gives: all(&stage.gives)?,
                ends: [find(read)?, find(given)?],
                convolution: stage.convolution,
                over: all(&stage.over)?,
            })
        };
        Ok(Stages {
            stages: self.stages.into_iter().map(stage).collect::<Result<_, String>>()?,
            last: all(&self.last)?,
            outputs: self.outputs.iter().map(find).collect::<Result<_, _>>()?,
        })
    }
}

impl Stages<NodeId> {
    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.stages.len()
    }

    /// Computes `outputs` from `values`; `None` where not all stages would be needed, or something is missing
    /// or is no image that a stage takes.
    ///
    /// # Errors
    /// Those of rten.
    pub(super) fn run(
        &self,
        model: &Model,
        values: Vec<(NodeId, ValueOrView<'_>)>,
        outputs: &[NodeId],
        options: &dyn Fn() -> RunOptions,
    ) -> Result<Option<Vec<Value>>, RunError> {
        if !outputs.iter().any(|output| self.outputs.contains(output)) {
            return Ok(None);
        }
        let mut held: HashMap<NodeId, ValueOrView<'_>> = values.into_iter().collect();
        for stage in &self.stages {
            let [read, given] = stage.ends;
            let mut wanted = stage.gives.clone();
            let is_passing = !held.contains_key(&read) && !wanted.contains(&read);
            if is_passing {
                wanted.push(read);
            }
            if !wanted.is_empty() {
                let Some(inputs) = views(&held, &stage.reads) else { return Ok(None) };
                let made = model.run(inputs, &wanted, Some(options()))?;
                held.extend(wanted.into_iter().zip(made.into_iter().map(ValueOrView::Value)));
            }
            let image = held.get(&read).and_then(|image| run_images(&stage.convolution, image));
            let Some(image) = image else { return Ok(None) };
            held.insert(given, ValueOrView::Value(image));
            if is_passing {
                held.remove(&read);
            }
            for value in &stage.over {
                held.remove(value);
            }
        }
        let open: Vec<NodeId> =
            outputs.iter().copied().filter(|own| !held.contains_key(own)).collect();
        if !open.is_empty() {
            let Some(inputs) = views(&held, &self.last) else { return Ok(None) };
            let made = model.run(inputs, &open, Some(options()))?;
            held.extend(open.into_iter().zip(made.into_iter().map(ValueOrView::Value)));
        }
        Ok(outputs.iter().map(|output| held.remove(output).map(ValueOrView::into_owned)).collect())
    }
}

fn views<'v>(
    held: &'v HashMap<NodeId, ValueOrView<'_>>,
    wanted: &[NodeId],
) -> Option<Vec<(NodeId, ValueOrView<'v>)>> {
    wanted.iter().map(|id| Some((*id, ValueOrView::View(held.get(id)?.as_view())))).collect()
}

/// A convolution over each image of a batch.
fn run_images(convolution: &DirectConvolution, images: &ValueOrView<'_>) -> Option<Value> {
    let ValueView::FloatTensor(images) = images.as_view() else { return None };
    let &[count, channels, rows, columns] = images.shape() else { return None };
    let [out_rows, out_columns] = convolution.size_of([rows, columns])?;
    let out_channels = convolution.out_channels();
    let mut given = vec![0.0; count * out_channels * out_rows * out_columns];
    let (each, each_given) = (channels * rows * columns, out_channels * out_rows * out_columns);
    if each == 0 || each_given == 0 {
        return None;
    }
    let images = images.to_contiguous();
    let all = images.data().chunks_exact(each);
    for (image, given) in all.zip(given.chunks_exact_mut(each_given)) {
        convolution.run(image, [rows, columns], given)?;
    }
    let dims = [count, out_channels, out_rows, out_columns];
    Some(Value::from(rten_tensor::Tensor::from_data(&dims, given)))
}

#[cfg(test)]
mod tests;

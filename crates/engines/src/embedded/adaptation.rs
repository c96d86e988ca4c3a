//! Operators that rten lacks or computes otherwise, written with those that it computes as TensorFlow.
//!
//! May not know: placement. Invariant: what is written here is covered by the same differential tests
//! as the table's rows, which name the operators as they stand before.

use std::collections::HashSet;

use vesta_protos::onnx::attribute_proto::AttributeType;
use vesta_protos::onnx::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto};

/// ONNX's numbers of two dtypes.
const FLOAT: i32 = 1;
const INT64: i32 = 7;

/// Rewrites every such operator of a model, but for those whose result is among `own`.
pub(crate) fn adapt(model: &mut ModelProto, own: &HashSet<String>) {
    let Some(graph) = &mut model.graph else { return };
    let nodes = std::mem::take(&mut graph.node);
    let mut adapter = Adapter { graph, nodes: Vec::with_capacity(nodes.len()) };
    for node in nodes {
        if node.output.iter().any(|output| own.contains(output)) {
            adapter.nodes.push(node);
            continue;
        }
        match node.op_type.as_str() {
            "Relu" => adapter.relu(node),
            "Clip" => adapter.clip(node),
            "MaxPool" => adapter.pool(node),
            "Selu" => adapter.selu(node),
            "Softplus" => adapter.softplus(node),
            "LRN" => adapter.local_response(node),
            _ => adapter.nodes.push(node),
        }
    }
    let Adapter { graph, nodes } = adapter;
    graph.node = nodes;
}

struct Adapter<'g> {
    graph: &'g mut GraphProto,
    nodes: Vec<NodeProto>,
}

impl Adapter<'_> {
    /// A constant; equal ones of one name are one.
    fn constant(&mut self, name: String, data_type: i32, dims: Vec<i64>, bytes: Vec<u8>) -> String {
        if !self.graph.initializer.iter().any(|known| known.name == name) {
            self.graph.initializer.push(TensorProto {
                name: name.clone(),
                data_type,
                dims,
                raw_data: bytes.into(),
                ..TensorProto::default()
            });
        }
        name
    }

    fn float(&mut self, value: f32) -> String {
        let name = format!("adapted~{:08x}", value.to_bits());
        self.constant(name, FLOAT, vec![], value.to_le_bytes().to_vec())
    }

    fn ints(&mut self, values: &[i64]) -> String {
        let words: Vec<String> = values.iter().map(i64::to_string).collect();
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let name = format!("adapted~[{}]", words.join(","));
        self.constant(name, INT64, vec![values.len() as i64], bytes)
    }

    fn write(&mut self, op: &str, inputs: &[&str], output: String) -> String {
        self.nodes.push(NodeProto {
            name: output.clone(),
            op_type: op.to_owned(),
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            output: vec![output.clone()],
            ..NodeProto::default()
        });
        output
    }

    /// rten's turns NaN into a bound; its `Max` and `Min` pass it on, as TensorFlow does.
    fn relu(&mut self, node: NodeProto) {
        let (input, output) = ends(&node);
        let zero = self.float(0.0);
        self.write("Max", &[&input, &zero], output);
    }

    /// As [`Adapter::relu`], as far as it has bounds.
    fn clip(&mut self, node: NodeProto) {
        let (input, output) = ends(&node);
        let bound = |at: usize| node.input.get(at).filter(|name| !name.is_empty()).cloned();
        match (bound(1), bound(2)) {
            (Some(low), Some(high)) => {
                let raised = self.write("Max", &[&input, &low], format!("{output}~low"));
                self.write("Min", &[&raised, &high], output);
            }
            (Some(low), None) => drop(self.write("Max", &[&input, &low], output)),
            (None, Some(high)) => drop(self.write("Min", &[&input, &high], output)),
            (None, None) => self.nodes.push(node),
        }
    }

    /// TensorFlow's largest of a window without numbers is the least number, rten's is negative infinity.
    fn pool(&mut self, mut node: NodeProto) {
        let (_, output) = ends(&node);
        let pooled = format!("{output}~pooled");
        node.output = vec![pooled.clone()];
        self.nodes.push(node);
        let lowest = self.float(f32::MIN);
        self.write("Max", &[&pooled, &lowest], output);
    }

    /// `Elu` times gamma.
    fn selu(&mut self, node: NodeProto) {
        let (input, output) = ends(&node);
        let gamma = self.float(float_attribute(&node, "gamma"));
        let elu = self.write("Elu", &[&input], format!("{output}~elu"));
        if let Some(written) = self.nodes.last_mut() {
            written.attribute.push(attribute("alpha", float_attribute(&node, "alpha")));
        }
        self.write("Mul", &[&elu, &gamma], output);
    }

    /// rten takes the exponential of a large number. Of `-|x|` it is small, and what is left out is
    /// `x` itself where it is above zero.
    fn softplus(&mut self, node: NodeProto) {
        let (input, output) = ends(&node);
        let zero = self.float(0.0);
        let size = self.write("Abs", &[&input], format!("{output}~abs"));
        let below = self.write("Neg", &[&size], format!("{output}~neg"));
        let rest = self.write("Softplus", &[&below], format!("{output}~rest"));
        let above = self.write("Max", &[&input, &zero], format!("{output}~max"));
        self.write("Add", &[&above, &rest], output);
    }

    /// Squares, shifted along the channels and summed.
    fn local_response(&mut self, node: NodeProto) {
        let (input, output) = ends(&node);
        let size = node.attribute.iter().find(|own| own.name == "size").and_then(|own| own.i);
        let radius = size.unwrap_or(1) / 2;
        let squares = self.write("Mul", &[&input, &input], format!("{output}~squares"));
        let ends = self.ints(&[0, radius, 0, 0, 0, radius, 0, 0]);
        let zero = self.float(0.0);
        let padded = self.write("Pad", &[&squares, &ends, &zero], format!("{output}~padded"));
        let (axes, steps) = (self.ints(&[1]), self.ints(&[1]));
        let mut sum: Option<String> = None;
        for shift in 0..=2 * radius {
            let end = if shift == 2 * radius { i64::from(i32::MAX) } else { shift - 2 * radius };
            let (start, end) = (self.ints(&[shift]), self.ints(&[end]));
            let inputs = [&*padded, &start, &end, &axes, &steps];
            let part = self.write("Slice", &inputs, format!("{output}~shifted{shift}"));
            sum = Some(match sum {
                Some(sum) => self.write("Add", &[&sum, &part], format!("{output}~sum{shift}")),
                None => part,
            });
        }
        let sum = sum.unwrap_or(padded);
        // ONNX states the factor for the mean of all channels; here they were summed.
        let alpha = float_attribute(&node, "alpha") / (2 * radius + 1) as f32;
        let (alpha, bias) = (self.float(alpha), self.float(float_attribute(&node, "bias")));
        let beta = self.float(float_attribute(&node, "beta"));
        let scaled = self.write("Mul", &[&sum, &alpha], format!("{output}~scaled"));
        let biased = self.write("Add", &[&scaled, &bias], format!("{output}~biased"));
        let power = self.write("Pow", &[&biased, &beta], format!("{output}~power"));
        self.write("Div", &[&input, &power], output);
    }
}

/// The first input and the first output; every operator that is adapted has both.
fn ends(node: &NodeProto) -> (String, String) {
    let first = |names: &[String]| names.first().cloned().unwrap_or_default();
    (first(&node.input), first(&node.output))
}

fn float_attribute(node: &NodeProto, name: &str) -> f32 {
    let own = node.attribute.iter().find(|attribute| attribute.name == name);
    own.and_then(|attribute| attribute.f).unwrap_or(1.0)
}

fn attribute(name: &str, value: f32) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        r#type: AttributeType::Float as i32,
        f: Some(value),
        ..AttributeProto::default()
    }
}

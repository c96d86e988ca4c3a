//! Nodes that are written around those of a model which an engine computes otherwise than TensorFlow.
//!
//! May not know: any engine. Invariant: where the engine computes a node as it is meant, what is written
//! around it changes no number.

use vesta_protos::onnx::attribute_proto::AttributeType;
use vesta_protos::onnx::tensor_proto::DataType;
use vesta_protos::onnx::{AttributeProto, GraphProto, NodeProto, TensorProto};

/// A node of one output without attributes, which is called after it.
pub(crate) fn node(op: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        name: output.to_owned(),
        op_type: op.to_owned(),
        input: inputs.iter().map(|&input| input.to_owned()).collect(),
        output: vec![output.to_owned()],
        ..NodeProto::default()
    }
}

/// A node with a whole number as an attribute.
pub(crate) fn node_with(
    (attribute, number): (&str, i64),
    op: &str,
    inputs: &[&str],
    output: &str,
) -> NodeProto {
    NodeProto {
        attribute: vec![AttributeProto {
            name: attribute.to_owned(),
            r#type: AttributeType::Int as i32,
            i: Some(number),
            ..AttributeProto::default()
        }],
        ..node(op, inputs, output)
    }
}

/// A conversion.
pub(crate) fn cast(from: &str, to: &str, number: DataType) -> NodeProto {
    node_with(("to", number as i64), "Cast", &[from], to)
}

/// The branches and bodies of a node.
pub(crate) fn graphs_within(node: &mut NodeProto) -> impl Iterator<Item = &mut GraphProto> {
    node.attribute.iter_mut().flat_map(|own| own.g.iter_mut().chain(&mut own.graphs))
}

/// The name of a NaN of this type.
fn nan(number: i32) -> String {
    format!("?nan{number}")
}

/// A reduction of floats of this type that gives NaN where there was one, which [`add_nan`] has to put
/// there: along axes TensorFlow's passes it on, and others' pass over it.
pub(crate) fn with_nan(mut reduction: NodeProto, number: i32) -> Vec<NodeProto> {
    let (Some(read), Some(output)) = (reduction.input.first(), reduction.output.first()) else {
        return vec![reduction];
    };
    let (read, output) = (read.clone(), output.clone());
    let named = |what: &str| format!("{output}?{what}");
    let (without, is_nan, marks) = (named("without"), named("is_nan"), named("marks"));
    let (most, any) = (named("most"), named("any"));
    let mut over_marks = reduction.clone();
    over_marks.op_type = "ReduceMax".to_owned();
    over_marks.name.clone_from(&most);
    over_marks.input[0].clone_from(&marks);
    over_marks.output = vec![most.clone()];
    reduction.name.clone_from(&without);
    reduction.output[0].clone_from(&without);
    vec![
        reduction,
        node("IsNaN", &[&read], &is_nan),
        cast(&is_nan, &marks, DataType::Int32),
        over_marks,
        cast(&most, &any, DataType::Bool),
        node("Where", &[&any, &nan(number), &without], &output),
    ]
}

/// Puts a NaN of floats of this type into a graph. Graphs within see the constants of those around them.
pub(crate) fn add_nan(graph: &mut GraphProto, number: i32) {
    let bytes: &[u8] = match number {
        number if number == DataType::Float as i32 => &f32::NAN.to_le_bytes(),
        _ => &f64::NAN.to_le_bytes(),
    };
    add_constant(graph, &nan(number), number, &[], bytes);
}

/// Puts a constant into a graph.
pub(crate) fn add_constant(
    graph: &mut GraphProto,
    name: &str,
    number: i32,
    dims: &[i64],
    bytes: &[u8],
) {
    graph.initializer.push(TensorProto {
        name: name.to_owned(),
        data_type: number,
        dims: dims.to_vec(),
        raw_data: bytes.to_vec().into(),
        ..TensorProto::default()
    });
}

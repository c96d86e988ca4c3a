//! What ONNX Runtime computes otherwise than TensorFlow: such a translation is refused, or guarded.
//!
//! Owns the list, which `crates/engines/tests/operators` earns. May not know: TensorFlow's operators.
//! Invariant: a guarded model computes what the translation means.

use std::collections::BTreeMap;

use vesta_model::{DType, Status};
use vesta_onnx::{OperatorUse, Translation};
use vesta_protos::onnx::tensor_proto::DataType;
use vesta_protos::onnx::{GraphProto, ModelProto, NodeProto, TensorProto};

/// Operators that it computes in another way for these dtypes, and how that shows.
const OTHERWISE: &[(&str, &[DType], &str)] = &[
    ("Clip", &[DType::I64, DType::U64], NARROWED),
    ("Max", &[DType::I64, DType::U64], NARROWED),
    ("Min", &[DType::I64, DType::U64], NARROWED),
    ("ReduceProd", &[DType::I64, DType::U64], NARROWED),
    ("Relu", &[DType::I64, DType::U64], NARROWED),
    ("Sign", &[DType::I64, DType::U64], NARROWED),
    ("ReduceMax", &[DType::F32, DType::F64], WITHOUT_NAN),
    ("ReduceMin", &[DType::F32, DType::F64], WITHOUT_NAN),
];

const NARROWED: &str = "numbers beyond 32 bits are cut";
const WITHOUT_NAN: &str = "NaN is passed over";

/// Refuses a translation that has such an operator.
///
/// # Errors
/// `UNIMPLEMENTED`, naming each with a node where it stands.
pub(super) fn check(translation: &Translation) -> Result<(), Status> {
    let otherwise = |(used, node): (&OperatorUse, &String)| {
        let reads = |dtypes: &[DType]| used.inputs.first().is_some_and(|own| dtypes.contains(own));
        let (_, _, why) =
            OTHERWISE.iter().find(|(op, dtypes, _)| *op == used.op && reads(dtypes))?;
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

/// Makes a maximum over windows pass over NaN, as TensorFlow's does: ONNX Runtime's loses what it saw
/// before one.
pub(super) fn guard(model: &mut ModelProto) {
    let Some(graph) = &mut model.graph else { return };
    let mut guarded: BTreeMap<String, String> = BTreeMap::new();
    let mut nodes = Vec::with_capacity(graph.node.len());
    for mut node in std::mem::take(&mut graph.node) {
        if let ("MaxPool", Some(read)) = (node.op_type.as_str(), node.input.first_mut()) {
            let name = guarded.entry(read.clone()).or_insert_with(|| {
                let name = format!("{read}/without_nan");
                nodes.extend(without_nan(read, &name));
                name
            });
            read.clone_from(name);
        }
        nodes.push(node);
    }
    graph.node = nodes;
    if !guarded.is_empty() {
        add_lowest(graph);
    }
}

/// The name of the least number, which stands for NaN. No tensor of TensorFlow's is called so.
const LOWEST: &str = "?lowest";

fn without_nan(read: &str, name: &str) -> [NodeProto; 2] {
    let node = |op: &str, inputs: &[&str], output: &str| NodeProto {
        name: output.to_owned(),
        op_type: op.to_owned(),
        input: inputs.iter().map(|&input| input.to_owned()).collect(),
        output: vec![output.to_owned()],
        ..NodeProto::default()
    };
    let is_nan = format!("{name}/is_nan");
    [node("IsNaN", &[read], &is_nan), node("Where", &[&is_nan, LOWEST, read], name)]
}

fn add_lowest(graph: &mut GraphProto) {
    graph.initializer.push(TensorProto {
        name: LOWEST.to_owned(),
        data_type: DataType::Float as i32,
        raw_data: f32::MIN.to_le_bytes().to_vec().into(),
        ..TensorProto::default()
    });
}

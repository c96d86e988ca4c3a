//! A graph that begins with the parsing of `tf.Example`s: the runtime lacks that operator, so it is
//! run here, and the graph is given what it gives.
//!
//! Owns which operators can be taken out. May not know: how Examples are written, or what is left of
//! the graph. Invariant: an operator is taken out only if a request brings its Examples and all else
//! that it reads is in the file.

use vesta_model::{DType, Shape, Status, Tensor};
use vesta_protos::tensorflow::attr_value::{ListValue, Value};
use vesta_protos::tensorflow::tensor_shape_proto::Dim;
use vesta_protos::tensorflow::{AttrValue, NodeDef, TensorShapeProto};

use super::schema::{Model, Operator, Subgraph};
use super::values::read_strings;
use crate::embedded::ParseExample;

/// The operators, in their two versions.
const NAMES: [&str; 2] = ["ParseExample", "ParseExampleV2"];

/// An operator that was taken out.
pub(super) struct Parsing {
    /// Its position among the operators of its graph.
    pub(super) operator: usize,
    /// The input of the graph that brings serialized Examples.
    pub(super) serialized: usize,
    /// The tensors that it gives, one for each feature.
    pub(super) outputs: Vec<usize>,
    parser: ParseExample,
    /// What it reads besides.
    operands: Vec<Tensor>,
}

impl Parsing {
    /// The operator of a graph that can be taken out, if there is one.
    pub(super) fn find(graph: &Subgraph<'_>, model: &Model<'_>) -> Option<Parsing> {
        let parses = |operator: &&Operator<'_>| {
            NAMES.contains(&model.operator_codes[operator.code].1.as_str())
        };
        let number = graph.operators.iter().position(|operator| parses(&operator))?;
        let operator = &graph.operators[number];
        let inputs = operator.inputs.iter().copied().collect::<Option<Vec<usize>>>()?;
        let (&serialized, rest) = inputs.split_first()?;
        let is_read_elsewhere = graph.outputs.contains(&serialized)
            || graph.operators.iter().enumerate().any(|(other, operator)| {
                other != number && operator.inputs.contains(&Some(serialized))
            });
        if !graph.inputs.contains(&serialized) || is_read_elsewhere {
            return None;
        }
        let operands: Vec<Tensor> =
            rest.iter().map(|&tensor| constant(graph, tensor)).collect::<Option<_>>()?;
        let name = model.operator_codes[operator.code].1.as_str();
        let dense = operator.outputs.len();
        // Sparse and ragged features have outputs of their own.
        let all_are_dense = if name == NAMES[1] {
            let count = |at: usize| operands.get(at).map(|keys| keys.shape().elements());
            (count(1), count(2), count(3)) == (Some(0), Some(dense), Some(0))
                && operands.len() == 4 + dense
        } else {
            operands.len() == 1 + 2 * dense
        };
        if !all_are_dense {
            return None;
        }
        let parser = ParseExample::new(&node(graph, operator, name)?).ok()?;
        Some(Parsing {
            operator: number,
            serialized,
            outputs: operator.outputs.clone(),
            parser,
            operands,
        })
    }

    /// What the operator gives for Examples.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` in TensorFlow's words.
    pub(super) fn parse(&self, serialized: &Tensor) -> Result<Vec<Tensor>, Status> {
        let inputs: Vec<&Tensor> = std::iter::once(serialized).chain(&self.operands).collect();
        self.parser.compute(&inputs)
    }
}

/// The operator as TensorFlow writes it down.
fn node(graph: &Subgraph<'_>, operator: &Operator<'_>, name: &str) -> Option<NodeDef> {
    let (mut types, mut shapes) = (Vec::new(), Vec::new());
    for &output in &operator.outputs {
        let tensor = &graph.tensors[output];
        types.push(tensor.dtype().ok()?.0.number());
        // The first size is that of the batch.
        let dims = tensor.dims.get(1..)?.iter().map(|dim| i64::try_from((*dim)?).ok());
        let dim = dims.map(|size| Some(Dim { size: size?, ..Dim::default() }));
        let dim = dim.collect::<Option<Vec<_>>>()?;
        shapes.push(TensorShapeProto { dim, ..TensorShapeProto::default() });
    }
    let list = |list: ListValue| AttrValue { value: Some(Value::List(Box::new(list))) };
    Some(NodeDef {
        name: name.to_owned(),
        op: name.to_owned(),
        attr: [
            ("Tdense".to_owned(), list(ListValue { r#type: types, ..ListValue::default() })),
            ("dense_shapes".to_owned(), list(ListValue { shape: shapes, ..ListValue::default() })),
        ]
        .into(),
        ..NodeDef::default()
    })
}

/// A tensor whose values are in the file.
fn constant(graph: &Subgraph<'_>, tensor: usize) -> Option<Tensor> {
    let tensor = &graph.tensors[tensor];
    let (dtype, _) = tensor.dtype().ok()?;
    let dims = tensor.dims.iter().copied().collect::<Option<Vec<usize>>>()?;
    let shape = Shape::new(dims).ok()?;
    let bytes = match tensor.constant {
        Some(bytes) => bytes,
        // No bytes are all that such a tensor has.
        None if shape.elements() == 0 => &[],
        None => return None,
    };
    if dtype == DType::String {
        return Tensor::of_strings(shape.clone(), &read_strings(bytes, shape.elements())?).ok();
    }
    Tensor::copied(dtype, shape, bytes).ok()
}

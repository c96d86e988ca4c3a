//! What rten 0.27 computes as TensorFlow does: operator × dtypes × attributes.
//!
//! Owns the table. Each row was earned by differential tests against TensorFlow (`tests/`; what ONNX
//! files alone are given, against ONNX Runtime), with zeros, NaN, ties, empty axes and batches over 1
//! where they apply. What is not in the table is not given to rten. See docs/adr/0003-rten-and-its-limits.md.

use std::collections::BTreeMap;

use vesta_model::DType;
use vesta_onnx::{Refusal, Translation};
use vesta_protos::onnx::{NodeProto, TensorProto};
use vesta_protos::tensorflow::NodeDef;

/// ONNX's number of a dtype.
const INT64: i32 = 7;

/// Which dtypes an operator may be used with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dtypes {
    /// Floats alone.
    Floats,
    /// Floats, or numbers that tell of shapes: int32, and int64 that fits in it.
    FloatsAndSizes,
    /// Anything rten holds.
    Any,
}

/// An operator that rten computes exactly.
struct Row {
    op: &'static str,
    dtypes: Dtypes,
    /// Attributes and forms in which it does.
    when: fn(&Use<'_>) -> bool,
}

/// Where a model comes from, and so what its operators are held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Translated; TensorFlow's answers count.
    SavedModel,
    /// An ONNX file in the forms of [`super::onnx`]; ONNX Runtime's answers count, and
    /// `tests/clients/test_onnx_embedded.py` and `test_onnx_forms.py` have the cases.
    OnnxFile,
}

/// One operator in a model.
struct Use<'a> {
    node: &'a NodeProto,
    translation: &'a Translation,
    source: Source,
}

impl Use<'_> {
    fn is_of_file(&self) -> bool {
        self.source == Source::OnnxFile
    }

    fn text(&self, name: &str) -> Option<&[u8]> {
        self.node.attribute.iter().find(|attribute| attribute.name == name)?.s.as_deref()
    }

    fn int(&self, name: &str, default: i64) -> i64 {
        let attribute = self.node.attribute.iter().find(|attribute| attribute.name == name);
        attribute.and_then(|attribute| attribute.i).unwrap_or(default)
    }

    fn ints(&self, name: &str) -> &[i64] {
        let attribute = self.node.attribute.iter().find(|attribute| attribute.name == name);
        attribute.map_or(&[], |attribute| &attribute.ints)
    }

    fn is_constant(&self, input: usize) -> bool {
        let name = self.node.input.get(input);
        name.is_some_and(|name| self.translation.values.get(name).is_some_and(|v| v.is_constant))
    }

    fn rank(&self, input: usize) -> Option<usize> {
        let name = self.node.input.get(input)?;
        match &self.translation.values.get(name)?.shape {
            vesta_model::PartialShape::Ranked(dims) => Some(dims.len()),
            vesta_model::PartialShape::Unknown => None,
        }
    }
}

const fn row(op: &'static str, dtypes: Dtypes) -> Row {
    Row { op, dtypes, when: |_| true }
}

const fn row_when(op: &'static str, dtypes: Dtypes, when: fn(&Use<'_>) -> bool) -> Row {
    Row { op, dtypes, when }
}

static ROWS: &[Row] = &[
    row("Abs", Dtypes::Floats),
    row("Acos", Dtypes::Floats),
    row("Acosh", Dtypes::Floats),
    row("Add", Dtypes::FloatsAndSizes),
    row("And", Dtypes::Any),
    row("Asin", Dtypes::Floats),
    row("Asinh", Dtypes::Floats),
    row("Atan", Dtypes::Floats),
    row("Atanh", Dtypes::Floats),
    row_when("AveragePool", Dtypes::Floats, pools_planes),
    row("BatchNormalization", Dtypes::Floats),
    row("Cast", Dtypes::Any),
    row("Ceil", Dtypes::Floats),
    row("Clip", Dtypes::Floats),
    row("Concat", Dtypes::Any),
    row_when("Conv", Dtypes::Floats, |it| it.rank(0).is_none_or(|rank| rank <= 4)),
    row_when("ConvTranspose", Dtypes::Floats, |it| {
        it.is_of_file()
            || it.int("group", 1) == 1 && it.ints("dilations").iter().all(|&dilation| dilation == 1)
    }),
    row("Cos", Dtypes::Floats),
    row("Cosh", Dtypes::Floats),
    row("CumSum", Dtypes::Floats),
    row("DepthToSpace", Dtypes::Floats),
    row("Div", Dtypes::Floats),
    row("Einsum", Dtypes::Floats),
    row("Elu", Dtypes::Floats),
    row("Equal", Dtypes::FloatsAndSizes),
    row("Erf", Dtypes::Floats),
    row("Exp", Dtypes::Floats),
    row("Expand", Dtypes::Any),
    row("Floor", Dtypes::Floats),
    // By indices of a request, it counts from the end where TensorFlow has an error.
    row_when("Gather", Dtypes::Any, |it| it.is_constant(1) || it.is_of_file()),
    row("Greater", Dtypes::FloatsAndSizes),
    row("GreaterOrEqual", Dtypes::FloatsAndSizes),
    row("Identity", Dtypes::Any),
    row("IsInf", Dtypes::Floats),
    row("IsNaN", Dtypes::Floats),
    row("LRN", Dtypes::Floats),
    row("LeakyRelu", Dtypes::Floats),
    row("Less", Dtypes::FloatsAndSizes),
    row("LessOrEqual", Dtypes::FloatsAndSizes),
    row("Log", Dtypes::Floats),
    row("LogSoftmax", Dtypes::Floats),
    row_when("MatMul", Dtypes::Floats, |it| it.rank(1).is_some_and(|rank| rank >= 2)),
    row("Max", Dtypes::Floats),
    row_when("MaxPool", Dtypes::Floats, pools_planes),
    row("Min", Dtypes::Floats),
    row("Mul", Dtypes::FloatsAndSizes),
    row("Neg", Dtypes::Floats),
    row("Not", Dtypes::Any),
    row("Or", Dtypes::Any),
    row_when("Pad", Dtypes::Floats, |it| {
        it.is_of_file()
            || it.is_constant(1) && it.text("mode").is_none_or(|mode| mode == b"constant")
    }),
    row("Pow", Dtypes::Floats),
    row("Range", Dtypes::Any),
    row("Reciprocal", Dtypes::Floats),
    row("ReduceL2", Dtypes::Floats),
    row("ReduceMax", Dtypes::Floats),
    row("ReduceMean", Dtypes::Floats),
    row("ReduceMin", Dtypes::Floats),
    row("ReduceProd", Dtypes::FloatsAndSizes),
    row("ReduceSum", Dtypes::Floats),
    row("Relu", Dtypes::Floats),
    row("Reshape", Dtypes::Any),
    row_when("Resize", Dtypes::Floats, resizes_as_tensorflow),
    row("Round", Dtypes::Floats),
    row("Selu", Dtypes::Floats),
    row("Shape", Dtypes::Any),
    row("Sigmoid", Dtypes::Floats),
    row("Sin", Dtypes::Floats),
    row("Sinh", Dtypes::Floats),
    row("Slice", Dtypes::Any),
    row("Softmax", Dtypes::Floats),
    row("Softplus", Dtypes::Floats),
    row("Softsign", Dtypes::Floats),
    row("Split", Dtypes::Any),
    row("Sqrt", Dtypes::Floats),
    row("Squeeze", Dtypes::Any),
    row("Sub", Dtypes::FloatsAndSizes),
    row("Tan", Dtypes::Floats),
    row("Tanh", Dtypes::Floats),
    row("Tile", Dtypes::Any),
    row("Transpose", Dtypes::Any),
    row("Trilu", Dtypes::Floats),
    row("Unsqueeze", Dtypes::Any),
    row("Where", Dtypes::Any),
];

/// What files alone are given, besides.
static ROWS_OF_FILES: &[Row] = &[row("GRU", Dtypes::Floats), row("LSTM", Dtypes::Floats)];

/// Pooling over two axes without gaps.
fn pools_planes(it: &Use<'_>) -> bool {
    it.ints("kernel_shape").len() == 2
        && it.ints("dilations").iter().all(|&dilation| dilation == 1)
        && it.int("ceil_mode", 0) == 0
}

/// Resizing by nearest or linear; with corners aligned rten is wrong when it shrinks.
fn resizes_as_tensorflow(it: &Use<'_>) -> bool {
    if it.is_of_file() {
        return true;
    }
    it.text("mode").is_none_or(|mode| mode != b"cubic")
        && it.text("coordinate_transformation_mode").is_some_and(|mode| mode != b"align_corners")
        && it.int("antialias", 0) == 0
}

/// TensorFlow operators that stay off rten although they have a translation: it decides ties, signs
/// or bad indices another way than TensorFlow.
const HOST_ONLY: &[&str] = &[
    "ArgMax",
    "ArgMin",
    "TopKV2",
    "Sign",
    "GatherNd",
    "NonMaxSuppressionV3",
    "NonMaxSuppressionV4",
    "NonMaxSuppressionV5",
    "CombinedNonMaxSuppression",
    "FloorDiv",
    "FloorMod",
    "TruncateDiv",
    "Div",
    "StringLength",
];

/// Whether a TensorFlow node is worth offering to rten: its dtypes are ones that rten holds as they
/// are. What the translation makes of it is then held to the table by [`check`].
pub(crate) fn is_candidate(node: &NodeDef, inputs: &[DType], outputs: &[DType]) -> bool {
    let held = |dtype: &DType| matches!(dtype, DType::F32 | DType::I32 | DType::Bool | DType::I64);
    !HOST_ONLY.contains(&node.op.as_str())
        && inputs.iter().chain(outputs).all(held)
        && vesta_onnx::translated_operators().any(|op| op == node.op)
}

/// The operators of the table.
#[cfg(test)]
pub(crate) fn operators() -> impl Iterator<Item = &'static str> {
    ROWS.iter().map(|row| row.op)
}

/// Holds a translation to the table.
///
/// Gives every TensorFlow node that needs something that is not in it.
pub(crate) fn check(translation: &Translation, source: Source) -> Vec<Refusal> {
    let more = if source == Source::OnnxFile { ROWS_OF_FILES } else { &[] };
    let rows: BTreeMap<&str, &Row> = ROWS.iter().chain(more).map(|row| (row.op, row)).collect();
    let Some(graph) = &translation.model.graph else { return Vec::new() };
    let mut refused = Vec::new();
    for node in &graph.node {
        let it = Use { node, translation, source };
        let dtypes: Vec<DType> = node
            .input
            .iter()
            .chain(&node.output)
            .filter_map(|name| translation.values.get(name))
            .map(|facts| facts.dtype)
            .collect();
        let reason = match rows.get(node.op_type.as_str()) {
            None => Some(format!("it needs {}", node.op_type)),
            Some(row) if !dtypes_fit(row, &dtypes) => {
                Some(format!("it needs {} with {}", node.op_type, listed(&dtypes)))
            }
            Some(row) if !(row.when)(&it) => Some(format!("it needs a form of {}", node.op_type)),
            Some(_) => None,
        };
        if let Some(reason) = reason {
            refused.push(Refusal { op: node.op_type.clone(), node: origin(node), reason });
        }
    }
    refused.extend(large_constants(&graph.initializer, &graph.node));
    refused
}

/// The TensorFlow node that an ONNX node was written for. The translator names each after it: either
/// `node/Operator_7`, or as the tensor `node:0` where a fetch is given.
fn origin(node: &NodeProto) -> String {
    let own = |(_, last): &(&str, &str)| {
        last.strip_prefix(node.op_type.as_str()).is_some_and(|rest| rest.starts_with('_'))
    };
    match node.name.rsplit_once('/').filter(own) {
        Some((origin, _)) => origin.to_owned(),
        None => node.name.split(':').next().unwrap_or_default().to_owned(),
    }
}

fn dtypes_fit(row: &Row, dtypes: &[DType]) -> bool {
    let fits = |dtype: &DType| match row.dtypes {
        Dtypes::Floats => {
            // Axes, sizes and conditions are operands of float operators too.
            matches!(dtype, DType::F32 | DType::I64 | DType::Bool | DType::Invalid)
        }
        Dtypes::FloatsAndSizes | Dtypes::Any => {
            matches!(dtype, DType::F32 | DType::I32 | DType::I64 | DType::Bool | DType::Invalid)
        }
    };
    let floats = row.dtypes != Dtypes::Floats || dtypes.contains(&DType::F32);
    floats && dtypes.iter().all(fits)
}

fn listed(dtypes: &[DType]) -> String {
    let mut names: Vec<&str> = dtypes.iter().map(|dtype| dtype.name()).collect();
    names.dedup();
    names.join(", ")
}

/// int64 constants beyond 32 bits, which rten would saturate. The ends of a slice may lie anywhere
/// beyond the tensor, so those stay right.
fn large_constants(constants: &[TensorProto], nodes: &[NodeProto]) -> Vec<Refusal> {
    let mut refused = Vec::new();
    for constant in constants.iter().filter(|constant| constant.data_type == INT64) {
        let (words, _) = constant.raw_data.as_chunks::<8>();
        let large = words.iter().any(|&word| i32::try_from(i64::from_le_bytes(word)).is_err());
        let readers = nodes.iter().filter(|node| node.input.contains(&constant.name));
        if !large {
            continue;
        }
        for node in readers.filter(|node| node.op_type != "Slice") {
            refused.push(Refusal {
                op: node.op_type.clone(),
                node: origin(node),
                reason: "it needs an int64 constant beyond 32 bits".to_owned(),
            });
        }
    }
    refused
}

//! What the sizes of a graph's tensors follow from.
//!
//! May not know: the runtime. Invariant: an operator that is not known to make its sizes of those of its
//! inputs, and of numbers that follow from such, counts as one whose sizes follow from what is fed.

use super::schema::{Model, Operator, Subgraph};

/// Operators whose results have sizes that follow from those of what they are given.
const BY_SIZES: &[&str] = &[
    "ABS",
    "ADD",
    "ADD_N",
    "ATAN2",
    "AVERAGE_POOL_2D",
    "AudioSpectrogram",
    "BATCH_MATMUL",
    "BIDIRECTIONAL_SEQUENCE_LSTM",
    "BIDIRECTIONAL_SEQUENCE_RNN",
    "CAST",
    "CEIL",
    "COMPLEX_ABS",
    "CONCATENATION",
    "CONV_2D",
    "CONV_3D",
    "COS",
    "CUMSUM",
    "DEPTHWISE_CONV_2D",
    "DEPTH_TO_SPACE",
    "DEQUANTIZE",
    "DIV",
    "DYNAMIC_UPDATE_SLICE",
    "ELU",
    "EMBEDDING_LOOKUP",
    "EQUAL",
    "EXP",
    "FAKE_QUANT",
    "FLOOR",
    "FLOOR_DIV",
    "FLOOR_MOD",
    "FULLY_CONNECTED",
    "GATHER",
    "GATHER_ND",
    "GELU",
    "GREATER",
    "GREATER_EQUAL",
    "HARD_SWISH",
    "IMAG",
    "L2_NORMALIZATION",
    "L2_POOL_2D",
    "LEAKY_RELU",
    "LESS",
    "LESS_EQUAL",
    "LOCAL_RESPONSE_NORMALIZATION",
    "LOG",
    "LOGICAL_AND",
    "LOGICAL_NOT",
    "LOGICAL_OR",
    "LOGISTIC",
    "LOG_SOFTMAX",
    "LSTM",
    "MATRIX_DIAG",
    "MATRIX_SET_DIAG",
    "MAXIMUM",
    "MAX_POOL_2D",
    "MINIMUM",
    "MUL",
    "Mfcc",
    "NEG",
    "NOT_EQUAL",
    "PACK",
    "POW",
    "PRELU",
    "QUANTIZE",
    "RANK",
    "REAL",
    "RELU",
    "RELU6",
    "RELU_0_TO_1",
    "RELU_N1_TO_1",
    "REVERSE_SEQUENCE",
    "RNN",
    "ROUND",
    "RSQRT",
    "SELECT",
    "SELECT_V2",
    "SHAPE",
    "SIGN",
    "SIN",
    "SOFTMAX",
    "SPACE_TO_DEPTH",
    "SQRT",
    "SQUARE",
    "SQUARED_DIFFERENCE",
    "SQUEEZE",
    "SUB",
    "SVDF",
    "TANH",
    "TFLite_Detection_PostProcess",
    "UNIDIRECTIONAL_SEQUENCE_LSTM",
    "UNIDIRECTIONAL_SEQUENCE_RNN",
    "UNPACK",
    "ZEROS_LIKE",
];

/// Those whose sizes follow from the numbers in their operands, too, all but the first.
const BY_OPERANDS: &[&str] = &[
    "ARG_MAX",
    "ARG_MIN",
    "BATCH_TO_SPACE_ND",
    "BROADCAST_TO",
    "EXPAND_DIMS",
    "MEAN",
    "MIRROR_PAD",
    "ONE_HOT",
    "PAD",
    "PADV2",
    "REDUCE_ALL",
    "REDUCE_ANY",
    "REDUCE_MAX",
    "REDUCE_MIN",
    "REDUCE_PROD",
    "RESHAPE",
    "RESIZE_BILINEAR",
    "RESIZE_NEAREST_NEIGHBOR",
    "REVERSE_V2",
    "RFFT2D",
    "SLICE",
    "SPACE_TO_BATCH_ND",
    "SPLIT_V",
    "STRIDED_SLICE",
    "SUM",
    "TILE",
    "TOPK_V2",
    "TRANSPOSE",
];

/// Those whose sizes follow from the numbers in their first operand, too.
const BY_THE_FIRST: &[&str] = &["FILL", "SPLIT", "TRANSPOSE_CONV"];

/// What the sizes of a graph's tensors follow from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Follows {
    /// From those of its inputs and numbers in the file: the runtime knows them before a run.
    Inputs,
    /// From those of its inputs, by numbers that a run computes of them.
    Computed,
    /// From what is fed.
    Fed,
}

/// What the sizes of all tensors of a graph follow from.
pub(super) fn follow(model: &Model<'_>, graph: usize) -> Follows {
    let graph = &model.subgraphs[graph];
    // Tensors whose numbers follow from sizes and the file.
    let mut known: Vec<bool> = graph.tensors.iter().map(|own| own.constant.is_some()).collect();
    let mut all = Follows::Inputs;
    for operator in &graph.operators {
        let name = model.operator_codes[operator.code].1.as_str();
        let own = follow_of(graph, &known, name, operator);
        all = all.max(own);
        let is_known = |operand: &Option<usize>| operand.is_none_or(|number| known[number]);
        let gives_sizes = matches!(name, "SHAPE" | "RANK");
        if gives_sizes || own != Follows::Fed && operator.inputs.iter().all(is_known) {
            operator.outputs.iter().for_each(|&output| known[output] = true);
        }
    }
    all
}

fn follow_of(graph: &Subgraph<'_>, known: &[bool], name: &str, operator: &Operator<'_>) -> Follows {
    let inputs = operator.inputs.as_slice();
    let giving = if BY_SIZES.contains(&name) {
        &[]
    } else if BY_OPERANDS.contains(&name) {
        inputs.get(1..).unwrap_or_default()
    } else if BY_THE_FIRST.contains(&name) {
        inputs.get(..1).unwrap_or_default()
    } else if name == "RANGE" {
        inputs
    } else {
        return Follows::Fed;
    };
    let mut giving = giving.iter().flatten();
    if giving.clone().all(|&number| graph.tensors[number].constant.is_some()) {
        Follows::Inputs
    } else if giving.all(|&number| known[number]) {
        Follows::Computed
    } else {
        Follows::Fed
    }
}

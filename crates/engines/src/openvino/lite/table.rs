//! What OpenVINO 2026.4 computes as LiteRT does: operators of TensorFlow Lite, and the forms that they may
//! have. A graph with anything else is refused.
//!
//! Owns the table, which `tests/clients/test_tflite_openvino.py` holds to LiteRT's answers. As in
//! the table of translations (`openvino/exactness.rs`), whole numbers of 64 bits are held in 32, and some operators compute
//! whole numbers as floats, which hold 24 bits of them. Numbers that are not finite go other ways in both
//! libraries at most operators; requests that bring some are refused there. Invariant: within that, what
//! passes is as LiteRT's.

/// What an operator may be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// Floats.
    Floats,
    /// Floats and whole numbers of 32 bits.
    Numbers,
    /// Floats, and whole numbers where each is small.
    Small,
    /// Whole numbers that follow from sizes.
    Sizes,
    /// Whole numbers where each is small, divided by such that are in the file and not zero.
    SmallByConstant,
    /// Floats and truths, and whole numbers where one of those that are compared is small.
    SmallOnOneSide,
    /// What it moves and does not look into.
    Anything,
    /// The same, picked by indices that are in the file.
    Picked,
    /// Certain pairs of dtypes.
    Converted,
    /// Halves that are in the file.
    Halves,
    /// Truths.
    Truths,
}

/// Operators, and what they may be given.
const ROWS: &[(Takes, &[&str])] = &[
    (
        Takes::Floats,
        &[
            "AVERAGE_POOL_2D",
            "BATCH_MATMUL",
            "BATCH_TO_SPACE_ND",
            "CONV_2D",
            "CONV_3D",
            "COS",
            "DEPTHWISE_CONV_2D",
            "DIV",
            "ELU",
            "EXP",
            "FULLY_CONNECTED",
            "GELU",
            "HARD_SWISH",
            "L2_NORMALIZATION",
            "LEAKY_RELU",
            "LOG",
            "LOGISTIC",
            "LOG_SOFTMAX",
            "MAX_POOL_2D",
            "MEAN",
            "POW",
            "PRELU",
            "RELU",
            "RELU6",
            "RESIZE_BILINEAR",
            "RESIZE_NEAREST_NEIGHBOR",
            "REVERSE_SEQUENCE",
            "ROUND",
            "RSQRT",
            "SIN",
            "SOFTMAX",
            "SPACE_TO_BATCH_ND",
            "SQRT",
            "SQUARE",
            "TANH",
            "TRANSPOSE_CONV",
        ],
    ),
    (
        Takes::Numbers,
        &[
            "ABS",
            "ADD",
            "ADD_N",
            "ARG_MAX",
            "ARG_MIN",
            "CUMSUM",
            "MAXIMUM",
            "MINIMUM",
            "MUL",
            "NEG",
            "REDUCE_PROD",
            "SIGN",
            "SQUARED_DIFFERENCE",
            "SUB",
            "TOPK_V2",
        ],
    ),
    (Takes::Small, &["REDUCE_MAX", "REDUCE_MIN", "REVERSE_V2", "SUM"]),
    (Takes::Sizes, &["RANGE"]),
    (Takes::SmallByConstant, &["FLOOR_DIV"]),
    (
        Takes::SmallOnOneSide,
        &["EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL", "NOT_EQUAL"],
    ),
    (
        Takes::Anything,
        &[
            "BROADCAST_TO",
            "CONCATENATION",
            "DEPTH_TO_SPACE",
            "EXPAND_DIMS",
            "FILL",
            "MATRIX_DIAG",
            "MIRROR_PAD",
            "ONE_HOT",
            "PACK",
            "PAD",
            "PADV2",
            "RESHAPE",
            "SELECT",
            "SELECT_V2",
            "SHAPE",
            "SLICE",
            "SPACE_TO_DEPTH",
            "SPLIT",
            "SPLIT_V",
            "SQUEEZE",
            "STRIDED_SLICE",
            "TILE",
            "TRANSPOSE",
            "UNPACK",
            "ZEROS_LIKE",
        ],
    ),
    (Takes::Picked, &["GATHER", "GATHER_ND"]),
    (Takes::Converted, &["CAST"]),
    (Takes::Halves, &["DEQUANTIZE"]),
    (Takes::Truths, &["LOGICAL_AND", "LOGICAL_NOT", "LOGICAL_OR", "REDUCE_ALL", "REDUCE_ANY"]),
];

/// What an operator may be given; `None` for one that is not in the table.
pub(super) fn takes(operator: &str) -> Option<Takes> {
    ROWS.iter().find(|(_, operators)| operators.contains(&operator)).map(|(takes, _)| *takes)
}

/// Operators that give numbers that are not finite as LiteRT's do, where no activation is joined to them.
pub(super) const SPECIAL: &[&str] = &[
    "ABS",
    "ADD",
    "BROADCAST_TO",
    "CONCATENATION",
    "DIV",
    "EXPAND_DIMS",
    "GATHER",
    "MUL",
    "NEG",
    "PACK",
    "RESHAPE",
    "SHAPE",
    "SLICE",
    "SPLIT",
    "SQUARE",
    "SQUEEZE",
    "STRIDED_SLICE",
    "SUB",
    "TILE",
    "TRANSPOSE",
    "UNPACK",
];

/// A field of an operator's options that must be among the first values of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounded {
    pub(super) slot: usize,
    pub(super) most: u8,
    /// What a larger value is, for the refusal.
    pub(super) otherwise: &'static str,
}

const fn fused(slot: usize) -> Bounded {
    // Those after ReLU, ReLU within 1 and ReLU within 6 are lost.
    Bounded { slot, most: 3, otherwise: "with another activation than ReLU's kinds" }
}

const fn alone(slot: usize) -> Bounded {
    Bounded { slot, most: 0, otherwise: "with an activation" }
}

const fn without(slot: usize, otherwise: &'static str) -> Bounded {
    Bounded { slot, most: 0, otherwise }
}

/// Operators whose options are read, with the number of their kind of options and what these may say.
const OPTIONS: &[(&str, u8, &[Bounded])] = &[
    ("ADD", 11, &[fused(0)]),
    ("ARG_MAX", 40, &[]),
    ("ARG_MIN", 57, &[]),
    ("AVERAGE_POOL_2D", 5, &[fused(5)]),
    ("BATCH_MATMUL", 101, &[]),
    ("CONCATENATION", 10, &[alone(1)]),
    ("CONV_2D", 1, &[fused(3)]),
    ("CONV_3D", 106, &[alone(4)]),
    ("CUMSUM", 102, &[]),
    ("DEPTHWISE_CONV_2D", 2, &[fused(4)]),
    ("DEPTH_TO_SPACE", 94, &[]),
    ("DIV", 29, &[fused(0)]),
    ("FULLY_CONNECTED", 8, &[fused(0), without(1, "with weights in an order of their own")]),
    ("GATHER", 23, &[without(1, "of several rows at once")]),
    ("GELU", 116, &[]),
    ("L2_NORMALIZATION", 12, &[alone(0)]),
    ("LEAKY_RELU", 75, &[]),
    ("MAX_POOL_2D", 5, &[fused(5)]),
    ("MEAN", 27, &[]),
    ("MIRROR_PAD", 77, &[]),
    ("MUL", 21, &[fused(0)]),
    ("ONE_HOT", 61, &[]),
    ("PACK", 59, &[]),
    ("REDUCE_ALL", 27, &[]),
    ("REDUCE_ANY", 27, &[]),
    ("REDUCE_MAX", 27, &[]),
    ("REDUCE_MIN", 27, &[]),
    ("REDUCE_PROD", 27, &[]),
    ("RESIZE_BILINEAR", 15, &[]),
    ("RESIZE_NEAREST_NEIGHBOR", 74, &[without(1, "with half pixels as centres")]),
    ("REVERSE_SEQUENCE", 87, &[]),
    ("SHAPE", 55, &[]),
    ("SOFTMAX", 9, &[]),
    ("SPACE_TO_DEPTH", 19, &[]),
    ("SPLIT", 35, &[]),
    ("SPLIT_V", 79, &[]),
    ("SQUEEZE", 30, &[]),
    ("STRIDED_SLICE", 32, &[without(5, "whose end is counted from its begin")]),
    ("SUB", 28, &[fused(0)]),
    ("SUM", 27, &[]),
    ("TRANSPOSE_CONV", 49, &[alone(3)]),
    ("UNPACK", 64, &[]),
];

/// The kind of options that an operator must have, and what they may say; `None` where none are read.
pub(super) fn options(operator: &str) -> Option<(u8, &'static [Bounded])> {
    let row = OPTIONS.iter().find(|(name, ..)| *name == operator);
    row.map(|(_, kind, bounded)| (*kind, *bounded))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn an_operator_has_one_row() {
        let all: Vec<&str> =
            ROWS.iter().flat_map(|(_, operators)| operators.iter().copied()).collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        for name in OPTIONS.iter().map(|(name, ..)| name).chain(SPECIAL) {
            assert!(takes(name).is_some(), "{name}");
        }
    }
}

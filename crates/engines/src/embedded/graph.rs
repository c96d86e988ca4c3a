//! Reading of TensorFlow nodes: tensor names, attributes with their defaults, output dtypes.
//!
//! May not know: placement, kernels, rten. Invariant: an absent attribute reads as the default of
//! the operator's definition, which the caller states.

use vesta_model::DType;
use vesta_protos::tensorflow::attr_value::Value;
use vesta_protos::tensorflow::{NodeDef, TensorProto};

/// Splits `node:1` into the node and the number of its output; `node` means output 0.
///
/// `None` for control edges and malformed numbers.
pub(crate) fn split_tensor(text: &str) -> Option<(&str, usize)> {
    if text.starts_with('^') {
        return None;
    }
    match text.rsplit_once(':') {
        Some((node, output)) => Some((node, output.parse().ok()?)),
        None => Some((text, 0)),
    }
}

/// The canonical name of an output: always with its number.
pub(crate) fn tensor_name(node: &str, output: usize) -> String {
    format!("{node}:{output}")
}

/// The canonical form of an edge; `None` for control edges.
pub(crate) fn canonical(text: &str) -> Option<String> {
    split_tensor(text).map(|(node, output)| tensor_name(node, output))
}

/// Typed reading of one node's attributes.
#[derive(Clone, Copy)]
pub(crate) struct Attributes<'a>(pub(crate) &'a NodeDef);

impl<'a> Attributes<'a> {
    fn value(self, name: &str) -> Option<&'a Value> {
        self.0.attr.get(name)?.value.as_ref()
    }

    pub(crate) fn dtype(self, name: &str) -> Option<DType> {
        match self.value(name)? {
            Value::Type(number) => DType::from_number(*number),
            _ => None,
        }
    }

    pub(crate) fn dtype_or(self, name: &str, default: DType) -> DType {
        self.dtype(name).unwrap_or(default)
    }

    pub(crate) fn int(self, name: &str, default: i64) -> i64 {
        match self.value(name) {
            Some(Value::I(value)) => *value,
            _ => default,
        }
    }

    pub(crate) fn flag(self, name: &str) -> bool {
        matches!(self.value(name), Some(Value::B(true)))
    }

    pub(crate) fn flag_or(self, name: &str, default: bool) -> bool {
        match self.value(name) {
            Some(Value::B(value)) => *value,
            _ => default,
        }
    }

    pub(crate) fn text(self, name: &str, default: &str) -> String {
        match self.value(name) {
            Some(Value::S(value)) => String::from_utf8_lossy(value).into_owned(),
            _ => default.to_owned(),
        }
    }

    pub(crate) fn ints(self, name: &str) -> Vec<i64> {
        match self.value(name) {
            Some(Value::List(list)) => list.i.clone(),
            _ => Vec::new(),
        }
    }

    /// A list of dtypes; unknown ones read as [`DType::Invalid`].
    pub(crate) fn dtypes(self, name: &str) -> Vec<DType> {
        match self.value(name) {
            Some(Value::List(list)) => list
                .r#type
                .iter()
                .map(|&number| DType::from_number(number).unwrap_or(DType::Invalid))
                .collect(),
            _ => Vec::new(),
        }
    }

    /// A list of shapes, `None` for a size or rank that is left open.
    pub(crate) fn shapes(self, name: &str) -> Vec<Option<Vec<i64>>> {
        match self.value(name) {
            Some(Value::List(list)) => list
                .shape
                .iter()
                .map(|shape| {
                    (!shape.unknown_rank).then(|| shape.dim.iter().map(|dim| dim.size).collect())
                })
                .collect(),
            _ => Vec::new(),
        }
    }

    pub(crate) fn tensor(self, name: &str) -> Option<&'a TensorProto> {
        match self.value(name)? {
            Value::Tensor(tensor) => Some(tensor),
            _ => None,
        }
    }
}

/// The dtypes of all outputs of a node.
///
/// `None` for operators that are not known here; such a node has no place in this engine.
pub(crate) fn output_dtypes(node: &NodeDef) -> Option<Vec<DType>> {
    let attributes = Attributes(node);
    let of = |name: &str| attributes.dtype(name).map(|dtype| vec![dtype]);
    match node.op.as_str() {
        "Const" | "Placeholder" | "PlaceholderWithDefault" | "RandomUniform" => of("dtype"),
        "Cast" => of("DstT"),
        "Shape" | "Size" => Some(vec![attributes.dtype_or("out_type", DType::I32)]),
        "Rank" | "StringLength" => Some(vec![DType::I32]),
        "ArgMax" | "ArgMin" => Some(vec![attributes.dtype_or("output_type", DType::I64)]),
        "Equal"
        | "NotEqual"
        | "Less"
        | "LessEqual"
        | "Greater"
        | "GreaterEqual"
        | "LogicalAnd"
        | "LogicalOr"
        | "LogicalNot"
        | "All"
        | "Any"
        | "IsNan"
        | "IsInf"
        | "IsFinite"
        | "StaticRegexFullMatch" => Some(vec![DType::Bool]),
        "StringJoin" | "StringUpper" | "StringLower" | "StringStrip" | "AsString" => {
            Some(vec![DType::String])
        }
        "GatherV2" | "Gather" | "GatherNd" => of("Tparams"),
        "Range" => of("Tidx"),
        "BatchMatMulV3" => of("Tout"),
        "Fill" => of("T"),
        "IdentityN" => Some(attributes.dtypes("T")),
        "Split" => repeat(attributes.dtype("T")?, attributes.int("num_split", 1)),
        "SplitV" => repeat(attributes.dtype("T")?, attributes.int("num_split", 1)),
        "Unpack" => repeat(attributes.dtype("T")?, attributes.int("num", 0)),
        "TopKV2" => {
            Some(vec![attributes.dtype("T")?, attributes.dtype_or("index_type", DType::I32)])
        }
        "FusedBatchNorm" => repeat(attributes.dtype("T")?, 5),
        "FusedBatchNormV2" | "FusedBatchNormV3" => {
            let (t, u) = (attributes.dtype("T")?, attributes.dtype_or("U", DType::F32));
            let outputs = if node.op == "FusedBatchNormV3" { 6 } else { 5 };
            Some((0..outputs).map(|output| if output == 0 { t } else { u }).collect())
        }
        "ResizeBilinear" => Some(vec![DType::F32]),
        "ParseExample" | "ParseExampleV2" => Some(parse_example_dtypes(attributes)),
        op if SAME_DTYPE.contains(&op) => of("T"),
        _ => None,
    }
}

/// Operators with one output, of the dtype that attribute `T` names.
const SAME_DTYPE: &[&str] = &[
    "Abs",
    "Acos",
    "Acosh",
    "Add",
    "AddN",
    "AddV2",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "AvgPool",
    "AvgPool3D",
    "BatchMatMul",
    "BatchMatMulV2",
    "BatchNormWithGlobalNormalization",
    "BatchToSpace",
    "BatchToSpaceND",
    "BiasAdd",
    "BiasAddV1",
    "BroadcastTo",
    "Ceil",
    "ClipByValue",
    "Concat",
    "ConcatV2",
    "Conv2D",
    "Conv2DBackpropInput",
    "Conv3D",
    "Cos",
    "Cosh",
    "Cross",
    "Cumsum",
    "DepthToSpace",
    "DepthwiseConv2dNative",
    "Div",
    "DivNoNan",
    "Einsum",
    "Elu",
    "EnsureShape",
    "Erf",
    "Erfc",
    "EuclideanNorm",
    "Exp",
    "ExpandDims",
    "Expm1",
    "Floor",
    "FloorDiv",
    "FloorMod",
    "GuaranteeConst",
    "Identity",
    "Inv",
    "LRN",
    "LeakyRelu",
    "Log",
    "Log1p",
    "LogSoftmax",
    "MatMul",
    "MatrixBandPart",
    "Max",
    "MaxPool",
    "MaxPool3D",
    "Maximum",
    "Mean",
    "Min",
    "Minimum",
    "MirrorPad",
    "Mul",
    "Neg",
    "OneHot",
    "OnesLike",
    "Pack",
    "Pad",
    "PadV2",
    "Pow",
    "PreventGradient",
    "Prod",
    "RealDiv",
    "Reciprocal",
    "Relu",
    "Relu6",
    "Reshape",
    "ResizeNearestNeighbor",
    "Reverse",
    "Rint",
    "Round",
    "Rsqrt",
    "Select",
    "SelectV2",
    "Selu",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Slice",
    "Snapshot",
    "Softmax",
    "Softplus",
    "Softsign",
    "SpaceToBatch",
    "SpaceToBatchND",
    "SpaceToDepth",
    "Sqrt",
    "Square",
    "SquaredDifference",
    "Squeeze",
    "StopGradient",
    "StridedSlice",
    "Sub",
    "Sum",
    "Tan",
    "Tanh",
    "Tile",
    "Transpose",
    "TruncateDiv",
    "ZerosLike",
];

fn repeat(dtype: DType, count: i64) -> Option<Vec<DType>> {
    // No real operator comes near: a bound keeps a made-up attribute from taking memory.
    let count = usize::try_from(count).ok().filter(|&count| count <= 65_536)?;
    Some(vec![dtype; count])
}

fn parse_example_dtypes(attributes: Attributes<'_>) -> Vec<DType> {
    let sparse = attributes.dtypes("sparse_types");
    let mut dtypes = vec![DType::I64; sparse.len()];
    dtypes.extend(&sparse);
    dtypes.extend(vec![DType::I64; sparse.len()]);
    dtypes.extend(attributes.dtypes("Tdense"));
    dtypes.extend(attributes.dtypes("ragged_value_types"));
    dtypes.extend(attributes.dtypes("ragged_split_types"));
    dtypes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_have_one_canonical_name() {
        assert_eq!(canonical("a").as_deref(), Some("a:0"));
        assert_eq!(canonical("a/b:3").as_deref(), Some("a/b:3"));
        assert_eq!(canonical("^a"), None);
        assert_eq!(canonical("a:x"), None);
    }
}

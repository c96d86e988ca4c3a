//! The dtypes of what operators give, for graphs that come without definitions of their operators.
//!
//! Knows the TensorFlow operators that end graphs. Invariant: what is not known is not guessed, but that
//! an operator with the attribute `T` alone gives one tensor of it.

use vesta_model::DType;
use vesta_protos::tensorflow::attr_value::Value;
use vesta_protos::tensorflow::op_def::ArgDef;
use vesta_protos::tensorflow::{GraphDef, NodeDef};

/// The most tensors that one node may give.
const OUTPUTS_MAX: i64 = 65_536;

/// The dtypes, by number, of a node's outputs; of a batch normalisation, of the first alone. `None` where
/// they are not known.
pub(crate) fn output_types(graph: &GraphDef, node: &NodeDef) -> Option<Vec<i32>> {
    let value = |key: &str| node.attr.get(key).and_then(|value| value.value.as_ref());
    let of = |key: &str| match value(key) {
        Some(&Value::Type(dtype)) => Some(dtype),
        _ => None,
    };
    let or = |key: &str, default: DType| Some(of(key).unwrap_or(default.number()));
    let list = |key: &str| match value(key) {
        Some(Value::List(list)) => Some(list.r#type.clone()),
        _ => None,
    };
    let times = |key: &str, dtype: i32| match value(key) {
        Some(&Value::I(count)) if (0..=OUTPUTS_MAX).contains(&count) => {
            Some(vec![dtype; count as usize])
        }
        _ => None,
    };
    let int = DType::I32.number();
    if let Some(one) = fixed(&node.op) {
        return Some(vec![one.number()]);
    }
    let one = match node.op.as_str() {
        "IdentityN" | "While" | "StatelessWhile" => return list("T"),
        "If"
        | "StatelessIf"
        | "Case"
        | "StatelessCase"
        | "PartitionedCall"
        | "StatefulPartitionedCall" => return list("Tout"),
        "Split" | "SplitV" => {
            return times("num_split", of("T")?);
        }
        "Unpack" => return times("num", of("T")?),
        "ShapeN" => return times("N", or("out_type", DType::I32)?),
        "TopK" | "TopKV2" => return Some(vec![of("T")?, or("index_type", DType::I32)?]),
        "Unique" | "UniqueV2" => return Some(vec![of("T")?, or("out_idx", DType::I32)?]),
        "UniqueWithCounts" | "UniqueWithCountsV2" => {
            let index = or("out_idx", DType::I32)?;
            return Some(vec![of("T")?, index, index]);
        }
        "MaxPoolWithArgmax" => return Some(vec![of("T")?, or("Targmax", DType::I64)?]),
        "Merge" => return Some(vec![of("T")?, int]),
        "Switch" => return Some(vec![of("T")?; 2]),
        "NonMaxSuppressionV4" => return Some(vec![int; 2]),
        "NonMaxSuppressionV5" => return Some(vec![int, or("T", DType::F32)?, int]),
        "CTCGreedyDecoder" => {
            let wide = DType::I64.number();
            return Some(vec![wide, wide, wide, or("T", DType::F32)?]);
        }
        "CombinedNonMaxSuppression" => {
            let float = DType::F32.number();
            return Some(vec![float, float, float, int]);
        }
        "TensorArrayConcat" | "TensorArrayConcatV2" | "TensorArrayConcatV3" => {
            return Some(vec![of("dtype")?, DType::I64.number()]);
        }
        "Shape" | "Size" => or("out_type", DType::I32),
        "ArgMax" | "ArgMin" => or("output_type", DType::I64),
        "Cast" => of("DstT"),
        "Bitcast" => of("type"),
        "Gather" | "GatherV2" | "GatherNd" => of("Tparams"),
        "Range" => of("Tidx"),
        "LookupTableFindV2" | "LookupTableFind" => of("Tout"),
        "StringToNumber" => or("out_type", DType::F32),
        "DecodeRaw" => of("out_type"),
        "DecodeImage" => or("dtype", DType::U8),
        "Dequantize" => or("dtype", DType::F32),
        "ComplexAbs" | "Real" | "Imag" | "Angle" => or("Tout", DType::F32),
        "Multinomial" => or("output_dtype", DType::I64),
        "TensorListStack" | "TensorListGetItem" | "TensorListGather" => of("element_dtype"),
        op => return by_function(graph, op, &of).or_else(|| Some(vec![of("T").or(of("dtype"))?])),
    };
    Some(vec![one?])
}

/// Operators that give one tensor, always of the same dtype.
fn fixed(op: &str) -> Option<DType> {
    Some(match op {
        "Equal" | "NotEqual" | "Less" | "LessEqual" | "Greater" | "GreaterEqual" | "LogicalAnd"
        | "LogicalOr" | "LogicalNot" | "All" | "Any" | "IsNan" | "IsInf" | "IsFinite"
        | "InTopK" | "InTopKV2" | "ApproximateEqual" => DType::Bool,
        "Rank"
        | "Bucketize"
        | "NonMaxSuppression"
        | "NonMaxSuppressionV2"
        | "NonMaxSuppressionV3"
        | "StringLength"
        | "TensorArraySizeV3"
        | "TensorListLength" => DType::I32,
        "Where"
        | "StringToHashBucket"
        | "StringToHashBucketFast"
        | "StringToHashBucketStrong"
        | "LookupTableSizeV2" => DType::I64,
        "ResizeBilinear"
        | "ResizeBicubic"
        | "ResizeArea"
        | "CropAndResize"
        | "FakeQuantWithMinMaxArgs"
        | "FakeQuantWithMinMaxVars"
        | "FakeQuantWithMinMaxVarsPerChannel" => DType::F32,
        "DecodeJpeg" | "DecodePng" | "DecodeGif" | "DecodeBmp" => DType::U8,
        "AsString" | "StringJoin" | "ReduceJoin" | "Substr" | "StringLower" | "StringUpper"
        | "StringStrip" | "RegexReplace" | "EncodeJpeg" | "EncodePng" | "EncodeBase64"
        | "DecodeBase64" => DType::String,
        _ => return None,
    })
}

/// The dtypes of a function of the graph's own, where none depends on the call's lists.
fn by_function(graph: &GraphDef, op: &str, of: &impl Fn(&str) -> Option<i32>) -> Option<Vec<i32>> {
    let functions = graph.library.iter().flat_map(|library| &library.function);
    let signature =
        functions.filter_map(|function| function.signature.as_ref()).find(|s| s.name == op)?;
    let dtype = |arg: &ArgDef| match arg.type_attr.as_str() {
        _ if !arg.number_attr.is_empty() || !arg.type_list_attr.is_empty() => None,
        "" => Some(arg.r#type),
        key => of(key),
    };
    signature.output_arg.iter().map(dtype).collect()
}

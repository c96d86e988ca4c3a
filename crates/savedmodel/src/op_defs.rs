//! Operator definitions: names and sizes of outputs, attributes left at their default.
//!
//! A model carries the definitions of its own operators; a small table of our own stands in for
//! models whose list was stripped away. Knows nothing of graphs.

use std::collections::HashMap;
use std::sync::LazyLock;

use vesta_model::Status;
use vesta_protos::tensorflow::attr_value::Value;
use vesta_protos::tensorflow::op_def::{ArgDef, AttrDef};
use vesta_protos::tensorflow::{AttrValue, FunctionDef, MetaGraphDef, OpDef};

/// The most tensors that one argument may stand for.
const LIST_MAX: i64 = 65_536;

/// Outputs of operators, for models without definitions. `*N` is a list as long as attribute `N`
/// says, `@T` one as long as the list of types in attribute `T`.
const KNOWN_OUTPUTS: &str = "
Split output*num_split|SplitV output*num_split|Unpack output*num|Unstack output*num
TopKV2 values indices|TopK values indices|Unique y idx|UniqueV2 y idx|UniqueWithCounts y idx count
UniqueWithCountsV2 y idx count|IdentityN output@T|PartitionedCall output@Tout
StatefulPartitionedCall output@Tout|While output@T|StatelessWhile output@T|If output@Tout
StatelessIf output@Tout|Case output@Tout|StatelessCase output@Tout|RestoreV2 tensors@dtypes
FusedBatchNorm y batch_mean batch_variance reserve_space_1 reserve_space_2
FusedBatchNormV2 y batch_mean batch_variance reserve_space_1 reserve_space_2
FusedBatchNormV3 y batch_mean batch_variance reserve_space_1 reserve_space_2 reserve_space_3
ParseExampleV2 sparse_indices*num_sparse sparse_values@sparse_types sparse_shapes*num_sparse \
 dense_values@Tdense ragged_values@ragged_value_types ragged_row_splits@ragged_split_types
ParseExample sparse_indices*Nsparse sparse_values@sparse_types sparse_shapes*Nsparse \
 dense_values@Tdense
NonMaxSuppressionV4 selected_indices valid_outputs|Switch output_false output_true
NonMaxSuppressionV5 selected_indices selected_scores valid_outputs|Merge output value_index
BatchNormWithGlobalNormalization result|Cross product|GuaranteeConst output|UnravelIndex output
CTCGreedyDecoder decoded_indices decoded_values decoded_shape log_probability
CombinedNonMaxSuppression nmsed_boxes nmsed_scores nmsed_classes valid_detections
Bucketize output|ShapeN output*N|MeshGrid output|ConcatOffset offset*N|DynamicPartition outputs*num_partitions
Where index|NonMaxSuppression selected_indices|NonMaxSuppressionV2 selected_indices
NonMaxSuppressionV3 selected_indices|SoftmaxCrossEntropyWithLogits loss backprop
Qr q r|Svd s u v|SelfAdjointEigV2 e v|ListDiff out idx|SetDiff1d out idx
ReadVariableOp value|VarHandleOp resource|VariableV2 ref|Variable ref|Identity output|Const output
Placeholder output|PlaceholderWithDefault output|StopGradient output|PreventGradient output
Add z|AddV2 z|Sub z|Mul z|Div z|RealDiv z|FloorDiv z|FloorMod z|TruncateDiv z|TruncateMod z|Pow z
Maximum z|Minimum z|SquaredDifference z|MulNoNan z|DivNoNan z|Atan2 z|AddN sum|BiasAdd output
Neg y|Abs y|Sqrt y|Rsqrt y|Exp y|Expm1 y|Log y|Log1p y|Square y|Reciprocal y|Sign y|Round y|Rint y
Floor y|Ceil y|Sin y|Cos y|Tan y|Asin y|Acos y|Atan y|Sinh y|Cosh y|Tanh y|Sigmoid y|Erf y|Cast y
LogicalAnd z|LogicalOr z|LogicalNot y|Equal z|NotEqual z|Less z|LessEqual z|Greater z|GreaterEqual z
IsNan y|IsInf y|IsFinite y|Select output|SelectV2 output|Relu activations|Relu6 activations
Elu activations|Selu activations|LeakyRelu activations|Softplus activations|Softsign activations
Softmax softmax|LogSoftmax logsoftmax|MatMul product|BatchMatMul output|BatchMatMulV2 output
BatchMatMulV3 output|Einsum output|Conv2D output|DepthwiseConv2dNative output|Conv3D output
Conv2DBackpropInput output|MaxPool output|AvgPool output|MaxPoolV2 output|AvgPool3D output
MaxPool3D output|LRN output|Mean output|Sum output|Max output|Min output|Prod output|All output
Any output|ArgMax output|ArgMin output|Cumsum out|Cumprod out|Reshape output|Squeeze output
ExpandDims output|Transpose y|Concat output|ConcatV2 output|Pack output|Tile output|Pad output
PadV2 output|MirrorPad output|Slice output|StridedSlice output|Gather output|GatherV2 output
GatherNd output|ResourceGather output|Shape output|Size output|Rank output|Range output|Fill output
ZerosLike y|OnesLike y|OneHot output|ReverseV2 output|Reverse output|BroadcastTo output
BroadcastArgs r0|SpaceToDepth output|DepthToSpace output|SpaceToBatchND output|BatchToSpaceND output
ResizeBilinear resized_images|ResizeNearestNeighbor resized_images|ResizeBicubic resized_images
CropAndResize crops|ScatterNd output|TensorScatterUpdate output|TensorScatterAdd output|MatrixBandPart band
ClipByValue output|EnsureShape output|CheckNumerics output|Snapshot output|InvertPermutation y
Acosh y|AsString output|Asinh y|Assert|Atanh y|BatchToSpace output|BiasAddV1 output|Bincount bins
Bitcast output|BitwiseAnd z|BitwiseOr z|BitwiseXor z|Cholesky output|Conv3DBackpropInputV2 output
Cross product|DecodeImage image|DecodeJpeg image|DecodePng image|Digamma y|Dilation2D output
DynamicStitch merged|EmptyTensorList handle|Erfc y|Erfinv y|EuclideanNorm output|ExtractImagePatches patches
HashTableV2 table_handle|Inv y|Invert y|L2Loss output|LeftShift z|Lgamma y|LinSpace output
LookupTableFindV2 values|LookupTableSizeV2 size|MatrixDiagPartV3 diagonal|MatrixDiagV3 output
MatrixInverse output|MatrixSetDiagV3 output|MatrixTriangularSolve output|Mod z|NextAfter output|NoOp
PopulationCount y|RandomStandardNormal output|RandomUniform output|ResizeArea resized_images
ReverseSequence output|RightShift z|Roll output|ScatterNdUpdate output_ref|SegmentSum output
SpaceToBatch output|StatelessRandomUniformV2 output|StringJoin output|StringLength output
TensorListConcatV2 tensor lengths|TensorListElementShape element_shape|TensorListFromTensor output_handle
TensorListGather values|TensorListGetItem item|TensorListLength length
TensorListPopBack output_handle tensor|TensorListPushBack output_handle|TensorListReserve handle
TensorListResize output_handle|TensorListScatterIntoExistingList output_handle
TensorListScatterV2 output_handle|TensorListSetItem output_handle|TensorListSplit output_handle
TensorListStack tensor|TensorScatterMax output|TensorScatterMin output|UnsortedSegmentSum output|Xdivy z
Xlogy z|Xlog1py z|ApproximateEqual z|DenseBincount output|DepthwiseConv2dNativeBackpropInput output
Diag output|FakeQuantWithMinMaxArgs outputs|FakeQuantWithMinMaxVars outputs
FakeQuantWithMinMaxVarsPerChannel outputs|InTopK precision|InTopKV2 precision|LowerBound output
MatrixDiag output|MatrixDiagPart diagonal|MatrixDiagPartV2 diagonal|MatrixDiagV2 output
MatrixSetDiag output|MatrixSetDiagV2 output|QuantizeAndDequantizeV2 output
QuantizeAndDequantizeV3 output|QuantizeAndDequantizeV4 output|SegmentMax output|SegmentMean output
SegmentMin output|SegmentProd output|SparseSegmentMean output|SparseSegmentSqrtN output
SparseSegmentSum output|SparseToDense dense|TensorScatterSub output|UnsortedSegmentMax output
UnsortedSegmentMin output|UnsortedSegmentProd output|UpperBound output
";

static KNOWN: LazyLock<HashMap<&'static str, OpDef>> = LazyLock::new(|| {
    let lines = KNOWN_OUTPUTS.split(['\n', '|']).filter(|line| !line.trim().is_empty());
    lines.filter_map(known_op).collect()
});

fn known_op(line: &'static str) -> Option<(&'static str, OpDef)> {
    let mut words = line.split_whitespace();
    let name = words.next()?;
    let output_arg = words
        .map(|word| {
            let mut arg = ArgDef::default();
            if let Some((name, number)) = word.split_once('*') {
                (arg.name, arg.number_attr) = (name.to_owned(), number.to_owned());
            } else if let Some((name, types)) = word.split_once('@') {
                (arg.name, arg.type_list_attr) = (name.to_owned(), types.to_owned());
            } else {
                arg.name = word.to_owned();
            }
            arg
        })
        .collect();
    Some((name, OpDef { name: name.to_owned(), output_arg, ..OpDef::default() }))
}

/// The definitions that hold in one model.
#[derive(Debug)]
pub(crate) struct OpDefs<'a> {
    carried: HashMap<&'a str, &'a OpDef>,
}

impl<'a> OpDefs<'a> {
    /// Those of `meta`, the functions of its library included.
    pub(crate) fn new(meta: &'a MetaGraphDef, functions: &'a [FunctionDef]) -> OpDefs<'a> {
        let listed = meta.meta_info_def.iter().flat_map(|info| &info.stripped_op_list);
        let mut carried: HashMap<&str, &OpDef> =
            listed.flat_map(|list| &list.op).map(|op| (op.name.as_str(), op)).collect();
        for signature in functions.iter().filter_map(|function| function.signature.as_ref()) {
            carried.insert(&signature.name, signature);
        }
        OpDefs { carried }
    }

    /// The definition of `op`, if the model carries it.
    pub(crate) fn get(&self, op: &str) -> Option<&'a OpDef> {
        self.carried.get(op).copied()
    }

    /// Position and number of the output tensors called `output` of an operator, whose attributes
    /// `attr` gives.
    ///
    /// # Errors
    /// `UNIMPLEMENTED` when the operator has no definition, `INVALID_ARGUMENT` when it has no such
    /// output.
    pub(crate) fn output<'b>(
        &self,
        op: &str,
        output: &str,
        attr: impl Fn(&str) -> Option<&'b AttrValue>,
    ) -> Result<(usize, usize), Status> {
        let def = match self.get(op) {
            Some(def) => def,
            None => KNOWN.get(op).ok_or_else(|| {
                Status::unimplemented(format!(
                    "the model carries no definition of its operator {op}, so its output \
                     `{output}` cannot be told; save the model again with the operator registered"
                ))
            })?,
        };
        let mut at = 0;
        for arg in &def.output_arg {
            let count = arg_len(arg, &def.attr, &attr)?;
            if arg.name == output {
                return Ok((at, count));
            }
            at += count;
        }
        Err(Status::invalid_argument(format!("operator {op} has no output `{output}`")))
    }
}

/// How many tensors an argument stands for.
pub(crate) fn arg_len<'b>(
    arg: &ArgDef,
    attr_defs: &[AttrDef],
    attr: impl Fn(&str) -> Option<&'b AttrValue>,
) -> Result<usize, Status> {
    let value_of = |name: &str| {
        let given = attr(name).and_then(|value| value.value.as_ref()).cloned();
        given.or_else(|| default_of(attr_defs, name).and_then(|value| value.value.clone()))
    };
    let wrong = |name: &str| {
        Status::invalid_argument(format!("attribute `{name}` does not tell a number of tensors"))
    };
    if !arg.number_attr.is_empty() {
        return match value_of(&arg.number_attr) {
            Some(Value::I(count)) if (0..=LIST_MAX).contains(&count) => Ok(count as usize),
            _ => Err(wrong(&arg.number_attr)),
        };
    }
    if !arg.type_list_attr.is_empty() {
        return match value_of(&arg.type_list_attr) {
            Some(Value::List(list)) => Ok(list.r#type.len()),
            _ => Err(wrong(&arg.type_list_attr)),
        };
    }
    Ok(1)
}

fn default_of<'b>(attr_defs: &'b [AttrDef], name: &str) -> Option<&'b AttrValue> {
    attr_defs.iter().find(|def| def.name == name)?.default_value.as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vesta_protos::tensorflow::attr_value::ListValue;

    #[test]
    fn outputs_are_found_behind_lists() {
        let meta = MetaGraphDef::default();
        let defs = OpDefs::new(&meta, &[]);
        let attrs = HashMap::from([
            ("num_sparse", Value::I(2)),
            (
                "sparse_types",
                Value::List(Box::new(ListValue { r#type: vec![1, 1], ..ListValue::default() })),
            ),
            (
                "Tdense",
                Value::List(Box::new(ListValue { r#type: vec![1, 1, 9], ..ListValue::default() })),
            ),
        ]);
        let attrs: HashMap<&str, AttrValue> =
            attrs.into_iter().map(|(k, v)| (k, AttrValue { value: Some(v) })).collect();
        let output = |name| defs.output("ParseExampleV2", name, |key| attrs.get(key));
        assert_eq!(output("dense_values"), Ok((6, 3)));
        assert_eq!(output("sparse_shapes"), Ok((4, 2)));
        assert!(output("ragged_values").is_err());
        assert!(output("nothing").is_err());
        assert_eq!(defs.output("TopKV2", "indices", |_| None), Ok((1, 1)));
        assert!(defs.output("MyOp", "y", |_| None).is_err());
    }

    #[test]
    fn absurd_lists_are_refused() {
        let meta = MetaGraphDef::default();
        let defs = OpDefs::new(&meta, &[]);
        let many = AttrValue { value: Some(Value::I(i64::MAX)) };
        assert!(defs.output("Split", "output", |_| Some(&many)).is_err());
    }
}

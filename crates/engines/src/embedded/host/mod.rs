//! Operators that run on the host: for every dtype that the numeric engine does not hold, for
//! strings, and for operators whose ties or edges it gets wrong.
//!
//! May not know: placement, rten. Invariant: a kernel is given only for a node whose dtypes and
//! attributes it computes exactly as TensorFlow does on a CPU; all else is refused at load.

mod arithmetic;
mod broadcast;
mod cast;
mod elements;
mod functions;
mod layout;
mod parse_example;
mod reduce;
mod slicing;
mod text;
mod walk;

use vesta_model::{DType, Shape, Status, Tensor};
use vesta_protos::tensorflow::NodeDef;

use self::arithmetic::{Binary, Comparison, Unary, is_number};

pub(crate) use self::parse_example::ParseExample;
use self::reduce::Reduction;
use self::slicing::SliceMasks;
use super::graph::Attributes;

pub(crate) use self::elements::{bounded_shape, integers, tensor};

type Compute = Box<dyn Fn(&[&Tensor]) -> Result<Vec<Tensor>, Status> + Send + Sync>;

/// A node that can run on the host.
pub(crate) struct Kernel {
    compute: Compute,
    inputs_min: usize,
    /// Whether it only moves elements or shapes, so that it costs nothing to keep it here.
    pub(crate) moves: bool,
    /// Outputs that it computes; `None` means all.
    dense: Option<ParseExample>,
}

impl Kernel {
    fn of(
        inputs_min: usize,
        moves: bool,
        compute: impl Fn(&[&Tensor]) -> Result<Vec<Tensor>, Status> + Send + Sync + 'static,
    ) -> Kernel {
        Kernel { compute: Box::new(compute), inputs_min, moves, dense: None }
    }

    /// Computes all outputs of the node.
    ///
    /// # Errors
    /// Those of the operator, in TensorFlow's words.
    pub(crate) fn compute(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, Status> {
        if inputs.len() < self.inputs_min {
            return Err(Status::invalid_argument(format!(
                "a node takes {} inputs, but has {}",
                self.inputs_min,
                inputs.len()
            )));
        }
        (self.compute)(inputs)
    }

    /// Whether output `index` is computed; a graph that consumes another cannot be run.
    pub(crate) fn computes(&self, index: usize) -> bool {
        self.dense.as_ref().is_none_or(|dense| dense.computes(index))
    }
}

/// One output for one tensor.
fn one(tensor: Result<Tensor, Status>) -> Result<Vec<Tensor>, Status> {
    Ok(vec![tensor?])
}

/// The kernel for a node, given the dtypes of its inputs.
///
/// `Ok(None)` when the host has none for it.
///
/// # Errors
/// Why a node of a known operator cannot be run.
pub(crate) fn kernel(node: &NodeDef, inputs: &[DType]) -> Result<Option<Kernel>, String> {
    if matches!(node.op.as_str(), "ParseExample" | "ParseExampleV2") {
        let parse = ParseExample::new(node)?;
        let dense = Some(parse.clone());
        let compute = move |inputs: &[&Tensor]| parse.compute(inputs);
        return Ok(Some(Kernel { dense, ..Kernel::of(2, false, compute) }));
    }
    let first = inputs.first().copied().unwrap_or(DType::Invalid);
    Ok(moving(node)
        .or_else(|| elementwise(node, first))
        .or_else(|| reducing(node, first))
        .or_else(|| textual(node)))
}

/// Division by a constant as multiplication with its reciprocal, for floats.
pub(crate) fn times_reciprocal(divisor: &Tensor) -> Option<Kernel> {
    let one = cast::cast(&Tensor::of(Shape::scalar(), &[1f32]).ok()?, divisor.dtype()).ok()?;
    if !matches!(divisor.dtype(), DType::F32 | DType::F64 | DType::F16 | DType::BF16) {
        return None;
    }
    let reciprocal = arithmetic::binary(Binary::Divide, &one, divisor).ok()?;
    Some(Kernel::of(2, false, move |x| {
        Ok(vec![arithmetic::binary(Binary::Multiply, x[0], &reciprocal)?])
    }))
}

/// Operators that move elements of any dtype.
fn moving(node: &NodeDef) -> Option<Kernel> {
    let attributes = Attributes(node);
    let kernel = match node.op.as_str() {
        "Identity" | "StopGradient" | "PreventGradient" | "Snapshot" | "PlaceholderWithDefault" => {
            Kernel::of(1, true, |x| Ok(vec![x[0].clone()]))
        }
        "IdentityN" => Kernel::of(0, true, |x| Ok(x.iter().map(|x| (*x).clone()).collect())),
        "Reshape" => Kernel::of(2, true, |x| one(layout::reshape(x[0], x[1]))),
        "ExpandDims" => Kernel::of(2, true, |x| one(layout::expand_dims(x[0], x[1]))),
        "Squeeze" => {
            let axes = attributes.ints("squeeze_dims");
            Kernel::of(1, true, move |x| one(layout::squeeze(x[0], &axes)))
        }
        "Tile" => Kernel::of(2, true, |x| one(layout::tile(x[0], x[1]))),
        "BroadcastTo" => Kernel::of(2, true, |x| one(layout::broadcast_to(x[0], x[1]))),
        "Fill" => Kernel::of(2, true, |x| one(layout::fill(x[0], x[1]))),
        "Transpose" => Kernel::of(2, true, |x| one(layout::transpose(x[0], x[1]))),
        "Slice" => Kernel::of(3, true, |x| one(slicing::slice(x[0], x[1], x[2]))),
        "StridedSlice" => {
            let masks = SliceMasks {
                begin: attributes.int("begin_mask", 0),
                end: attributes.int("end_mask", 0),
                ellipsis: attributes.int("ellipsis_mask", 0),
                new_axis: attributes.int("new_axis_mask", 0),
                shrink_axis: attributes.int("shrink_axis_mask", 0),
            };
            Kernel::of(4, true, move |x| {
                one(slicing::strided_slice(x[0], [x[1], x[2], x[3]], masks))
            })
        }
        "Gather" => Kernel::of(2, true, |x| one(layout::gather(x[0], x[1], 0))),
        "GatherV2" if attributes.int("batch_dims", 0) == 0 => Kernel::of(3, true, |x| {
            one(layout::gather(x[0], x[1], elements::integer(x[2], "axis")?))
        }),
        "ConcatV2" => Kernel::of(2, true, |x| {
            let (axis, values) = x.split_last().ok_or_else(|| Status::internal("no axis"))?;
            one(layout::concat(values, elements::integer(axis, "axis")?))
        }),
        "Concat" => Kernel::of(2, true, |x| {
            one(layout::concat(&x[1..], elements::integer(x[0], "concat_dim")?))
        }),
        "Pack" => {
            let axis = attributes.int("axis", 0);
            Kernel::of(1, true, move |x| one(layout::pack(x, axis)))
        }
        "Unpack" => {
            let (axis, count) = (attributes.int("axis", 0), attributes.int("num", 0));
            let count = usize::try_from(count).ok()?;
            Kernel::of(1, true, move |x| slicing::unpack(x[0], axis, count))
        }
        "Split" => {
            let parts = usize::try_from(attributes.int("num_split", 1)).ok()?;
            Kernel::of(2, true, move |x| {
                slicing::split_evenly(x[1], elements::integer(x[0], "split_dim")?, parts)
            })
        }
        "ZerosLike" => Kernel::of(1, true, |x| one(layout::zeros_like(x[0]))),
        "Shape" | "Size" | "Rank" => return describing(node),
        _ => return None,
    };
    Some(kernel)
}

/// Operators that tell of a tensor's shape.
fn describing(node: &NodeDef) -> Option<Kernel> {
    let output = Attributes(node).dtype_or("out_type", DType::I32);
    let (op, output) = match node.op.as_str() {
        "Rank" => ("Rank", DType::I32),
        "Size" => ("Size", output),
        _ => ("Shape", output),
    };
    if !matches!(output, DType::I32 | DType::I64) {
        return None;
    }
    Some(Kernel::of(1, true, move |x| {
        let shape = x[0].shape();
        let (values, out) = match op {
            "Rank" => (vec![shape.rank()], Shape::scalar()),
            "Size" => (vec![shape.elements()], Shape::scalar()),
            _ => (shape.dims().to_vec(), Shape::vector(shape.rank())),
        };
        let fits = |value: usize| {
            i32::try_from(value).map_err(|_| {
                Status::invalid_argument(format!("Shape output type is 32-bit but dim is {value}"))
            })
        };
        one(match output {
            DType::I32 => {
                let values = values.into_iter().map(fits).collect::<Result<_, _>>()?;
                elements::tensor::<i32>(out, values)
            }
            _ => elements::tensor::<i64>(out, values.into_iter().map(|v| v as i64).collect()),
        })
    }))
}

/// Operators that take each element by itself.
fn elementwise(node: &NodeDef, dtype: DType) -> Option<Kernel> {
    let binary =
        |op: Binary| Kernel::of(2, false, move |x| one(arithmetic::binary(op, x[0], x[1])));
    let unary = |op: Unary| Kernel::of(1, false, move |x| one(arithmetic::unary(op, x[0])));
    let compare =
        |op: Comparison| Kernel::of(2, false, move |x| one(arithmetic::compare(op, x[0], x[1])));
    let number = is_number(dtype);
    let signed = number && !matches!(dtype, DType::U8 | DType::U16 | DType::U32 | DType::U64);
    let float = matches!(dtype, DType::F32 | DType::F64 | DType::F16 | DType::BF16);
    let equatable = number || matches!(dtype, DType::Bool | DType::String);
    let kernel = match node.op.as_str() {
        "Add" if number || dtype == DType::String => binary(Binary::Add),
        "AddV2" if number => binary(Binary::Add),
        "AddN" if number => Kernel::of(1, false, |x| {
            let mut sum = x[0].clone();
            for next in &x[1..] {
                sum = arithmetic::binary(Binary::Add, &sum, next)?;
            }
            Ok(vec![sum])
        }),
        "Sub" if number => binary(Binary::Subtract),
        "Mul" if number => binary(Binary::Multiply),
        "RealDiv" if float => binary(Binary::Divide),
        "Div" if number => binary(Binary::Divide),
        "TruncateDiv" if number && !float => binary(Binary::Divide),
        "FloorDiv" if number => binary(Binary::FloorDivide),
        "FloorMod" if number => binary(Binary::FloorModulo),
        "Maximum" if number => binary(Binary::Maximum),
        "Minimum" if number => binary(Binary::Minimum),
        "SquaredDifference" if number => binary(Binary::SquaredDifference),
        "Neg" if signed => unary(Unary::Negate),
        "Abs" if signed => unary(Unary::Absolute),
        "Sign" if signed => unary(Unary::Sign),
        "Square" if number => unary(Unary::Square),
        // Functions of floats that ONNX, or rten, has no exact form of.
        op if matches!(dtype, DType::F32 | DType::F64) && functions::find(op).is_some() => {
            let function = functions::find(op)?;
            Kernel::of(1, false, move |x| one(functions::compute(function, x[0])))
        }
        // Operands that do not fit are an answer there, not an error: left to TensorFlow.
        "Equal" if equatable && shapes_must_fit(node) => compare(Comparison::Equal),
        "NotEqual" if equatable && shapes_must_fit(node) => compare(Comparison::NotEqual),
        "Less" if number => compare(Comparison::Less),
        "LessEqual" if number => compare(Comparison::LessEqual),
        "Greater" if number => compare(Comparison::Greater),
        "GreaterEqual" if number => compare(Comparison::GreaterEqual),
        "LogicalAnd" => Kernel::of(2, false, |x| one(arithmetic::logic(true, x[0], x[1]))),
        "LogicalOr" => Kernel::of(2, false, |x| one(arithmetic::logic(false, x[0], x[1]))),
        "LogicalNot" => Kernel::of(1, false, |x| one(arithmetic::not(x[0]))),
        "SelectV2" => Kernel::of(3, false, |x| one(arithmetic::select(x[0], x[1], x[2]))),
        "Cast" => {
            let to = Attributes(node).dtype("DstT")?;
            if !cast::knows(dtype, to) {
                return None;
            }
            Kernel::of(1, false, move |x| one(cast::cast(x[0], to)))
        }
        _ => return None,
    };
    Some(kernel)
}

fn shapes_must_fit(node: &NodeDef) -> bool {
    Attributes(node).flag_or("incompatible_shape_error", true)
}

/// Operators that combine or pick elements.
fn reducing(node: &NodeDef, dtype: DType) -> Option<Kernel> {
    let attributes = Attributes(node);
    let keep = attributes.flag("keep_dims");
    if matches!(node.op.as_str(), "All" | "Any") {
        let all = node.op == "All";
        return Some(Kernel::of(2, false, move |x| one(reduce::quantify(all, x[0], x[1], keep))));
    }
    if !is_number(dtype) {
        return None;
    }
    let reduction =
        |op: Reduction| Kernel::of(2, false, move |x| one(reduce::reduce(op, x[0], x[1], keep)));
    let kernel = match node.op.as_str() {
        "Sum" => reduction(Reduction::Sum),
        "Prod" => reduction(Reduction::Product),
        "Max" => reduction(Reduction::Maximum),
        "Min" => reduction(Reduction::Minimum),
        "Mean" => reduction(Reduction::Mean),
        "ArgMax" | "ArgMin" => {
            let largest = node.op == "ArgMax";
            let output = attributes.dtype_or("output_type", DType::I64);
            if !matches!(output, DType::I32 | DType::I64) {
                return None;
            }
            Kernel::of(2, false, move |x| one(reduce::arg_extreme(largest, x[0], x[1], output)))
        }
        "TopKV2" if attributes.flag_or("sorted", true) => {
            let index = attributes.dtype_or("index_type", DType::I32);
            if !matches!(index, DType::I32 | DType::I64) {
                return None;
            }
            Kernel::of(2, false, move |x| reduce::top_k(x[0], x[1], index))
        }
        _ => return None,
    };
    Some(kernel)
}

/// Operators over strings.
fn textual(node: &NodeDef) -> Option<Kernel> {
    let attributes = Attributes(node);
    let kernel = match node.op.as_str() {
        "StringUpper" | "StringLower" => {
            let upper = node.op == "StringUpper";
            let utf8 = match attributes.text("encoding", "").as_str() {
                "" => false,
                "utf-8" => true,
                _ => return None,
            };
            Kernel::of(1, false, move |x| one(text::change_case(x[0], upper, utf8)))
        }
        "StringLength" => {
            let characters = match attributes.text("unit", "BYTE").as_str() {
                "BYTE" => false,
                "UTF8_CHAR" => true,
                _ => return None,
            };
            Kernel::of(1, false, move |x| one(text::length(x[0], characters)))
        }
        "StringStrip" => Kernel::of(1, false, |x| one(text::strip(x[0]))),
        "StringJoin" => {
            let separator = attributes.text("separator", "");
            Kernel::of(1, false, move |x| one(text::join(x, &separator)))
        }
        _ => return None,
    };
    Some(kernel)
}

//! What OpenVINO 2026.4 computes as TensorFlow does: operator × dtypes. A translation with anything else is
//! refused.
//!
//! Owns the table, which `crates/engines/tests/operators` holds to TensorFlow's answers. OpenVINO holds int64 in
//! 32 bits, and computes some operators of whole numbers as floats, which hold 24 bits of them. So some
//! operators take whole numbers alone that follow from sizes. Invariant: no dimension that matters has 2^24
//! elements or more, and no tensor 2^31; within that, what passes is exact.

use std::collections::{BTreeMap, BTreeSet};

use vesta_model::{DType, Status};
use vesta_onnx::Translation;
use vesta_protos::onnx::{NodeProto, TensorProto};

/// Whole numbers below it are floats without loss.
const EXACT_FLOATS: u64 = 1 << 24;

/// What an operator may be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    /// Floats.
    Floats,
    /// Floats and whole numbers of 32 bits; those of 64 bits where they follow from sizes.
    Numbers,
    /// Floats, and whole numbers where each is small.
    Small,
    /// The same, where one of those that are compared is small.
    SmallOnOneSide,
    /// What it moves and does not look into.
    Anything,
    /// Truths.
    Truths,
}

/// Operators, and what they may be given.
const ROWS: &[(Takes, &[&str])] = &[
    (
        Takes::Floats,
        &[
            "Acos",
            "Acosh",
            "ArgMax",
            "Asin",
            "Asinh",
            "Atan",
            "Atanh",
            "AveragePool",
            "BatchNormalization",
            "Ceil",
            "Conv",
            "ConvTranspose",
            "Cos",
            "Cosh",
            "DepthToSpace",
            "Einsum",
            "Elu",
            "Erf",
            "Exp",
            "Floor",
            "IsInf",
            "IsNaN",
            "LeakyRelu",
            "Log",
            "LogSoftmax",
            "MatMul",
            "MaxPool",
            "NonMaxSuppression",
            "Pow",
            "Reciprocal",
            "ReduceL2",
            "ReduceMean",
            "ReduceSumSquare",
            "Resize",
            "Round",
            "Selu",
            "Sigmoid",
            "Sin",
            "Sinh",
            "Softmax",
            "Softplus",
            "Softsign",
            "Sqrt",
            "Tan",
            "Tanh",
            "Trilu",
        ],
    ),
    (
        Takes::Numbers,
        &["Abs", "Add", "CumSum", "Max", "Min", "Mul", "Neg", "ReduceProd", "Sign", "Sub"],
    ),
    (Takes::Small, &["Clip", "Div", "Pad", "ReduceMax", "ReduceMin", "ReduceSum", "Relu"]),
    (Takes::SmallOnOneSide, &["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"]),
    (
        Takes::Anything,
        &[
            "Cast",
            "Concat",
            "Expand",
            "Gather",
            "GatherElements",
            "GatherND",
            "Identity",
            "NonZero",
            "Range",
            "Reshape",
            "ScatterND",
            "Shape",
            "Size",
            "Slice",
            "Split",
            "Squeeze",
            "Tile",
            "Transpose",
            "Unsqueeze",
            "Where",
        ],
    ),
    (Takes::Truths, &["And", "Not", "Or", "Xor"]),
];

/// Dtypes that keep their values.
const KEPT: [DType; 5] = [DType::F32, DType::I32, DType::I64, DType::Bool, DType::U8];

/// Refuses a translation that has something that is not in the table.
///
/// # Errors
/// `UNIMPLEMENTED`, naming each operator once, with a node where it stands.
pub(crate) fn check(translation: &Translation) -> Result<(), Status> {
    let mut found: Vec<String> =
        narrowed_feeds(translation).chain(lost_constants(translation)).collect();
    let rows: BTreeMap<&str, Takes> = ROWS
        .iter()
        .flat_map(|(takes, operators)| operators.iter().map(|&operator| (operator, *takes)))
        .collect();
    let mut sizes = Sizes::of_constants(translation);
    let mut named = BTreeSet::new();
    for node in translation.model.graph.iter().flat_map(|graph| &graph.node) {
        let takes = rows.get(node.op_type.as_str());
        let why = match takes {
            None => Some("it is not known to be exact".to_owned()),
            Some(&takes) => sizes.why_not(node, takes),
        };
        if let Some(why) = why
            && named.insert((node.op_type.clone(), why.clone()))
        {
            found.push(format!("{} at {} ({why})", node.op_type, node.name));
        }
        sizes.follow(node);
    }
    if found.is_empty() {
        return Ok(());
    }
    Err(Status::unimplemented(format!(
        "OpenVINO does not compute all of it as TensorFlow does: {}",
        found.join("; ")
    )))
}

/// Inputs whose values a request may give that OpenVINO would cut.
fn narrowed_feeds(translation: &Translation) -> impl Iterator<Item = String> {
    let wide = |name: &&String| {
        translation.values.get(*name).is_some_and(|facts| facts.dtype == DType::I64)
    };
    let inputs = translation.inputs.iter().filter(wide);
    inputs.map(|name| format!("input {name} of int64 (it is cut to 32 bits)"))
}

/// Constants of int64 beyond 32 bits, and those of floats that have no element, over which it sums up
/// anything. The ends of a slice may lie anywhere beyond the tensor.
fn lost_constants(translation: &Translation) -> impl Iterator<Item = String> {
    let graphs = translation.model.graph.iter();
    graphs.flat_map(|graph| {
        graph.initializer.iter().filter_map(|constant| {
            let readers = || graph.node.iter().filter(|node| node.input.contains(&constant.name));
            let is_empty = constant.dims.contains(&0);
            let dtype = translation.values.get(&constant.name)?.dtype;
            if is_empty && dtype == DType::F32 {
                return Some(format!("constant {} without an element", constant.name));
            }
            let is_cut = dtype == DType::I64
                && largest(constant).is_some_and(|number| number > u64::from(u32::MAX >> 1))
                && readers().any(|node| node.op_type != "Slice");
            is_cut.then(|| format!("constant {} of int64 beyond 32 bits", constant.name))
        })
    })
}

/// The largest magnitude of a constant of whole numbers; `None` for others.
fn largest(constant: &TensorProto) -> Option<u64> {
    let bytes = &constant.raw_data;
    let of_narrow = || {
        let (words, _) = bytes.as_chunks::<4>();
        words.iter().map(|&word| u64::from(i32::from_le_bytes(word).unsigned_abs())).max()
    };
    let of_wide = || {
        let (words, _) = bytes.as_chunks::<8>();
        words.iter().map(|&word| i64::from_le_bytes(word).unsigned_abs()).max()
    };
    match constant.data_type {
        6 => Some(of_narrow().unwrap_or(0)),
        7 => Some(of_wide().unwrap_or(0)),
        _ => None,
    }
}

/// Which values follow from sizes alone.
struct Sizes<'t> {
    translation: &'t Translation,
    /// Those that stay below [`EXACT_FLOATS`].
    small: BTreeSet<String>,
    /// Those that stay within 32 bits.
    bounded: BTreeSet<String>,
}

impl<'t> Sizes<'t> {
    fn of_constants(translation: &'t Translation) -> Sizes<'t> {
        let mut sizes = Sizes { translation, small: BTreeSet::new(), bounded: BTreeSet::new() };
        for constant in translation.model.graph.iter().flat_map(|graph| &graph.initializer) {
            let Some(number) = largest(constant) else { continue };
            if number < EXACT_FLOATS {
                sizes.small.insert(constant.name.clone());
            }
            sizes.bounded.insert(constant.name.clone());
        }
        sizes
    }

    fn dtype(&self, name: &str) -> Option<DType> {
        self.translation.values.get(name).map(|facts| facts.dtype)
    }

    /// Why a node may be inexact.
    fn why_not(&self, node: &NodeProto, takes: Takes) -> Option<String> {
        let values = node.input.iter().chain(&node.output).filter(|name| !name.is_empty());
        let lost = |name: &&String| self.dtype(name).is_some_and(|own| !KEPT.contains(&own));
        if let Some(name) = values.clone().find(lost) {
            return Some(format!("{} is not kept", self.dtype(name)?));
        }
        let data = data_of(node);
        let first = data.first().and_then(|name| self.dtype(name));
        let is_whole = matches!(first, Some(DType::I32 | DType::I64));
        let is_small = |name: &&String| self.small.contains(*name);
        let fits = match takes {
            Takes::Floats => first == Some(DType::F32),
            Takes::Numbers => match first {
                Some(DType::F32 | DType::I32) => true,
                Some(DType::I64) => data.iter().all(|name| self.bounded.contains(*name)),
                _ => false,
            },
            Takes::Small => first == Some(DType::F32) || is_whole && data.iter().all(is_small),
            Takes::SmallOnOneSide => {
                matches!(first, Some(DType::F32 | DType::Bool))
                    || is_whole && data.iter().any(is_small)
            }
            Takes::Anything => self.moves_as_it_is(node),
            Takes::Truths => first == Some(DType::Bool),
        };
        if fits {
            return None;
        }
        Some(match first {
            Some(dtype) => format!("of {dtype}"),
            None => "of nothing".to_owned(),
        })
    }

    /// A conversion must keep what is converted, a scatter must not add up, and these gathers read past the
    /// end of a tensor where an index says so.
    fn moves_as_it_is(&self, node: &NodeProto) -> bool {
        let of = |names: &[String]| names.first().and_then(|name| self.dtype(name));
        match node.op_type.as_str() {
            "Cast" => match (of(&node.input), of(&node.output)) {
                (Some(DType::F32), Some(DType::I64)) => self.bounded.contains(&node.input[0]),
                (Some(_), Some(DType::U8)) => false,
                _ => true,
            },
            "ScatterND" => {
                let text = node.attribute.iter().find(|own| own.name == "reduction");
                text.and_then(|own| own.s.as_deref()).is_none_or(|how| how == b"none")
            }
            "GatherND" | "GatherElements" => {
                let index = node.input.get(1).and_then(|name| self.translation.values.get(name));
                index.is_some_and(|facts| facts.is_constant)
            }
            _ => true,
        }
    }

    /// Notes what is known of a node's results.
    fn follow(&mut self, node: &NodeProto) {
        let data = data_of(node);
        let all = |known: &BTreeSet<String>| {
            !data.is_empty()
                && data
                    .iter()
                    .all(|name| known.contains(*name) || self.dtype(name) == Some(DType::Bool))
        };
        let (all_small, all_bounded) = (all(&self.small), all(&self.bounded));
        let (is_small, is_bounded) = match node.op_type.as_str() {
            "Shape" | "NonZero" | "ArgMax" | "NonMaxSuppression" => (true, true),
            "Size" => (false, true),
            // Sizes of one tensor, multiplied, are the number of its elements.
            "Mul" | "ReduceProd" | "ReduceSum" | "CumSum" => (false, all_bounded),
            _ => (all_small, all_bounded),
        };
        for output in &node.output {
            if is_small {
                self.small.insert(output.clone());
            }
            if is_bounded {
                self.bounded.insert(output.clone());
            }
        }
    }
}

/// Those inputs of a node out of whose elements its result is made: not axes, sizes or indices.
fn data_of(node: &NodeProto) -> Vec<&String> {
    let inputs = node.input.iter().filter(|name| !name.is_empty());
    match node.op_type.as_str() {
        "Add" | "Sub" | "Mul" | "Div" | "Max" | "Min" | "Concat" | "Equal" | "Greater"
        | "GreaterOrEqual" | "Less" | "LessOrEqual" | "Range" | "Clip" | "And" | "Or" | "Xor" => {
            inputs.collect()
        }
        "Where" => inputs.skip(1).collect(),
        "ScatterND" => inputs.step_by(2).collect(),
        "Pad" => inputs.step_by(2).take(2).collect(),
        _ => inputs.take(1).collect(),
    }
}

//! What a network computes beyond one of its signatures: whether that is little, and cannot fail.
//!
//! May not know: how networks are made. Invariant: an operator is in the list only where the shapes that it is
//! given can never be at odds and no value ends a run.

use std::collections::{BTreeMap, HashMap, HashSet};

use vesta_model::{DType, PartialShape};
use vesta_onnx::{Translation, ValueFacts};
use vesta_protos::onnx::{GraphProto, NodeProto, TensorProto};

/// A signature's own work is at least this many times what is computed besides.
const TIMES: u64 = 50;

/// What an element that is written costs, in multiplications of a product.
const ELEMENT: u64 = 16;

/// Operators that take each element by itself, or move them, with nothing that could be at odds.
const OF_ONE: &[&str] = &[
    "Abs",
    "Cast",
    "Ceil",
    "Cos",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Identity",
    "IsInf",
    "IsNaN",
    "LeakyRelu",
    "Log",
    "LogSoftmax",
    "Neg",
    "Not",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Sigmoid",
    "Sign",
    "Sin",
    "Softmax",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Tanh",
    "Transpose",
];

/// Operators of two, one of which is a constant here. A quotient or power of whole numbers may fail.
const OF_TWO: &[&str] = &[
    "Add",
    "Div",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "Max",
    "Min",
    "Mul",
    "PRelu",
    "Pow",
    "Sub",
];

/// Operators of a value and of weights that are constants here.
const WEIGHTED: &[&str] = &["BatchNormalization", "Clip", "Conv", "Slice"];

/// Operators that give another shape for the same elements.
const RESHAPING: &[&str] = &["Flatten", "Reshape", "Squeeze", "Unsqueeze"];

/// Operators that take axes together.
const REDUCING: &[&str] =
    &["ArgMax", "ArgMin", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum"];

/// Whether what a model computes besides `outputs` is little and cannot fail.
pub(super) fn is_little(model: &Translation, outputs: &[String]) -> bool {
    let Some(graph) = &model.model.graph else { return false };
    let reader = Reader {
        values: &model.values,
        weights: graph.initializer.iter().map(|own| (own.name.as_str(), own)).collect(),
    };
    let needed = needed(graph, outputs);
    let (mut own, mut spare) = (0u64, 0u64);
    for (node, is_needed) in graph.node.iter().zip(needed) {
        let cost = reader.cost(node);
        if is_needed {
            own = own.saturating_add(cost);
        } else if reader.is_harmless(node) {
            spare = spare.saturating_add(cost);
        } else {
            return false;
        }
    }
    let others = model.outputs.iter().filter(|output| !outputs.contains(output));
    let given = others.fold(0u64, |sum, output| {
        sum.saturating_add(reader.elements(output).saturating_mul(ELEMENT))
    });
    spare.saturating_add(given).saturating_mul(TIMES) <= own
}

/// Which nodes are needed for outputs.
fn needed(graph: &GraphProto, outputs: &[String]) -> Vec<bool> {
    let mut read: HashSet<&str> = outputs.iter().map(String::as_str).collect();
    let mut needed = vec![false; graph.node.len()];
    for (node, is_needed) in graph.node.iter().zip(&mut needed).rev() {
        *is_needed = node.output.iter().any(|output| read.contains(output.as_str()));
        if *is_needed {
            note_reads(node, &mut read);
        }
    }
    needed
}

/// Notes what a node and the graphs within it read.
pub(super) fn note_reads<'g>(node: &'g NodeProto, read: &mut HashSet<&'g str>) {
    read.extend(node.input.iter().map(String::as_str));
    for inner in node.attribute.iter().filter_map(|attribute| attribute.g.as_ref()) {
        read.extend(inner.output.iter().map(|info| info.name.as_str()));
        inner.node.iter().for_each(|node| note_reads(node, read));
    }
}

/// What is known of the values of a model.
struct Reader<'m> {
    values: &'m BTreeMap<String, ValueFacts>,
    weights: HashMap<&'m str, &'m TensorProto>,
}

impl Reader<'_> {
    fn sizes(&self, name: &str) -> Option<&[Option<usize>]> {
        match &self.values.get(name)?.shape {
            PartialShape::Ranked(dims) => Some(dims),
            PartialShape::Unknown => None,
        }
    }

    fn rank(&self, name: &str) -> Option<usize> {
        self.sizes(name).map(<[_]>::len)
    }

    /// The elements of a value for one row; of open sizes, at least one.
    fn elements(&self, name: &str) -> u64 {
        let sizes = self.sizes(name).unwrap_or_default();
        sizes.iter().fold(1, |product, size| product.saturating_mul(size.unwrap_or(1) as u64))
    }

    /// What a node costs, in multiplications of a product; no more than it does where sizes are open.
    fn cost(&self, node: &NodeProto) -> u64 {
        let given = node.output.iter().filter(|output| !output.is_empty());
        let elements = given.fold(0u64, |sum, output| sum.saturating_add(self.elements(output)));
        let weights = node.input.get(1).and_then(|name| self.weights.get(name.as_str()));
        let size = |at: usize| weights.and_then(|own| own.dims.get(at)).copied().unwrap_or(1);
        let rank = weights.map_or(0, |own| own.dims.len());
        let each = match node.op_type.as_str() {
            "Conv" => (1..rank).map(size).product(),
            "MatMul" if rank >= 2 => size(rank - 2),
            _ => ELEMENT.cast_signed(),
        };
        elements.saturating_mul(u64::try_from(each).unwrap_or(1).max(ELEMENT))
    }

    fn is_constant(&self, name: &str) -> bool {
        name.is_empty() || self.weights.contains_key(name)
    }

    /// Whether a node that is fed by others of this model cannot fail: its shapes are known but for the
    /// number of rows, and no value can be at odds with them.
    fn is_harmless(&self, node: &NodeProto) -> bool {
        let Some((first, others)) = node.input.split_first() else { return false };
        let has_sizes = |name: &String| {
            let sizes = self.sizes(name);
            sizes.is_some_and(|own| own.iter().skip(1).all(|dim| dim.is_some_and(|n| n > 0)))
        };
        let given = node.output.iter().filter(|output| !output.is_empty());
        let mut moving = node.input.iter().filter(|name| !self.is_constant(name)).chain(given);
        if !moving.all(has_sizes) {
            return false;
        }
        let is_weighted =
            !self.is_constant(first) && others.iter().all(|own| self.is_constant(own));
        match node.op_type.as_str() {
            op if OF_ONE.contains(&op) => true,
            op if OF_TWO.contains(&op) => self.is_with_constant(node),
            op if WEIGHTED.contains(&op) => is_weighted,
            // Weights for each row would hold for so many rows alone.
            "MatMul" => is_weighted && others.iter().all(|own| self.rank(own) == Some(2)),
            op if RESHAPING.contains(&op) => is_weighted && self.keeps_rows(node),
            op if REDUCING.contains(&op) => is_weighted && self.reduces_known(node),
            _ => false,
        }
    }

    /// Whether one of two operands is a constant that is stretched along rows, however many there are.
    fn is_with_constant(&self, node: &NodeProto) -> bool {
        let is_float =
            node.input.first().and_then(|name| self.values.get(name)).is_some_and(|facts| {
                matches!(facts.dtype, DType::F16 | DType::BF16 | DType::F32 | DType::F64)
            });
        let is_safe = is_float || !matches!(node.op_type.as_str(), "Div" | "Pow");
        let (constants, moving): (Vec<_>, Vec<_>) =
            node.input.iter().partition(|name| self.is_constant(name));
        let ([constant], [moving]) = (&constants[..], &moving[..]) else { return false };
        let is_stretched = self.rank(constant) < self.rank(moving)
            || self.sizes(constant).and_then(<[_]>::first) == Some(&Some(1));
        is_safe && is_stretched
    }

    /// Whether the elements of each row stay those of one row, however many rows there are.
    fn keeps_rows(&self, node: &NodeProto) -> bool {
        let of_row = |name: Option<&String>| {
            let (rows, sizes) = self.sizes(name?)?.split_first()?;
            Some((*rows, sizes.iter().copied().product::<Option<usize>>()?))
        };
        let (from, to) = (of_row(node.input.first()), of_row(node.output.first()));
        from.is_some() && from == to
    }

    /// Whether a reduction is along sizes that are known.
    fn reduces_known(&self, node: &NodeProto) -> bool {
        let Some(rank) = node.input.first().and_then(|name| self.rank(name)) else { return false };
        let attribute = node.attribute.iter().find(|own| own.name == "axis").and_then(|own| own.i);
        let axes: Vec<i64> =
            match node.input.get(1).and_then(|name| self.weights.get(name.as_str())) {
                Some(axes) => {
                    let (axes, _) = axes.raw_data.as_chunks::<8>();
                    axes.iter().map(|axis| i64::from_le_bytes(*axis)).collect()
                }
                None => attribute.into_iter().collect(),
            };
        let is_row = |axis: &i64| *axis == 0 || *axis == -(rank as i64);
        !axes.is_empty() && !axes.iter().any(is_row)
    }
}

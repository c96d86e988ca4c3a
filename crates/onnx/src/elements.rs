//! Arithmetic on sizes while translating, so that the usual chains from `Shape` to `Reshape` leave
//! no nodes behind.
//!
//! Invariant: what is computed here equals what TensorFlow would compute; where that is not sure
//! (overflow, division by zero, an index out of range) nothing is computed.

use vesta_model::DType;

use crate::call::Call;
use crate::constant::Constant;
use crate::graph::Graph;
use crate::value::{Dim, Element, ValueId, known_dims};

/// Larger tensors of whole numbers are left to the engine.
pub(crate) const ELEMENTS_MAX: usize = 64;

/// What is known of a node's only result: its elements, and its sizes when it is a vector.
pub(crate) struct Computed {
    pub(crate) elements: Vec<Element>,
    pub(crate) is_scalar: bool,
}

impl Computed {
    fn vector(elements: Vec<Element>) -> Option<Computed> {
        Some(Computed { elements, is_scalar: false })
    }

    fn scalar(element: Element) -> Option<Computed> {
        Some(Computed { elements: vec![element], is_scalar: true })
    }

    /// The tensor of these elements, when all are known.
    pub(crate) fn constant(&self, dtype: DType) -> Option<Constant> {
        let known: Option<Vec<i64>> = self
            .elements
            .iter()
            .map(|element| match element {
                Element::Known(n) => Some(*n),
                _ => None,
            })
            .collect();
        let dims = if self.is_scalar { vec![] } else { vec![self.elements.len()] };
        Constant::whole(dtype, &dims, &known?)
    }
}

/// The dtype of the result, when it is one that sizes come in.
pub(crate) fn result_dtype(graph: &Graph, call: &Call<'_>) -> Option<DType> {
    let dtype = match call.node.op.as_str() {
        "Shape" | "Size" => call.dtype("out_type", DType::I32).ok()?,
        "Rank" => DType::I32,
        "Cast" => call.dtype("DstT", DType::Invalid).ok()?,
        "GatherV2" | "Gather" | "StridedSlice" | "Slice" | "Pack" | "ConcatV2" | "Range"
        | "Reshape" | "ExpandDims" | "Squeeze" | "Prod" | "Add" | "AddV2" | "Sub" | "Mul"
        | "Maximum" | "Minimum" | "FloorDiv" | "Neg" | "BroadcastArgs" => {
            graph.get(call.input(0).ok()?).dtype
        }
        "Fill" | "SelectV2" => graph.get(call.input(1).ok()?).dtype,
        _ => return None,
    };
    matches!(dtype, DType::I32 | DType::I64).then_some(dtype)
}

/// What can be said of the result of `call` without running it.
pub(crate) fn compute(graph: &Graph, call: &Call<'_>) -> Option<Computed> {
    let small = |computed: &Computed| computed.elements.len() <= ELEMENTS_MAX;
    let operand = |i: usize| Operand::read(graph, call.input(i).ok()?);
    let computed = match call.node.op.as_str() {
        "Shape" => {
            let dims = graph.get(call.input(0).ok()?).dims.as_ref()?;
            Computed::vector(dims.iter().map(|&dim| dim.into()).collect())
        }
        "Size" => {
            let dims = known_dims(&graph.get(call.input(0).ok()?).dims)?;
            let size = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
            Computed::scalar(Dim::Known(size).into())
        }
        "Rank" => {
            let rank = graph.get(call.input(0).ok()?).rank()?;
            Computed::scalar(Dim::Known(rank).into())
        }
        "Cast" => {
            let from = operand(0)?;
            Some(Computed { elements: from.elements, is_scalar: from.is_scalar })
        }
        "BroadcastArgs" => broadcast_sizes(&operand(0)?, &operand(1)?),
        "Neg" => map_one(&operand(0)?, i64::checked_neg),
        "Add" | "AddV2" => map_two(&operand(0)?, &operand(1)?, i64::checked_add),
        "Sub" => map_two(&operand(0)?, &operand(1)?, i64::checked_sub),
        "Mul" => multiply(&operand(0)?, &operand(1)?),
        "Maximum" => map_two(&operand(0)?, &operand(1)?, |a, b| Some(a.max(b))),
        "Minimum" => map_two(&operand(0)?, &operand(1)?, |a, b| Some(a.min(b))),
        "FloorDiv" => map_two(&operand(0)?, &operand(1)?, |a, b| (b > 0).then(|| a.div_euclid(b))),
        "Prod" => product(call, &operand(0)?, &operand(1)?),
        "Pack" => pack(call, graph),
        "ConcatV2" => concat(call, graph),
        "GatherV2" | "Gather" => gather(call, graph),
        "StridedSlice" => strided_slice(call, graph),
        "Slice" => slice(call, graph),
        "Range" => range(&operand(0)?, &operand(1)?, &operand(2)?),
        "SelectV2" => select(graph, call, &operand(1)?, &operand(2)?),
        "Fill" => fill(&operand(0)?, &operand(1)?),
        "Reshape" | "ExpandDims" | "Squeeze" => reshape(call, graph),
        _ => None,
    };
    computed.filter(small)
}

/// The outcome of a comparison of whole numbers that are known.
pub(crate) fn compared(graph: &Graph, call: &Call<'_>) -> Option<Constant> {
    let holds: fn(i64, i64) -> bool = match call.node.op.as_str() {
        "Equal" => |a, b| a == b,
        "NotEqual" => |a, b| a != b,
        "Greater" => |a, b| a > b,
        "GreaterEqual" => |a, b| a >= b,
        "Less" => |a, b| a < b,
        "LessEqual" => |a, b| a <= b,
        _ => return None,
    };
    let operand = |i: usize| Operand::read(graph, call.input(i).ok()?);
    let computed = map_two(&operand(0)?, &operand(1)?, |a, b| Some(holds(a, b).into()))?;
    computed.constant(DType::Bool)
}

/// One of two, by a truth that is known.
fn select(graph: &Graph, call: &Call<'_>, then: &Operand, other: &Operand) -> Option<Computed> {
    let truth = graph.get(call.input(0).ok()?).constant.as_ref()?.to_ints()?;
    let ([truth], true) = (&truth[..], then.elements.len() == other.elements.len()) else {
        return None;
    };
    let chosen = if *truth == 0 { other } else { then };
    let is_scalar = then.is_scalar && other.is_scalar;
    Some(Computed { elements: chosen.elements.clone(), is_scalar })
}

/// An input of rank 0 or 1 whose elements are known at least in part.
struct Operand {
    elements: Vec<Element>,
    is_scalar: bool,
}

impl Operand {
    fn read(graph: &Graph, id: ValueId) -> Option<Operand> {
        let value = graph.get(id);
        let elements = value.elements.clone()?;
        Some(Operand { elements, is_scalar: value.rank()? == 0 })
    }

    fn one(&self) -> Option<i64> {
        match self.elements.as_slice() {
            [Element::Known(n)] => Some(*n),
            _ => None,
        }
    }
}

fn map_one(a: &Operand, f: impl Fn(i64) -> Option<i64>) -> Option<Computed> {
    let elements = a.elements.iter().map(|e| known(*e).and_then(&f)).map(from_option).collect();
    Some(Computed { elements, is_scalar: a.is_scalar })
}

fn map_two(a: &Operand, b: &Operand, f: impl Fn(i64, i64) -> Option<i64>) -> Option<Computed> {
    map_pairs(a, b, |x, y| from_option(known(x).zip(known(y)).and_then(|(x, y)| f(x, y))))
}

/// A size times one stays the size.
fn multiply(a: &Operand, b: &Operand) -> Option<Computed> {
    map_pairs(a, b, |x, y| match (x, y) {
        (Element::Known(1), other) | (other, Element::Known(1)) => other,
        _ => from_option(known(x).zip(known(y)).and_then(|(x, y)| x.checked_mul(y))),
    })
}

/// Sizes that are surely those of two shapes combined: of the same length, the shorter with ones before.
fn broadcast_sizes(a: &Operand, b: &Operand) -> Option<Computed> {
    let rank = a.elements.len().max(b.elements.len());
    let full = |operand: &Operand| {
        let mut all = vec![Element::Known(1); rank - operand.elements.len()];
        all.extend(&operand.elements);
        all
    };
    let size = |(x, y): (Element, Element)| match (x, y) {
        (Element::Known(1), other) | (other, Element::Known(1)) => Some(other),
        (x, y) if x == y && x != Element::Unknown => Some(x),
        _ => None,
    };
    let all: Option<Vec<Element>> = full(a).into_iter().zip(full(b)).map(size).collect();
    Computed::vector(all?)
}

fn map_pairs(
    a: &Operand,
    b: &Operand,
    f: impl Fn(Element, Element) -> Element,
) -> Option<Computed> {
    let (n, m) = (a.elements.len(), b.elements.len());
    let len = if n == 1 { m } else { n };
    if m != 1 && m != len {
        return None;
    }
    let at = |o: &Operand, i: usize| o.elements[if o.elements.len() == 1 { 0 } else { i }];
    let elements = (0..len).map(|i| f(at(a, i), at(b, i))).collect();
    Some(Computed { elements, is_scalar: a.is_scalar && b.is_scalar })
}

fn known(element: Element) -> Option<i64> {
    match element {
        Element::Known(n) => Some(n),
        _ => None,
    }
}

fn from_option(value: Option<i64>) -> Element {
    value.map_or(Element::Unknown, Element::Known)
}

fn product(call: &Call<'_>, a: &Operand, axes: &Operand) -> Option<Computed> {
    let axis = axes.one()?;
    if a.is_scalar || !(axis == 0 || axis == -1) {
        return None;
    }
    let mut unknown = Vec::new();
    let mut factor = 1i64;
    for element in &a.elements {
        match element {
            Element::Known(n) => factor = factor.checked_mul(*n)?,
            other => unknown.push(*other),
        }
    }
    let element = match unknown.as_slice() {
        [] => Element::Known(factor),
        [one] if factor == 1 => *one,
        _ => Element::Unknown,
    };
    let keep = call.flag("keep_dims", false).ok()?;
    Some(Computed { elements: vec![element], is_scalar: !keep })
}

/// An input of a node that joins several: unknown elements where its length alone is known.
fn part(graph: &Graph, id: ValueId) -> Option<Operand> {
    Operand::read(graph, id).or_else(|| {
        let dims = known_dims(&graph.get(id).dims)?;
        let len = match dims.as_slice() {
            [] => 1,
            [n] if *n <= ELEMENTS_MAX => *n,
            _ => return None,
        };
        Some(Operand { elements: vec![Element::Unknown; len], is_scalar: dims.is_empty() })
    })
}

fn pack(call: &Call<'_>, graph: &Graph) -> Option<Computed> {
    let mut elements = Vec::new();
    for &id in &call.inputs {
        let operand = part(graph, id).filter(|operand| operand.is_scalar)?;
        elements.extend(operand.elements);
    }
    Computed::vector(elements)
}

fn concat(call: &Call<'_>, graph: &Graph) -> Option<Computed> {
    let (_, parts) = call.inputs.split_last()?;
    let mut elements = Vec::new();
    for &id in parts {
        let operand = part(graph, id).filter(|operand| !operand.is_scalar)?;
        elements.extend(operand.elements);
    }
    Computed::vector(elements)
}

fn gather(call: &Call<'_>, graph: &Graph) -> Option<Computed> {
    let from = Operand::read(graph, call.input(0).ok()?).filter(|operand| !operand.is_scalar)?;
    let indices = Operand::read(graph, call.input(1).ok()?)?;
    if call.int("batch_dims", 0).ok()? != 0 {
        return None;
    }
    let pick = |index: &Element| {
        usize::try_from(known(*index)?).ok().and_then(|i| from.elements.get(i).copied())
    };
    let elements: Option<Vec<Element>> = indices.elements.iter().map(pick).collect();
    Some(Computed { elements: elements?, is_scalar: indices.is_scalar })
}

fn strided_slice(call: &Call<'_>, graph: &Graph) -> Option<Computed> {
    let from = Operand::read(graph, call.input(0).ok()?).filter(|operand| !operand.is_scalar)?;
    let number = |i: usize| Operand::read(graph, call.input(i).ok()?)?.one();
    let (begin, end, step) = (number(1)?, number(2)?, number(3)?);
    let mask = |name: &str| Some(call.int(name, 0).ok()? & 1 == 1);
    if mask("ellipsis_mask")? || mask("new_axis_mask")? {
        return None;
    }
    let len = i64::try_from(from.elements.len()).ok()?;
    let from_start = |i: i64| if i < 0 { i.saturating_add(len) } else { i };
    if mask("shrink_axis_mask")? {
        let index = usize::try_from(from_start(begin)).ok()?;
        return Computed::scalar(*from.elements.get(index)?);
    }
    if step <= 0 {
        return None;
    }
    let begin = if mask("begin_mask")? { 0 } else { from_start(begin).clamp(0, len) };
    let end = if mask("end_mask")? { len } else { from_start(end).clamp(0, len) };
    let picked = from.elements.iter().enumerate().filter(|(i, _)| {
        let i = *i as i64;
        i >= begin && i < end && (i - begin) % step == 0
    });
    Computed::vector(picked.map(|(_, element)| *element).collect())
}

fn slice(call: &Call<'_>, graph: &Graph) -> Option<Computed> {
    let from = Operand::read(graph, call.input(0).ok()?).filter(|operand| !operand.is_scalar)?;
    let begin = usize::try_from(Operand::read(graph, call.input(1).ok()?)?.one()?).ok()?;
    let size = Operand::read(graph, call.input(2).ok()?)?.one()?;
    let end = match usize::try_from(size) {
        Ok(size) => begin.checked_add(size)?,
        Err(_) if size == -1 => from.elements.len(),
        Err(_) => return None,
    };
    Computed::vector(from.elements.get(begin..end)?.to_vec())
}

fn range(start: &Operand, limit: &Operand, delta: &Operand) -> Option<Computed> {
    let (start, limit, delta) = (start.one()?, limit.one()?, delta.one()?);
    if delta <= 0 || start > limit {
        return None;
    }
    let span = limit.checked_sub(start)?;
    let count = usize::try_from(span.checked_add(delta - 1)?.div_euclid(delta)).ok()?;
    if count > ELEMENTS_MAX {
        return None;
    }
    Computed::vector((0..count as i64).map(|i| Element::Known(start + i * delta)).collect())
}

fn fill(dims: &Operand, value: &Operand) -> Option<Computed> {
    let count = usize::try_from(dims.one()?).ok().filter(|&n| n <= ELEMENTS_MAX)?;
    match (dims.is_scalar, value.elements.as_slice()) {
        (false, [element]) => Computed::vector(vec![*element; count]),
        _ => None,
    }
}

/// Between a scalar and a vector of one, and from a vector to itself.
fn reshape(call: &Call<'_>, graph: &Graph) -> Option<Computed> {
    let from = Operand::read(graph, call.input(0).ok()?)?;
    let count = i64::try_from(from.elements.len()).ok()?;
    match call.node.op.as_str() {
        "Reshape" => {
            let target = Operand::read(graph, call.input(1).ok()?)?;
            if target.is_scalar {
                return None;
            }
            match target.elements.as_slice() {
                [] if count == 1 => Computed::scalar(from.elements[0]),
                [Element::Known(n)] if *n == count || *n == -1 => Computed::vector(from.elements),
                _ => None,
            }
        }
        "ExpandDims" if from.is_scalar => Computed::vector(from.elements),
        "Squeeze" if !from.is_scalar && count == 1 => Computed::scalar(from.elements[0]),
        _ => None,
    }
}

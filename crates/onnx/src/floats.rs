//! Arithmetic on constant floats while translating, so that a normalisation that is written out in
//! operators comes down to a factor and an offset for each channel, which go into weights.
//!
//! Invariant: what is computed here is rounded once, as in TensorFlow; where a number is not normal
//! (infinite, none, or so small that TensorFlow's threads take it for zero) nothing is computed.

use crate::call::Call;
use crate::constant::Constant;
use crate::graph::Graph;

/// Larger tensors are left to the engine.
const ELEMENTS_MAX: usize = 1 << 16;

/// Elements that one translation computes in all.
const ELEMENTS_OF_ALL_MAX: usize = 1 << 24;

/// The result of `call`, where all that it reads is constant.
pub(crate) fn compute(graph: &mut Graph, call: &Call<'_>) -> Option<Constant> {
    let result = of_one(graph, call).or_else(|| of_two(graph, call))?;
    graph.computed_floats = graph.computed_floats.saturating_add(result.len());
    (graph.computed_floats <= ELEMENTS_OF_ALL_MAX).then_some(result)
}

/// A constant input, and its numbers.
fn operand<'g>(graph: &'g Graph, call: &Call<'_>, at: usize) -> Option<(&'g Constant, Vec<f32>)> {
    let constant = graph.get(*call.inputs.get(at)?).constant.as_ref()?;
    if constant.len() > ELEMENTS_MAX {
        return None;
    }
    let values = constant.to_floats()?;
    values.iter().all(is_plain).then_some((constant, values))
}

fn is_plain(value: &f32) -> bool {
    *value == 0.0 || value.is_normal()
}

fn of_one(graph: &Graph, call: &Call<'_>) -> Option<Constant> {
    let function: fn(f64) -> f64 = match call.node.op.as_str() {
        "Inv" | "Reciprocal" => f64::recip,
        "Neg" => |value| -value,
        "Reshape" => return reshaped(graph, call),
        "Rsqrt" => |value| value.sqrt().recip(),
        "Sqrt" => f64::sqrt,
        "Square" => |value| value * value,
        _ => return None,
    };
    let (constant, values) = operand(graph, call, 0)?;
    made(&constant.dims, values.iter().map(|&value| function(f64::from(value)) as f32).collect())
}

fn of_two(graph: &Graph, call: &Call<'_>) -> Option<Constant> {
    let function: fn(f32, f32) -> f32 = match call.node.op.as_str() {
        "Add" | "AddV2" => |a, b| a + b,
        "Maximum" => f32::max,
        "Minimum" => f32::min,
        "Mul" => |a, b| a * b,
        "RealDiv" => |a, b| a / b,
        "Sub" => |a, b| a - b,
        _ => return None,
    };
    let ((a, left), (b, right)) = (operand(graph, call, 0)?, operand(graph, call, 1)?);
    let dims = broadcast(&a.dims, &b.dims)?;
    let places = places(&a.dims, &dims).zip(places(&b.dims, &dims));
    let values = places.map(|(i, j)| Some(function(*left.get(i)?, *right.get(j)?)));
    made(&dims, values.collect::<Option<_>>()?)
}

fn made(dims: &[usize], values: Vec<f32>) -> Option<Constant> {
    if values.iter().all(is_plain) { Constant::floats(dims, &values) } else { None }
}

/// The same numbers under other sizes, of which one may be left open.
fn reshaped(graph: &Graph, call: &Call<'_>) -> Option<Constant> {
    let (constant, _) = operand(graph, call, 0)?;
    let sizes = graph.get(*call.inputs.get(1)?).constant.as_ref()?.to_ints()?;
    let known: usize = sizes
        .iter()
        .filter(|&&size| size != -1)
        .try_fold(1usize, |product, &size| product.checked_mul(usize::try_from(size).ok()?))?;
    let open = constant.len().checked_div(known);
    let dims = sizes.iter().map(|&size| if size == -1 { open } else { usize::try_from(size).ok() });
    constant.reshaped(&dims.collect::<Option<Vec<_>>>()?)
}

/// The sizes of two tensors that are combined; `None` where they do not fit, or are too many elements.
fn broadcast(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let size = |dims: &[usize], axis: usize| {
        (axis + dims.len()).checked_sub(rank).map_or(1, |own| dims[own])
    };
    let both = |axis: usize| match (size(a, axis), size(b, axis)) {
        (n, m) if n == m || m == 1 => Some(n),
        (1, m) => Some(m),
        _ => None,
    };
    let dims = (0..rank).map(both).collect::<Option<Vec<_>>>()?;
    let elements = dims.iter().try_fold(1usize, |product, &size| product.checked_mul(size))?;
    (elements <= ELEMENTS_MAX).then_some(dims)
}

/// For each element of a tensor of sizes `all`, the place of the one of sizes `own` that goes with it.
fn places<'d>(own: &'d [usize], all: &'d [usize]) -> impl Iterator<Item = usize> + 'd {
    (0..all.iter().product()).map(move |at: usize| {
        let (mut rest, mut place, mut step) = (at, 0, 1);
        for (axis, &size) in all.iter().enumerate().rev() {
            let index = rest % size;
            rest /= size;
            if let Some(own_axis) = (axis + own.len()).checked_sub(all.len()) {
                place += if own[own_axis] == 1 { 0 } else { index * step };
                step *= own[own_axis];
            }
        }
        place
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_stretched_from_the_last_axis() {
        assert_eq!(broadcast(&[2, 1], &[3]), Some(vec![2, 3]));
        assert_eq!(broadcast(&[2], &[3]), None);
        assert_eq!(broadcast(&[], &[0, 4]), Some(vec![0, 4]));
        assert_eq!(broadcast(&[1 << 10, 1], &[1 << 10]), None);
        assert_eq!(places(&[2, 1], &[2, 3]).collect::<Vec<_>>(), [0, 0, 0, 1, 1, 1]);
        assert_eq!(places(&[3], &[2, 3]).collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2]);
        assert_eq!(places(&[], &[2]).collect::<Vec<_>>(), [0, 0]);
    }

    #[test]
    fn numbers_that_are_not_plain_are_left_alone() {
        assert!(made(&[2], vec![0.0, -1.5]).is_some());
        for odd in [f32::NAN, f32::INFINITY, f32::MIN_POSITIVE / 2.0] {
            assert_eq!(made(&[1], vec![odd]), None);
        }
    }
}

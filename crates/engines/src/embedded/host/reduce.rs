//! Operators that pick or combine elements along axes: reductions, argmax, top k.
//!
//! Invariant: of equal candidates the first wins, and NaN is treated as TensorFlow treats it:
//! passed on by reductions, never chosen by argmax, first in a top k.

use std::cmp::Ordering;

use vesta_model::{DType, Shape, Status, Tensor};

use super::arithmetic::{Binary, Number, for_number, is_short_float};
use super::elements::{
    axis_of, booleans, elements, integer, integers, narrowed, tensor, truths, widened,
};

/// How elements are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reduction {
    Sum,
    Product,
    Maximum,
    Minimum,
    Mean,
}

/// Where each element of a reduced tensor goes.
struct Plan {
    shape: Shape,
    /// For each input element, in order, the output element it belongs to.
    targets: Vec<usize>,
    outputs: usize,
}

fn plan(input: &Tensor, axes: &Tensor, keep: bool) -> Result<Plan, Status> {
    let dims = input.shape().dims();
    let mut reduced = vec![false; dims.len()];
    for axis in integers(axes)? {
        let at = axis_of(axis, dims.len()).ok_or_else(|| {
            Status::invalid_argument(format!(
                "Invalid reduction dimension ({axis} for input with {} dimension(s)",
                dims.len()
            ))
        })?;
        reduced[at] = true;
    }
    let mut kept = Vec::new();
    let mut strides = vec![0usize; dims.len()];
    let mut outputs = 1;
    for axis in (0..dims.len()).rev() {
        if !reduced[axis] {
            strides[axis] = outputs;
            outputs *= dims[axis];
        }
    }
    for (axis, &dim) in dims.iter().enumerate() {
        if !reduced[axis] {
            kept.push(dim);
        } else if keep {
            kept.push(1);
        }
    }
    let mut targets = Vec::with_capacity(input.shape().elements());
    let mut position = vec![0usize; dims.len()];
    let mut target = 0;
    for _ in 0..input.shape().elements() {
        targets.push(target);
        for axis in (0..dims.len()).rev() {
            position[axis] += 1;
            target += strides[axis];
            if position[axis] < dims[axis] {
                break;
            }
            target -= strides[axis] * dims[axis];
            position[axis] = 0;
        }
    }
    Ok(Plan { shape: Shape::new(kept)?, targets, outputs })
}

pub(crate) fn reduce(
    op: Reduction,
    input: &Tensor,
    axes: &Tensor,
    keep: bool,
) -> Result<Tensor, Status> {
    fn typed<T: Number>(op: Reduction, input: &Tensor, plan: &Plan) -> Result<Tensor, Status> {
        let values = elements::<T>(input)?;
        let (start, step) = match op {
            Reduction::Sum | Reduction::Mean => (T::ZERO, Binary::Add),
            Reduction::Product => (T::ONE, Binary::Multiply),
            Reduction::Maximum => (T::LOWEST, Binary::Maximum),
            Reduction::Minimum => (T::HIGHEST, Binary::Minimum),
        };
        let mut out = vec![start; plan.outputs];
        for (&value, &target) in values.iter().zip(&plan.targets) {
            out[target] = T::binary(step, out[target], value);
        }
        if op == Reduction::Mean {
            let count = T::from_usize(values.len().checked_div(plan.outputs).unwrap_or(0));
            for value in &mut out {
                *value = T::binary(Binary::Divide, *value, count);
            }
        }
        tensor(plan.shape.clone(), out)
    }
    if is_short_float(input.dtype()) {
        return narrowed(&reduce(op, &widened(input)?, axes, keep)?, input.dtype());
    }
    let plan = plan(input, axes, keep)?;
    if input.dtype() == DType::F32 && matches!(op, Reduction::Sum | Reduction::Mean) {
        // A running sum of floats loses digits that TensorFlow's tree of sums keeps.
        let values = elements::<f32>(input)?;
        let mut sums = vec![0f64; plan.outputs];
        for (&value, &target) in values.iter().zip(&plan.targets) {
            sums[target] += f64::from(value);
        }
        let count = match op {
            Reduction::Mean => values.len() as f64 / plan.outputs.max(1) as f64,
            _ => 1.0,
        };
        return tensor(plan.shape, sums.iter().map(|sum| (sum / count) as f32).collect());
    }
    for_number!(input.dtype(), typed(op, input, &plan))
}

/// Whether all (or any) elements along axes are true.
pub(crate) fn quantify(
    all: bool,
    input: &Tensor,
    axes: &Tensor,
    keep: bool,
) -> Result<Tensor, Status> {
    let plan = plan(input, axes, keep)?;
    let mut out = vec![all; plan.outputs];
    for (&value, &target) in truths(input)?.iter().zip(&plan.targets) {
        if (value != 0) != all {
            out[target] = !all;
        }
    }
    booleans(plan.shape, &out)
}

/// Position of the largest (or smallest) element along an axis.
pub(crate) fn arg_extreme(
    largest: bool,
    input: &Tensor,
    axis: &Tensor,
    output: DType,
) -> Result<Tensor, Status> {
    fn typed<T: Number>(
        largest: bool,
        input: &Tensor,
        (outer, size, inner): (usize, usize, usize),
    ) -> Result<Vec<i64>, Status> {
        let values = elements::<T>(input)?;
        let mut found = Vec::with_capacity(outer * inner);
        for block in 0..outer {
            for lane in 0..inner {
                let mut best = (0, if largest { T::LOWEST } else { T::HIGHEST });
                for at in 0..size {
                    let value = values[(block * size + at) * inner + lane];
                    // Strictly better only: ties keep the first, NaN never wins.
                    if if largest { value > best.1 } else { value < best.1 } {
                        best = (at as i64, value);
                    }
                }
                found.push(best.0);
            }
        }
        Ok(found)
    }
    if is_short_float(input.dtype()) {
        return arg_extreme(largest, &widened(input)?, axis, output);
    }
    let axis = integer(axis, "dimension")?;
    let dims = input.shape().dims();
    let rank = dims.len();
    let at = axis_of(axis, rank).ok_or_else(|| {
        Status::invalid_argument(format!(
            "Expected dimension in the range [{}, {rank}), but got {axis}",
            -(rank as i64)
        ))
    })?;
    if dims[at] == 0 {
        return Err(Status::invalid_argument(format!(
            "Reduction axis {at} is empty in shape {}",
            input.shape()
        )));
    }
    let extent = (dims[..at].iter().product(), dims[at], dims[at + 1..].iter().product());
    let found = for_number!(input.dtype(), typed(largest, input, extent))?;
    let mut kept = dims.to_vec();
    kept.remove(at);
    let shape = Shape::new(kept)?;
    match output {
        DType::I32 => tensor(shape, found.iter().map(|&at| at as i32).collect()),
        DType::I64 => tensor(shape, found),
        dtype => Err(Status::internal(format!("positions cannot be {dtype}"))),
    }
}

/// The `k` largest elements of each row, largest first, and their positions.
pub(crate) fn top_k(input: &Tensor, k: &Tensor, index: DType) -> Result<Vec<Tensor>, Status> {
    fn typed<T: Number>(
        input: &Tensor,
        width: usize,
        k: usize,
    ) -> Result<(Tensor, Vec<i64>), Status> {
        let values = elements::<T>(input)?;
        let mut dims = input.shape().dims().to_vec();
        dims.pop();
        dims.push(k);
        let shape = Shape::new(dims)?;
        let (mut best, mut found) = (Vec::with_capacity(shape.elements()), Vec::new());
        for row in values.chunks(width.max(1)) {
            let mut order: Vec<usize> = (0..row.len()).collect();
            order.sort_by(|&a, &b| descending(row[a], row[b]));
            for &at in order.iter().take(k) {
                best.push(row[at]);
                found.push(at as i64);
            }
        }
        Ok((tensor(shape, best)?, found))
    }
    if is_short_float(input.dtype()) {
        let mut out = top_k(&widened(input)?, k, index)?;
        out[0] = narrowed(&out[0], input.dtype())?;
        return Ok(out);
    }
    let k = integer(k, "k")?;
    let width = input.shape().dims().last().copied().ok_or_else(|| {
        Status::invalid_argument(format!("input must be >= 1-D, got shape {}", input.shape()))
    })?;
    let k = usize::try_from(k)
        .map_err(|_| Status::invalid_argument(format!("Need k >= 0, got {k}")))?;
    if k > width {
        return Err(Status::invalid_argument(format!(
            "input must have at least k columns. Had {width}, needed {k}"
        )));
    }
    let (best, found) = for_number!(input.dtype(), typed(input, width, k))?;
    let shape = best.shape().clone();
    let found = match index {
        DType::I32 => tensor(shape, found.iter().map(|&at| at as i32).collect())?,
        _ => tensor(shape, found)?,
    };
    Ok(vec![best, found])
}

/// Largest first; a stable sort keeps the lower position first among equals. NaN sorts before all.
#[expect(clippy::eq_op, reason = "a value that differs from itself is NaN")]
fn descending<T: PartialOrd + Copy>(a: T, b: T) -> Ordering {
    match (a != a, b != b) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        (false, false) => b.partial_cmp(&a).unwrap_or(Ordering::Equal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAN: f32 = f32::NAN;

    fn matrix(rows: usize, values: &[f32]) -> Tensor {
        Tensor::of(Shape::new(vec![rows, values.len() / rows]).unwrap(), values).unwrap()
    }

    fn scalar(value: i32) -> Tensor {
        Tensor::of(Shape::scalar(), &[value]).unwrap()
    }

    #[test]
    fn argmax_takes_the_first_of_equals_and_never_nan() {
        let low = f32::NEG_INFINITY;
        let input = matrix(
            6,
            &[NAN, 1., 2., 1., NAN, 2., 3., 2., NAN, 1., 1., 0., NAN, NAN, NAN, low, low, low],
        );
        let most = arg_extreme(true, &input, &scalar(1), DType::I64).unwrap();
        assert_eq!(most.to_vec::<i64>().unwrap(), [2, 2, 0, 0, 0, 0]);
        let least = arg_extreme(false, &input, &scalar(-1), DType::I32).unwrap();
        assert_eq!(least.to_vec::<i32>().unwrap()[..5], [1, 0, 1, 2, 0]);
    }

    #[test]
    fn empty_axes_are_refused() {
        let input = Tensor::of::<f32>(Shape::new(vec![2, 0]).unwrap(), &[]).unwrap();
        let error = arg_extreme(true, &input, &scalar(1), DType::I64).unwrap_err();
        assert_eq!(error.message(), "Reduction axis 1 is empty in shape [2,0]");
        let error = arg_extreme(true, &input, &scalar(4), DType::I64).unwrap_err();
        assert_eq!(error.message(), "Expected dimension in the range [-2, 2), but got 4");
        // No rows at all is an empty answer, not an error.
        let input = Tensor::of::<f32>(Shape::new(vec![0, 3]).unwrap(), &[]).unwrap();
        let none = arg_extreme(true, &input, &scalar(1), DType::I64).unwrap();
        assert_eq!(none.shape().dims(), [0]);
    }

    #[test]
    fn reductions_keep_or_drop_axes() {
        let input = matrix(2, &[1., 2., 3., 4., 5., 6.]);
        let sum = reduce(Reduction::Sum, &input, &scalar(1), false).unwrap();
        assert_eq!(sum, Tensor::of(Shape::vector(2), &[6f32, 15.]).unwrap());
        let mean = reduce(Reduction::Mean, &input, &scalar(0), true).unwrap();
        assert_eq!(mean, matrix(1, &[2.5, 3.5, 4.5]));
        let none = Tensor::of::<i32>(Shape::vector(0), &[]).unwrap();
        assert_eq!(reduce(Reduction::Maximum, &input, &none, false).unwrap(), input);
    }

    #[test]
    fn reductions_of_nothing_give_the_neutral_element() {
        let empty = Tensor::of::<f32>(Shape::vector(0), &[]).unwrap();
        let value = |op| reduce(op, &empty, &scalar(0), false).unwrap().to_vec::<f32>().unwrap()[0];
        assert_eq!(value(Reduction::Maximum), f32::NEG_INFINITY);
        assert_eq!(value(Reduction::Product), 1.0);
        assert!(value(Reduction::Mean).is_nan());
    }

    #[test]
    fn top_k_puts_nan_first_and_lower_positions_before_higher() {
        let input = Tensor::of(Shape::vector(5), &[1., NAN, 2., 2., -1.0f32]).unwrap();
        let out = top_k(&input, &scalar(4), DType::I32).unwrap();
        assert_eq!(out[1].to_vec::<i32>().unwrap(), [1, 2, 3, 0]);
        let error = top_k(&input, &scalar(6), DType::I32).unwrap_err();
        assert_eq!(error.message(), "input must have at least k columns. Had 5, needed 6");
    }
}

//! Element-wise application with NumPy's broadcasting.
//!
//! May not know: what is applied. Invariant: the output's size is checked before it is allocated.

use vesta_model::{DType, Shape, Status};

use super::elements::bounded_shape;

/// The shape that two shapes broadcast to.
///
/// # Errors
/// `INVALID_ARGUMENT` when they do not fit, in TensorFlow's words.
pub(crate) fn joined_shape(left: &Shape, right: &Shape, dtype: DType) -> Result<Shape, Status> {
    if left == right {
        return Ok(left.clone());
    }
    let rank = left.rank().max(right.rank());
    let dim = |shape: &Shape, axis: usize| {
        (axis + shape.rank()).checked_sub(rank).map_or(1, |at| shape.dims()[at])
    };
    let mut dims = Vec::with_capacity(rank);
    for axis in 0..rank {
        match (dim(left, axis), dim(right, axis)) {
            (a, b) if a == b => dims.push(a),
            (1, b) => dims.push(b),
            (a, 1) => dims.push(a),
            _ => {
                return Err(Status::invalid_argument(format!(
                    "Incompatible shapes: {left} vs. {right}"
                )));
            }
        }
    }
    bounded_shape(dims, dtype)
}

/// Calls `each` with the positions in two operands, for every element of the joined shape in order.
pub(crate) fn for_each_pair(
    left: &Shape,
    right: &Shape,
    joined: &Shape,
    mut each: impl FnMut(usize, usize),
) {
    let (a, b) = (steps(left, joined), steps(right, joined));
    let dims = joined.dims();
    if joined.elements() == 0 {
        return;
    }
    let Some((&inner, outer)) = dims.split_last() else {
        each(0, 0);
        return;
    };
    let last = outer.len();
    let mut position = vec![0usize; last];
    let (mut at, mut bt) = (0usize, 0usize);
    loop {
        for index in 0..inner {
            each(at + index * a[last], bt + index * b[last]);
        }
        let mut axis = last;
        loop {
            if axis == 0 {
                return;
            }
            axis -= 1;
            position[axis] += 1;
            at += a[axis];
            bt += b[axis];
            if position[axis] < dims[axis] {
                break;
            }
            at -= a[axis] * dims[axis];
            bt -= b[axis] * dims[axis];
            position[axis] = 0;
        }
    }
}

/// Steps of an operand along each axis of the joined shape: 0 where it repeats.
fn steps(shape: &Shape, joined: &Shape) -> Vec<usize> {
    let lead = joined.rank() - shape.rank();
    let mut steps = vec![0; joined.rank()];
    let mut step = 1;
    for (axis, &dim) in shape.dims().iter().enumerate().rev() {
        if dim != 1 {
            steps[lead + axis] = step;
        }
        step *= dim;
    }
    steps
}

/// Applies `op` to two operands.
///
/// # Errors
/// As [`joined_shape`].
pub(crate) fn zip<T: Copy, U>(
    (left, left_shape): (&[T], &Shape),
    (right, right_shape): (&[T], &Shape),
    dtype: DType,
    op: impl Fn(T, T) -> U,
) -> Result<(Shape, Vec<U>), Status> {
    let joined = joined_shape(left_shape, right_shape, dtype)?;
    let out = match (left, right) {
        _ if left_shape == right_shape => left.iter().zip(right).map(|(&a, &b)| op(a, b)).collect(),
        (_, &[b]) if joined == *left_shape => left.iter().map(|&a| op(a, b)).collect(),
        (&[a], _) if joined == *right_shape => right.iter().map(|&b| op(a, b)).collect(),
        _ => {
            let mut out = Vec::with_capacity(joined.elements());
            for_each_pair(left_shape, right_shape, &joined, |a, b| {
                out.push(op(left[a], right[b]));
            });
            out
        }
    };
    Ok((joined, out))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(dims: &[usize]) -> Shape {
        Shape::new(dims.to_vec()).unwrap()
    }

    #[test]
    fn broadcasts_as_numpy_does() {
        let (a, b) = ([1, 2, 3], [10, 20]);
        let (joined, sums) =
            zip((&a[..], &shape(&[3])), (&b[..], &shape(&[2, 1])), DType::I32, |a, b| a + b)
                .unwrap();
        assert_eq!(joined, shape(&[2, 3]));
        assert_eq!(sums, [11, 12, 13, 21, 22, 23]);
    }

    #[test]
    fn empty_operands_give_empty_results() {
        let none: [i32; 0] = [];
        let (joined, sums) =
            zip((&none[..], &shape(&[0, 2])), (&[1][..], &shape(&[1])), DType::I32, |a, b| a + b)
                .unwrap();
        assert_eq!(joined, shape(&[0, 2]));
        assert!(sums.is_empty());
    }

    #[test]
    fn misfits_are_told_in_tensorflows_words() {
        let error = joined_shape(&shape(&[3]), &shape(&[2]), DType::F32).unwrap_err();
        assert_eq!(error.message(), "Incompatible shapes: [3] vs. [2]");
    }
}

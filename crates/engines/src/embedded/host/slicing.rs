//! Operators that cut tensors: slices, splits, unpacking.
//!
//! Invariant: absurd bounds are errors or empty, as TensorFlow has it, never overflows.

use vesta_model::{Shape, Status, Tensor};

use super::elements::{axis_of, integers};
use super::layout::squeeze;
use super::walk::{Walk, dense_strides, walked};

pub(crate) fn slice(input: &Tensor, begin: &Tensor, sizes: &Tensor) -> Result<Tensor, Status> {
    let (begin, sizes) = (integers(begin)?, integers(sizes)?);
    let dims = input.shape().dims();
    if begin.len() != dims.len() || sizes.len() != dims.len() {
        return Err(Status::invalid_argument(format!(
            "Expected begin and size arguments to be 1-D tensors of size {}",
            dims.len()
        )));
    }
    let strides = dense_strides(dims);
    let mut walk = Walk { dims: Vec::new(), strides: strides.clone(), start: 0 };
    for axis in 0..dims.len() {
        let have = dims[axis] as i64;
        if !(0..=have).contains(&begin[axis]) {
            return Err(Status::invalid_argument(format!(
                "Expected begin[{axis}] in [0, {have}], but got {}",
                begin[axis]
            )));
        }
        let left = have.saturating_sub(begin[axis]);
        let want = if sizes[axis] == -1 { left } else { sizes[axis] };
        let fits = want >= 0 && begin[axis].saturating_add(want) <= have;
        if !fits {
            return Err(Status::invalid_argument(format!(
                "Expected size[{axis}] in [0, {}], but got {}",
                left.max(0),
                sizes[axis]
            )));
        }
        walk.start += begin[axis] as usize * strides[axis] as usize;
        walk.dims.push(want as usize);
    }
    let shape = Shape::new(walk.dims.clone())?;
    walked(input, &walk, shape)
}

/// The masks of a strided slice, each bit for one position of its specification.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SliceMasks {
    pub(crate) begin: i64,
    pub(crate) end: i64,
    pub(crate) ellipsis: i64,
    pub(crate) new_axis: i64,
    pub(crate) shrink_axis: i64,
}

pub(crate) fn strided_slice(
    input: &Tensor,
    spec: [&Tensor; 3],
    masks: SliceMasks,
) -> Result<Tensor, Status> {
    let [begin, end, step] = [integers(spec[0])?, integers(spec[1])?, integers(spec[2])?];
    if begin.len() != end.len() || begin.len() != step.len() || begin.len() > 32 {
        return Err(Status::invalid_argument(
            "Expected begin, end, and strides to be 1D equal size tensors",
        ));
    }
    let dims = input.shape().dims();
    let strides = dense_strides(dims);
    let bit = |mask: i64, index: usize| mask >> index & 1 == 1;
    let consumed = (0..begin.len())
        .filter(|&at| !bit(masks.new_axis, at) || bit(masks.ellipsis, at))
        .filter(|&at| !bit(masks.ellipsis, at))
        .count();
    let has_ellipsis = (0..begin.len()).any(|at| bit(masks.ellipsis, at));
    let rest = dims.len().checked_sub(consumed).ok_or_else(|| {
        Status::invalid_argument(format!(
            "Index out of range using input dim {}; input has only {} dims",
            dims.len(),
            dims.len()
        ))
    })?;
    let mut walk = Walk { dims: Vec::new(), strides: Vec::new(), start: 0 };
    let mut shape = Vec::new();
    let mut axis = 0;
    let keep = |axis: &mut usize, count: usize, walk: &mut Walk, shape: &mut Vec<usize>| {
        for _ in 0..count {
            walk.dims.push(dims[*axis]);
            walk.strides.push(strides[*axis]);
            shape.push(dims[*axis]);
            *axis += 1;
        }
    };
    for at in 0..begin.len() {
        if bit(masks.ellipsis, at) {
            keep(&mut axis, rest, &mut walk, &mut shape);
        } else if bit(masks.new_axis, at) {
            shape.push(1);
        } else {
            let bounds = [
                (!bit(masks.begin, at)).then_some(begin[at]),
                (!bit(masks.end, at)).then_some(end[at]),
            ];
            let shrink = bit(masks.shrink_axis, at);
            let (first, count) = span(dims[axis], bounds, step[at], shrink, begin[at], axis)?;
            walk.start += first * strides[axis] as usize;
            if !shrink {
                walk.dims.push(count);
                // Overflows only where a single element is taken, whose stride is not used.
                walk.strides.push(strides[axis].wrapping_mul(step[at] as isize));
                shape.push(count);
            }
            axis += 1;
        }
    }
    if !has_ellipsis {
        keep(&mut axis, rest, &mut walk, &mut shape);
    }
    walked(input, &walk, Shape::new(shape)?)
}

/// First element and number of elements that one position of a strided slice takes.
fn span(
    size: usize,
    [begin, end]: [Option<i64>; 2],
    step: i64,
    shrink: bool,
    index: i64,
    axis: usize,
) -> Result<(usize, usize), Status> {
    let length = size as i64;
    let absolute = |value: i64| if value < 0 { value.saturating_add(length) } else { value };
    if shrink {
        let at = absolute(index);
        if !(0..length).contains(&at) {
            return Err(Status::invalid_argument(format!(
                "slice index {at} of dimension {axis} out of bounds."
            )));
        }
        return Ok((at as usize, 1));
    }
    if step == 0 {
        return Err(Status::invalid_argument(format!("strides[{axis}] must be non-zero")));
    }
    let (low, high) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let first = begin.map_or(if step > 0 { low } else { high }, |at| absolute(at).clamp(low, high));
    let last = end.map_or(if step > 0 { high } else { low }, |at| absolute(at).clamp(low, high));
    let distance = if step > 0 { last - first } else { first - last };
    if distance <= 0 {
        return Ok((0, 0));
    }
    let count = (distance - 1) / step.saturating_abs() + 1;
    Ok((first as usize, count as usize))
}

/// Cuts `input` along `axis` into parts of these sizes.
pub(crate) fn split(input: &Tensor, axis: i64, sizes: &[usize]) -> Result<Vec<Tensor>, Status> {
    let dims = input.shape().dims();
    let axis = axis_of(axis, dims.len()).ok_or_else(|| {
        Status::invalid_argument(format!(
            "-input rank(-{}) <= split_dim < input rank ({}), but got {axis}",
            dims.len(),
            dims.len()
        ))
    })?;
    if sizes.iter().sum::<usize>() != dims[axis] {
        return Err(Status::invalid_argument(format!(
            "Dimension {axis} of a tensor of shape {} cannot be split into {} parts of sizes \
             {sizes:?}",
            input.shape(),
            sizes.len()
        )));
    }
    let strides = dense_strides(dims);
    let mut start = 0;
    let mut parts = Vec::with_capacity(sizes.len());
    for &part in sizes {
        let mut out = dims.to_vec();
        out[axis] = part;
        let shape = Shape::new(out.clone())?;
        let walk = Walk { dims: out, strides: strides.clone(), start };
        parts.push(walked(input, &walk, shape)?);
        start += part * strides[axis] as usize;
    }
    Ok(parts)
}

pub(crate) fn split_evenly(input: &Tensor, axis: i64, parts: usize) -> Result<Vec<Tensor>, Status> {
    let at = axis_of(axis, input.shape().rank());
    let size = at.map_or(0, |at| input.shape().dims()[at]);
    if parts == 0 || !size.is_multiple_of(parts) {
        return Err(Status::invalid_argument(format!(
            "Number of ways to split should evenly divide the split dimension, but got split_dim \
             {axis} (size = {size}) and num_split {parts}"
        )));
    }
    split(input, axis, &vec![size / parts; parts])
}

pub(crate) fn unpack(input: &Tensor, axis: i64, count: usize) -> Result<Vec<Tensor>, Status> {
    let at = axis_of(axis, input.shape().rank());
    let at = at.filter(|&at| input.shape().dims()[at] == count).ok_or_else(|| {
        Status::invalid_argument(format!(
            "Input shape axis {axis} must equal {count}, got shape {}",
            input.shape()
        ))
    })?;
    split(input, at as i64, &vec![1; count])?
        .iter()
        .map(|part| squeeze(part, &[at as i64]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::host::layout::{pack, transpose};

    fn grid(rows: usize, columns: usize) -> Tensor {
        let values: Vec<i16> = (0..(rows * columns) as i16).collect();
        Tensor::of(Shape::new(vec![rows, columns]).unwrap(), &values).unwrap()
    }

    fn ints(values: &[i32]) -> Tensor {
        Tensor::of(Shape::vector(values.len()), values).unwrap()
    }

    fn values(tensor: &Tensor) -> Vec<i16> {
        tensor.to_vec().unwrap()
    }

    const PLAIN: SliceMasks =
        SliceMasks { begin: 0, end: 0, ellipsis: 0, new_axis: 0, shrink_axis: 0 };

    fn sliced(begin: &[i32], end: &[i32], step: &[i32], masks: SliceMasks) -> Tensor {
        strided_slice(&grid(3, 4), [&ints(begin), &ints(end), &ints(step)], masks).unwrap()
    }

    #[test]
    fn strided_slices_step_both_ways_and_obey_masks() {
        assert_eq!(values(&sliced(&[0, 1], &[3, 4], &[2, 2], PLAIN)), [1, 3, 9, 11]);
        assert_eq!(values(&sliced(&[-1, -1], &[-9, -9], &[-1, -2], PLAIN))[..3], [11, 9, 7]);
        let row = sliced(&[1], &[2], &[1], SliceMasks { shrink_axis: 1, ..PLAIN });
        assert_eq!((row.shape().dims(), values(&row)), (&[4][..], vec![4, 5, 6, 7]));
        let column = SliceMasks { ellipsis: 1, shrink_axis: 2, ..PLAIN };
        assert_eq!(values(&sliced(&[0, -1], &[0, 0], &[1, 1], column)), [3, 7, 11]);
        let wide = sliced(&[0, 0], &[0, 0], &[1, 1], SliceMasks { new_axis: 1, end: 2, ..PLAIN });
        assert_eq!(wide.shape().dims(), [1, 3, 4]);
        assert_eq!(sliced(&[2], &[1], &[1], PLAIN).shape().dims(), [0, 4]);
    }

    #[test]
    fn slices_with_absurd_numbers_are_errors_or_empty() {
        let far = [i32::MAX, i32::MIN];
        for begin in far {
            for end in far {
                for step in far {
                    let spec = [&ints(&[begin]), &ints(&[end]), &ints(&[step])];
                    drop(strided_slice(&grid(3, 4), spec, PLAIN));
                }
            }
            assert!(slice(&grid(3, 4), &ints(&[begin, 0]), &ints(&[1, 1])).is_err());
        }
        assert!(
            strided_slice(&grid(3, 4), [&ints(&[0]), &ints(&[1]), &ints(&[0])], PLAIN).is_err()
        );
    }

    #[test]
    fn transposing_and_packing_keep_every_element() {
        let turned = transpose(&grid(2, 3), &ints(&[1, 0])).unwrap();
        assert_eq!(values(&turned), [0, 3, 1, 4, 2, 5]);
        assert!(transpose(&grid(2, 3), &ints(&[0, 0])).is_err());
        let rows = unpack(&grid(2, 3), 0, 2).unwrap();
        assert_eq!(pack(&rows.iter().collect::<Vec<_>>(), 0).unwrap(), grid(2, 3));
        assert!(unpack(&grid(2, 3), 0, 3).is_err());
        assert!(split_evenly(&grid(2, 3), 1, 2).is_err());
    }
}

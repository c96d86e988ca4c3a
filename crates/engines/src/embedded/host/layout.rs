//! Operators that only move elements, for every dtype: reshape, slice, gather, tile and their kin.
//!
//! May not know: arithmetic. Invariant: values pass through bit by bit; error texts lead with
//! TensorFlow's words.

use vesta_model::{DType, Shape, Status, Tensor};

use super::elements::{Assembler, Source, axis_of, bounded_shape, integer, integers};

/// A rectangular walk over the elements of a tensor: sizes and strides in elements.
struct Walk {
    dims: Vec<usize>,
    strides: Vec<isize>,
    start: usize,
}

/// Strides of a dense row-major tensor.
fn dense_strides(dims: &[usize]) -> Vec<isize> {
    let mut strides = vec![1isize; dims.len()];
    for axis in (1..dims.len()).rev() {
        strides[axis - 1] = strides[axis] * dims[axis] as isize;
    }
    strides
}

/// Copies the elements of a walk, in order, into a tensor of shape `shape`.
fn walked(input: &Tensor, walk: &Walk, shape: Shape) -> Result<Tensor, Status> {
    let source = Source::of(input)?;
    let mut out = Assembler::new(input.dtype(), shape.elements());
    if !walk.dims.contains(&0) {
        // The longest tail that lies densely in the source is copied as one run.
        let (mut run, mut outer) = (1usize, walk.dims.len());
        while outer > 0 && walk.strides[outer - 1] == run as isize {
            run *= walk.dims[outer - 1];
            outer -= 1;
        }
        let mut position = vec![0usize; outer];
        let mut offset = walk.start as isize;
        'all: loop {
            let start = usize::try_from(offset)
                .map_err(|_| Status::internal("a walk left its tensor at the front"))?;
            out.append(&source, start, run)?;
            let mut axis = outer;
            loop {
                if axis == 0 {
                    break 'all;
                }
                axis -= 1;
                position[axis] += 1;
                offset = offset.wrapping_add(walk.strides[axis]);
                if position[axis] < walk.dims[axis] {
                    break;
                }
                let whole = walk.strides[axis].wrapping_mul(walk.dims[axis] as isize);
                offset = offset.wrapping_sub(whole);
                position[axis] = 0;
            }
        }
    }
    out.finish(input.dtype(), shape)
}

fn product(dims: &[usize]) -> usize {
    dims.iter().product()
}

fn size(value: i64, what: &str) -> Result<usize, Status> {
    usize::try_from(value)
        .map_err(|_| Status::invalid_argument(format!("{what} must be >= 0, but got {value}")))
}

pub(crate) fn reshape(input: &Tensor, shape: &Tensor) -> Result<Tensor, Status> {
    let sizes = integers(shape)?;
    let mut dims = Vec::with_capacity(sizes.len());
    let mut unknown = None;
    for (index, &dim) in sizes.iter().enumerate() {
        match (dim, unknown) {
            (-1, Some(first)) => {
                return Err(Status::invalid_argument(format!(
                    "Only one input size may be -1, not both {first} and {index}"
                )));
            }
            (-1, None) => {
                unknown = Some(index);
                dims.push(1);
            }
            (dim, _) => dims.push(usize::try_from(dim).map_err(|_| {
                Status::invalid_argument(format!("Size {index} must be non-negative, not {dim}"))
            })?),
        }
    }
    let known = Shape::new(dims.clone())?.elements();
    let have = input.shape().elements();
    if let Some(index) = unknown {
        if known == 0 {
            if have != 0 {
                return Err(Status::invalid_argument(
                    "reshape cannot infer the missing input size for an empty tensor unless all \
                     specified input sizes are non-zero",
                ));
            }
            dims[index] = 0;
        } else if have.is_multiple_of(known) {
            dims[index] = have / known;
        } else {
            return Err(Status::invalid_argument(format!(
                "Input to reshape is a tensor with {have} values, but the requested shape \
                 requires a multiple of {known}"
            )));
        }
    } else if known != have {
        return Err(Status::invalid_argument(format!(
            "Input to reshape is a tensor with {have} values, but the requested shape has {known}"
        )));
    }
    input.reshaped(Shape::new(dims)?)
}

pub(crate) fn expand_dims(input: &Tensor, axis: &Tensor) -> Result<Tensor, Status> {
    let axis = integer(axis, "axis")?;
    let rank = input.shape().rank();
    let Some(at) = axis_of(axis, rank + 1) else {
        return Err(Status::invalid_argument(format!(
            "Tried to expand dim index {axis} for tensor with {rank} dimensions."
        )));
    };
    let mut dims = input.shape().dims().to_vec();
    dims.insert(at, 1);
    input.reshaped(Shape::new(dims)?)
}

pub(crate) fn squeeze(input: &Tensor, axes: &[i64]) -> Result<Tensor, Status> {
    let dims = input.shape().dims();
    let mut dropped = vec![axes.is_empty(); dims.len()];
    for &axis in axes {
        let Some(at) = axis_of(axis, dims.len()) else {
            return Err(Status::invalid_argument(format!(
                "Tried to squeeze dim index {axis} for tensor with {} dimensions.",
                dims.len()
            )));
        };
        if dims[at] != 1 {
            return Err(Status::invalid_argument(format!(
                "Can not squeeze dim[{at}], expected a dimension of 1, got {}",
                dims[at]
            )));
        }
        dropped[at] = true;
    }
    let left = dims.iter().zip(dropped).filter(|(dim, drop)| !(**dim == 1 && *drop));
    let left: Vec<usize> = left.map(|(dim, _)| *dim).collect();
    input.reshaped(Shape::new(left)?)
}

pub(crate) fn tile(input: &Tensor, multiples: &Tensor) -> Result<Tensor, Status> {
    let multiples = integers(multiples)?;
    let dims = input.shape().dims();
    if multiples.len() != dims.len() {
        return Err(Status::invalid_argument(format!(
            "Expected multiples argument to be a vector of length {} but got length {}",
            dims.len(),
            multiples.len()
        )));
    }
    let mut times = Vec::with_capacity(dims.len());
    for (index, &multiple) in multiples.iter().enumerate() {
        times.push(usize::try_from(multiple).map_err(|_| {
            Status::invalid_argument(format!(
                "Expected multiples[{index}] >= 0, but got {multiple}"
            ))
        })?);
    }
    let out = dims.iter().zip(&times).map(|(dim, times)| dim.saturating_mul(*times)).collect();
    let shape = bounded_shape(out, input.dtype())?;
    let strides = dense_strides(dims);
    let mut walk = Walk { dims: Vec::new(), strides: Vec::new(), start: 0 };
    for axis in 0..dims.len() {
        walk.dims.extend([times[axis], dims[axis]]);
        walk.strides.extend([0, strides[axis]]);
    }
    walked(input, &walk, shape)
}

pub(crate) fn broadcast_to(input: &Tensor, shape: &Tensor) -> Result<Tensor, Status> {
    let want = integers(shape)?.iter().map(|&dim| size(dim, "shape")).collect::<Result<_, _>>()?;
    let shape = bounded_shape(want, input.dtype())?;
    let dims = input.shape().dims();
    let refused =
        || Status::invalid_argument(format!("Incompatible shapes: {} vs. {shape}", input.shape()));
    let lead = shape.rank().checked_sub(dims.len()).ok_or_else(refused)?;
    let mut strides = vec![0; lead];
    for (axis, stride) in dense_strides(dims).into_iter().enumerate() {
        match (dims[axis], shape.dims()[lead + axis]) {
            (have, want) if have == want => strides.push(stride),
            (1, _) => strides.push(0),
            _ => return Err(refused()),
        }
    }
    walked(input, &Walk { dims: shape.dims().to_vec(), strides, start: 0 }, shape.clone())
}

pub(crate) fn transpose(input: &Tensor, permutation: &Tensor) -> Result<Tensor, Status> {
    let permutation = integers(permutation)?;
    let dims = input.shape().dims();
    let strides = dense_strides(dims);
    let mut seen = vec![false; dims.len()];
    let mut walk = Walk { dims: Vec::new(), strides: Vec::new(), start: 0 };
    for &axis in &permutation {
        let at = axis_of(axis, dims.len()).filter(|&at| !std::mem::replace(&mut seen[at], true));
        let at = at.ok_or_else(|| {
            Status::invalid_argument(format!("{axis} is out of range or twice in a permutation"))
        })?;
        walk.dims.push(dims[at]);
        walk.strides.push(strides[at]);
    }
    if permutation.len() != dims.len() {
        return Err(Status::invalid_argument(format!(
            "transpose expects a vector of size {}. But input(1) is a vector of size {}",
            dims.len(),
            permutation.len()
        )));
    }
    let shape = Shape::new(walk.dims.clone())?;
    walked(input, &walk, shape)
}

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
        let left = have.saturating_sub(begin[axis]);
        let want = if sizes[axis] == -1 { left } else { sizes[axis] };
        let fits = begin[axis] >= 0 && want >= 0 && begin[axis].saturating_add(want) <= have;
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
                "slice index {index} of dimension {axis} out of bounds."
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

pub(crate) fn gather(input: &Tensor, indices: &Tensor, axis: i64) -> Result<Tensor, Status> {
    let dims = input.shape().dims();
    let Some(axis) = axis_of(axis, dims.len()) else {
        return Err(Status::invalid_argument(format!(
            "Expected axis in the range [{}, {}), but got {axis}",
            -(dims.len() as i64),
            dims.len()
        )));
    };
    let (outer, limit, inner) = (product(&dims[..axis]), dims[axis], product(&dims[axis + 1..]));
    let mut out = dims[..axis].to_vec();
    out.extend(indices.shape().dims());
    out.extend(&dims[axis + 1..]);
    let shape = bounded_shape(out, input.dtype())?;
    let positions = integers(indices)?
        .iter()
        .enumerate()
        .map(|(at, &index)| {
            usize::try_from(index).ok().filter(|&index| index < limit).ok_or_else(|| {
                Status::invalid_argument(format!(
                    "indices{} = {index} is not in [0, {limit})",
                    position(indices.shape(), at)
                ))
            })
        })
        .collect::<Result<Vec<usize>, Status>>()?;
    let source = Source::of(input)?;
    let mut assembler = Assembler::new(input.dtype(), shape.elements());
    for block in 0..outer {
        for &at in &positions {
            assembler.append(&source, (block * limit + at) * inner, inner)?;
        }
    }
    assembler.finish(input.dtype(), shape)
}

/// Prints the coordinates of element `at` as TensorFlow does: `[0,2]`.
fn position(shape: &Shape, mut at: usize) -> String {
    let mut coordinates = Vec::with_capacity(shape.rank());
    for &dim in shape.dims().iter().rev() {
        coordinates.push((at % dim.max(1)).to_string());
        at /= dim.max(1);
    }
    coordinates.reverse();
    format!("[{}]", coordinates.join(","))
}

pub(crate) fn concat(inputs: &[&Tensor], axis: i64) -> Result<Tensor, Status> {
    let first = *inputs.first().ok_or_else(|| Status::internal("nothing to concatenate"))?;
    let dims = first.shape().dims();
    let Some(axis) = axis_of(axis, dims.len()) else {
        return Err(Status::invalid_argument(format!(
            "ConcatOp : Expected concatenating dimensions in the range [{}, {}), but got {axis}",
            -(dims.len() as i64),
            dims.len()
        )));
    };
    let mut joined = 0;
    for (at, input) in inputs.iter().enumerate() {
        let other = input.shape().dims();
        if other.len() != dims.len() {
            return Err(Status::invalid_argument(format!(
                "ConcatOp : Ranks of all input tensors should match: shape[0] = {} vs. \
                 shape[{at}] = {}",
                first.shape(),
                input.shape()
            )));
        }
        if let Some(bad) = (0..dims.len()).find(|&d| d != axis && dims[d] != other[d]) {
            return Err(Status::invalid_argument(format!(
                "ConcatOp : Dimension {bad} in both shapes must be equal: shape[0] = {} vs. \
                 shape[{at}] = {}",
                first.shape(),
                input.shape()
            )));
        }
        joined += other[axis];
    }
    let mut out = dims.to_vec();
    out[axis] = joined;
    let shape = bounded_shape(out, first.dtype())?;
    let sources = inputs.iter().map(|input| Source::of(input)).collect::<Result<Vec<_>, _>>()?;
    let mut assembler = Assembler::new(first.dtype(), shape.elements());
    for block in 0..product(&dims[..axis]) {
        for (input, source) in inputs.iter().zip(&sources) {
            let run = product(&input.shape().dims()[axis..]);
            assembler.append(source, block * run, run)?;
        }
    }
    assembler.finish(first.dtype(), shape)
}

pub(crate) fn pack(inputs: &[&Tensor], axis: i64) -> Result<Tensor, Status> {
    let first = *inputs.first().ok_or_else(|| Status::internal("nothing to pack"))?;
    for (at, input) in inputs.iter().enumerate() {
        if input.shape() != first.shape() {
            return Err(Status::invalid_argument(format!(
                "Shapes of all inputs must match: values[0].shape = {} != values[{at}].shape = {}",
                first.shape(),
                input.shape()
            )));
        }
    }
    let mut dims = first.shape().dims().to_vec();
    let at = axis_of(axis, dims.len() + 1).ok_or_else(|| {
        Status::invalid_argument(format!("axis = {axis} not in the rank of the packed tensor"))
    })?;
    dims.insert(at, 1);
    let shape = Shape::new(dims)?;
    let parts =
        inputs.iter().map(|input| input.reshaped(shape.clone())).collect::<Result<Vec<_>, _>>()?;
    concat(&parts.iter().collect::<Vec<_>>(), at as i64)
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

pub(crate) fn fill(dims: &Tensor, value: &Tensor) -> Result<Tensor, Status> {
    if value.shape().rank() != 0 {
        return Err(Status::invalid_argument(format!(
            "value must be a scalar, got shape {}",
            value.shape()
        )));
    }
    broadcast_to(value, dims)
}

/// Zeros (or empty strings) in the shape of `input`.
pub(crate) fn zeros_like(input: &Tensor) -> Result<Tensor, Status> {
    if input.dtype() == DType::String {
        return Err(Status::unimplemented("zeros of strings"));
    }
    Tensor::copied(input.dtype(), input.shape().clone(), &vec![0; input.bytes().len()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use vesta_model::StringsBuilder;

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
    fn gathering_refuses_what_lies_outside() {
        let table = grid(3, 2);
        let out = gather(&table, &ints(&[2, 0]), 0).unwrap();
        assert_eq!(values(&out), [4, 5, 0, 1]);
        assert_eq!(values(&gather(&table, &ints(&[1]), -1).unwrap()), [1, 3, 5]);
        let error = gather(&table, &ints(&[0, -1]), 0).unwrap_err();
        assert_eq!(error.message(), "indices[1] = -1 is not in [0, 3)");
        let error = gather(&table, &ints(&[5]), 0).unwrap_err();
        assert_eq!(error.message(), "indices[0] = 5 is not in [0, 3)");
    }

    #[test]
    fn strings_are_tiled_joined_and_split() {
        let mut words = StringsBuilder::new();
        words.push(b"neg");
        words.push(b"pos");
        let words = Tensor::of_strings(Shape::new(vec![1, 2]).unwrap(), &words).unwrap();
        let tiled = tile(&words, &ints(&[2, 1])).unwrap();
        let texts = tiled.strings().unwrap();
        assert!(texts.iter().eq([&b"neg"[..], b"pos", b"neg", b"pos"]));
        assert_eq!(concat(&[&words, &words], 0).unwrap(), tiled);
        assert_eq!(split(&tiled, 0, &[1, 1]).unwrap()[1], words);
    }

    #[test]
    fn sizes_are_limited_before_memory_is_taken() {
        let error = tile(&grid(2, 2), &ints(&[i32::MAX, i32::MAX])).unwrap_err();
        assert!(error.message().contains("too many") || error.message().contains("more than"));
        assert!(
            fill(&ints(&[i32::MAX, 4]), &Tensor::of(Shape::scalar(), &[0i64]).unwrap()).is_err()
        );
    }

    #[test]
    fn reshaping_tells_what_does_not_fit() {
        let input = grid(1, 3);
        let error = reshape(&input, &ints(&[2, -1])).unwrap_err();
        assert_eq!(
            error.message(),
            "Input to reshape is a tensor with 3 values, but the requested shape requires a \
             multiple of 2"
        );
        assert!(reshape(&input, &ints(&[-1, -1])).is_err());
        assert!(reshape(&input, &ints(&[-3])).is_err());
        assert_eq!(reshape(&input, &ints(&[-1])).unwrap().shape().dims(), [3]);
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

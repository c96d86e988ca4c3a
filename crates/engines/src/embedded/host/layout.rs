//! Operators that only move elements, for every dtype: reshape, gather, tile, join and their kin.
//!
//! May not know: arithmetic. Invariant: values pass through bit by bit; error texts lead with
//! TensorFlow's words.

use vesta_model::{DType, Shape, Status, Tensor};

use super::elements::{Assembler, Source, axis_of, bounded_shape, integer, integers};
use super::walk::{Walk, dense_strides, walked};

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
        let parts = crate::embedded::host::slicing::split(&tiled, 0, &[1, 1]).unwrap();
        assert_eq!(parts[1], words);
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
}

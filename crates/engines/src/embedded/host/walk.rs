//! Walks over the elements of a tensor in another order or with some left out.
//!
//! May not know: operators. Invariant: runs that lie densely in the source are copied as one.

use vesta_model::{Shape, Status, Tensor};

use super::elements::{Assembler, Source};

/// A rectangular walk over the elements of a tensor: sizes and strides in elements.
pub(crate) struct Walk {
    pub(crate) dims: Vec<usize>,
    pub(crate) strides: Vec<isize>,
    pub(crate) start: usize,
}

/// Strides of a dense row-major tensor.
pub(crate) fn dense_strides(dims: &[usize]) -> Vec<isize> {
    let mut strides = vec![1isize; dims.len()];
    for axis in (1..dims.len()).rev() {
        strides[axis - 1] = strides[axis] * dims[axis] as isize;
    }
    strides
}

/// Copies the elements of a walk, in order, into a tensor of shape `shape`.
pub(crate) fn walked(input: &Tensor, walk: &Walk, shape: Shape) -> Result<Tensor, Status> {
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

//! The elements of a tensor in another order of its axes.
//!
//! Owns: the order in which memory is walked, which decides how long the weights of a net take to turn:
//! each line of it is read once. May not know: what the elements are.

/// Elements that lie beside each other in the source and are moved in one go: a line of the cache holds
/// as many of four bytes.
const BLOCK: usize = 16;

/// An axis of the result.
#[derive(Clone, Copy)]
struct Axis {
    size: usize,
    /// Elements from one to the next in the source,
    from: usize,
    /// and in the result.
    to: usize,
}

/// The elements of `bytes`, each `width` long, with axis `permutation[i]` of `dims` as axis `i`;
/// `permutation` is one, and `bytes` as long as the rest says. `None` for a width that no dtype of ONNX has.
pub(crate) fn permuted(
    bytes: &[u8],
    width: usize,
    dims: &[usize],
    permutation: &[usize],
) -> Option<Vec<u8>> {
    let axes = axes(dims, permutation);
    Some(match width {
        1 => walk::<1>(bytes, &axes),
        2 => walk::<2>(bytes, &axes),
        4 => walk::<4>(bytes, &axes),
        8 => walk::<8>(bytes, &axes),
        16 => walk::<16>(bytes, &axes),
        _ => return None,
    })
}

fn axes(dims: &[usize], permutation: &[usize]) -> Vec<Axis> {
    let strides = |sizes: &[usize]| -> Vec<usize> {
        let mut strides = vec![1; sizes.len()];
        for axis in (1..sizes.len()).rev() {
            strides[axis - 1] = strides[axis] * sizes[axis];
        }
        strides
    };
    let sizes: Vec<usize> = permutation.iter().map(|&axis| dims[axis]).collect();
    let (from, to) = (strides(dims), strides(&sizes));
    let axes = permutation.iter().zip(sizes).zip(to);
    axes.map(|((&axis, size), to)| Axis { size, from: from[axis], to }).collect()
}

fn walk<const WIDTH: usize>(bytes: &[u8], axes: &[Axis]) -> Vec<u8> {
    let (source, _) = bytes.as_chunks::<WIDTH>();
    let mut result = vec![[0u8; WIDTH]; source.len()];
    // The axis along which the source is read; those of one element go nowhere.
    let near = axes.iter().position(|axis| axis.from == 1 && axis.size > 1);
    let near_axis = near.map_or(Axis { size: 1, from: 1, to: 1 }, |near| axes[near]);
    let others: Vec<Axis> = axes
        .iter()
        .enumerate()
        .filter(|&(index, axis)| Some(index) != near && axis.size != 1)
        .map(|(_, axis)| *axis)
        .collect();
    if source.is_empty() {
        return Vec::new();
    }
    // A row that is one in the result, too, is moved whole.
    let block = if near_axis.to == 1 { near_axis.size } else { BLOCK };
    for first in (0..near_axis.size).step_by(block) {
        let count = block.min(near_axis.size - first);
        each_place(&others, &mut |from, to| {
            let read = &source[from + first..][..count];
            let written = &mut result[to + first * near_axis.to..];
            if near_axis.to == 1 {
                written[..count].copy_from_slice(read);
            } else {
                for (element, place) in read.iter().zip(written.iter_mut().step_by(near_axis.to)) {
                    *place = *element;
                }
            }
        });
    }
    result.into_flattened()
}

/// Every place of these axes, in the order of the result: where it is in the source and in the result.
fn each_place(axes: &[Axis], see: &mut impl FnMut(usize, usize)) {
    let mut index = vec![0usize; axes.len()];
    let (mut from, mut to) = (0, 0);
    loop {
        see(from, to);
        let mut turning = axes.len();
        loop {
            let Some(axis) = turning.checked_sub(1) else { return };
            turning = axis;
            let Axis { size, from: step, to: stride } = axes[axis];
            index[axis] += 1;
            if index[axis] < size {
                from += step;
                to += stride;
                break;
            }
            index[axis] = 0;
            from -= step * (size - 1);
            to -= stride * (size - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Element by element.
    fn plainly(bytes: &[u8], width: usize, dims: &[usize], permutation: &[usize]) -> Vec<u8> {
        let axes = axes(dims, permutation);
        let count = dims.iter().product::<usize>();
        let of = |place: usize| {
            let mut rest = place;
            axes.iter()
                .map(|axis| {
                    let at = rest / axis.to;
                    rest %= axis.to;
                    at * axis.from
                })
                .sum::<usize>()
        };
        (0..count).flat_map(|place| bytes[of(place) * width..][..width].to_vec()).collect()
    }

    proptest! {
        #[test]
        fn every_element_goes_where_it_belongs(
            (dims, permutation) in prop::collection::vec(0usize..20, 0..5)
                .prop_filter("small", |dims| dims.iter().product::<usize>() < 20_000)
                .prop_flat_map(|dims| {
                    let axes: Vec<usize> = (0..dims.len()).collect();
                    (Just(dims), Just(axes).prop_shuffle())
                }),
            width in prop::sample::select(vec![1usize, 2, 4, 8, 16]),
        ) {
            let count = dims.iter().product::<usize>() * width;
            let bytes: Vec<u8> = (0..count).map(|at| (at * 31 % 251) as u8).collect();
            let got = permuted(&bytes, width, &dims, &permutation);
            prop_assert_eq!(got, Some(plainly(&bytes, width, &dims, &permutation)));
        }
    }
}

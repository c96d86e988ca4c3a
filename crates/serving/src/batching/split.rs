//! The outputs of a batch become those of its requests, and those of pieces one again. Pure.
//!
//! Owns the original's checks of outputs. Invariant: each request gets the rows of its own inputs;
//! rows of padding go to nobody.

use std::sync::Arc;

use vesta_model::{AlignedBytes, DType, Shape, Status, StringsBuilder, Tensor};

use crate::texts;

/// The outputs of each of `sizes` rows out of those of a batch that was run with `rows` rows, which
/// are those of all sizes and of padding.
///
/// # Errors
/// `FAILED_PRECONDITION` when an output has not a row for each row of the inputs.
pub(crate) fn split(
    outputs: &[Tensor],
    rows: usize,
    sizes: &[usize],
) -> Result<Vec<Vec<Tensor>>, Status> {
    for output in outputs {
        match output.shape().dims().first() {
            None => return Err(texts::batch_output_is_scalar()),
            Some(&first) if first != rows => return Err(texts::batch_output_of_other_rows()),
            Some(_) => {}
        }
    }
    let mut start = 0;
    let mut parts = Vec::with_capacity(sizes.len());
    for &size in sizes {
        let part = start..start + size;
        start += size;
        parts.push(
            outputs.iter().map(|output| output.rows(part.clone())).collect::<Result<_, _>>()?,
        );
    }
    Ok(parts)
}

/// The outputs of a request out of those of its pieces, in the order of their rows.
///
/// # Errors
/// `FAILED_PRECONDITION` when their shapes do not fit together.
pub(crate) fn put_together(mut parts: Vec<Vec<Tensor>>) -> Result<Vec<Tensor>, Status> {
    if parts.len() == 1 {
        return Ok(parts.swap_remove(0));
    }
    let count = parts.first().map_or(0, Vec::len);
    (0..count)
        .map(|index| {
            let tensors: Vec<&Tensor> = parts.iter().filter_map(|part| part.get(index)).collect();
            concatenated(&tensors)
        })
        .collect()
}

fn concatenated(tensors: &[&Tensor]) -> Result<Tensor, Status> {
    let Some(first) = tensors.first() else { return Err(texts::pieces_do_not_fit()) };
    let tail = first.shape().dims().get(1..).ok_or_else(texts::pieces_do_not_fit)?;
    let fits = |tensor: &&Tensor| {
        tensor.dtype() == first.dtype() && tensor.shape().dims().get(1..) == Some(tail)
    };
    if !tensors.iter().all(fits) {
        return Err(texts::pieces_do_not_fit());
    }
    let rows = tensors.iter().filter_map(|tensor| tensor.shape().dims().first()).sum();
    let dims: Vec<usize> = std::iter::once(rows).chain(tail.iter().copied()).collect();
    let shape = Shape::new(dims)?;
    if first.dtype() == DType::String {
        let mut strings = StringsBuilder::new();
        for tensor in tensors.iter().filter_map(|tensor| tensor.strings()) {
            tensor.iter().for_each(|text| strings.push(text));
        }
        return Tensor::of_strings(shape, &strings);
    }
    let bytes = tensors.iter().map(|tensor| tensor.bytes().len()).sum();
    let mut memory = AlignedBytes::zeroed(bytes);
    let mut rest = memory.bytes_mut();
    for tensor in tensors {
        let (place, after) = rest.split_at_mut(tensor.bytes().len());
        place.copy_from_slice(tensor.bytes());
        rest = after;
    }
    Tensor::whole(first.dtype(), shape, Arc::new(memory))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matrix(rows: usize, columns: usize, first: i32) -> Tensor {
        let values: Vec<i32> = (first..first + (rows * columns) as i32).collect();
        Tensor::of(Shape::new(vec![rows, columns]).unwrap(), &values).unwrap()
    }

    #[test]
    fn outputs_are_checked_as_the_original_does() {
        let scalar = Tensor::of(Shape::scalar(), &[1f32]).unwrap();
        assert_eq!(
            split(&[scalar], 2, &[2]),
            Err(Status::failed_precondition("Batched output tensor has 0 dimensions"))
        );
        assert_eq!(
            split(&[matrix(3, 1, 0)], 2, &[2]),
            Err(Status::failed_precondition(
                "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension \
                 sizes of the input tensors"
            ))
        );
    }

    #[test]
    fn pieces_of_other_shapes_cannot_be_put_together() {
        let parts = vec![vec![matrix(1, 2, 0)], vec![matrix(1, 3, 0)]];
        assert_eq!(put_together(parts), Err(texts::pieces_do_not_fit()));
    }

    proptest! {
        #[test]
        fn parts_put_together_are_the_whole(
            sizes in prop::collection::vec(0usize..4, 1..6), columns in 0usize..3, padding in 0usize..3
        ) {
            let rows: usize = sizes.iter().sum();
            let whole = matrix(rows + padding, columns, 7);
            let mut texts = StringsBuilder::new();
            (0..rows + padding).for_each(|row| texts.push(format!("{row}").as_bytes()));
            let texts = Tensor::of_strings(Shape::vector(rows + padding), &texts).unwrap();
            let outputs = [whole.clone(), texts.clone()];
            let parts = split(&outputs, rows + padding, &sizes).unwrap();
            for (part, &size) in parts.iter().zip(&sizes) {
                prop_assert!(part.iter().all(|tensor| tensor.shape().dims()[0] == size));
            }
            let wanted = vec![whole.rows(0..rows).unwrap(), texts.rows(0..rows).unwrap()];
            prop_assert_eq!(put_together(parts).unwrap(), wanted);
        }
    }
}

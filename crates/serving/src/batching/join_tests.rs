//! Joins against an obvious reference: row by row, element by element.

use proptest::prelude::*;
use vesta_model::{AlignedBytes, Code, Memory, StringsBuilder};

use super::*;

fn shape(dims: &[usize]) -> Shape {
    Shape::new(dims.to_vec()).unwrap()
}

fn numbers(dims: &[usize], first: i32) -> Tensor {
    let shape = shape(dims);
    let values: Vec<i32> = (first..).take(shape.elements()).collect();
    Tensor::of(shape, &values).unwrap()
}

fn words(dims: &[usize], first: i32) -> Tensor {
    let shape = shape(dims);
    let mut builder = StringsBuilder::new();
    (first..)
        .take(shape.elements())
        .for_each(|n| builder.push("ab".repeat(n as usize % 5).as_bytes()));
    Tensor::of_strings(shape, &builder).unwrap()
}

fn whole(tensor: &Tensor) -> Rows<'_> {
    Rows { tensor, rows: 0..tensor.shape().dims()[0] }
}

fn joined(parts: Vec<Rows<'_>>, padding: usize, pads: bool) -> Result<Tensor, Status> {
    let dtype = parts[0].tensor.dtype();
    let joint = Joint::plan("x:0", parts, padding, pads)?;
    let InputLayout { shape, string_bytes } = joint.layout.clone();
    let bytes = match dtype.width() {
        Some(width) => shape.bytes(width)?,
        None => strings_byte_len(shape.elements(), string_bytes).unwrap(),
    };
    let mut memory = AlignedBytes::zeroed(bytes);
    // What is not written shows.
    memory.bytes_mut().fill(0xee);
    joint.write(memory.bytes_mut())?;
    assert!(joint.write(&mut vec![0; bytes + 1]).is_err());
    Tensor::copied(dtype, shape, memory.bytes())
}

#[test]
fn shapes_that_differ_are_refused_with_the_originals_text() {
    let (a, b) = (numbers(&[1, 2], 0), numbers(&[1, 3], 0));
    assert_eq!(
        joined(vec![whole(&a), whole(&b)], 0, false),
        Err(Status::failed_precondition(
            "Tensors with name 'x:0' from different tasks have different shapes and padding is \
             turned off. Set pad_variable_length_inputs to true, or ensure that all tensors with \
             the same name have equal dimensions starting with the first dim."
        ))
    );
}

#[test]
fn a_tensor_is_filled_up_with_its_own_first_element() {
    let (a, b) = (numbers(&[1, 2], 5), numbers(&[2, 3], 10));
    let batch = joined(vec![whole(&a), whole(&b)], 0, true).unwrap();
    assert_eq!(batch.shape().dims(), [3, 3]);
    assert_eq!(batch.to_vec::<i32>().unwrap(), [5, 6, 5, 10, 11, 12, 13, 14, 15]);
    let (a, b) = (words(&[1, 1], 1), words(&[1, 2], 2));
    let batch = joined(vec![whole(&a), whole(&b)], 0, true).unwrap();
    let strings = batch.strings().unwrap();
    assert!(strings.iter().eq([&b"ab"[..], b"ab", b"abab", b"ababab"]));
}

#[test]
fn a_batch_is_filled_up_with_the_first_row_of_the_last_request() {
    let (a, b) = (numbers(&[2, 2], 0), numbers(&[2, 2], 10));
    let batch = joined(vec![whole(&a), whole(&b)], 2, false).unwrap();
    assert_eq!(batch.to_vec::<i32>().unwrap()[8..], [10, 11, 10, 11]);
    let none = numbers(&[0, 2], 0);
    let batch = joined(vec![whole(&a), whole(&none)], 1, false).unwrap();
    assert_eq!(batch.to_vec::<i32>().unwrap(), [0, 1, 2, 3, 0, 1]);
    let batch = joined(vec![whole(&none)], 3, false).unwrap();
    assert_eq!(batch.shape().dims(), [0, 2], "there is no row to copy");
}

#[test]
fn what_cannot_be_padded_is_refused() {
    let code = |a: &Tensor, b: &Tensor| joined(vec![whole(a), whole(b)], 0, true).unwrap_err();
    let empty = numbers(&[1, 0], 0);
    assert_eq!(
        code(&numbers(&[1, 2], 0), &empty),
        Status::invalid_argument("Got empty tensor in batch of non-empty tensors.")
    );
    let rank = code(&numbers(&[1, 2], 0), &numbers(&[1, 2, 2], 0));
    assert_eq!(rank.code(), Code::FailedPrecondition);
    let deep = [1; 7];
    let mut deeper = deep;
    deeper[6] = 2;
    assert_eq!(
        code(&numbers(&deep, 0), &numbers(&deeper, 0)),
        Status::invalid_argument("Only tensors with rank from 1 to 6 can be padded.")
    );
}

#[test]
fn padding_cannot_ask_for_the_memory_of_a_product() {
    let (long, wide) = (numbers(&[1, 1 << 16, 1], 0), numbers(&[1, 1, 1 << 16], 0));
    let status = joined(vec![whole(&long), whole(&wide)], 0, true).unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    let row = numbers(&[1, 1 << 16], 0);
    let status = joined(vec![whole(&row)], 1 << 20, false).unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
}

/// The element of the batch at `place`, of the part with these rows.
fn expected(part: &Rows<'_>, row: usize, place: &[usize]) -> usize {
    let dims = part.tensor.shape().dims();
    let is_own = place.iter().zip(&dims[1..]).all(|(at, size)| at < size);
    let mut index = if is_own { row } else { part.rows.start };
    for (at, size) in place.iter().zip(&dims[1..]) {
        index = index * size + if is_own { *at } else { 0 };
    }
    index
}

proptest! {
    #[test]
    fn joins_are_what_an_obvious_loop_gives(
        parts in prop::collection::vec((0usize..4, prop::collection::vec(1usize..4, 2)), 1..5),
        cut in 0usize..3,
        padding in 0usize..3,
        strings in any::<bool>(),
    ) {
        let tensors: Vec<Tensor> = parts
            .iter()
            .enumerate()
            .map(|(index, (rows, tail))| {
                let dims: Vec<usize> = std::iter::once(*rows).chain(tail.iter().copied()).collect();
                let first = index as i32 * 100;
                if strings { words(&dims, first) } else { numbers(&dims, first) }
            })
            .collect();
        let rows_of: Vec<Rows<'_>> = tensors
            .iter()
            .map(|tensor| {
                let rows = tensor.shape().dims()[0];
                Rows { tensor, rows: cut.min(rows)..rows }
            })
            .collect();
        let batch = joined(rows_of.clone(), padding, true).unwrap();

        let tail: Vec<usize> =
            (0..2).map(|d| parts.iter().map(|(_, tail)| tail[d]).max().unwrap()).collect();
        let mut rows: Vec<(usize, usize)> = Vec::new();
        for (index, part) in rows_of.iter().enumerate() {
            rows.extend(part.rows.clone().map(|row| (index, row)));
        }
        if let Some(last) = rows_of.iter().rposition(|part| !part.rows.is_empty()) {
            rows.extend(std::iter::repeat_n((last, rows_of[last].rows.start), padding));
        }
        prop_assert_eq!(batch.shape().dims(), &[rows.len(), tail[0], tail[1]][..]);
        let mut at = 0;
        for (index, row) in rows {
            for i in 0..tail[0] {
                for j in 0..tail[1] {
                    let own = expected(&rows_of[index], row, &[i, j]);
                    if strings {
                        let (got, want) = (batch.strings().unwrap(), tensors[index].strings().unwrap());
                        prop_assert_eq!(got.get(at), want.get(own));
                    } else {
                        let (got, want) =
                            (batch.to_vec::<i32>().unwrap(), tensors[index].to_vec::<i32>().unwrap());
                        prop_assert_eq!(got[at], want[own]);
                    }
                    at += 1;
                }
            }
        }
    }
}

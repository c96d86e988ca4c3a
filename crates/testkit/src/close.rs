//! Comparison of tensors that allows for rounding. Owns the tolerance and a readable difference.

use half::{bf16, f16};
use vesta_model::{DType, Tensor};

/// Whether `got` is `want` up to rounding: for floating dtypes each element within
/// `atol + rtol * |want|`, NaN equal to NaN, infinities equal by sign; for others exactly.
///
/// # Errors
/// The first difference, the largest one and how many there are, for people.
pub fn tensors_close(got: &Tensor, want: &Tensor, rtol: f64, atol: f64) -> Result<(), String> {
    if got.dtype() != want.dtype() || got.shape() != want.shape() {
        return Err(format!(
            "got {} {}, want {} {}",
            got.dtype(),
            got.shape(),
            want.dtype(),
            want.shape()
        ));
    }
    // The same bytes are the same elements, NaN too: large tensors mostly are, and a test's own build is slow.
    if got == want {
        return Ok(());
    }
    let (Some(got_values), Some(want_values)) = (floats(got), floats(want)) else {
        return exact(got, want);
    };
    let mut first = None;
    let mut largest = (0.0f64, 0usize);
    let mut count = 0usize;
    for (index, (&g, &w)) in got_values.iter().zip(&want_values).enumerate() {
        if is_close(g, w, rtol, atol) {
            continue;
        }
        count += 1;
        first.get_or_insert(index);
        let off = (g - w).abs();
        if off > largest.0 || off.is_nan() {
            largest = (off, index);
        }
    }
    let Some(first) = first else { return Ok(()) };
    let at = |index: usize| {
        format!(
            "at {:?} got {}, want {}",
            position(index, want.shape().dims()),
            got_values[index],
            want_values[index]
        )
    };
    Err(format!(
        "{count} of {} elements of {} {} differ; first {}; largest by {:e} {}",
        want_values.len(),
        want.dtype(),
        want.shape(),
        at(first),
        largest.0,
        at(largest.1)
    ))
}

fn is_close(got: f64, want: f64, rtol: f64, atol: f64) -> bool {
    if got.is_nan() || want.is_nan() {
        return got.is_nan() && want.is_nan();
    }
    got == want || (got.is_finite() && (got - want).abs() <= atol + rtol * want.abs())
}

fn exact(got: &Tensor, want: &Tensor) -> Result<(), String> {
    if let (Some(got), Some(want)) = (got.strings(), want.strings()) {
        let index = got.iter().zip(want.iter()).position(|(g, w)| g != w).unwrap_or_default();
        let text =
            |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
        return Err(format!(
            "string {index} is {:?}, want {:?}",
            text(got.get(index)),
            text(want.get(index))
        ));
    }
    let width = want.dtype().width().unwrap_or(1);
    let index = got.bytes().iter().zip(want.bytes()).position(|(g, w)| g != w).unwrap_or_default();
    Err(format!(
        "elements of {} {} differ, first at {:?}",
        want.dtype(),
        want.shape(),
        position(index / width, want.shape().dims())
    ))
}

/// The elements of a floating tensor.
fn floats(tensor: &Tensor) -> Option<Vec<f64>> {
    let halves = |read: fn([u8; 2]) -> f64| {
        tensor.bytes().chunks_exact(2).map(|pair| read([pair[0], pair[1]])).collect()
    };
    match tensor.dtype() {
        DType::F32 => Some(tensor.to_vec::<f32>()?.into_iter().map(f64::from).collect()),
        DType::F64 => tensor.to_vec::<f64>(),
        DType::F16 => Some(halves(|pair| f16::from_le_bytes(pair).to_f64())),
        DType::BF16 => Some(halves(|pair| bf16::from_le_bytes(pair).to_f64())),
        _ => None,
    }
}

/// Indices of the element at `index` in row-major order.
fn position(mut index: usize, dims: &[usize]) -> Vec<usize> {
    let mut indices: Vec<usize> = dims
        .iter()
        .rev()
        .map(|&dim| {
            let dim = dim.max(1);
            let here = index % dim;
            index /= dim;
            here
        })
        .collect();
    indices.reverse();
    indices
}

#[cfg(test)]
mod tests {
    use super::*;
    use vesta_model::{Shape, StringsBuilder};

    fn floats_of(values: &[f32]) -> Tensor {
        Tensor::of(Shape::new(vec![1, values.len()]).unwrap(), values).unwrap()
    }

    #[test]
    fn rounding_is_allowed_and_more_is_told() {
        let want = floats_of(&[1.0, 100.0, f32::NAN, f32::INFINITY]);
        let near = floats_of(&[1.0000001, 100.0001, f32::NAN, f32::INFINITY]);
        assert_eq!(tensors_close(&near, &want, 1e-5, 0.0), Ok(()));
        let off = floats_of(&[1.0, 101.0, 3.0, f32::NEG_INFINITY]);
        let text = tensors_close(&off, &want, 1e-5, 0.0).unwrap_err();
        assert!(text.contains("3 of 4") && text.contains("[0, 1] got 101, want 100"), "{text}");
    }

    #[test]
    fn halves_shapes_and_dtypes() {
        let half = |v: f32| {
            Tensor::copied(DType::F16, Shape::scalar(), &f16::from_f32(v).to_le_bytes()).unwrap()
        };
        assert!(tensors_close(&half(1.0), &half(1.001), 1e-2, 0.0).is_ok());
        assert!(tensors_close(&half(1.0), &half(2.0), 1e-2, 0.0).is_err());
        assert!(tensors_close(&half(1.0), &floats_of(&[1.0]), 1.0, 1.0).is_err());
    }

    #[test]
    fn others_are_exact() {
        let ints = |v: [i64; 2]| Tensor::of(Shape::vector(2), &v).unwrap();
        assert!(tensors_close(&ints([1, 2]), &ints([1, 2]), 0.0, 0.0).is_ok());
        let text = tensors_close(&ints([1, 3]), &ints([1, 2]), 1.0, 1.0).unwrap_err();
        assert!(text.contains("[1]"), "{text}");
        let strings = |text: &[u8]| {
            let mut builder = StringsBuilder::new();
            builder.push(text);
            Tensor::of_strings(Shape::vector(1), &builder).unwrap()
        };
        assert!(tensors_close(&strings(b"a"), &strings(b"b"), 1.0, 1.0).is_err());
    }
}

//! Whether two engines gave the same answer.
//!
//! Owns: the tolerance of each dtype. May not know: which engines, which model.
//! Invariant: what is not a number on one side alone, another shape or another dtype is a difference,
//! however large the tolerance.

use half::{bf16, f16};
use vesta_model::{DType, Status, Tensor};

use super::detections;

/// How far the outputs of a run are from those of the reference: the largest difference of any element
/// of a floating output, as a part of the largest magnitude that the reference has in that output; 0
/// for all else. `names` are the outputs' own.
///
/// # Errors
/// The output that differs, and how, in words.
pub(crate) fn compare(got: &[Tensor], want: &[Tensor], names: &[String]) -> Result<f64, String> {
    if got.len() != want.len() {
        return Err(format!("it gives {} outputs, not {}", got.len(), want.len()));
    }
    let mut error = 0.0f64;
    let mut differing = Vec::new();
    for (index, (got, want)) in got.iter().zip(want).enumerate() {
        let name = names.get(index).map_or("", String::as_str);
        if got.dtype() != want.dtype() || got.shape() != want.shape() {
            return Err(format!(
                "output {name} is {} {}, not {} {}",
                got.dtype(),
                got.shape(),
                want.dtype(),
                want.shape()
            ));
        }
        let difference = Difference::of(got, want);
        if difference.is_within() {
            error = error.max(difference.relative);
        } else {
            differing.push((index, format!("output {name} differs by {difference}")));
        }
    }
    let Some((_, first)) = differing.first() else { return Ok(error) };
    // Rows of detections may come in another order.
    let indices: Vec<usize> = differing.iter().map(|(index, _)| *index).collect();
    match detections::compare(got, want, names, &indices) {
        Some(of_rows) => Ok(error.max(of_rows)),
        None => Err(first.clone()),
    }
}

/// What an engine says of one run: its outputs, or what it has against the inputs.
pub(super) type Answer = Result<Vec<Tensor>, Status>;

/// As [`compare`], of answers that may be refusals; `None` where both engines refuse.
///
/// # Errors
/// How they differ, in words.
pub(super) fn compare_answers(
    got: &Answer,
    want: &Answer,
    names: &[String],
) -> Result<Option<f64>, String> {
    match (got, want) {
        (Ok(got), Ok(want)) => compare(got, want, names).map(Some),
        (Err(_), Err(_)) => Ok(None),
        (Ok(_), Err(status)) => Err(format!("it answers what the reference refuses ({status})")),
        (Err(status), Ok(_)) => Err(format!("it refuses what the reference answers ({status})")),
    }
}

/// How far one tensor is from another of the same dtype and shape.
struct Difference {
    relative: f64,
    tolerance: f64,
}

impl Difference {
    fn of(got: &Tensor, want: &Tensor) -> Difference {
        let tolerance = tolerance(want.dtype());
        let (Some(got), Some(want)) = (floats(got), floats(want)) else {
            let relative = if got == want { 0.0 } else { f64::INFINITY };
            return Difference { relative, tolerance };
        };
        let scale = scale(&want);
        let apart = got.iter().zip(&want).map(|(&got, &want)| distance(got, want, scale));
        Difference { relative: apart.fold(0.0, f64::max), tolerance }
    }

    fn is_within(&self) -> bool {
        self.relative <= self.tolerance
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.relative {
            // Numbers that may not differ at all, or something that is no number.
            far if far.is_infinite() => f.write_str("more than rounding"),
            part => write!(f, "{part:.1e} of its largest, {:.0e} is allowed", self.tolerance),
        }
    }
}

/// The largest part of an output's scale that an element may be off by. Whole numbers and strings may
/// not be off at all.
pub(super) fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F32 | DType::Complex64 => 1e-4,
        DType::F64 | DType::Complex128 => 1e-9,
        // A few units in the last place, since sums are rounded in another order.
        DType::F16 => 5e-3,
        DType::BF16 => 4e-2,
        _ => 0.0,
    }
}

/// The largest finite magnitude; 1 where there is none, so that zeros are compared as they are.
pub(super) fn scale(values: &[f64]) -> f64 {
    let finite = values.iter().map(|value| value.abs()).filter(|value| value.is_finite());
    match finite.fold(0.0, f64::max) {
        0.0 => 1.0,
        largest => largest,
    }
}

/// How far apart two elements are, as a part of `scale`.
pub(super) fn distance(got: f64, want: f64, scale: f64) -> f64 {
    if got == want || (got.is_nan() && want.is_nan()) {
        return 0.0;
    }
    let apart = (got - want).abs() / scale;
    if apart.is_finite() { apart } else { f64::INFINITY }
}

/// The elements of a floating tensor; of complex ones both parts in turn.
pub(super) fn floats(tensor: &Tensor) -> Option<Vec<f64>> {
    let bytes = tensor.bytes();
    let singles = || chunks(bytes, |b: [u8; 4]| f64::from(f32::from_le_bytes(b)));
    let doubles = || chunks(bytes, f64::from_le_bytes);
    match tensor.dtype() {
        DType::F32 | DType::Complex64 => Some(singles()),
        DType::F64 | DType::Complex128 => Some(doubles()),
        DType::F16 => Some(chunks(bytes, |b: [u8; 2]| f16::from_le_bytes(b).to_f64())),
        DType::BF16 => Some(chunks(bytes, |b: [u8; 2]| bf16::from_le_bytes(b).to_f64())),
        _ => None,
    }
}

/// Each whole chunk of `N` bytes, read.
pub(super) fn chunks<const N: usize, T>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    let whole = bytes.chunks_exact(N);
    whole.filter_map(|chunk| chunk.try_into().ok()).map(read).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vesta_model::{Element, Shape, StringsBuilder};

    use super::*;

    fn vector<T: Element>(values: &[T]) -> Tensor {
        Tensor::of(Shape::vector(values.len()), values).unwrap()
    }

    fn compare_one(got: Tensor, want: Tensor) -> Result<f64, String> {
        compare(&[got], &[want], &["y".to_owned()])
    }

    #[test]
    fn rounding_is_told_and_more_is_refused() {
        let want = vector(&[1.0f32, -200.0, 0.0]);
        let near = compare_one(vector(&[1.01f32, -200.0, 0.0]), want.clone()).unwrap();
        assert!((near - 0.01 / 200.0).abs() < 1e-6, "{near}");
        let far = compare_one(vector(&[1.1f32, -200.0, 0.0]), want.clone()).unwrap_err();
        assert_eq!(far, "output y differs by 5.0e-4 of its largest, 1e-4 is allowed");
        assert_eq!(compare_one(want.clone(), want), Ok(0.0));
    }

    #[test]
    fn what_is_no_number_must_be_none_on_both_sides() {
        let odd = vector(&[f32::NAN, f32::INFINITY, 1.0]);
        assert_eq!(compare_one(odd.clone(), odd.clone()), Ok(0.0));
        for other in [[0.0, f32::INFINITY, 1.0], [f32::NAN, f32::NEG_INFINITY, 1.0]] {
            assert!(compare_one(vector(&other), odd.clone()).is_err());
            assert!(compare_one(odd.clone(), vector(&other)).is_err());
        }
    }

    #[test]
    fn whole_numbers_strings_shapes_and_dtypes_are_exact() {
        assert_eq!(compare_one(vector(&[1i64, 2]), vector(&[1i64, 2])), Ok(0.0));
        let text = compare_one(vector(&[1i64, 3]), vector(&[1i64, 2])).unwrap_err();
        assert_eq!(text, "output y differs by more than rounding");
        assert!(
            compare_one(vector(&[1i32]), vector(&[1i64])).unwrap_err().contains("is int32 [1]")
        );
        assert!(compare_one(vector(&[1i32]), vector(&[1i32, 1])).is_err());
        assert!(compare(&[], &[vector(&[1i32])], &[]).is_err());
        let strings = |text: &[u8]| {
            let mut builder = StringsBuilder::new();
            builder.push(text);
            Tensor::of_strings(Shape::vector(1), &builder).unwrap()
        };
        assert_eq!(compare_one(strings(b"a"), strings(b"a")), Ok(0.0));
        assert!(compare_one(strings(b"a"), strings(b"b")).is_err());
    }

    #[test]
    fn each_float_has_its_own_tolerance() {
        let half = |value: f32| {
            let bytes = f16::from_f32(value).to_le_bytes();
            Tensor::copied(DType::F16, Shape::scalar(), &bytes).unwrap()
        };
        assert!(compare_one(half(1.0), half(1.002)).is_ok());
        assert!(compare_one(half(1.0), half(1.1)).is_err());
        let double = |value: f64| vector(&[value]);
        assert!(compare_one(double(1.0), double(1.0 + 1e-12)).is_ok());
        assert!(compare_one(double(1.0), double(1.0 + 1e-6)).is_err());
    }

    proptest! {
        #[test]
        fn any_answer_agrees_with_itself(values in prop::collection::vec(any::<f32>(), 0..40)) {
            prop_assert_eq!(compare_one(vector(&values), vector(&values)), Ok(0.0));
        }

        #[test]
        fn one_element_that_is_far_off_is_found(
            values in prop::collection::vec(-1e3f32..1e3, 1..40), at in any::<prop::sample::Index>()
        ) {
            let mut other = values.clone();
            let largest = values.iter().fold(1e-3f32, |most, value| most.max(value.abs()));
            let at = at.index(values.len());
            other[at] += largest * 0.01;
            prop_assert!(compare_one(vector(&other), vector(&values)).is_err());
        }
    }
}

//! Detections compared as sets: rows that tie in their score come in another order on each engine.
//!
//! Owns: what looks like detections, and which rows belong together. May not know: any engine.
//! Invariant: each row of one side is matched by one row of the other; outputs that do not look like
//! detections are never compared in this way.

use vesta_model::{DType, Tensor};

use super::compare::{chunks, distance, floats, scale, tolerance};

/// More rows than this are not matched, since that takes their square.
const ROWS_MAX: usize = 2_000;

/// Columns of one output that holds whole detections: a box, a score, a class, and a batch's number.
const WHOLE_ROWS: [usize; 2] = [6, 7];

/// Part of the names of outputs that the best rows are chosen by.
const SCORE: &str = "score";

/// Parts of the names of outputs that hold a set.
const NAMES: [&str; 2] = ["box", "detection"];

/// The largest difference between rows that match, where all outputs in `differing` are detections of
/// one set and every row has its match. Of rows that tie where the set ends each engine may have taken
/// others.
pub(super) fn compare(
    got: &[Tensor],
    want: &[Tensor],
    names: &[String],
    differing: &[usize],
) -> Option<f64> {
    let lead = lead_of(want, names, differing)?;
    let members: Vec<usize> = (0..want.len()).filter(|&i| belongs(&want[i], &lead)).collect();
    if !differing.iter().all(|index| members.contains(index)) {
        return None;
    }
    let rows = *lead.last()?;
    let batches = lead[..lead.len() - 1].iter().product::<usize>();
    if rows > ROWS_MAX {
        return None;
    }
    let columns: Vec<Column> = members
        .iter()
        .map(|&i| Column::new(&got[i], &want[i], rows * batches))
        .collect::<Option<_>>()?;
    let is_score = |&i: &usize| names.get(i).is_some_and(|it| it.to_lowercase().contains(SCORE));
    let scores = members.iter().position(is_score).map(|at| &columns[at]);
    let scores = scores.filter(|column| column.width == 1);
    let mut error = 0.0f64;
    for batch in 0..batches {
        let mut free: Vec<usize> = (batch * rows..(batch + 1) * rows).collect();
        let mut unmatched = Vec::new();
        for row in batch * rows..(batch + 1) * rows {
            let found = free.iter().enumerate().find_map(|(at, &candidate)| {
                Some((at, distance_of_rows(&columns, candidate, row)?))
            });
            match found {
                Some((at, apart)) => {
                    free.swap_remove(at);
                    error = error.max(apart);
                }
                None => unmatched.push(row),
            }
        }
        if !unmatched.is_empty() {
            error = error.max(tied_at_the_end(
                scores?,
                batch * rows..(batch + 1) * rows,
                &free,
                &unmatched,
            )?);
        }
    }
    Some(error)
}

/// How far the scores of rows without a match are from the lowest of their side, and these from each other,
/// where that is no more than rounding: the set ends among equals. A set that is filled up with zeros
/// does not end there.
fn tied_at_the_end(
    scores: &Column,
    rows: std::ops::Range<usize>,
    got: &[usize],
    want: &[usize],
) -> Option<f64> {
    let lowest = |values: &[f64]| {
        Some(values.get(rows.clone())?.iter().copied().fold(f64::INFINITY, f64::min))
    };
    let ends = [lowest(&scores.got)?, lowest(&scores.want)?];
    if ends.contains(&0.0) {
        return None;
    }
    let mut error = distance(ends[0], ends[1], scores.scale);
    for ((values, unmatched), lowest) in
        [(&scores.got, got), (&scores.want, want)].into_iter().zip(ends)
    {
        for &row in unmatched {
            error = error.max(distance(*values.get(row)?, lowest, scores.scale));
        }
    }
    (error <= scores.tolerance).then_some(error)
}

/// The sizes that all outputs of a set of detections begin with: batches, where there are any, and
/// rows.
fn lead_of(outputs: &[Tensor], names: &[String], differing: &[usize]) -> Option<Vec<usize>> {
    // Without a dimension of batches the rows could be the batch, whose order is not free.
    let is_set = |index: usize, rank: usize| {
        let says_so = |name: &String| NAMES.iter().any(|word| name.to_lowercase().contains(word));
        rank == 3 || (rank == 2 && names.get(index).is_some_and(says_so))
    };
    let mut all = outputs.iter().map(|output| output.shape().dims()).enumerate();
    let boxes = all.find_map(|(index, dims)| {
        let (&columns, lead) = dims.split_last()?;
        let is_box = columns == 4 && is_set(index, dims.len()) && floats_are(&outputs[index]);
        // Boxes alone could be anything; with a score or a class for each they are detections.
        let members = outputs.iter().filter(|other| belongs(other, lead)).count();
        (is_box && members > 1).then(|| lead.to_vec())
    });
    let whole = || {
        let &[index] = differing else { return None };
        let dims = outputs.get(index)?.shape().dims();
        let (columns, lead) = dims.split_last()?;
        (WHOLE_ROWS.contains(columns) && is_set(index, dims.len())).then(|| lead.to_vec())
    };
    boxes.or_else(whole)
}

fn floats_are(tensor: &Tensor) -> bool {
    tolerance(tensor.dtype()) > 0.0
}

/// Whether an output has a value, or a list of values, for each row.
fn belongs(output: &Tensor, lead: &[usize]) -> bool {
    let dims = output.shape().dims();
    dims.starts_with(lead) && dims.len() <= lead.len() + 1 && output.dtype() != DType::String
}

/// One output of both sides, by rows.
struct Column {
    width: usize,
    got: Vec<f64>,
    want: Vec<f64>,
    scale: f64,
    tolerance: f64,
}

impl Column {
    fn new(got: &Tensor, want: &Tensor, rows: usize) -> Option<Column> {
        let width = want.shape().elements().checked_div(rows)?;
        let tolerance = tolerance(want.dtype());
        let (got, want) = match (floats(got), floats(want)) {
            (Some(got), Some(want)) => (got, want),
            _ => (whole_numbers(got)?, whole_numbers(want)?),
        };
        let scale = scale(&want);
        Some(Column { width, got, want, scale, tolerance })
    }

    fn distance(&self, got: usize, want: usize) -> Option<f64> {
        let row = |index: usize| index * self.width..(index + 1) * self.width;
        let pairs = self.got.get(row(got))?.iter().zip(self.want.get(row(want))?);
        let apart = pairs.map(|(&g, &w)| distance(g, w, self.scale)).fold(0.0, f64::max);
        (apart <= self.tolerance).then_some(apart)
    }
}

/// How far two rows are apart; `None` when that is more than rounding.
fn distance_of_rows(columns: &[Column], got: usize, want: usize) -> Option<f64> {
    columns.iter().try_fold(0.0f64, |most, column| Some(most.max(column.distance(got, want)?)))
}

/// Whole numbers as floats; those that a float cannot hold make no class or count of a detection.
fn whole_numbers(tensor: &Tensor) -> Option<Vec<f64>> {
    let bytes = tensor.bytes();
    let values = match tensor.dtype() {
        DType::I32 => chunks(bytes, |b: [u8; 4]| f64::from(i32::from_le_bytes(b))),
        DType::I64 => chunks(bytes, |b: [u8; 8]| i64::from_le_bytes(b) as f64),
        DType::U8 | DType::Bool => chunks(bytes, |[b]: [u8; 1]| f64::from(b)),
        _ => return None,
    };
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    values.iter().all(|value| value.abs() < EXACT_MAX).then_some(values)
}

#[cfg(test)]
mod tests {
    use vesta_model::Shape;

    use super::*;
    use crate::choice::compare::compare;

    fn shape(dims: &[usize]) -> Shape {
        Shape::new(dims).unwrap()
    }

    /// Boxes, scores and classes of three detections in one image, in the order that `rows` says.
    fn found(rows: [usize; 3]) -> Vec<Tensor> {
        let boxes: Vec<f32> = rows.iter().flat_map(|&r| [0.0, 0.1, 0.2, r as f32]).collect();
        let scores = rows.map(|row| if row == 2 { 0.25f32 } else { 0.5 });
        let classes = rows.map(|row| row as i64);
        vec![
            Tensor::of(shape(&[1, 3, 4]), &boxes).unwrap(),
            Tensor::of(shape(&[1, 3]), &scores).unwrap(),
            Tensor::of(shape(&[1, 3]), &classes).unwrap(),
            Tensor::of(shape(&[1]), &[3.0f32]).unwrap(),
        ]
    }

    fn names() -> Vec<String> {
        ["boxes", "scores", "classes", "num"].map(str::to_owned).to_vec()
    }

    #[test]
    fn rows_that_tie_may_change_places() {
        assert_eq!(compare(&found([1, 0, 2]), &found([0, 1, 2]), &names()), Ok(0.0));
    }

    #[test]
    fn rows_stay_whole_and_are_matched_once() {
        let want = found([0, 1, 2]);
        // The boxes change places and the classes do not.
        let mut mixed = found([1, 0, 2]);
        mixed[2] = want[2].clone();
        assert!(compare(&mixed, &want, &names()).is_err());
        assert!(compare(&found([0, 0, 2]), &want, &names()).is_err());
        // The number of detections is no row.
        let mut fewer = found([1, 0, 2]);
        fewer[3] = Tensor::of(shape(&[1]), &[2.0f32]).unwrap();
        assert!(compare(&fewer, &want, &names()).is_err());
    }

    #[test]
    fn a_set_may_end_among_equals() {
        let of = |last: f32, scores: [f32; 3]| {
            let boxes = [0.0, 0.1, 0.2, 0.3, 0.5, 0.5, 0.6, 0.6, last, last, 0.9, 0.9];
            vec![
                Tensor::of(shape(&[1, 3, 4]), &boxes).unwrap(),
                Tensor::of(shape(&[1, 3]), &scores).unwrap(),
            ]
        };
        let want = of(0.1, [0.9, 0.5, 0.25]);
        assert!(compare(&of(0.7, [0.9, 0.5, 0.25]), &want, &names()).unwrap() < 1e-9);
        let near = compare(&of(0.7, [0.9, 0.5, 0.250_01]), &want, &names()).unwrap();
        assert!((0.0..1e-4).contains(&near), "{near}");
        // Another score, a better row, an end that is no end, and rows of nameless scores.
        assert!(compare(&of(0.7, [0.9, 0.5, 0.3]), &want, &names()).is_err());
        let mut better = want.clone();
        better[0] = Tensor::of(shape(&[1, 3, 4]), &[0.4f32; 12]).unwrap();
        assert!(compare(&better, &want, &names()).is_err());
        let padded = |last| of(last, [0.9, 0.5, 0.0]);
        assert!(compare(&padded(0.7), &padded(0.1), &names()).is_err());
        let nameless = ["boxes".to_owned(), "values".to_owned()];
        assert!(compare(&of(0.7, [0.9, 0.5, 0.25]), &want, &nameless).is_err());
    }

    #[test]
    fn batches_are_not_mixed() {
        let of = |scores: [f32; 4]| {
            let boxes: Vec<f32> = scores.iter().flat_map(|&score| [score; 4]).collect();
            vec![
                Tensor::of(shape(&[2, 2, 4]), &boxes).unwrap(),
                Tensor::of(shape(&[2, 2]), &scores).unwrap(),
            ]
        };
        let want = of([0.1, 0.2, 0.3, 0.4]);
        assert_eq!(compare(&of([0.2, 0.1, 0.4, 0.3]), &want, &names()), Ok(0.0));
        assert!(compare(&of([0.3, 0.2, 0.1, 0.4]), &want, &names()).is_err());
    }

    #[test]
    fn sets_without_batches_say_that_they_are_sets() {
        let of = |rows: [f32; 2]| {
            let boxes: Vec<f32> = rows.iter().flat_map(|&row| [row; 4]).collect();
            vec![
                Tensor::of(shape(&[2, 4]), &boxes).unwrap(),
                Tensor::of(shape(&[2]), &rows).unwrap(),
            ]
        };
        let named = |name: &str| vec![name.to_owned(), "scores".to_owned()];
        assert_eq!(compare(&of([2.0, 1.0]), &of([1.0, 2.0]), &named("raw_boxes")), Ok(0.0));
        assert!(compare(&of([2.0, 1.0]), &of([1.0, 2.0]), &named("probabilities")).is_err());
    }

    #[test]
    fn other_outputs_keep_their_order() {
        let rows = |values: &[f32]| vec![Tensor::of(shape(&[values.len()]), values).unwrap()];
        assert!(compare(&rows(&[1.0, 2.0]), &rows(&[2.0, 1.0]), &names()).is_err());
        // Four columns alone are no boxes.
        let four = |rows: [f32; 2]| {
            let values: Vec<f32> = rows.iter().flat_map(|&row| [row; 4]).collect();
            vec![Tensor::of(shape(&[2, 4]), &values).unwrap()]
        };
        assert!(compare(&four([1.0, 2.0]), &four([2.0, 1.0]), &names()).is_err());
        // Whole detections in one output.
        let whole = |rows: [f32; 2]| {
            let values: Vec<f32> = rows.iter().flat_map(|&row| [row; 6]).collect();
            vec![Tensor::of(shape(&[1, 2, 6]), &values).unwrap()]
        };
        assert_eq!(compare(&whole([1.0, 2.0]), &whole([2.0, 1.0]), &names()), Ok(0.0));
    }
}

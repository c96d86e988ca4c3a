//! The former alone, with a time that the tests set.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use proptest::prelude::*;
use vesta_model::Code;

use super::*;

/// A request with a number, or a piece of it.
#[derive(Clone, Debug)]
struct Item {
    number: usize,
    rows: Range<usize>,
    deadline: Option<Instant>,
    expired: Rc<RefCell<Vec<usize>>>,
}

impl Batchable for Item {
    fn rows(&self) -> usize {
        self.rows.len()
    }

    fn is_over(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    fn split_off_front(&mut self, rows: usize) -> Item {
        let cut = self.rows.start + rows;
        let front = Item { rows: self.rows.start..cut, ..self.clone() };
        self.rows.start = cut;
        front
    }

    fn expire(self) {
        self.expired.borrow_mut().push(self.number);
    }
}

fn limits(batch_rows_max: usize, timeout_ms: u64, batches_max: usize) -> Limits {
    Limits {
        request_rows_max: batch_rows_max,
        batch_rows_max,
        timeout: Duration::from_millis(timeout_ms),
        batches_max,
        splits: false,
    }
}

struct Bench {
    former: Former<Item>,
    start: Instant,
    entered: usize,
    expired: Rc<RefCell<Vec<usize>>>,
}

impl Bench {
    fn new(limits: Limits) -> Bench {
        let former = Former::new(limits);
        Bench { former, start: Instant::now(), entered: 0, expired: Rc::default() }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    fn push(&mut self, rows: usize, ms: u64, lives_ms: Option<u64>) -> Result<(), Status> {
        let now = self.at(ms);
        self.former.admit(rows, now, &mut Expired::default())?;
        let deadline = lives_ms.map(|lives| self.at(ms + lives));
        let expired = Rc::clone(&self.expired);
        let number = self.entered;
        self.former.push(Item { number, rows: 0..rows, deadline, expired }, now);
        self.entered += 1;
        Ok(())
    }

    /// The numbers and rows of the next batch.
    fn next(&mut self, ms: u64) -> Option<Vec<(usize, Range<usize>)>> {
        let batch = self.former.next(self.at(ms), &mut Expired::default())?;
        Some(batch.into_iter().map(|item| (item.number, item.rows)).collect())
    }

    fn due(&self, ms: u64) -> Due {
        self.former.due(self.at(ms))
    }
}

#[test]
fn a_batch_closes_when_the_next_does_not_fit_or_its_oldest_has_waited() {
    let mut bench = Bench::new(limits(4, 10, 5));
    assert_eq!(bench.due(0), Due::Never);
    bench.push(2, 0, None).unwrap();
    bench.push(1, 3, None).unwrap();
    assert_eq!(bench.due(5), Due::At(bench.at(10)));
    assert_eq!(bench.next(9), None);
    bench.push(2, 9, None).unwrap();
    assert_eq!(bench.due(9), Due::Now);
    assert_eq!(bench.next(9), Some(vec![(0, 0..2), (1, 0..1)]));
    assert_eq!(bench.due(9), Due::At(bench.at(19)));
    assert_eq!(bench.next(19), Some(vec![(2, 0..2)]));
    bench.push(4, 20, None).unwrap();
    assert_eq!(bench.next(20), Some(vec![(3, 0..4)]), "a full one does not wait");
    assert_eq!(bench.due(99), Due::Never);
}

#[test]
fn without_a_time_to_wait_a_batch_is_what_came_until_a_thread_was_free() {
    let mut bench = Bench::new(limits(10, 0, 5));
    bench.push(1, 0, None).unwrap();
    bench.push(1, 0, None).unwrap();
    assert_eq!(bench.due(0), Due::Now);
    assert_eq!(bench.next(0), Some(vec![(0, 0..1), (1, 0..1)]));
}

#[test]
fn refusals_have_the_originals_codes_and_texts() {
    let mut bench = Bench::new(limits(4, 10, 2));
    let status = bench.push(5, 0, None).unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(status.message(), "Task size 5 is larger than maximum input batch size 4");
    bench.push(3, 0, None).unwrap();
    bench.push(3, 0, None).unwrap();
    let status = bench.push(3, 0, None).unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(
        status.message(),
        "The batch scheduling queue to which this task was submitted is full; currently 2 batches \
         enqueued and max_enqueued_batches is 2"
    );
    bench.push(1, 0, None).unwrap();
    let splits = Limits { splits: true, request_rows_max: 100, ..limits(4, 10, 2) };
    let mut bench = Bench::new(splits);
    bench.push(3, 0, None).unwrap();
    let status = bench.push(6, 0, None).unwrap_err();
    assert_eq!(
        status.message(),
        "The batch scheduling queue to which this task was submitted is full; task size is 6 but \
         scheduling capacity is only 5 (num_enqueued_batches=1, max_enqueued_batches=2, \
         open_batch_size=3, max_execution_batch_size=4)"
    );
    bench.push(5, 0, None).unwrap();
    assert_eq!(bench.next(0), Some(vec![(0, 0..3), (1, 0..1)]));
    assert_eq!(bench.next(0), Some(vec![(1, 1..5)]));
}

#[test]
fn what_is_over_makes_room_and_is_not_run() {
    let mut bench = Bench::new(limits(2, 100, 1));
    bench.push(2, 0, Some(5)).unwrap();
    assert!(bench.push(2, 4, None).is_err());
    bench.push(2, 5, None).unwrap();
    assert_eq!(*bench.expired.borrow(), [0]);
    assert_eq!(bench.next(5), Some(vec![(1, 0..2)]));
    bench.push(1, 10, Some(1)).unwrap();
    bench.push(1, 10, None).unwrap();
    assert_eq!(bench.next(20), Some(vec![(3, 0..1)]));
    assert_eq!(*bench.expired.borrow(), [0, 2]);
}

#[test]
fn requests_without_rows_fill_a_batch_too() {
    let mut bench = Bench::new(limits(3, 100, 1));
    for _ in 0..3 {
        bench.push(0, 0, None).unwrap();
    }
    assert!(bench.push(0, 0, None).is_err());
    assert_eq!(bench.next(0).unwrap().len(), 3);
}

#[derive(Clone, Debug)]
enum Step {
    Push { rows: usize, lives_ms: Option<u64> },
    Next,
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let push = (0usize..12, prop::option::weighted(0.3, 1u64..30))
        .prop_map(|(rows, lives_ms)| Step::Push { rows, lives_ms });
    let step = prop_oneof![4 => push, 2 => Just(Step::Next), 1 => (1u64..20).prop_map(Step::Wait)];
    prop::collection::vec(step, 1..80)
}

proptest! {
    #[test]
    fn every_row_leaves_once_in_order_within_the_limits(
        steps in steps(),
        batch_rows_max in 1usize..8,
        timeout_ms in 0u64..15,
        batches_max in 0usize..5,
        splits in any::<bool>(),
    ) {
        let request_rows_max = if splits { 10 } else { batch_rows_max };
        let limits =
            Limits { request_rows_max, splits, ..limits(batch_rows_max, timeout_ms, batches_max) };
        let mut bench = Bench::new(limits);
        let mut now_ms = 0;
        let mut entered: Vec<(usize, Option<u64>)> = Vec::new();
        let mut left: Vec<(usize, Range<usize>)> = Vec::new();
        for step in steps.into_iter().chain([Step::Wait(100), Step::Next]) {
            match step {
                Step::Wait(ms) => now_ms += ms,
                Step::Push { rows, lives_ms } => {
                    if bench.push(rows, now_ms, lives_ms).is_ok() {
                        prop_assert!(rows <= request_rows_max);
                        entered.push((rows, lives_ms.map(|lives| now_ms + lives)));
                    }
                    prop_assert!(bench.former.closed.len() < batches_max.max(1));
                }
                Step::Next => {
                    while let Some(batch) = bench.next(now_ms) {
                        let rows: usize = batch.iter().map(|(_, rows)| rows.len()).sum();
                        prop_assert!(!batch.is_empty() && rows <= batch_rows_max);
                        for (number, _) in &batch {
                            prop_assert!(entered[*number].1.is_none_or(|until| until > now_ms));
                        }
                        left.extend(batch);
                    }
                    // Nothing that has waited long enough is left.
                    let waits = bench.former.open.since;
                    prop_assert!(waits.is_none_or(
                        |since| bench.at(now_ms) < since + Duration::from_millis(timeout_ms)
                    ));
                }
            }
        }
        prop_assert_eq!(bench.former.waiting(), 0);
        // In order, and the rows of each request in order, too.
        let mut expected = left.clone();
        expected.sort_by_key(|(number, rows)| (*number, rows.start));
        prop_assert_eq!(&left, &expected);
        for (number, (rows, _)) in entered.iter().enumerate() {
            let pieces = left.iter().filter(|(of, _)| *of == number);
            let out: usize = pieces.map(|(_, rows)| rows.len()).sum();
            let is_expired = bench.expired.borrow().contains(&number);
            prop_assert!(is_expired || out == *rows, "request {} lost rows", number);
            prop_assert!(is_expired || left.iter().any(|(of, _)| *of == number));
            prop_assert!(out <= *rows);
        }
    }
}

//! How large the outputs of each signature were, so that the next slot has room for them.
//!
//! Owns the estimate. Knows nothing of memory.
//! Invariant: an estimate is never above what the signature really gave at some time.

use std::collections::BTreeMap;
use std::sync::Mutex;

use vesta_model::RunRequest;

use crate::wake::lock;

/// What was learned, by signature and outputs wanted.
#[derive(Default)]
pub(crate) struct OutputSizes(Mutex<BTreeMap<(String, usize), Learned>>);

#[derive(Clone, Copy, Default)]
struct Learned {
    row_bytes: usize,
    bytes_max: usize,
}

impl OutputSizes {
    /// Bytes that the outputs of `request` will likely take; 0 when nothing is known.
    pub(crate) fn expect(&self, request: &RunRequest) -> usize {
        let learned = lock(&self.0).get(&key(request)).copied().unwrap_or_default();
        learned.row_bytes.saturating_mul(rows(request)).min(learned.bytes_max)
    }

    /// The outputs of `request` took `bytes`.
    pub(crate) fn learn(&self, request: &RunRequest, bytes: usize) {
        let mut all = lock(&self.0);
        let learned = all.entry(key(request)).or_default();
        // Up at once, down slowly: outputs of varying size should mostly fit.
        let decayed = |old: usize| old - old / 16;
        learned.row_bytes = bytes.div_ceil(rows(request)).max(decayed(learned.row_bytes));
        learned.bytes_max = bytes.max(decayed(learned.bytes_max));
    }
}

fn key(request: &RunRequest) -> (String, usize) {
    (request.signature.clone(), request.outputs.len())
}

/// Rows of the batch, if it is one; at least 1.
fn rows(request: &RunRequest) -> usize {
    let first = request.inputs.first().and_then(|input| input.shape.dims().first());
    first.copied().unwrap_or(1).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vesta_model::{InputLayout, Shape};

    fn request(rows: usize) -> RunRequest {
        RunRequest {
            signature: "s".to_owned(),
            inputs: vec![InputLayout { shape: Shape::vector(rows), string_bytes: 0 }],
            outputs: vec![0],
        }
    }

    #[test]
    fn estimates_follow_the_batch_and_stay_below_what_was_seen() {
        let sizes = OutputSizes::default();
        assert_eq!(sizes.expect(&request(4)), 0);
        sizes.learn(&request(4), 400);
        assert_eq!(sizes.expect(&request(2)), 200);
        assert_eq!(sizes.expect(&request(4)), 400);
        assert_eq!(sizes.expect(&request(1000)), 400);
        sizes.learn(&request(8), 800);
        assert_eq!(sizes.expect(&request(8)), 800);
    }

    #[test]
    fn one_large_output_is_forgotten() {
        let sizes = OutputSizes::default();
        sizes.learn(&request(1), 1 << 20);
        for _ in 0..400 {
            sizes.learn(&request(1), 64);
        }
        assert!(sizes.expect(&request(1)) < 128);
    }
}

//! How requests of one version are run together. Owns the parameters; knows neither the file they
//! come from nor who forms the batches.

use std::time::Duration;

/// What decides how batches of one version are formed. The size of a request or batch is its number
/// of rows, the size of the first dimension of its inputs.
///
/// The names are those of the original's `BatchingParameters`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchingParameters {
    /// Rows that one request may have, and a batch unless large ones are split. At least 1.
    pub max_batch_size: usize,
    /// How long the oldest request of a batch waits for others; 0 for no longer than until a thread
    /// is free.
    pub batch_timeout: Duration,
    /// Batches of one queue that may wait, the one that is being filled among them.
    pub max_enqueued_batches: usize,
    /// Batches of one queue that may be run at once. At least 1.
    pub num_batch_threads: usize,
    /// Sizes that batches are filled up to, increasing; empty for any size.
    pub allowed_batch_sizes: Vec<usize>,
    /// Whether inputs of different shapes are filled up to the largest in the batch; else they fail
    /// the batch.
    pub pad_variable_length_inputs: bool,
    /// Whether a request may be cut to fit into batches of `max_execution_batch_size`.
    pub enable_large_batch_splitting: bool,
    /// Rows that a batch may have when large ones are split. At least 1, at most `max_batch_size`.
    pub max_execution_batch_size: usize,
}

impl BatchingParameters {
    /// The original's default of `max_batch_size`.
    pub const MAX_BATCH_SIZE: usize = 1000;
    /// The original's default of `max_enqueued_batches`.
    pub const MAX_ENQUEUED_BATCHES: usize = 10;

    /// The original's defaults, with one thread for each of `cores`.
    pub fn with_defaults(cores: usize) -> BatchingParameters {
        BatchingParameters {
            max_batch_size: BatchingParameters::MAX_BATCH_SIZE,
            batch_timeout: Duration::ZERO,
            max_enqueued_batches: BatchingParameters::MAX_ENQUEUED_BATCHES,
            num_batch_threads: cores.max(1),
            allowed_batch_sizes: Vec::new(),
            pad_variable_length_inputs: false,
            enable_large_batch_splitting: false,
            max_execution_batch_size: BatchingParameters::MAX_BATCH_SIZE,
        }
    }

    /// Rows that one batch may have, before it is filled up.
    pub fn batch_rows_max(&self) -> usize {
        let rows = if self.enable_large_batch_splitting {
            self.max_execution_batch_size.min(self.max_batch_size)
        } else {
            self.max_batch_size
        };
        rows.max(1)
    }

    /// The size that a batch of `rows` is filled up to: the lowest allowed one that holds it, `rows`
    /// itself when there is none.
    pub fn filled_up(&self, rows: usize) -> usize {
        self.allowed_batch_sizes.iter().copied().find(|&allowed| allowed >= rows).unwrap_or(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_filled_up_to_the_next_allowed_size() {
        let parameters = BatchingParameters {
            allowed_batch_sizes: vec![2, 4, 8],
            ..BatchingParameters::with_defaults(2)
        };
        let filled: Vec<usize> =
            [0, 1, 2, 3, 4, 8, 9].map(|rows| parameters.filled_up(rows)).into();
        assert_eq!(filled, [2, 2, 2, 4, 4, 8, 9]);
        assert_eq!(BatchingParameters::with_defaults(2).filled_up(3), 3);
    }
}

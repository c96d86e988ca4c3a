//! Who hears of waits and batches. Owns what is told; may not know what becomes of it.

use std::time::Duration;

use vesta_model::ModelName;

/// Hears how requests wait and how batches are formed. Called by the threads that run models, so it
/// must be quick.
pub trait RunObserver: Send + Sync {
    /// A request or a piece of one left its queue to be run.
    fn waited(&self, model: &ModelName, batched: bool, wait: Duration);

    /// A request with this many rows and inputs asks to be batched.
    fn entered(&self, model: &ModelName, rows: usize, inputs: usize);

    /// A batch is about to be run.
    fn formed(&self, model: &ModelName, batch: FormedBatch);
}

/// The sizes of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FormedBatch {
    /// Requests in it, or pieces of them.
    pub requests: usize,
    /// Rows of the requests.
    pub rows: usize,
    /// Rows with which it is filled up.
    pub padding_rows: usize,
    /// Rows that it may have.
    pub rows_max: usize,
}

/// Nobody.
pub(crate) struct Unobserved;

impl RunObserver for Unobserved {
    fn waited(&self, _: &ModelName, _: bool, _: Duration) {}
    fn entered(&self, _: &ModelName, _: usize, _: usize) {}
    fn formed(&self, _: &ModelName, _: FormedBatch) {}
}

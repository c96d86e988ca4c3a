//! Requests of one version that are run as one: batches, by the original's rules.
//!
//! Owns: which requests become a batch (`former`), how their inputs become one (`join`) and their
//! outputs many again (`split`), all three pure; a request with who waits for it (`task`); the queues
//! of a version (`queues`); the run of a batch (`run`). May not know threads or locks: the scheduler
//! holds its own around a former.
//!
//! Invariants: a request is in one queue, and each of its rows in one batch; what a caller gets are
//! the outputs of its own rows and nobody else's; a request whose deadline passed or whose caller went
//! away is not run, unless its batch has begun; a stateful signature is never in a batch.

mod former;
mod join;
mod observer;
mod queues;
mod run;
mod split;
mod task;

pub(crate) use former::{Due, Expired, Former, Limits};
pub(crate) use observer::Unobserved;
pub use observer::{FormedBatch, RunObserver};
pub(crate) use queues::Queues;
pub(crate) use run::{Done, run};
pub(crate) use task::Piece;

//! The life cycle of versions: one thread owns all state that changes.
//!
//! `phase` says which steps are legal, `planner` which to take, `manager` takes them (with `labels`,
//! `loads`, `retirement` and `shutdown`, which are parts of it), `fleet` is what it remembers, `status_board`
//! what it shows, `pool` the threads that may block in its stead.

mod event;
mod fleet;
mod labels;
mod loads;
mod manager;
mod phase;
mod planner;
mod pool;
mod retirement;
mod shutdown;
mod status_board;

use std::path::PathBuf;

use vesta_model::{Status, Version};

pub(crate) use event::{Event, Ticket};
pub(crate) use manager::{Manager, Parts};
pub use phase::{Phase, VersionStatus};
pub(crate) use status_board::StatusBoard;

/// One version that a source wants served.
#[derive(Clone, Debug)]
pub struct Aspired {
    /// Its number.
    pub version: Version,
    /// Where its files are; an error when it was seen but cannot be read, which ends it with that
    /// error until the source says otherwise.
    pub artifact: Result<PathBuf, Status>,
    /// SavedModel tags that select the graph.
    pub tags: Vec<String>,
}

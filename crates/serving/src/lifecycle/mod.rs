//! The life cycle of versions: one thread owns all state that changes.
//!
//! `phase` says which steps are legal, `planner` which to take, `manager` takes them (with `health`,
//! `labels`, `loads`, `retirement` and `shutdown`, which are parts of it), `fleet` is what it
//! remembers, `status_board` what it shows, `crew` and `pool` the jobs and threads that may block in
//! its stead.

mod crew;
mod event;
mod fleet;
mod health;
mod labels;
mod loads;
mod manager;
mod phase;
mod planner;
mod pool;
mod retirement;
mod shutdown;
#[cfg(test)]
mod simulation;
mod status_board;

use std::path::PathBuf;

use vesta_model::{Status, Version};

pub(crate) use event::{Event, Ticket};
pub(crate) use manager::{Manager, Parts};
pub use phase::{Phase, VersionStatus};
pub use planner::AspiredVersionPolicy;
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
    /// Which state of its files this is; `None` when the source did not look. Only versions that
    /// have failed are compared by it: see [`Serving::aspire`](crate::Serving::aspire).
    pub edition: Option<Edition>,
}

/// One state of a version's files, as the source tells them apart. Two that are equal are taken for
/// the same files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Edition(pub u64);

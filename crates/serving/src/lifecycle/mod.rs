//! The life cycle of versions.

mod phase;

use std::path::PathBuf;

use vesta_model::{Status, Version};

pub use phase::{Phase, VersionStatus};

/// One version that a source wants served.
#[derive(Clone, Debug)]
pub struct Aspired {
    /// Its number.
    pub version: Version,
    /// Where its files are; an error when it was seen but cannot be read, which ends it.
    pub artifact: Result<PathBuf, Status>,
    /// SavedModel tags that select the graph.
    pub tags: Vec<String>,
}

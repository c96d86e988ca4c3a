//! Phases as clients see them.

use vesta_model::{Status, Version};

/// Where in its life a version is, as published to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// Known and wanted; nothing done yet.
    Start,
    /// Being loaded, or waiting to be tried again.
    Loading,
    /// Serving.
    Available,
    /// No longer given to requests; being unloaded.
    Unloading,
    /// Unloaded, or failed.
    End,
}

/// One version with its phase.
#[derive(Clone, Debug, PartialEq)]
pub struct VersionStatus {
    /// Its number.
    pub version: Version,
    /// Its phase.
    pub phase: Phase,
    /// Why it ended, when it ended by an error.
    pub error: Option<Status>,
}

//! What the composition decides about threads, bounds and retries. Knows no flag.

use std::time::Duration;

use vesta_model::Status;

use crate::{AspiredVersionPolicy, texts};

/// Sizes and limits of one [`Serving`](crate::Serving).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServingOptions {
    /// Versions that may load at once. One that hangs for a minute does not count any more. At
    /// least 1.
    pub load_threads: usize,
    /// Versions that may unload at once, by the same rule. At least 1.
    pub unload_threads: usize,
    /// Runs that are computed at once, all models together. At least 1.
    pub run_threads: usize,
    /// Runs of one version that may wait; one more is refused. At least 1.
    pub queue_runs_max: usize,
    /// How often a failed load is tried again; 0 for never.
    pub load_retries_max: u32,
    /// How long to wait between two tries.
    pub load_retry_interval: Duration,
    /// Threads that one run may use inside its engine. At least 1.
    pub engine_threads: usize,
    /// Whether a new version is loaded beside the old one or in its place.
    pub policy: AspiredVersionPolicy,
}

impl ServingOptions {
    /// Refuses sizes that nothing could be done with.
    pub(crate) fn check(&self) -> Result<(), Status> {
        let sizes = [
            ("load_threads", self.load_threads),
            ("unload_threads", self.unload_threads),
            ("run_threads", self.run_threads),
            ("queue_runs_max", self.queue_runs_max),
            ("engine_threads", self.engine_threads),
        ];
        match sizes.iter().find(|(_, size)| *size == 0) {
            Some((name, _)) => Err(texts::option_is_zero(name)),
            None => Ok(()),
        }
    }
}

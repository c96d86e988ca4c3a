//! Limits of a worker. Owns their defaults; each is a value of the configuration.

use std::time::Duration;

use crate::restart::RestartPolicy;

/// Which build this is. Parent and child must be the same.
pub const BUILD: &str = env!("CARGO_PKG_VERSION");

/// How a worker is bounded and supervised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerOptions {
    /// The parent's build; the child must have been told the same (see
    /// [`ChildOptions`](crate::ChildOptions)).
    pub build: String,
    /// A child must say hello within this time.
    pub handshake_timeout: Duration,
    /// A child must have loaded, or refused, within this time.
    pub load_timeout: Duration,
    /// A child whose session was dropped has this time to exit by itself.
    pub exit_grace: Duration,
    /// A child that has not answered a run for so long after its deadline is ended.
    pub run_grace: Duration,
    /// The deadline of runs that come without one, counted from their start.
    pub run_limit: Duration,
    /// A run whose worker died waits so long for the next one, if its deadline allows.
    pub retry_wait: Duration,
    /// Bytes of shared memory that one session may have.
    pub arena_bytes_max: usize,
    /// Slots of shared memory kept ready between runs.
    pub idle_slots_max: usize,
    /// Slots are given back to the system when no run has begun for so long.
    pub idle_time: Duration,
    /// Runs that the child works on at the same time; at least 1.
    pub runs_max: usize,
    /// When a child that ended is replaced.
    pub restart: RestartPolicy,
}

impl Default for WorkerOptions {
    fn default() -> WorkerOptions {
        WorkerOptions {
            build: BUILD.to_owned(),
            handshake_timeout: Duration::from_secs(20),
            load_timeout: Duration::from_secs(600),
            exit_grace: Duration::from_secs(3),
            run_grace: Duration::from_secs(2),
            run_limit: Duration::from_secs(3600),
            retry_wait: Duration::from_secs(20),
            arena_bytes_max: 1 << 30,
            idle_slots_max: 8,
            idle_time: Duration::from_secs(30),
            runs_max: 4,
            restart: RestartPolicy::default(),
        }
    }
}

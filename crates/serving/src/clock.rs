//! What the life cycle takes for the time.
//!
//! Owns the one place where it is read, so that a simulation can play hours in a moment. Runs and
//! their deadlines are timed by the real clock. May not know what the time is used for.

use std::time::Instant;

/// Tells the time. It must not go back.
pub trait Clock: Send + Sync {
    /// The time now.
    fn now(&self) -> Instant;
}

/// The clock of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealClock;

impl Clock for RealClock {
    fn now(&self) -> Instant {
        Instant::now()
    }
}

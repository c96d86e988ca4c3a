//! How a loaded version is doing, told by whoever carries it.
//!
//! Owns the three ways a session can be, and what is told of a process that carries one; may not know how
//! either is found out, or how often anything is tried.

use std::sync::Arc;

use crate::Status;

/// Whether a session can run anything now.
#[derive(Clone, Debug, PartialEq)]
pub enum SessionHealth {
    /// It runs what it is given.
    Serving,
    /// What carries it ended and is being replaced; the status, of code `UNAVAILABLE`, says why.
    Restarting(Status),
    /// It will never run anything again; the status says why and what to do.
    GivenUp(Status),
}

/// The process that carries a session, where it has one of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionProcess {
    /// Bytes of memory that it has resident; `None` while it is being replaced.
    pub resident_bytes: Option<u64>,
    /// How often it was started again.
    pub restarts: u64,
}

/// Hears of changes of a session's health. It is called on a thread of the session's, in the order
/// of the changes, and must neither block nor call the session.
pub type HealthListener = Arc<dyn Fn(SessionHealth) + Send + Sync>;

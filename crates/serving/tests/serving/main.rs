//! The crate through its public door, with an engine that does what a test tells it.
#![expect(clippy::unwrap_used, reason = "these are tests")]

mod batches;
mod crowd;
mod fake;
mod files;
mod health;
mod leases;
mod lifecycle;
mod logs;
mod runs;
mod world;

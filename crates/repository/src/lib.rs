//! Model files at rest.
//!
//! Owns: what a version directory is, which of them a policy wants, and polling for changes.
//! May not know: engines, phases of a version, any wire.
//! Invariant: what it announces is always the whole set of versions wanted for one model; a model
//! whose directory cannot be read is announced nothing about, so nothing of it is unloaded.

mod edition;
mod policy;
mod scan;
mod watch;

pub use edition::fingerprint;
pub use policy::select;
pub use scan::{Found, scan};
pub use watch::{Poll, Watcher};

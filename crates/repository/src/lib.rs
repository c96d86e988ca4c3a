//! Model files at rest.
//!
//! Owns: what a version directory is, which of them a policy wants, and looking for changes. May not
//! know: engines, phases of a version, any wire.
//! Invariants: what it announces is always the whole set of versions wanted for one model; a model
//! whose base path cannot be read is announced nothing about, so nothing of it is unloaded; a base
//! path that does not answer delays no other; what was fetched is whole, or not there.

mod cache;
mod edition;
mod fetch;
mod objects;
mod policy;
mod scan;
mod scanners;
mod store;
mod watch;

pub use edition::fingerprint;
pub use objects::Stores;
pub use policy::select;
pub use scan::scan;
pub use store::{Fetched, Found, Hold, Listing, LocalDisk, Store};
pub use watch::{Announcement, Poll, Watcher};

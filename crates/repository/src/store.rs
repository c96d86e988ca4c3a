//! What a place must offer that models are kept in.
//!
//! Owns: the trait, and the local disk as the simplest of such places. May not know: who asks, and
//! how often.
//! Invariant: what a version's number is, is the same everywhere (`scan.rs`).

use std::fs::File;
use std::path::{Path, PathBuf};

use vesta_model::{BasePath, ModelName, Status, Version};

use crate::scan::scan;

/// One version seen under a base path.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Its number.
    pub version: Version,
    /// Where its files are, to be given to [`Store::fetch`]; or why there is nothing: a dangling
    /// link, a plain file.
    pub artifact: Result<PathBuf, Status>,
    /// Which state its files are in, where that was looked at.
    pub edition: Option<u64>,
}

/// Everything seen under a base path at one look.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listing {
    /// The versions, oldest first.
    pub versions: Vec<Found>,
    /// Versions that two names stand for.
    pub doubled: Vec<Version>,
}

/// The files of one version on the local disk.
#[derive(Debug)]
pub struct Fetched {
    /// The directory that holds them.
    pub directory: PathBuf,
    /// Keeps them there; to be dropped once they are read no more.
    pub hold: Hold,
}

/// Keeps files that were fetched where they are.
#[derive(Debug, Default)]
pub struct Hold {
    pub(crate) _kept: Option<Kept>,
}

/// A file locked against the removal of what it stands for, and what to do when it is let go.
pub(crate) struct Kept {
    pub(crate) lock: Option<File>,
    pub(crate) let_go: Box<dyn Fn() + Send + Sync>,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kept({:?})", self.lock)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // Unlocked first: whoever is told may remove.
        self.lock = None;
        (self.let_go)();
    }
}

/// A place that models are kept in. Calls block for as long as the place takes.
pub trait Store: Send + Sync {
    /// Lists the versions under a base path.
    ///
    /// # Errors
    /// `NOT_FOUND` when there is no such base path, `PERMISSION_DENIED` and the like when it cannot
    /// be read; the text is the original's.
    fn list(&self, model: &ModelName, base: &BasePath) -> Result<Listing, Status>;

    /// Brings the files of one version to the local disk, or finds them there.
    ///
    /// # Errors
    /// `NOT_FOUND` for what is gone, `UNAVAILABLE` for a store that does not answer, `DATA_LOSS` for
    /// files that are not what the store says of them.
    fn fetch(&self, artifact: &Path) -> Result<Fetched, Status>;

    /// Says which versions under a base path are wanted; copies of others may go.
    fn keep(&self, _base: &BasePath, _wanted: &[Version]) {}
}

/// The local disk, with everything that is mounted there.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalDisk;

impl Store for LocalDisk {
    fn list(&self, model: &ModelName, base: &BasePath) -> Result<Listing, Status> {
        match base {
            BasePath::Directory(path) => scan(model, path),
            BasePath::Store(url) => Err(Status::unimplemented(format!(
                "base path {url} of model {model} is not on the local disk"
            ))),
        }
    }

    fn fetch(&self, artifact: &Path) -> Result<Fetched, Status> {
        Ok(Fetched { directory: artifact.to_path_buf(), hold: Hold::default() })
    }
}

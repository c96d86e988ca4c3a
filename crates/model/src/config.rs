//! What the operator asks to be served. Owns the words, not how they are read or carried out.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::{Label, ModelName, Version};

/// Which of the versions found on disk are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VersionPolicy {
    /// The `n` highest; at least 1.
    Latest(usize),
    /// Every one.
    All,
    /// These, as far as they exist.
    Specific(Vec<Version>),
}

impl Default for VersionPolicy {
    fn default() -> VersionPolicy {
        VersionPolicy::Latest(1)
    }
}

/// Where the versions of a model lie.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BasePath {
    /// A directory whose numbered children are versions; an absolute path.
    Directory(PathBuf),
    /// A prefix in an object store, such as `s3://bucket/models/m`; no slash at its end.
    Store(String),
}

impl From<&Path> for BasePath {
    fn from(path: &Path) -> BasePath {
        BasePath::Directory(path.to_path_buf())
    }
}

impl fmt::Display for BasePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BasePath::Directory(path) => path.display().fmt(f),
            BasePath::Store(url) => url.fmt(f),
        }
    }
}

/// One model as the operator configured it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelConfig {
    /// The name that requests use.
    pub name: ModelName,
    /// Where its versions lie.
    pub base_path: BasePath,
    /// Which versions are wanted.
    pub policy: VersionPolicy,
    /// Names for versions.
    pub labels: BTreeMap<Label, Version>,
    /// How its requests are recorded; `None` when they are not.
    pub request_logging: Option<RequestLogging>,
}

/// In what form requests are recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestLogForm {
    /// TensorFlow's record files, which warm models up as well.
    TfRecord,
    /// A line of JSON for each.
    JsonLines,
}

/// How the requests of a model are recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestLogging {
    /// The form of the files.
    pub form: RequestLogForm,
    /// What the paths of the files begin with.
    pub path_prefix: PathBuf,
    /// Of so many requests out of 1,000,000,000.
    pub requests_per_billion: u32,
}

impl RequestLogging {
    /// The share of requests that are recorded, from 0 to 1.
    pub fn share(&self) -> f64 {
        f64::from(self.requests_per_billion) / 1e9
    }
}

//! What the operator asks to be served. Owns the words, not how they are read or carried out.

use std::collections::BTreeMap;
use std::path::PathBuf;

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

/// One model as the operator configured it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelConfig {
    /// The name that requests use.
    pub name: ModelName,
    /// The directory whose numbered children are versions.
    pub base_path: PathBuf,
    /// Which versions are wanted.
    pub policy: VersionPolicy,
    /// Names for versions.
    pub labels: BTreeMap<Label, Version>,
}

//! The door of this crate.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use vesta_model::{Engine, Label, ModelName, ModelSpec, Status, Version};

use crate::{Aspired, Lease, ServingOptions, VersionStatus};

/// Everything that is served. Clones are the same one.
#[derive(Clone)]
pub struct Serving {
    inner: Arc<Inner>,
}

struct Inner {
    _engine: Arc<dyn Engine>,
    _options: ServingOptions,
}

impl Serving {
    /// Starts the threads.
    ///
    /// # Errors
    /// `INTERNAL` when a thread cannot be started.
    pub fn start(engine: Arc<dyn Engine>, options: ServingOptions) -> Result<Serving, Status> {
        Ok(Serving { inner: Arc::new(Inner { _engine: engine, _options: options }) })
    }

    /// The version that a request means.
    ///
    /// # Errors
    /// Those of the contract.
    pub fn resolve(&self, spec: &ModelSpec) -> Result<Lease, Status> {
        Err(Status::unimplemented(format!("{} cannot be resolved yet", spec.name)))
    }

    /// Known versions, newest first; only `version` when given.
    ///
    /// # Errors
    /// `NOT_FOUND` when there is none.
    pub fn status(
        &self,
        name: &str,
        version: Option<Version>,
    ) -> Result<Vec<VersionStatus>, Status> {
        Err(Status::unimplemented(format!("no status of {name} {version:?} yet")))
    }

    /// Every model that was ever aspired, with its versions, newest first.
    pub fn models(&self) -> Vec<(ModelName, Vec<VersionStatus>)> {
        Vec::new()
    }

    /// Says the whole set of versions wanted for one model; leaving one out means unload.
    pub fn aspire(&self, model: &ModelName, wanted: Vec<Aspired>) {
        let _ = (&self.inner, model, wanted);
    }

    /// Replaces all labels of all models.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` when a label names a version that does not serve; nothing changed.
    pub fn set_labels(
        &self,
        labels: BTreeMap<ModelName, BTreeMap<Label, Version>>,
        allow_unavailable: bool,
    ) -> Result<(), Status> {
        let _ = (labels, allow_unavailable);
        Err(Status::unimplemented("no labels yet"))
    }

    /// Resolves when each of these models serves or has failed; gives the failures.
    pub async fn settled(&self, models: &[ModelName]) -> Vec<(ModelName, Version, Status)> {
        let _ = models;
        Vec::new()
    }

    /// Takes no new work, waits up to `drain` for runs in flight, then unloads everything.
    pub fn shutdown(&self, drain: Duration) {
        let _ = drain;
    }
}

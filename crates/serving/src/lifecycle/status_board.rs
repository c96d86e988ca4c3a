//! What clients are told of every version.
//!
//! Written by the life cycle's thread alone, read by status requests; not on the path of inference.
//! Sections under its lock are short and call nothing.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::watch;
use vesta_model::{ModelName, Status, Version};

use super::phase::{State, VersionStatus};
use crate::servable::ServableId;
use crate::texts;

type Versions = BTreeMap<Version, VersionStatus>;

/// The statuses of all models that are remembered.
#[derive(Default)]
pub(crate) struct StatusBoard {
    models: RwLock<BTreeMap<ModelName, Versions>>,
    /// Told after each change, for those who would rather not ask again and again.
    changes: watch::Sender<()>,
}

impl StatusBoard {
    /// Lists a model, be it without versions.
    pub(crate) fn admit(&self, model: &ModelName) {
        let mut board = self.write();
        if !board.contains_key(model) {
            board.insert(model.clone(), Versions::new());
        }
    }

    /// Shows a version as it is.
    pub(crate) fn show(&self, id: &ServableId, state: State, error: Option<Status>) {
        let restarting = state == State::Restarting;
        let shown = VersionStatus { version: id.version, phase: state.phase(), error, restarting };
        self.write().entry(id.model.clone()).or_default().insert(id.version, shown);
        self.changed();
    }

    /// Hears of each change from now on; several may be told as one.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Tells that something changed that readers look at together with the statuses.
    pub(crate) fn changed(&self) {
        self.changes.send_replace(());
    }

    /// Lists a version no longer.
    pub(crate) fn forget(&self, id: &ServableId) {
        if let Some(versions) = self.write().get_mut(&id.model) {
            versions.remove(&id.version);
        }
    }

    /// Lists a model no longer.
    pub(crate) fn forget_model(&self, model: &ModelName) {
        self.write().remove(model);
    }

    /// Known versions of a model, newest first; only `version` when given.
    pub(crate) fn status(
        &self,
        model: &str,
        version: Option<Version>,
    ) -> Result<Vec<VersionStatus>, Status> {
        let board = self.read();
        let versions = board.get(model);
        if let Some(version) = version {
            let shown = versions.and_then(|all| all.get(&version));
            return match shown {
                Some(shown) => Ok(vec![shown.clone()]),
                None => Err(texts::no_such_version(model, version)),
            };
        }
        match versions.map(newest_first) {
            Some(all) if !all.is_empty() => Ok(all),
            _ => Err(texts::no_versions(model)),
        }
    }

    /// Every model with its versions, newest first.
    pub(crate) fn models(&self) -> Vec<(ModelName, Vec<VersionStatus>)> {
        self.read()
            .iter()
            .map(|(model, versions)| (model.clone(), newest_first(versions)))
            .collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<ModelName, Versions>> {
        self.models.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<ModelName, Versions>> {
        self.models.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn newest_first(versions: &Versions) -> Vec<VersionStatus> {
    versions.values().rev().cloned().collect()
}

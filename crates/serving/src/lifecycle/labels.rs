//! Labels: names for versions that serve. A part of the manager.
//!
//! Invariant: a label that is moved to a version that is still to come names its former version until
//! the new one serves, and is moved in the publication that brings it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vesta_model::{ModelName, Status, Version};

use super::manager::Manager;
use crate::catalog::Labels;
use crate::servable::ServableId;
use crate::texts;

impl Manager {
    /// Replaces all labels, or none when one of them may not be set.
    pub(super) fn set_labels(
        &mut self,
        mut labels: Labels,
        allow_unavailable: bool,
        coming: &BTreeMap<ModelName, BTreeSet<Version>>,
    ) -> Result<(), Status> {
        if self.closing.is_some() {
            return Err(texts::shutting_down());
        }
        let mut awaited = Labels::default();
        for (model, wanted) in &mut labels {
            let present = self.catalog.labels.get(model);
            for (label, version) in std::mem::take(wanted) {
                let former = present.and_then(|present| present.get(&label)).copied();
                let may = allow_unavailable && former.is_none_or(|former| former == version);
                if may || self.catalog.serves(model, version) {
                    wanted.insert(label, version);
                } else if coming.get(model).is_some_and(|versions| versions.contains(&version)) {
                    if let Some(former) = former {
                        wanted.insert(label.clone(), former);
                    }
                    awaited.entry(model.clone()).or_default().insert(label, version);
                } else {
                    return Err(texts::label_of_unavailable(model, version));
                }
            }
        }
        self.catalog.labels = Arc::new(labels);
        self.awaited_labels = awaited;
        self.publish();
        self.parts.board.changed();
        Ok(())
    }

    /// Puts the labels that wait for a version into the next publication.
    pub(super) fn list_awaited_labels(&mut self, id: &ServableId) {
        let Some(awaited) = self.awaited_labels.get_mut(&id.model) else { return };
        let arrived: Vec<_> = awaited.extract_if(.., |_, version| *version == id.version).collect();
        if !arrived.is_empty() {
            let labels = Arc::make_mut(&mut self.catalog.labels);
            labels.entry(id.model.clone()).or_default().extend(arrived);
        }
    }
}

//! What requests are resolved against: an immutable snapshot, replaced as a whole.
//!
//! Owns the lookup and its errors; may not know how versions come and go. Invariant: a lookup takes
//! no lock, so no writer, loader or other model can hold it up.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use vesta_model::{Label, ModelName, ModelSpec, Status, Version, VersionChoice};

use crate::lease::Lease;
use crate::texts;

/// Labels of all models.
pub(crate) type Labels = BTreeMap<ModelName, BTreeMap<Label, Version>>;

/// The versions of one model that requests may have.
pub(crate) type Versions = BTreeMap<Version, Lease>;

/// One publication.
#[derive(Clone, Default)]
pub(crate) struct Catalog {
    /// Models with at least one version.
    pub(crate) models: HashMap<ModelName, Arc<Versions>>,
    pub(crate) labels: Arc<Labels>,
    /// Whether the server is going away, so that nothing is found any more.
    pub(crate) closed: bool,
}

impl Catalog {
    /// The version that `spec` means.
    pub(crate) fn resolve(&self, spec: &ModelSpec) -> Result<Lease, Status> {
        if spec.name.as_str().is_empty() {
            return Err(texts::no_model_name());
        }
        if self.closed {
            return Err(texts::shutting_down());
        }
        let choice = match &spec.choice {
            VersionChoice::Label(label) => VersionChoice::Version(
                self.labels
                    .get(&spec.name)
                    .and_then(|labels| labels.get(label))
                    .copied()
                    .ok_or_else(|| texts::unknown_label(label))?,
            ),
            other => other.clone(),
        };
        let versions = self.models.get(&spec.name);
        let found = match &choice {
            VersionChoice::Version(version) => versions.and_then(|all| all.get(version)),
            VersionChoice::Latest | VersionChoice::Label(_) => {
                versions.and_then(|all| all.values().next_back())
            }
        };
        found.cloned().ok_or_else(|| texts::servable_not_found(&spec.name, &choice))
    }

    /// Every model that is configured, by name: those that labels were set for.
    pub(crate) fn configured(&self) -> impl Iterator<Item = &ModelName> {
        self.labels.keys()
    }

    /// Whether requests may have this version now.
    pub(crate) fn serves(&self, model: &ModelName, version: Version) -> bool {
        self.models.get(model).is_some_and(|versions| versions.contains_key(&version))
    }
}

/// Where the current publication is found.
#[derive(Default)]
pub(crate) struct Published(ArcSwap<Catalog>);

impl Published {
    /// The version that `spec` means at this moment.
    pub(crate) fn resolve(&self, spec: &ModelSpec) -> Result<Lease, Status> {
        self.0.load().resolve(spec)
    }

    /// What is published at this moment.
    pub(crate) fn current(&self) -> Arc<Catalog> {
        self.0.load_full()
    }

    /// Replaces the publication. Readers that hold the former one keep it until they are done.
    pub(crate) fn publish(&self, catalog: Catalog) {
        self.0.store(Arc::new(catalog));
    }
}

//! Which models are served: from configuration to aspired versions.
//!
//! Owns the set of configured models and the reload of it. One lock orders what the watcher
//! announces and what a reload removes, so a poll that was under way cannot bring a removed model
//! back.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::info;
use vesta_model::{Label, ModelConfig, ModelName, Status, Version};
use vesta_repository::{Found, Poll, Watcher};
use vesta_serving::{Aspired, Reconfigure, Serving};

use crate::startup;

/// How long a model that was taken out of the configuration goes on serving. The original acts every
/// 100 ms, and a client that reloads and asks at once is still answered there.
const REMOVAL_DELAY: Duration = Duration::from_millis(100);

/// The operator's door: what is configured, and how to change it.
pub(crate) struct Models {
    serving: Serving,
    watcher: Watcher,
    configured: Arc<Mutex<BTreeMap<ModelName, ModelConfig>>>,
    labels_for_unavailable: bool,
}

impl Models {
    /// Starts watching; nothing is configured yet.
    pub(crate) fn start(
        serving: Serving,
        poll: Poll,
        tags: Vec<String>,
        labels_for_unavailable: bool,
    ) -> Result<Models, Status> {
        let configured: Arc<Mutex<BTreeMap<ModelName, ModelConfig>>> = Arc::default();
        let (current, target) = (Arc::clone(&configured), serving.clone());
        let watcher = Watcher::start(poll, move |model, found| {
            let current = lock(&current);
            if current.contains_key(model) {
                target.aspire(model, found.into_iter().map(|f| aspired(f, &tags)).collect());
            }
        })?;
        Ok(Models { serving, watcher, configured, labels_for_unavailable })
    }

    /// Makes `models` the whole configuration; gives the names that are new. Call it inside the
    /// runtime.
    pub(crate) fn apply(&self, models: Vec<ModelConfig>) -> Result<Vec<ModelName>, Status> {
        let mut configured = lock(&self.configured);
        let labels: BTreeMap<ModelName, BTreeMap<Label, Version>> =
            models.iter().map(|model| (model.name.clone(), model.labels.clone())).collect();
        // First, because it checks: a refused label leaves everything as it was.
        self.serving.set_labels(labels, self.labels_for_unavailable)?;
        info!("Adding/updating models.");
        let next: BTreeMap<ModelName, ModelConfig> =
            models.iter().map(|model| (model.name.clone(), model.clone())).collect();
        let removed = configured.keys().filter(|name| !next.contains_key(*name)).cloned().collect();
        let new = next.keys().filter(|name| !configured.contains_key(*name)).cloned().collect();
        *configured = next;
        drop(configured);
        self.remove_later(removed);
        self.watcher.watch(models);
        Ok(new)
    }

    /// Unloads models after the delay, unless they were configured anew by then.
    fn remove_later(&self, removed: Vec<ModelName>) {
        if removed.is_empty() {
            return;
        }
        let (configured, serving) = (Arc::clone(&self.configured), self.serving.clone());
        tokio::spawn(async move {
            tokio::time::sleep(REMOVAL_DELAY).await;
            let configured = lock(&configured);
            for name in removed.iter().filter(|name| !configured.contains_key(*name)) {
                serving.aspire(name, Vec::new());
            }
        });
    }

    /// Waits until each of `models` has an available version or one that failed for good.
    ///
    /// # Errors
    /// `UNKNOWN` with the original's list of failures; `noun` is what it calls them there.
    pub(crate) async fn settled(&self, models: &[ModelName], noun: &str) -> Result<(), Status> {
        let failures = self.serving.settled(models).await;
        if failures.is_empty() {
            return Ok(());
        }
        Err(startup::did_not_become_available(&failures, noun))
    }
}

impl Reconfigure for Models {
    fn reconfigure(
        &self,
        models: Vec<ModelConfig>,
    ) -> Pin<Box<dyn Future<Output = Result<(), Status>> + Send + '_>> {
        Box::pin(async move {
            let new = self.apply(models)?;
            self.settled(&new, "model(s)").await
        })
    }
}

fn aspired(found: Found, tags: &[String]) -> Aspired {
    Aspired { version: found.version, artifact: found.artifact, tags: tags.to_vec() }
}

/// The map is replaced whole, so a panic elsewhere cannot leave it half-changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

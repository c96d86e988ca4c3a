//! Which models are served: from configuration, and an operator's words, to aspired versions.
//!
//! Owns the set of configured models and the reload of it. One lock orders what the watcher
//! announces and what a reload removes, so a poll that was under way cannot bring a removed model
//! back. Reloads are checked and applied one at a time; the wait for their models blocks no other.

mod desired;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};
use tracing::info;
use vesta_frontends::RequestLog;
use vesta_model::{BasePath, Code, Label, ModelConfig, ModelName, Status, Version};
use vesta_repository::{Found, Poll, Store, Watcher, select};
use vesta_serving::{Administer, Administered, Aspired, Edition, Phase, Reconfigure, Serving};

use self::desired::Desired;
use crate::startup;

/// How long a model that was taken out of the configuration goes on serving. The original acts every
/// 100 ms, and a client that reloads and asks at once is still answered there.
const REMOVAL_DELAY: Duration = Duration::from_millis(100);
/// How long a reload waits to see whether a version that a label names is there at all.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a reload looks whether the versions that its labels name are there.
const LABEL_INTERVAL: Duration = Duration::from_millis(20);

/// How long an error may be an old one that the next poll makes void.
const ERROR_GRACE: Duration = Duration::from_secs(2);

/// Versions by model.
type Versions = BTreeMap<ModelName, BTreeSet<Version>>;

/// The operator's door: what is configured, and how to change it.
pub(crate) struct Models {
    serving: Serving,
    watcher: Watcher,
    poll: Poll,
    configured: Arc<Mutex<Configured>>,
    /// Told of each change of the configuration.
    changes: watch::Sender<()>,
    /// Held while a reload is checked and applied; what it was applied of.
    turn: tokio::sync::Mutex<Desired>,
    labels_for_unavailable: bool,
    request_log: RequestLog,
}

#[derive(Default)]
struct Configured {
    models: BTreeMap<ModelName, ModelConfig>,
    /// Models that were taken out and still serve, with their base paths.
    leaving: BTreeMap<ModelName, BasePath>,
}

/// What is to be waited for once a configuration was applied.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    /// Models that are new.
    new: Vec<ModelName>,
    /// Versions that labels wait for.
    labelled: Versions,
}

impl Models {
    /// Starts watching; nothing is configured yet.
    pub(crate) fn start(
        serving: Serving,
        poll: Poll,
        store: Arc<dyn Store>,
        tags: Vec<String>,
        labels_for_unavailable: bool,
        request_log: RequestLog,
    ) -> Result<Models, Status> {
        let configured: Arc<Mutex<Configured>> = Arc::default();
        let (current, target) = (Arc::clone(&configured), serving.clone());
        let asked = serving.clone();
        // What serves is left alone, so its files cost nothing but the look at its folder's name.
        let wants_edition = move |model: &ModelName, version| asked.wants_edition(model, version);
        let watcher = Watcher::start(poll, store, wants_edition, move |announced| {
            let model = &announced.model;
            let wanted = announced.wanted.into_iter().map(|found| aspired(found, &tags)).collect();
            let current = lock(&current);
            let configured = current.models.get(model);
            // What was seen under a base path that it had before says nothing about this one.
            if configured.is_some_and(|model| model.base_path == announced.base) {
                target.aspire(model, wanted);
            }
        })?;
        Ok(Models {
            serving,
            watcher,
            poll,
            configured,
            changes: watch::Sender::new(()),
            turn: tokio::sync::Mutex::default(),
            labels_for_unavailable,
            request_log,
        })
    }

    /// The configured models.
    pub(crate) fn names(&self) -> Vec<ModelName> {
        lock(&self.configured).models.keys().cloned().collect()
    }

    /// Makes `models` the first configuration.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` for a label, since no version serves yet, unless labels may say so.
    pub(crate) async fn begin(&self, models: Vec<ModelConfig>) -> Result<(), Status> {
        let mut desired = self.turn.lock().await;
        self.apply(models.clone(), Versions::new())?;
        *desired = desired.relisted(models);
        Ok(())
    }

    /// Makes `models` the whole of what is served, or none of it. Call it inside the runtime.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` for a label whose version neither serves nor is `coming`.
    fn apply(&self, models: Vec<ModelConfig>, coming: Versions) -> Result<Applied, Status> {
        let mut configured = lock(&self.configured);
        let labels: BTreeMap<ModelName, BTreeMap<Label, Version>> =
            models.iter().map(|model| (model.name.clone(), model.labels.clone())).collect();
        // First, because it checks: a refused label leaves everything as it was.
        self.serving.set_labels_expecting(labels, self.labels_for_unavailable, coming.clone())?;
        info!("Adding/updating models.");
        self.request_log.configure(&models);
        let next: BTreeMap<ModelName, ModelConfig> =
            models.iter().map(|model| (model.name.clone(), model.clone())).collect();
        let gone = |name: &&ModelName| !next.contains_key(*name);
        let removed: Vec<ModelName> = configured.models.keys().filter(gone).cloned().collect();
        let is_new = |name: &&ModelName| !configured.models.contains_key(*name);
        let new: Vec<ModelName> = next.keys().filter(is_new).cloned().collect();
        for name in &removed {
            if let Some(base) = configured.models.get(name).map(|model| model.base_path.clone()) {
                configured.leaving.insert(name.clone(), base);
            }
        }
        for name in &new {
            let former = configured.leaving.remove(name);
            if former.is_some_and(|former| next.get(name).is_some_and(|m| m.base_path != former)) {
                // Another model under the same name: the former one ends before this one begins.
                self.serving.aspire(name, Vec::new());
            }
        }
        configured.models = next;
        drop(configured);
        self.remove_later(removed);
        self.watcher.watch(models);
        self.changes.send_replace(());
        Ok(Applied { new, labelled: coming })
    }

    /// Checks a configuration and makes it the whole one, or none of it; what was said of single
    /// models since stays, where it says nothing new of them.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` for a label whose version neither serves nor comes.
    pub(crate) async fn replace(&self, models: Vec<ModelConfig>) -> Result<Applied, Status> {
        let mut desired = self.turn.lock().await;
        let next = desired.relisted(models);
        let applied = self.pursue(&next).await?;
        *desired = next;
        Ok(applied)
    }

    async fn pursue(&self, next: &Desired) -> Result<Applied, Status> {
        let models = next.models();
        let coming = self.coming(&models).await;
        self.apply(models, coming)
    }

    /// Whether a model's load has failed for good and nothing of it serves.
    fn is_down(&self, model: &ModelName) -> bool {
        let shown = self.serving.status(model.as_str(), None).unwrap_or_default();
        shown.iter().all(|one| one.phase == Phase::End)
    }

    /// Makes one model serve, without waiting for it.
    async fn begin_load(
        &self,
        name: &ModelName,
        model: Option<ModelConfig>,
    ) -> Result<Applied, Status> {
        let mut desired = self.turn.lock().await;
        let next = desired.with(name, model)?;
        if lock(&self.configured).models.contains_key(name) && self.is_down(name) {
            // A failed version is tried again once it was left out.
            self.pursue(&next.without(name)?).await?;
            self.serving.aspire(name, Vec::new());
        }
        let applied = self.pursue(&next).await?;
        *desired = next;
        info!("model {name} is loaded by an operator's order");
        Ok(Applied { new: vec![name.clone()], ..applied })
    }

    /// Makes one model serve no longer, without waiting for its end.
    async fn begin_unload(&self, name: &ModelName) -> Result<(), Status> {
        let mut desired = self.turn.lock().await;
        let next = desired.without(name)?;
        self.pursue(&next).await?;
        *desired = next;
        info!("model {name} is unloaded by an operator's order");
        Ok(())
    }

    /// Waits until a model that was left out has ended, or was loaded anew.
    async fn ended(&self, name: &ModelName) {
        let mut changes = self.serving.changes();
        loop {
            changes.mark_unchanged();
            let loaded_anew = lock(&self.configured).models.contains_key(name);
            if loaded_anew || self.is_down(name) || changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waits until what was applied serves, or will not.
    ///
    /// # Errors
    /// `UNKNOWN` with the new models that failed, in the original's words; `FAILED_PRECONDITION` when
    /// a version that a label names failed; `ABORTED` when a later configuration has none of the
    /// models that are waited for.
    pub(crate) async fn arrived(&self, applied: Applied) -> Result<(), Status> {
        let mut changes = self.changes.subscribe();
        loop {
            changes.mark_unchanged();
            let left: Vec<ModelName> = {
                let configured = lock(&self.configured);
                let stays = |name: &&ModelName| configured.models.contains_key(*name);
                applied.new.iter().filter(stays).cloned().collect()
            };
            if left.is_empty() && !applied.new.is_empty() {
                return Err(taken_away(&applied.new));
            }
            tokio::select! {
                settled = self.settled(&left, "model(s)") => break settled?,
                _ = changes.changed() => {}
            }
        }
        for (model, versions) in &applied.labelled {
            for &version in versions {
                self.labelled(model, version).await?;
            }
        }
        Ok(())
    }

    /// Waits until a version that a label names serves, or will not.
    async fn labelled(&self, model: &ModelName, version: Version) -> Result<(), Status> {
        // It may have failed long ago, before it was left out, and be tried again in a moment.
        let mut believed_at = Instant::now() + ERROR_GRACE;
        loop {
            // An error says that it is not known yet.
            let shown = self.serving.status(model.as_str(), Some(version)).unwrap_or_default();
            for one in &shown {
                if one.phase == Phase::Available {
                    return Ok(());
                }
                match one.end_error() {
                    Some(problem) if Instant::now() >= believed_at => {
                        return Err(label_of_unavailable(model, version, problem));
                    }
                    Some(_) => {}
                    None => believed_at = Instant::now(),
                }
            }
            let still_named = lock(&self.configured)
                .models
                .get(model)
                .is_some_and(|config| config.labels.values().any(|&labelled| labelled == version));
            if !still_named {
                return Err(taken_away(std::slice::from_ref(model)));
            }
            tokio::time::sleep(LABEL_INTERVAL).await;
        }
    }

    /// The versions that labels name, that do not serve yet, and that this configuration brings.
    async fn coming(&self, models: &[ModelConfig]) -> Versions {
        let mut coming = Versions::new();
        // Who lets labels name versions that are not there wants them set at once or refused, as the
        // original does it, and no wait.
        if self.labels_for_unavailable || self.poll == Poll::Never {
            return coming;
        }
        for model in models {
            let named: BTreeSet<Version> = model
                .labels
                .values()
                .copied()
                .filter(|&version| !self.serves(&model.name, version))
                .collect();
            if named.is_empty() {
                continue;
            }
            let Some(found) = self.look(model).await else { continue };
            let before = lock(&self.configured).models.get(&model.name).cloned();
            let comes = |version: &Version| {
                let is_there = found.iter().any(|f| f.version == *version && f.artifact.is_ok());
                is_there && !self.has_failed(model, before.as_ref(), &found, *version)
            };
            let versions: BTreeSet<Version> = named.into_iter().filter(comes).collect();
            if !versions.is_empty() {
                coming.insert(model.name.clone(), versions);
            }
        }
        coming
    }

    fn serves(&self, model: &ModelName, version: Version) -> bool {
        let shown = self.serving.status(model.as_str(), Some(version)).unwrap_or_default();
        shown.iter().any(|one| one.phase == Phase::Available)
    }

    /// Whether a version has failed and nothing about it changes, so that it is not tried again.
    fn has_failed(
        &self,
        model: &ModelConfig,
        before: Option<&ModelConfig>,
        found: &[Found],
        version: Version,
    ) -> bool {
        let shown = self.serving.status(model.name.as_str(), Some(version)).unwrap_or_default();
        let was_wanted = before.is_some_and(|before| {
            let kept = select(&before.policy, found.to_vec());
            before.base_path == model.base_path && kept.iter().any(|f| f.version == version)
        });
        was_wanted && shown.iter().any(|one| one.end_error().is_some())
    }

    /// What lies under a model's base path now and is wanted; `None` when that cannot be told.
    async fn look(&self, model: &ModelConfig) -> Option<Vec<Found>> {
        let (send, receive) = oneshot::channel();
        self.watcher.look(model.clone(), move |found| {
            // Whoever asked may have stopped waiting.
            let _ = send.send(found);
        });
        tokio::time::timeout(LOOK_TIMEOUT, receive).await.ok()?.ok()?.ok()
    }

    /// Unloads models after the delay, unless they were configured anew by then.
    fn remove_later(&self, removed: Vec<ModelName>) {
        if removed.is_empty() {
            return;
        }
        let (configured, serving) = (Arc::clone(&self.configured), self.serving.clone());
        tokio::spawn(async move {
            tokio::time::sleep(REMOVAL_DELAY).await;
            let mut configured = lock(&configured);
            for name in &removed {
                if !configured.models.contains_key(name) {
                    configured.leaving.remove(name);
                    serving.aspire(name, Vec::new());
                }
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
            let applied = self.replace(models).await?;
            self.arrived(applied).await
        })
    }
}

/// The door for orders about single models.
pub(crate) struct Orders(pub(crate) Arc<Models>);

impl Administer for Orders {
    fn load(&self, model: ModelName, config: Option<ModelConfig>) -> Administered<'_> {
        let (models, name) = (Arc::clone(&self.0), model.clone());
        Box::pin(async move {
            let applied = whole(async move { models.begin_load(&name, config).await }).await?;
            self.0.arrived(applied).await
        })
    }

    fn unload(&self, model: ModelName) -> Administered<'_> {
        let (models, name) = (Arc::clone(&self.0), model.clone());
        Box::pin(async move {
            whole(async move { models.begin_unload(&name).await }).await?;
            self.0.ended(&model).await;
            Ok(())
        })
    }
}

/// Carries `order` out to its end, even if whoever gave it goes away meanwhile.
async fn whole<T: Send + 'static>(
    order: impl Future<Output = Result<T, Status>> + Send + 'static,
) -> Result<T, Status> {
    tokio::spawn(order).await.unwrap_or_else(|error| {
        Err(Status::internal("the order could not be carried out").with_cause(error))
    })
}

fn aspired(found: Found, tags: &[String]) -> Aspired {
    let edition = found.edition.map(Edition);
    Aspired { version: found.version, artifact: found.artifact, tags: tags.to_vec(), edition }
}

fn taken_away(models: &[ModelName]) -> Status {
    let names: Vec<&str> = models.iter().map(ModelName::as_str).collect();
    Status::new(
        Code::Aborted,
        format!("a later configuration no longer asks for this of {}", names.join(", ")),
    )
}

/// The original's words for a label that cannot be set, and why it cannot.
fn label_of_unavailable(model: &ModelName, version: Version, problem: &Status) -> Status {
    Status::failed_precondition(format!(
        "Request to assign label to version {version} of model {model}, which is not currently \
         available for inference"
    ))
    .with_cause(problem.clone())
}

/// The maps are replaced whole, so a panic elsewhere cannot leave them half-changed.
fn lock(mutex: &Mutex<Configured>) -> MutexGuard<'_, Configured> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

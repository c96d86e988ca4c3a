//! The door of this crate: one value that stands for everything that is served.
//!
//! Owns the threads' start; may not know what they do. Invariant: requests only read publications,
//! everything that changes something is an event for the one thread that owns the state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};
use vesta_model::{Engine, Label, ModelName, ModelSpec, Status, Version};

use crate::batching::{RunObserver, Unobserved};
use crate::catalog::Published;
use crate::lifecycle::{Event, Manager, Parts, StatusBoard};
use crate::scheduler::Scheduler;
use crate::servable::ServableId;
use crate::{
    Aspired, Clock, Lease, Phase, Readiness, RealClock, ServingOptions, VersionStatus, readiness,
    texts,
};

/// Everything that is served. Clones are the same one; when the last is dropped, versions are
/// unloaded as their leases end.
#[derive(Clone)]
pub struct Serving {
    door: Arc<Door>,
}

/// What waits for one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueDepth {
    /// The model's name.
    pub model: ModelName,
    /// The version.
    pub version: Version,
    /// Requests that wait to be run; one that was cut for batching counts once for each piece.
    pub requests: usize,
}

/// Tells how many requests wait.
#[derive(Clone)]
pub struct QueueWatch {
    scheduler: Scheduler,
}

struct Door {
    published: Arc<Published>,
    board: Arc<StatusBoard>,
    scheduler: Scheduler,
    events: Sender<Event>,
    draining: AtomicBool,
}

impl Serving {
    /// Starts the life cycle's thread, loaders, unloaders and run threads.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when an option is 0 that must not be, `INTERNAL` when a thread cannot be
    /// started.
    pub fn start(engine: Arc<dyn Engine>, options: ServingOptions) -> Result<Serving, Status> {
        Serving::start_with(engine, options, Arc::new(RealClock))
    }

    /// The same with a clock of one's own, by which the life cycle's retries and limits are timed.
    ///
    /// # Errors
    /// Those of [`Serving::start`].
    pub fn start_with(
        engine: Arc<dyn Engine>,
        options: ServingOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Serving, Status> {
        Serving::start_observed(engine, options, clock, Arc::new(Unobserved))
    }

    /// The same with one who hears how requests wait and how they are batched.
    ///
    /// # Errors
    /// Those of [`Serving::start`].
    pub fn start_observed(
        engine: Arc<dyn Engine>,
        options: ServingOptions,
        clock: Arc<dyn Clock>,
        observer: Arc<dyn RunObserver>,
    ) -> Result<Serving, Status> {
        options.check()?;
        let (sender, events) = channel();
        let published = Arc::new(Published::default());
        let board = Arc::new(StatusBoard::default());
        let ServingOptions { run_threads, queue_runs_max, .. } = options;
        let scheduler = Scheduler::start(&engine, run_threads, queue_runs_max, observer)?;
        let parts = Parts {
            engine,
            options,
            published: Arc::clone(&published),
            board: Arc::clone(&board),
            scheduler: scheduler.clone(),
            sender: sender.clone(),
            clock,
        };
        let started = Manager::new(parts, events).and_then(|manager| {
            std::thread::Builder::new()
                .name("vesta-lifecycle".to_owned())
                .spawn(move || manager.run())
                .map_err(texts::no_thread)
        });
        match started {
            Ok(_) => {
                let draining = AtomicBool::new(false);
                let door = Door { published, board, scheduler, events: sender, draining };
                Ok(Serving { door: Arc::new(door) })
            }
            Err(status) => {
                scheduler.close();
                Err(status)
            }
        }
    }

    /// The version that a request means, kept alive by the lease. Never blocks.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for an empty name and an unknown label, `NOT_FOUND` for what is not
    /// loaded, `UNAVAILABLE` during a shutdown.
    pub fn resolve(&self, spec: &ModelSpec) -> Result<Lease, Status> {
        self.door.published.resolve(spec)
    }

    /// What tells how many requests wait. It does not keep anything served.
    pub fn queue_watch(&self) -> QueueWatch {
        QueueWatch { scheduler: self.door.scheduler.clone() }
    }

    /// Known versions, newest first; only `version` when given. Ended versions stay listed, the
    /// newest 100 of each model.
    ///
    /// # Errors
    /// `NOT_FOUND` when there is none.
    pub fn status(
        &self,
        name: &str,
        version: Option<Version>,
    ) -> Result<Vec<VersionStatus>, Status> {
        self.door.board.status(name, version)
    }

    /// Every model that was aspired, by name, with its versions, newest first. Of models that are
    /// over, the latest 1000 stay listed.
    pub fn models(&self) -> Vec<(ModelName, Vec<VersionStatus>)> {
        self.door.board.models()
    }

    /// Says the whole set of versions wanted for one model; leaving one out means unload. Returns
    /// at once. Of two entries with one number the later counts. A version that serves keeps
    /// serving the files that it was loaded from, whatever is aspired for its number later; one
    /// that failed is tried again when it is aspired with other files (at another place, or twice
    /// in a row in another edition), or again after it was left out.
    pub fn aspire(&self, model: &ModelName, wanted: Vec<Aspired>) {
        self.tell(Event::Aspire { model: model.clone(), wanted });
    }

    /// Whether the edition of a version's files is of interest: it is not loaded, so files that
    /// changed may make another try worth it. Sources need not look at the files of others.
    pub fn wants_edition(&self, model: &ModelName, version: Version) -> bool {
        let shown = self.door.board.status(model.as_str(), Some(version)).unwrap_or_default();
        !shown.iter().any(|one| matches!(one.phase, Phase::Available | Phase::Unloading))
    }

    /// Every configured model, that is, every one that labels were set for, by name.
    pub fn configured(&self) -> BTreeSet<ModelName> {
        self.door.published.current().configured().cloned().collect()
    }

    /// The versions that a model's labels name now.
    pub fn labels(&self, model: &ModelName) -> BTreeMap<Label, Version> {
        self.door.published.current().labels.get(model).cloned().unwrap_or_default()
    }

    /// Why a model cannot be used, in the words of [`Serving::readiness`]; `None` when it can.
    pub fn reason_not_ready(&self, model: &ModelName) -> Option<String> {
        readiness::reason(&self.door.board.status(model.as_str(), None).unwrap_or_default())
    }

    /// Whether every configured model, that is, every one that labels were set for, has a version
    /// that serves. Never blocks for long; not meant for the path of inference.
    pub fn readiness(&self) -> Readiness {
        let catalog = self.door.published.current();
        let mut models = Vec::new();
        let mut models_ready = 0;
        for model in catalog.configured() {
            let versions = self.door.board.status(model.as_str(), None).unwrap_or_default();
            match readiness::reason(&versions) {
                None => models_ready += 1,
                Some(why) => models.push((model.clone(), why)),
            }
        }
        let draining = catalog.closed || self.door.draining.load(Ordering::Acquire);
        Readiness { ready: models.is_empty() && !draining, draining, models_ready, models }
    }

    /// From now on [`Serving::readiness`] says that the server is on its way out, so that no new
    /// clients are sent to it. Everything else goes on until [`Serving::shutdown`].
    pub fn begin_drain(&self) {
        self.door.draining.store(true, Ordering::Release);
        self.door.board.changed();
    }

    /// From now on no batch waits for requests that may still come; for the time when none do.
    pub fn hurry_batches(&self) {
        self.door.scheduler.hurry();
    }

    /// Hears of each change that [`Serving::readiness`] may follow; several may be told as one.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.door.board.changes()
    }

    /// Replaces all labels of all models, in one publication. The models named, be it without
    /// labels, are those that are configured. Sees what was aspired before by the
    /// same thread. Waits for the life cycle's thread, which does not block.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` when a label names a version that does not serve, unless
    /// `allow_unavailable` and the label is new or stays where it was; nothing is changed then.
    /// `UNAVAILABLE` during a shutdown.
    pub fn set_labels(
        &self,
        labels: BTreeMap<ModelName, BTreeMap<Label, Version>>,
        allow_unavailable: bool,
    ) -> Result<(), Status> {
        self.set_labels_expecting(labels, allow_unavailable, BTreeMap::new())
    }

    /// As [`set_labels`](Self::set_labels), but a label may also name a version of `coming`, which
    /// is about to be aspired. It goes on naming what it named before, if anything, until that
    /// version serves: the version and its labels then come in one publication.
    ///
    /// # Errors
    /// Those of [`set_labels`](Self::set_labels).
    pub fn set_labels_expecting(
        &self,
        labels: BTreeMap<ModelName, BTreeMap<Label, Version>>,
        allow_unavailable: bool,
        coming: BTreeMap<ModelName, BTreeSet<Version>>,
    ) -> Result<(), Status> {
        let (reply, answer) = sync_channel(1);
        self.tell(Event::SetLabels { labels, allow_unavailable, coming, reply });
        answer.recv().unwrap_or_else(|_| Err(texts::shutting_down()))
    }

    /// Resolves when each of these models has a version that serves or one that is wanted and
    /// failed: of its versions, newest first, the first such decides. Gives the failures; none when
    /// a shutdown begins first. A model that nothing was aspired for keeps this waiting.
    pub async fn settled(&self, models: &[ModelName]) -> Vec<(ModelName, Version, Status)> {
        let (reply, answer) = oneshot::channel();
        self.tell(Event::Settle { models: models.to_vec(), reply });
        answer.await.unwrap_or_default()
    }

    /// Takes no new work, waits up to `drain` for runs in flight, unloads everything. Blocks until
    /// then, and for at most five seconds more when unloading hangs; call it where blocking is
    /// allowed. Leases that are still held then give `UNAVAILABLE`.
    pub fn shutdown(&self, drain: Duration) {
        let (reply, answer) = sync_channel(1);
        let now = Instant::now();
        // A limit past the clock's end is as good as a very long one.
        let until = now.checked_add(drain).unwrap_or(now + Duration::from_secs(u32::MAX.into()));
        self.tell(Event::Shutdown { until, reply });
        // An error says that a former shutdown is complete.
        let _ = answer.recv();
    }

    fn tell(&self, event: Event) {
        // After a shutdown there is nobody left to tell.
        let _ = self.door.events.send(event);
    }
}

impl QueueWatch {
    /// How many requests wait to be run, for each version that is loaded.
    pub fn depths(&self) -> Vec<QueueDepth> {
        let all = self.scheduler.waiting().into_iter();
        all.map(|(ServableId { model, version }, requests)| QueueDepth { model, version, requests })
            .collect()
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // After a shutdown there is nobody left to tell.
        let _ = self.events.send(Event::Deserted);
    }
}

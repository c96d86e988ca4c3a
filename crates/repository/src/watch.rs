//! Polling of base paths.
//!
//! One thread keeps the time and announces; others look (`scanners.rs`), each at one model. Each model
//! stands for itself: one whose base path cannot be read is reported and passed over, and nothing is
//! announced of it; one whose base path does not answer is not looked at again before it does.
//! Announcements repeat at every poll, since receivers compare with what they have; a log line is
//! written only when what is seen changes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tracing::{error, warn};
use vesta_model::{BasePath, ModelConfig, ModelName, Status, Version, VersionPolicy};

use crate::scanners::Scanners;
use crate::{Found, Store, fingerprint, select};

/// How often base paths are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poll {
    /// Again and again, this long apart.
    Every(Duration),
    /// Once for each configuration.
    Once,
    /// Not at all; no version is ever found.
    Never,
}

impl Poll {
    /// From the flag `file_system_poll_wait_seconds`: 0 is once, negative is never.
    pub fn from_seconds(seconds: i64) -> Poll {
        match seconds {
            0 => Poll::Once,
            1.. => Poll::Every(Duration::from_secs(seconds.unsigned_abs())),
            _ => Poll::Never,
        }
    }
}

/// The whole set of versions wanted for one model.
#[derive(Clone, Debug, PartialEq)]
pub struct Announcement {
    /// The model.
    pub model: ModelName,
    /// Where they were seen. A model may have been given another base path meanwhile.
    pub base: BasePath,
    /// The versions, oldest first.
    pub wanted: Vec<Found>,
}

/// Says whether the state of a version's files is of interest.
type WantsEdition = dyn Fn(&ModelName, Version) -> bool + Send + Sync;

/// Receives announcements; it must not block.
type Announce = dyn Fn(Announcement) + Send;

enum Order {
    Watch(Vec<ModelConfig>),
    Scanned {
        ticket: u64,
        seen: Result<Seen, Status>,
    },
    /// Something runs that may hang.
    Mind,
    Stop,
}

/// What one look gave.
struct Seen {
    wanted: Vec<Found>,
    doubled: Vec<Version>,
    /// Versions that the policy names and that are not there.
    missing: Vec<Version>,
}

/// Watches the base paths of the configured models. Dropping it stops the thread, and waits for no
/// base path that does not answer.
pub struct Watcher {
    orders: Sender<Order>,
    thread: Option<JoinHandle<()>>,
    scanners: Arc<Scanners>,
    store: Arc<dyn Store>,
}

impl Watcher {
    /// Starts the thread; `announce` is called on it. The state of a version's files is looked at
    /// only if `wants_edition` says so.
    ///
    /// # Errors
    /// `INTERNAL` when no thread can be started.
    pub fn start(
        poll: Poll,
        store: Arc<dyn Store>,
        wants_edition: impl Fn(&ModelName, Version) -> bool + Send + Sync + 'static,
        announce: impl Fn(Announcement) + Send + 'static,
    ) -> Result<Watcher, Status> {
        let (orders, inbox) = mpsc::channel();
        let scanners = Arc::new(Scanners::new());
        let watch = Watch {
            poll,
            models: BTreeMap::new(),
            next_ticket: 0,
            orders: orders.clone(),
            scanners: Arc::clone(&scanners),
            store: Arc::clone(&store),
            wants_edition: Arc::new(wants_edition),
            announce: Box::new(announce),
        };
        let thread = thread::Builder::new()
            .name("vesta-watch".to_owned())
            .spawn(move || watch.run(&inbox))
            .map_err(|e| {
                Status::internal("the thread that watches model files did not start").with_cause(e)
            })?;
        Ok(Watcher { orders, thread: Some(thread), scanners, store })
    }

    /// Watches these models from now on, instead of those before. Copies of versions of models that
    /// are left out may go.
    pub fn watch(&self, models: Vec<ModelConfig>) {
        self.tell(Order::Watch(models));
    }

    /// Looks at one model now, whether it is watched or not, and gives what is wanted of it to
    /// `reply`, on another thread. A base path that does not answer gives nothing.
    pub fn look(
        &self,
        model: ModelConfig,
        reply: impl FnOnce(Result<Vec<Found>, Status>) + Send + 'static,
    ) {
        let store = Arc::clone(&self.store);
        self.scanners.submit(what(&model), move || {
            reply(look(&*store, &model).map(|seen| seen.wanted));
        });
        self.tell(Order::Mind);
    }

    fn tell(&self, order: Order) {
        // A send fails only after the thread has stopped, when nobody waits for an answer.
        let _ = self.orders.send(order);
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.tell(Order::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn what(model: &ModelConfig) -> String {
    format!("base path {} of servable {}", model.base_path, model.name)
}

/// One look at one model.
fn look(store: &dyn Store, model: &ModelConfig) -> Result<Seen, Status> {
    let listing = store.list(&model.name, &model.base_path)?;
    let missing = match &model.policy {
        VersionPolicy::Specific(named) => {
            let there = |version: &Version| listing.versions.iter().any(|f| f.version == *version);
            named.iter().copied().filter(|version| !there(version)).collect()
        }
        _ => Vec::new(),
    };
    let wanted = select(&model.policy, listing.versions);
    Ok(Seen { wanted, doubled: listing.doubled, missing })
}

/// Looks at the state of files where that is of interest.
fn add_editions(model: &ModelName, wanted: &mut [Found], wants_edition: &WantsEdition) {
    for found in wanted {
        // Files in a store are told apart when they are fetched.
        let local = found.artifact.as_deref().ok().filter(|artifact| artifact.is_absolute());
        found.edition = local.filter(|_| wants_edition(model, found.version)).and_then(fingerprint);
    }
}

/// One model that is watched.
struct Watched {
    config: ModelConfig,
    /// The look that is under way.
    ticket: Option<u64>,
    /// Whether another look is due when that one is over.
    again: bool,
    /// What the last look gave, as far as the log tells of it.
    told: Option<Result<Told, Status>>,
}

/// What the log tells of a look.
#[derive(Clone, PartialEq)]
struct Told {
    is_empty: bool,
    doubled: Vec<Version>,
    missing: Vec<Version>,
}

struct Watch {
    poll: Poll,
    models: BTreeMap<ModelName, Watched>,
    next_ticket: u64,
    orders: Sender<Order>,
    scanners: Arc<Scanners>,
    store: Arc<dyn Store>,
    wants_edition: Arc<WantsEdition>,
    announce: Box<Announce>,
}

impl Watch {
    fn run(mut self, inbox: &Receiver<Order>) {
        let mut next_poll: Option<Instant> = None;
        loop {
            let until_poll = next_poll.map(|at| at.saturating_duration_since(Instant::now()));
            let wait = until_poll.into_iter().chain(self.scanners.check()).min();
            let order = match wait {
                Some(wait) => inbox.recv_timeout(wait),
                None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match order {
                Ok(Order::Watch(models)) => {
                    self.replace(models);
                    next_poll = next_poll.or_else(|| self.next_poll());
                }
                Ok(Order::Scanned { ticket, seen }) => self.on_scanned(ticket, seen),
                Ok(Order::Mind) | Err(RecvTimeoutError::Timeout) => {}
                Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            }
            if next_poll.is_some_and(|at| at <= Instant::now()) {
                let names: Vec<ModelName> = self.models.keys().cloned().collect();
                for name in names {
                    self.scan(&name);
                }
                next_poll = self.next_poll();
            }
        }
    }

    /// Takes over a configuration and looks at the models that are new; where polls do not repeat,
    /// at all of them.
    fn replace(&mut self, models: Vec<ModelConfig>) {
        let repeats = matches!(self.poll, Poll::Every(_));
        let mut before = std::mem::take(&mut self.models);
        let (mut due, mut gone) = (Vec::new(), Vec::new());
        for config in models {
            let name = config.name.clone();
            let watched = match before.remove(&name) {
                Some(known) if known.config.base_path == config.base_path => {
                    Watched { config, ..known }
                }
                // What a look at the former base path gives is of no interest any more.
                Some(known) => {
                    gone.push(known.config.base_path);
                    Watched { config, ticket: None, again: false, told: None }
                }
                None => {
                    due.push(name.clone());
                    Watched { config, ticket: None, again: false, told: None }
                }
            };
            if !repeats && due.last() != Some(&name) {
                due.push(name.clone());
            }
            self.models.insert(name, watched);
        }
        gone.extend(before.into_values().map(|watched| watched.config.base_path));
        for base in &gone {
            self.forget(base);
        }
        for name in due {
            self.scan(&name);
        }
    }

    /// Nothing under this base path is wanted any more.
    fn forget(&self, base: &BasePath) {
        if self.models.values().any(|watched| watched.config.base_path == *base) {
            return;
        }
        let (store, base) = (Arc::clone(&self.store), base.clone());
        self.scanners.submit(format!("removal of copies of {base}"), move || {
            store.keep(&base, &[]);
        });
    }

    fn next_poll(&self) -> Option<Instant> {
        match self.poll {
            Poll::Every(interval) => Some(Instant::now() + interval),
            Poll::Once | Poll::Never => None,
        }
    }

    /// Has a model looked at, unless a look is under way.
    fn scan(&mut self, name: &ModelName) {
        if self.poll == Poll::Never {
            return;
        }
        let Some(watched) = self.models.get_mut(name) else { return };
        if watched.ticket.is_some() {
            // Where polls repeat, the next one does.
            watched.again = self.poll == Poll::Once;
            return;
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        watched.ticket = Some(ticket);
        let (store, orders) = (Arc::clone(&self.store), self.orders.clone());
        let config = watched.config.clone();
        let wants_edition = Arc::clone(&self.wants_edition);
        self.scanners.submit(what(&config), move || {
            let mut seen = look(&*store, &config);
            if let Ok(seen) = &mut seen {
                add_editions(&config.name, &mut seen.wanted, &*wants_edition);
                let versions: Vec<Version> = seen.wanted.iter().map(|f| f.version).collect();
                store.keep(&config.base_path, &versions);
            }
            // Nobody listens any more once the watcher is gone.
            let _ = orders.send(Order::Scanned { ticket, seen });
        });
    }

    /// Announces what a look gave, unless it is of no interest any more.
    fn on_scanned(&mut self, ticket: u64, seen: Result<Seen, Status>) {
        let found = self.models.values_mut().find(|watched| watched.ticket == Some(ticket));
        let Some(watched) = found else { return };
        watched.ticket = None;
        let told = seen.as_ref().map_err(Clone::clone).map(|seen| Told {
            is_empty: seen.wanted.is_empty(),
            doubled: seen.doubled.clone(),
            missing: seen.missing.clone(),
        });
        let config = &watched.config;
        if watched.told.as_ref() != Some(&told) {
            tell(config, &told);
            watched.told = Some(told);
        }
        if let Ok(seen) = seen {
            (self.announce)(Announcement {
                model: config.name.clone(),
                base: config.base_path.clone(),
                wanted: seen.wanted,
            });
        }
        if std::mem::take(&mut watched.again) {
            let name = config.name.clone();
            self.scan(&name);
        }
    }
}

/// Tells the log what is amiss.
fn tell(config: &ModelConfig, told: &Result<Told, Status>) {
    let ModelConfig { name, base_path, .. } = config;
    let told = match told {
        Ok(told) => told,
        Err(status) => {
            error!(
                "FileSystemStoragePathSource encountered a filesystem access error: {}",
                status.message()
            );
            return;
        }
    };
    if told.is_empty {
        warn!(
            "No versions of servable {name} found under base path {base_path}. Did you forget to \
             name your leaf directory as a number (eg. '/1/')?"
        );
    }
    for version in &told.doubled {
        warn!(
            "two directories under {base_path} are version {version} of servable {name}; the later \
             name is used"
        );
    }
    for version in &told.missing {
        warn!(
            "version {version} of servable {name} is configured, but is not under its base path \
             {base_path}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Fetched, Listing, LocalDisk};
    use std::collections::BTreeMap as Map;
    use std::path::Path;
    use std::sync::Mutex;

    fn config(name: &str, base: &Path) -> ModelConfig {
        ModelConfig {
            name: name.into(),
            base_path: base.into(),
            policy: VersionPolicy::default(),
            labels: Map::new(),
            request_logging: None,
        }
    }

    type Heard = Receiver<(String, Vec<Version>)>;

    fn watcher(poll: Poll) -> (Watcher, Heard) {
        watcher_of(poll, Arc::new(LocalDisk))
    }

    fn watcher_of(poll: Poll, store: Arc<dyn Store>) -> (Watcher, Heard) {
        let (send, receive) = mpsc::channel();
        let watcher = Watcher::start(
            poll,
            store,
            |_, version| version.0 % 2 == 1,
            move |announced| {
                let versions = announced.wanted.iter().map(|f| f.version).collect();
                let _ = send.send((announced.model.to_string(), versions));
            },
        )
        .unwrap();
        (watcher, receive)
    }

    /// A store with version 1 under every base path; a look at one that is called `hang` waits for
    /// the lock.
    #[derive(Default)]
    struct Hanging {
        lock: Mutex<()>,
        wanted: Mutex<Vec<(String, Vec<Version>)>>,
    }

    impl Store for Hanging {
        fn list(&self, _: &ModelName, base: &BasePath) -> Result<Listing, Status> {
            if base.to_string().starts_with("/hang") {
                drop(self.lock.lock().unwrap());
            }
            let found = Found { version: Version(1), artifact: Ok("/1".into()), edition: None };
            Ok(Listing { versions: vec![found], doubled: Vec::new() })
        }

        fn fetch(&self, artifact: &Path) -> Result<Fetched, Status> {
            LocalDisk.fetch(artifact)
        }

        fn keep(&self, base: &BasePath, wanted: &[Version]) {
            self.wanted.lock().unwrap().push((base.to_string(), wanted.to_vec()));
        }
    }

    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn a_missing_base_path_does_not_stop_the_others() {
        let base = tempfile::tempdir().unwrap();
        std::fs::create_dir(base.path().join("2")).unwrap();
        let (watcher, receive) = watcher(Poll::Once);
        watcher.watch(vec![config("bad", Path::new("/nonexistent")), config("good", base.path())]);
        assert_eq!(receive.recv_timeout(PATIENCE), Ok(("good".to_owned(), vec![Version(2)])));
        assert!(receive.recv_timeout(Duration::from_millis(50)).is_err());
    }

    #[test]
    fn a_new_version_is_seen_at_a_later_poll() {
        let base = tempfile::tempdir().unwrap();
        std::fs::create_dir(base.path().join("1")).unwrap();
        let (watcher, receive) = watcher(Poll::Every(Duration::from_millis(5)));
        watcher.watch(vec![config("m", base.path())]);
        assert_eq!(receive.recv_timeout(PATIENCE).unwrap().1, [Version(1)]);
        std::fs::create_dir(base.path().join("2")).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while receive.recv_timeout(PATIENCE).unwrap().1 != [Version(2)] {
            assert!(Instant::now() < deadline, "version 2 was never announced");
        }
    }

    #[test]
    fn a_new_policy_waits_for_the_next_poll_and_a_new_model_does_not() {
        let base = tempfile::tempdir().unwrap();
        std::fs::create_dir(base.path().join("1")).unwrap();
        std::fs::create_dir(base.path().join("2")).unwrap();
        let (watcher, receive) = watcher(Poll::Every(Duration::from_secs(2)));
        watcher.watch(vec![config("m", base.path())]);
        assert_eq!(receive.recv_timeout(PATIENCE).unwrap().1, [Version(2)]);
        let all = ModelConfig { policy: VersionPolicy::All, ..config("m", base.path()) };
        watcher.watch(vec![all, config("n", base.path())]);
        assert_eq!(receive.recv_timeout(PATIENCE), Ok(("n".to_owned(), vec![Version(2)])));
        // Models are looked at side by side, so the other may be announced again first.
        let next = std::iter::repeat_with(|| receive.recv_timeout(PATIENCE))
            .find(|next| !matches!(next, Ok((model, _)) if model == "n"));
        assert_eq!(next, Some(Ok(("m".to_owned(), vec![Version(1), Version(2)]))));
    }

    #[test]
    fn never_means_never() {
        let base = tempfile::tempdir().unwrap();
        std::fs::create_dir(base.path().join("1")).unwrap();
        let (watcher, receive) = watcher(Poll::from_seconds(-1));
        watcher.watch(vec![config("m", base.path())]);
        assert!(receive.recv_timeout(Duration::from_millis(50)).is_err());
    }

    #[test]
    fn base_paths_that_hang_delay_no_other_model() {
        let store = Arc::new(Hanging::default());
        let held = store.lock.lock().unwrap();
        let (watcher, heard) =
            watcher_of(Poll::Every(Duration::from_millis(100)), Arc::clone(&store) as _);
        let hang = |n: u32| config(&format!("hang{n}"), Path::new(&format!("/hang{n}")));
        let mut models: Vec<ModelConfig> = (0..5).map(hang).collect();
        models.push(config("good", Path::new("/good")));
        watcher.watch(models.clone());
        for _ in 0..3 {
            assert_eq!(heard.recv_timeout(PATIENCE).unwrap().0, "good");
        }
        // A model that is added later is found, too, and so is one that is only looked at.
        models.push(config("new", Path::new("/new")));
        watcher.watch(models);
        while heard.recv_timeout(PATIENCE).unwrap().0 != "new" {}
        let (reply, looked) = mpsc::channel();
        watcher.look(config("x", Path::new("/x")), move |found| reply.send(found).unwrap());
        assert_eq!(looked.recv_timeout(PATIENCE).unwrap().unwrap().len(), 1);
        drop(held);
        while heard.recv_timeout(PATIENCE).unwrap().0 != "hang4" {}
    }

    #[test]
    fn the_end_waits_for_no_base_path() {
        let store = Arc::new(Hanging::default());
        let held = store.lock.lock().unwrap();
        let (watcher, _heard) = watcher_of(Poll::Once, Arc::clone(&store) as _);
        watcher.watch(vec![config("hang", Path::new("/hang"))]);
        let started = Instant::now();
        drop(watcher);
        assert!(started.elapsed() < PATIENCE);
        drop(held);
    }

    #[test]
    fn a_late_look_at_a_former_base_path_announces_nothing() {
        let store = Arc::new(Hanging::default());
        let held = store.lock.lock().unwrap();
        let (watcher, heard) = watcher_of(Poll::Once, Arc::clone(&store) as _);
        watcher.watch(vec![config("m", Path::new("/hang"))]);
        watcher.watch(vec![config("m", Path::new("/good"))]);
        assert_eq!(heard.recv_timeout(PATIENCE).unwrap().0, "m");
        drop(held);
        assert!(heard.recv_timeout(Duration::from_millis(100)).is_err());
        // Nothing of the former base path is kept.
        let wanted = store.wanted.lock().unwrap();
        assert!(wanted.contains(&("/hang".to_owned(), Vec::new())), "{wanted:?}");
        assert!(wanted.contains(&("/good".to_owned(), vec![Version(1)])), "{wanted:?}");
    }

    #[test]
    fn a_configuration_that_comes_during_a_look_is_looked_at_again() {
        let store = Arc::new(Hanging::default());
        let held = store.lock.lock().unwrap();
        let (watcher, heard) = watcher_of(Poll::Once, Arc::clone(&store) as _);
        let none = ModelConfig {
            policy: VersionPolicy::Specific(Vec::new()),
            ..config("m", Path::new("/hang"))
        };
        watcher.watch(vec![config("m", Path::new("/hang"))]);
        watcher.watch(vec![none]);
        drop(held);
        assert_eq!(heard.recv_timeout(PATIENCE).unwrap().1, [Version(1)]);
        assert_eq!(heard.recv_timeout(PATIENCE).unwrap().1, []);
    }

    #[test]
    fn the_state_of_files_is_looked_at_only_where_it_is_of_interest() {
        let base = tempfile::tempdir().unwrap();
        std::fs::create_dir(base.path().join("1")).unwrap();
        std::fs::create_dir(base.path().join("2")).unwrap();
        let found = |version: i64| Found {
            version: Version(version),
            artifact: Ok(base.path().join(version.to_string())),
            edition: None,
        };
        let mut wanted = vec![found(1), found(2)];
        add_editions(&"m".into(), &mut wanted, &|_, version| version == Version(1));
        assert!(wanted[0].edition.is_some() && wanted[1].edition.is_none());
    }
}

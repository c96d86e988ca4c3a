//! Polling of base paths on a thread of its own.
//!
//! Each model stands for itself: one whose directory cannot be read is reported and passed over,
//! and nothing is announced of it. Announcements repeat at every poll, since receivers compare with
//! what they have; a log line is written only when what is seen changes.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tracing::{error, warn};
use vesta_model::{ModelConfig, ModelName, Status};

use crate::{Found, scan, select};

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

/// Receives the whole set of versions wanted for one model.
type Announce = dyn Fn(&ModelName, Vec<Found>) + Send;

enum Order {
    Watch(Vec<ModelConfig>),
    Stop,
}

/// Watches the base paths of the configured models. Dropping it stops the thread.
pub struct Watcher {
    orders: Sender<Order>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Starts the thread; `announce` is called on it.
    ///
    /// # Errors
    /// `INTERNAL` when no thread can be started.
    pub fn start(
        poll: Poll,
        announce: impl Fn(&ModelName, Vec<Found>) + Send + 'static,
    ) -> Result<Watcher, Status> {
        let (orders, inbox) = mpsc::channel();
        let mut state =
            Watch { poll, models: Vec::new(), seen: BTreeMap::new(), announce: Box::new(announce) };
        let thread = thread::Builder::new()
            .name("vesta-watch".to_owned())
            .spawn(move || {
                let mut next_poll = None;
                loop {
                    let order = match next_poll {
                        Some(at) => {
                            inbox.recv_timeout(Instant::duration_since(&at, Instant::now()))
                        }
                        None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                    };
                    match order {
                        Ok(Order::Watch(models)) => {
                            state.replace(models);
                            next_poll = next_poll.or_else(|| state.next_poll());
                        }
                        Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                        Err(RecvTimeoutError::Timeout) => {
                            state.poll_all();
                            next_poll = state.next_poll();
                        }
                    }
                }
            })
            .map_err(|e| {
                Status::internal("the thread that watches model files did not start").with_cause(e)
            })?;
        Ok(Watcher { orders, thread: Some(thread) })
    }

    /// Watches these models from now on, instead of those before.
    pub fn watch(&self, models: Vec<ModelConfig>) {
        // A send fails only after the thread has stopped, when nobody waits for an answer.
        let _ = self.orders.send(Order::Watch(models));
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.orders.send(Order::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Watch {
    poll: Poll,
    models: Vec<ModelConfig>,
    seen: BTreeMap<ModelName, Result<usize, Status>>,
    announce: Box<Announce>,
}

impl Watch {
    /// Takes over a configuration and looks at the models that are new; where polls do not repeat,
    /// at all of them.
    fn replace(&mut self, models: Vec<ModelConfig>) {
        let before = std::mem::replace(&mut self.models, models);
        self.seen.retain(|name, _| self.models.iter().any(|model| model.name == *name));
        let repeats = matches!(self.poll, Poll::Every(_));
        let is_known = |model: &ModelConfig| before.iter().any(|known| known.name == model.name);
        for model in self.models.clone() {
            if !repeats || !is_known(&model) {
                self.poll_one(&model);
            }
        }
    }

    fn poll_all(&mut self) {
        for model in self.models.clone() {
            self.poll_one(&model);
        }
    }

    fn next_poll(&self) -> Option<Instant> {
        match self.poll {
            Poll::Every(interval) => Some(Instant::now() + interval),
            Poll::Once | Poll::Never => None,
        }
    }

    /// Looks at one model and announces what is wanted of it.
    fn poll_one(&mut self, model: &ModelConfig) {
        if self.poll == Poll::Never {
            return;
        }
        let outcome = scan(&model.name, &model.base_path)
            .map(|found| select(&model.name, &model.policy, found));
        let summary = outcome.as_ref().map(Vec::len).map_err(Clone::clone);
        let is_news = self.seen.insert(model.name.clone(), summary.clone()) != Some(summary);
        match outcome {
            Ok(wanted) => {
                if wanted.is_empty() && is_news {
                    warn!(
                        "No versions of servable {} found under base path {}. Did you forget to \
                         name your leaf directory as a number (eg. '/1/')?",
                        model.name,
                        model.base_path.display()
                    );
                }
                (self.announce)(&model.name, wanted);
            }
            Err(status) if is_news => error!(
                "FileSystemStoragePathSource encountered a filesystem access error: {}",
                status.message()
            ),
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap as Map;
    use std::path::Path;
    use vesta_model::{Version, VersionPolicy};

    fn config(name: &str, base: &Path) -> ModelConfig {
        ModelConfig {
            name: name.into(),
            base_path: base.to_path_buf(),
            policy: VersionPolicy::default(),
            labels: Map::new(),
        }
    }

    fn watcher(poll: Poll) -> (Watcher, mpsc::Receiver<(String, Vec<Version>)>) {
        let (send, receive) = mpsc::channel();
        let watcher = Watcher::start(poll, move |model, found| {
            let versions = found.iter().map(|f| f.version).collect();
            let _ = send.send((model.to_string(), versions));
        })
        .unwrap();
        (watcher, receive)
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
        let next = receive.recv_timeout(PATIENCE);
        assert_eq!(next, Ok(("m".to_owned(), vec![Version(1), Version(2)])));
    }

    #[test]
    fn never_means_never() {
        let base = tempfile::tempdir().unwrap();
        std::fs::create_dir(base.path().join("1")).unwrap();
        let (watcher, receive) = watcher(Poll::from_seconds(-1));
        watcher.watch(vec![config("m", base.path())]);
        assert!(receive.recv_timeout(Duration::from_millis(50)).is_err());
    }
}

//! Ends runs at their deadlines.
//!
//! Owns the one thread that waits for them, which starts with the first deadline. Invariant: a run is
//! told to end at most once, and not after it was taken off the list.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use vesta_ffi::OnnxRunOptions;
use vesta_model::Status;

/// The deadlines of the runs of one session.
#[derive(Default)]
pub(super) struct Deadlines {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Told when the thread must look again.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Runs by when they end; the number keeps those of one instant apart.
    runs: BTreeMap<(Instant, u64), Arc<OnnxRunOptions>>,
    number: u64,
    is_started: bool,
    is_over: bool,
    /// When the thread looks again by itself; `None` while it waits to be told.
    wakes_at: Option<Instant>,
}

/// Keeps a run on the list.
pub(super) struct Listed {
    shared: Arc<Shared>,
    key: (Instant, u64),
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for deadlines until there are none to come.
    fn watch(&self) {
        let mut state = self.lock();
        while !state.is_over {
            let now = Instant::now();
            while let Some(first) = state.runs.first_entry().filter(|first| first.key().0 <= now) {
                first.remove().terminate();
            }
            state.wakes_at = state.runs.first_key_value().map(|(key, _)| key.0);
            state = match state.wakes_at {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(at) => {
                    let left = at.saturating_duration_since(now);
                    let waited = self.changed.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

impl Deadlines {
    /// Has a run end at `deadline`, for as long as the result is kept.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` when there can be no thread.
    pub(super) fn list(
        &self,
        deadline: Instant,
        options: Arc<OnnxRunOptions>,
    ) -> Result<Listed, Status> {
        let mut state = self.shared.lock();
        if !state.is_started {
            let shared = Arc::clone(&self.shared);
            std::thread::Builder::new()
                .name("ort-deadlines".to_owned())
                .spawn(move || shared.watch())
                .map_err(|error| {
                    Status::resource_exhausted("no thread can be started to end runs at deadlines")
                        .with_cause(error)
                })?;
            state.is_started = true;
        }
        state.number += 1;
        let key = (deadline, state.number);
        state.runs.insert(key, options);
        // Deadlines mostly come in their order: then the thread need not wake for each run.
        if state.wakes_at.is_none_or(|at| deadline < at) {
            self.shared.changed.notify_one();
        }
        Ok(Listed { shared: Arc::clone(&self.shared), key })
    }
}

impl Drop for Deadlines {
    fn drop(&mut self) {
        self.shared.lock().is_over = true;
        self.shared.changed.notify_one();
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.shared.lock().runs.remove(&self.key);
    }
}

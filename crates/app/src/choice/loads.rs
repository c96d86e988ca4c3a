//! Loads of several engines that go on at the same time.
//!
//! May not know: what is done with what was loaded. Invariant: nobody waits for a load whose outcome is
//! not asked for; what it loaded is let go when it ends.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use vesta_model::{LoadRequest, Status};

use super::contest::{Contender, Opened};

type Outcome = Result<Box<dyn Opened>, Status>;

/// Engines that load one version.
pub(super) struct Loads<'a> {
    contenders: Vec<&'a Arc<dyn Contender>>,
    /// Whose outcome is still to be given.
    open: Vec<bool>,
    ended: Receiver<(usize, Outcome)>,
    /// What ended before somebody asked.
    early: BTreeMap<usize, Outcome>,
}

impl<'a> Loads<'a> {
    /// Has them load what is requested, in their order, as many at a time as there are processors: the
    /// first takes longest, and would take longer yet if it had to share one.
    pub(super) fn begin(contenders: &[&'a Arc<dyn Contender>], request: &LoadRequest) -> Loads<'a> {
        let (sender, ended) = mpsc::channel();
        let queue = Arc::new(Mutex::new((0..contenders.len()).collect::<VecDeque<usize>>()));
        let all: Vec<Arc<dyn Contender>> = contenders.iter().map(|&c| Arc::clone(c)).collect();
        let threads = thread::available_parallelism().map_or(1, NonZero::get).min(all.len());
        let mut early = BTreeMap::new();
        for started in 0..threads {
            let (all, queue, request, sender) =
                (all.clone(), Arc::clone(&queue), request.clone(), sender.clone());
            let load = move || {
                let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                while let Some(index) = next() {
                    let open = || all.get(index).ok_or_else(panicked)?.open(&request);
                    let opened = catch_unwind(AssertUnwindSafe(open));
                    // Nobody may be there any more to take it.
                    if sender.send((index, opened.unwrap_or_else(|_| Err(panicked())))).is_err() {
                        break;
                    }
                }
            };
            let spawned = thread::Builder::new().name("load".to_owned()).spawn(load);
            if let (Err(error), 0) = (spawned, started) {
                let text = format!("a thread to load with could not be started: {error}");
                let refusal = |index| (index, Err(Status::resource_exhausted(text.clone())));
                early = (0..contenders.len()).map(refusal).collect();
                break;
            }
        }
        let open = vec![true; contenders.len()];
        Loads { contenders: contenders.to_vec(), open, ended, early }
    }

    /// The outcome of the load at this place, which is given once.
    pub(super) fn wait_for(&mut self, index: usize) -> Outcome {
        while !self.early.contains_key(&index) {
            match self.ended.recv() {
                Ok((other, outcome)) => {
                    self.early.insert(other, outcome);
                }
                Err(_) => break,
            }
        }
        if let Some(open) = self.open.get_mut(index) {
            *open = false;
        }
        self.early.remove(&index).unwrap_or_else(|| Err(panicked()))
    }

    /// The next load that ends, of those that were not asked for; `None` after all of them.
    pub(super) fn next(&mut self) -> Option<(&'a dyn Contender, Outcome)> {
        let first = self.open.iter().position(|open| *open)?;
        let (index, outcome) = match self.early.pop_first() {
            Some(ended) => ended,
            None => match self.ended.recv() {
                Ok(ended) => ended,
                Err(_) => (first, Err(panicked())),
            },
        };
        self.open[index] = false;
        Some((&***self.contenders.get(index)?, outcome))
    }
}

fn panicked() -> Status {
    Status::internal("the engine's adapter panicked as it loaded")
}

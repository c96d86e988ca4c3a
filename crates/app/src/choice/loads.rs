//! Loads of several engines that go on at the same time.
//!
//! May not know: what is done with what was loaded. Invariant: nobody waits for a load whose outcome is
//! not asked for; what it loaded is let go when it ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
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
    /// Has each of them load what is requested, in a thread of its own.
    pub(super) fn begin(contenders: &[&'a Arc<dyn Contender>], request: &LoadRequest) -> Loads<'a> {
        let (sender, ended) = mpsc::channel();
        let (mut open, mut early) = (Vec::new(), BTreeMap::new());
        for (index, &contender) in contenders.iter().enumerate() {
            let (contender, request, sender) =
                (Arc::clone(contender), request.clone(), sender.clone());
            let load = move || {
                // Nobody may be there any more to take it.
                let _ = sender.send((index, contender.open(&request)));
            };
            if let Err(error) = thread::Builder::new().name("load".to_owned()).spawn(load) {
                let text = format!("a thread to load with could not be started: {error}");
                early.insert(index, Err(Status::resource_exhausted(text)));
            }
            open.push(true);
        }
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

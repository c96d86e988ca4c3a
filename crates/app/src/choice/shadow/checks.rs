//! The thread that makes runs again on the reference.
//!
//! Owns: what a difference leads to. May not know: how runs came to it.
//! Invariant: the reference stands behind those that serve until it serves itself.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use tracing::warn;
use vesta_model::{Status, Tensor};

use super::super::compare::{Answer, compare_answers};
use super::super::contest::Opened;
use super::super::trial::{RUN_LIMIT, is_failure};
use super::sample::Sample;
use super::{Observer, Outcome, Seat, Sitting};

/// How often a session that serves no more is looked at until its runs have ended.
const RUNS_LOOK: Duration = Duration::from_millis(20);

pub(super) struct Checks {
    pub(super) seat: Arc<Seat>,
    pub(super) reference: Box<dyn Opened>,
    pub(super) observer: Arc<dyn Observer>,
}

impl Checks {
    /// Until the version goes, or the answers differ.
    pub(super) fn make(self, samples: &Receiver<Option<Sample>>) {
        let mut has_warned = false;
        for sample in samples {
            if self.seat.is_closing() {
                return;
            }
            let Some(sample) = sample else { continue };
            match self.check(sample) {
                Ok(None) => self.observer.checked(Outcome::Agreed),
                Ok(Some(why)) => return self.fall_back(&why),
                Err(status) => {
                    self.observer.checked(Outcome::Failed);
                    if !std::mem::replace(&mut has_warned, true) {
                        warn!(
                            problem = %withheld(&status),
                            "a shadow check came to nothing, since the reference failed; further \
                             ones are counted alone"
                        );
                    }
                }
            }
        }
    }

    /// How the answers differ, if they do.
    ///
    /// # Errors
    /// Those of a reference that fails, rather than refuse an input.
    fn check(&self, sample: Sample) -> Result<Option<String>, Status> {
        let Sample { signature, request, inputs, answer, .. } = sample;
        let want = {
            let _lowered = self.reference.step_back();
            let until = Instant::now() + RUN_LIMIT;
            self.reference.session().run_over(&request, inputs, Some(until))
        };
        if let Err(status) = &want
            && is_failure(status)
        {
            return Err(status.clone());
        }
        let name = |&at: &usize| signature.outputs.get(at).map(|spec| spec.alias.clone());
        let names: Vec<String> = request.outputs.iter().filter_map(name).collect();
        let outcome = compare_answers(&said(answer), &said(want), &names);
        Ok(outcome.err().map(|why| format!("signature {}: {why}", signature.name)))
    }

    fn fall_back(self, why: &str) {
        let Checks { seat, reference, observer } = self;
        let reference = reference.stay();
        let former = seat.take_over(Arc::clone(&reference));
        observer.checked(Outcome::Disagreed);
        observer.refuted(why, &reference);
        wait_for_runs(&seat, &former);
    }
}

/// Until no run holds what served; it ends here rather than in one of them.
fn wait_for_runs(seat: &Seat, former: &Arc<Sitting>) {
    while Arc::strong_count(former) > 1 && !seat.is_closing() {
        thread::sleep(RUNS_LOOK);
    }
}

/// An answer whose refusal may be told.
fn said(answer: Result<Vec<Tensor>, Status>) -> Answer {
    answer.map_err(|status| withheld(&status))
}

/// What an engine has against an input may quote it, and nobody's requests belong in a log.
fn withheld(status: &Status) -> Status {
    Status::new(status.code(), "its text is left out here")
}

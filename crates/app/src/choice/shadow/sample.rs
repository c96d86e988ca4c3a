//! A run as it is kept to be made again, and the line in which it waits.
//!
//! Owns: the bounds. May not know: what is done with it.
//! Invariant: a run that finds no room is counted and goes on; what is kept shares no memory with an
//! engine, which may be short of it.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use vesta_frontends::{Budget, Permit};
use vesta_model::{Run, RunRequest, Signature, Status, Tensor};

use super::super::compare::Answer;
use super::super::trial::{copied, is_failure};
use super::{Observer, Outcome};

/// Bytes of all that waits, inputs and outputs.
const BYTES_MAX: usize = 64 << 20;

/// Runs that wait, the one that is being checked included.
pub(super) const SAMPLES_MAX: usize = 16;

/// A run that one engine made.
pub(super) struct Sample {
    pub(super) signature: Arc<Signature>,
    pub(super) request: RunRequest,
    pub(super) inputs: Vec<Tensor>,
    pub(super) answer: Answer,
    _permit: Permit,
}

/// The line to the checks.
#[derive(Clone)]
pub(super) struct Line {
    /// Nothing means that there is something else to look at.
    sender: SyncSender<Option<Sample>>,
    budget: Budget,
    observer: Arc<dyn Observer>,
}

impl Line {
    pub(super) fn new(sender: SyncSender<Option<Sample>>, observer: Arc<dyn Observer>) -> Line {
        Line { sender, budget: Budget::new(BYTES_MAX), observer }
    }

    /// Has the checks look around.
    pub(super) fn wake(&self) {
        // Where the line is full they look around soon anyhow.
        let _ = self.sender.try_send(None);
    }

    fn drop_one(&self) {
        self.observer.checked(Outcome::Dropped);
    }
}

/// A run that is to be kept.
pub(super) struct Sampling {
    pub(super) signature: Arc<Signature>,
    pub(super) request: RunRequest,
    pub(super) line: Line,
}

impl Sampling {
    /// Keeps what the run was given, before an engine has its memory; `None` where there is no room.
    pub(super) fn begin(self, run: &mut dyn Run) -> Option<Begun> {
        let bytes = (0..self.request.inputs.len()).map(|index| run.input(index).len()).sum();
        // As many permits as there are places in the line.
        let Ok(permit) = self.line.budget.take(usize::max(bytes, BYTES_MAX / SAMPLES_MAX)) else {
            self.line.drop_one();
            return None;
        };
        let spare = usize::saturating_sub(BYTES_MAX / SAMPLES_MAX, bytes);
        let specs = self.signature.inputs.iter().zip(&self.request.inputs).enumerate();
        let inputs = specs.map(|(index, (spec, layout))| {
            Tensor::copied(spec.fed_dtype(), layout.shape.clone(), run.input(index))
        });
        // What is no tensor fails on the engine, too.
        let inputs = inputs.collect::<Result<Vec<_>, Status>>().ok()?;
        Some(Begun { sampling: self, inputs, permit, spare })
    }
}

/// A run under way, of which the inputs are kept.
pub(super) struct Begun {
    sampling: Sampling,
    inputs: Vec<Tensor>,
    permit: Permit,
    /// Bytes of the permit that are left.
    spare: usize,
}

impl Begun {
    /// Keeps what came of it, and puts it in the line. A run that failed, rather than be refused, says
    /// nothing of its engine's answers.
    pub(super) fn end(self, outcome: &Answer) {
        let Begun { sampling: Sampling { signature, request, line }, inputs, mut permit, spare } =
            self;
        if outcome.as_ref().is_err_and(is_failure) {
            return;
        }
        let bytes: usize = outcome.iter().flatten().map(|output| output.bytes().len()).sum();
        if permit.grow(bytes.saturating_sub(spare)).is_err() {
            return line.drop_one();
        }
        let Ok(answer) = copied(outcome) else { return };
        let sample = Sample { signature, request, inputs, answer, _permit: permit };
        if line.sender.try_send(Some(sample)).is_err() {
            line.drop_one();
        }
    }
}

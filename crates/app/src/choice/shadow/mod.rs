//! A version that goes on being held to the reference while another engine serves it: a part of its
//! runs is made again there, and at the first difference the reference serves.
//!
//! Owns: which runs are made again, what is kept of them, and how one session takes the other's place. May
//! not know: what is told of it, and to whom.
//! Invariants: no run waits for a check, and what waits to be checked is bounded; a version that keeps
//! state is never checked; a run that has begun on one session ends on it.

mod checks;
mod sample;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use arc_swap::ArcSwap;
use vesta_model::{
    HealthListener, ModelDescription, Run, RunRequest, Session, SessionHealth, SessionProcess,
    Signature, Status, Tensor,
};

use self::checks::Checks;
use self::sample::{Line, SAMPLES_MAX, Sampling};
use super::contest::Opened;
use super::trial::is_callable;

/// What became of a run that was to be made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The answers agree.
    Agreed,
    /// They do not.
    Disagreed,
    /// The reference could not make it.
    Failed,
    /// There was no room for it.
    Dropped,
}

/// Who hears of checks.
pub(crate) trait Observer: Send + Sync {
    /// One more of this outcome.
    fn checked(&self, outcome: Outcome);

    /// The answers differed, in this way, and `reference` serves from now on. It comes once.
    fn refuted(&self, why: &str, reference: &Arc<dyn Session>);
}

/// Why a version cannot be held to a reference, in words; `None` where it can.
pub(crate) fn obstacle(chosen: &ModelDescription, reference: &ModelDescription) -> Option<String> {
    let stateful = |of: &ModelDescription| of.signatures.values().any(|s| s.stateful);
    if stateful(chosen) || stateful(reference) {
        return Some("it keeps state".to_owned());
    }
    let callable = chosen.signatures.values().filter(|signature| is_callable(signature));
    callable.map(|signature| &signature.name).find_map(|name| {
        let of = |side: &ModelDescription| side.signatures.get(name).map(|s| outline(s));
        (of(chosen) != of(reference))
            .then(|| format!("the reference describes signature {name} in another way"))
    })
}

/// What two engines must say alike of a signature for its runs to be the same on both.
fn outline(signature: &Signature) -> impl PartialEq + use<> {
    let inputs = signature.inputs.iter().map(|spec| (spec.alias.clone(), spec.fed_dtype()));
    let outputs = signature.outputs.iter().map(|spec| (spec.alias.clone(), spec.dtype));
    (inputs.collect::<Vec<_>>(), outputs.collect::<Vec<_>>())
}

/// A session of the chosen engine, beside one of the reference.
pub(crate) struct Shadowed {
    description: ModelDescription,
    seat: Arc<Seat>,
    /// The part of the runs that is made again, from 0 to 1.
    rate: f64,
    line: Line,
    checks: Option<JoinHandle<()>>,
}

/// Where the session sits that serves.
struct Seat {
    sitting: ArcSwap<Sitting>,
    listener: Mutex<Option<HealthListener>>,
    /// Whether the version is being unloaded.
    is_closing: AtomicBool,
}

/// A session that serves, or did. Its runs hold it, so that whoever drops the last hold on a session,
/// and with it ends a process, is no run.
struct Sitting {
    session: Arc<dyn Session>,
    is_checked: bool,
}

impl Shadowed {
    /// `chosen`, of whose runs the part `rate` is made again on `reference`.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` when there is no thread to be had.
    pub(crate) fn start(
        chosen: Arc<dyn Session>,
        reference: Box<dyn Opened>,
        rate: f64,
        observer: Arc<dyn Observer>,
    ) -> Result<Arc<dyn Session>, Status> {
        let description = chosen.description().clone();
        let sitting = Sitting { session: chosen, is_checked: true };
        let seat = Arc::new(Seat {
            sitting: ArcSwap::from_pointee(sitting),
            listener: Mutex::default(),
            is_closing: AtomicBool::new(false),
        });
        // One more than there can be samples, for the word that the version goes.
        let (sender, samples) = sync_channel(SAMPLES_MAX + 1);
        let line = Line::new(sender, Arc::clone(&observer));
        let checks = Checks { seat: Arc::clone(&seat), reference, observer };
        let checks = thread::Builder::new()
            .name("vesta-shadow".to_owned())
            .spawn(move || checks.make(&samples))
            .map_err(|error| {
                Status::resource_exhausted("shadow checks need a thread").with_cause(error)
            })?;
        Ok(Arc::new(Shadowed { description, seat, rate, line, checks: Some(checks) }))
    }
}

impl Session for Shadowed {
    fn description(&self) -> &ModelDescription {
        &self.description
    }

    fn prepare(&self, request: &RunRequest) -> Result<Box<dyn Run>, Status> {
        let sitting = self.seat.sitting.load_full();
        let run = sitting.session.prepare(request)?;
        let signature = self.description.signatures.get(&request.signature);
        let is_due = sitting.is_checked && fastrand::f64() < self.rate;
        let sampling = signature.filter(|_| is_due).map(|signature| Sampling {
            signature: Arc::clone(signature),
            request: request.clone(),
            line: self.line.clone(),
        });
        Ok(Box::new(SeatedRun { run, sampling, _sitting: sitting }))
    }

    fn watch(&self, listener: HealthListener) -> SessionHealth {
        let mut heard = self.seat.listener();
        *heard = Some(Arc::clone(&listener));
        self.seat.sitting.load().session.watch(listener)
    }

    fn process(&self) -> Option<SessionProcess> {
        self.seat.sitting.load().session.process()
    }
}

impl Drop for Shadowed {
    fn drop(&mut self) {
        self.seat.is_closing.store(true, Ordering::Release);
        self.line.wake();
        // When it has ended, so has the reference's process.
        if let Some(checks) = self.checks.take() {
            let _ = checks.join();
        }
    }
}

impl Seat {
    fn listener(&self) -> std::sync::MutexGuard<'_, Option<HealthListener>> {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Acquire)
    }

    /// Has `session` serve, unchecked; gives what served before.
    fn take_over(&self, session: Arc<dyn Session>) -> Arc<Sitting> {
        let heard = self.listener();
        let new = Arc::new(Sitting { session, is_checked: false });
        let former = self.sitting.swap(Arc::clone(&new));
        if let Some(listener) = &*heard {
            // What becomes of the former one is nobody's concern any more, but how it was is still shown.
            let was = former.session.watch(Arc::new(|_| {}));
            let is = new.session.watch(Arc::clone(listener));
            if is != was {
                listener(is);
            }
        }
        former
    }
}

/// A run on the session that served when it was prepared.
struct SeatedRun {
    // Fields drop in this order.
    run: Box<dyn Run>,
    sampling: Option<Sampling>,
    _sitting: Arc<Sitting>,
}

impl Run for SeatedRun {
    fn input(&mut self, index: usize) -> &mut [u8] {
        self.run.input(index)
    }

    fn run(self: Box<Self>, deadline: Option<Instant>) -> Result<Vec<Tensor>, Status> {
        let SeatedRun { mut run, sampling, _sitting } = *self;
        let begun = sampling.and_then(|sampling| sampling.begin(&mut *run));
        let outcome = run.run(deadline);
        if let Some(begun) = begun {
            begun.end(&outcome);
        }
        outcome
    }
}

//! The states of one version, the steps between them, and what clients are told of each.
//!
//! Owns which step is legal in which state, for the planner, the manager and the tests alike; may
//! not know threads, time or engines. Invariant: what is not in [`State::after`] cannot happen, and
//! no legal step shows clients a transition that they do not expect.

use vesta_model::{Status, Version};

/// Where in its life a version is, as published to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// Known and wanted; its load has not begun.
    Start,
    /// Being loaded, or waiting to be tried again; or loaded, while its engine is being restarted.
    Loading,
    /// Requests resolve to it.
    Available,
    /// No longer given to requests; being unloaded.
    Unloading,
    /// Unloaded, or failed.
    End,
}

/// One version with its phase.
#[derive(Clone, Debug, PartialEq)]
pub struct VersionStatus {
    /// Its number.
    pub version: Version,
    /// Its phase.
    pub phase: Phase,
    /// Why it ended, when it ended by an error; while it loads, why the last try failed, when there
    /// was one, or, of code `UNAVAILABLE`, why its engine is being restarted; `None` otherwise.
    pub error: Option<Status>,
    /// Whether it is loaded, and what carries it is being restarted.
    pub restarting: bool,
}

impl VersionStatus {
    /// What clients are told: why it ended, or why it cannot run anything for now; as in the original,
    /// not why a load is being tried again.
    pub fn told_error(&self) -> Option<&Status> {
        self.error.as_ref().filter(|_| self.phase == Phase::End || self.restarting)
    }

    /// Why it ended, when it ended by an error.
    pub fn end_error(&self) -> Option<&Status> {
        self.error.as_ref().filter(|_| self.phase == Phase::End)
    }
}

/// Where a version is, as its owner sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum State {
    /// To be loaded; waits for a free loader.
    Queued,
    /// In the hands of a loader.
    Loading,
    /// The last try failed; waits for the next.
    Retrying,
    /// In the catalog.
    Serving,
    /// In the catalog, but its session cannot run anything until it is restarted or replaced.
    Restarting,
    /// Out of the catalog; leases remain.
    Draining,
    /// Out of the catalog; no lease remains.
    Drained,
    /// In the hands of an unloader.
    Unloading,
    /// Ended by an error, and wanted ever since: not tried again.
    Failed,
    /// Nothing is held, and it may be loaded (again).
    Ended,
}

/// What can happen to a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// It is wanted: queue it for a loader.
    Queue,
    /// It is no longer wanted before a loader had it.
    Cancel,
    /// A loader takes it.
    Begin,
    /// It was loaded and is wanted.
    Publish,
    /// It was loaded, but is no longer wanted.
    Discard,
    /// The load failed and is to be tried again.
    TryLater,
    /// The load failed, or its session broke, for good.
    GiveUp,
    /// Its session cannot run anything for now.
    Falter,
    /// Its session runs again, or another has taken its place.
    Recover,
    /// Take it out of the catalog.
    Retire,
    /// The last lease is gone.
    Release,
    /// It is wanted again while it is still loaded.
    Revive,
    /// Let it be unloaded.
    Unload,
    /// Let it be unloaded though leases remain: the time to shut down is over.
    Abandon,
    /// The unloader is done.
    Vanish,
    /// A failed version is no longer wanted, or is wanted with other files.
    Forgive,
}

impl State {
    /// Every state.
    #[cfg(test)]
    pub(crate) const ALL: [State; 10] = [
        State::Queued,
        State::Loading,
        State::Retrying,
        State::Serving,
        State::Restarting,
        State::Draining,
        State::Drained,
        State::Unloading,
        State::Failed,
        State::Ended,
    ];

    /// The state after `step`, or `None` where the step is not legal.
    pub(crate) fn after(self, step: Step) -> Option<State> {
        let next = match (self, step) {
            (State::Ended, Step::Queue) => State::Queued,
            (State::Queued | State::Retrying, Step::Cancel) => State::Ended,
            (State::Queued | State::Retrying, Step::Begin) => State::Loading,
            (State::Loading, Step::Publish) => State::Serving,
            (State::Loading, Step::Discard) => State::Unloading,
            (State::Loading, Step::TryLater) => State::Retrying,
            (
                State::Queued
                | State::Loading
                | State::Retrying
                | State::Serving
                | State::Restarting,
                Step::GiveUp,
            ) => State::Failed,
            (State::Serving, Step::Falter) => State::Restarting,
            (State::Restarting, Step::Recover) => State::Serving,
            (State::Serving | State::Restarting, Step::Retire) => State::Draining,
            (State::Draining, Step::Release) => State::Drained,
            (State::Draining | State::Drained, Step::Revive) => State::Serving,
            (State::Drained, Step::Unload) => State::Unloading,
            (State::Draining, Step::Abandon) => State::Unloading,
            (State::Unloading, Step::Vanish) => State::Ended,
            (State::Failed, Step::Forgive) => State::Ended,
            _ => return None,
        };
        Some(next)
    }

    /// Whether a version in it takes memory, or is about to.
    pub(crate) fn is_held(self) -> bool {
        match self {
            State::Loading
            | State::Serving
            | State::Restarting
            | State::Draining
            | State::Drained
            | State::Unloading => true,
            State::Queued | State::Retrying | State::Failed | State::Ended => false,
        }
    }

    /// What clients are told.
    pub(crate) fn phase(self) -> Phase {
        match self {
            State::Queued => Phase::Start,
            State::Loading | State::Retrying | State::Restarting => Phase::Loading,
            State::Serving => Phase::Available,
            State::Draining | State::Drained | State::Unloading => Phase::Unloading,
            State::Failed | State::Ended => Phase::End,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: [Step; 16] = [
        Step::Queue,
        Step::Cancel,
        Step::Begin,
        Step::Publish,
        Step::Discard,
        Step::TryLater,
        Step::GiveUp,
        Step::Falter,
        Step::Recover,
        Step::Retire,
        Step::Release,
        Step::Revive,
        Step::Unload,
        Step::Abandon,
        Step::Vanish,
        Step::Forgive,
    ];

    /// The transitions that clients may see; those from UNLOADING back to AVAILABLE, and from
    /// AVAILABLE back to LOADING, are ours.
    #[test]
    fn no_legal_step_shows_an_unexpected_transition() {
        use Phase::{Available, End, Loading, Start, Unloading};
        for state in State::ALL {
            for step in STEPS {
                let Some(next) = state.after(step) else { continue };
                let seen = (state.phase(), next.phase());
                assert!(
                    seen.0 == seen.1
                        || matches!(
                            seen,
                            (Start, Loading | End)
                                | (Loading, Available | Unloading | End)
                                | (Available, Loading | Unloading | End)
                                | (Unloading, Available | End)
                                | (End, Start)
                        ),
                    "{state:?} {step:?} shows {seen:?}"
                );
            }
        }
    }

    #[test]
    fn every_state_is_left_by_some_step_and_reached_by_another() {
        for state in State::ALL {
            assert!(STEPS.iter().any(|&step| state.after(step).is_some()), "{state:?}");
            assert!(
                State::ALL
                    .iter()
                    .any(|from| STEPS.iter().any(|&step| from.after(step) == Some(state))),
                "{state:?}"
            );
        }
    }
}

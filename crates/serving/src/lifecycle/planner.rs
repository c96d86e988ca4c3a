//! What to do next, given what is wanted and what there is.
//!
//! Owns the two policies: whether a new version is loaded beside the old one, which goes when the
//! new one serves, or in its place. May not know threads, time, engines or files.
//! Invariants (tested below):
//!
//! - *availability* (of the availability-preserving policy): while something is wanted and nothing
//!   wanted serves, the last serving version stays; a version whose session is being restarted does
//!   not count as serving;
//! - *economy* (of the resource-preserving policy): no load is queued or begins while a version that is
//!   not wanted is loaded;
//! - *one at a time*: one plan holds at most one action for one version;
//! - *legality*: each action is a legal step of its version;
//! - *fixpoint*: a plan carried out leaves nothing to plan until the next event;
//! - *liveness*: when every load succeeds, every session recovers and every lease ends, exactly what
//!   is wanted serves.

use vesta_model::{ModelName, Version};

use super::phase::{State, Step};

/// In which order an old version goes and a new one comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AspiredVersionPolicy {
    /// The new version is loaded beside the old one, so that the model always serves; both are in
    /// memory for a while.
    #[default]
    AvailabilityPreserving,
    /// The old version is unloaded first, so that there is memory for the new one; the model does
    /// not serve meanwhile.
    ResourcePreserving,
}

/// One version as the planner sees it. A wanted version that nothing is known of is `Ended`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Seen {
    pub(crate) version: Version,
    pub(crate) wanted: bool,
    pub(crate) state: State,
    /// Whether its session, if it has one, can run something now.
    pub(crate) sound: bool,
    /// Whether it is wanted with other files than those that it was loaded from, so that what leaves
    /// must not come back.
    pub(crate) outdated: bool,
}

/// One step for one version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Action {
    pub(crate) version: Version,
    pub(crate) step: Step,
}

impl Seen {
    /// Whether it serves, or will as soon as it is put back into the catalog.
    fn can_serve(&self) -> bool {
        let listed = match self.state {
            State::Serving => true,
            State::Draining | State::Drained => !self.outdated,
            _ => false,
        };
        listed && self.sound
    }
}

/// Whether a load of this model has to wait: where memory is saved, until nothing is loaded that is
/// not wanted.
pub(crate) fn must_wait(seen: &[Seen], policy: AspiredVersionPolicy) -> bool {
    policy == AspiredVersionPolicy::ResourcePreserving
        && seen.iter().any(|one| !one.wanted && one.state.is_held())
}

/// Plans one model. Loads come newest first, everything else before them.
///
/// The policies are the original's (`core/availability_preserving_policy`,
/// `core/resource_preserving_policy`), which take one action per tick, run to their end at once.
pub(crate) fn plan(seen: &[Seen], policy: AspiredVersionPolicy) -> Vec<Action> {
    let mut actions: Vec<Action> = seen
        .iter()
        .filter_map(|one| {
            let step = match (one.state, one.wanted) {
                (State::Queued | State::Retrying, false) => Step::Cancel,
                (State::Draining | State::Drained, true) if !one.outdated => Step::Revive,
                (State::Drained, _) => Step::Unload,
                (State::Failed, false) => Step::Forgive,
                _ => return None,
            };
            Some(Action { version: one.version, step })
        })
        .collect();
    actions.extend(retirements(seen, policy));
    if must_wait(seen, policy) {
        return actions;
    }
    let mut loads: Vec<Version> = seen
        .iter()
        .filter(|one| one.wanted && one.state == State::Ended)
        .map(|one| one.version)
        .collect();
    loads.sort_by(|a, b| b.cmp(a));
    actions.extend(loads.into_iter().map(|version| Action { version, step: Step::Queue }));
    actions
}

/// Which versions are to leave the catalog, lowest first.
///
/// Where availability is preserved, all go that are not wanted when nothing is wanted or when
/// something wanted serves; else one of them stays, the highest that serves.
fn retirements(seen: &[Seen], policy: AspiredVersionPolicy) -> Vec<Action> {
    let nothing_wanted = !seen.iter().any(|one| one.wanted);
    // What drains and is wanted again is revived by the same plan.
    let wanted_serves = seen.iter().any(|one| one.wanted && one.can_serve());
    let mut unwanted: Vec<&Seen> = seen
        .iter()
        .filter(|one| !one.wanted && matches!(one.state, State::Serving | State::Restarting))
        .collect();
    unwanted.sort_by_key(|one| (one.state == State::Serving, one.version));
    let preserves = policy == AspiredVersionPolicy::AvailabilityPreserving;
    if preserves && !nothing_wanted && !wanted_serves {
        unwanted.pop();
    }
    let mut versions: Vec<Version> = unwanted.into_iter().map(|one| one.version).collect();
    versions.sort();
    versions.into_iter().map(|version| Action { version, step: Step::Retire }).collect()
}

/// Puts the plans of several models in one order: whatever gives memory back goes before any load,
/// and every model's newest version is loaded before any model's second.
pub(crate) fn merge(plans: Vec<(ModelName, Vec<Action>)>) -> Vec<(ModelName, Action)> {
    let mut ranked: Vec<(usize, ModelName, Action)> = Vec::new();
    for (model, actions) in plans {
        let mut loads = 0;
        for action in actions {
            if action.step == Step::Queue {
                loads += 1;
                ranked.push((loads, model.clone(), action));
            } else {
                ranked.push((0, model.clone(), action));
            }
        }
    }
    // Stable: within a rank, models keep their order.
    ranked.sort_by_key(|(rank, _, _)| *rank);
    ranked.into_iter().map(|(_, model, action)| (model, action)).collect()
}

/// The step of a version whose load ended.
pub(crate) fn after_load(loaded: bool, wanted: bool, tries_left: bool) -> Step {
    match (loaded, wanted) {
        (true, true) => Step::Publish,
        (true, false) => Step::Discard,
        (false, true) if tries_left => Step::TryLater,
        (false, _) => Step::GiveUp,
    }
}

#[cfg(test)]
#[path = "planner_tests.rs"]
mod tests;

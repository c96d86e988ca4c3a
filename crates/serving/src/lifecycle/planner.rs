//! What to do next, given what is wanted and what there is.
//!
//! Owns the policy: availability is preserved, that is, a new version is loaded beside the old one
//! and the old one goes when the new one serves. May not know threads, time, engines or files.
//! Invariants (tested below):
//!
//! - *availability*: while something is wanted and nothing wanted serves, the last serving version
//!   stays;
//! - *one at a time*: one plan holds at most one action for one version;
//! - *legality*: each action is a legal step of its version;
//! - *fixpoint*: a plan carried out leaves nothing to plan until the next event;
//! - *liveness*: when every load succeeds and every lease ends, exactly what is wanted serves.

use vesta_model::{ModelName, Version};

use super::phase::{State, Step};

/// One version as the planner sees it. A wanted version that nothing is known of is `Ended`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Seen {
    pub(crate) version: Version,
    pub(crate) wanted: bool,
    pub(crate) state: State,
}

/// One step for one version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Action {
    pub(crate) version: Version,
    pub(crate) step: Step,
}

/// Plans one model. Loads come newest first, everything else before them.
///
/// The policy is the original's availability-preserving one (`core/availability_preserving_policy`),
/// which takes one action per tick, run to its end at once: unwanted versions go, the lowest first,
/// when nothing is wanted, when something wanted serves, or as long as more than one of them serves.
pub(crate) fn plan(seen: &[Seen]) -> Vec<Action> {
    let mut actions: Vec<Action> = seen
        .iter()
        .filter_map(|one| {
            let step = match (one.state, one.wanted) {
                (State::Queued | State::Retrying, false) => Step::Cancel,
                (State::Draining | State::Drained, true) => Step::Revive,
                (State::Drained, false) => Step::Unload,
                (State::Failed, false) => Step::Forgive,
                _ => return None,
            };
            Some(Action { version: one.version, step })
        })
        .collect();
    actions.extend(retirements(seen));
    let mut loads: Vec<Version> = seen
        .iter()
        .filter(|one| one.wanted && one.state == State::Ended)
        .map(|one| one.version)
        .collect();
    loads.sort_by(|a, b| b.cmp(a));
    actions.extend(loads.into_iter().map(|version| Action { version, step: Step::Queue }));
    actions
}

/// Which serving versions are to leave the catalog, lowest first.
fn retirements(seen: &[Seen]) -> Vec<Action> {
    let nothing_wanted = !seen.iter().any(|one| one.wanted);
    // What drains and is wanted again is revived by the same plan.
    let wanted_serves = seen.iter().any(|one| {
        one.wanted && matches!(one.state, State::Serving | State::Draining | State::Drained)
    });
    let mut unwanted: Vec<Version> = seen
        .iter()
        .filter(|one| !one.wanted && one.state == State::Serving)
        .map(|one| one.version)
        .collect();
    unwanted.sort();
    if !nothing_wanted && !wanted_serves {
        unwanted.pop();
    }
    unwanted.into_iter().map(|version| Action { version, step: Step::Retire }).collect()
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

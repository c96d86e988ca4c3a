//! The planner against every small world there is, and against random ones.
//!
//! The machine under test is `plan`, `after_load` and `State::after` together, driven as the manager
//! drives them: after each event, plans are carried out until there is nothing left to plan.

use std::collections::{BTreeMap, HashSet, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::lifecycle::Phase;

/// Versions of one model, all that is known of them: whether it is wanted, where it is, and whether
/// its session could run something.
type Model = BTreeMap<i64, (bool, State, bool)>;

const PRESERVE: AspiredVersionPolicy = AspiredVersionPolicy::AvailabilityPreserving;
const SAVE: AspiredVersionPolicy = AspiredVersionPolicy::ResourcePreserving;

/// What can happen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// From now on the versions of this bit set are wanted.
    Want(u8),
    Begin(i64),
    LoadOk(i64),
    LoadFails(i64, bool),
    LastLeaseEnds(i64),
    /// The session is being restarted.
    Falters(i64),
    Recovers(i64),
    SessionBreaks(i64),
    Unloaded(i64),
}

fn seen(model: &Model) -> Vec<Seen> {
    model
        .iter()
        .map(|(&version, &(wanted, state, sound))| Seen {
            version: Version(version),
            wanted,
            state,
            sound,
            outdated: false,
        })
        .collect()
}

fn step(model: &mut Model, version: i64, step: Step) {
    let entry = model.get_mut(&version).unwrap();
    let next = entry.1.after(step);
    assert!(next.is_some(), "version {version}: {step:?} is not legal in {:?}", entry.1);
    entry.1 = next.unwrap();
}

fn serving(model: &Model, wanted: Option<bool>) -> usize {
    model
        .values()
        .filter(|(is_wanted, state, _)| {
            *state == State::Serving && wanted.is_none_or(|wanted| wanted == *is_wanted)
        })
        .count()
}

/// Plans until nothing is left, checks each plan against the invariants, and says what was done.
fn advance(model: &mut Model, policy: AspiredVersionPolicy) -> Vec<Action> {
    let mut done = Vec::new();
    for round in 0.. {
        let before = model.clone();
        let actions = plan(&seen(model), policy);
        if actions.is_empty() {
            break;
        }
        assert!(round == 0, "fixpoint: a plan left something to plan: {before:?} {actions:?}");
        let versions: HashSet<Version> = actions.iter().map(|action| action.version).collect();
        assert_eq!(versions.len(), actions.len(), "one at a time: {before:?} {actions:?}");
        let loads: Vec<Version> = actions
            .iter()
            .skip_while(|action| action.step != Step::Queue)
            .map(|action| action.version)
            .collect();
        assert!(loads.windows(2).all(|pair| pair[0] > pair[1]), "newest first: {actions:?}");
        for action in &actions {
            step(model, action.version.0, action.step);
            // As the manager does with a session that cannot run anything.
            if action.step == Step::Revive && !model[&action.version.0].2 {
                step(model, action.version.0, Step::Falter);
            }
        }
        assert_policy(&before, model, &actions, policy);
        done.extend(actions);
    }
    done
}

fn assert_policy(before: &Model, after: &Model, actions: &[Action], policy: AspiredVersionPolicy) {
    let anything_wanted = before.values().any(|(wanted, ..)| *wanted);
    if policy == PRESERVE && anything_wanted && serving(before, None) > 0 {
        assert!(serving(after, None) > 0, "availability: {before:?} {actions:?}");
    }
    if policy == SAVE && actions.iter().any(|action| action.step == Step::Queue) {
        let spare = seen(after).into_iter().any(|one| !one.wanted && one.state.is_held());
        assert!(!spare, "economy: {before:?} {actions:?}");
    }
    for action in actions.iter().filter(|action| action.step == Step::Retire) {
        assert!(!before[&action.version.0].0, "a wanted version retires: {before:?} {actions:?}");
    }
}

fn possible(model: &Model) -> Vec<Event> {
    let mut events = Vec::new();
    for (&version, &(_, state, sound)) in model {
        match state {
            State::Queued | State::Retrying => events.push(Event::Begin(version)),
            State::Loading => events.extend([
                Event::LoadOk(version),
                Event::LoadFails(version, true),
                Event::LoadFails(version, false),
            ]),
            State::Serving => {
                events.extend([Event::SessionBreaks(version), Event::Falters(version)]);
            }
            State::Restarting => {
                events.extend([Event::Recovers(version), Event::SessionBreaks(version)]);
            }
            State::Draining => {
                events.push(Event::LastLeaseEnds(version));
                events.push(match sound {
                    true => Event::Falters(version),
                    false => Event::Recovers(version),
                });
            }
            State::Unloading => events.push(Event::Unloaded(version)),
            State::Drained | State::Failed | State::Ended => {}
        }
    }
    events
}

fn happen(model: &mut Model, event: Event) {
    match event {
        Event::Want(bits) => {
            for (&version, entry) in model.iter_mut() {
                entry.0 = bits & (1 << version) != 0;
            }
        }
        Event::Begin(version) => step(model, version, Step::Begin),
        Event::Falters(version) => {
            if model[&version].1 == State::Serving {
                step(model, version, Step::Falter);
            }
            model.get_mut(&version).unwrap().2 = false;
        }
        Event::Recovers(version) => {
            if model[&version].1 == State::Restarting {
                step(model, version, Step::Recover);
            }
            model.get_mut(&version).unwrap().2 = true;
        }
        Event::LoadOk(version) => {
            model.get_mut(&version).unwrap().2 = true;
            let wanted = model[&version].0;
            step(model, version, after_load(true, wanted, false));
        }
        Event::LoadFails(version, tries_left) => {
            let wanted = model[&version].0;
            step(model, version, after_load(false, wanted, tries_left));
        }
        Event::LastLeaseEnds(version) => step(model, version, Step::Release),
        Event::SessionBreaks(version) => {
            step(model, version, Step::GiveUp);
            model.get_mut(&version).unwrap().2 = true;
        }
        Event::Unloaded(version) => {
            step(model, version, Step::Vanish);
            model.get_mut(&version).unwrap().2 = true;
        }
    }
}

fn fresh(versions: i64) -> Model {
    (0..versions).map(|version| (version, (false, State::Ended, true))).collect()
}

/// What must hold of a model that was planned to the end, whatever happened before.
fn assert_settled_state(model: &Model, policy: AspiredVersionPolicy) {
    assert_eq!(plan(&seen(model), policy), [], "idempotent: {model:?}");
    let blocked =
        policy == SAVE && seen(model).iter().any(|one| !one.wanted && one.state.is_held());
    for (version, (wanted, state, sound)) in model {
        let consistent = match state {
            State::Queued | State::Retrying | State::Failed => *wanted,
            State::Draining => !*wanted,
            State::Ended => !*wanted || blocked,
            State::Drained => false,
            State::Restarting => !*sound,
            State::Loading | State::Serving | State::Unloading => true,
        };
        assert!(consistent, "version {version} is left as it is: {model:?}");
    }
    let lonely = policy == PRESERVE
        && serving(model, Some(true)) == 0
        && model.values().any(|(wanted, ..)| *wanted);
    let unwanted = model
        .values()
        .filter(|(wanted, state, _)| {
            !*wanted && matches!(state, State::Serving | State::Restarting)
        })
        .count();
    assert!(unwanted <= usize::from(lonely), "old versions go when new ones serve: {model:?}");
}

/// Lets every load succeed, every session recover and every lease end, in the order of versions or
/// against it.
fn drive(model: &mut Model, policy: AspiredVersionPolicy, fails: u8, backwards: bool) {
    for _ in 0..200 {
        advance(model, policy);
        let mut events = possible(model);
        events.retain(|event| match event {
            Event::LoadOk(version) => fails & (1 << version) == 0,
            Event::LoadFails(version, tries_left) => fails & (1 << version) != 0 && !tries_left,
            Event::SessionBreaks(_) | Event::Falters(_) => false,
            _ => true,
        });
        if backwards {
            events.reverse();
        }
        match events.first() {
            Some(&event) => happen(model, event),
            None => return,
        }
    }
    panic!("liveness: the world never comes to rest: {model:?}");
}

/// Every state of three versions that any sequence of events leads to, and every event in each.
#[test]
fn all_reachable_worlds_of_one_model_keep_the_invariants() {
    for policy in [PRESERVE, SAVE] {
        let known = reachable(fresh(3), policy);
        assert!(known.len() > 1_000, "only {} worlds are reached", known.len());
        for model in known {
            for backwards in [false, true] {
                let mut driven = model.clone();
                drive(&mut driven, policy, 0, backwards);
                let lonely = policy == PRESERVE && serving(&driven, Some(true)) == 0;
                for (version, (wanted, state, _)) in &driven {
                    let rest = match state {
                        State::Serving => *wanted || lonely,
                        State::Failed => *wanted,
                        State::Ended => !*wanted,
                        _ => false,
                    };
                    assert!(rest, "liveness: version {version} of {model:?} ends in {driven:?}");
                }
            }
        }
    }
}

/// Every world that any sequence of events leads to, each checked.
fn reachable(start: Model, policy: AspiredVersionPolicy) -> HashSet<Model> {
    let everything_wanted = (1u8 << start.len()) - 1;
    let mut known: HashSet<Model> = HashSet::new();
    let mut open = VecDeque::from([start]);
    while let Some(model) = open.pop_front() {
        let mut events = possible(&model);
        events.extend((0..=everything_wanted).map(Event::Want));
        for event in events {
            let mut next = model.clone();
            happen(&mut next, event);
            advance(&mut next, policy);
            assert_settled_state(&next, policy);
            if known.insert(next.clone()) {
                open.push_back(next);
            }
        }
    }
    known
}

/// Two models of three versions: all sets serving, wanted and failing, with one loader for both.
#[test]
fn all_small_worlds_of_two_models_come_to_the_wanted_set() {
    let world = |serving: u8, wanted: u8| -> Model {
        (0..3)
            .map(|version| {
                let bit = 1 << version;
                let state = if serving & bit != 0 { State::Serving } else { State::Ended };
                (version, (wanted & bit != 0, state, true))
            })
            .collect()
    };
    let cases: Vec<(u8, u8, u8)> =
        (0..8).flat_map(|s| (0..8).flat_map(move |w| (0..8).map(move |f| (s, w, f)))).collect();
    let with_policies = |policy| cases.iter().map(move |&case| (policy, case));
    for (policy, (serving_a, wanted_a, fails_a)) in
        with_policies(PRESERVE).chain(with_policies(SAVE))
    {
        for &(serving_b, wanted_b, fails_b) in &cases {
            let mut models = [world(serving_a, wanted_a), world(serving_b, wanted_b)];
            drive_with_one_loader(&mut models, policy, [fails_a, fails_b]);
            for (model, (before, wanted, fails)) in
                models.iter().zip([(serving_a, wanted_a, fails_a), (serving_b, wanted_b, fails_b)])
            {
                let serves: u8 = model
                    .iter()
                    .filter(|(_, (_, state, _))| *state == State::Serving)
                    .map(|(version, _)| 1 << version)
                    .sum();
                // What already serves is not loaded again, so it cannot fail.
                let mut expected = wanted & (before | !fails);
                if policy == PRESERVE && expected == 0 && wanted != 0 && before != 0 {
                    expected = 1 << before.ilog2();
                }
                assert_eq!(serves, expected, "{before:03b} {wanted:03b} {fails:03b}: {model:?}");
            }
        }
    }
}

/// Carries out merged plans; one load at a time, in the order that the plans gave.
fn drive_with_one_loader(models: &mut [Model; 2], policy: AspiredVersionPolicy, fails: [u8; 2]) {
    let names = [ModelName::from("a"), ModelName::from("b")];
    let mut queue = VecDeque::new();
    loop {
        let planned = models.iter().map(|model| plan(&seen(model), policy));
        let plans = names.iter().cloned().zip(planned).collect();
        let actions = merge(plans);
        let first_load = actions.iter().position(|(_, action)| action.step == Step::Queue);
        let last_other = actions.iter().rposition(|(_, action)| action.step != Step::Queue);
        assert!(first_load.is_none() || last_other < first_load, "loads go last: {actions:?}");
        for (name, action) in actions {
            let index = usize::from(name == names[1]);
            step(&mut models[index], action.version.0, action.step);
            if action.step == Step::Queue {
                queue.push_back((index, action.version.0));
            }
        }
        let mut moved = false;
        if let Some((index, version)) = queue.pop_front() {
            step(&mut models[index], version, Step::Begin);
            let ok = fails[index] & (1 << version) == 0;
            step(&mut models[index], version, after_load(ok, true, false));
            moved = true;
        }
        for model in models.iter_mut() {
            for event in possible(model) {
                if matches!(event, Event::LastLeaseEnds(_) | Event::Unloaded(_)) {
                    happen(model, event);
                    moved = true;
                }
            }
        }
        if !moved {
            return;
        }
    }
}

fn any_event() -> impl Strategy<Value = (u8, usize)> {
    (any::<u8>(), any::<usize>())
}

proptest! {
    /// Six versions and long histories; the events are picked from those possible at each point.
    #[test]
    fn random_histories_keep_the_invariants(
        saves: bool,
        picks in prop::collection::vec(any_event(), 1..120),
    ) {
        let policy = if saves { SAVE } else { PRESERVE };
        let mut model = fresh(6);
        for (bits, pick) in picks {
            let events = possible(&model);
            let event = match events.len() {
                0 => Event::Want(bits),
                _ if pick % 4 == 0 => Event::Want(bits),
                count => events[pick % count],
            };
            happen(&mut model, event);
            advance(&mut model, policy);
            assert_settled_state(&model, policy);
        }
        happen(&mut model, Event::Want(0));
        drive(&mut model, policy, 0, false);
        prop_assert!(model.values().all(|(_, state, _)| state.phase() == Phase::End));
    }

    /// Failing versions leave the old one serving, whatever else is wanted.
    #[test]
    fn failing_versions_leave_the_old_one_serving(old in 0i64..6, wanted in 1u8..64) {
        let wanted = wanted & !(1u8 << old);
        prop_assume!(wanted != 0);
        let mut model = fresh(6);
        happen(&mut model, Event::Want(1 << old));
        drive(&mut model, PRESERVE, 0, false);
        happen(&mut model, Event::Want(wanted));
        drive(&mut model, PRESERVE, wanted, false);
        prop_assert_eq!(model[&old].1, State::Serving);
        prop_assert_eq!(serving(&model, None), 1);
    }
}

#[test]
fn a_new_version_is_loaded_beside_the_old_one_which_then_goes() {
    let mut model = fresh(3);
    happen(&mut model, Event::Want(0b010));
    drive(&mut model, PRESERVE, 0, false);
    happen(&mut model, Event::Want(0b100));
    assert_eq!(advance(&mut model, PRESERVE), [Action { version: Version(2), step: Step::Queue }]);
    happen(&mut model, Event::Begin(2));
    assert_eq!(advance(&mut model, PRESERVE), []);
    happen(&mut model, Event::LoadOk(2));
    assert_eq!(advance(&mut model, PRESERVE), [Action { version: Version(1), step: Step::Retire }]);
}

#[test]
fn a_version_wanted_again_while_it_drains_is_flipped_back() {
    let mut model = fresh(1);
    happen(&mut model, Event::Want(1));
    drive(&mut model, PRESERVE, 0, false);
    happen(&mut model, Event::Want(0));
    assert_eq!(advance(&mut model, PRESERVE), [Action { version: Version(0), step: Step::Retire }]);
    happen(&mut model, Event::Want(1));
    assert_eq!(advance(&mut model, PRESERVE), [Action { version: Version(0), step: Step::Revive }]);
    assert_eq!(model[&0].1, State::Serving);
}

#[test]
fn each_models_newest_version_is_loaded_before_any_second() {
    let all = || plan(&seen(&(0..3).map(|v| (v, (true, State::Ended, true))).collect()), PRESERVE);
    let merged = merge(vec![("a".into(), all()), ("b".into(), all())]);
    let order: Vec<String> =
        merged.iter().map(|(model, action)| format!("{model}{}", action.version)).collect();
    assert_eq!(order, ["a2", "b2", "a1", "b1", "a0", "b0"]);
}

#[test]
fn to_save_memory_the_old_version_goes_before_the_new_one_is_loaded() {
    let mut model = fresh(3);
    happen(&mut model, Event::Want(0b010));
    drive(&mut model, SAVE, 0, false);
    happen(&mut model, Event::Want(0b100));
    assert_eq!(advance(&mut model, SAVE), [Action { version: Version(1), step: Step::Retire }]);
    happen(&mut model, Event::LastLeaseEnds(1));
    assert_eq!(advance(&mut model, SAVE), [Action { version: Version(1), step: Step::Unload }]);
    happen(&mut model, Event::Unloaded(1));
    assert_eq!(advance(&mut model, SAVE), [Action { version: Version(2), step: Step::Queue }]);
}

#[test]
fn an_old_version_stays_while_the_only_new_one_is_being_restarted() {
    let mut model = fresh(2);
    happen(&mut model, Event::Want(0b11));
    drive(&mut model, PRESERVE, 0, false);
    happen(&mut model, Event::Falters(1));
    happen(&mut model, Event::Want(0b10));
    assert_eq!(advance(&mut model, PRESERVE), []);
    happen(&mut model, Event::Recovers(1));
    assert_eq!(advance(&mut model, PRESERVE), [Action { version: Version(0), step: Step::Retire }]);
}

#[test]
fn a_dead_version_that_is_put_back_takes_nobodys_place() {
    let mut model = fresh(2);
    happen(&mut model, Event::Want(0b10));
    drive(&mut model, PRESERVE, 0, false);
    happen(&mut model, Event::Want(0b01));
    drive(&mut model, PRESERVE, 0b01, false);
    assert_eq!((model[&0].1, model[&1].1), (State::Failed, State::Serving));
    happen(&mut model, Event::Want(0));
    advance(&mut model, PRESERVE);
    happen(&mut model, Event::Falters(1));
    happen(&mut model, Event::Want(0b11));
    let steps: Vec<Step> =
        advance(&mut model, PRESERVE).into_iter().map(|action| action.step).collect();
    assert_eq!(steps, [Step::Revive, Step::Queue]);
    assert_eq!(model[&1].1, State::Restarting);
}

/// As [`seen`], with version 0 wanted with other files.
fn seen_with_other_files(model: &Model) -> Vec<Seen> {
    let mut seen = seen(model);
    seen[0].outdated = true;
    seen
}

#[test]
fn what_was_loaded_from_other_files_ends_before_it_comes_back_and_keeps_the_rest_serving() {
    let mut model = fresh(2);
    happen(&mut model, Event::Want(0b11));
    drive(&mut model, PRESERVE, 0, false);
    happen(&mut model, Event::Want(0b10));
    assert_eq!(advance(&mut model, PRESERVE), [Action { version: Version(0), step: Step::Retire }]);
    // Only version 0 is wanted now: 1 has to serve until 0 has been loaded anew.
    happen(&mut model, Event::Want(0b01));
    assert_eq!(plan(&seen_with_other_files(&model), PRESERVE), []);
    happen(&mut model, Event::LastLeaseEnds(0));
    assert_eq!(
        plan(&seen_with_other_files(&model), PRESERVE),
        [Action { version: Version(0), step: Step::Unload }]
    );
}

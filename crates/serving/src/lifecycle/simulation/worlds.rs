//! Every small world: two models of three versions, each version absent, serving, or with its worker
//! down; wanted from now on or not; its load going well or not; its worker coming back or not.
//!
//! One loader and one unloader carry out what the manager asks for, calls in flight hold what served,
//! and the source announces the two models one after the other. Each world has one outcome that is
//! known beforehand, for either policy and whichever order things end in; on the way there, the
//! invariants are checked after each event.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use vesta_model::{ModelName, ModelSpec, Version, VersionChoice};
use vesta_worker::Life;

use super::{AspiredVersionPolicy, LOAD_RETRY_INTERVAL, MODELS, VERSIONS, World};
use AspiredVersionPolicy::{AvailabilityPreserving, ResourcePreserving};

/// What is known of one version before the source speaks, and what will become of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Not loaded and not wanted.
    Absent,
    /// Not loaded and wanted; `fails`: its loads do.
    Comes { fails: bool },
    /// It serves.
    Serves { wanted: bool },
    /// It is loaded and its worker is down.
    Down { wanted: bool, comes_back: bool },
}

/// What can be the case while no worker dies.
const WITHOUT_FAULTS: [Fate; 5] = [
    Fate::Absent,
    Fate::Comes { fails: false },
    Fate::Comes { fails: true },
    Fate::Serves { wanted: false },
    Fate::Serves { wanted: true },
];

/// Everything that can be the case.
const ALL: [Fate; 9] = [
    Fate::Absent,
    Fate::Comes { fails: false },
    Fate::Comes { fails: true },
    Fate::Serves { wanted: false },
    Fate::Serves { wanted: true },
    Fate::Down { wanted: false, comes_back: false },
    Fate::Down { wanted: false, comes_back: true },
    Fate::Down { wanted: true, comes_back: false },
    Fate::Down { wanted: true, comes_back: true },
];

/// The versions of one model.
type Fates = [Fate; VERSIONS as usize];

/// The order in which what is under way ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// Old versions are let go and unloaded before a load ends, and before a worker is back.
    UnloadsFirst,
    /// The other way round.
    LoadsFirst,
}

impl Fate {
    fn is_loaded(self) -> bool {
        matches!(self, Fate::Serves { .. } | Fate::Down { .. })
    }

    fn is_wanted(self) -> bool {
        match self {
            Fate::Absent => false,
            Fate::Comes { .. } => true,
            Fate::Serves { wanted } | Fate::Down { wanted, .. } => wanted,
        }
    }

    /// Whether it serves in the end, as far as it depends on itself.
    fn can_serve(self) -> bool {
        match self {
            Fate::Absent => false,
            Fate::Comes { fails } => !fails,
            Fate::Serves { .. } => true,
            Fate::Down { comes_back, .. } => comes_back,
        }
    }
}

fn those(fates: &Fates, is: impl Fn(Fate) -> bool) -> BTreeSet<i64> {
    (0..VERSIONS).filter(|&version| is(fates[version as usize])).collect()
}

/// The version that is not wanted and stays all the same, for want of a better one: rather one that
/// serves than one that may come back.
fn kept(fates: &Fates, policy: AspiredVersionPolicy) -> Option<i64> {
    let is_due = |fate: &Fate| fate.is_wanted() && fate.can_serve();
    let anything_wanted = fates.iter().any(|fate| fate.is_wanted());
    if policy == ResourcePreserving || !anything_wanted || fates.iter().any(is_due) {
        return None;
    }
    let serving = those(fates, |fate| fate == Fate::Serves { wanted: false });
    let down = those(fates, |fate| matches!(fate, Fate::Down { wanted: false, .. }));
    serving.last().or(down.last()).copied()
}

/// What serves in the end.
fn outcome(fates: &Fates, policy: AspiredVersionPolicy) -> BTreeSet<i64> {
    let mut held = those(fates, Fate::is_wanted);
    held.extend(kept(fates, policy));
    held.retain(|&version| fates[version as usize].can_serve());
    held
}

/// Every combination of `fates` for three versions.
fn models(fates: &[Fate]) -> Vec<Fates> {
    let mut all = Vec::new();
    for &one in fates {
        for &two in fates {
            all.extend(fates.iter().map(|&three| [one, two, three]));
        }
    }
    all
}

/// The world as it is before the source speaks, with a call in flight on all that serves.
fn prepare(fates: &[Fates; 2], policy: AspiredVersionPolicy) -> World {
    let mut world = World::new(policy, 1, 1);
    for (model, fates) in MODELS.into_iter().zip(fates) {
        world.want(model, those(fates, Fate::is_loaded), 0);
    }
    world.settle();
    while world.loads.len() > 0 {
        world.loads.take(0)();
        world.settle();
    }
    for (model, fates) in MODELS.into_iter().zip(fates) {
        for version in those(fates, Fate::is_loaded) {
            let choice = VersionChoice::Version(Version(version));
            let spec = ModelSpec { name: ModelName::from(model), choice };
            let lease = world.published.resolve(&spec).unwrap();
            if matches!(fates[version as usize], Fate::Down { .. }) {
                world.kill(&lease, Life::Proven);
            }
            world.leases.push(lease);
        }
        let doomed = those(fates, |fate| fate == Fate::Comes { fails: true });
        let doomed = doomed.into_iter().map(|version| (ModelName::from(model), Version(version)));
        world.workers.doomed.lock().unwrap().extend(doomed);
    }
    world.settle();
    world.check();
    world
}

/// One thing that is under way ends; says whether there was one.
fn proceed(world: &mut World, order: Order, fates: &[Fates; 2]) -> bool {
    let steps: [fn(&mut World, &[Fates; 2]) -> bool; 4] =
        [end_a_call, end_an_unload, end_a_load, end_a_restart];
    let in_turn = |index: usize| match order {
        Order::UnloadsFirst => index,
        Order::LoadsFirst => steps.len() - 1 - index,
    };
    (0..steps.len()).any(|index| steps[in_turn(index)](world, fates))
}

fn end_a_call(world: &mut World, _: &[Fates; 2]) -> bool {
    world.leases.pop().is_some()
}

fn end_an_unload(world: &mut World, _: &[Fates; 2]) -> bool {
    if world.unloads.len() == 0 {
        return false;
    }
    world.unloads.take(0)();
    true
}

fn end_a_load(world: &mut World, _: &[Fates; 2]) -> bool {
    if world.loads.len() == 0 {
        return false;
    }
    world.loads.take(0)();
    true
}

/// A worker that is down comes back, or dies until it is given up.
fn end_a_restart(world: &mut World, fates: &[Fates; 2]) -> bool {
    let Some(id) = world.down().into_iter().next() else { return false };
    let index = MODELS.into_iter().position(|one| ModelName::from(one) == id.0).unwrap();
    let comes_back = matches!(fates[index][id.1.0 as usize], Fate::Down { comes_back: true, .. });
    world.restart(&id, comes_back);
    true
}

/// Plays one world to its end.
fn play(fates: &[Fates; 2], policy: AspiredVersionPolicy, order: Order) {
    let mut world = prepare(fates, policy);
    let mut served: [bool; 2] = MODELS.map(|model| !world.available(model).is_empty());
    let mut check_availability = |world: &World| {
        for (index, model) in MODELS.into_iter().enumerate() {
            let serves = !world.available(model).is_empty();
            let wanted = !world.wanted[model].is_empty();
            let may_pause = policy == ResourcePreserving || !wanted;
            assert!(serves || !served[index] || may_pause, "availability of {model} is lost");
            served[index] = serves;
        }
    };
    for (model, fates) in MODELS.into_iter().zip(fates) {
        world.want(model, those(fates, |fate| fate.is_wanted()), 0);
        world.settle();
        world.check();
        check_availability(&world);
    }
    // A retry is all that needs time, and each version has one.
    for _ in 0..=2 * VERSIONS {
        while proceed(&mut world, order, fates) {
            world.settle();
            world.check();
            check_availability(&world);
        }
        world.pass(LOAD_RETRY_INTERVAL + Duration::from_secs(1));
        world.settle();
    }
    world.check_at_rest();
    for (model, fates) in MODELS.into_iter().zip(fates) {
        assert_eq!(world.available(model), outcome(fates, policy), "what serves of {model}");
        let failed = world.failed(model);
        let lost = those(fates, |fate| fate.is_wanted() && !fate.can_serve());
        assert!(lost.is_subset(&failed), "{model}: {failed:?} failed, not {lost:?}");
        // One that nobody wants is given up only if that comes before what replaces it.
        let doomed = |fate: Fate| fate.is_loaded() && !fate.is_wanted() && !fate.can_serve();
        let others = &failed - &lost;
        assert!(others.is_subset(&those(fates, doomed)), "{model}: {failed:?} failed");
    }
}

fn play_all(worlds: &[[Fates; 2]]) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for part in worlds.chunks(worlds.len().div_ceil(threads)) {
            scope.spawn(move || {
                for fates in part {
                    for policy in [AvailabilityPreserving, ResourcePreserving] {
                        for order in [Order::UnloadsFirst, Order::LoadsFirst] {
                            play_named(fates, policy, order);
                        }
                    }
                }
            });
        }
    });
}

/// Names the world when it goes wrong.
fn play_named(fates: &[Fates; 2], policy: AspiredVersionPolicy, order: Order) {
    let outcome = catch_unwind(AssertUnwindSafe(|| play(fates, policy, order)));
    if outcome.is_err() {
        panic!("this world goes wrong: {policy:?}, {order:?}, {fates:?}");
    }
}

#[test]
fn all_worlds_of_two_models_of_three_versions_end_as_they_should() {
    let models = models(&WITHOUT_FAULTS);
    assert_eq!(models.len(), 125);
    // What is the case for one model and the other is the same world as the other way round.
    let worlds: Vec<[Fates; 2]> = models
        .iter()
        .enumerate()
        .flat_map(|(index, &a)| models[..=index].iter().map(move |&b| [a, b]))
        .collect();
    play_all(&worlds);
}

#[test]
fn all_worlds_with_workers_that_are_down_end_as_they_should() {
    let beside = [Fate::Comes { fails: false }, Fate::Serves { wanted: false }, Fate::Absent];
    let models = models(&ALL);
    assert_eq!(models.len(), 729);
    let worlds: Vec<[Fates; 2]> = models.into_iter().map(|fates| [fates, beside]).collect();
    play_all(&worlds);
}

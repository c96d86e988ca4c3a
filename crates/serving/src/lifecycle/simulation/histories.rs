//! Histories with faults, as a seed decides. A failure names its seed; `VESTA_SIMULATION_SEED` runs that
//! one alone.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use vesta_model::{ModelName, ModelSpec, SessionHealth, Version, VersionChoice};
use vesta_worker::Life;

use super::{AspiredVersionPolicy, Clock, MODELS, VERSIONS, World};

const LOAD_THREADS: usize = 2;

/// Steps of one history, faults included.
const STEPS: usize = 250;

/// Histories that are played when no seed is given.
const HISTORIES: u64 = 150;

/// A stream of numbers out of a seed (splitmix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound.max(1) as u64) as usize
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

/// A world, and what happened in it.
struct History {
    chance: Chance,
    world: World,
    edition: u64,
    lines: Vec<String>,
}

impl History {
    fn new(seed: u64) -> History {
        let mut chance = Chance(seed);
        let policy = match chance.one_in(2) {
            true => AspiredVersionPolicy::AvailabilityPreserving,
            false => AspiredVersionPolicy::ResourcePreserving,
        };
        let world = World::new(policy, LOAD_THREADS, 2);
        History { chance, world, edition: 0, lines: Vec::new() }
    }

    /// Something happens; says whether it was a fault that may take what serves away.
    fn step(&mut self) -> bool {
        match self.chance.below(12) {
            0 | 1 => self.aspire(),
            2 | 3 => self.finish_a_load(4),
            4 => self.finish_an_unload(),
            5 => self.take_a_lease(),
            6 | 7 => self.drop_a_lease(),
            8 => return self.a_worker_dies(),
            9 => self.workers_come_back(false),
            10 => return self.a_session_panics(),
            _ => {
                let seconds = [0, 1, 10, 30, 90][self.chance.below(5)];
                self.note(format!("{seconds} s pass"));
                self.world.pass(Duration::from_secs(seconds));
            }
        }
        false
    }

    fn note(&mut self, line: String) {
        self.lines.push(line);
    }

    fn aspire(&mut self) {
        let model = MODELS[self.chance.below(2)];
        let bits = self.chance.below(1 << VERSIONS);
        let wanted: BTreeSet<i64> = (0..VERSIONS).filter(|v| bits & (1 << v) != 0).collect();
        if self.chance.one_in(4) {
            self.edition += 1;
        }
        self.note(format!("want {model} {wanted:?} in edition {}", self.edition));
        self.world.want(model, wanted, self.edition);
    }

    fn finish_a_load(&mut self, one_fails_in: usize) {
        if self.world.loads.len() == 0 {
            return;
        }
        let job = self.world.loads.take(self.chance.below(self.world.loads.len()));
        let fails = one_fails_in > 0 && self.chance.one_in(one_fails_in);
        self.note(format!("a load ends, {}", if fails { "badly" } else { "well" }));
        *self.world.workers.fails.lock().unwrap() = fails;
        job();
    }

    fn finish_an_unload(&mut self) {
        if self.world.unloads.len() > 0 {
            self.note("an unload ends".to_owned());
            self.world.unloads.take(self.chance.below(self.world.unloads.len()))();
        }
    }

    fn take_a_lease(&mut self) {
        let name = ModelName::from(MODELS[self.chance.below(2)]);
        let choice = match self.chance.below(2) {
            0 => VersionChoice::Latest,
            _ => VersionChoice::Version(Version(self.chance.below(VERSIONS as usize) as i64)),
        };
        if let Ok(lease) = self.world.published.resolve(&ModelSpec { name, choice }) {
            self.note(format!("{lease:?} is taken"));
            self.world.leases.push(lease);
        }
    }

    fn drop_a_lease(&mut self) {
        if !self.world.leases.is_empty() {
            let lease = self.world.leases.swap_remove(self.chance.below(self.world.leases.len()));
            self.note(format!("{lease:?} ends"));
        }
    }

    fn a_worker_dies(&mut self) -> bool {
        let life = [Life::Proven, Life::Idle, Life::Unproven][self.chance.below(3)];
        let (now, origin) = (self.world.clock.now(), self.world.origin);
        let mut all = self.world.workers.all.lock().unwrap();
        let alive: Vec<u64> = all
            .iter()
            .filter(|(_, one)| one.health == SessionHealth::Serving)
            .map(|(&n, _)| n)
            .collect();
        if alive.is_empty() {
            return false;
        }
        let number = alive[self.chance.below(alive.len())];
        if let Some(worker) = all.get_mut(&number) {
            worker.ends(now, origin, life);
        }
        drop(all);
        self.note(format!("worker {number} dies, {life:?}"));
        true
    }

    /// Every worker that is due serves again, or fails to, unless `well`.
    fn workers_come_back(&mut self, well: bool) {
        let (now, origin) = (self.world.clock.now(), self.world.origin);
        let mut all = self.world.workers.all.lock().unwrap();
        let mut notes = Vec::new();
        for (number, worker) in all.iter_mut() {
            if worker.due.is_none_or(|due| due > now) {
                continue;
            }
            worker.due = None;
            if !well && self.chance.one_in(2) {
                worker.ends(now, origin, Life::Unproven);
                notes.push(format!("worker {number} does not come back: {:?}", worker.health));
            } else {
                worker.restarts.ready(now - origin);
                worker.become_(SessionHealth::Serving);
                notes.push(format!("worker {number} comes back"));
            }
        }
        drop(all);
        self.lines.extend(notes);
    }

    fn a_session_panics(&mut self) -> bool {
        if self.world.leases.is_empty() {
            return false;
        }
        let index = self.chance.below(self.world.leases.len());
        self.note(format!("{:?} panics", self.world.leases[index]));
        self.world.leases[index].servable().mark_broken();
        true
    }

    fn play(&mut self) {
        for _ in 0..STEPS {
            let before: Vec<bool> =
                MODELS.iter().map(|model| !self.world.available(model).is_empty()).collect();
            let fault = self.step();
            self.world.settle();
            self.world.check();
            if fault || self.world.policy == AspiredVersionPolicy::ResourcePreserving {
                continue;
            }
            for (model, served) in MODELS.into_iter().zip(before) {
                let wanted = self.world.wanted.get(model).is_some_and(|wanted| !wanted.is_empty());
                // A worker that gives up while it restarts had stopped serving before.
                let serves = !self.world.available(model).is_empty();
                assert!(serves || !served || !wanted, "availability of {model} is lost");
            }
        }
        self.come_to_rest();
    }

    /// No more faults: everything that is wanted and has not failed serves in the end, nothing else
    /// does, and nothing else is loaded.
    fn come_to_rest(&mut self) {
        self.note("no more faults".to_owned());
        self.world.leases.clear();
        for _ in 0..400 {
            self.world.settle();
            self.workers_come_back(true);
            self.finish_a_load(0);
            self.finish_an_unload();
            self.world.pass(Duration::from_secs(31));
        }
        self.world.settle();
        self.world.check_at_rest();
        for model in MODELS {
            let wanted = self.world.wanted.get(model).cloned().unwrap_or_default();
            let failed = self.world.failed(model);
            let available = self.world.available(model);
            let due: BTreeSet<i64> = wanted.difference(&failed).copied().collect();
            let kept = available.difference(&wanted).count();
            assert!(due.is_subset(&available), "{model}: {due:?} is due, {available:?} serves");
            let lonely = self.world.policy == AspiredVersionPolicy::AvailabilityPreserving
                && due.is_empty()
                && !wanted.is_empty();
            assert!(
                kept <= usize::from(lonely),
                "{model}: {available:?} serves, {wanted:?} wanted"
            );
        }
    }
}

fn play(seed: u64) {
    let mut history = History::new(seed);
    let outcome = catch_unwind(AssertUnwindSafe(|| history.play()));
    if let Err(problem) = outcome {
        let text = problem.downcast_ref::<String>().cloned();
        let text = text.or_else(|| problem.downcast_ref::<&str>().map(|&text| text.to_owned()));
        let last = history.lines.len().saturating_sub(40);
        panic!(
            "VESTA_SIMULATION_SEED={seed}: {}\nit came to that by\n{}",
            text.unwrap_or_default(),
            history.lines[last..].join("\n")
        );
    }
}

#[test]
fn histories_with_faults_keep_the_invariants() {
    if let Ok(seed) = std::env::var("VESTA_SIMULATION_SEED") {
        return play(seed.parse().unwrap());
    }
    let first = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    for offset in 0..HISTORIES {
        // The same histories each time, and as many that nobody has seen.
        play(offset);
        play(first.wrapping_add(offset));
    }
}

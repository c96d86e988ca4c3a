//! The life cycle in a world of its own: the manager, its catalog and fleet, and the restart policy of
//! workers, with a clock that is set forward and faults that a seed decides.
//!
//! Nothing here runs by itself: loads and unloads are jobs in a list until the world carries them out,
//! in any order or never; workers die and come back when the world says. After each step what the
//! manager was told is taken in, and the invariants are checked. A failure names its seed;
//! `VESTA_SIMULATION_SEED` runs that one alone.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use vesta_model::{
    Engine, EngineIdentity, HealthListener, LoadRequest, ModelDescription, ModelName, ModelSpec,
    Run, RunRequest, Session, SessionHealth, Status, Version, VersionChoice,
};
use vesta_worker::{Life, RestartPolicy, Restarts, Verdict};

use super::crew::HUNG_MAX;
use super::event::Event;
use super::manager::{Manager, Parts};
use super::pool::{Executor, Job};
use super::{Aspired, AspiredVersionPolicy, Edition, Phase, StatusBoard};
use crate::catalog::Published;
use crate::scheduler::Scheduler;
use crate::{Clock, Lease, ServingOptions};

const MODELS: [&str; 2] = ["a", "b"];
const VERSIONS: i64 = 3;
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

/// The time of the world.
#[derive(Clone)]
struct Hands(Arc<Mutex<Instant>>);

impl Clock for Hands {
    fn now(&self) -> Instant {
        *self.0.lock().unwrap()
    }
}

/// Jobs that wait until the world carries them out.
#[derive(Clone, Default)]
struct Jobs(Arc<Mutex<Vec<Job>>>);

impl Executor for Jobs {
    fn submit(&self, job: Job) {
        self.0.lock().unwrap().push(job);
    }
}

impl Jobs {
    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    fn take(&self, index: usize) -> Job {
        self.0.lock().unwrap().remove(index)
    }
}

/// A process with a version in it, as its supervisor sees it.
struct Worker {
    restarts: Restarts,
    health: SessionHealth,
    /// When the next process is started, while none serves.
    due: Option<Instant>,
    listener: Option<HealthListener>,
}

/// The engine: the world says what the next load comes to.
#[derive(Clone, Default)]
struct Workers {
    fails: Arc<Mutex<bool>>,
    all: Arc<Mutex<BTreeMap<u64, Worker>>>,
    started: Arc<Mutex<u64>>,
}

struct Loaded {
    number: u64,
    workers: Workers,
    description: ModelDescription,
}

impl Engine for Workers {
    fn identity(&self) -> EngineIdentity {
        EngineIdentity { name: "simulated".to_owned(), version: "1".to_owned() }
    }

    fn load(&self, _: &LoadRequest) -> Result<Arc<dyn Session>, Status> {
        if *self.fails.lock().unwrap() {
            return Err(Status::data_loss("the world says no"));
        }
        let mut started = self.started.lock().unwrap();
        *started += 1;
        let mut restarts = Restarts::new(RestartPolicy::default());
        restarts.ready(Duration::ZERO);
        let health = SessionHealth::Serving;
        let worker = Worker { restarts, health, due: None, listener: None };
        self.all.lock().unwrap().insert(*started, worker);
        let (number, workers) = (*started, self.clone());
        Ok(Arc::new(Loaded { number, workers, description: ModelDescription::default() }))
    }
}

impl Session for Loaded {
    fn description(&self) -> &ModelDescription {
        &self.description
    }

    fn prepare(&self, _: &RunRequest) -> Result<Box<dyn Run>, Status> {
        Err(Status::unimplemented("nothing is run in the simulation"))
    }

    fn watch(&self, listener: HealthListener) -> SessionHealth {
        let mut all = self.workers.all.lock().unwrap();
        let worker = all.get_mut(&self.number).unwrap();
        worker.listener = Some(listener);
        worker.health.clone()
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        self.workers.all.lock().unwrap().remove(&self.number);
    }
}

impl Worker {
    fn become_(&mut self, health: SessionHealth) {
        self.health = health.clone();
        if let Some(listener) = &self.listener {
            listener(health);
        }
    }

    /// The process ends, or does not come up.
    fn ends(&mut self, now: Instant, origin: Instant, life: Life) {
        match self.restarts.ended(now - origin, life) {
            Verdict::After(delay) => {
                self.due = Some(now + delay);
                self.become_(SessionHealth::Restarting(Status::unavailable("it ended")));
            }
            Verdict::GiveUp { .. } => {
                self.due = None;
                self.become_(SessionHealth::GivenUp(Status::unavailable("it ended too often")));
            }
        }
    }
}

struct World {
    chance: Chance,
    policy: AspiredVersionPolicy,
    origin: Instant,
    clock: Hands,
    workers: Workers,
    loads: Jobs,
    unloads: Jobs,
    events: Receiver<Event>,
    manager: Manager,
    published: Arc<Published>,
    board: Arc<StatusBoard>,
    leases: Vec<Lease>,
    wanted: BTreeMap<&'static str, BTreeSet<i64>>,
    edition: u64,
    history: Vec<String>,
}

impl World {
    fn new(seed: u64) -> World {
        let mut chance = Chance(seed);
        let policy = match chance.one_in(2) {
            true => AspiredVersionPolicy::AvailabilityPreserving,
            false => AspiredVersionPolicy::ResourcePreserving,
        };
        let origin = Instant::now();
        let clock = Hands(Arc::new(Mutex::new(origin)));
        let (sender, events) = channel();
        // The manager's own end stays silent: what it is told comes through the world.
        let (_, silent) = channel();
        let (published, board) = (Arc::new(Published::default()), Arc::new(StatusBoard::default()));
        let workers = Workers::default();
        let parts = Parts {
            engine: Arc::new(workers.clone()),
            options: ServingOptions {
                load_threads: LOAD_THREADS,
                unload_threads: LOAD_THREADS,
                run_threads: 1,
                queue_runs_max: 1,
                load_retries_max: 2,
                load_retry_interval: Duration::from_secs(30),
                engine_threads: 1,
                policy,
            },
            published: Arc::clone(&published),
            board: Arc::clone(&board),
            scheduler: Scheduler::idle(),
            sender,
            clock: Arc::new(clock.clone()),
        };
        let (loads, unloads) = (Jobs::default(), Jobs::default());
        let manager =
            Manager::with(parts, silent, Box::new(loads.clone()), Box::new(unloads.clone()));
        World {
            chance,
            policy,
            origin,
            clock,
            workers,
            loads,
            unloads,
            events,
            manager,
            published,
            board,
            leases: Vec::new(),
            wanted: BTreeMap::new(),
            edition: 0,
            history: Vec::new(),
        }
    }

    /// Lets the manager take in what it was told, one by one, as its thread does.
    fn settle(&mut self) {
        self.manager.advance();
        while let Ok(event) = self.events.try_recv() {
            self.manager.on_event(event);
            self.manager.advance();
            self.check_at_any_time();
        }
    }

    fn pass(&mut self, time: Duration) {
        *self.clock.0.lock().unwrap() += time;
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
                self.pass(Duration::from_secs(seconds));
            }
        }
        false
    }

    fn note(&mut self, line: String) {
        self.history.push(line);
    }

    fn aspire(&mut self) {
        let model = MODELS[self.chance.below(2)];
        let bits = self.chance.below(1 << VERSIONS);
        let wanted: BTreeSet<i64> = (0..VERSIONS).filter(|v| bits & (1 << v) != 0).collect();
        if self.chance.one_in(4) {
            self.edition += 1;
        }
        self.note(format!("want {model} {wanted:?} in edition {}", self.edition));
        let aspired = wanted.iter().map(|&version| Aspired {
            version: Version(version),
            artifact: Ok(format!("/{model}/{version}").into()),
            tags: Vec::new(),
            edition: Some(Edition(self.edition)),
        });
        let wanted_now = aspired.collect();
        self.wanted.insert(model, wanted);
        self.manager.on_event(Event::Aspire { model: model.into(), wanted: wanted_now });
    }

    fn finish_a_load(&mut self, one_fails_in: usize) {
        if self.loads.len() == 0 {
            return;
        }
        let job = self.loads.take(self.chance.below(self.loads.len()));
        let fails = one_fails_in > 0 && self.chance.one_in(one_fails_in);
        self.note(format!("a load ends, {}", if fails { "badly" } else { "well" }));
        *self.workers.fails.lock().unwrap() = fails;
        job();
    }

    fn finish_an_unload(&mut self) {
        if self.unloads.len() > 0 {
            self.note("an unload ends".to_owned());
            self.unloads.take(self.chance.below(self.unloads.len()))();
        }
    }

    fn take_a_lease(&mut self) {
        let name = ModelName::from(MODELS[self.chance.below(2)]);
        let choice = match self.chance.below(2) {
            0 => VersionChoice::Latest,
            _ => VersionChoice::Version(Version(self.chance.below(VERSIONS as usize) as i64)),
        };
        if let Ok(lease) = self.published.resolve(&ModelSpec { name, choice }) {
            self.note(format!("{lease:?} is taken"));
            self.leases.push(lease);
        }
    }

    fn drop_a_lease(&mut self) {
        if !self.leases.is_empty() {
            let lease = self.leases.swap_remove(self.chance.below(self.leases.len()));
            self.note(format!("{lease:?} ends"));
        }
    }

    fn a_worker_dies(&mut self) -> bool {
        let life = [Life::Proven, Life::Idle, Life::Unproven][self.chance.below(3)];
        let (now, origin) = (self.clock.now(), self.origin);
        let mut all = self.workers.all.lock().unwrap();
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
        let (now, origin) = (self.clock.now(), self.origin);
        let mut all = self.workers.all.lock().unwrap();
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
        self.history.extend(notes);
    }

    fn a_session_panics(&mut self) -> bool {
        if self.leases.is_empty() {
            return false;
        }
        let index = self.chance.below(self.leases.len());
        self.note(format!("{:?} panics", self.leases[index]));
        self.leases[index].servable().mark_broken();
        true
    }

    /// Versions that are shown as AVAILABLE.
    fn available(&self, model: &str) -> BTreeSet<i64> {
        let shown = self.board.status(model, None).unwrap_or_default();
        let available = shown.iter().filter(|one| one.phase == Phase::Available);
        available.map(|one| one.version.0).collect()
    }

    /// What holds after each event.
    fn check_at_any_time(&self) {
        let catalog = self.published.current();
        for model in MODELS {
            for version in self.available(model) {
                let serves = catalog.serves(&model.into(), Version(version));
                assert!(serves, "{model} {version} is AVAILABLE and cannot be resolved");
            }
        }
        for lease in &self.leases {
            let instance = self.manager.fleet.instances.get(&lease.servable().ticket);
            let held = instance.is_some_and(|one| one.servable.is_some() && one.holds > 0);
            assert!(held, "{lease:?} is held and its session goes");
        }
        let (loads, unloads) = (self.loads.len(), self.unloads.len());
        let bound = LOAD_THREADS + HUNG_MAX;
        assert!(loads <= bound && unloads <= bound, "{loads} loads, {unloads} unloads");
    }

    /// What holds once everything told was taken in.
    fn check(&mut self) {
        self.check_at_any_time();
        for model in MODELS {
            for version in self.available(model) {
                let entry = &self.manager.fleet.models[&ModelName::from(model)][&Version(version)];
                let instance = &self.manager.fleet.instances[&entry.ticket.unwrap()];
                assert_eq!(
                    instance.health,
                    SessionHealth::Serving,
                    "{model} {version} is AVAILABLE and does not serve"
                );
            }
        }
    }

    fn play(&mut self) {
        for _ in 0..STEPS {
            let before: Vec<bool> =
                MODELS.iter().map(|model| !self.available(model).is_empty()).collect();
            let fault = self.step();
            self.settle();
            self.check();
            if fault || self.policy == AspiredVersionPolicy::ResourcePreserving {
                continue;
            }
            for (model, served) in MODELS.into_iter().zip(before) {
                let wanted = self.wanted.get(model).is_some_and(|wanted| !wanted.is_empty());
                // A worker that gives up while it restarts had stopped serving before.
                let serves = !self.available(model).is_empty();
                assert!(serves || !served || !wanted, "availability of {model} is lost");
            }
        }
        self.come_to_rest();
    }

    /// No more faults: everything that is wanted and has not failed serves in the end, nothing else
    /// does, and nothing else is loaded.
    fn come_to_rest(&mut self) {
        self.note("no more faults".to_owned());
        self.leases.clear();
        for _ in 0..400 {
            self.settle();
            self.workers_come_back(true);
            self.finish_a_load(0);
            self.finish_an_unload();
            self.pass(Duration::from_secs(31));
        }
        self.settle();
        self.check();
        assert_eq!((self.loads.len(), self.unloads.len()), (0, 0), "jobs are left");
        let mut loaded = 0;
        for model in MODELS {
            let wanted = self.wanted.get(model).cloned().unwrap_or_default();
            let shown = self.board.status(model, None).unwrap_or_default();
            let failed: BTreeSet<i64> = shown
                .iter()
                .filter(|one| one.end_error().is_some())
                .map(|one| one.version.0)
                .collect();
            let available = self.available(model);
            loaded += available.len();
            let due: BTreeSet<i64> = wanted.difference(&failed).copied().collect();
            let kept = available.difference(&wanted).count();
            assert!(due.is_subset(&available), "{model}: {due:?} is due, {available:?} serves");
            let lonely = self.policy == AspiredVersionPolicy::AvailabilityPreserving
                && due.is_empty()
                && !wanted.is_empty();
            assert!(
                kept <= usize::from(lonely),
                "{model}: {available:?} serves, {wanted:?} wanted"
            );
        }
        assert_eq!(self.workers.all.lock().unwrap().len(), loaded, "sessions are left over");
        assert_eq!(self.manager.fleet.instances.len(), loaded, "sessions are remembered");
    }
}

fn play(seed: u64) {
    let mut world = World::new(seed);
    let outcome = catch_unwind(AssertUnwindSafe(|| world.play()));
    if let Err(problem) = outcome {
        let text = problem.downcast_ref::<String>().cloned();
        let text = text.or_else(|| problem.downcast_ref::<&str>().map(|&text| text.to_owned()));
        let last = world.history.len().saturating_sub(40);
        panic!(
            "VESTA_SIMULATION_SEED={seed}: {}\nit came to that by\n{}",
            text.unwrap_or_default(),
            world.history[last..].join("\n")
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

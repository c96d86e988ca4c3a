//! The life cycle in a world of its own: the manager, its catalog and fleet, and the restart policy of
//! workers, with a clock that is set forward.
//!
//! Nothing here runs by itself: loads and unloads are jobs in a list until the world carries them out,
//! in any order or never; workers die and come back when the world says. After each step what the
//! manager was told is taken in, and the invariants are checked. [`histories`] lets a seed decide what
//! happens; [`worlds`] goes through every small world there is.

mod histories;
mod worlds;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use vesta_model::{
    Engine, EngineIdentity, HealthListener, LoadRequest, ModelDescription, ModelName, Run,
    RunRequest, Session, SessionHealth, Status, Version,
};
use vesta_worker::{Life, RestartPolicy, Restarts, Verdict};

use super::crew::HUNG_MAX;
use super::event::Event;
use super::fleet::Entry;
use super::manager::{Manager, Parts};
use super::phase::State;
use super::pool::{Executor, Job};
use super::{Aspired, AspiredVersionPolicy, Edition, Phase, StatusBoard};
use crate::catalog::Published;
use crate::scheduler::Scheduler;
use crate::{Clock, Lease, ServingOptions};

const MODELS: [&str; 2] = ["a", "b"];
const VERSIONS: i64 = 3;
const LOAD_RETRY_INTERVAL: Duration = Duration::from_secs(30);

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
    id: (ModelName, Version),
    restarts: Restarts,
    health: SessionHealth,
    /// When the next process is started, while none serves.
    due: Option<Instant>,
    listener: Option<HealthListener>,
}

/// The engine: the world says what a load comes to.
#[derive(Clone, Default)]
struct Workers {
    /// Whether the next load fails, whichever it is.
    fails: Arc<Mutex<bool>>,
    /// Versions whose every load fails.
    doomed: Arc<Mutex<BTreeSet<(ModelName, Version)>>>,
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

    fn load(&self, request: &LoadRequest) -> Result<Arc<dyn Session>, Status> {
        let doomed = self.doomed.lock().unwrap();
        if *self.fails.lock().unwrap() || doomed.contains(&(request.model.clone(), request.version))
        {
            return Err(Status::data_loss("the world says no"));
        }
        let mut started = self.started.lock().unwrap();
        *started += 1;
        let mut restarts = Restarts::new(RestartPolicy::default());
        restarts.ready(Duration::ZERO);
        let health = SessionHealth::Serving;
        let id = (request.model.clone(), request.version);
        let worker = Worker { id, restarts, health, due: None, listener: None };
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

/// What there is, and what was asked for.
struct World {
    policy: AspiredVersionPolicy,
    origin: Instant,
    clock: Hands,
    workers: Workers,
    loads: Jobs,
    unloads: Jobs,
    load_threads: usize,
    events: Receiver<Event>,
    manager: Manager,
    published: Arc<Published>,
    board: Arc<StatusBoard>,
    leases: Vec<Lease>,
    wanted: BTreeMap<&'static str, BTreeSet<i64>>,
}

impl World {
    fn new(policy: AspiredVersionPolicy, load_threads: usize, load_retries_max: u32) -> World {
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
                load_threads,
                unload_threads: load_threads,
                run_threads: 1,
                queue_runs_max: 1,
                load_retries_max,
                load_retry_interval: LOAD_RETRY_INTERVAL,
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
            policy,
            origin,
            clock,
            workers,
            loads,
            unloads,
            load_threads,
            events,
            manager,
            published,
            board,
            leases: Vec::new(),
            wanted: BTreeMap::new(),
        }
    }

    /// Lets the manager take in what it was told, one by one, as its thread does.
    fn settle(&mut self) {
        self.advance();
        while let Ok(event) = self.events.try_recv() {
            self.manager.on_event(event);
            self.advance();
            self.check_at_any_time();
        }
    }

    /// Lets the manager do what it can until the next event.
    fn advance(&mut self) {
        let loading = self.versions(|entry| entry.state == State::Loading);
        self.manager.advance();
        if self.policy == AspiredVersionPolicy::AvailabilityPreserving {
            return;
        }
        let crowded = self.versions(|entry| entry.wanted.is_none() && entry.state.is_held());
        for (model, version) in self.versions(|entry| entry.state == State::Loading) {
            let began = !loading.contains(&(model.clone(), version));
            let alone = !crowded.iter().any(|(other, _)| *other == model);
            assert!(alone || !began, "{model} {version} is loaded while {crowded:?} are held");
        }
    }

    /// The versions whose entry `is` so.
    fn versions(&self, is: impl Fn(&Entry) -> bool) -> BTreeSet<(ModelName, Version)> {
        let of_model = |(model, versions): (&ModelName, &BTreeMap<Version, Entry>)| {
            let these = versions.iter().filter(|(_, entry)| is(entry));
            these.map(|(&version, _)| (model.clone(), version)).collect::<Vec<_>>()
        };
        self.manager.fleet.models.iter().flat_map(of_model).collect()
    }

    fn pass(&mut self, time: Duration) {
        *self.clock.0.lock().unwrap() += time;
    }

    /// A source announces what it wants of a model.
    fn want(&mut self, model: &'static str, wanted: BTreeSet<i64>, edition: u64) {
        let aspired = wanted.iter().map(|&version| Aspired {
            version: Version(version),
            artifact: Ok(format!("/{model}/{version}").into()),
            tags: Vec::new(),
            edition: Some(Edition(edition)),
        });
        let aspired = aspired.collect();
        self.wanted.insert(model, wanted);
        self.manager.on_event(Event::Aspire { model: model.into(), wanted: aspired });
    }

    /// The process of a version that somebody holds ends.
    fn kill(&mut self, lease: &Lease, life: Life) {
        let id = &lease.servable().id;
        let (now, origin) = (self.clock.now(), self.origin);
        let mut all = self.workers.all.lock().unwrap();
        let of_version = |worker: &&mut Worker| worker.id == (id.model.clone(), id.version);
        all.values_mut().find(of_version).unwrap().ends(now, origin, life);
    }

    /// Versions whose process is to be started again, oldest first.
    fn down(&self) -> Vec<(ModelName, Version)> {
        let all = self.workers.all.lock().unwrap();
        all.values().filter(|one| one.due.is_some()).map(|one| one.id.clone()).collect()
    }

    /// A process that is due comes back, or its restarts fail until it is given up.
    fn restart(&mut self, id: &(ModelName, Version), comes_back: bool) {
        loop {
            let mut all = self.workers.all.lock().unwrap();
            let Some(worker) = all.values_mut().find(|one| &one.id == id) else { return };
            let Some(due) = worker.due.take() else { return };
            let now = self.clock.now().max(due);
            *self.clock.0.lock().unwrap() = now;
            if comes_back {
                worker.restarts.ready(now - self.origin);
                worker.become_(SessionHealth::Serving);
            } else {
                worker.ends(now, self.origin, Life::Unproven);
            }
            drop(all);
            self.settle();
        }
    }

    /// Versions that are shown as AVAILABLE.
    fn available(&self, model: &str) -> BTreeSet<i64> {
        let shown = self.board.status(model, None).unwrap_or_default();
        let available = shown.iter().filter(|one| one.phase == Phase::Available);
        available.map(|one| one.version.0).collect()
    }

    /// Versions that ended by an error.
    fn failed(&self, model: &str) -> BTreeSet<i64> {
        let shown = self.board.status(model, None).unwrap_or_default();
        let failed = shown.iter().filter(|one| one.end_error().is_some());
        failed.map(|one| one.version.0).collect()
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
        let bound = self.load_threads + HUNG_MAX;
        assert!(loads <= bound && unloads <= bound, "{loads} loads, {unloads} unloads");
    }

    /// What holds once everything told was taken in.
    fn check(&self) {
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

    /// What holds at rest: what serves is all that is loaded, and nothing is left to do.
    fn check_at_rest(&self) {
        self.check();
        assert_eq!((self.loads.len(), self.unloads.len()), (0, 0), "jobs are left");
        let loaded: usize = MODELS.iter().map(|model| self.available(model).len()).sum();
        assert_eq!(self.workers.all.lock().unwrap().len(), loaded, "sessions are left over");
        assert_eq!(self.manager.fleet.instances.len(), loaded, "sessions are remembered");
    }
}

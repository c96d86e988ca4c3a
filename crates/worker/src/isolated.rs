//! The decorator: an engine whose sessions live in processes of their own.
//!
//! Owns the public faces of isolation: engine, session, health. Knows nothing of how frames look.
//! Invariant: dropping the last owner of a session (itself or a run of it) ends its process before
//! it returns.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak, mpsc};
use std::thread::JoinHandle;

use vesta_model::{
    Engine, EngineIdentity, HealthListener, LoadRequest, ModelDescription, ModelName, Run,
    RunRequest, Session, SessionHealth, SessionProcess, Status, Version,
};

use crate::arena::{Arena, ArenaLimits};
use crate::options::WorkerOptions;
use crate::process::{WorkerCommand, resident_bytes};
use crate::run::IsolatedRun;
use crate::supervisor::{Shared, owner, supervise};
use crate::wake::{Wake, lock};

/// An engine behind worker processes, one for each version loaded.
pub struct IsolatedEngine {
    identity: EngineIdentity,
    command: WorkerCommand,
    options: WorkerOptions,
    sessions: Mutex<Vec<Weak<Keeper>>>,
}

/// A version loaded in a worker process.
pub struct IsolatedSession {
    keeper: Arc<Keeper>,
    description: ModelDescription,
}

/// How a worker is doing, for metrics and the console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerHealth {
    /// The model it serves.
    pub model: ModelName,
    /// The version it serves.
    pub version: Version,
    /// Its process; `None` while it is being replaced or was given up.
    pub pid: Option<u32>,
    /// Bytes of memory that the process has resident.
    pub resident_bytes: Option<u64>,
    /// How often it was started again.
    pub restarts: u64,
    /// Bytes of shared memory.
    pub arena_bytes: usize,
    /// Bytes of shared memory that runs and their outputs hold now.
    pub arena_bytes_in_use: usize,
    /// What requests are told now; `None` when they are served.
    pub unavailable: Option<String>,
}

/// Keeps the supervisor alive; ends it when dropped.
pub(crate) struct Keeper {
    pub(crate) shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl IsolatedEngine {
    /// The engine called `identity`, which `command` serves.
    pub fn new(
        identity: EngineIdentity,
        command: WorkerCommand,
        options: WorkerOptions,
    ) -> IsolatedEngine {
        IsolatedEngine { identity, command, options, sessions: Mutex::default() }
    }

    /// As [`Engine::load`], with the session's own type.
    ///
    /// # Errors
    /// What the engine in the worker says; `FAILED_PRECONDITION` when the worker cannot be started
    /// or is another build; `UNAVAILABLE` when it ended while loading; `DEADLINE_EXCEEDED` when it
    /// did not answer in time; `INTERNAL` when what it answered makes no sense.
    pub fn load_isolated(&self, request: &LoadRequest) -> Result<Arc<IsolatedSession>, Status> {
        let no_thread = |error: std::io::Error| {
            Status::resource_exhausted("a worker cannot be supervised").with_cause(error)
        };
        let wake = Arc::new(Wake::new().map_err(no_thread)?);
        let limits = ArenaLimits {
            bytes_max: self.options.arena_bytes_max,
            idle_slots_max: self.options.idle_slots_max,
            idle_time: self.options.idle_time,
            owner: owner(request),
        };
        let arena = Arena::new(limits, Arc::clone(&wake));
        let shared = Arc::new(Shared::new(
            self.identity.clone(),
            request.clone(),
            self.command.clone(),
            self.options.clone(),
            arena,
            wake,
        ));
        let (loaded, outcome) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("worker".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || supervise(&shared, &loaded)
            })
            .map_err(no_thread)?;
        let keeper = Keeper { shared, thread: Some(thread) };
        let description = outcome
            .recv()
            .map_err(|_| Status::internal("the supervisor of a worker ended early"))??;
        let keeper = Arc::new(keeper);
        let mut sessions = lock(&self.sessions);
        sessions.retain(|session| session.strong_count() > 0);
        sessions.push(Arc::downgrade(&keeper));
        Ok(Arc::new(IsolatedSession { keeper, description }))
    }

    /// How the workers of all living sessions are doing.
    pub fn workers(&self) -> Vec<WorkerHealth> {
        let keepers: Vec<Arc<Keeper>> =
            lock(&self.sessions).iter().filter_map(Weak::upgrade).collect();
        keepers.iter().map(|keeper| keeper.health()).collect()
    }
}

impl Engine for IsolatedEngine {
    fn identity(&self) -> EngineIdentity {
        self.identity.clone()
    }

    fn load(&self, request: &LoadRequest) -> Result<Arc<dyn Session>, Status> {
        Ok(self.load_isolated(request)?)
    }
}

impl IsolatedSession {
    /// How the worker is doing.
    pub fn health(&self) -> WorkerHealth {
        self.keeper.health()
    }
}

impl Session for IsolatedSession {
    fn description(&self) -> &ModelDescription {
        &self.description
    }

    fn prepare(&self, request: &RunRequest) -> Result<Box<dyn Run>, Status> {
        let signature = self.description.signatures.get(&request.signature).ok_or_else(|| {
            Status::not_found(format!(
                "{} has no signature `{}`",
                self.keeper.shared.owner(),
                request.signature
            ))
        })?;
        Ok(Box::new(IsolatedRun::prepare(Arc::clone(&self.keeper), signature, request)?))
    }

    fn watch(&self, listener: HealthListener) -> SessionHealth {
        self.keeper.shared.watch(listener)
    }

    fn process(&self) -> Option<SessionProcess> {
        let WorkerHealth { resident_bytes, restarts, .. } = self.health();
        Some(SessionProcess { resident_bytes, restarts })
    }
}

impl Keeper {
    fn health(&self) -> WorkerHealth {
        let shared = &self.shared;
        let (arena_bytes, arena_bytes_in_use) = shared.arena.usage();
        let pid = shared.pid();
        WorkerHealth {
            model: shared.request.model.clone(),
            version: shared.request.version,
            pid,
            resident_bytes: pid.and_then(resident_bytes),
            restarts: shared.restarts.load(Ordering::Relaxed),
            arena_bytes,
            arena_bytes_in_use,
            unavailable: shared.link().err().map(|status| status.message().to_owned()),
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Release);
        self.shared.wake.wake();
        if let Some(thread) = self.thread.take() {
            // A supervisor that panicked has dropped, hence ended, its child.
            let _ = thread.join();
        }
        self.shared.arena.close();
    }
}

//! The one thread that owns a session's child: starts it, watches it, replaces it, ends it.
//!
//! Owns the process and the phase that everybody else reads. Knows nothing of tensors.
//! Invariant: a child's death is told once to each run that waits for it, after the child was
//! reaped and the phase was changed; the thread outlives each child that it starts, since the
//! kernel ends a child with the thread that started it.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use tracing::{info, warn};
use vesta_model::{
    EngineIdentity, HealthListener, LoadRequest, ModelDescription, SessionHealth, Status,
};

use crate::arena::Arena;
use crate::frame::poll;
use crate::link::Link;
use crate::options::WorkerOptions;
use crate::process::{Process, WorkerCommand};
use crate::restart::{Life, Restarts, Verdict};
use crate::sizes::OutputSizes;
use crate::startup::{Started, Startup};
use crate::wake::{Wake, after, lock};
use crate::wire::Order;

/// What supervisor, session and runs share.
pub(crate) struct Shared {
    pub(crate) identity: EngineIdentity,
    pub(crate) request: LoadRequest,
    pub(crate) command: WorkerCommand,
    pub(crate) options: WorkerOptions,
    pub(crate) arena: Arc<Arena>,
    pub(crate) sizes: OutputSizes,
    pub(crate) wake: Arc<Wake>,
    pub(crate) closing: AtomicBool,
    pub(crate) restarts: AtomicU64,
    phase: Mutex<Phase>,
    changed: Condvar,
    /// Who hears of changes of the phase; called with the phase locked, so that what is heard is in
    /// order.
    listener: Mutex<Option<HealthListener>>,
}

enum Phase {
    /// The first child is loading; there is no session yet.
    Starting,
    Ready {
        link: Arc<Link>,
        pid: u32,
    },
    Restarting(Status),
    /// Nobody tries again.
    Over(Status),
}

impl Phase {
    fn health(&self) -> SessionHealth {
        match self {
            Phase::Ready { .. } => SessionHealth::Serving,
            Phase::Starting => {
                SessionHealth::Restarting(Status::unavailable("the worker is being started"))
            }
            Phase::Restarting(status) => SessionHealth::Restarting(status.clone()),
            Phase::Over(status) => SessionHealth::GivenUp(status.clone()),
        }
    }
}

/// A child that serves.
pub(crate) struct Worker {
    pub(crate) process: Process,
    pub(crate) socket: Arc<OwnedFd>,
    pub(crate) link: Arc<Link>,
}

impl Drop for Worker {
    /// Nobody waits for a child whose supervisor is gone, not even after a panic.
    fn drop(&mut self) {
        self.process.reap();
        self.link.end(&Status::unavailable("the worker process is not supervised any more"));
    }
}

/// Why a child stopped serving.
enum Stop {
    /// The session is being dropped.
    Closing,
    /// The child ended by itself.
    Ended,
    /// The child has to be ended.
    Broken(Status),
}

impl Shared {
    pub(crate) fn new(
        identity: EngineIdentity,
        request: LoadRequest,
        command: WorkerCommand,
        options: WorkerOptions,
        arena: Arc<Arena>,
        wake: Arc<Wake>,
    ) -> Shared {
        Shared {
            identity,
            request,
            command,
            options,
            arena,
            wake,
            sizes: OutputSizes::default(),
            closing: AtomicBool::new(false),
            restarts: AtomicU64::new(0),
            phase: Mutex::new(Phase::Starting),
            changed: Condvar::new(),
            listener: Mutex::default(),
        }
    }

    /// `model m version 1`.
    pub(crate) fn owner(&self) -> String {
        owner(&self.request)
    }

    /// The connection to a child that serves.
    ///
    /// # Errors
    /// `UNAVAILABLE` at once when there is none.
    pub(crate) fn link(&self) -> Result<Arc<Link>, Status> {
        match &*lock(&self.phase) {
            Phase::Ready { link, .. } => Ok(Arc::clone(link)),
            Phase::Starting => Err(Status::unavailable("the worker is being started")),
            Phase::Restarting(status) | Phase::Over(status) => Err(status.clone()),
        }
    }

    /// The same, waiting until `until` for a child that is being replaced.
    pub(crate) fn link_before(&self, until: Instant) -> Result<Arc<Link>, Status> {
        let mut phase = lock(&self.phase);
        loop {
            let status = match &*phase {
                Phase::Ready { link, .. } => return Ok(Arc::clone(link)),
                Phase::Over(status) => return Err(status.clone()),
                Phase::Starting => Status::unavailable("the worker is being started"),
                Phase::Restarting(status) => status.clone(),
            };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(status);
            }
            phase = match self.changed.wait_timeout(phase, left) {
                Ok((phase, _)) => phase,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    /// The process that serves now.
    pub(crate) fn pid(&self) -> Option<u32> {
        match &*lock(&self.phase) {
            Phase::Ready { pid, .. } => Some(*pid),
            _ => None,
        }
    }

    fn enter(&self, phase: Phase) {
        let mut present = lock(&self.phase);
        *present = phase;
        // Nobody is interested in how a session ends that nobody holds any more.
        if !self.is_closing()
            && let Some(listener) = &*lock(&self.listener)
        {
            listener(present.health());
        }
        drop(present);
        self.changed.notify_all();
    }

    /// How the session is now; `listener` hears what follows.
    pub(crate) fn watch(&self, listener: HealthListener) -> SessionHealth {
        let present = lock(&self.phase);
        *lock(&self.listener) = Some(listener);
        present.health()
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }
}

/// `model m version 1`.
pub(crate) fn owner(request: &LoadRequest) -> String {
    format!("model {} version {}", request.model, request.version)
}

/// The supervisor's whole life. The outcome of the first load goes to `loaded`.
pub(crate) fn supervise(shared: &Shared, loaded: &SyncSender<Result<ModelDescription, Status>>) {
    let origin = Instant::now();
    let mut restarts = Restarts::new(shared.options.restart.clone());
    let mut epoch = 1;
    let (mut worker, description) = match Startup::new(shared, epoch).run() {
        Ok(Started { worker, description }) => (worker, description),
        Err(status) => {
            let _ = loaded.send(Err(status));
            return;
        }
    };
    let mut told = false;
    loop {
        restarts.ready(origin.elapsed());
        let pid = worker.process.pid();
        info!(model = %shared.request.model, version = shared.request.version.0, pid, "worker serves");
        shared.enter(Phase::Ready { link: Arc::clone(&worker.link), pid });
        if !told {
            told = true;
            let _ = loaded.send(Ok(description.clone()));
        }
        let stop = watch(shared, &worker);
        let life = worker.link.life();
        if let Stop::Closing = stop {
            return close(shared, worker);
        }
        let why = end_text(shared, &mut worker, stop);
        warn!(model = %shared.request.model, version = shared.request.version.0, pid, "{why}");
        let Some(next) =
            replace(shared, &worker, &why, life, &mut restarts, origin, &mut epoch, &description)
        else {
            return;
        };
        worker = next;
    }
}

/// Reaps the child and says how it ended.
fn end_text(shared: &Shared, worker: &mut Worker, stop: Stop) -> String {
    let owner = shared.owner();
    match stop {
        Stop::Broken(why) => {
            // A child that is just dying closes its socket first.
            let ended = !is_panic(&why) && worker.process.ends_within(Duration::from_millis(100));
            let how = worker.process.reap();
            if ended {
                format!("the worker process of {owner} ended ({how})")
            } else {
                let cause = std::error::Error::source(&why)
                    .map(|cause| format!(" ({cause})"))
                    .unwrap_or_default();
                let why = why.message();
                format!("the worker process of {owner} was ended because {why}{cause}")
            }
        }
        Stop::Ended | Stop::Closing => {
            let how = worker.process.reap();
            format!("the worker process of {owner} ended ({how})")
        }
    }
}

/// A panicked run leaves its child alive, so waiting for its end says nothing.
fn is_panic(why: &Status) -> bool {
    why.message() == crate::link::RUN_PANICKED
}

/// Starts children until one serves; `None` when the session is over.
#[expect(clippy::too_many_arguments, reason = "they are the supervisor's own variables")]
fn replace(
    shared: &Shared,
    dead: &Worker,
    why: &str,
    mut life: Life,
    restarts: &mut Restarts,
    origin: Instant,
    epoch: &mut u64,
    description: &ModelDescription,
) -> Option<Worker> {
    let mut why = why.to_owned();
    let mut told = false;
    loop {
        let delay = match restarts.ended(origin.elapsed(), life) {
            Verdict::After(delay) => delay,
            Verdict::GiveUp { ends } => {
                let status = Status::unavailable(give_up_text(shared, &why, ends));
                warn!(model = %shared.request.model, version = shared.request.version.0,
                    "{}", status.message());
                shared.enter(Phase::Over(status.clone()));
                dead.link.end(&status);
                return None;
            }
        };
        let status = Status::unavailable(format!("{why}; it is being restarted"));
        shared.enter(Phase::Restarting(status.clone()));
        if !told {
            told = true;
            dead.link.end(&status);
        }
        if !rest(shared, delay) {
            let status = Status::unavailable(format!("{} was unloaded", shared.owner()));
            shared.enter(Phase::Over(status));
            return None;
        }
        *epoch += 1;
        life = Life::Unproven;
        shared.restarts.fetch_add(1, Ordering::Relaxed);
        match Startup::new(shared, *epoch).run() {
            Ok(started) if started.description == *description => return Some(started.worker),
            Ok(_) => {
                why = format!("the files of {} changed since it was loaded", shared.owner());
            }
            Err(status) => why = status.message().to_owned(),
        }
        warn!(model = %shared.request.model, version = shared.request.version.0,
            "worker cannot be restarted: {why}");
    }
}

fn give_up_text(shared: &Shared, why: &str, ends: usize) -> String {
    let policy = &shared.options.restart;
    if policy.ends_max == 0 {
        return why.to_owned();
    }
    format!(
        "{why}; that was end {ends} within {} s, so it is not restarted any more: look for the \
         reason in the server's log, then load the version again",
        policy.window.as_secs()
    )
}

/// Waits; `false` when the session is dropped meanwhile.
fn rest(shared: &Shared, delay: Duration) -> bool {
    let until = after(delay);
    while !shared.is_closing() {
        if Instant::now() >= until {
            return true;
        }
        let mut fds = [PollFd::new(&*shared.wake, PollFlags::IN)];
        if poll(&mut fds, Some(until)).is_err() {
            std::thread::sleep(delay);
        }
        shared.wake.clear();
    }
    false
}

/// Serves one child's lifetime.
fn watch(shared: &Shared, worker: &Worker) -> Stop {
    loop {
        if shared.is_closing() {
            return Stop::Closing;
        }
        if let Some(why) = worker.link.broken() {
            return Stop::Broken(why);
        }
        let trim_at = shared.arena.trim(Instant::now());
        let retired = shared.arena.take_retired();
        if !retired.is_empty() {
            worker.link.tell(&Order::Retire(retired));
        }
        let kill_at = worker.link.kill_at();
        let look_at = [kill_at, trim_at].into_iter().flatten().min();
        if is_past(kill_at) {
            worker.link.read_waiting();
            if is_past(worker.link.kill_at()) {
                return Stop::Broken(Status::unavailable(format!(
                    "a run was not answered within {} ms after its deadline",
                    shared.options.run_grace.as_millis()
                )));
            }
        }
        let mut fds = [
            PollFd::new(worker.process.pidfd(), PollFlags::IN),
            PollFd::new(&*shared.wake, PollFlags::IN),
            PollFd::new(&*worker.socket, PollFlags::IN),
        ];
        // The socket belongs to those who wait for answers; only runs that nobody waits for any
        // more are looked after here.
        let watched = if kill_at.is_some() { 3 } else { 2 };
        if let Err(error) = poll(&mut fds[..watched], look_at) {
            return Stop::Broken(
                Status::internal("it cannot be watched any more").with_cause(error),
            );
        }
        let [process, wake, socket] = fds.map(|fd| !fd.revents().is_empty());
        if wake {
            shared.wake.clear();
        }
        if process || (watched == 3 && socket) {
            // Answers that were sent before the end count.
            worker.link.read_waiting();
        }
        if process {
            return Stop::Ended;
        }
    }
}

fn is_past(at: Option<Instant>) -> bool {
    at.is_some_and(|at| at <= Instant::now())
}

/// Ends a child in order: it finds its input at the end and exits.
fn close(shared: &Shared, mut worker: Worker) {
    let status = Status::unavailable(format!("{} was unloaded", shared.owner()));
    shared.enter(Phase::Over(status.clone()));
    let _ = rustix::net::shutdown(&*worker.socket, rustix::net::Shutdown::Write);
    let in_time = worker.process.ends_within(shared.options.exit_grace);
    let pid = worker.process.pid();
    let how = worker.process.reap();
    worker.link.end(&status);
    info!(model = %shared.request.model, version = shared.request.version.0, pid, in_time,
        "worker ended ({how})");
}

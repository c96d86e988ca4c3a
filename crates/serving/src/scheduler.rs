//! Which waiting request is run next, and by which thread.
//!
//! Owns the run threads, the only callers of `Run::run`, and the lanes that they share; may not know
//! how versions come and go. Lanes take turns, one request each, so a busy model cannot crowd out
//! another. A model whose runs hang can still occupy every run thread, since a run cannot be stopped
//! from outside; so as many relief threads stand by. They step in when no run thread has taken
//! anything for [`RELIEF_AFTER`], and then only for lanes of which nothing runs. Setting run threads
//! aside instead would cost the common case, one busy model, half of a two-core machine.
//!
//! Invariants: a lane with work either has a turn or is being given one; the lock is never held
//! while an engine, a reply or the freeing of a tensor is at work; a version of which nothing runs
//! is served at once or after [`RELIEF_AFTER`] as long as fewer lanes hang than relief threads are.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vesta_model::{Engine, Status};

use crate::lane::{Lane, Leavers, Waiting};
use crate::run::RunOrder;
use crate::servable::ServableId;
use crate::texts;

/// How long run threads may go without taking anything before relief threads step in.
const RELIEF_AFTER: Duration = Duration::from_millis(10);

/// Fewest relief threads, so that one hung model does not use up the relief as well.
const RELIEF_THREADS_MIN: usize = 2;

type LaneNumber = u64;

/// The threads. Clones are the same ones.
#[derive(Clone)]
pub(crate) struct Scheduler {
    shared: Arc<Shared>,
}

struct Shared {
    board: Mutex<Board>,
    /// Run threads sleep here.
    work: Condvar,
    /// Relief threads sleep here.
    relief: Condvar,
    runs_max: usize,
}

/// What the lock guards.
struct Board {
    lanes: HashMap<LaneNumber, Lane<RunOrder>>,
    turns: VecDeque<LaneNumber>,
    next_lane: LaneNumber,
    /// Run threads that sleep.
    idle: usize,
    /// Whether a relief thread already waits for the moment to step in.
    relief_watches: bool,
    /// When a run thread last took a request.
    last_taken: Instant,
    closed: bool,
}

/// A lane, for the one who pushes. Dropping it removes the lane.
pub(crate) struct LaneKey {
    shared: Arc<Shared>,
    number: LaneNumber,
    id: ServableId,
}

/// A request on its way to an engine.
struct Taken {
    lane: LaneNumber,
    waiting: Waiting<RunOrder>,
}

impl Scheduler {
    /// Starts `threads` run threads and as many relief threads; each lane holds up to `runs_max`
    /// waiting requests.
    pub(crate) fn start(
        engine: &Arc<dyn Engine>,
        threads: usize,
        runs_max: usize,
    ) -> Result<Scheduler, Status> {
        let scheduler = Scheduler { shared: Arc::new(Shared::new(runs_max)) };
        let started = scheduler.spawn(engine, "run", threads, Shared::serve).and_then(|()| {
            let threads = threads.max(RELIEF_THREADS_MIN);
            scheduler.spawn(engine, "relief", threads, Shared::relieve)
        });
        match started {
            Ok(()) => Ok(scheduler),
            Err(status) => {
                scheduler.close();
                Err(status)
            }
        }
    }

    /// One without threads: nothing is ever run.
    #[cfg(test)]
    pub(crate) fn idle() -> Scheduler {
        Scheduler { shared: Arc::new(Shared::new(1)) }
    }

    fn spawn(
        &self,
        engine: &Arc<dyn Engine>,
        name: &str,
        count: usize,
        body: fn(&Shared),
    ) -> Result<(), Status> {
        for index in 0..count {
            let (engine, shared) = (Arc::clone(engine), Arc::clone(&self.shared));
            std::thread::Builder::new()
                .name(format!("vesta-{name}-{index}"))
                .spawn(move || engine.host_runs(Box::new(move || body(&shared))))
                .map_err(texts::no_thread)?;
        }
        Ok(())
    }

    /// A new lane for runs of `id`.
    pub(crate) fn lane(&self, id: ServableId) -> LaneKey {
        let mut board = self.shared.lock();
        let number = board.next_lane;
        board.next_lane += 1;
        board.lanes.insert(number, Lane::new(self.shared.runs_max));
        LaneKey { shared: Arc::clone(&self.shared), number, id }
    }

    /// Refuses whatever waits or comes from now on; threads end once their run ends.
    pub(crate) fn close(&self) {
        let refused: Vec<_> = {
            let mut board = self.shared.lock();
            board.closed = true;
            board.turns.clear();
            board.lanes.values_mut().flat_map(Lane::drain).collect()
        };
        self.shared.work.notify_all();
        self.shared.relief.notify_all();
        for waiting in refused {
            waiting.refuse(texts::shutting_down());
        }
    }
}

impl LaneKey {
    /// Appends a request to the lane.
    ///
    /// # Errors
    /// `UNAVAILABLE` when the lane is full or the scheduler closed.
    pub(crate) fn push(&self, waiting: Waiting<RunOrder>) -> Result<(), Status> {
        // What does not get in is dropped after the lock.
        let mut leavers = Leavers::default();
        let mut waiting = Some(waiting);
        self.enter(&mut waiting, &mut leavers)
    }

    /// Takes the request out of `waiting`, unless it is refused.
    fn enter(
        &self,
        waiting: &mut Option<Waiting<RunOrder>>,
        leavers: &mut Leavers<RunOrder>,
    ) -> Result<(), Status> {
        let mut guard = self.shared.lock();
        let board = &mut *guard;
        let lane = match board.lanes.get_mut(&self.number) {
            Some(lane) if !board.closed => lane,
            _ => return Err(texts::shutting_down()),
        };
        if !lane.has_room(leavers) {
            return Err(texts::queue_full(&self.id, self.shared.runs_max));
        }
        if let Some(waiting) = waiting.take() {
            lane.push(waiting);
        }
        if !lane.has_turn {
            lane.has_turn = true;
            board.turns.push_back(self.number);
        }
        if board.idle > 0 {
            self.shared.work.notify_one();
        }
        self.shared.call_relief(board);
        Ok(())
    }
}

impl Drop for LaneKey {
    fn drop(&mut self) {
        // Whoever waits holds a lease and thereby this key, so the lane is empty.
        self.shared.lock().lanes.remove(&self.number);
    }
}

impl Shared {
    fn new(runs_max: usize) -> Shared {
        Shared {
            board: Mutex::new(Board {
                lanes: HashMap::new(),
                turns: VecDeque::new(),
                next_lane: 0,
                idle: 0,
                relief_watches: false,
                last_taken: Instant::now(),
                closed: false,
            }),
            work: Condvar::new(),
            relief: Condvar::new(),
            runs_max,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life of a run thread.
    fn serve(&self) {
        loop {
            let mut leavers = Leavers::default();
            let taken = {
                let mut board = self.lock();
                while board.turns.is_empty() && !board.closed {
                    board.idle += 1;
                    board = self.work.wait(board).unwrap_or_else(PoisonError::into_inner);
                    board.idle -= 1;
                }
                if board.closed {
                    return;
                }
                let now = Instant::now();
                let taken = board.take(now, &mut leavers, |_| true);
                if taken.is_some() {
                    board.last_taken = now;
                }
                self.call_relief(&board);
                taken
            };
            drop(leavers);
            self.execute(taken);
        }
    }

    /// The life of a relief thread.
    fn relieve(&self) {
        loop {
            let mut leavers = Leavers::default();
            let taken = {
                let mut board = self.lock();
                while !board.closed && !board.relief_is_due(Instant::now()) {
                    board = self.watch(board);
                }
                if board.closed {
                    return;
                }
                let taken = board.take(Instant::now(), &mut leavers, |lane| lane.running == 0);
                // This thread may hang from here on; another must watch what is left.
                self.call_relief(&board);
                taken
            };
            drop(leavers);
            self.execute(taken);
        }
    }

    /// Sleeps until called, or until relief may be due when it is this thread's to watch.
    fn watch<'a>(&self, mut board: MutexGuard<'a, Board>) -> MutexGuard<'a, Board> {
        if board.relief_watches || !board.wants_relief() {
            return self.relief.wait(board).unwrap_or_else(PoisonError::into_inner);
        }
        board.relief_watches = true;
        let sleep = RELIEF_AFTER.saturating_sub(board.last_taken.elapsed());
        let (mut board, _) =
            self.relief.wait_timeout(board, sleep).unwrap_or_else(PoisonError::into_inner);
        board.relief_watches = false;
        board
    }

    /// Wakes a relief thread when there is something to watch and nobody does.
    fn call_relief(&self, board: &Board) {
        if !board.relief_watches && board.wants_relief() {
            self.relief.notify_one();
        }
    }

    /// Runs a request and answers it.
    fn execute(&self, taken: Option<Taken>) {
        let Some(Taken { lane, waiting }) = taken else { return };
        let Waiting { deadline, reply, work } = waiting;
        let answer = work.run(deadline);
        {
            let mut guard = self.lock();
            if let Some(lane) = guard.lanes.get_mut(&lane) {
                lane.running -= 1;
            }
        }
        // The caller may have gone away.
        let _ = reply.send(answer);
    }
}

impl Board {
    /// Takes one request of the first lane in turn that `may` be taken from; the lane then goes to
    /// the end when it has more.
    fn take(
        &mut self,
        now: Instant,
        leavers: &mut Leavers<RunOrder>,
        may: impl Fn(&Lane<RunOrder>) -> bool,
    ) -> Option<Taken> {
        let mut index = 0;
        while let Some(&number) = self.turns.get(index) {
            let Some(lane) = self.lanes.get_mut(&number) else {
                self.turns.remove(index);
                continue;
            };
            if !may(lane) {
                index += 1;
                continue;
            }
            self.turns.remove(index);
            let next = lane.next(now, leavers);
            lane.has_turn = lane.has_work();
            if lane.has_turn {
                self.turns.push_back(number);
            }
            if let Some(waiting) = next {
                lane.running += 1;
                return Some(Taken { lane: number, waiting });
            }
        }
        None
    }

    /// Whether a lane of which nothing runs waits while every run thread is busy.
    fn wants_relief(&self) -> bool {
        self.idle == 0
            && self
                .turns
                .iter()
                .any(|number| self.lanes.get(number).is_some_and(|lane| lane.running == 0))
    }

    fn relief_is_due(&self, now: Instant) -> bool {
        self.wants_relief() && now.duration_since(self.last_taken) >= RELIEF_AFTER
    }
}

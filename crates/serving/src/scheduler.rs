//! Which waiting request or batch is run next, and by which thread.
//!
//! Owns the run threads, the only callers of `Run::run`, and the lines that they share; may not know
//! how versions come and go, nor how batches are formed. Lines take turns, one run each, so a busy
//! model cannot crowd out another. A line of batches has its turn when a batch is closed; an open one
//! has an alarm, which one of the sleeping threads watches. A model whose runs hang can still occupy
//! every run thread, since a run cannot be stopped from outside; so as many relief threads stand by.
//! They step in when no run thread has taken anything for [`RELIEF_AFTER`], and then only for lines
//! of which nothing runs. Setting run threads aside instead would cost the common case, one busy
//! model, half of a two-core machine.
//!
//! Invariants: a line whose next run is due either has a turn, is being given one, or has as many
//! runs in progress as it may; the lock is never held while an engine, a reply or the freeing of a
//! tensor is at work; a version of which nothing runs is served at once or after [`RELIEF_AFTER`] as
//! long as fewer lines hang than relief threads are.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use vesta_model::{Engine, Status};

use crate::batching::{self, Done, Due, Former, Limits, Piece, RunObserver};
use crate::lane::{Answer, Waiting};
use crate::line::{Departed, Line, Work};
use crate::run::RunOrder;
use crate::servable::ServableId;
use crate::texts;

/// How long run threads may go without taking anything before relief threads step in.
const RELIEF_AFTER: Duration = Duration::from_millis(10);

/// Fewest relief threads, so that one hung model does not use up the relief as well.
const RELIEF_THREADS_MIN: usize = 2;

type LineNumber = u64;

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
    observer: Arc<dyn RunObserver>,
}

/// What the lock guards.
struct Board {
    lines: HashMap<LineNumber, Line>,
    turns: VecDeque<LineNumber>,
    /// Lines that get their turn when a time comes.
    alarms: BTreeSet<(Instant, LineNumber)>,
    next_line: LineNumber,
    /// Run threads that sleep, or have not begun yet: what they could take needs no relief.
    idle: usize,
    /// Turns that alarms gave and nobody was woken for.
    rung: usize,
    /// Until when a run thread sleeps that watches the alarms.
    alarm_watch: Option<Instant>,
    /// Until when a relief thread sleeps that watches for the moment to step in.
    relief_watch: Option<Instant>,
    /// When a run thread last took something.
    last_taken: Instant,
    /// Whether batches wait for nothing any more.
    hurried: bool,
    closed: bool,
}

/// A line, for the one who pushes. Dropping it removes the line.
pub(crate) struct LaneKey {
    shared: Arc<Shared>,
    number: LineNumber,
}

/// A run on its way to an engine.
struct Taken {
    line: LineNumber,
    work: Work,
}

/// The outcome of a run, on its way to those who wait for it.
enum Outcome {
    Single(oneshot::Sender<Answer>, Answer),
    Batch(Done),
}

impl Scheduler {
    /// Starts `threads` run threads and as many relief threads; each lane holds up to `runs_max`
    /// waiting requests.
    pub(crate) fn start(
        engine: &Arc<dyn Engine>,
        threads: usize,
        runs_max: usize,
        observer: Arc<dyn RunObserver>,
    ) -> Result<Scheduler, Status> {
        let scheduler = Scheduler { shared: Arc::new(Shared::new(threads, runs_max, observer)) };
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
        Scheduler { shared: Arc::new(Shared::new(0, 1, Arc::new(batching::Unobserved))) }
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

    /// A new line for runs of `id`, each alone.
    pub(crate) fn lane(&self, id: ServableId) -> LaneKey {
        self.add(Line::of_singles(id, self.shared.runs_max))
    }

    /// A new line for batches of `id`, of which `threads` may be run at once.
    pub(crate) fn batch_lane(&self, id: ServableId, limits: Limits, threads: usize) -> LaneKey {
        self.add(Line::of_batches(id, Former::new(limits), threads))
    }

    fn add(&self, mut line: Line) -> LaneKey {
        let mut board = self.shared.lock();
        if board.hurried {
            line.hurry();
        }
        let number = board.next_line;
        board.next_line += 1;
        board.lines.insert(number, line);
        LaneKey { shared: Arc::clone(&self.shared), number }
    }

    /// From now on no batch waits for more requests than are there.
    pub(crate) fn hurry(&self) {
        let mut guard = self.shared.lock();
        let board = &mut *guard;
        board.hurried = true;
        board.lines.values_mut().for_each(Line::hurry);
        let numbers: Vec<LineNumber> = board.lines.keys().copied().collect();
        for number in numbers {
            board.give_turn(number, None);
        }
        self.shared.work.notify_all();
        self.shared.call_relief(board);
    }

    /// Who hears of waits and batches.
    pub(crate) fn observer(&self) -> &dyn RunObserver {
        &*self.shared.observer
    }

    /// For each version that is loaded, how many requests, or pieces of them, wait.
    pub(crate) fn waiting(&self) -> BTreeMap<ServableId, usize> {
        let mut all = BTreeMap::new();
        for line in self.shared.lock().lines.values() {
            *all.entry(line.id.clone()).or_default() += line.waiting();
        }
        all
    }

    /// Refuses whatever waits or comes from now on; threads end once their run ends.
    pub(crate) fn close(&self) {
        let refused: Vec<Work> = {
            let mut board = self.shared.lock();
            board.closed = true;
            board.turns.clear();
            board.alarms.clear();
            board.lines.values_mut().flat_map(Line::drain).collect()
        };
        self.shared.work.notify_all();
        self.shared.relief.notify_all();
        for work in refused {
            work.refuse(texts::shutting_down());
        }
    }
}

impl LaneKey {
    /// Appends a request to a line of those that are run alone.
    ///
    /// # Errors
    /// `UNAVAILABLE` when the line is full or the scheduler closed.
    pub(crate) fn push(&self, waiting: Waiting<RunOrder>) -> Result<(), Status> {
        // What does not get in is dropped after the lock.
        let mut departed = Departed::default();
        let mut waiting = Some(waiting);
        let runs_max = self.shared.runs_max;
        self.enter(|line| line.enter(&mut waiting, runs_max, &mut departed))
    }

    /// Appends a request to a line of batches.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when it is larger than a request may be, `UNAVAILABLE` when the queue is
    /// full or the scheduler closed.
    pub(crate) fn push_batch(&self, piece: Piece) -> Result<(), Status> {
        let mut departed = Departed::default();
        let now = piece.task.since;
        let mut piece = Some(piece);
        self.enter(|line| line.enter_batch(&mut piece, now, &mut departed))
    }

    /// Lets something into the line and sees that it is run.
    fn enter(&self, let_in: impl FnOnce(&mut Line) -> Result<(), Status>) -> Result<(), Status> {
        let mut guard = self.shared.lock();
        let board = &mut *guard;
        let line = match board.lines.get_mut(&self.number) {
            Some(line) if !board.closed => line,
            _ => return Err(texts::shutting_down()),
        };
        let_in(line)?;
        if board.give_turn(self.number, None) && board.idle > 0 {
            self.shared.work.notify_one();
        }
        self.shared.call_relief(board);
        Ok(())
    }
}

impl Drop for LaneKey {
    fn drop(&mut self) {
        // Whoever waits holds a lease and thereby this key, so the line is empty.
        let line = self.shared.lock().lines.remove(&self.number);
        drop(line);
    }
}

impl Shared {
    fn new(threads: usize, runs_max: usize, observer: Arc<dyn RunObserver>) -> Shared {
        Shared {
            board: Mutex::new(Board {
                lines: HashMap::new(),
                turns: VecDeque::new(),
                alarms: BTreeSet::new(),
                next_line: 0,
                idle: threads,
                rung: 0,
                alarm_watch: None,
                relief_watch: None,
                last_taken: Instant::now(),
                hurried: false,
                closed: false,
            }),
            work: Condvar::new(),
            relief: Condvar::new(),
            runs_max,
            observer,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life of a run thread.
    fn serve(&self) {
        self.lock().idle -= 1;
        loop {
            let mut departed = Departed::default();
            let taken = {
                let mut board = self.lock();
                while !board.has_turns() && !board.closed {
                    board = self.sleep(board);
                }
                if board.closed {
                    return;
                }
                let now = Instant::now();
                let taken = board.take(now, &mut departed, |_| true);
                if taken.is_some() {
                    board.last_taken = now;
                }
                // This thread may have watched the alarms, or rung several at once.
                if board.idle > 0 && board.leaves_unseen() {
                    self.work.notify_one();
                }
                self.call_relief(&board);
                taken
            };
            drop(departed);
            self.execute(taken);
        }
    }

    /// Sleeps until called, or until an alarm when it is this thread's to watch.
    fn sleep<'a>(&'a self, mut board: MutexGuard<'a, Board>) -> MutexGuard<'a, Board> {
        let alarm = board.unwatched_alarm();
        board.idle += 1;
        let Some(alarm) = alarm else {
            board = self.work.wait(board).unwrap_or_else(PoisonError::into_inner);
            board.idle -= 1;
            return board;
        };
        board.alarm_watch = Some(alarm);
        let sleep = alarm.saturating_duration_since(Instant::now());
        (board, _) = self.work.wait_timeout(board, sleep).unwrap_or_else(PoisonError::into_inner);
        board.idle -= 1;
        // Another thread may watch for an earlier one by now.
        board.alarm_watch = board.alarm_watch.filter(|&watched| watched != alarm);
        board
    }

    /// The life of a relief thread.
    fn relieve(&self) {
        loop {
            let mut departed = Departed::default();
            let taken = {
                let mut board = self.lock();
                while !board.closed && !board.relief_is_due(Instant::now()) {
                    board = self.watch(board);
                }
                if board.closed {
                    return;
                }
                let taken = board.take(Instant::now(), &mut departed, |line| line.running == 0);
                // This thread may hang from here on; another must watch what is left.
                self.call_relief(&board);
                taken
            };
            drop(departed);
            self.execute(taken);
        }
    }

    /// Sleeps until called, or until relief may be due when it is this thread's to watch.
    fn watch<'a>(&'a self, mut board: MutexGuard<'a, Board>) -> MutexGuard<'a, Board> {
        let Some(due) = board.unwatched_relief() else {
            return self.relief.wait(board).unwrap_or_else(PoisonError::into_inner);
        };
        board.relief_watch = Some(due);
        let sleep = due.saturating_duration_since(Instant::now());
        (board, _) = self.relief.wait_timeout(board, sleep).unwrap_or_else(PoisonError::into_inner);
        board.relief_watch = board.relief_watch.filter(|&watched| watched != due);
        board
    }

    /// Wakes a relief thread when there is something to watch and nobody does.
    fn call_relief(&self, board: &Board) {
        if board.unwatched_relief().is_some() {
            self.relief.notify_one();
        }
    }

    /// Runs what was taken and answers it.
    fn execute(&self, taken: Option<Taken>) {
        let Some(Taken { line: number, work }) = taken else { return };
        let outcome = match work {
            Work::Single(Waiting { since, deadline, reply, work }) => {
                self.observer.waited(work.lease.model(), false, since.elapsed());
                Outcome::Single(reply, work.run(deadline))
            }
            Work::Batch(pieces) => Outcome::Batch(batching::run(pieces, &*self.observer)),
        };
        {
            let mut guard = self.lock();
            let board = &mut *guard;
            // A line that had as many runs as it may have gets its turn only now, and this thread
            // may take something else first.
            let was_full = board.lines.get_mut(&number).is_some_and(Line::end_run);
            if was_full && board.give_turn(number, None) && board.idle > 0 {
                self.work.notify_one();
            }
        }
        match outcome {
            // The caller may have gone away.
            Outcome::Single(reply, answer) => drop(reply.send(answer)),
            Outcome::Batch(done) => done.tell(),
        }
    }
}

impl Board {
    /// Gives a line its turn when its next run is due, or an alarm when it will be; whether a
    /// sleeping thread has cause to wake.
    fn give_turn(&mut self, number: LineNumber, now: Option<Instant>) -> bool {
        let Some(line) = self.lines.get_mut(&number) else { return false };
        if line.has_turn {
            return true;
        }
        match line.due(now) {
            Due::Never => false,
            Due::Now => {
                line.has_turn = true;
                if let Some(alarm) = line.alarm.take() {
                    self.alarms.remove(&(alarm, number));
                }
                self.turns.push_back(number);
                true
            }
            Due::At(at) => {
                if line.alarm != Some(at) {
                    if let Some(alarm) = line.alarm.replace(at) {
                        self.alarms.remove(&(alarm, number));
                    }
                    self.alarms.insert((at, number));
                }
                self.alarm_watch.is_none_or(|watched| at < watched)
            }
        }
    }

    /// Gives their turns to the lines whose time has come.
    fn ring(&mut self) {
        if self.alarms.is_empty() {
            return;
        }
        let now = Instant::now();
        while self.alarms.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, number)) = self.alarms.pop_first() else { return };
            if let Some(line) = self.lines.get_mut(&number) {
                line.alarm = None;
            }
            // Nobody was woken for it.
            self.rung += usize::from(self.give_turn(number, Some(now)));
        }
    }

    /// Whether there is something that no thread was woken for.
    fn leaves_unseen(&mut self) -> bool {
        let rung = std::mem::take(&mut self.rung);
        (rung > 0 && !self.turns.is_empty()) || self.unwatched_alarm().is_some()
    }

    /// Whether there is something to take.
    fn has_turns(&mut self) -> bool {
        self.ring();
        !self.turns.is_empty()
    }

    /// The next alarm, unless a thread watches for it or an earlier one.
    fn unwatched_alarm(&self) -> Option<Instant> {
        let (at, _) = *self.alarms.first()?;
        self.alarm_watch.is_none_or(|watched| at < watched).then_some(at)
    }

    /// Takes one run of the first line in turn that `may` be taken from; the line then goes to the
    /// end when its next run is due, too.
    fn take(
        &mut self,
        now: Instant,
        departed: &mut Departed,
        may: impl Fn(&Line) -> bool,
    ) -> Option<Taken> {
        self.ring();
        let mut index = 0;
        while let Some(&number) = self.turns.get(index) {
            let Some(line) = self.lines.get_mut(&number) else {
                self.turns.remove(index);
                continue;
            };
            if !may(line) {
                index += 1;
                continue;
            }
            self.turns.remove(index);
            line.has_turn = false;
            let next = line.next(now, departed);
            self.give_turn(number, Some(now));
            if let Some(work) = next {
                return Some(Taken { line: number, work });
            }
        }
        None
    }

    /// When a relief thread is to step in: a line of which nothing runs waits, or will, while every
    /// run thread is busy.
    fn relief_at(&self) -> Option<Instant> {
        if self.idle > 0 {
            return None;
        }
        let rests = |number: &LineNumber| self.lines.get(number).is_some_and(|l| l.running == 0);
        let step_in = self.last_taken + RELIEF_AFTER;
        if self.turns.iter().any(rests) {
            return Some(step_in);
        }
        let alarm = self.alarms.iter().find(|(_, number)| rests(number));
        alarm.map(|(at, _)| step_in.max(*at))
    }

    /// The same, unless a thread watches for it or an earlier moment.
    fn unwatched_relief(&self) -> Option<Instant> {
        let at = self.relief_at()?;
        self.relief_watch.is_none_or(|watched| at < watched).then_some(at)
    }

    fn relief_is_due(&self, now: Instant) -> bool {
        self.relief_at().is_some_and(|at| at <= now)
    }
}

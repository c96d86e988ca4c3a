//! The connection with one child process, seen from the parent: runs sent and answers waited for.
//!
//! Owns which runs are under way and who reads the socket. Knows nothing of starting or ending
//! processes: it says that it is broken, and is told that it has ended.
//! Invariant: each run ends exactly once: answered, told that the worker died, or abandoned by its
//! caller; its slot is free again only after an answer or after the process was reaped.
//!
//! There is no thread that only reads. Whoever waits for an answer and finds the socket unattended
//! reads it, also for the others, and on leaving wakes one of them to go on; so a lone request
//! costs no wake-up of a further thread.

use std::collections::HashMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use vesta_model::{Memory, Status};

use crate::arena::Lease;
use crate::frame::{BODY_BYTES_MAX, Frame, FrameReader, FrameWriter, Received};
use crate::restart::Life;
use crate::wake::{Wake, after, lock, try_lock};
use crate::wire::{Order, Report, WireRan, WireRun, broken, decode, encode};

/// Why a child is ended after a panic.
pub(crate) const RUN_PANICKED: &str = "a run panicked in it";
/// How long a frame may wait for a child that does not read.
const SEND_LIMIT: Duration = Duration::from_secs(5);

pub(crate) struct Link {
    /// Tells this connection from earlier ones of the session; never 0.
    pub(crate) epoch: u64,
    writer: Mutex<FrameWriter>,
    reader: Mutex<FrameReader>,
    runs: Mutex<Runs>,
    wake: Arc<Wake>,
}

/// The runs of one child.
#[derive(Default)]
struct Runs {
    under_way: HashMap<u64, UnderWay>,
    id_last: u64,
    /// Whether the child has answered a run.
    answered: bool,
    /// Why the child has to be ended.
    broken: Option<Status>,
    /// The child was reaped; what callers are told.
    ended: Option<Status>,
}

struct UnderWay {
    ticket: Arc<Ticket>,
    lease: Lease,
    /// The caller gave up; without an answer by then the child is ended.
    kill_at: Option<Instant>,
}

/// Where one caller waits.
#[derive(Default)]
struct Ticket {
    state: Mutex<TicketState>,
    changed: Condvar,
}

#[derive(Default)]
struct TicketState {
    ended: Option<Ended>,
    /// The reader left: look whether the socket needs a reader.
    nudged: bool,
}

/// How a run ended.
pub(crate) enum Ended {
    Answered {
        lease: Lease,
        ran: WireRan,
        fd: Option<OwnedFd>,
    },
    /// The worker died; the slot holds the inputs as they were.
    Died {
        lease: Lease,
        status: Status,
        /// Whether the worker had begun to compute the run.
        begun: bool,
    },
    /// Time ran out; the slot comes home later.
    TimedOut,
}

impl Link {
    pub(crate) fn new(
        epoch: u64,
        writer: FrameWriter,
        reader: FrameReader,
        wake: Arc<Wake>,
    ) -> Arc<Link> {
        Arc::new(Link {
            epoch,
            writer: Mutex::new(writer),
            reader: Mutex::new(reader),
            runs: Mutex::default(),
            wake,
        })
    }

    /// Sends a run and waits for its end until `until`. The caller fills in all but the run's id,
    /// the slot and the time left.
    pub(crate) fn call(
        &self,
        mut order: WireRun,
        mut lease: Lease,
        until: Instant,
        grace: Duration,
    ) -> Result<Ended, Status> {
        let send_fd = self.claim(&mut order, &mut lease)?;
        let ticket = Arc::new(Ticket::default());
        let id = {
            let mut runs = lock(&self.runs);
            if let Some(status) = &runs.ended {
                return Ok(Ended::Died { status: status.clone(), lease, begun: false });
            }
            runs.id_last += 1;
            runs.id_last
        };
        order.id = id;
        let left = until.saturating_duration_since(Instant::now()).as_micros();
        order.time_left_us = Some(u64::try_from(left).unwrap_or(u64::MAX));
        let body = encode(&Order::Run(order))?;
        if body.len() > BODY_BYTES_MAX {
            return Err(Status::invalid_argument("the request has too many inputs to be sent"));
        }
        // The lease is about to move to where the answer finds it; the descriptor goes out first.
        let fd = match lease.slot().filter(|_| send_fd) {
            Some(slot) => Some(slot.memory.fd().try_clone_to_owned().map_err(|error| {
                Status::resource_exhausted("no file descriptor is to be had").with_cause(error)
            })?),
            None => None,
        };
        {
            let mut runs = lock(&self.runs);
            if let Some(status) = &runs.ended {
                return Ok(Ended::Died { status: status.clone(), lease, begun: false });
            }
            let ticket = Arc::clone(&ticket);
            runs.under_way.insert(id, UnderWay { ticket, lease, kill_at: None });
        }
        self.send(&body, fd.as_ref());
        Ok(self.wait(id, &ticket, until, grace))
    }

    /// Sends something that has no answer.
    pub(crate) fn tell(&self, order: &Order) {
        if let Ok(body) = encode(order) {
            self.send(&body, None);
        }
    }

    /// Names the slot in the order; whether its descriptor must go along.
    fn claim(&self, order: &mut WireRun, lease: &mut Lease) -> Result<bool, Status> {
        let slot = lease
            .slot_mut()
            .ok_or_else(|| Status::internal("a run without its slot was to be sent"))?;
        slot.generation += 1;
        order.slot.id = slot.id;
        order.slot.generation = slot.generation;
        order.slot.bytes = slot.memory.len() as u64;
        let unknown = slot.known_to != self.epoch;
        slot.known_to = self.epoch;
        Ok(unknown)
    }

    fn send(&self, body: &[u8], fd: Option<&OwnedFd>) {
        use std::os::fd::AsFd;
        let fd: Option<BorrowedFd<'_>> = fd.map(AsFd::as_fd);
        let until = after(SEND_LIMIT);
        let sent = lock(&self.writer).send(body, fd, Some(until));
        if let Err(error) = sent {
            self.break_off(Status::unavailable("it takes no orders").with_cause(error));
        }
    }

    fn wait(&self, id: u64, ticket: &Ticket, until: Instant, grace: Duration) -> Ended {
        let mut attend = false;
        let ended = loop {
            if let Some(ended) = ticket.take() {
                break Some(ended);
            }
            if Instant::now() >= until {
                break None;
            }
            if !self.is_broken()
                && let Some(mut reader) = try_lock(&self.reader)
            {
                attend = true;
                self.read_until(&mut reader, ticket, until);
                continue;
            }
            attend |= ticket.wait(until);
        };
        let ended = ended.or_else(|| self.abandon(id, ticket, grace)).unwrap_or(Ended::TimedOut);
        if attend {
            self.nudge_one();
        }
        ended
    }

    /// Reads for everybody until `ticket` has ended, time is over, or the connection is broken.
    fn read_until(&self, reader: &mut FrameReader, ticket: &Ticket, until: Instant) {
        while !ticket.has_ended() && !self.is_broken() {
            match reader.receive(Some(until)) {
                Ok(Received::Frame(frame)) => self.accept_or_break(frame),
                Ok(Received::TimedOut) => return,
                Ok(Received::Closed) => {
                    self.break_off(Status::unavailable("it closed its connection"));
                }
                Err(error) => {
                    self.break_off(broken("its frames cannot be read").with_cause(error));
                }
            }
        }
    }

    /// Reads what has arrived, if nobody else reads.
    pub(crate) fn read_waiting(&self) {
        let Some(mut reader) = try_lock(&self.reader) else {
            return std::thread::yield_now();
        };
        while !self.is_broken() {
            match reader.receive(Some(Instant::now())) {
                Ok(Received::Frame(frame)) => self.accept_or_break(frame),
                Ok(Received::TimedOut) => break,
                Ok(Received::Closed) => {
                    self.break_off(Status::unavailable("it closed its connection"));
                }
                Err(error) => {
                    self.break_off(broken("its frames cannot be read").with_cause(error));
                }
            }
        }
        drop(reader);
        self.nudge_one();
    }

    fn accept_or_break(&self, frame: Frame) {
        if let Err(status) = self.accept(frame) {
            self.break_off(status);
        }
    }

    /// Hands an answer to whom it belongs.
    fn accept(&self, frame: Frame) -> Result<(), Status> {
        let Report::Ran(ran) = decode(&frame.body)? else {
            return Err(broken("a message that nobody asked for"));
        };
        let session_broken = ran.session_broken;
        let mut late = None;
        {
            let mut runs = lock(&self.runs);
            let Some(run) = runs.under_way.remove(&ran.id) else {
                return Err(broken("an answer that nobody waits for"));
            };
            if run.lease.slot().map(|slot| slot.generation) != Some(ran.generation) {
                runs.under_way.insert(ran.id, run);
                return Err(broken("an answer in a slot that was used since"));
            }
            runs.answered |= !session_broken;
            let mut lease = run.lease;
            if ran.slot_kept {
                lease.spoil();
            }
            if run.kill_at.is_some() {
                late = Some(lease);
            } else {
                run.ticket.end(Ended::Answered { lease, ran, fd: frame.fd });
            }
        }
        drop(late);
        if session_broken {
            self.break_off(Status::unavailable(RUN_PANICKED));
        }
        Ok(())
    }

    /// Leaves a run to itself, or takes its end if that came meanwhile.
    fn abandon(&self, id: u64, ticket: &Ticket, grace: Duration) -> Option<Ended> {
        {
            let mut runs = lock(&self.runs);
            if let Some(run) = runs.under_way.get_mut(&id) {
                run.kill_at = Some(after(grace));
            } else {
                return ticket.take();
            }
        }
        self.wake.wake();
        None
    }

    /// Makes one of those who wait look after the socket.
    fn nudge_one(&self) {
        let runs = lock(&self.runs);
        if let Some(run) = runs.under_way.values().find(|run| run.kill_at.is_none()) {
            run.ticket.nudge();
        }
    }

    /// The child cannot be used any more; the first reason counts.
    pub(crate) fn break_off(&self, why: Status) {
        lock(&self.runs).broken.get_or_insert(why);
        self.wake.wake();
    }

    fn is_broken(&self) -> bool {
        let runs = lock(&self.runs);
        runs.broken.is_some() || runs.ended.is_some()
    }

    /// Why the child has to be ended, if it has to.
    pub(crate) fn broken(&self) -> Option<Status> {
        lock(&self.runs).broken.clone()
    }

    /// What the child has done so far.
    pub(crate) fn life(&self) -> Life {
        let runs = lock(&self.runs);
        match (runs.answered, runs.under_way.is_empty()) {
            (true, _) => Life::Proven,
            (false, true) => Life::Idle,
            (false, false) => Life::Unproven,
        }
    }

    /// When the first abandoned run is overdue; `None` without one.
    pub(crate) fn kill_at(&self) -> Option<Instant> {
        lock(&self.runs).under_way.values().filter_map(|run| run.kill_at).min()
    }

    /// Tells everybody that the child has ended. Call it after the child was reaped: from here on
    /// slots are used again.
    pub(crate) fn end(&self, status: &Status) {
        let left: Vec<UnderWay> = {
            let mut runs = lock(&self.runs);
            runs.ended.get_or_insert_with(|| status.clone());
            runs.under_way.drain().map(|(_, run)| run).collect()
        };
        for run in left {
            if run.kill_at.is_none() {
                let begun = has_begun(&run.lease);
                run.ticket.end(Ended::Died { lease: run.lease, status: status.clone(), begun });
            }
        }
    }
}

/// Whether the child has put its mark on the run in this slot. It is to be dead by now.
fn has_begun(lease: &Lease) -> bool {
    let mark = lease.bytes().first_chunk().copied().map(u64::from_le_bytes);
    lease.slot().is_some_and(|slot| mark == Some(slot.generation))
}

impl Ticket {
    fn take(&self) -> Option<Ended> {
        lock(&self.state).ended.take()
    }

    fn has_ended(&self) -> bool {
        lock(&self.state).ended.is_some()
    }

    fn end(&self, ended: Ended) {
        lock(&self.state).ended = Some(ended);
        self.changed.notify_all();
    }

    fn nudge(&self) {
        lock(&self.state).nudged = true;
        self.changed.notify_all();
    }

    /// Waits for an end, a nudge or `until`; whether it was nudged.
    fn wait(&self, until: Instant) -> bool {
        let mut state = lock(&self.state);
        loop {
            if state.ended.is_some() || state.nudged {
                return std::mem::take(&mut state.nudged);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = match self.changed.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }
}

//! The worker's side: any engine, served over standard input.
//!
//! Owns the child's threads and its mappings of slots. Knows nothing of who started it.
//! Invariant: an order that breaks the protocol ends the process; a panic of the engine becomes an
//! answer; a slot is put down before its answer is sent, for the parent may use it again at once.
//!
//! Threads take turns at the socket: one waits for an order, hands the turn on, runs what it read
//! and answers itself, so an order costs one wake-up.

use std::any::Any;
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::process::Signal;
use vesta_ffi::SharedMemory;
use vesta_model::{Engine, LoadRequest, Memory, Session, Status, Tensor};

use crate::describe::WireDescription;
use crate::frame::{BODY_BYTES_MAX, Frame, FrameReader, FrameWriter, Received, poll};
use crate::options::BUILD;
use crate::priority::Lowered;
use crate::run::aligned;
use crate::wake::lock;
use crate::wire::{
    Hello, MARK_BYTES, Order, Report, WireLoad, WireLoaded, WireOutput, WireOutputs, WireRan,
    WireRun, WireSlot, WireStatus, broken, decode, encode, length, tensor_bytes, wire_shape,
};

/// How long runs under way may go on after the parent said goodbye.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);
/// An answer that the parent does not take for so long will not be taken.
const SEND_LIMIT: Duration = Duration::from_secs(60);
/// Engines recurse over graphs; the memory is taken when touched.
const STACK_BYTES: usize = 16 << 20;

/// What a worker process needs to know before it hears from its parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildOptions {
    /// The child's build; see [`WorkerOptions::build`](crate::WorkerOptions::build).
    pub build: String,
    /// The process loads at a lowered priority, which it gives up before it says that it has loaded.
    pub lowered: Option<Lowered>,
}

impl Default for ChildOptions {
    fn default() -> ChildOptions {
        ChildOptions { build: BUILD.to_owned(), lowered: None }
    }
}

/// Serves `engine` to the process at the other end of standard input, until that end closes.
///
/// For the hidden subcommand of the server's binary; return from `main` after it. The process dies
/// with the thread that started it.
///
/// # Errors
/// `FAILED_PRECONDITION` when standard input is no socket or the parent is another build;
/// `INTERNAL` when the parent breaks the protocol. A model that does not load is no error here: the
/// parent was told.
pub fn serve_child(engine: &dyn Engine, options: &ChildOptions) -> Result<(), Status> {
    // The parent counts on the end of a process that can do no more.
    vesta_ffi::die_of_faults();
    let socket = Arc::new(take_socket()?);
    // Without it the end of the socket still ends the process, only later.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    let mut reader = FrameReader::new(Arc::clone(&socket));
    let mut writer = FrameWriter::new(Arc::clone(&socket));

    let Some(Order::Hello(hello)) = next_order(&mut reader)?.map(|(order, _)| order) else {
        return Ok(());
    };
    send(&mut writer, &Report::Hello(Hello::new(&options.build)), None)?;
    hello.check(&options.build)?;
    if is_orphan(&hello, &socket) {
        return Ok(());
    }
    let load = match next_order(&mut reader)? {
        Some((Order::Load(load), _)) => load,
        Some(_) => return Err(broken("the first order is no load")),
        None => return Ok(()),
    };
    let runs_max = load.runs_max;
    let own_memory_bytes_max = length(load.own_memory_bytes_max)?;
    let session = match load_and_answer(engine, load, options, &mut writer)? {
        Some(session) => session,
        None => return Ok(()),
    };
    let child = Arc::new(Child {
        session,
        reader: Mutex::new(reader),
        writer: Mutex::new(writer),
        slots: Slots::default(),
        own_memory_bytes_max,
        done: Mutex::new(None),
        finished: Condvar::new(),
        busy: Mutex::new(0),
    });
    child.serve(runs_max)
}

struct Child {
    session: Arc<dyn Session>,
    reader: Mutex<FrameReader>,
    writer: Mutex<FrameWriter>,
    slots: Slots,
    own_memory_bytes_max: usize,
    /// How serving ended, once it has.
    done: Mutex<Option<Result<(), Status>>>,
    finished: Condvar,
    /// Runs under way.
    busy: Mutex<usize>,
}

/// The child's mappings, by slot. A slot that is being used is not in here.
#[derive(Default)]
struct Slots(Mutex<HashMap<u64, Held>>);

struct Held {
    generation: u64,
    /// `None` while a run, or an engine that keeps an input, has it.
    memory: Option<SharedMemory>,
}

/// A run whose slot is in hand.
struct Job {
    run: WireRun,
    memory: SharedMemory,
    deadline: Option<Instant>,
}

/// The inputs' part of a slot, lent to the engine.
struct InputMemory(SharedMemory);

impl Memory for InputMemory {
    fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }
}

impl Child {
    /// Runs orders on `runs_max` threads until the parent says goodbye.
    fn serve(self: Arc<Child>, runs_max: u32) -> Result<(), Status> {
        for index in 0..runs_max {
            let child = Arc::clone(&self);
            std::thread::Builder::new()
                .name(format!("run-{index}"))
                .stack_size(STACK_BYTES)
                .spawn(move || child.take_turns())
                .map_err(|error| {
                    Status::resource_exhausted("the worker cannot start its threads")
                        .with_cause(error)
                })?;
        }
        let mut done = lock(&self.done);
        let outcome = loop {
            if let Some(outcome) = &*done {
                break outcome.clone();
            }
            done = self.finished.wait(done).unwrap_or_else(|poisoned| poisoned.into_inner());
        };
        drop(done);
        self.drain();
        outcome
    }

    /// Gives runs under way a moment to end; their answers may still find a reader.
    fn drain(&self) {
        let until = Instant::now() + DRAIN_LIMIT;
        while *lock(&self.busy) > 0 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn take_turns(&self) {
        loop {
            let job = {
                let mut reader = lock(&self.reader);
                if self.is_done() {
                    return;
                }
                match self.next_job(&mut reader) {
                    Ok(Some(job)) => job,
                    Ok(None) => return self.finish(Ok(())),
                    Err(status) => return self.finish(Err(status)),
                }
            };
            *lock(&self.busy) += 1;
            let answered = self.work(job);
            *lock(&self.busy) -= 1;
            if let Err(status) = answered {
                return self.finish(Err(status));
            }
        }
    }

    /// Reads orders up to the next run; `None` when the parent has gone.
    fn next_job(&self, reader: &mut FrameReader) -> Result<Option<Job>, Status> {
        while let Some((order, fd)) = next_order(reader)? {
            match order {
                Order::Run(run) => {
                    // Long deadlines may be past what a clock can tell: then there is none.
                    let deadline =
                        run.time_left().and_then(|left| Instant::now().checked_add(left));
                    let memory = self.slots.pick_up(run.slot, fd)?;
                    return Ok(Some(Job { run, memory, deadline }));
                }
                Order::Retire(ids) => self.slots.retire(&ids),
                Order::Hello(_) | Order::Load(_) => return Err(broken("an order out of turn")),
            }
        }
        Ok(None)
    }

    /// Runs one job, puts its slot down and answers.
    fn work(&self, job: Job) -> Result<(), Status> {
        let (id, slot) = (job.run.id, job.run.slot);
        let start = length(job.run.outputs_start)?;
        let mut memory = job.memory;
        mark_begun(&mut memory, slot.generation)?;
        let (inputs, mut room) =
            memory.split_at(start).ok_or_else(|| broken("inputs that exceed their slot"))?;
        let inputs = Arc::new(InputMemory(inputs));
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let outputs = self.compute(&job.run, &inputs, job.deadline)?;
            self.place(&outputs, &mut room, start)
        }));
        let session_broken = outcome.is_err();
        let outcome = outcome.unwrap_or_else(|panic| {
            Err(Status::internal(format!("the engine panicked: {}", panic_text(&*panic))))
        });
        let slot_kept = match Arc::into_inner(inputs) {
            Some(inputs) => {
                let memory = inputs.0.rejoin(room);
                self.slots.put_down(slot.id, memory);
                false
            }
            None => true,
        };
        let (outcome, fd) = match outcome {
            Ok((outputs, own)) => (Ok(outputs), own),
            Err(status) => (Err(WireStatus::of(&status)), None),
        };
        let ran = WireRan { id, generation: slot.generation, outcome, slot_kept, session_broken };
        let fd = fd.as_ref().map(SharedMemory::fd);
        send(&mut lock(&self.writer), &Report::Ran(ran), fd)
    }

    fn compute(
        &self,
        run: &WireRun,
        memory: &Arc<InputMemory>,
        deadline: Option<Instant>,
    ) -> Result<Vec<Tensor>, Status> {
        let request = run.request()?;
        let signature =
            self.session.description().signatures.get(&request.signature).ok_or_else(|| {
                Status::not_found(format!("there is no signature `{}`", request.signature))
            })?;
        if signature.inputs.len() != run.inputs.len() {
            return Err(broken("a run with another number of inputs than its signature"));
        }
        let inputs = signature
            .inputs
            .iter()
            .zip(run.inputs.iter().zip(&request.inputs))
            .map(|(spec, (wire, layout))| {
                let bytes = tensor_bytes(spec.fed_dtype(), &layout.shape, layout.string_bytes)?;
                let start = length(wire.start)?;
                let end = start
                    .checked_add(bytes)
                    .ok_or_else(|| broken("an input that exceeds its slot"))?;
                let memory: Arc<dyn Memory> = Arc::<InputMemory>::clone(memory);
                Tensor::new(spec.fed_dtype(), layout.shape.clone(), memory, start..end)
            })
            .collect::<Result<Vec<_>, Status>>()?;
        let outputs = self.session.run_over(&request, inputs, deadline)?;
        if outputs.len() != request.outputs.len() {
            return Err(Status::internal(format!(
                "the engine gave {} outputs where {} were wanted",
                outputs.len(),
                request.outputs.len()
            )));
        }
        Ok(outputs)
    }

    /// Copies outputs to where the parent finds them: behind the inputs, or in memory of their own.
    fn place(
        &self,
        outputs: &[Tensor],
        room: &mut SharedMemory,
        room_start: usize,
    ) -> Result<(WireOutputs, Option<SharedMemory>), Status> {
        let too_large = || Status::resource_exhausted("the outputs of a run take too many bytes");
        let mut total = 0usize;
        let mut places = Vec::with_capacity(outputs.len());
        for output in outputs {
            places.push(total);
            let end = total.checked_add(output.bytes().len()).ok_or_else(too_large)?;
            total = aligned(end).ok_or_else(too_large)?;
        }
        let (mut own, base) = if total <= room.len() {
            (None, room_start)
        } else if total <= self.own_memory_bytes_max {
            let memory = SharedMemory::create(total).map_err(|error| {
                Status::resource_exhausted("no memory for the outputs of a run").with_cause(error)
            })?;
            (Some(memory), 0)
        } else {
            return Err(Status::resource_exhausted(format!(
                "the outputs of a run take {total} bytes, more than the {} that its worker may \
                 have; send a smaller batch or raise arena_bytes_max",
                self.own_memory_bytes_max
            )));
        };
        let target = own.as_mut().unwrap_or(room).bytes_mut();
        for (output, &place) in outputs.iter().zip(&places) {
            let bytes = output.bytes();
            target[place..place + bytes.len()].copy_from_slice(bytes);
        }
        let outputs = outputs
            .iter()
            .zip(places)
            .map(|(output, place)| WireOutput {
                dtype: output.dtype().number(),
                shape: wire_shape(output.shape()),
                start: (base + place) as u64,
                bytes: output.bytes().len() as u64,
            })
            .collect();
        let own_memory_bytes = own.as_ref().map(|memory| memory.len() as u64);
        Ok((WireOutputs { outputs, own_memory_bytes }, own))
    }

    fn finish(&self, outcome: Result<(), Status>) {
        // The first reason counts.
        lock(&self.done).get_or_insert(outcome);
        self.finished.notify_all();
    }

    fn is_done(&self) -> bool {
        lock(&self.done).is_some()
    }
}

/// Says in the slot that its run is being computed from now on.
fn mark_begun(memory: &mut SharedMemory, generation: u64) -> Result<(), Status> {
    let mark = memory
        .bytes_mut()
        .first_chunk_mut::<MARK_BYTES>()
        .ok_or_else(|| broken("a slot without room for its mark"))?;
    *mark = generation.to_le_bytes();
    // Nothing of the run may come before the mark.
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    Ok(())
}

impl Slots {
    /// The memory of a slot, out of `fd` when it is new here.
    fn pick_up(&self, slot: WireSlot, fd: Option<OwnedFd>) -> Result<SharedMemory, Status> {
        let mut slots = lock(&self.0);
        if let Some(fd) = fd {
            let memory = SharedMemory::from_fd(fd, length(slot.bytes)?)
                .map_err(|error| broken("a slot that cannot be mapped").with_cause(error))?;
            let held = Held { generation: slot.generation, memory: None };
            if slots.insert(slot.id, held).is_some() {
                return Err(broken("a slot that is here already"));
            }
            return Ok(memory);
        }
        let held = slots.get_mut(&slot.id).ok_or_else(|| broken("a slot that is not here"))?;
        if held.generation >= slot.generation {
            return Err(broken("a slot of an earlier use"));
        }
        let memory = held.memory.take().ok_or_else(|| broken("a slot that is in use"))?;
        if memory.len() as u64 != slot.bytes {
            return Err(broken("a slot of another size"));
        }
        held.generation = slot.generation;
        Ok(memory)
    }

    fn put_down(&self, id: u64, memory: Option<SharedMemory>) {
        if let Some(held) = lock(&self.0).get_mut(&id) {
            held.memory = memory;
        }
    }

    fn retire(&self, ids: &[u64]) {
        let mut slots = lock(&self.0);
        for id in ids {
            slots.remove(id);
        }
    }
}

/// Standard input as the socket that it must be; in its place comes a file that is always empty.
fn take_socket() -> Result<OwnedFd, Status> {
    let by_hand = |error: std::io::Error| {
        Status::failed_precondition(
            "this command serves a socket on standard input, so only the server itself starts it",
        )
        .with_cause(error)
    };
    let stdin = std::io::stdin();
    rustix::net::sockopt::socket_type(stdin.as_fd()).map_err(|error| by_hand(error.into()))?;
    let socket = stdin.as_fd().try_clone_to_owned().map_err(by_hand)?;
    let null = std::fs::File::open("/dev/null").map_err(by_hand)?;
    rustix::stdio::dup2_stdin(&null).map_err(|error| by_hand(error.into()))?;
    Ok(socket)
}

/// Whether the parent died before the kernel was asked to tell of that.
fn is_orphan(hello: &Hello, socket: &OwnedFd) -> bool {
    let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    if parent == Some(hello.pid) {
        return false;
    }
    // Started through another program, or in another process namespace, the numbers differ too;
    // only a closed socket is proof.
    let mut fds = [PollFd::new(socket, PollFlags::RDHUP)];
    poll(&mut fds, Some(Instant::now())).is_ok() && !fds[0].revents().is_empty()
}

/// Loads and tells the parent; the session if there is one.
fn load_and_answer(
    engine: &dyn Engine,
    load: WireLoad,
    options: &ChildOptions,
    writer: &mut FrameWriter,
) -> Result<Option<Arc<dyn Session>>, Status> {
    let request: LoadRequest = load.request();
    let loaded = catch_unwind(AssertUnwindSafe(|| engine.load(&request))).unwrap_or_else(|panic| {
        Err(Status::internal(format!("the engine panicked while loading: {}", panic_text(&*panic))))
    });
    // What the engine took to read the model would stay with this process.
    vesta_ffi::return_freed_memory();
    if let Some(lowered) = &options.lowered {
        lowered.restore();
    }
    let identity = engine.identity();
    let report = |loaded: &Result<Arc<dyn Session>, Status>| {
        Report::Loaded(match loaded {
            Ok(session) => Ok(WireLoaded {
                engine_name: identity.name.clone(),
                engine_version: identity.version.clone(),
                description: WireDescription::of(session.description()),
            }),
            Err(status) => Err(WireStatus::of(status)),
        })
    };
    if encode(&report(&loaded))?.len() > BODY_BYTES_MAX {
        let status = Status::resource_exhausted(
            "the signatures of the model, with the defaults of their inputs, are too large",
        );
        send(writer, &report(&Err(status)), None)?;
        return Ok(None);
    }
    send(writer, &report(&loaded), None)?;
    Ok(loaded.ok())
}

fn next_order(reader: &mut FrameReader) -> Result<Option<(Order, Option<OwnedFd>)>, Status> {
    match reader.receive(None) {
        Ok(Received::Frame(Frame { body, fd })) => Ok(Some((decode(&body)?, fd))),
        Ok(Received::Closed) => Ok(None),
        Ok(Received::TimedOut) => Err(Status::internal("a wait without end timed out")),
        Err(error) => Err(broken("orders cannot be read").with_cause(error)),
    }
}

fn send(
    writer: &mut FrameWriter,
    report: &Report,
    fd: Option<std::os::fd::BorrowedFd<'_>>,
) -> Result<(), Status> {
    let body = encode(report)?;
    writer.send(&body, fd, Some(Instant::now() + SEND_LIMIT)).map_err(|error| {
        Status::unavailable("the parent does not take an answer").with_cause(error)
    })
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "with no text".to_owned())
}

//! From a command to a child that serves: start, hello, load, each within its time.
//!
//! Owns a child until it has loaded. Knows nothing of restarts.
//! Invariant: a child that fails at any step is ended and reaped before the error is returned.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use tracing::{info, warn};
use vesta_model::{ModelDescription, Status};

use crate::frame::{FrameReader, FrameWriter, Received, poll};
use crate::link::Link;
use crate::priority::RESTARTED;
use crate::process::Process;
use crate::supervisor::{Shared, Worker};
use crate::wake::after;
use crate::wire::{Hello, Order, Report, WireLoad, WireLoaded, broken, decode, encode};

pub(crate) struct Startup<'a> {
    shared: &'a Shared,
    epoch: u64,
}

pub(crate) struct Started {
    pub(crate) worker: Worker,
    pub(crate) description: ModelDescription,
}

/// A child that was started and has not loaded yet.
struct Child {
    process: Process,
    socket: Arc<OwnedFd>,
    writer: FrameWriter,
    reader: FrameReader,
}

impl<'a> Startup<'a> {
    pub(crate) fn new(shared: &'a Shared, epoch: u64) -> Startup<'a> {
        Startup { shared, epoch }
    }

    pub(crate) fn run(self) -> Result<Started, Status> {
        let shared = self.shared;
        let options = &shared.options;
        let mut command = shared.command.clone();
        if self.epoch > 1 {
            command = command.env(RESTARTED, "1");
        }
        let (process, socket) = Process::start(&command)?;
        info!(model = %shared.request.model, version = shared.request.version.0,
            pid = process.pid(), "worker started");
        let socket = Arc::new(socket);
        let mut child = Child {
            process,
            writer: FrameWriter::new(Arc::clone(&socket)),
            reader: FrameReader::new(Arc::clone(&socket)),
            socket,
        };
        self.greet(&mut child)?;
        let loaded = self.load(&mut child, options.load_timeout)?;
        let engine = loaded.identity();
        if engine.name != shared.identity.name {
            return Err(broken(&format!(
                "the worker runs engine `{}`, not `{}`",
                engine.name, shared.identity.name
            )));
        }
        if engine.version != shared.identity.version {
            warn!(
                engine = engine.name,
                expected = shared.identity.version,
                found = engine.version,
                "worker has another release of its engine"
            );
        }
        let description = loaded.description.description()?;
        let link = Link::new(self.epoch, child.writer, child.reader, Arc::clone(&shared.wake));
        let worker = Worker { process: child.process, socket: child.socket, link };
        Ok(Started { worker, description })
    }

    fn greet(&self, child: &mut Child) -> Result<(), Status> {
        let options = &self.shared.options;
        let hello = Hello::new(&options.build);
        match self.ask(child, &Order::Hello(hello), options.handshake_timeout, "saying hello")? {
            Report::Hello(hello) => hello.check(&options.build),
            _ => Err(self.blame(broken("the worker did not say hello first"))),
        }
    }

    fn load(&self, child: &mut Child, limit: Duration) -> Result<WireLoaded, Status> {
        let options = &self.shared.options;
        let load = WireLoad::new(&self.shared.request, options.runs_max, options.arena_bytes_max);
        match self.ask(child, &Order::Load(load), limit, "loading")? {
            Report::Loaded(Ok(loaded)) => Ok(loaded),
            Report::Loaded(Err(status)) => Err(status.status()),
            _ => Err(self.blame(broken("the worker did not answer the load"))),
        }
    }

    /// Sends an order and waits for its answer.
    fn ask(
        &self,
        child: &mut Child,
        order: &Order,
        limit: Duration,
        doing: &str,
    ) -> Result<Report, Status> {
        let until = after(limit);
        // A child that is gone already is told by the wait, with the way it ended.
        let _ = child.writer.send(&encode(order)?, None, Some(until));
        loop {
            match child.reader.receive(Some(Instant::now())) {
                Ok(Received::Frame(frame)) => {
                    return decode(&frame.body).map_err(|status| self.blame(status));
                }
                Ok(Received::TimedOut) => {}
                Ok(Received::Closed) => return Err(self.ended(child, doing)),
                Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                    let status = broken("its frames cannot be read").with_cause(error);
                    return Err(self.blame(status));
                }
                Err(_) => return Err(self.ended(child, doing)),
            }
            if self.shared.is_closing() {
                return Err(Status::cancelled("the version was unloaded while it was loading"));
            }
            if Instant::now() >= until {
                return Err(self.blame(Status::deadline_exceeded(format!(
                    "the worker process of {} was ended because it did not answer within {} ms \
                     while {doing}",
                    self.shared.owner(),
                    limit.as_millis()
                ))));
            }
            self.pause(child, until)?;
        }
    }

    /// Waits until there may be something new.
    fn pause(&self, child: &Child, until: Instant) -> Result<(), Status> {
        let mut fds = [
            PollFd::new(&*child.socket, PollFlags::IN),
            PollFd::new(child.process.pidfd(), PollFlags::IN),
            PollFd::new(&*self.shared.wake, PollFlags::IN),
        ];
        poll(&mut fds, Some(until))
            .map_err(|error| Status::internal("a worker cannot be watched").with_cause(error))?;
        let [socket, process, wake] = fds.map(|fd| !fd.revents().is_empty());
        if wake {
            self.shared.wake.clear();
        }
        if process && !socket {
            // Something that the child started still holds the socket: no end will come over it.
            let _ = rustix::net::shutdown(&*child.socket, rustix::net::Shutdown::Read);
        }
        Ok(())
    }

    fn ended(&self, child: &mut Child, doing: &str) -> Status {
        // The socket closes a moment before the process has ended.
        child.process.ends_within(Duration::from_millis(500));
        let how = child.process.reap();
        self.blame(Status::unavailable(format!(
            "the worker process of {} ended ({how}) while {doing}; the server's log has what it \
             printed",
            self.shared.owner()
        )))
    }

    fn blame(&self, status: Status) -> Status {
        warn!(model = %self.shared.request.model, version = self.shared.request.version.0,
            program = %self.shared.command.program.display(), "{}", status.message());
        status
    }
}

//! A child process: how it is started, watched, ended and named in errors.
//!
//! Owns the process until it is reaped. Knows nothing of what it computes.
//! Invariant: a `Process` that is dropped is dead and reaped, with all that it started in its group.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags, Signal};
use vesta_model::Status;

use crate::frame::{poll, socket_pair};
use crate::wake::after;

/// How a worker process is started. It finds its socket as standard input, and calls
/// [`serve_child`](crate::serve_child).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerCommand {
    /// The program; usually the server's own file.
    pub program: PathBuf,
    /// Its arguments; usually the hidden subcommand and the engine's name.
    pub args: Vec<OsString>,
    /// Variables set for it in addition to the server's own.
    pub env: Vec<(OsString, OsString)>,
}

impl WorkerCommand {
    /// `program` without arguments.
    pub fn new(program: impl Into<PathBuf>) -> WorkerCommand {
        WorkerCommand { program: program.into(), args: Vec::new(), env: Vec::new() }
    }

    /// The same with one more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> WorkerCommand {
        self.args.push(arg.into());
        self
    }

    /// The same with one more variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> WorkerCommand {
        self.env.push((name.into(), value.into()));
        self
    }
}

pub(crate) struct Process {
    child: Child,
    pidfd: OwnedFd,
    /// Set once the process was reaped.
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts a process and gives the parent's end of its socket.
    ///
    /// The calling thread must live as long as the process: the kernel ends the process when that
    /// thread ends.
    pub(crate) fn start(command: &WorkerCommand) -> Result<(Process, OwnedFd), Status> {
        let failed = |error: std::io::Error| {
            Status::failed_precondition(format!(
                "the worker program {} cannot be started: {error}",
                command.program.display()
            ))
            .with_cause(error)
        };
        let (ours, theirs) = socket_pair().map_err(failed)?;
        // What a native library prints must not mix with the server's own output.
        let stdout = std::io::stderr().as_fd().try_clone_to_owned().map_err(failed)?;
        let mut child = Command::new(&command.program)
            .args(&command.args)
            .envs(command.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::from(stdout))
            .stderr(Stdio::inherit())
            // An interrupt at the terminal is the server's to handle: it lets its workers finish.
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        match rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
            Ok(pidfd) => Ok((Process { child, pidfd, ended: None }, ours)),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(failed(error.into()))
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Readable once the process has ended.
    pub(crate) fn pidfd(&self) -> &OwnedFd {
        &self.pidfd
    }

    /// Waits for the process to end of its own accord.
    pub(crate) fn ends_within(&mut self, limit: Duration) -> bool {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let polled = poll(&mut fds, Some(after(limit)));
        polled.is_ok() && !fds[0].revents().is_empty()
    }

    /// Ends the process, if it has not ended yet, and tells how it ended.
    pub(crate) fn reap(&mut self) -> String {
        if self.ended.is_none() {
            // What the worker may have started itself goes with it.
            let group = Pid::from_child(&self.child);
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
            let _ = self.child.kill();
            self.ended = self.child.wait().ok();
        }
        match self.ended {
            Some(status) => describe(status),
            None => "in an unknown way".to_owned(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.reap();
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("signal {signal}"),
        (None, Some(code)) => format!("exit status {code}"),
        (None, None) => "in an unknown way".to_owned(),
    }
}

/// Bytes of memory that process `pid` has resident, its share of shared memory included.
pub(crate) fn resident_bytes(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told() {
        let command = WorkerCommand::new("/bin/sh").arg("-c").arg("exit 3");
        let (mut process, _socket) = Process::start(&command).unwrap();
        assert!(process.ends_within(Duration::from_secs(20)));
        assert_eq!(process.reap(), "exit status 3");
    }

    #[test]
    fn a_process_dies_with_its_owner_and_with_what_it_started() {
        let command = WorkerCommand::new("/bin/sh").arg("-c").arg("sleep 1000 & sleep 1000");
        let (mut process, _socket) = Process::start(&command).unwrap();
        assert!(!process.ends_within(Duration::from_millis(20)));
        assert!(resident_bytes(process.pid()).unwrap() > 0);
        assert_eq!(process.reap(), "signal 9");
        assert_eq!(resident_bytes(process.pid()), None);
    }

    #[test]
    fn an_absent_program_is_named() {
        let status = Process::start(&WorkerCommand::new("/no/such/file")).err().unwrap();
        assert!(status.message().contains("/no/such/file"), "{status}");
    }
}

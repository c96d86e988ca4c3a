//! The first process of a container.
//!
//! The kernel gives every orphan of a PID namespace to its first process, which must reap it; and no
//! signal has a default action there. A server that did both itself would have to tell orphans from
//! the workers whose ends other threads wait for. So the first process is nothing but that: it starts
//! the server as its child, hands signals on, reaps whatever ends, and ends as the server does.
//!
//! Owns: that process. May not know: what the server does.
//! Invariant: it is not multi-threaded and starts exactly one child.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process, wait};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};
use vesta_model::Status;

/// Signals that mean the server.
const HANDED_ON: [Signal; 6] =
    [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2];

/// Starts the program anew as a child when this process is the first of its PID namespace, and gives
/// the exit code to end with; `None` when this process is to serve itself.
pub(crate) fn serve_in_child() -> Option<ExitCode> {
    if !getpid().is_init() {
        return None;
    }
    match supervise() {
        Ok(code) => Some(ExitCode::from(code)),
        Err(problem) => {
            warn!("serving as the first process, so orphans are not reaped: {problem}");
            None
        }
    }
}

fn supervise() -> Result<u8, Status> {
    let problem = |error: std::io::Error| Status::internal(error.to_string());
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(problem)?;
    runtime.block_on(async {
        // Before the child: its end must not be missed.
        let mut ended = signal(SignalKind::child()).map_err(problem)?;
        let (send, mut signals) = tokio::sync::mpsc::unbounded_channel();
        for which in HANDED_ON {
            let mut received = signal(SignalKind::from_raw(which.as_raw())).map_err(problem)?;
            let send = send.clone();
            tokio::spawn(async move {
                while received.recv().await.is_some() && send.send(which).is_ok() {}
            });
        }
        let server = start().map_err(problem)?;
        info!("the server is process {}; this one reaps orphans", server.as_raw_nonzero());
        loop {
            tokio::select! {
                Some(which) = signals.recv() => {
                    // It may have ended a moment ago.
                    let _ = kill_process(server, which);
                }
                _ = ended.recv() => {
                    if let Some(code) = reap(server) {
                        return Ok(code);
                    }
                }
            }
        }
    })
}

fn start() -> std::io::Result<Pid> {
    let mut words = std::env::args_os();
    let mut command = Command::new(std::env::current_exe()?);
    if let Some(name) = words.next() {
        command.arg0(name);
    }
    // A group of its own: an interrupt at a terminal then reaches the server once, through here.
    let child = command.args(words).process_group(0).spawn()?;
    Ok(Pid::from_child(&child))
}

/// Reaps all that has ended; gives the exit code when the server is among it.
fn reap(server: Pid) -> Option<u8> {
    let mut code = None;
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if pid == server {
            code = Some(exit_code(status));
        }
    }
    code
}

/// As shells say it: a signal is 128 and its number.
fn exit_code(status: WaitStatus) -> u8 {
    let code = status.exit_status().or(status.terminating_signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

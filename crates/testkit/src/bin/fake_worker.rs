//! The worker process of the tests: the fake engine, honest or not.
//!
//! `serve` serves the fake engine. The other modes break the protocol at a known place, or play a
//! server that is to be killed.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::Duration;

use vesta_model::{Engine, LoadRequest, Status, Version};
use vesta_testkit::FakeEngine;
use vesta_worker::{ChildOptions, IsolatedEngine, WorkerCommand, WorkerOptions, serve_child};

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    let mode = args.first().and_then(|arg| arg.to_str()).unwrap_or_default();
    let outcome = match mode {
        "serve" => serve(ChildOptions::default()),
        "serve-other-build" => {
            serve(ChildOptions { build: "another".to_owned(), ..ChildOptions::default() })
        }
        "garbage-hello" => say(&[0x5a; 100]),
        // A proper header, and a body that is no message.
        "nonsense-hello" => say(&[0x56, 0x73, 0, 0, 4, 0, 0, 0, 9, 9, 9, 9]),
        "silent" => say(&[]),
        "exit" => return ExitCode::from(7),
        "parent" => args.get(1).map_or(Ok(()), |artifact| parent(artifact)),
        _ => Err(Status::invalid_argument("no such mode")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(status) => {
            let _ = writeln!(std::io::stderr(), "fake worker: {status}");
            ExitCode::FAILURE
        }
    }
}

fn serve(options: ChildOptions) -> Result<(), Status> {
    let socket = stdin()?;
    serve_child(&FakeEngine::with_socket(socket), &options)
}

fn stdin() -> Result<OwnedFd, Status> {
    let fd = std::io::stdin().as_fd().try_clone_to_owned();
    fd.map_err(|error| Status::internal(error.to_string()))
}

fn say(bytes: &[u8]) -> Result<(), Status> {
    let mut socket = std::fs::File::from(stdin()?);
    let _ = socket.write_all(bytes);
    sleep();
    Ok(())
}

/// Until killed, or until the parent goes.
fn sleep() {
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    std::thread::sleep(Duration::from_secs(60));
}

/// Loads in a worker, prints its process id and waits to be killed.
fn parent(artifact: &OsStr) -> Result<(), Status> {
    let own = std::env::current_exe().map_err(|error| Status::internal(error.to_string()))?;
    let command = WorkerCommand::new(own).arg("serve");
    let engine =
        IsolatedEngine::new(FakeEngine::new().identity(), command, WorkerOptions::default());
    let session = engine.load_isolated(&LoadRequest {
        model: "m".into(),
        version: Version(1),
        artifact: artifact.into(),
        tags: Vec::new(),
        threads: 1,
    })?;
    let _ = writeln!(std::io::stdout(), "{}", session.health().pid.unwrap_or_default());
    let _ = std::io::stdout().flush();
    std::thread::sleep(Duration::from_secs(600));
    Ok(())
}

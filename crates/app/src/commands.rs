//! What each name and subcommand does, and the exit codes.

use std::io::Write as _;
use std::process::ExitCode;

use vesta_model::Status;

use crate::flags::{self, Parsed};
use crate::logs::{self, LogFormat};
use crate::{
    compose, config, convert, demo, engine, init, inspect, placement, status, tune, worker,
};

/// The version of Vesta.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What the original ends with when it cannot start.
const FAILED: u8 = 255;

const USAGE: &str = "\
usage: vesta COMMAND

commands:
  serve    serve models; takes the flags of tensorflow_model_server (vesta serve --help)
  demo     serve the image classifier of this repository and print a request to try
  engine   install, list and remove native engines such as TensorFlow (vesta engine --help)
  status   tell what a running server serves, and on which engines (vesta status --help)
  inspect  tell what a model holds and what each engine says of it (vesta inspect --help)
  tune     measure a model on every engine that is installed (vesta tune --help)
  convert  write a signature of a model as ONNX (vesta convert --help)
  version  print the version
";

/// What must happen before the first thread starts.
fn begin() {
    // The embedded engine's global pool is used while a model loads; the threads that run models
    // are budgeted elsewhere. An operator's own setting stays.
    if std::env::var_os("RTEN_NUM_THREADS").is_none() {
        vesta_ffi::set_before_threads("RTEN_NUM_THREADS", "1");
    }
}

/// The program `vesta`; `arguments` leave its name out.
pub fn vesta(arguments: Vec<String>) -> ExitCode {
    begin();
    let (command, rest) = match arguments.split_first() {
        Some((command, rest)) => (command.as_str(), rest.to_vec()),
        None => ("--help", Vec::new()),
    };
    match command {
        "serve" => model_server("vesta serve", rest),
        "demo" => demo::run(rest),
        "engine" => engine::run(&rest),
        "inspect" => inspect::run(&rest),
        "convert" => convert::run(&rest),
        "status" => status::run(&rest),
        "tune" => tune::run(&rest),
        // For the documentation alone.
        "flags" => {
            print(&flags::page());
            ExitCode::SUCCESS
        }
        // Started by the server itself, with a socket as standard input.
        worker::COMMAND => worker::run(&rest),
        "version" | "--version" => {
            print(&format!("vesta {VERSION}\n"));
            ExitCode::SUCCESS
        }
        "help" | "--help" | "-h" => {
            print(USAGE);
            ExitCode::SUCCESS
        }
        _ => {
            complain(&format!("vesta: no command is called {command}\n\n{USAGE}"));
            ExitCode::from(2)
        }
    }
}

/// The program `tensorflow_model_server`; `arguments` leave its name out.
pub fn model_server(program: &str, arguments: Vec<String>) -> ExitCode {
    begin();
    // The server starts its workers by its own path, whatever its name.
    if arguments.first().is_some_and(|first| first == worker::COMMAND) {
        return worker::run(&arguments[1..]);
    }
    let usage = || flags::usage(program);
    match flags::parse(arguments) {
        Ok(Parsed::Serve { flags, unknown }) => {
            if let Some(word) = flags::asks_for_encryption(&unknown) {
                return failed_to_start(&Status::invalid_argument(format!(
                    "{word} looks like a flag that asks for an encrypted gRPC port, but is none; \
                     write --ssl_config_file=FILE, since the port would be open without"
                )));
            }
            if !unknown.is_empty() {
                let lines: String =
                    unknown.iter().map(|word| format!("unknown argument: {word}\n")).collect();
                print(&format!("{lines}{}", usage()));
            }
            serve(&flags, |_| {})
        }
        Ok(Parsed::Help) => {
            print(&usage());
            ExitCode::from(FAILED)
        }
        Ok(Parsed::Version) => {
            let library = placement::tensorflow_version();
            let library = library.as_deref().unwrap_or("none (embedded engine)");
            print(&format!(
                "TensorFlow ModelServer: {VERSION}-vesta\nTensorFlow Library: {library}\n"
            ));
            ExitCode::SUCCESS
        }
        Err(problem) => {
            complain(&format!("{problem}\n"));
            print(&usage());
            ExitCode::from(FAILED)
        }
    }
}

/// Serves until a signal; `ready` is told once the ports are open.
pub(crate) fn serve(flags: &flags::Flags, ready: impl FnOnce(&config::Resolved)) -> ExitCode {
    let outcome = LogFormat::parse(&flags.log_format).and_then(|format| {
        logs::start(format);
        if let Some(code) = init::serve_in_child() {
            return Ok(code);
        }
        compose::serve(&config::resolve(flags)?, format, ready)?;
        Ok(ExitCode::SUCCESS)
    });
    match outcome {
        Ok(code) => code,
        Err(status) => failed_to_start(&status),
    }
}

fn failed_to_start(status: &Status) -> ExitCode {
    print(&format!("Failed to start server. Error: {status}\n"));
    ExitCode::from(FAILED)
}

/// The arguments of `command`; an exit code where there is nothing more to do, which was said.
pub(crate) fn parse<A: clap::Parser>(command: &str, arguments: &[String]) -> Result<A, ExitCode> {
    let words = std::iter::once(command).chain(arguments.iter().map(String::as_str));
    A::try_parse_from(words).map_err(|problem| {
        if problem.use_stderr() {
            complain(&problem.to_string());
            return ExitCode::from(2);
        }
        print(&problem.to_string());
        ExitCode::SUCCESS
    })
}

/// Writes to standard output; a closed pipe is no reason to fail.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Writes to standard error; a closed pipe is no reason to fail.
pub(crate) fn complain(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

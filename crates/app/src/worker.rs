//! The child side of isolation: `vesta worker`, started by the server alone.

use std::process::ExitCode;

use vesta_engines::EngineChoice;
use vesta_model::Status;
use vesta_worker::{ChildOptions, serve_child};

use crate::commands::complain;
use crate::logs::{self, LogFormat};

/// The subcommand that the server starts its workers by.
pub(crate) const COMMAND: &str = "worker";

/// Serves one version over the socket that is standard input; `arguments` name the engine and the
/// form of the log, which goes where the server's goes.
pub(crate) fn run(arguments: &[String]) -> ExitCode {
    match serve(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(status) => {
            complain(&format!("vesta worker: {status}\n"));
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: &[String]) -> Result<(), Status> {
    let [engine, format] = arguments else {
        return Err(Status::invalid_argument(
            "this command is started by the server itself; run `vesta serve`",
        ));
    };
    logs::start(LogFormat::parse(format)?);
    let choice = engine.parse::<EngineChoice>()?;
    let engine = vesta_engines::build(&choice)?;
    serve_child(engine.as_ref(), &ChildOptions::default())
}

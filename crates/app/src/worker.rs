//! The child side of isolation: `vesta worker`, started by the server alone.
//!
//! Owns the command line between the two: the engine with its release, the form of the log, and what
//! the operator said of the engine.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use vesta_engines::{EngineChoice, EngineName, EngineOptions};
use vesta_model::{Engine, EngineIdentity, LoadRequest, Session, Status};
use vesta_protos::tensorflow::ConfigProto;
use vesta_worker::{ChildOptions, Lowered, WorkerCommand, serve_child};

use crate::commands::complain;
use crate::logs::{self, LogFormat};
use crate::placement::TriedEngine;

/// The subcommand that the server starts its workers by.
pub(crate) const COMMAND: &str = "worker";

const SESSION_CONFIG: &str = "--session_config=";
const OP_LIBRARY: &str = "--op_library=";
const INTERPRETERS: &str = "--interpreters=";
const PREFERS_LITE: &str = "--prefers_lite";

/// The command that starts a worker for `engine` (`NAME` or `NAME==VERSION`) by `program`.
pub(crate) fn command(
    program: &Path,
    engine: &str,
    log_format: LogFormat,
    options: &EngineOptions,
) -> WorkerCommand {
    let mut command = WorkerCommand::new(program).arg(COMMAND).arg(engine).arg(log_format.as_str());
    if options.litert != EngineOptions::default().litert {
        command = command.arg(format!("{INTERPRETERS}{}", options.litert.interpreters));
    }
    if options.openvino.prefers_lite {
        command = command.arg(PREFERS_LITE);
    }
    let config = options.tensorflow.session_config.encode_to_vec();
    if !config.is_empty() {
        command = command.arg(format!("{SESSION_CONFIG}{}", STANDARD.encode(config)));
    }
    for file in &options.tensorflow.op_libraries {
        let mut word = OsString::from(OP_LIBRARY);
        word.push(file);
        command = command.arg(word);
    }
    command
}

/// Serves one version over the socket that is standard input; the log goes where the server's goes.
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
    let [engine, format, rest @ ..] = arguments else {
        return Err(by_hand());
    };
    logs::start(LogFormat::parse(format)?);
    // What serves goes before what loads, from the opening of a library on.
    let lowered = Lowered::for_load();
    let choice = engine.parse::<EngineChoice>()?;
    let built = match vesta_engines::build(&choice, &options(rest)?) {
        Ok(built) => built,
        Err(status) => Arc::new(Unopened { choice: choice.clone(), status }),
    };
    // A throw-away worker of the embedded engine is told what to run; native ones try it themselves.
    let engine: Arc<dyn Engine> = match choice {
        EngineChoice::Named { name, .. } if name != EngineName::Embedded => {
            Arc::new(TriedEngine::new(built))
        }
        _ => built,
    };
    serve_child(engine.as_ref(), &ChildOptions { lowered, ..ChildOptions::default() })
}

/// An engine whose library could not be opened. It says why to whoever asks it to load, since the log
/// of a worker is not where a client or an operator looks first.
struct Unopened {
    choice: EngineChoice,
    status: Status,
}

impl Engine for Unopened {
    fn identity(&self) -> EngineIdentity {
        match &self.choice {
            EngineChoice::Named { name, version } => EngineIdentity {
                name: name.as_str().to_owned(),
                version: version.clone().unwrap_or_default(),
            },
            EngineChoice::Auto => {
                EngineIdentity { name: "auto".to_owned(), version: String::new() }
            }
        }
    }

    fn load(&self, _: &LoadRequest) -> Result<Arc<dyn Session>, Status> {
        Err(self.status.clone())
    }
}

fn options(arguments: &[String]) -> Result<EngineOptions, Status> {
    let mut options = EngineOptions::default();
    for argument in arguments {
        if let Some(text) = argument.strip_prefix(SESSION_CONFIG) {
            let bytes = STANDARD.decode(text).map_err(|_| by_hand())?;
            options.tensorflow.session_config =
                ConfigProto::decode(&*bytes).map_err(|_| by_hand())?;
        } else if let Some(file) = argument.strip_prefix(OP_LIBRARY) {
            options.tensorflow.op_libraries.push(PathBuf::from(file));
        } else if argument == PREFERS_LITE {
            options.openvino.prefers_lite = true;
        } else if let Some(count) = argument.strip_prefix(INTERPRETERS) {
            options.litert.interpreters = count.parse().map_err(|_| by_hand())?;
        } else {
            return Err(by_hand());
        }
    }
    Ok(options)
}

fn by_hand() -> Status {
    Status::invalid_argument("this command is started by the server itself; run `vesta serve`")
}

#[cfg(test)]
mod tests {
    use vesta_engines::{LiteRtOptions, OpenVinoOptions, TensorFlowOptions};

    use super::*;

    #[test]
    fn what_the_server_says_is_what_the_worker_hears() {
        let said = EngineOptions {
            tensorflow: TensorFlowOptions {
                session_config: ConfigProto {
                    intra_op_parallelism_threads: 3,
                    ..ConfigProto::default()
                },
                op_libraries: vec!["/ops/a b.so".into(), "/ops/c.so".into()],
            },
            litert: LiteRtOptions { interpreters: 1234 },
            openvino: OpenVinoOptions { prefers_lite: true },
        };
        let command = command(Path::new("/vesta"), "tensorflow==2.21.0", LogFormat::Text, &said);
        let words: Vec<String> =
            command.args.iter().map(|word| word.to_str().unwrap().to_owned()).collect();
        assert_eq!(words[..3], ["worker", "tensorflow==2.21.0", "text"]);
        assert_eq!(options(&words[3..]).unwrap(), said);
        assert!(options(&["--other".to_owned()]).is_err());
    }
}

//! What a fake model's file says: which model it is, and how it misbehaves.
//!
//! Owns the directives and the carrying out of faults. Knows nothing of tensors.
//!
//! One directive per line; `#` begins a comment:
//! - `model half_plus_two | string_identity | sum_and_difference | counter | spread`
//! - `on load FAULT [once]`, `on run FAULT [once]`, where a fault is one of `sleep MS`, `hang`,
//!   `panic`, `abort`, `kill`, `exit STATUS`, `garbage`, `error CODE TEXT…`. With `once` it
//!   happens once per artifact, over all processes.
//! - `keep inputs`: the engine never lets go of an input.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use vesta_model::{Code, Status};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Script {
    pub(crate) model: Model,
    pub(crate) on_load: Vec<Planned>,
    pub(crate) on_run: Vec<Planned>,
    pub(crate) keeps_inputs: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Model {
    #[default]
    HalfPlusTwo,
    StringIdentity,
    SumAndDifference,
    Counter,
    Spread,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    fault: Fault,
    /// The file that marks that it has happened.
    once: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Fault {
    Sleep(Duration),
    Hang,
    Panic,
    Abort,
    Kill,
    Exit(i32),
    Garbage,
    Error(Code, String),
}

impl Script {
    /// Reads the directives; `artifact` is where marks are kept.
    pub(crate) fn parse(text: &str, artifact: &Path) -> Result<Script, Status> {
        let mut script = Script::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let mark = artifact.join(format!("happened-{index}"));
            script.directive(line, mark).ok_or_else(|| {
                Status::invalid_argument(format!("line {} makes no sense: {line}", index + 1))
            })?;
        }
        Ok(script)
    }

    fn directive(&mut self, line: &str, mark: PathBuf) -> Option<()> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["model", name] => self.model = Model::named(name)?,
            ["keep", "inputs"] => self.keeps_inputs = true,
            ["on", at, words @ ..] => {
                let (words, once) = match words {
                    [words @ .., "once"] => (words, Some(mark)),
                    words => (words, None),
                };
                let planned = Planned { fault: Fault::read(words)?, once };
                match *at {
                    "load" => self.on_load.push(planned),
                    "run" => self.on_run.push(planned),
                    _ => return None,
                }
            }
            _ => return None,
        }
        Some(())
    }
}

impl Model {
    fn named(name: &str) -> Option<Model> {
        Some(match name {
            "half_plus_two" => Model::HalfPlusTwo,
            "string_identity" => Model::StringIdentity,
            "sum_and_difference" => Model::SumAndDifference,
            "counter" => Model::Counter,
            "spread" => Model::Spread,
            _ => return None,
        })
    }
}

impl Fault {
    fn read(words: &[&str]) -> Option<Fault> {
        Some(match words {
            ["sleep", ms] => Fault::Sleep(Duration::from_millis(ms.parse().ok()?)),
            ["hang"] => Fault::Hang,
            ["panic"] => Fault::Panic,
            ["abort"] => Fault::Abort,
            ["kill"] => Fault::Kill,
            ["exit", status] => Fault::Exit(status.parse().ok()?),
            ["garbage"] => Fault::Garbage,
            ["error", code, text @ ..] => {
                let code = Code::ALL.iter().copied().find(|c| c.name() == *code)?;
                Fault::Error(code, text.join(" "))
            }
            _ => return None,
        })
    }
}

impl Planned {
    /// Lets it happen. `socket` is where garbage goes.
    pub(crate) fn happen(&self, socket: Option<&OwnedFd>) -> Result<(), Status> {
        if let Some(mark) = &self.once
            && OpenOptions::new().write(true).create_new(true).open(mark).is_err()
        {
            return Ok(());
        }
        match &self.fault {
            Fault::Sleep(time) => std::thread::sleep(*time),
            Fault::Hang => loop {
                std::thread::park();
            },
            #[expect(clippy::panic, reason = "to panic is what was asked for")]
            Fault::Panic => panic!("as the script says"),
            Fault::Abort => std::process::abort(),
            Fault::Kill => {
                let me = rustix::process::getpid();
                let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
            }
            Fault::Exit(status) => std::process::exit(*status),
            Fault::Garbage => {
                let socket = socket.ok_or_else(|| {
                    Status::failed_precondition("garbage needs a worker's socket")
                })?;
                let socket = socket.try_clone().map_err(|e| Status::internal(e.to_string()))?;
                let _ = std::fs::File::from(socket).write_all(&[0xa5; 64]);
            }
            Fault::Error(code, text) => return Err(Status::new(*code, text.clone())),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_are_read_and_nonsense_is_named() {
        let text = "model counter # which\n\non run sleep 5\non load error NOT_FOUND no file\n";
        let script = Script::parse(text, Path::new("/x")).unwrap();
        assert_eq!(script.model, Model::Counter);
        assert_eq!(script.on_run.len(), 1);
        let status = script.on_load[0].happen(None).unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::NotFound, "no file"));
        for wrong in ["model none", "on run dance", "on sleep 5", "on run sleep x", "hello"] {
            let status = Script::parse(wrong, Path::new("/x")).unwrap_err();
            assert!(status.message().contains(wrong), "{status}");
        }
    }

    #[test]
    fn once_is_once() {
        let dir = tempfile::tempdir().unwrap();
        let script = Script::parse("on run error INTERNAL x once", dir.path()).unwrap();
        assert!(script.on_run[0].happen(None).is_err());
        assert!(script.on_run[0].happen(None).is_ok());
    }
}

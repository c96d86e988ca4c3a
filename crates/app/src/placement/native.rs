//! A native engine: a worker process per version, which tries its version out as it loads it.
//!
//! Owns: releases as they are found in the store, and where they run. May not know: why one is chosen.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::info;
use vesta_engines::{EngineChoice, EngineName, EngineStore, Installed};
use vesta_model::{Engine, EngineIdentity, LoadRequest, Session, Status};
use vesta_worker::{IsolatedEngine, WorkerOptions};

use super::contenders::OpenedWorker;
use super::{EngineSettings, Isolation, TriedEngine};
use crate::choice::{Contender, Opened};
use crate::logs::LogFormat;
use crate::worker;

/// A release of a native engine, where the operator wants it to run.
pub(super) struct NativePlacement {
    name: EngineName,
    identity: EngineIdentity,
    runs: Runs,
}

/// Where it runs.
enum Runs {
    InWorkers(Box<IsolatedEngine>),
    Inline(TriedEngine),
}

impl NativePlacement {
    /// Workers are started by `program`.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` when it should run inline without leave; what opening the library
    /// inline says.
    pub(super) fn new(
        program: &Path,
        installed: &Installed,
        settings: &EngineSettings,
        log_format: LogFormat,
    ) -> Result<NativePlacement, Status> {
        let (name, version) = (installed.name, installed.version.clone());
        let identity = EngineIdentity { name: name.as_str().to_owned(), version: version.clone() };
        let choice = EngineChoice::Named { name, version: Some(version) };
        if settings.isolation == Isolation::Inline {
            if !settings.allow_native_inline {
                return Err(not_inline(name));
            }
            let engine = vesta_engines::build(&choice, &settings.options)?;
            return Ok(NativePlacement {
                name,
                identity,
                runs: Runs::Inline(TriedEngine::new(engine)),
            });
        }
        let command = worker::command(program, &choice.to_string(), log_format, &settings.options);
        let engine = IsolatedEngine::new(identity.clone(), command, WorkerOptions::default());
        Ok(NativePlacement { name, identity, runs: Runs::InWorkers(Box::new(engine)) })
    }

    fn told(&self, request: &LoadRequest) {
        info!(
            model = %request.model, version = %request.version,
            engine = %self.identity.name, release = %self.identity.version,
            "loaded"
        );
    }
}

fn not_inline(name: EngineName) -> Status {
    Status::failed_precondition(format!(
        "--isolation=inline would open {name} in the server's own process, where a crash, a leak or a \
         bad model of one version harms all; leave the flag out, or add --allow_native_inline if that \
         is wanted"
    ))
}

impl Engine for NativePlacement {
    fn identity(&self) -> EngineIdentity {
        self.identity.clone()
    }

    fn load(&self, request: &LoadRequest) -> Result<Arc<dyn Session>, Status> {
        let session: Arc<dyn Session> = match &self.runs {
            Runs::InWorkers(engine) => engine.load(request)?,
            Runs::Inline(engine) => engine.load(request)?,
        };
        self.told(request);
        Ok(session)
    }
}

impl Contender for NativePlacement {
    fn name(&self) -> EngineName {
        self.name
    }

    fn release(&self) -> &str {
        &self.identity.version
    }

    fn open(&self, request: &LoadRequest) -> Result<Box<dyn Opened>, Status> {
        match &self.runs {
            Runs::InWorkers(engine) => {
                let session = engine.load_isolated(request)?;
                self.told(request);
                Ok(OpenedWorker::boxed(session))
            }
            Runs::Inline(_) => Err(Status::failed_precondition(format!(
                "{} runs in the server's own process, where its time cannot be told from that of others",
                self.name
            ))),
        }
    }
}

/// The newest installed release of an engine. It is looked up at each load that needs it, so that an
/// engine installed meanwhile is used without a restart.
pub(super) struct Newest {
    name: EngineName,
    program: PathBuf,
    settings: EngineSettings,
    log_format: LogFormat,
    /// The release as it was last found.
    known: Mutex<Option<Arc<NativePlacement>>>,
}

impl Newest {
    /// Workers are started by `program`.
    pub(super) fn new(
        name: EngineName,
        program: PathBuf,
        settings: EngineSettings,
        log_format: LogFormat,
    ) -> Newest {
        Newest { name, program, settings, log_format, known: Mutex::default() }
    }

    /// Which engine is looked for.
    pub(super) fn name(&self) -> EngineName {
        self.name
    }

    /// The release.
    ///
    /// # Errors
    /// `NOT_FOUND` when none is installed; those of [`NativePlacement::new`].
    pub(super) fn find(&self) -> Result<Arc<NativePlacement>, Status> {
        let installed = EngineStore::from_env().find(self.name, None)?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.as_ref().filter(|e| e.identity.version == installed.version) {
            return Ok(Arc::clone(known));
        }
        let new = NativePlacement::new(&self.program, &installed, &self.settings, self.log_format)?;
        let new = Arc::new(new);
        *known = Some(Arc::clone(&new));
        Ok(new)
    }
}

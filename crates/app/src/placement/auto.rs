//! `engine = "auto"`: the engine that measuring finds; without measuring, the embedded engine where it
//! gives the right answers, else TensorFlow. Of an ONNX file, ONNX Runtime takes TensorFlow's place; of a
//! `model.tflite`, LiteRT, and the embedded engine takes no part.
//!
//! Owns: who may take part, and what is said of the outcome. May not know: how a contest goes.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::{Arc, Mutex};

use tracing::{info, warn};
use vesta_engines::{EngineName, EngineStore, LiteModel, OnnxModel, model_settings};
use vesta_frontends::{WARM_UP_FILE, WarmUp, Weighed};
use vesta_model::{Code, Engine as _, LoadRequest, RunRequest, Session, Status, Tensor};

use super::embedded::EmbeddedPlacement;
use super::native::{NativePlacement, Newest};
use super::shadow::References;
use super::{EngineSettings, Isolation, Place, Placed};
use crate::choice::{
    Contender, Contest, Entry, Exactness, Finding, Question, Reason, Recalled, Settings, Verdicts,
    Winner, bytes_of, exactness, exactness_on_lite, exactness_on_onnx,
};

/// Recorded requests that engines are tried on.
const RECORDED_RUNS_MAX: usize = 8;

/// Bytes of a version's files from which its loads take longer than anything else of a contest.
const LARGE_BYTES_MIN: u64 = 32 << 20;

/// Decides for each version which engine runs it.
pub(super) struct Auto {
    embedded: EmbeddedPlacement,
    /// The native engines, TensorFlow first.
    natives: Vec<Newest>,
    settings: EngineSettings,
    warm_up: WarmUp,
    verdicts: Arc<Verdicts>,
    /// Held while an engine is tried.
    turn: Mutex<()>,
}

impl Auto {
    /// `newest` finds native engines.
    pub(super) fn new(
        embedded: EmbeddedPlacement,
        newest: impl Fn(EngineName) -> Newest,
        settings: EngineSettings,
        warm_up: WarmUp,
    ) -> Auto {
        let mut names: Vec<EngineName> =
            EngineName::ALL.iter().copied().filter(|&name| name != EngineName::Embedded).collect();
        names.sort_by_key(|&name| name != EngineName::TensorFlow);
        let natives = names.into_iter().map(newest).collect();
        let verdicts = Arc::new(Verdicts::new(settings.verdicts.clone()));
        Auto { embedded, natives, settings, warm_up, verdicts, turn: Mutex::default() }
    }

    /// Whether a version may go to a native engine.
    fn may_go_native(&self) -> bool {
        self.settings.isolation != Isolation::Inline || self.settings.allow_native_inline
    }

    /// Whether engines are tried. In one process their times cannot be told apart.
    fn measures(&self) -> bool {
        !self.settings.choice_budget.is_zero() && self.settings.isolation != Isolation::Inline
    }

    /// What a version is.
    fn kind(&self, artifact: &Path) -> Kind {
        if LiteModel::is_served(artifact, self.settings.prefer_tflite) {
            Kind::Lite
        } else if OnnxModel::is_alone_in(artifact) {
            Kind::Onnx
        } else {
            Kind::TensorFlow
        }
    }

    /// The native engines that are installed, and what keeps the reference from taking part.
    fn installed(&self, kind: Kind) -> (Vec<Arc<NativePlacement>>, Option<Status>) {
        let (mut found, mut missing) = (Vec::new(), None);
        for newest in self.natives.iter().filter(|newest| kind.takes(newest.name())) {
            match newest.find() {
                Ok(placement) => found.push(placement),
                Err(status) => {
                    if status.code() != Code::NotFound {
                        warn!(engine = %newest.name(), problem = status.message(), "an engine cannot take part");
                    }
                    if newest.name() == kind.reference() {
                        missing = Some(status);
                    }
                }
            }
        }
        (found, missing)
    }

    /// The engines that may serve a `model.tflite`, LiteRT first.
    ///
    /// # Errors
    /// `NOT_FOUND` without one, naming LiteRT; why OpenVINO, where it is the only one, does not take the file.
    fn on_lite(&self, request: &LoadRequest) -> Result<Vec<Arc<NativePlacement>>, Status> {
        let (mut found, missing) = self.installed(Kind::Lite);
        let refusal = found.iter().find(|p| p.name() == EngineName::OpenVino).and_then(|_| {
            // Before a process is started for it.
            let installed = EngineStore::from_env().find(EngineName::OpenVino, None);
            let check = |own: vesta_engines::Installed| {
                LiteModel::check_for_openvino(&request.artifact, &own.folder, &own.version)
            };
            installed.and_then(check).err()
        });
        if let Some(refusal) = refusal {
            info!(
                model = %request.model, version = %request.version, engine = %EngineName::OpenVino,
                reason = refusal.message(), "an engine cannot run the version"
            );
            found.retain(|placement| placement.name() != EngineName::OpenVino);
            if found.is_empty() {
                return Err(with_what_is_missing(&refusal, missing.as_ref()));
            }
        }
        match (found.is_empty(), missing) {
            (true, Some(missing)) => Err(missing),
            _ => Ok(found),
        }
    }

    /// The rule without measuring.
    fn by_rule(&self, request: &LoadRequest) -> Result<Placed, Status> {
        if self.kind(&request.artifact) == Kind::Lite {
            let first = self.on_lite(request)?;
            let first = first.first().ok_or_else(|| Status::internal("no engine is left"))?;
            return Placed::by(&**first, request, Reason::Only);
        }
        let refusal = match self.embedded.load(request) {
            Ok(session) => {
                let reason = Reason::Unmeasured("measuring is off".to_owned());
                return Ok(Placed::without_trial(session, self.embedded.identity(), reason));
            }
            Err(status) if status.code() == Code::Unimplemented && self.may_go_native() => status,
            Err(status) => return Err(status),
        };
        let kind = self.kind(&request.artifact);
        let (installed, missing) = self.installed(kind);
        // It stands first; without it none is known to run what the embedded engine refuses.
        let Some(reference) = installed.first().filter(|p| p.name() == kind.reference()) else {
            return Err(with_what_is_missing(&refusal, missing.as_ref()));
        };
        info!(
            model = %request.model, version = %request.version, reason = refusal.message(),
            engine = %reference.name(), "the version goes to another engine"
        );
        let session = reference.load(request)?;
        Ok(Placed::without_trial(session, reference.identity(), Reason::Only))
    }

    /// The fastest engine that agrees with the most exact one.
    fn by_measure(&self, request: &LoadRequest) -> Result<Placed, Status> {
        let kind = self.kind(&request.artifact);
        let (installed, missing) = match kind {
            Kind::Lite => (self.on_lite(request)?, None),
            _ => self.installed(kind),
        };
        let mut contenders: Vec<Arc<dyn Contender>> = match kind {
            Kind::Lite => Vec::new(),
            _ => vec![Arc::new(self.embedded.clone())],
        };
        contenders.extend(installed.into_iter().map(|placement| placement as _));
        let question = self.question(request, &contenders);
        let Recalled { winner, refuted } = self.verdicts.find(&question);
        contenders.retain(|contender| !refuted.iter().any(|out| is_of(out, &**contender)));
        let winner = winner.filter(|_| contenders.len() > 1);
        if let Some(placed) =
            winner.and_then(|winner| self.remembered(request, &question, &contenders, winner))
        {
            return Ok(placed);
        }
        let settings = Settings {
            budget: self.settings.choice_budget,
            all_at_once: bytes_of(&request.artifact).is_some_and(|bytes| bytes >= LARGE_BYTES_MIN),
            exactness: kind.exactness(),
            turn: &self.turn,
            recorded: &|session| self.recorded(request, session),
        };
        let finding =
            Contest::new(request, settings).hold(&contenders).map_err(|refusal| {
                match (&missing, refusal.code()) {
                    (Some(_), Code::Unimplemented) => {
                        with_what_is_missing(&refusal, missing.as_ref())
                    }
                    _ => refusal,
                }
            })?;
        tell(request, &finding, missing.as_ref().map(|_| kind.reference()));
        if finding.is_lasting() {
            self.verdicts.keep(&question, request.model.as_str(), &finding, &refuted);
        }
        let Finding { name, release, serve, reason, trial, entries } = finding;
        let engine = super::identity(name, &release);
        let mut weighed: Vec<Weighed> = entries.iter().map(Entry::weighed).collect();
        let reason = match (reason, refuted.last().map(|out| (out.title(), &out.outcome))) {
            (Reason::Only, Some((title, Err(how)))) => Reason::Refuted(format!("{title}, {how}")),
            (reason, _) => reason,
        };
        weighed.extend(refuted);
        let references = Some(self.references(name, &contenders, &weighed, question));
        Ok(Placed { session: serve()?, engine, reason, trial, weighed, references })
    }

    /// What the answers of the engine that serves can be held to.
    fn references(
        &self,
        serving: EngineName,
        contenders: &[Arc<dyn Contender>],
        weighed: &[Weighed],
        question: Question,
    ) -> References {
        let is_out = |contender: &dyn Contender| {
            weighed.iter().any(|other| is_of(other, contender) && other.outcome.is_err())
        };
        let exactness = self.kind(&question.artifact).exactness();
        let is_reference = |contender: &&Arc<dyn Contender>| {
            exactness(contender.name()) < exactness(serving) && !is_out(&***contender)
        };
        let mut engines: Vec<_> = contenders.iter().filter(is_reference).cloned().collect();
        engines.sort_by_key(|contender| exactness(contender.name()));
        References { engines, verdicts: Arc::clone(&self.verdicts), question }
    }

    /// The engine that won an earlier contest, on the same files among the same engines.
    fn remembered(
        &self,
        request: &LoadRequest,
        question: &Question,
        contenders: &[Arc<dyn Contender>],
        winner: Winner,
    ) -> Option<Placed> {
        let is_winner =
            |c: &&Arc<dyn Contender>| c.name() == winner.name && c.release() == winner.release;
        let contender = contenders.iter().find(is_winner)?;
        match contender.open(request).and_then(|opened| opened.close()()) {
            Ok(session) => {
                let engine = super::identity(winner.name, &winner.release);
                let placed = Placed::without_trial(session, engine, Reason::Remembered);
                let Winner { name, weighed, .. } = winner;
                let references = self.references(name, contenders, &weighed, question.clone());
                Some(Placed { weighed, references: Some(references), ..placed })
            }
            Err(status) => {
                warn!(
                    model = %request.model, version = %request.version, engine = %winner.name,
                    problem = status.message(),
                    "the engine that won earlier does not load the version; engines are tried again"
                );
                self.verdicts.forget(question);
                None
            }
        }
    }

    fn question(&self, request: &LoadRequest, contenders: &[Arc<dyn Contender>]) -> Question {
        let engines = contenders.iter().map(|c| format!("{}=={}", c.name(), c.release()));
        // The model's own settings may lie beside the version's folder, whose files alone are compared.
        let graph = model_settings(&request.artifact).map(|own| own.graph);
        Question {
            artifact: request.artifact.clone(),
            engines: engines.collect(),
            tags: request.tags.clone(),
            threads: request.threads,
            options: format!("{:?} {:?} {graph:?}", self.settings.options, self.settings.isolation),
        }
    }

    /// The requests that were recorded of the version. What is wrong with the file is told by warm-up,
    /// which reads it after this.
    fn recorded(
        &self,
        request: &LoadRequest,
        session: &dyn Session,
    ) -> Vec<(RunRequest, Vec<Tensor>)> {
        let path = request.artifact.join(WARM_UP_FILE);
        let Ok(file) = File::open(&path) else { return Vec::new() };
        let shown = path.display().to_string();
        self.warm_up
            .recorded_runs(session, BufReader::new(file), &shown, RECORDED_RUNS_MAX)
            .unwrap_or_default()
    }
}

impl Place for Auto {
    fn place(&self, request: &LoadRequest) -> Result<Placed, Status> {
        if self.measures() { self.by_measure(request) } else { self.by_rule(request) }
    }
}

/// What a version is, as far as engines differ in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    TensorFlow,
    Onnx,
    Lite,
}

impl Kind {
    /// The engine that the others are held to.
    fn reference(self) -> EngineName {
        match self {
            Kind::TensorFlow => EngineName::TensorFlow,
            Kind::Onnx => EngineName::OnnxRuntime,
            Kind::Lite => EngineName::LiteRt,
        }
    }

    fn exactness(self) -> Exactness {
        match self {
            Kind::TensorFlow => exactness,
            Kind::Onnx => exactness_on_onnx,
            Kind::Lite => exactness_on_lite,
        }
    }

    /// Whether a native engine takes part without being named.
    fn takes(self, name: EngineName) -> bool {
        match self {
            Kind::TensorFlow => name.runs_saved_models(),
            Kind::Onnx => name == EngineName::OnnxRuntime,
            Kind::Lite => matches!(name, EngineName::LiteRt | EngineName::OpenVino),
        }
    }
}

/// Whether that is said of this engine.
fn is_of(weighed: &Weighed, contender: &dyn Contender) -> bool {
    weighed.engine == contender.name().as_str() && weighed.release == contender.release()
}

/// What each engine did, for the log.
fn tell(request: &LoadRequest, finding: &Finding, missing: Option<EngineName>) {
    for entry in &finding.entries {
        match &entry.outcome {
            Ok(_) => {}
            Err(status) if status.code() == Code::Unimplemented => info!(
                model = %request.model, version = %request.version, engine = %entry.name,
                reason = status.message(), "an engine cannot run the version"
            ),
            Err(status) => warn!(
                model = %request.model, version = %request.version, engine = %entry.name,
                reason = status.message(), "an engine is out of the choice"
            ),
        }
    }
    if let (Some(reference), Reason::Measured) = (missing, &finding.reason) {
        info!(
            model = %request.model, version = %request.version,
            "{reference} is not installed, so the answers were compared with the most exact engine \
             that is"
        );
    }
    if let Reason::Unmeasured(why) = &finding.reason {
        info!(
            model = %request.model, version = %request.version, reason = why,
            "no engine was measured, since there is nothing to compare"
        );
    }
    let figures: Vec<String> = finding.entries.iter().map(ToString::to_string).collect();
    if finding.reason == Reason::Measured {
        info!(
            model = %request.model, version = %request.version, engine = %finding.name,
            release = finding.release, figures = figures.join(", "),
            trial_ms = finding.trial.as_millis(),
            "engines were measured"
        );
    }
}

/// Why the embedded engine refuses a model, and what keeps TensorFlow from taking it.
fn with_what_is_missing(refusal: &Status, missing: Option<&Status>) -> Status {
    match missing {
        Some(missing) => {
            Status::new(refusal.code(), format!("{}; {}", refusal.message(), missing.message()))
        }
        None => refusal.clone(),
    }
}

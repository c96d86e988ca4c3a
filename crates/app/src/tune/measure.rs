//! Each engine, loaded and run as often as it takes.
//!
//! Owns: the figures. May not know: how they are shown.
//! Invariant: every engine gets the same inputs, and is held to the same reference; one that fails
//! costs its own rows alone.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vesta_engines::{
    EmbeddedEngine, EngineChoice, EngineName, EngineOptions, EngineStore, IrModel, LiteModel,
    OnnxModel, unknown_signature,
};
use vesta_model::{
    Engine as _, EngineIdentity, LoadRequest, ModelDescription, Session as _, Signature, Status,
    Tensor, Version,
};
use vesta_savedmodel::SavedModel;
use vesta_worker::{IsolatedEngine, IsolatedSession, RestartPolicy, WorkerOptions};

use crate::choice::{
    DRAWS, Draw, Drawn, Exactness, compare, draw, exactness, exactness_on_lite, exactness_on_onnx,
    has_open_rows, is_callable,
};
use crate::logs::LogFormat;
use crate::worker;

/// Runs that one figure is made of at most; a median needs no more.
const RUNS_MAX: usize = 200;

/// The longest run.
const RUN_LIMIT: Duration = Duration::from_secs(300);

/// What is to be measured.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) artifact: PathBuf,
    pub(super) tags: Vec<String>,
    pub(super) signature: Option<String>,
    /// Rows of a run, ascending.
    pub(super) batches: Vec<usize>,
    /// Threads of a run, ascending.
    pub(super) threads: Vec<usize>,
    /// About what one figure may take.
    pub(super) time: Duration,
}

/// One engine with a number of threads.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) name: EngineName,
    pub(super) release: String,
    pub(super) threads: usize,
    /// The figures, or why there are none.
    pub(super) outcome: Result<Figures, Status>,
}

#[derive(Clone, Debug)]
pub(super) struct Figures {
    /// From the start of its process until it could run.
    pub(super) load: Duration,
    /// Bytes that its process has resident after the runs.
    pub(super) memory_bytes: Option<u64>,
    /// The median time of a run, for each of the plan's batches; `None` where the signature's inputs
    /// do not have that many rows.
    pub(super) times: Vec<Option<Result<Duration, Status>>>,
    /// How far it is from the reference at most; `None` for the reference itself.
    pub(super) error: Option<Result<f64, String>>,
}

/// A plan with the engines that it is for.
pub(super) struct Bench {
    plan: Plan,
    program: PathBuf,
    /// The most exact one first.
    engines: Vec<(EngineName, String)>,
}

/// Answers of the reference, one for each batch.
type Answers = Vec<Option<Vec<Tensor>>>;

impl Bench {
    /// Every release of every engine that is installed and takes the format.
    ///
    /// # Errors
    /// When the program does not find itself.
    pub(super) fn new(plan: Plan) -> Result<Bench, Status> {
        let program = std::env::current_exe()
            .map_err(|e| Status::internal("the path of the program").with_cause(e))?;
        let is_lite =
            LiteModel::is_in(&plan.artifact) && SavedModel::file_in(&plan.artifact).is_none();
        let is_onnx = OnnxModel::is_alone_in(&plan.artifact);
        let is_ir = !is_lite && IrModel::is_alone_in(&plan.artifact);
        let takes = |name: EngineName| match name {
            EngineName::LiteRt => is_lite,
            EngineName::Embedded | EngineName::OnnxRuntime if is_onnx => true,
            EngineName::OpenVino if is_lite || is_onnx || is_ir => true,
            _ => name.runs_saved_models() && !is_lite && !is_onnx && !is_ir,
        };
        let mut engines = vec![(EngineName::Embedded, EmbeddedEngine.identity().version)];
        let installed = EngineStore::from_env().installed();
        engines.extend(installed.into_iter().map(|engine| (engine.name, engine.version)));
        engines.retain(|(name, _)| takes(*name));
        // Stable: of several releases the newest stays first.
        let exactness: Exactness = match (is_lite, is_onnx) {
            (true, _) => exactness_on_lite,
            (_, true) => exactness_on_onnx,
            _ => exactness,
        };
        engines.sort_by_key(|(name, _)| exactness(*name));
        Ok(Bench { plan, program, engines })
    }

    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// How often [`Bench::measure`] says what it does.
    pub(super) fn steps(&self) -> usize {
        self.engines.len() * self.plan.threads.len()
    }

    /// Measures; `says` hears of each step.
    pub(super) fn measure(&self, says: &dyn Fn(&str)) -> Vec<Row> {
        let mut reference: Option<Answers> = None;
        let mut rows = Vec::new();
        for (name, release) in &self.engines {
            for &threads in &self.plan.threads {
                let noun = if threads == 1 { "thread" } else { "threads" };
                says(&format!("{name} {release}, {threads} {noun}"));
                let measured = self.measure_one(*name, release, threads, reference.as_ref());
                let outcome = measured.map(|(figures, answers)| {
                    if reference.is_none() && answers.iter().any(Option::is_some) {
                        reference = Some(answers);
                    }
                    figures
                });
                rows.push(Row { name: *name, release: release.clone(), threads, outcome });
            }
        }
        rows
    }

    fn measure_one(
        &self,
        name: EngineName,
        release: &str,
        threads: usize,
        reference: Option<&Answers>,
    ) -> Result<(Figures, Answers), Status> {
        let begun = Instant::now();
        let session = self.load(name, release, threads)?;
        let load = begun.elapsed();
        let signature = self.signature(session.description())?;
        let mut times = Vec::new();
        let mut answers: Answers = Vec::new();
        for &rows in &self.plan.batches {
            let Some(drawn) = drawn_rows(&signature, rows)? else {
                times.push(None);
                answers.push(None);
                continue;
            };
            match self.time(&session, &drawn) {
                Ok((time, outputs)) => {
                    times.push(Some(Ok(time)));
                    answers.push(Some(outputs));
                }
                Err(status) => {
                    times.push(Some(Err(status)));
                    answers.push(None);
                }
            }
        }
        if times.iter().all(Option::is_none) {
            return Err(other_rows(&signature));
        }
        let names: Vec<String> = signature.outputs.iter().map(|spec| spec.alias.clone()).collect();
        let error = reference.map(|want| error_of(&answers, want, &names));
        let memory_bytes = session.health().resident_bytes;
        Ok((Figures { load, memory_bytes, times, error }, answers))
    }

    /// Loads the version in a process of its own, which says nothing but errors.
    fn load(
        &self,
        name: EngineName,
        release: &str,
        threads: usize,
    ) -> Result<Arc<IsolatedSession>, Status> {
        let choice = EngineChoice::Named { name, version: Some(release.to_owned()) };
        let options = EngineOptions::default();
        let command =
            worker::command(&self.program, &choice.to_string(), LogFormat::Text, &options)
                .env("VESTA_LOG", "error")
                .env("TF_CPP_MIN_LOG_LEVEL", "3");
        let identity =
            EngineIdentity { name: name.as_str().to_owned(), version: release.to_owned() };
        let limits = WorkerOptions { restart: RestartPolicy::never(), ..WorkerOptions::default() };
        IsolatedEngine::new(identity, command, limits).load_isolated(&LoadRequest {
            model: "model".into(),
            version: Version(1),
            artifact: self.plan.artifact.clone(),
            tags: self.plan.tags.clone(),
            threads,
        })
    }

    /// The signature to run.
    fn signature(&self, description: &ModelDescription) -> Result<Arc<Signature>, Status> {
        let signatures = &description.signatures;
        let signature = match &self.plan.signature {
            Some(name) => {
                signatures.get(name).ok_or_else(|| unknown_signature(name, description))?
            }
            None => signatures
                .get(Signature::DEFAULT_NAME)
                .or_else(|| signatures.values().find(|signature| is_callable(signature)))
                .ok_or_else(|| Status::not_found("the model has no signature to run"))?,
        };
        if signature.stateful {
            return Err(Status::failed_precondition(format!(
                "signature {} keeps state, so that it is not run for trial",
                signature.name
            )));
        }
        Ok(Arc::clone(signature))
    }

    /// The median time of a run, after one that does not count, and its outputs.
    fn time(
        &self,
        session: &IsolatedSession,
        ways: &[Drawn],
    ) -> Result<(Duration, Vec<Tensor>), Status> {
        let run = |drawn: &Drawn| {
            let until = Some(Instant::now() + RUN_LIMIT);
            session.run_over(&drawn.request, drawn.inputs.clone(), until)
        };
        let mut first = Err(Status::internal("there is nothing to run"));
        for drawn in ways {
            first = run(drawn).map(|outputs| (drawn, outputs));
            if first.is_ok() {
                break;
            }
        }
        let (drawn, outputs) = first?;
        let outputs = outputs
            .iter()
            .map(|output| Tensor::copied(output.dtype(), output.shape().clone(), output.bytes()))
            .collect::<Result<Vec<Tensor>, Status>>()?;
        let until = Instant::now() + self.plan.time;
        let mut times = Vec::new();
        while times.is_empty() || (times.len() < RUNS_MAX && Instant::now() < until) {
            let begun = Instant::now();
            drop(run(drawn)?);
            times.push(begun.elapsed());
        }
        times.sort();
        Ok((times[times.len() / 2], outputs))
    }
}

/// Inputs of so many rows, in the ways that there are to draw them; `None` where the inputs have another
/// number of rows, whatever is drawn.
fn drawn_rows(signature: &Signature, rows: usize) -> Result<Option<Vec<Drawn>>, Status> {
    let ways: Vec<Drawn> = DRAWS
        .iter()
        .map(|&how| draw(signature, Draw { rows, ..how }))
        .collect::<Result<_, String>>()
        .map_err(|reason| {
            Status::unimplemented(format!("signature {}: {reason}", signature.name))
        })?;
    let firsts = || ways.iter().flat_map(|drawn| &drawn.inputs).map(|x| x.shape().dims().first());
    // What has no rows at all, such as a number alone, is told as one.
    let fits = has_open_rows(signature)
        || firsts().any(|first| first == Some(&rows))
        || (rows == 1 && firsts().all(|first| first.is_none()));
    Ok(fits.then_some(ways))
}

/// What to say when none of the batches suits a signature.
fn other_rows(signature: &Signature) -> Status {
    let shapes: Vec<String> =
        signature.inputs.iter().map(|spec| format!("{} {}", spec.alias, spec.shape)).collect();
    Status::invalid_argument(format!(
        "signature {} takes {} alone; give its rows by --batches",
        signature.name,
        shapes.join(", ")
    ))
}

/// The largest error over all batches that both have.
fn error_of(got: &Answers, want: &Answers, names: &[String]) -> Result<f64, String> {
    let mut error = 0.0f64;
    for (got, want) in got.iter().zip(want) {
        match (got, want) {
            (Some(got), Some(want)) => error = error.max(compare(got, want, names)?),
            (None, Some(_)) => return Err("it refuses what the reference answers".to_owned()),
            (_, None) => {}
        }
    }
    Ok(error)
}

#[cfg(test)]
mod tests {
    use vesta_model::{DType, PartialShape, TensorSpec};

    use super::*;

    fn signature(dims: &[Option<usize>]) -> Signature {
        let x = TensorSpec::dense("x", DType::F32).with_shape(PartialShape::Ranked(dims.to_vec()));
        Signature::new("s", "", vec![x], vec![])
    }

    #[test]
    fn rows_are_those_that_the_inputs_can_have() {
        let has =
            |dims: &[Option<usize>], rows| drawn_rows(&signature(dims), rows).unwrap().is_some();
        assert!(has(&[None, Some(4)], 1) && has(&[None, Some(4)], 8));
        assert!(has(&[Some(8), Some(4)], 8));
        assert!(!has(&[Some(8), Some(4)], 32) && !has(&[Some(8), Some(4)], 1));
        assert!(has(&[], 1) && !has(&[], 8));
        let mut text = signature(&[None]);
        text.inputs[0].dtype = DType::String;
        assert!(drawn_rows(&text, 1).unwrap_err().message().contains("input x holds string"));
    }

    #[test]
    fn errors_are_those_of_the_worst_batch() {
        let of = |value: f32| {
            let y = Tensor::of(vesta_model::Shape::vector(1), &[value]).unwrap();
            Some(vec![y])
        };
        let names = ["y".to_owned()];
        let want = vec![of(1.0), of(1.0), None];
        let near = error_of(&vec![of(1.0), of(1.00001), of(3.0)], &want, &names).unwrap();
        assert!((near - 1e-5).abs() < 1e-6);
        assert!(error_of(&vec![of(1.0), of(2.0), None], &want, &names).is_err());
        assert!(error_of(&vec![of(1.0), None, None], &want, &names).is_err());
    }
}

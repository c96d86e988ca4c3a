//! One conformance suite for every engine, inline or isolated.
//!
//! Owns what every engine must do, as named cells. Knows nothing of any engine: models come as load
//! requests that compute what [`SuiteModels`] says.
//! Invariant: a cell that could not be tried is seen; a panic in a cell fails that cell alone.

mod cells;

use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use vesta_model::{
    Engine, InputLayout, LoadRequest, RunRequest, Session, Signature, Status, Tensor,
};

/// One model of the suite.
#[derive(Clone, Debug)]
pub struct SuiteModel {
    /// How to load it.
    pub load: LoadRequest,
    /// The signature to call.
    pub signature: String,
    /// Sizes of one row of its inputs and outputs; a batch of n has shape `[n, row_shape…]`.
    pub row_shape: Vec<usize>,
}

/// A model of the suite, or why there is none.
#[derive(Clone, Debug)]
pub enum Given {
    /// Here it is.
    Model(SuiteModel),
    /// The engine cannot run such a model, by its nature: then it must refuse this one in so many
    /// words, and every cell of it tries that instead.
    Refused(LoadRequest),
    /// Something is missing on this machine: a visible skip, and a failure where `CI` is `true`.
    Missing(String),
}

/// The models that the suite runs.
#[derive(Clone, Debug)]
pub struct SuiteModels {
    /// One float input, one float output of its shape: `y = x / 2 + 2`.
    pub half_plus_two: Given,
    /// The same, taking at least 300 ms for a run.
    pub slow_half_plus_two: Given,
    /// One string input, one string output: the same strings.
    pub string_identity: Given,
    /// Float inputs `a` and `b`, float outputs `difference = a - b` and `sum = a + b`.
    pub sum_and_difference: Given,
    /// Stateful, no input; one int64 scalar output: how often it was run since it was loaded.
    pub counter: Given,
    /// Does not load: its files are damaged. `row_shape` and `signature` mean nothing.
    pub damaged: Given,
}

/// What came of one cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it must be.
    Passed,
    /// Not tried, since this is missing on the machine.
    Skipped(String),
    /// Not as it must be.
    Failed(String),
}

/// One cell's name and outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// What it tests.
    pub name: &'static str,
    /// What came of it.
    pub outcome: Outcome,
    /// How long it took.
    pub took: Duration,
}

/// What came of all cells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuiteReport {
    /// In the order tried.
    pub cells: Vec<Cell>,
}

impl SuiteModel {
    /// A model called by its default signature.
    pub fn new(load: LoadRequest, row_shape: &[usize]) -> SuiteModel {
        SuiteModel {
            load,
            signature: Signature::DEFAULT_NAME.to_owned(),
            row_shape: row_shape.to_vec(),
        }
    }
}

impl SuiteReport {
    /// All cells, one per line.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for Cell { name, outcome, took } in &self.cells {
            let _ = match outcome {
                Outcome::Passed => writeln!(text, "pass {name} ({} ms)", took.as_millis()),
                Outcome::Skipped(reason) => writeln!(text, "SKIP {name}: {reason}"),
                Outcome::Failed(why) => writeln!(text, "FAIL {name}: {why}"),
            };
        }
        text
    }

    /// Whether the engine conforms. Print [`SuiteReport::text`] as well, so that skips are seen.
    ///
    /// # Errors
    /// The text of all cells when one failed, or when something was missing and `CI` is `true`.
    pub fn verdict(&self) -> Result<(), String> {
        let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
        self.verdict_in(ci)
    }

    fn verdict_in(&self, ci: bool) -> Result<(), String> {
        let bad = self.cells.iter().any(|cell| match &cell.outcome {
            Outcome::Passed => false,
            Outcome::Skipped(_) => ci,
            Outcome::Failed(_) => true,
        });
        if bad { Err(self.text()) } else { Ok(()) }
    }
}

/// Runs every cell on `engine`.
pub fn engine_suite(engine: &dyn Engine, models: &SuiteModels) -> SuiteReport {
    let cells = cells::ALL
        .iter()
        .map(|(name, pick, test)| {
            let begun = Instant::now();
            let outcome = match pick(models) {
                Given::Missing(reason) => Outcome::Skipped(reason.clone()),
                Given::Refused(load) => tried(|| cells::refused(engine, load)),
                Given::Model(model) => tried(|| test(engine, model)),
            };
            Cell { name, outcome, took: begun.elapsed() }
        })
        .collect();
    SuiteReport { cells }
}

fn tried(test: impl FnOnce() -> Result<(), String>) -> Outcome {
    match catch_unwind(AssertUnwindSafe(test)) {
        Ok(Ok(())) => Outcome::Passed,
        Ok(Err(why)) => Outcome::Failed(why),
        Err(_) => Outcome::Failed("it panicked".to_owned()),
    }
}

/// Prepares, fills and runs: what a caller of a session does.
///
/// # Errors
/// Those of the session.
pub fn infer(
    session: &dyn Session,
    signature: &str,
    inputs: &[Tensor],
    outputs: &[usize],
    deadline: Option<Instant>,
) -> Result<Vec<Tensor>, Status> {
    let mut run = session.prepare(&run_request(signature, inputs, outputs))?;
    for (index, input) in inputs.iter().enumerate() {
        let memory = run.input(index);
        if memory.len() != input.bytes().len() {
            return Err(Status::internal(format!(
                "input {index} has room for {} bytes, not {}",
                memory.len(),
                input.bytes().len()
            )));
        }
        memory.copy_from_slice(input.bytes());
    }
    run.run(deadline)
}

fn run_request(signature: &str, inputs: &[Tensor], outputs: &[usize]) -> RunRequest {
    let inputs = inputs.iter().map(InputLayout::of).collect();
    RunRequest { signature: signature.to_owned(), inputs, outputs: outputs.to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(outcome: Outcome) -> SuiteReport {
        SuiteReport { cells: vec![Cell { name: "x", outcome, took: Duration::ZERO }] }
    }

    #[test]
    fn what_is_missing_fails_in_ci_alone() {
        let skipped = report(Outcome::Skipped("why".to_owned()));
        assert!(skipped.verdict_in(false).is_ok());
        assert!(skipped.verdict_in(true).is_err());
        assert!(skipped.text().contains("SKIP x: why"));
        assert!(report(Outcome::Passed).verdict_in(true).is_ok());
        assert!(report(Outcome::Failed("y".to_owned())).verdict_in(false).is_err());
    }
}

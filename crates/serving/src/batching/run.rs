//! The run of a batch, from its requests to their answers. Only run threads come here.
//!
//! Owns the border behind which an engine may panic, and what becomes of a batch that fails. May not
//! know queues. Invariant: whatever the engine does, each request gets an answer.
//!
//! In the original, the error of one request is the error of all in its batch. Here a batch whose
//! error says that its input is wrong is run again in halves, so that it is the error of those alone
//! whose input it is: at most twice as many runs as requests, all of stateless signatures.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use vesta_model::{BatchingParameters, Code, Encoding, RunRequest, Signature, Status, Tensor};

use super::join::{Joint, Rows};
use super::observer::{FormedBatch, RunObserver};
use super::split;
use super::task::Piece;
use crate::lane::Answer;
use crate::servable::Servable;
use crate::texts;

/// What is to be told to the callers, once no lock is held.
pub(crate) struct Done(Vec<(Piece, Answer)>);

impl Done {
    /// Answers all.
    pub(crate) fn tell(self) {
        for (piece, answer) in self.0 {
            piece.answer(answer);
        }
    }
}

/// Why a batch failed.
enum Failure {
    /// Its requests do not fit together, or nothing can be run.
    Whole(Status),
    /// The engine's error.
    Engine(Status),
}

/// Runs a batch of one version, signature and set of outputs.
pub(crate) fn run(pieces: Vec<Piece>, observer: &dyn RunObserver) -> Done {
    let mut done = Vec::with_capacity(pieces.len());
    let now = Instant::now();
    for piece in &pieces {
        piece.begin();
        let task = &piece.task;
        observer.waited(task.lease.model(), true, now.saturating_duration_since(task.since));
    }
    run_or_halve(pieces, observer, &mut done);
    Done(done)
}

fn run_or_halve(
    mut pieces: Vec<Piece>,
    observer: &dyn RunObserver,
    done: &mut Vec<(Piece, Answer)>,
) {
    match attempt(&pieces, observer) {
        Ok(answers) => done.extend(pieces.into_iter().zip(answers.into_iter().map(Ok))),
        Err(Failure::Engine(status)) if pieces.len() > 1 && blames_input(status.code()) => {
            let second = pieces.split_off(pieces.len() / 2);
            run_or_halve(pieces, observer, done);
            run_or_halve(second, observer, done);
        }
        Err(Failure::Engine(status) | Failure::Whole(status)) => {
            done.extend(pieces.into_iter().map(|piece| (piece, Err(status.clone()))));
        }
    }
}

/// Whether an error tells of the input, so that other input may have another outcome.
fn blames_input(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition | Code::NotFound
    )
}

/// Runs the batch once and gives the outputs of each piece.
fn attempt(pieces: &[Piece], observer: &dyn RunObserver) -> Result<Vec<Vec<Tensor>>, Failure> {
    let Some(first) = pieces.first() else { return Ok(Vec::new()) };
    let servable = first.task.lease.servable();
    if servable.is_broken() {
        return Err(Failure::Whole(texts::session_broken(&servable.id)));
    }
    // What a panic leaves half done is the session's own, and that is never used again.
    let outcome = catch_unwind(AssertUnwindSafe(|| compute(servable, first, pieces, observer)));
    outcome.unwrap_or_else(|_| {
        tracing::error!("the engine panicked while it ran servable {}", servable.id);
        servable.mark_broken();
        Err(Failure::Whole(texts::run_panicked(&servable.id)))
    })
}

fn compute(
    servable: &Servable,
    first: &Piece,
    pieces: &[Piece],
    observer: &dyn RunObserver,
) -> Result<Vec<Vec<Tensor>>, Failure> {
    let name = &first.task.signature;
    let description = servable.session.description();
    let signature = description.signatures.get(name);
    let signature = signature.ok_or_else(|| Failure::Whole(texts::no_signature(name)))?;
    let parameters = &*first.task.parameters;
    let sizes: Vec<usize> = pieces.iter().map(|piece| piece.rows.len()).collect();
    let rows: usize = sizes.iter().sum();
    let padding_rows = parameters.filled_up(rows) - rows;
    observer.formed(
        first.task.lease.model(),
        FormedBatch {
            requests: pieces.len(),
            rows,
            padding_rows,
            rows_max: parameters.batch_rows_max(),
        },
    );

    let joints = join(signature, pieces, padding_rows, parameters).map_err(Failure::Whole)?;
    let request = RunRequest {
        signature: name.clone(),
        inputs: joints.iter().map(|joint| joint.layout.clone()).collect(),
        outputs: first.task.batch_outputs.clone(),
    };
    let run_rows = request.inputs.first().and_then(|input| input.shape.dims().first().copied());
    let mut run = servable.session.prepare(&request).map_err(Failure::Engine)?;
    for (index, joint) in joints.iter().enumerate() {
        joint.write(run.input(index)).map_err(Failure::Whole)?;
    }
    drop(joints);
    let outputs = run.run(deadline(pieces)).map_err(Failure::Engine)?;
    if outputs.len() != request.outputs.len() {
        let (want, got) = (request.outputs.len(), outputs.len());
        return Err(Failure::Whole(texts::wrong_output_count(&servable.id, want, got)));
    }
    split::split(&outputs, run_rows.unwrap_or(rows), &sizes).map_err(Failure::Whole)
}

/// The inputs of the batch, in the order of the signature.
fn join<'a>(
    signature: &Signature,
    pieces: &'a [Piece],
    padding_rows: usize,
    parameters: &BatchingParameters,
) -> Result<Vec<Joint<'a>>, Status> {
    let inputs = signature.inputs.iter().enumerate();
    inputs
        .map(|(index, spec)| {
            let name = match &spec.encoding {
                Encoding::Dense(name) => name,
                _ => &spec.alias,
            };
            let rows_of = |piece: &'a Piece| {
                let tensor = piece.task.inputs.get(index)?;
                Some(Rows { tensor, rows: piece.rows.clone() })
            };
            let parts = pieces.iter().filter_map(rows_of).collect();
            Joint::plan(name, parts, padding_rows, parameters.pad_variable_length_inputs)
        })
        .collect()
}

/// When the last of the callers stops waiting; `None` when one waits for as long as it takes.
fn deadline(pieces: &[Piece]) -> Option<Instant> {
    let deadlines: Option<Vec<Instant>> = pieces.iter().map(|piece| piece.task.deadline).collect();
    deadlines?.into_iter().max()
}

//! ONNX files on the embedded engine: networks of floats, node by node in the forms that the
//! capability table knows.
//!
//! A file is written anew ([`graph`], [`forms`]). What it computes from the sizes of its inputs is
//! followed as it is written ([`extent`]) and computed before a run, in 64 bits, with the sizes of all
//! values ([`computed`]); so the numeric graph is given sizes and never computes them.
//!
//! May not know: how rten is asked. Invariant: an operator is written as the translation of SavedModels
//! writes it, or as formulas of such, or refused by name; nothing of the file is handed to rten as it is
//! but numbers.

mod computed;
mod extent;
mod facts;
mod forms;
mod graph;
mod written;

use std::sync::Arc;

use vesta_model::{DType, LoadRequest, ModelDescription, PartialShape, Status, TensorSpec};
use vesta_onnx::Refusal;

pub(super) use self::computed::Computed;
use self::graph::Rewritten;
use super::merge::Boundary;
use super::numeric::{NumericModel, NumericObstacle};
use super::plan::{Missing, NumericStep, Program, Step};
use super::session::{Callable, EmbeddedSession, Shared};
use crate::onnxruntime::OnnxFile;

/// The longest file that runs in the server's own process.
const INLINE_NODES_MAX: usize = 5_000;

/// Loads one version that is an ONNX file.
pub(super) fn load(
    request: &LoadRequest,
    refused: impl Fn(&str) -> Status,
) -> Result<EmbeddedSession, Status> {
    let mut file = OnnxFile::read(&request.artifact)?;
    let signature = Arc::new(file.signature()?);
    file.gather(&request.artifact)?;
    let boundaries = |specs: &[TensorSpec]| -> Vec<Boundary> {
        let of = |spec: &TensorSpec| Boundary {
            tensor: spec.alias.clone(),
            dtype: spec.dtype,
            shape: spec.shape.clone(),
        };
        specs.iter().map(of).collect()
    };
    let (feeds, fetches) = (boundaries(&signature.inputs), boundaries(&signature.outputs));
    let is_held = |feed: &&Boundary| {
        matches!(feed.dtype, DType::F32 | DType::I32 | DType::I64 | DType::Bool | DType::U8)
            && matches!(feed.shape, PartialShape::Ranked(_))
    };
    if let Some(odd) = feeds.iter().find(|feed| !is_held(feed)) {
        return Err(refused(&format!(
            "its input {} is of {} {}, and it takes float, int32, int64, uint8 and bool of a known rank \
             from an ONNX file",
            odd.tensor, odd.dtype, odd.shape
        )));
    }
    let Rewritten { translation, computed } = graph::rewrite(file.model, &feeds, &fetches)
        .map_err(|refusals| refused(&format!("it has no {}", named(refusals))))?;
    let nodes = translation.model.graph.as_ref().map_or(0, |graph| graph.node.len());
    let program = program(&feeds, &fetches);
    let model =
        NumericModel::of(translation, feeds, &fetches, Some(computed)).map_err(|obstacle| {
            match obstacle {
                NumericObstacle::Nodes(refusals) => {
                    refused(&format!("it has no {}", named(refusals)))
                }
                NumericObstacle::Engine(text) => refused(&format!("it cannot be loaded: {text}")),
            }
        })?;
    let inline = match nodes {
        0..=INLINE_NODES_MAX => model.is_bounded(),
        _ => Err(format!("it has {nodes} nodes, more than {INLINE_NODES_MAX}")),
    };
    let name = signature.name.clone();
    let description = ModelDescription { signatures: [(name.clone(), signature.clone())].into() };
    let callable: [(String, Callable); 1] = [(name, Callable { signature, program })];
    let shared =
        Shared { callable: callable.into(), numeric: Some(model), threads: request.threads.max(1) };
    Ok(EmbeddedSession::new(description, shared, inline))
}

/// All in one step.
fn program(feeds: &[Boundary], fetches: &[Boundary]) -> Program {
    let first = feeds.len();
    let slots = |ends: &[Boundary], first: usize| {
        ends.iter().enumerate().map(|(at, end)| (first + at, end.dtype)).collect()
    };
    let step = NumericStep {
        inputs: (0..first).map(|at| (at, at)).collect(),
        outputs: (0..fetches.len()).map(|at| (at, first + at)).collect(),
    };
    Program {
        feeds: slots(feeds, 0),
        constants: Vec::new(),
        steps: vec![Step::Numeric(step)],
        fetches: slots(fetches, first),
        slots: first + fetches.len(),
    }
}

fn named(refusals: Vec<Refusal>) -> String {
    let reasons = refusals.iter().map(|own| (own.node.clone(), own.reason.clone())).collect();
    let missing = |own: Refusal| Missing { node: own.node, operator: own.op };
    super::loading::named(refusals.into_iter().map(missing).collect(), &reasons)
}

#[cfg(test)]
mod tests;

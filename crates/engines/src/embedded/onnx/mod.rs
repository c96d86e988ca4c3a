//! ONNX files on the embedded engine: networks of floats, node by node in the forms that the
//! capability table knows.
//!
//! May not know: how rten is asked. Invariant: an operator is written as the translation of SavedModels
//! writes it, or refused by name; nothing of the file is handed to rten as it is but numbers.

mod forms;
mod graph;
mod windows;

use std::sync::Arc;

use vesta_model::{DType, LoadRequest, ModelDescription, PartialShape, Status, TensorSpec};
use vesta_onnx::Refusal;

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
        feed.dtype == DType::F32 && matches!(feed.shape, PartialShape::Ranked(_))
    };
    if let Some(odd) = feeds.iter().find(|feed| !is_held(feed)) {
        return Err(refused(&format!(
            "its input {} is of {} {}, and it takes floats of a known rank from an ONNX file",
            odd.tensor, odd.dtype, odd.shape
        )));
    }
    let translation = graph::rewrite(file.model, &feeds, &fetches)
        .map_err(|refusals| refused(&format!("it has no {}", named(refusals))))?;
    let nodes = translation.model.graph.as_ref().map_or(0, |graph| graph.node.len());
    let program = program(feeds.len(), fetches.len());
    let model =
        NumericModel::of(translation, feeds, &fetches).map_err(|obstacle| match obstacle {
            NumericObstacle::Nodes(refusals) => refused(&format!("it has no {}", named(refusals))),
            NumericObstacle::Engine(text) => refused(&format!("rten refuses it: {text}")),
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
fn program(feeds: usize, fetches: usize) -> Program {
    let step = NumericStep {
        inputs: (0..feeds).map(|at| (at, at)).collect(),
        outputs: (0..fetches).map(|at| (at, feeds + at)).collect(),
    };
    Program {
        feeds: (0..feeds).map(|at| (at, DType::F32)).collect(),
        constants: Vec::new(),
        steps: vec![Step::Numeric(step)],
        fetches: (feeds..feeds + fetches).map(|slot| (slot, DType::F32)).collect(),
        slots: feeds + fetches,
    }
}

fn named(refusals: Vec<Refusal>) -> String {
    let reasons = refusals.iter().map(|own| (own.node.clone(), own.reason.clone())).collect();
    let missing = |own: Refusal| Missing { node: own.node, operator: own.op };
    super::loading::named(refusals.into_iter().map(missing).collect(), &reasons)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_names_each_end_once() {
        let program = program(2, 3);
        assert_eq!((program.slots, program.feeds.len(), program.fetches.len()), (5, 2, 3));
        let [Step::Numeric(step)] = &program.steps[..] else { panic!("{}", program.steps.len()) };
        assert_eq!(step.outputs, [(0, 2), (1, 3), (2, 4)]);
    }
}

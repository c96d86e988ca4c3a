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
        matches!(feed.dtype, DType::F32 | DType::I32 | DType::I64 | DType::Bool)
            && matches!(feed.shape, PartialShape::Ranked(_))
    };
    if let Some(odd) = feeds.iter().find(|feed| !is_held(feed)) {
        return Err(refused(&format!(
            "its input {} is of {} {}, and it takes float, int32, int64 and bool of a known rank from an \
             ONNX file",
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
mod tests {
    use proptest::prelude::*;
    use vesta_protos::onnx::{
        AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    };

    use super::*;

    /// Every operator that is known, and one that is not.
    fn operators() -> impl Iterator<Item = &'static str> {
        forms::known().chain(["NoSuch"])
    }

    const ATTRIBUTES: &[&str] = &[
        "axes",
        "axis",
        "kernel_shape",
        "strides",
        "pads",
        "dilations",
        "group",
        "perm",
        "keepdims",
        "size",
        "transB",
        "ceil_mode",
        "allowzero",
        "min",
    ];

    fn end(name: &str, dims: Vec<Option<usize>>) -> Boundary {
        let shape = PartialShape::Ranked(dims);
        Boundary { tensor: name.to_owned(), dtype: DType::F32, shape }
    }

    /// A file of one node over `x` and a constant, with attributes of chance.
    fn file(
        (op, inputs): (&str, usize),
        opset: i64,
        attributes: &[(usize, Vec<i64>)],
        (dims, values): &(Vec<i64>, Vec<i64>),
        is_float: bool,
    ) -> ModelProto {
        let attribute = |(at, ints): &(usize, Vec<i64>)| AttributeProto {
            name: ATTRIBUTES[at % ATTRIBUTES.len()].to_owned(),
            i: ints.first().copied(),
            f: ints.first().map(|&own| own as f32),
            ints: ints.clone(),
            ..AttributeProto::default()
        };
        let bytes: Vec<u8> = match is_float {
            true => values.iter().flat_map(|&own| (own as f32).to_le_bytes()).collect(),
            false => values.iter().flat_map(|own| own.to_le_bytes()).collect(),
        };
        let constant = TensorProto {
            name: "c".to_owned(),
            data_type: if is_float { 1 } else { 7 },
            dims: dims.clone(),
            raw_data: bytes.into(),
            ..TensorProto::default()
        };
        let node = NodeProto {
            op_type: op.to_owned(),
            input: ["x", "c", "c", "c", "c"].into_iter().take(inputs).map(str::to_owned).collect(),
            output: vec!["y".to_owned()],
            attribute: attributes.iter().map(attribute).collect(),
            ..NodeProto::default()
        };
        ModelProto {
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: opset }],
            graph: Some(GraphProto {
                node: vec![node],
                initializer: vec![constant],
                ..GraphProto::default()
            }),
            ..ModelProto::default()
        }
    }

    #[test]
    fn a_plain_file_loads_and_one_of_absurd_sizes_does_not() {
        let load = |dims: Vec<Option<usize>>| {
            let (feeds, fetches) = ([end("x", dims)], [end("y", vec![])]);
            let model = file(("Relu", 1), 13, &[], &(vec![0], vec![]), true);
            let Rewritten { translation, computed } =
                graph::rewrite(model, &feeds, &fetches).unwrap();
            NumericModel::of(translation, feeds.into(), &fetches).map(|_| ())
        };
        load(vec![None, Some(3)]).unwrap();
        let Err(NumericObstacle::Engine(text)) = load(vec![Some(1 << 40), Some(1 << 40)]) else {
            panic!("it loads")
        };
        assert!(text.starts_with("a tensor of it takes more than"), "{text}");
    }

    proptest! {
        #[test]
        fn files_of_chance_never_panic(
            opset in 6i64..23,
            attributes in proptest::collection::vec(
                (0usize..14, proptest::collection::vec(prop_oneof![-3i64..6, any::<i64>()], 0..5)), 0..3),
            dims in proptest::collection::vec(prop_oneof![-1i64..5, any::<i64>()], 0..5),
            values in proptest::collection::vec(prop_oneof![-3i64..9, any::<i64>()], 0..9),
            is_fitting in any::<bool>(),
            is_float in any::<bool>(),
            input in proptest::collection::vec(proptest::option::of(prop_oneof![0usize..6, any::<usize>()]), 0..6),
        ) {
            let dims = if is_fitting { vec![values.len() as i64] } else { dims };
            let constant = (dims, values);
            for (op, inputs) in operators().flat_map(|op| (0..=5).map(move |inputs| (op, inputs))) {
                let model = file((op, inputs), opset, &attributes, &constant, is_float);
                let (feeds, fetches) = ([end("x", input.clone())], [end("y", vec![])]);
                let outcome = graph::rewrite(model, &feeds, &fetches);
                prop_assert!(op != "NoSuch" || outcome.is_err());
                if let Ok(Rewritten { translation, computed }) = outcome {
                    // rten may refuse what is written; it looks into constants as it loads.
                    let _ = NumericModel::of(translation, feeds.into(), &fetches, Some(computed));
                }
            }
        }
    }

    #[test]
    fn a_program_names_each_end_once() {
        let [a, b] = ["a", "b"].map(|name| end(name, vec![]));
        let program = program(&[a, b], &["c", "d", "e"].map(|name| end(name, vec![])));
        assert_eq!((program.slots, program.feeds.len(), program.fetches.len()), (5, 2, 3));
        let [Step::Numeric(step)] = &program.steps[..] else { panic!("{}", program.steps.len()) };
        assert_eq!(step.outputs, [(0, 2), (1, 3), (2, 4)]);
    }
}

//! Hostile files, and what a run of one may take.

use proptest::prelude::*;
use vesta_protos::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
};

use super::*;
use crate::embedded::onnx::graph::Rewritten;

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
    "to",
    "blocksize",
    "num_outputs",
    "split",
    "starts",
    "ends",
    "start",
    "end",
    "value_ints",
    "hidden_size",
    "num_groups",
    "transA",
    "linear_before_reset",
    "auto_pad",
    "mode",
    "equation",
    "direction",
    "output_padding",
    "scales",
];

const TEXTS: &[&str] =
    &["SAME_UPPER", "SAME_LOWER", "linear", "edge", "reflect", "CRD", "ij,jk->ik", "bidirectional"];

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
        floats: ints.iter().map(|&own| own as f32).collect(),
        s: ints.first().map(|own| TEXTS[own.unsigned_abs() as usize % TEXTS.len()].into()),
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
            graph::rewrite(model, &feeds, &fetches).ok().unwrap();
        NumericModel::of(translation, feeds.into(), &fetches, Some(computed)).map(|_| ())
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
            (0usize..64, proptest::collection::vec(prop_oneof![-3i64..6, any::<i64>()], 0..5)), 0..3),
        dims in proptest::collection::vec(prop_oneof![-1i64..5, any::<i64>()], 0..5),
        values in proptest::collection::vec(prop_oneof![-3i64..9, any::<i64>()], 0..9),
        is_fitting in any::<bool>(),
        is_float in any::<bool>(),
        kind in 0usize..4,
        size in prop_oneof![0usize..5, any::<usize>()],
        input in proptest::collection::vec(proptest::option::of(prop_oneof![0usize..6, any::<usize>()]), 0..6),
    ) {
        let dims = if is_fitting { vec![values.len() as i64] } else { dims };
        let constant = (dims, values);
        for (op, inputs) in operators().flat_map(|op| (0..=5).map(move |inputs| (op, inputs))) {
            let model = file((op, inputs), opset, &attributes, &constant, is_float);
            let mut feed = end("x", input.clone());
            feed.dtype = [DType::F32, DType::I64, DType::Bool, DType::I32][kind];
            let (feeds, fetches) = ([feed], [end("y", vec![])]);
            let outcome = graph::rewrite(model, &feeds, &fetches);
            prop_assert!(op != "NoSuch" || outcome.is_err());
            if let Ok(Rewritten { translation, computed }) = outcome {
                let sizes: Vec<usize> = input.iter().map(|dim| dim.unwrap_or(size)).collect();
                let _ = computed.at(&[&sizes]);
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

/// An operator, its inputs and its attributes, by numbers.
type Link = (usize, Vec<usize>, Vec<(usize, Vec<i64>)>);

/// Chains of nodes over an input and its sizes, as the numbers say.
fn chain(steps: &[Link], opset: i64) -> ModelProto {
    let known: Vec<&str> = forms::known().collect();
    let mut names = vec!["x".to_owned(), "c".to_owned(), "s".to_owned()];
    let whole = file(("Shape", 1), opset, &[], &(vec![3], vec![0, -1, 2]), false);
    let mut graph = whole.graph.unwrap();
    graph.node[0].output = vec!["s".to_owned()];
    for (at, (op, inputs, attributes)) in steps.iter().enumerate() {
        let one = file((known[op % known.len()], 0), opset, attributes, &(vec![], vec![]), true);
        let mut node = one.graph.unwrap().node.remove(0);
        node.input = inputs.iter().map(|own| names[own % names.len()].clone()).collect();
        node.output = vec![format!("v{at}")];
        names.push(format!("v{at}"));
        graph.node.push(node);
    }
    let last = names.pop().unwrap();
    let node =
        NodeProto { op_type: "Identity".to_owned(), input: vec![last], ..graph.node[0].clone() };
    graph.node.push(NodeProto { output: vec!["y".to_owned()], attribute: vec![], ..node });
    ModelProto { graph: Some(graph), ..whole }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn chains_of_chance_never_panic_and_are_bounded(
        steps in proptest::collection::vec((any::<usize>(),
            proptest::collection::vec(any::<usize>(), 1..4),
            proptest::collection::vec(
                (any::<usize>(), proptest::collection::vec(-2i64..4, 0..4)), 0..2)), 1..12),
        opset in 7i64..22,
        input in proptest::collection::vec(proptest::option::of(1usize..6), 1..5),
        size in prop_oneof![0usize..9, any::<usize>()],
    ) {
        let (feeds, fetches) = ([end("x", input.clone())], [end("y", vec![])]);
        if let Ok(Rewritten { translation, computed }) =
            graph::rewrite(chain(&steps, opset), &feeds, &fetches)
        {
            let sizes: Vec<usize> = input.iter().map(|dim| dim.unwrap_or(size)).collect();
            let _ = computed.at(&[&sizes]);
            let _ = NumericModel::of(translation, feeds.into(), &fetches, Some(computed));
        }
    }
}

#[test]
fn sizes_that_would_take_too_much_end_the_run() {
    let tile = |times: i64| {
        let (feeds, fetches) = ([end("x", vec![None])], [end("y", vec![])]);
        let model = file(("Tile", 2), 13, &[], &(vec![1], vec![times]), false);
        graph::rewrite(model, &feeds, &fetches).ok().unwrap().computed
    };
    assert!(tile(1 << 20).at(&[&[256]]).is_ok());
    let exhausted = tile(1 << 20).at(&[&[1 << 10]]).unwrap_err();
    assert_eq!(exhausted.code(), vesta_model::Code::ResourceExhausted);
    assert!(tile(1 << 40).at(&[&[1 << 40]]).is_err());
}

#[test]
fn values_that_are_held_together_are_bounded_together() {
    let load = |count: usize| {
        let (feeds, fetches) = ([end("x", vec![None])], [end("y", vec![])]);
        let whole = file(("Max", 0), 13, &[], &(vec![1], vec![1 << 28]), false);
        let mut graph = whole.graph.unwrap();
        let mut last = graph.node.remove(0);
        for at in 0..count {
            last.input.push(format!("v{at}"));
            let node = NodeProto { op_type: "Tile".to_owned(), attribute: vec![], ..last.clone() };
            let input = vec!["x".to_owned(), "c".to_owned()];
            graph.node.push(NodeProto { input, output: vec![format!("v{at}")], ..node });
        }
        graph.node.push(last);
        let model = ModelProto { graph: Some(graph), ..whole };
        graph::rewrite(model, &feeds, &fetches).ok().unwrap().computed
    };
    assert!(load(4).at(&[&[1]]).is_ok());
    assert!(load(4).at(&[&[2]]).is_err());
    assert!(load(40).at(&[&[1]]).is_err());
}

#[test]
fn a_chain_that_is_too_long_is_refused() {
    let outcome = |count: usize| {
        let (feeds, fetches) = ([end("x", vec![None])], [end("y", vec![])]);
        let whole = file(("Neg", 1), 13, &[], &(vec![0], vec![]), true);
        let mut graph = whole.graph.unwrap();
        let mut last = graph.node.remove(0);
        for at in 0..count {
            let output = vec![format!("v{at}")];
            graph.node.push(NodeProto { output: output.clone(), ..last.clone() });
            last.input = output;
        }
        graph.node.push(last);
        graph::rewrite(ModelProto { graph: Some(graph), ..whole }, &feeds, &fetches)
    };
    assert!(outcome(3_000).is_ok());
    let Err(refused) = outcome(5_000) else { panic!("it is taken") };
    assert_eq!(refused[0].reason, "it stands behind more than 4000 others");
}

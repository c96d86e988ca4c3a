//! What the translators write, node by node, and what they refuse.

use std::collections::BTreeMap;

use vesta_model::{DType, PartialShape};
use vesta_protos::onnx::{AttributeProto, ModelProto, NodeProto};
use vesta_protos::tensorflow::attr_value::{ListValue, Value};
use vesta_protos::tensorflow::tensor_shape_proto::Dim;
use vesta_protos::tensorflow::{AttrValue, NodeDef, TensorProto, TensorShapeProto};

use crate::{Body, FeedSpec, FrozenSignature, Resizing, Translation, Untranslatable, translate};

fn node(name: &str, op: &str, inputs: &[&str], attributes: &[(&str, Value)]) -> NodeDef {
    let attr = attributes
        .iter()
        .map(|(name, value)| ((*name).to_owned(), AttrValue { value: Some(value.clone()) }))
        .collect::<BTreeMap<_, _>>();
    NodeDef {
        name: name.into(),
        op: op.into(),
        input: inputs.iter().map(|&input| input.to_owned()).collect(),
        attr,
        ..Default::default()
    }
}

fn constant(name: &str, dims: &[i64], dtype: DType, bytes: Vec<u8>) -> NodeDef {
    let dim = dims.iter().map(|&size| Dim { size, name: String::new() }).collect();
    let tensor = TensorProto {
        dtype: dtype.number(),
        tensor_shape: Some(TensorShapeProto { dim, unknown_rank: false }),
        tensor_content: bytes.into(),
        ..Default::default()
    };
    node(name, "Const", &[], &[("value", Value::Tensor(Box::new(tensor)))])
}

fn floats(name: &str, dims: &[i64], values: &[f32]) -> NodeDef {
    constant(name, dims, DType::F32, values.iter().flat_map(|v| v.to_le_bytes()).collect())
}

fn ints(name: &str, values: &[i32]) -> NodeDef {
    let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    constant(name, &[values.len() as i64], DType::I32, bytes)
}

fn list(i: &[i64]) -> Value {
    Value::List(Box::new(ListValue { i: i.to_vec(), ..Default::default() }))
}

fn text(text: &str) -> Value {
    Value::S(text.as_bytes().to_vec())
}

fn run_fed(
    nodes: &[NodeDef],
    dtype: DType,
    shape: PartialShape,
    fetches: &[&str],
) -> Result<Translation, Untranslatable> {
    translate(&FrozenSignature {
        nodes,
        feeds: vec![FeedSpec { tensor: "x:0".into(), dtype, shape }],
        fetches: fetches.iter().map(|&fetch| fetch.to_owned()).collect(),
        checks: &[],
        bodies: Vec::new(),
        resizing: Resizing::Computed,
    })
}

fn run(nodes: &[NodeDef], shape: &[Option<usize>]) -> Result<Translation, Untranslatable> {
    run_fed(nodes, DType::F32, PartialShape::Ranked(shape.to_vec()), &["y"])
}

fn operators(model: &ModelProto) -> Vec<&str> {
    model.graph.as_ref().unwrap().node.iter().map(|node| node.op_type.as_str()).collect()
}

fn find<'a>(model: &'a ModelProto, op: &str) -> &'a NodeProto {
    model.graph.as_ref().unwrap().node.iter().find(|node| node.op_type == op).unwrap()
}

fn attribute<'a>(node: &'a NodeProto, name: &str) -> &'a AttributeProto {
    node.attribute.iter().find(|attribute| attribute.name == name).unwrap()
}

const IMAGE: &[Option<usize>] = &[None, Some(7), Some(8), Some(2)];

fn convolution(padding: &str, stride: i64) -> Vec<NodeDef> {
    let attributes = [
        ("strides", list(&[1, stride, stride, 1])),
        ("padding", text(padding)),
        // Stale: it belongs to padding EXPLICIT and says nothing under another.
        ("explicit_paddings", list(&[9, 9])),
    ];
    vec![floats("k", &[3, 3, 2, 2], &[1.0; 36]), node("c", "Conv2D", &["x", "k"], &attributes)]
}

#[test]
fn a_convolution_states_every_attribute() {
    let mut nodes = convolution("SAME", 2);
    nodes.push(node("y", "Identity", &["c"], &[]));
    let translation = run(&nodes, IMAGE).unwrap();
    assert_eq!(operators(&translation.model), ["Transpose", "Conv", "Transpose"]);
    let conv = find(&translation.model, "Conv");
    assert_eq!(attribute(conv, "kernel_shape").ints, [3, 3]);
    assert_eq!(attribute(conv, "strides").ints, [2, 2]);
    assert_eq!(attribute(conv, "dilations").ints, [1, 1]);
    // 7 rows at stride 2 want 2 more, 8 columns 1 more, which goes behind.
    assert_eq!(attribute(conv, "pads").ints, [1, 0, 1, 1]);
    assert_eq!(attribute(conv, "group").i, Some(1));
}

#[test]
fn an_image_is_turned_before_it_is_normalised() {
    let normalised = |factors: NodeDef, shape| {
        let mut nodes = vec![factors];
        nodes.push(node("a", "Sub", &["x", "f"], &[]));
        nodes.push(node("b", "RealDiv", &["a", "f"], &[]));
        nodes.push(floats("k", &[1, 1, 2, 1], &[1.0, 2.0]));
        let attributes = [("strides", list(&[1, 1, 1, 1])), ("padding", text("VALID"))];
        nodes.push(node("y", "Conv2D", &["b", "k"], &attributes));
        let translation = run(&nodes, shape).unwrap();
        operators(&translation.model).join(" ")
    };
    let turned = "Transpose Sub Div Conv Transpose";
    let image = &[None, Some(16), Some(20), Some(2)];
    assert_eq!(normalised(floats("f", &[2], &[1.0, 2.0]), image), turned);
    assert_eq!(normalised(floats("f", &[1, 1, 1, 2], &[1.0, 2.0]), image), turned);
    assert_eq!(normalised(floats("f", &[2], &[1.0, 2.0]), &[None, None, None, Some(2)]), turned);
    let otherwise = "Sub Div Transpose Conv Transpose";
    assert_eq!(normalised(floats("f", &[], &[1.0]), image), otherwise);
    assert_eq!(normalised(floats("f", &[20, 2], &[1.0; 40]), image), otherwise);
    assert_eq!(normalised(floats("f", &[2], &[1.0, 2.0]), IMAGE), otherwise);
}

#[test]
fn padding_is_left_to_the_engine_only_where_the_size_decides() {
    let open = &[None, None, None, Some(2)];
    for (stride, is_automatic) in [(1, false), (2, true)] {
        let mut nodes = convolution("SAME", stride);
        nodes.push(node("y", "Identity", &["c"], &[]));
        let translation = run(&nodes, open).unwrap();
        let conv = find(&translation.model, "Conv");
        assert_eq!(conv.attribute.iter().any(|a| a.name == "auto_pad"), is_automatic);
        assert_eq!(conv.attribute.iter().any(|a| a.name == "pads"), !is_automatic);
    }
}

fn normalised(reader: &str) -> Vec<NodeDef> {
    let mut nodes = convolution("VALID", 1);
    for name in ["scale", "offset", "mean", "variance"] {
        nodes.push(floats(name, &[2], &[1.0, 2.0]));
    }
    let inputs = ["c", "scale", "offset", "mean", "variance"];
    let attributes = [("is_training", Value::B(false)), ("epsilon", Value::F(0.0))];
    nodes.push(node("n", "FusedBatchNormV3", &inputs, &attributes));
    nodes.push(node("r", "Relu", &["n"], &[]));
    nodes.push(node("y", "AddV2", &["r", reader], &[]));
    nodes
}

#[test]
fn constants_behind_a_convolution_become_its_weights() {
    let translation = run(&normalised("r"), IMAGE).unwrap();
    assert_eq!(operators(&translation.model), ["Transpose", "Conv", "Relu", "Add", "Transpose"]);
    let conv = find(&translation.model, "Conv");
    let graph = translation.model.graph.as_ref().unwrap();
    let bias = graph.initializer.iter().find(|tensor| tensor.name == conv.input[2]).unwrap();
    let first = 1.0f32 - 1.0;
    let second = (2.0f64 - 2.0 * (2.0 / 2.0f64.sqrt())) as f32;
    assert_eq!(bias.raw_data, [first.to_le_bytes(), second.to_le_bytes()].concat());
}

#[test]
fn fewer_channels_are_averaged_where_a_convolution_may_come_first() {
    let operators_of = |stride: i64, padding: &str, depth: usize| {
        let pool = [
            ("ksize", list(&[1, 3, 3, 1])),
            ("strides", list(&[1, stride, stride, 1])),
            ("padding", text(padding)),
        ];
        let cells = [("strides", list(&[1, 1, 1, 1])), ("padding", text("SAME"))];
        let nodes = [
            node("a", "AvgPool", &["x"], &pool),
            floats("k", &[1, 1, 2, depth as i64], &vec![0.5; 2 * depth]),
            node("c", "Conv2D", &["a", "k"], &cells),
            floats("b", &[depth as i64], &vec![3.0; depth]),
            node("y", "BiasAdd", &["c", "b"], &[]),
        ];
        let translation = run(&nodes, IMAGE).unwrap();
        let conv = find(&translation.model, "Conv");
        assert_eq!(conv.input.len(), 3, "the bias is the convolution's");
        operators(&translation.model).join(" ")
    };
    assert_eq!(operators_of(1, "SAME", 1), "Transpose Conv AveragePool Transpose");
    assert_eq!(operators_of(1, "VALID", 1), "Transpose Conv AveragePool Transpose");
    // It would be more work.
    assert_eq!(operators_of(2, "SAME", 1), "Transpose AveragePool Conv Transpose");
    assert_eq!(operators_of(1, "SAME", 2), "Transpose AveragePool Conv Transpose");
}

/// As Keras 3 writes one: no operator of its own, and the statistics go through arithmetic.
#[test]
fn a_normalisation_that_is_written_out_becomes_weights() {
    let mut nodes = convolution("VALID", 1);
    nodes.extend([
        floats("variance", &[2], &[3.75, 0.0]),
        floats("epsilon", &[], &[0.25]),
        floats("gamma", &[2], &[4.0, 3.0]),
        floats("mean", &[2], &[5.0, 6.0]),
        floats("beta", &[2], &[7.0, 8.0]),
        node("with", "AddV2", &["variance", "epsilon"], &[]),
        node("one_by", "Rsqrt", &["with"], &[]),
        node("factor", "Mul", &["one_by", "gamma"], &[]),
        node("times", "Mul", &["c", "factor"], &[]),
        node("moved", "Mul", &["mean", "factor"], &[]),
        node("offset", "Sub", &["beta", "moved"], &[]),
        node("y", "AddV2", &["times", "offset"], &[]),
    ]);
    let translation = run(&nodes, IMAGE).unwrap();
    assert_eq!(operators(&translation.model), ["Transpose", "Conv", "Transpose"]);
    let conv = find(&translation.model, "Conv");
    let graph = translation.model.graph.as_ref().unwrap();
    let own = |at: usize| graph.initializer.iter().find(|own| own.name == conv.input[at]).unwrap();
    let bytes =
        |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|v| v.to_le_bytes()).collect() };
    // Factors: 4 / sqrt(4) and 3 / sqrt(1/4), for 18 weights of one each.
    assert_eq!(own(1).raw_data, bytes(&[[2.0; 18], [6.0; 18]].concat()));
    assert_eq!(own(2).raw_data, bytes(&[7.0 - 5.0 * 2.0, 8.0 - 6.0 * 6.0]));
}

#[test]
fn a_convolution_that_others_read_keeps_its_weights() {
    let translation = run(&normalised("c"), IMAGE).unwrap();
    assert!(operators(&translation.model).contains(&"BatchNormalization"));
    assert_eq!(find(&translation.model, "Conv").input.len(), 2);
}

#[test]
fn a_row_added_to_channels_first_images_is_no_bias() {
    let attributes = [
        ("strides", list(&[1, 1, 1, 1])),
        ("padding", text("VALID")),
        ("data_format", text("NCHW")),
    ];
    let nodes = [
        floats("k", &[1, 1, 2, 2], &[1.0; 4]),
        node("c", "Conv2D", &["x", "k"], &attributes),
        floats("row", &[2], &[1.0, 2.0]),
        node("y", "AddV2", &["c", "row"], &[]),
    ];
    let translation = run(&nodes, &[None, Some(2), Some(5), Some(2)]).unwrap();
    assert_eq!(operators(&translation.model), ["Conv", "Add"]);
}

#[test]
fn statistics_of_the_batch_are_no_output() {
    let mut nodes = normalised("r");
    nodes.iter_mut().for_each(|node| {
        node.attr.remove("is_training");
    });
    assert!(operators(&run(&nodes, IMAGE).unwrap().model).contains(&"ReduceMean"));
    nodes.pop();
    nodes.push(node("y", "Neg", &["n:1"], &[]));
    let error = run(&nodes, IMAGE).unwrap_err();
    assert_eq!(error.operators[0].node, "y");
}

#[test]
fn sizes_on_their_way_to_a_reshape_leave_no_nodes() {
    let nodes = [
        node("s", "Shape", &["x"], &[]),
        ints("zero", &[0]),
        ints("one", &[1]),
        node(
            "b",
            "StridedSlice",
            &["s", "zero", "one", "one"],
            &[("shrink_axis_mask", Value::I(1))],
        ),
        constant("n", &[], DType::I32, 12i32.to_le_bytes().to_vec()),
        node("t", "Pack", &["b", "n"], &[]),
        node("y", "Reshape", &["x", "t"], &[]),
    ];
    let translation = run(&nodes, &[None, Some(3), Some(4)]).unwrap();
    assert_eq!(operators(&translation.model), ["Reshape"]);
    // With two open sizes it is not sure which is which, so the shape is computed in each run.
    let translation = run(&nodes, &[None, None, Some(4)]).unwrap();
    assert!(operators(&translation.model).contains(&"Shape"));
}

#[test]
fn negative_indices_do_not_count_from_the_end() {
    let nodes = [
        floats("table", &[2, 1], &[1.0, 2.0]),
        constant("axis", &[], DType::I32, vec![0; 4]),
        node("y", "GatherV2", &["table", "x", "axis"], &[]),
    ];
    let shape = || PartialShape::Ranked(vec![None]);
    let translation = run_fed(&nodes, DType::I64, shape(), &["y"]).unwrap();
    assert_eq!(operators(&translation.model), ["Less", "Where", "Gather"]);
    let float = run_fed(&nodes, DType::F32, shape(), &["y"]).unwrap_err();
    assert!(float.to_string().contains("dtype float"), "{float}");
}

#[test]
fn no_engine_divides_whole_numbers_by_zero_or_the_lowest_by_minus_one() {
    let written = |nodes: &[NodeDef]| {
        let shape = PartialShape::Ranked(vec![None]);
        let translation = run_fed(nodes, DType::I32, shape, &["y"]).ok()?;
        Some(operators(&translation.model).iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let by =
        |divisor| written(&[ints("d", &[divisor]), node("y", "TruncateDiv", &["x", "d"], &[])]);
    assert_eq!(by(3), Some(vec!["Div".to_owned()]));
    assert_eq!(by(0), None);
    assert!(by(-1).is_some_and(|all| all.contains(&"Neg".to_owned())));
    let computed = written(&[node("y", "TruncateDiv", &["x", "x"], &[])]).unwrap();
    let guard = ["Equal", "Cast", "ReduceSum", "Unsqueeze", "Gather"];
    assert_eq!(computed[..5], guard.map(str::to_owned));
}

#[test]
fn every_unknown_operator_is_named_once() {
    let nodes = [
        node("a", "Lgamma", &["x"], &[]),
        node("b", "Tanh", &["a"], &[]),
        node("c", "Betainc", &["b"], &[]),
        node("unread", "Unbatch", &["x"], &[]),
        node("y", "Identity", &["c"], &[]),
    ];
    let error = run(&nodes, &[None]).unwrap_err();
    let named: Vec<&str> = error.operators.iter().map(|refusal| refusal.op.as_str()).collect();
    assert_eq!(named, ["Lgamma", "Betainc"]);
    assert!(error.to_string().ends_with("it needs TensorFlow itself"), "{error}");
}

#[test]
fn a_check_that_can_fail_is_part_of_the_graph() {
    let nodes = [
        node("ok", "IsFinite", &["x"], &[]),
        node("check", "Assert", &["ok", "x"], &[]),
        node("y", "Identity", &["x", "^check"], &[]),
    ];
    let error = run(&nodes, &[None]).unwrap_err();
    assert_eq!(error.operators[0].op, "Assert");
}

#[test]
fn interior_feeds_and_double_fetches_keep_their_names() {
    let nodes = [node("x", "Tanh", &["before"], &[]), node("y", "Neg", &["x"], &[])];
    let shape = PartialShape::Unknown;
    let translation = run_fed(&nodes, DType::F64, shape, &["y", "y:0", "x"]).unwrap();
    assert_eq!(translation.inputs, ["x:0"]);
    assert_eq!(translation.outputs, ["y:0", "y:0/output_1", "x:0/output_1"]);
    assert_eq!(operators(&translation.model), ["Neg", "Identity", "Identity"]);
    assert_eq!(translation.values["y:0"].dtype, DType::F64);
}

#[test]
fn damaged_graphs_are_refused_not_followed() {
    let broken = [
        vec![node("y", "Add", &["x"], &[])],
        vec![node("y", "Add", &["x", "later"], &[]), floats("later", &[], &[1.0])],
        vec![node("y", "Add", &["x", "y"], &[])],
        vec![floats("k", &[2], &[1.0]), node("y", "Add", &["x", "k"], &[])],
        vec![constant("k", &[i64::MAX, 4], DType::F32, vec![]), node("y", "Add", &["x", "k"], &[])],
        vec![constant("k", &[-1], DType::F32, vec![]), node("y", "Add", &["x", "k"], &[])],
        vec![constant("k", &[1], DType::String, vec![0]), node("y", "Identity", &["k"], &[])],
        vec![ints("p", &[0, 0]), node("y", "Transpose", &["x", "p"], &[])],
        vec![ints("p", &[7, 7]), node("y", "Transpose", &["x", "p"], &[])],
        vec![ints("a", &[5]), node("y", "Mean", &["x", "a"], &[])],
        vec![ints("p", &[-1, 0, 0, 0]), node("y", "Pad", &["x", "p"], &[])],
        vec![node("y", "MaxPool", &["x"], &[("ksize", list(&[1, 0, 2, 1]))])],
        vec![],
    ];
    for nodes in broken {
        assert!(run(&nodes, &[None, Some(3)]).is_err(), "{nodes:?}");
    }
}

fn body<'a>(node: &str, attribute: &str, nodes: &'a [NodeDef], results: &[&str]) -> Body<'a> {
    Body {
        node: node.into(),
        attribute: attribute.into(),
        nodes,
        arguments: (0..results.len().max(2)).map(|at| format!("<{at}>:0")).collect(),
        results: results.iter().map(|&result| result.to_owned()).collect(),
        checks: &[],
        bodies: vec![],
    }
}

fn run_bodies(
    nodes: &[NodeDef],
    bodies: Vec<Body<'_>>,
    fetches: &[&str],
) -> Result<Translation, Untranslatable> {
    translate(&FrozenSignature {
        nodes,
        feeds: vec![
            FeedSpec {
                tensor: "x:0".into(),
                dtype: DType::F32,
                shape: PartialShape::Ranked(vec![None, Some(3)]),
            },
            FeedSpec {
                tensor: "n:0".into(),
                dtype: DType::F32,
                shape: PartialShape::Ranked(vec![]),
            },
        ],
        fetches: fetches.iter().map(|&fetch| fetch.to_owned()).collect(),
        checks: &[],
        bodies,
        resizing: Resizing::Computed,
    })
}

const TO_LESS: &[&str] = &["less:0"];

fn less() -> Vec<NodeDef> {
    vec![
        ints("all", &[0, 1]),
        node("sum", "Sum", &["<0>", "all"], &[]),
        node("less", "Less", &["sum", "<1>"], &[]),
    ]
}

#[test]
fn what_a_loop_hands_on_is_no_state() {
    let nodes = [node("y", "StatelessWhile", &["x", "n"], &[])];
    let (cond, step) = (less(), [node("twice", "AddV2", &["<0>", "<0>"], &[])]);
    let condition = Body { results: vec!["less:0".into()], ..body("y", "cond", &cond, TO_LESS) };
    let bodies = vec![condition, body("y", "body", &step, &["twice:0", "<1>:0"])];
    let translation = run_bodies(&nodes, bodies, &["y:0", "y:1"]).unwrap();
    assert_eq!(operators(&translation.model), ["ReduceSum", "Less", "Loop", "Identity"]);
    let inner = attribute(find(&translation.model, "Loop"), "body").g.as_ref().unwrap();
    // The number of the round, the condition and the one state.
    assert_eq!((inner.input.len(), inner.output.len()), (3, 2));
    let within: Vec<&str> = inner.node.iter().map(|node| node.op_type.as_str()).collect();
    assert_eq!(within, ["Add", "ReduceSum", "Less", "Identity"]);
    assert_eq!(inner.node[2].input[1], "n:0");
    // The state keeps its sizes, so they are known behind the loop, too.
    let shape = &translation.values["y:0"].shape;
    assert_eq!(shape, &PartialShape::Ranked(vec![None, Some(3)]));
    assert!(translation.operators.keys().any(|used| used.op == "Add"));
}

#[test]
fn sizes_that_a_round_changes_are_open() {
    let nodes = [node("y", "While", &["x", "n"], &[])];
    let axis = constant("axis", &[], DType::I32, vec![1, 0, 0, 0]);
    let (cond, step) = (less(), [axis, node("wide", "ConcatV2", &["<0>", "<0>", "axis"], &[])]);
    let bodies =
        vec![body("y", "cond", &cond, TO_LESS), body("y", "body", &step, &["wide:0", "<1>:0"])];
    let translation = run_bodies(&nodes, bodies, &["y:0"]).unwrap();
    assert_eq!(translation.values["y:0"].shape, PartialShape::Ranked(vec![None, None]));
}

#[test]
fn refusals_within_branches_name_the_way_there() {
    let nodes = [node("c", "Less", &["n", "n"], &[]), node("y", "If", &["c", "x", "n"], &[])];
    let then = [node("inverse", "MatrixInverse", &["<0>"], &[])];
    let other = [node("count", "Bincount", &["<0>"], &[])];
    let bodies = vec![
        body("y", "then_branch", &then, &["inverse:0"]),
        body("y", "else_branch", &other, &["count:0"]),
    ];
    let error = run_bodies(&nodes, bodies, &["y"]).unwrap_err();
    let named: Vec<&str> = error.operators.iter().map(|refusal| refusal.node.as_str()).collect();
    assert_eq!(named, ["y/inverse", "y/count"]);
    let error = run_bodies(&nodes, vec![], &["y"]).unwrap_err();
    assert_eq!(error.operators[0].op, "If");
    assert!(error.to_string().contains("then_branch is not there"), "{error}");
}

#[test]
fn lists_and_handles_are_taken_by_what_is_made_for_them() {
    for made in ["VarHandleOp", "EmptyTensorList"] {
        let dtype = Value::Type(DType::F32.number());
        let nodes = [
            constant("shape", &[], DType::I32, vec![255; 4]),
            constant("most", &[], DType::I32, vec![255; 4]),
            node("made", made, &["shape", "most"], &[("element_dtype", dtype)]),
            node("y", "Shape", &["made"], &[]),
        ];
        let error = run(&nodes, &[None]).unwrap_err();
        assert_eq!(error.operators[0].node, "y");
        assert!(error.to_string().contains("it takes "), "{error}");
    }
}

#[test]
fn complex_numbers_are_no_result() {
    let nodes = [
        ints("length", &[4]),
        node("spectrum", "RFFT", &["x", "length"], &[]),
        node("size", "ComplexAbs", &["spectrum"], &[]),
    ];
    let run =
        |fetch| run_fed(&nodes, DType::F32, PartialShape::Ranked(vec![None, Some(4)]), &[fetch]);
    assert!(run("size:0").is_ok());
    let said = run("spectrum:0").unwrap_err().to_string();
    assert!(said.contains("complex numbers are no result here"), "{said}");
}

#[test]
fn transforms_share_their_waves_and_are_bounded() {
    let lengths = |all: &[i32]| {
        let mut nodes = Vec::new();
        for (at, &length) in all.iter().enumerate() {
            nodes.push(ints(&format!("length{at}"), &[length]));
            let named = format!("length{at}");
            nodes.push(node(&format!("spectrum{at}"), "RFFT", &["x", &named], &[]));
            nodes.push(node(&format!("size{at}"), "ComplexAbs", &[&format!("spectrum{at}")], &[]));
        }
        let fetches: Vec<String> = (0..all.len()).map(|at| format!("size{at}:0")).collect();
        let fetches: Vec<&str> = fetches.iter().map(String::as_str).collect();
        run_fed(&nodes, DType::F32, PartialShape::Ranked(vec![None, None]), &fetches)
    };
    let initializers = |all: &[i32]| {
        let graph = lengths(all).unwrap().model.graph.unwrap();
        graph.initializer.iter().filter(|tensor| tensor.dims.len() == 2).count()
    };
    assert_eq!((initializers(&[16, 16, 16]), initializers(&[16, 12])), (2, 4));
    let said = lengths(&[4096, 4095, 4094, 4093, 4092]).unwrap_err().to_string();
    assert!(said.contains("transforms of too many lengths"), "{said}");
}

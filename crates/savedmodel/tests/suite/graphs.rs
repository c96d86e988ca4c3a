//! Freezing of graphs written by hand: calls, limits, branches, state.

use crate::support::*;
use proptest::prelude::*;
use vesta_model::{Code, DType};
use vesta_protos::tensorflow::attr_value::Value;
use vesta_protos::tensorflow::op_def::{ArgDef, AttrDef};
use vesta_protos::tensorflow::{OpDef, OpList, TensorProto, TensorShapeProto, tensor_shape_proto};

fn add(name: &str, a: &str, b: &str) -> vesta_protos::tensorflow::NodeDef {
    with(node(name, "AddV2", &[a, b]), "T", Value::Type(F32))
}

fn freeze_error(model: &Model) -> vesta_model::Status {
    model.open().unwrap().freeze("s").unwrap_err()
}

#[test]
fn calls_are_inlined_with_their_names_and_order_is_dropped() {
    let inner = function(
        "inner",
        &["a"],
        &[("y", "sum:z:0")],
        vec![
            constant("one", float(1.0)),
            node("nothing", "NoOp", &["^one"]),
            node("sum", "AddV2", &["a", "one:output:0", "^nothing"]),
        ],
    );
    let outer = function(
        "outer",
        &["a"],
        &[("y", "id:output:0")],
        vec![
            call("first", "inner", &["a"]),
            call("second", "inner", &["first:output:0"]),
            node("id", "Identity", &["second:output:0", "^first"]),
        ],
    );
    let nodes = vec![placeholder("x"), call("run", "outer", &["x"])];
    let model = Model::new(nodes, vec![inner, outer]).signature("s", &["x:0"], &["run:0"]);
    let frozen = model.open().unwrap().freeze("s").unwrap();
    assert_eq!(
        lines(&frozen.nodes),
        [
            "run/first/one Const",
            "run/first/sum AddV2 x:0 run/first/one:0",
            "run/second/one Const",
            "run/second/sum AddV2 run/first/sum:0 run/second/one:0",
        ]
    );
    assert_eq!(frozen.fetches, ["run/second/sum:0"]);
    assert_eq!(frozen.feeds[0].tensor, "x:0");
    assert_eq!(frozen.feeds[0].dtype, DType::F32);
    assert_eq!(frozen.stateful, None);
}

#[test]
fn names_that_inlining_would_repeat_are_made_unique() {
    let inner = function("inner", &["a"], &[("y", "neg:y:0")], vec![node("neg", "Neg", &["a"])]);
    let nodes =
        vec![placeholder("x"), call("run", "inner", &["x"]), node("run/neg", "Abs", &["run:0"])];
    let model = Model::new(nodes, vec![inner]).signature("s", &["x:0"], &["run/neg:0"]);
    let frozen = model.open().unwrap().freeze("s").unwrap();
    assert_eq!(lines(&frozen.nodes), ["run/neg_1 Neg x:0", "run/neg Abs run/neg_1:0"]);
}

#[test]
fn fetches_may_be_feeds_and_constants() {
    let nodes = vec![
        placeholder("x"),
        node("same", "Identity", &["x"]),
        constant("c", float(3.0)),
        node("stop", "StopGradient", &["c"]),
    ];
    let model = Model::new(nodes, vec![]).signature("s", &["x:0"], &["same:0", "stop:0", "x:0"]);
    let frozen = model.open().unwrap().freeze("s").unwrap();
    assert_eq!(frozen.fetches, ["x:0", "c:0", "x:0"]);
    assert_eq!(lines(&frozen.nodes), ["c Const"]);
}

#[test]
fn feeds_inside_the_graph_cut_off_what_lies_behind() {
    let nodes = vec![
        placeholder("examples"),
        node("parse", "ParseExample", &["examples"]),
        node("sum", "AddV2", &["parse:1", "parse:2"]),
    ];
    let model = Model::new(nodes.clone(), vec![])
        .signature("both", &["parse:1", "parse:2"], &["sum:0"])
        .signature("one", &["examples:0", "parse:1"], &["sum:0"])
        .signature("s", &["parse:1"], &["sum:0"]);
    let opened = model.open().unwrap();
    assert_eq!(lines(&opened.freeze("both").unwrap().nodes), ["sum AddV2 parse:1 parse:2"]);
    let one = opened.freeze("one").unwrap();
    assert_eq!(lines(&one.nodes), ["parse ParseExample examples:0", "sum AddV2 parse:1 parse:2",]);
    // Whoever feeds only one of both leaves the placeholder behind the other open.
    let error = freeze_error(&model);
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().contains("placeholder `examples`"), "{error}");
}

#[test]
fn placeholders_with_defaults_take_them_unless_fed() {
    let nodes = vec![
        constant("c", float(2.0)),
        with(node("p", "PlaceholderWithDefault", &["c"]), "dtype", Value::Type(F32)),
        node("y", "Neg", &["p"]),
    ];
    let model = Model::new(nodes, vec![]).signature("fed", &["p:0"], &["y:0"]).signature(
        "s",
        &[],
        &["y:0"],
    );
    let opened = model.open().unwrap();
    assert_eq!(lines(&opened.freeze("fed").unwrap().nodes), ["y Neg p:0"]);
    assert_eq!(lines(&opened.freeze("s").unwrap().nodes), ["c Const", "y Neg c:0"]);
}

#[test]
fn attributes_of_calls_reach_into_bodies() {
    let mut body = function(
        "typed",
        &["a"],
        &[("y", "cast:y:0")],
        vec![with(node("cast", "Cast", &["a"]), "DstT", Value::Placeholder("T".to_owned()))],
    );
    body.signature.as_mut().unwrap().attr =
        vec![AttrDef { name: "T".to_owned(), r#type: "type".to_owned(), ..AttrDef::default() }];
    let direct = with(node("run", "typed", &["x"]), "T", Value::Type(DType::I64.number()));
    let bare = node("bare", "typed", &["x"]);
    let model = Model::new(vec![placeholder("x"), direct, bare], vec![body])
        .signature("direct", &["x:0"], &["run:0"])
        .signature("s", &["x:0"], &["bare:0"]);
    let frozen = model.open().unwrap().freeze("direct").unwrap();
    assert_eq!(lines(&frozen.nodes), ["run/cast Cast x:0"]);
    assert_eq!(frozen.nodes[0].attr["DstT"], attr(Value::Type(DType::I64.number())));
    assert!(freeze_error(&model).message().contains("without its attribute `T`"));
}

#[test]
fn lists_of_arguments_and_outputs_are_counted() {
    let mut body = function(
        "listed",
        &["before", "list"],
        &[("y", "split:output:0")],
        vec![with(node("split", "Split", &["before", "list:1"]), "num_split", Value::I(3))],
    );
    let signature = body.signature.as_mut().unwrap();
    signature.input_arg[1].number_attr = "N".to_owned();
    signature.output_arg[0].number_attr = "N".to_owned();
    let run = with(node("run", "listed", &["a", "b", "c"]), "N", Value::I(2));
    let nodes = vec![placeholder("a"), placeholder("b"), placeholder("c"), run];
    let model = Model::new(nodes, vec![body])
        .signature("s", &["a:0", "b:0", "c:0"], &["run:0", "run:1"])
        .signature("beyond", &["a:0", "b:0", "c:0"], &["run:2"]);
    let opened = model.open().unwrap();
    let frozen = opened.freeze("s").unwrap();
    assert_eq!(lines(&frozen.nodes), ["run/split Split a:0 c:0"]);
    assert_eq!(frozen.fetches, ["run/split:0", "run/split:1"]);
    assert!(opened.freeze("beyond").unwrap_err().message().contains("no output 2"));
}

#[test]
fn defaults_come_from_the_models_definitions_and_private_attributes_go() {
    let conv = with(node("y", "Conv2D", &["x", "x"]), "_output_shapes", Value::I(1));
    let mut model =
        Model::new(vec![placeholder("x"), conv], vec![]).signature("s", &["x:0"], &["y:0"]);
    let default = |name: &str, value| AttrDef {
        name: name.to_owned(),
        default_value: Some(attr(value)),
        ..AttrDef::default()
    };
    let op = OpDef {
        name: "Conv2D".to_owned(),
        attr: vec![default("groups", Value::I(1)), default("layout", Value::S(b"NHWC".to_vec()))],
        ..OpDef::default()
    };
    model.meta.meta_info_def.as_mut().unwrap().stripped_op_list = Some(OpList { op: vec![op] });
    let frozen = model.open().unwrap().freeze("s").unwrap();
    let keys: Vec<&String> = frozen.nodes[0].attr.keys().collect();
    assert_eq!(keys, ["groups", "layout"]);
}

#[test]
fn operators_without_definition_are_named() {
    let body = function("f", &["a"], &[("y", "own:thing:0")], vec![node("own", "MyOp", &["a"])]);
    let nodes = vec![placeholder("x"), call("run", "f", &["x"])];
    let mut model = Model::new(nodes, vec![body]).signature("s", &["x:0"], &["run:0"]);
    let error = freeze_error(&model);
    assert_eq!(error.code(), Code::Unimplemented);
    assert!(error.message().contains("MyOp"), "{error}");
    assert_eq!(model.open().unwrap().operators("s").unwrap()["MyOp"], 1);
    let thing = ArgDef { name: "thing".to_owned(), ..ArgDef::default() };
    let op = OpDef { name: "MyOp".to_owned(), output_arg: vec![thing], ..OpDef::default() };
    model.meta.meta_info_def.as_mut().unwrap().stripped_op_list = Some(OpList { op: vec![op] });
    assert!(model.open().unwrap().freeze("s").is_ok());
}

#[test]
fn functions_that_call_themselves_are_refused() {
    let ping = function("ping", &["a"], &[("y", "c:output:0")], vec![call("c", "pong", &["a"])]);
    let pong = function("pong", &["a"], &[("y", "c:output:0")], vec![call("c", "ping", &["a"])]);
    let nodes = vec![placeholder("x"), call("run", "ping", &["x"])];
    let model = Model::new(nodes, vec![ping, pong]).signature("s", &["x:0"], &["run:0"]);
    let error = freeze_error(&model);
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().contains("calls itself"), "{error}");
    // What cannot be looked into may do anything.
    assert!(model.open().unwrap().description().signatures["s"].stateful);
}

#[test]
fn depth_and_size_are_bounded() {
    // Each level calls the next one `width` times.
    let tower = |levels: usize, width: usize| {
        let mut functions =
            vec![function("f0", &["a"], &[("y", "n:y:0")], vec![node("n", "Neg", &["a"])])];
        for level in 1..levels {
            let below = format!("f{}", level - 1);
            let mut nodes = vec![call("c0", &below, &["a"])];
            for i in 1..width {
                nodes.push(call(&format!("c{i}"), &below, &[&format!("c{}:output:0", i - 1)]));
            }
            let last = format!("c{}:output:0", width - 1);
            functions.push(function(&format!("f{level}"), &["a"], &[("y", &last)], nodes));
        }
        let nodes = vec![placeholder("x"), call("run", &format!("f{}", levels - 1), &["x"])];
        Model::new(nodes, functions).signature("s", &["x:0"], &["run:0"])
    };
    assert_eq!(tower(20, 1).open().unwrap().freeze("s").unwrap().nodes.len(), 1);
    assert_eq!(tower(5, 3).open().unwrap().freeze("s").unwrap().nodes.len(), 81);
    for model in [tower(200, 1), tower(40, 2)] {
        assert_eq!(freeze_error(&model).code(), Code::ResourceExhausted);
    }
}

#[test]
fn long_chains_do_not_recurse() {
    let mut nodes = vec![placeholder("x"), node("n0", "Neg", &["x"])];
    for i in 1..50_000 {
        let op = if i % 2 == 0 { "Neg" } else { "Identity" };
        nodes.push(node(&format!("n{i}"), op, &[&format!("n{}", i - 1)]));
    }
    let model = Model::new(nodes, vec![]).signature("s", &["x:0"], &["n49999:0"]);
    assert_eq!(model.open().unwrap().freeze("s").unwrap().nodes.len(), 25_000);
}

#[test]
fn circles_are_refused_but_loops_are_kept() {
    let circle = vec![node("a", "Neg", &["b"]), node("b", "Neg", &["a"])];
    let passing = vec![node("a", "Identity", &["b"]), node("b", "Identity", &["a"])];
    for nodes in [circle, passing] {
        let model = Model::new(nodes, vec![]).signature("s", &[], &["a:0"]);
        assert_eq!(freeze_error(&model).code(), Code::InvalidArgument);
    }
    let own = function("own", &["a"], &[("y", "a")], vec![]);
    let model = Model::new(vec![call("c", "own", &["c"])], vec![own]).signature("s", &[], &["c:0"]);
    assert!(freeze_error(&model).message().contains("in a circle"));

    let nodes = vec![
        placeholder("x"),
        node("enter", "Enter", &["x"]),
        node("merge", "Merge", &["enter", "next"]),
        node("test", "IsNan", &["merge"]),
        node("go", "LoopCond", &["test"]),
        node("switch", "Switch", &["merge", "go"]),
        node("body", "Neg", &["switch:1"]),
        node("next", "NextIteration", &["body"]),
        node("exit", "Exit", &["switch"]),
    ];
    let model = Model::new(nodes, vec![]).signature("s", &["x:0"], &["exit:0"]);
    let frozen = model.open().unwrap().freeze("s").unwrap();
    assert_eq!(frozen.nodes.len(), 8);
    assert!(lines(&frozen.nodes).contains(&"merge Merge enter:0 next:0".to_owned()));
}

#[test]
fn branches_with_a_known_condition_are_decided() {
    let nodes = |training: bool| {
        vec![
            placeholder("x"),
            constant("no", boolean(training)),
            node("training", "PlaceholderWithDefault", &["no"]),
            node("switch", "Switch", &["x", "training"]),
            node("anchor", "Identity", &["switch:1"]),
            constant("shape", float(1.0)),
            node("noise", "RandomUniform", &["shape", "^anchor"]),
            add("noisy", "switch:1", "noise"),
            node("plain", "Neg", &["switch:0"]),
            node("merge", "Merge", &["plain", "noisy"]),
            node("y", "Abs", &["merge"]),
        ]
    };
    let serving = Model::new(nodes(false), vec![]).signature("s", &["x:0"], &["y:0"]);
    let frozen = serving.open().unwrap().freeze("s").unwrap();
    assert_eq!(lines(&frozen.nodes), ["plain Neg x:0", "y Abs plain:0"]);
    assert_eq!(frozen.stateful, None);
    let training = Model::new(nodes(true), vec![]).signature("s", &["x:0"], &["y:0"]);
    let frozen = training.open().unwrap().freeze("s").unwrap();
    assert!(frozen.stateful.unwrap().contains("RandomUniform"));
    // A condition that a request gives is none that is known.
    let asked = Model::new(nodes(false), vec![]).signature("s", &["x:0", "training:0"], &["y:0"]);
    let frozen = asked.open().unwrap().freeze("s").unwrap();
    assert!(frozen.nodes.iter().any(|node| node.op == "Merge"));
    assert!(frozen.stateful.is_some());
}

#[test]
fn effects_are_seen_wherever_they_hide() {
    let draw = || node("draw", "RandomUniform", &["a"]);
    let by_order = {
        let mut function =
            function("f", &["a"], &[("y", "n:y:0")], vec![node("n", "Neg", &["a"]), draw()]);
        function.control_ret.insert("draw".to_owned(), "draw".to_owned());
        function
    };
    let unused = function("f", &["a"], &[("y", "n:y:0")], vec![node("n", "Neg", &["a"]), draw()]);
    for body in [by_order, unused] {
        let nodes = vec![placeholder("x"), call("run", "f", &["x"])];
        let model = Model::new(nodes, vec![body]).signature("s", &["x:0"], &["run:0"]);
        let opened = model.open().unwrap();
        assert!(opened.description().signatures["s"].stateful);
        assert!(opened.freeze("s").unwrap().stateful.unwrap().contains("run/draw"));
    }
    let body = function("body", &["a"], &[("y", "draw:output:0")], vec![draw()]);
    let looped = with(node("loop", "While", &["x"]), "body", function_name("body"));
    let model = Model::new(vec![placeholder("x"), looped], vec![body]).signature(
        "s",
        &["x:0"],
        &["loop:0"],
    );
    let frozen = model.open().unwrap().freeze("s").unwrap();
    assert!(frozen.stateful.unwrap().contains("RandomUniform"));
    assert_eq!(frozen.functions.len(), 1);
}

#[test]
fn what_one_signature_writes_another_must_not_freeze() {
    let variable = |name: &str| with(node(name, "VarHandleOp", &[]), "dtype", Value::Type(F32));
    let nodes = vec![
        placeholder("x"),
        variable("v"),
        variable("w"),
        node("write", "AssignAddVariableOp", &["v", "x"]),
        node("done", "Identity", &["x", "^write"]),
        with(node("read", "ReadVariableOp", &["v"]), "dtype", Value::Type(F32)),
        with(node("other", "ReadVariableOp", &["w"]), "dtype", Value::Type(F32)),
    ];
    let model = Model::new(nodes, vec![])
        .signature("write", &["x:0"], &["done:0"])
        .signature("read", &[], &["read:0"])
        .signature("s", &[], &["other:0"]);
    let opened = model.open().unwrap();
    let stateful = |name: &str| opened.description().signatures[name].stateful;
    assert!(stateful("write") && stateful("read") && !stateful("s"));
    let reason = opened.freeze("read").unwrap().stateful.unwrap();
    assert!(reason.contains("`v`") && reason.contains("signature write"), "{reason}");
    let error = opened.freeze("s").unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(error.message().contains("variable `w` has no value"), "{error}");
    assert_eq!(opened.operators("write").unwrap()["AssignAddVariableOp"], 1);
}

#[test]
fn variables_that_initialisation_sets_are_its_constants() {
    let variable = |name: &str| with(node(name, "VarHandleOp", &[]), "dtype", Value::Type(F32));
    let nodes = vec![
        variable("v"),
        variable("w"),
        constant("five", float(5.0)),
        node("noise", "RandomUniform", &["five"]),
        node("set_v", "AssignVariableOp", &["v", "five"]),
        node("set_w", "AssignVariableOp", &["w", "noise"]),
        node("init", "NoOp", &["^set_v", "^set_w"]),
        node("v_read", "ReadVariableOp", &["v"]),
        node("w_read", "ReadVariableOp", &["w"]),
    ];
    let mut model = Model::new(nodes, vec![])
        .signature("v", &[], &["v_read:0"])
        .signature("s", &[], &["w_read:0"])
        .signature("__saved_model_init_op", &[], &["init"]);
    let init = model.meta.signature_def.get_mut("__saved_model_init_op").unwrap();
    let mut info = init.outputs.remove("init").unwrap();
    info.dtype = 0;
    init.outputs.insert("__saved_model_init_op".to_owned(), info);
    let opened = model.open().unwrap();
    let frozen = opened.freeze("v").unwrap();
    assert_eq!(lines(&frozen.nodes), ["v Const"]);
    assert_eq!(frozen.nodes[0].attr["value"], attr(Value::Tensor(Box::new(float(5.0)))));
    assert!(freeze_error(&model).message().contains("initialisation"));
    let error = opened.freeze("__saved_model_init_op").unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented);
}

#[test]
fn constants_that_contradict_themselves_are_refused() {
    let mut other = constant("c", float(1.0));
    other.attr.insert("dtype".to_owned(), attr(Value::Type(3)));
    let mut long = float(1.0);
    long.tensor_content = vec![0; 5].into();
    for constant in [other, constant("c", long), node("c", "Const", &[])] {
        let model = Model::new(vec![constant], vec![]).signature("s", &[], &["c:0"]);
        assert_eq!(freeze_error(&model).code(), Code::InvalidArgument);
    }
}

#[test]
fn what_is_referred_to_must_be_there() {
    let body = function("f", &["a"], &[("y", "gone:y:0")], vec![]);
    let nodes = vec![placeholder("x"), call("run", "f", &["x"]), call("lost", "g", &["x"])];
    let model = Model::new(nodes, vec![body])
        .signature("inner", &["x:0"], &["run:0"])
        .signature("function", &["x:0"], &["lost:0"])
        .signature("fetch", &["x:0"], &["nowhere:0"])
        .signature("feed", &["nowhere:0"], &["x:0"]);
    let opened = model.open().unwrap();
    for name in ["inner", "function", "fetch", "feed"] {
        let error = opened.freeze(name).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{name}");
        assert!(error.message().starts_with(&format!("signature {name}: ")), "{error}");
    }
    assert_eq!(opened.freeze("none").unwrap_err().code(), Code::NotFound);
    let twice = Model::new(vec![placeholder("x"), placeholder("x")], vec![]);
    assert_eq!(twice.open().unwrap_err().code(), Code::InvalidArgument);
}

#[test]
fn checks_are_dropped_and_listed() {
    let nodes = vec![
        placeholder("x"),
        node("sane", "CheckNumerics", &["x"]),
        node("assert", "Assert", &["x", "x"]),
        node("y", "Neg", &["sane", "^assert"]),
    ];
    let model = Model::new(nodes, vec![]).signature("s", &["x:0"], &["y:0"]);
    let mut frozen = model.open().unwrap().freeze("s").unwrap();
    assert_eq!(lines(&frozen.nodes), ["y Neg x:0"]);
    let mut checks = lines(&frozen.checks);
    checks.sort();
    assert_eq!(checks, ["assert Assert x:0", "sane CheckNumerics x:0"]);
    frozen.dropped_checks.sort();
    assert_eq!(frozen.dropped_checks, ["assert", "sane"]);
}

#[test]
fn a_check_of_constants_that_holds_is_none() {
    let whole = |value: i32| TensorProto { dtype: 3, int_val: vec![value], ..float(0.0) };
    let none = TensorProto {
        tensor_shape: Some(TensorShapeProto {
            dim: vec![tensor_shape_proto::Dim { size: 0, name: String::new() }],
            unknown_rank: false,
        }),
        ..TensorProto { dtype: 3, ..TensorProto::default() }
    };
    let checks_of = |left: TensorProto, right: TensorProto| {
        let nodes = vec![
            placeholder("x"),
            constant("left", left),
            constant("right", right),
            constant("axes", none.clone()),
            node("equal", "Equal", &["left", "right"]),
            node("all", "All", &["equal", "axes"]),
            node("assert", "Assert", &["all", "left"]),
            node("y", "Neg", &["x", "^assert"]),
        ];
        let model = Model::new(nodes, vec![]).signature("s", &["x:0"], &["y:0"]);
        model.open().unwrap().freeze("s").unwrap().dropped_checks
    };
    assert!(checks_of(whole(2), whole(2)).is_empty());
    assert_eq!(checks_of(whole(2), whole(3)), ["assert"]);
    // Of floats nothing is proven.
    assert_eq!(checks_of(float(2.0), float(2.0)), ["assert"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn graphs_of_chance_never_panic(
        wiring in prop::collection::vec((0usize..10, 0usize..8, 0usize..8, 0usize..3), 1..8),
    ) {
        const OPS: [&str; 10] = [
            "Neg", "Identity", "Switch", "Merge", "NextIteration", "VarHandleOp", "ReadVariableOp",
            "AssignVariableOp", "StatefulPartitionedCall", "f",
        ];
        let make = |inside: bool| wiring.iter().enumerate().map(|(at, &(op, a, b, form))| {
            let name = |i: usize| match (form, inside) {
                (0, true) => format!("n{i}:output:0"),
                (1, true) => "a".to_owned(),
                (2, _) => format!("^n{i}"),
                (form, _) => format!("n{i}:{form}"),
            };
            let node = node(&format!("n{at}"), OPS[op], &[&name(a), &name(b)]);
            let node = with(node, "f", function_name(if at % 2 == 0 { "f" } else { "g" }));
            with(node, "Tout", types(&[F32, F32]))
        }).collect::<Vec<_>>();
        let f = function("f", &["a", "b"], &[("y", "n0:output:0"), ("z", "a")], make(true));
        let g = function("g", &["a", "b"], &[("y", "b"), ("z", "n0:resource:0")], vec![
            node("n0", "VarHandleOp", &[]),
        ]);
        let model = Model::new(make(false), vec![f, g]).signature("s", &["n1:0"], &["n0:0", "n0:1"]);
        if let Ok(opened) = model.open() {
            let _ = opened.freeze("s");
            let _ = opened.operators("s");
        }
    }

    #[test]
    fn garbage_is_no_model(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = open_bytes(&bytes);
    }
}

#[test]
fn bodies_are_frozen_where_they_are_called() {
    let variable = with(node("v", "VarHandleOp", &[]), "dtype", Value::Type(F32));
    let assigned = node("init", "AssignVariableOp", &["v", "two"]);
    // Each branch reads the variable that it is handed, and one calls another function for it.
    let read = |name: &str, from: &str| {
        with(node(name, "ReadVariableOp", &[from]), "dtype", Value::Type(F32))
    };
    let then = function(
        "then",
        &["a", "handle"],
        &[("y", "sum:z:0")],
        vec![read("r", "handle"), node("sum", "AddV2", &["a", "r:value:0"])],
    );
    let inner = function("inner", &["h"], &[("y", "r:value:0")], vec![read("r", "h")]);
    let other = function(
        "other",
        &["a", "handle"],
        &[("y", "call:output:0")],
        vec![call("call", "inner", &["handle"])],
    );
    let choose = with(
        with(node("if", "If", &["c", "x", "v"]), "then_branch", function_name("then")),
        "else_branch",
        function_name("other"),
    );
    let nodes = vec![
        placeholder("x"),
        placeholder("c"),
        constant("two", float(2.0)),
        variable,
        assigned,
        with(choose, "Tout", types(&[F32])),
    ];
    let mut model = Model::new(nodes, vec![then, inner, other])
        .signature("s", &["x:0", "c:0"], &["if:0"])
        .signature("__saved_model_init_op", &[], &["init"]);
    let init = model.meta.signature_def.get_mut("__saved_model_init_op").unwrap();
    let mut info = init.outputs.remove("init").unwrap();
    info.dtype = 0;
    init.outputs.insert("__saved_model_init_op".to_owned(), info);
    let frozen = model.open().unwrap().freeze("s").unwrap();
    assert_eq!((frozen.stateful, frozen.unfrozen), (None, None));
    assert_eq!(frozen.bodies.len(), 2);
    for body in &frozen.bodies {
        assert_eq!(body.node, "if");
        assert_eq!(body.arguments.len(), 2);
        let constants: Vec<_> = body.nodes.iter().filter(|node| node.op == "Const").collect();
        assert_eq!(constants.len(), 1, "{body:?}");
        assert!(body.nodes.iter().all(|node| node.op != "ReadVariableOp"));
    }
    let other = frozen.bodies.iter().find(|body| body.attribute == "else_branch").unwrap();
    assert_eq!(other.results, [format!("{}:0", other.nodes[0].name)]);
}

#[test]
fn bodies_that_cannot_be_frozen_spoil_nothing_else() {
    let body = function("f", &["a"], &[("y", "n:no_such:0")], vec![node("n", "Neg", &["a"])]);
    let looped = with(node("loop", "While", &["x"]), "body", function_name("f"));
    let nodes = vec![placeholder("x"), with(looped, "cond", function_name("f"))];
    let model = Model::new(nodes, vec![body]).signature("s", &["x:0"], &["loop:0"]);
    let frozen = model.open().unwrap().freeze("s").unwrap();
    assert!(frozen.unfrozen.is_some());
    assert!(frozen.bodies.is_empty());
    // Calls of itself through loops end at a bound.
    let again = with(
        with(node("n", "While", &["a"]), "body", function_name("f")),
        "cond",
        function_name("f"),
    );
    let body = function("f", &["a"], &[("y", "n:output:0")], vec![with(again, "T", types(&[F32]))]);
    let looped = with(node("loop", "While", &["x"]), "body", function_name("f"));
    let looped = with(with(looped, "cond", function_name("f")), "T", types(&[F32]));
    let model = Model::new(vec![placeholder("x"), looped], vec![body]).signature(
        "s",
        &["x:0"],
        &["loop:0"],
    );
    let frozen = model.open().unwrap().freeze("s").unwrap();
    assert_eq!(frozen.unfrozen.unwrap().code(), Code::ResourceExhausted);
}

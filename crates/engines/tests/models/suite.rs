//! The suite that every engine passes, and models that only the embedded engine's seams concern.

use std::path::Path;

use vesta_engines::EmbeddedEngine;
use vesta_model::{Code, DType, Engine, Session, Shape, Tensor};
use vesta_protos::tensorflow::attr_value::Value;
use vesta_testkit::{Given, SuiteModel, SuiteModels, engine_suite};
use vesta_worker::{ChildOptions, IsolatedEngine, WorkerCommand, WorkerOptions, serve_child};

use crate::shared_data::{call, floats, folder, load, output, request};
use crate::written::{self, node, with, write};

fn given(name: &str, row_shape: &[usize]) -> Given {
    match folder() {
        Some(shared) => {
            let artifact = shared.join("golden/models").join(name);
            Given::Model(SuiteModel::new(request(&artifact), row_shape))
        }
        None => Given::Missing("the shared models".to_owned()),
    }
}

/// Two float inputs, their difference and their sum.
fn sums(folder: &Path) {
    let float = DType::F32;
    write(
        folder,
        vec![
            node("Placeholder", "a", &[], float),
            node("Placeholder", "b", &[], float),
            node("Sub", "less", &["a", "b"], float),
            node("AddV2", "more", &["a", "b"], float),
        ],
        &[(
            "serving_default",
            written::signature(
                &[("a", "a:0", float, &[-1]), ("b", "b:0", float, &[-1])],
                &[("difference", "less:0", float, &[-1]), ("sum", "more:0", float, &[-1])],
            ),
        )],
    );
}

/// Half plus two by way of many products of a large matrix with itself, of which nothing stays:
/// each row of the matrix sums to one, so its products are itself, and they are taken times next to
/// nothing (times zero, TensorFlow would leave them out).
pub(crate) fn slow_half_plus_two(folder: &Path) {
    const SIDE: usize = 512;
    const PRODUCTS: usize = 200;
    let float = DType::F32;
    let side = i64::try_from(SIDE).unwrap();
    let matrix = vec![1.0 / SIDE as f32; SIDE * SIDE];
    let mut nodes = vec![
        node("Placeholder", "x", &[], float),
        written::floats("half", &[], &[0.5]),
        written::floats("two", &[], &[2.0]),
        written::floats("tiny", &[], &[1e-30]),
        written::integers("first", &[1], &[0]),
        written::integers("both", &[2], &[0, 1]),
        written::floats("matrix", &[side, side], &matrix),
        node("Sum", "all", &["x", "first"], float),
        node("Mul", "none", &["all", "tiny"], float),
        node("AddV2", "product0", &["matrix", "none"], float),
    ];
    for index in 1..=PRODUCTS {
        let last = format!("product{}", index - 1);
        nodes.push(node("MatMul", &format!("product{index}"), &[&last, &last], float));
    }
    nodes.extend([
        node("Sum", "whole", &[&format!("product{PRODUCTS}"), "both"], float),
        node("Mul", "nothing", &["whole", "tiny"], float),
        node("Mul", "halved", &["x", "half"], float),
        node("AddV2", "sum", &["halved", "two"], float),
        node("AddV2", "y", &["sum", "nothing"], float),
    ]);
    let signature =
        written::signature(&[("x", "x:0", float, &[-1])], &[("y", "y:0", float, &[-1])]);
    write(folder, nodes, &[("serving_default", signature)]);
}

/// A counter that must be refused.
pub(crate) fn refused_counter() -> Given {
    match folder() {
        Some(shared) => {
            Given::Refused(request(&shared.join("tfs-testdata/saved_model_counter/00000123")))
        }
        None => Given::Missing("the shared models".to_owned()),
    }
}

/// A SavedModel that gives strings back, which has no translation.
pub(crate) fn refused_strings() -> Given {
    match folder() {
        Some(shared) => Given::Refused(request(&shared.join("golden/models/id_string/1"))),
        None => Given::Missing("the shared models".to_owned()),
    }
}

/// Holds an engine to the suite.
pub(crate) fn conforms(engine: &dyn Engine, counter: Given) {
    conforms_with(engine, counter, given("id_string/1", &[]));
}

/// The same, where strings may be refused.
pub(crate) fn conforms_with(engine: &dyn Engine, counter: Given, string_identity: Given) {
    let folders: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let [sum, slow, damaged] = [0, 1, 2].map(|index| folders[index].path());
    sums(sum);
    slow_half_plus_two(slow);
    std::fs::write(damaged.join("saved_model.pb"), b"\xff\xffnot a model").unwrap();
    let model = |folder| Given::Model(SuiteModel::new(request(folder), &[]));
    let report = engine_suite(
        engine,
        &SuiteModels {
            half_plus_two: given("half_plus_two/123", &[]),
            slow_half_plus_two: model(slow),
            string_identity,
            sum_and_difference: model(sum),
            counter,
            damaged: model(damaged),
        },
    );
    eprintln!("{}", report.text());
    report.verdict().unwrap();
}

#[test]
fn the_engine_conforms() {
    conforms(&EmbeddedEngine, refused_counter());
}

/// Set in the process that is to be a worker.
pub(crate) const WORKER: &str = "VESTA_TEST_IS_WORKER";

#[test]
fn the_engine_behind_a_worker_conforms() {
    let command = WorkerCommand::new(std::env::current_exe().unwrap())
        .arg("--exact")
        .arg("suite::a_process_that_is_told_to_is_a_worker")
        .env(WORKER, "1");
    let engine = IsolatedEngine::new(EmbeddedEngine.identity(), command, WorkerOptions::default());
    conforms(&engine, refused_counter());
}

/// The test above starts this program anew, for this test alone, to get a worker. Otherwise standard
/// input is no socket, and the same call must say so.
#[test]
fn a_process_that_is_told_to_is_a_worker() {
    let served = serve_child(&EmbeddedEngine, &ChildOptions::default());
    if std::env::var_os(WORKER).is_some() {
        served.unwrap();
    } else {
        assert_eq!(served.unwrap_err().code(), Code::FailedPrecondition);
    }
}

/// Two layers, with what their names begin with.
fn network(prefix: &str, input: &str, weights: &str) -> Vec<vesta_protos::tensorflow::NodeDef> {
    let named = |name: &str| format!("{prefix}{name}");
    vec![
        node("MatMul", &named("product"), &[input, weights], DType::F32),
        node("Relu", &named("hidden"), &[&named("product")], DType::F32),
    ]
}

#[test]
fn signatures_that_share_a_network_agree_and_may_feed_its_middle() {
    let model = tempfile::tempdir().unwrap();
    let float = DType::F32;
    let mut nodes = vec![
        node("Placeholder", "x", &[], float),
        node("Placeholder", "other", &[], float),
        written::floats("weights", &[2, 2], &[1.0, -1.0, 2.0, 0.5]),
    ];
    nodes.extend(network("first/", "x", "weights"));
    nodes.extend(network("second/", "other", "weights"));
    nodes.push(node("MatMul", "last", &["first/hidden", "weights"], float));
    let rows: &[i64] = &[-1, 2];
    write(
        model.path(),
        nodes,
        &[
            (
                "whole",
                written::signature(&[("x", "x:0", float, rows)], &[("y", "last:0", float, rows)]),
            ),
            (
                "copy",
                written::signature(
                    &[("x", "other:0", float, rows)],
                    &[("y", "second/hidden:0", float, rows)],
                ),
            ),
            (
                "tail",
                written::signature(
                    &[("h", "first/hidden:0", float, rows)],
                    &[("y", "last:0", float, rows)],
                ),
            ),
        ],
    );
    let session = load(model.path()).unwrap();
    let x = floats(&[2, 2], &[1.0, 1.0, -1.0, 3.0]);
    // x · weights = [3, -0.5], [5, 2.5]; the negative one is cut.
    let hidden = floats(&[2, 2], &[3.0, 0.0, 5.0, 2.5]);
    let copy = call(&*session, "copy", std::slice::from_ref(&x)).unwrap();
    assert_eq!(copy[0], hidden);
    let want = floats(&[2, 2], &[3.0, -3.0, 10.0, -3.75]);
    assert_eq!(call(&*session, "whole", std::slice::from_ref(&x)).unwrap()[0], want);
    assert_eq!(call(&*session, "tail", &[hidden]).unwrap()[0], want);
    // In turn, so that a plan kept from one signature never serves another.
    assert_eq!(call(&*session, "whole", std::slice::from_ref(&x)).unwrap()[0], want);
    let error = call(&*session, "whole", &[floats(&[2, 3], &[0.0; 6])]).unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
}

/// Activations lose NaN where inputs are numbers within bounds alone.
#[test]
fn no_number_stays_none_behind_an_activation() {
    let float = DType::F32;
    let folder = tempfile::tempdir().unwrap();
    let identity: Vec<f32> = (0..16).map(|at| if at % 5 == 0 { 1.0 } else { 0.0 }).collect();
    let nodes = vec![
        node("Placeholder", "x", &[], float),
        written::floats("w", &[4, 4], &identity),
        node("MatMul", "product", &["x", "w"], float),
        node("Relu6", "six", &["product"], float),
        node("Relu", "above", &["product"], float),
    ];
    let rows = &[-1i64, 4][..];
    let outputs = [("six", "six:0", float, rows), ("above", "above:0", float, rows)];
    let signature = written::signature(&[("x", "x:0", float, rows)], &outputs);
    write(folder.path(), nodes, &[("serving_default", signature)]);
    let session = EmbeddedEngine.load(&request(folder.path())).unwrap();
    let of = |values: [f32; 4]| -> Vec<Vec<f32>> {
        let x = floats(&[1, 4], &values);
        let given = call(&*session, "serving_default", &[x]).unwrap();
        given.iter().map(|tensor| tensor.to_vec().unwrap()).collect()
    };
    // Outputs come by name.
    assert_eq!(of([-3.0, 2.0, 7.0, 65536.0]), [[0.0, 2.0, 7.0, 65536.0], [0.0, 2.0, 6.0, 6.0]]);
    assert_eq!(of([-3.0, 2.0, 7.0, 1e30]), [[0.0, 2.0, 7.0, 1e30], [0.0, 2.0, 6.0, 6.0]]);
    assert!(of([f32::NAN, 0.0, 0.0, 0.0]).concat().iter().all(|value| value.is_nan()));
}

#[test]
fn numeric_parts_and_host_parts_alternate() {
    let model = tempfile::tempdir().unwrap();
    let (float, wide) = (DType::F32, DType::I64);
    let rows: &[i64] = &[-1, 2];
    let gather = [("Tparams", float), ("Tindices", wide), ("Taxis", DType::I32)];
    let gather = gather
        .iter()
        .fold(node("GatherV2", "row", &["table", "best", "zero"], float), |node, (name, dtype)| {
            with(node, name, Value::Type(dtype.number()))
        });
    write(
        model.path(),
        vec![
            node("Placeholder", "x", &[], float),
            written::floats("weights", &[2, 2], &[1.0, -1.0, 2.0, 0.5]),
            written::floats("table", &[2, 2], &[10.0, 20.0, 30.0, 40.0]),
            written::integers("zero", &[], &[0]),
            written::integers("one", &[], &[1]),
            node("MatMul", "product", &["x", "weights"], float),
            with(
                node("ArgMax", "best", &["product", "one"], float),
                "output_type",
                Value::Type(wide.number()),
            ),
            gather,
            node("MatMul", "again", &["row", "weights"], float),
        ],
        &[(
            "serving_default",
            written::signature(
                &[("x", "x:0", float, rows)],
                &[("best", "best:0", wide, &[-1]), ("y", "again:0", float, rows)],
            ),
        )],
    );
    let session = load(model.path()).unwrap();
    // Products [3, -0.5] and [-4, 2]; a tie in the third row, which the first column wins.
    let x = floats(&[3, 2], &[1.0, 1.0, -2.0, -1.0, 0.0, 0.0]);
    let out = call(&*session, "serving_default", &[x]).unwrap();
    let best = output(&*session, "serving_default", &out, "best");
    assert_eq!(best.to_vec::<i64>().unwrap(), [0, 1, 0]);
    let y = output(&*session, "serving_default", &out, "y");
    // Rows of the table times the weights.
    assert_eq!(*y, floats(&[3, 2], &[50.0, 0.0, 110.0, -10.0, 50.0, 0.0]));
}

#[test]
fn a_check_that_would_not_be_made_is_refused_by_name() {
    let model = tempfile::tempdir().unwrap();
    let float = DType::F32;
    write(
        model.path(),
        vec![
            node("Placeholder", "x", &[], float),
            node("CheckNumerics", "finite", &["x"], float),
            node("Neg", "y", &["finite"], float),
        ],
        &[(
            "serving_default",
            written::signature(&[("x", "x:0", float, &[-1])], &[("y", "y:0", float, &[-1])]),
        )],
    );
    let error = load(model.path()).unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented);
    assert!(error.message().contains("checks that are not made (finite)"), "{error}");
}

#[test]
fn a_double_network_is_refused_with_what_to_do() {
    let model = tempfile::tempdir().unwrap();
    let double = DType::F64;
    write(
        model.path(),
        vec![node("Placeholder", "x", &[], double), node("MatMul", "square", &["x", "x"], double)],
        &[(
            "serving_default",
            written::signature(
                &[("x", "x:0", double, &[-1, 2])],
                &[("y", "square:0", double, &[-1, 2])],
            ),
        )],
    );
    let error = load(model.path()).unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented);
    assert_eq!(
        error.message(),
        "the embedded engine cannot run signature serving_default of model m version 1: it has no \
         MatMul (double) at square; install TensorFlow with `vesta engine install tensorflow`"
    );
}

#[test]
fn a_size_out_of_a_request_keeps_a_model_out_of_the_servers_process() {
    let model = tempfile::tempdir().unwrap();
    write(
        model.path(),
        vec![
            node("Placeholder", "x", &[], DType::F32),
            node("Placeholder", "times", &[], DType::I32),
            with(
                node("Tile", "many", &["x", "times"], DType::F32),
                "Tmultiples",
                Value::Type(DType::I32.number()),
            ),
        ],
        &[(
            "serving_default",
            written::signature(
                &[("times", "times:0", DType::I32, &[1]), ("x", "x:0", DType::F32, &[-1])],
                &[("y", "many:0", DType::F32, &[-1])],
            ),
        )],
    );
    let session = load(model.path()).unwrap();
    let why = session.inline_verdict().unwrap_err();
    assert!(why.contains("many (Tile)"), "{why}");
    let times = |times: i32| Tensor::of(Shape::vector(1), &[times]).unwrap();
    let x = floats(&[2], &[1.0, 2.0]);
    let out = call(&*session, "serving_default", &[times(2), x.clone()]).unwrap();
    assert_eq!(out[0], floats(&[4], &[1.0, 2.0, 1.0, 2.0]));
    let error = call(&*session, "serving_default", &[times(i32::MAX), x]).unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
}

#[test]
fn one_session_serves_many_threads() {
    let Some(shared) = folder() else { return };
    let session = load(&shared.join("golden/models/half_plus_two/123")).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let session = &session;
            scope.spawn(move || {
                for round in 0..50 {
                    let x = (thread * 100 + round) as f32;
                    let out = call(&**session, "serving_default", &[floats(&[1], &[x])]).unwrap();
                    assert_eq!(out[0], floats(&[1], &[x / 2.0 + 2.0]));
                }
            });
        }
    });
    assert!(session.description().signatures.contains_key("serving_default"));
}

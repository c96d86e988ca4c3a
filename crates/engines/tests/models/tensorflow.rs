//! TensorFlow as an engine: the common suite, inline and behind a worker, and what it alone can do.

use std::path::Path;
use std::time::{Duration, Instant};

use vesta_engines::{EngineName, TensorFlowEngine, TensorFlowOptions};
use vesta_model::{Code, DType, Engine, Tensor};
use vesta_protos::tensorflow::TensorProto;
use vesta_protos::tensorflow::attr_value::Value;
use vesta_testkit::{Given, SuiteModel};

use crate::native::{installed, isolated, serve_as_worker};
use crate::shared_data::{call, floats, folder, request};
use crate::suite::conforms;
use crate::written::{node, shape, signature, with, write};

fn inline() -> Option<TensorFlowEngine> {
    let installed = installed(EngineName::TensorFlow)?;
    Some(TensorFlowEngine::open(&installed.folder, TensorFlowOptions::default()).unwrap())
}

/// A node without attributes.
fn bare(op: &str, name: &str, inputs: &[&str]) -> vesta_protos::tensorflow::NodeDef {
    let mut node = node(op, name, inputs, DType::F32);
    node.attr.clear();
    node
}

/// An int64 constant.
fn long(name: &str, value: i64) -> vesta_protos::tensorflow::NodeDef {
    let tensor = TensorProto {
        dtype: DType::I64.number(),
        tensor_shape: Some(shape(&[])),
        int64_val: vec![value],
        ..TensorProto::default()
    };
    with(node("Const", name, &[], DType::I64), "value", Value::Tensor(Box::new(tensor)))
}

/// A variable that starts at 0 and grows by 1 with each run.
fn counter(folder: &Path) {
    let long_type = || Value::Type(DType::I64.number());
    let typed = |node| with(node, "dtype", long_type());
    let mut read = typed(bare("ReadVariableOp", "count", &["v"]));
    read.input.push("^grow".to_owned());
    let mut init = signature(&[], &[("__saved_model_init_op", "init", DType::Invalid, &[])]);
    init.method_name.clear();
    write(
        folder,
        vec![
            with(typed(bare("VarHandleOp", "v", &[])), "shape", Value::Shape(shape(&[]))),
            long("zero", 0),
            long("one", 1),
            typed(bare("AssignVariableOp", "init", &["v", "zero"])),
            typed(bare("AssignAddVariableOp", "grow", &["v", "one"])),
            read,
        ],
        &[
            ("serving_default", signature(&[], &[("count", "count:0", DType::I64, &[])])),
            ("__saved_model_init_op", init),
        ],
    );
}

fn conforms_with_state(engine: &dyn Engine) {
    let state = tempfile::tempdir().unwrap();
    counter(state.path());
    conforms(engine, Given::Model(SuiteModel::new(request(state.path()), &[])));
}

#[test]
fn tensorflow_conforms() {
    let Some(engine) = inline() else { return };
    conforms_with_state(&engine);
}

#[test]
fn tensorflow_behind_a_worker_conforms() {
    let worker = "tensorflow::a_process_that_is_told_to_is_a_tensorflow_worker";
    let Some(engine) = isolated(EngineName::TensorFlow, worker) else { return };
    conforms_with_state(&engine);
}

/// The test above starts this program anew, for this test alone, to get a worker.
#[test]
fn a_process_that_is_told_to_is_a_tensorflow_worker() {
    let Some(engine) = inline() else { return };
    serve_as_worker(&engine);
}

#[test]
fn interior_tensors_are_fed_with_any_shape() {
    let (Some(engine), Some(shared)) = (inline(), folder()) else { return };
    let model = shared.join("tfs-testdata/saved_model_half_plus_two_cpu/00000123");
    let session = engine.load(&request(&model)).unwrap();
    for dims in [&[][..], &[3], &[2, 2], &[0], &[2, 1]] {
        let count = dims.iter().product::<usize>();
        let values: Vec<f32> = (0..count).map(|index| index as f32).collect();
        let want: Vec<f32> = values.iter().map(|x| x / 2.0 + 2.0).collect();
        let given = call(&*session, "serving_default", &[floats(dims, &values)]).unwrap();
        assert_eq!(given[0], floats(dims, &want));
    }
}

#[test]
fn a_run_ends_at_its_deadline() {
    let Some(engine) = inline() else { return };
    let model = tempfile::tempdir().unwrap();
    crate::suite::slow_half_plus_two(model.path());
    let session = engine.load(&request(model.path())).unwrap();
    let slow = request_of(&*session);
    let x = || vec![floats(&[1], &[1.0])];
    // The first run makes ready; the second tells how slow it is here.
    session.run_over(&slow, x(), None).unwrap();
    let whole = Instant::now();
    session.run_over(&slow, x(), None).unwrap();
    let started = Instant::now();
    let deadline = Some(started + whole.elapsed() / 5);
    let status = session.run_over(&slow, x(), deadline).unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(status.message(), "Timed out waiting for notification");
    // It stops between two operators, not in one.
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

fn request_of(session: &dyn vesta_model::Session) -> vesta_model::RunRequest {
    assert!(session.description().signatures.contains_key("serving_default"));
    vesta_model::RunRequest {
        signature: "serving_default".to_owned(),
        inputs: vec![vesta_model::InputLayout {
            shape: vesta_model::Shape::vector(1),
            string_bytes: 0,
        }],
        outputs: vec![0],
    }
}

/// Clients may send any byte as a boolean; C++ may not.
#[test]
fn a_boolean_of_another_byte_than_0_and_1_is_true() {
    let Some(engine) = inline() else { return };
    let model = tempfile::tempdir().unwrap();
    write(
        model.path(),
        vec![node("Placeholder", "x", &[], DType::Bool), bare("LogicalNot", "y", &["x"])],
        &[(
            "serving_default",
            signature(&[("x", "x:0", DType::Bool, &[-1])], &[("y", "y:0", DType::Bool, &[-1])]),
        )],
    );
    let session = engine.load(&request(model.path())).unwrap();
    let shape = vesta_model::Shape::vector(4);
    let x = Tensor::copied(DType::Bool, shape, &[0, 1, 2, 255]).unwrap();
    let y = call(&*session, "serving_default", &[x]).unwrap();
    assert_eq!(y[0].bytes(), [1, 0, 0, 0]);
}

#[test]
fn what_cannot_leave_tensorflow_is_refused_and_the_rest_of_the_model_serves() {
    let Some(engine) = inline() else { return };
    let model = tempfile::tempdir().unwrap();
    let float = DType::F32;
    write(
        model.path(),
        vec![
            node("Placeholder", "x", &[], float),
            node("Neg", "y", &["x"], float),
            with(
                with(bare("VarHandleOp", "v", &[]), "dtype", Value::Type(float.number())),
                "shape",
                Value::Shape(shape(&[])),
            ),
        ],
        &[
            (
                "serving_default",
                signature(&[("x", "x:0", float, &[-1])], &[("y", "y:0", float, &[-1])]),
            ),
            ("handle", signature(&[], &[("v", "v:0", DType::Resource, &[])])),
            ("absent", signature(&[("x", "z:0", float, &[-1])], &[("y", "y:0", float, &[-1])])),
        ],
    );
    let session = engine.load(&request(model.path())).unwrap();
    let x = floats(&[1], &[1.0]);
    let given = call(&*session, "serving_default", std::slice::from_ref(&x)).unwrap();
    assert_eq!(given[0], floats(&[1], &[-1.0]));
    let status = call(&*session, "handle", &[]).unwrap_err();
    assert!(status.message().contains("cannot leave TensorFlow"), "{status}");
    let status = call(&*session, "absent", &[x]).unwrap_err();
    assert_eq!(
        status.message(),
        "Tensor z:0, specified in either feed_devices or fetch_devices was not found in the Graph"
    );
}

#[test]
fn a_folder_without_the_library_says_what_to_do() {
    let empty = tempfile::tempdir().unwrap();
    let opened = TensorFlowEngine::open(empty.path(), TensorFlowOptions::default());
    let status = opened.err().unwrap();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("vesta engine install tensorflow"), "{status}");
    // Nor is a file of that name that is no library.
    for file in TensorFlowEngine::FILES {
        std::fs::write(empty.path().join(file), b"no library").unwrap();
    }
    let opened = TensorFlowEngine::open(empty.path(), TensorFlowOptions::default());
    assert!(opened.err().unwrap().message().contains("cannot be opened"));
}

#[test]
fn a_library_of_no_operators_is_refused_by_name() {
    let Some(installed) = installed(EngineName::TensorFlow) else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ops.so");
    std::fs::write(&file, b"no library").unwrap();
    let options = TensorFlowOptions { op_libraries: vec![file], ..TensorFlowOptions::default() };
    let status = TensorFlowEngine::open(&installed.folder, options).err().unwrap();
    assert!(status.message().contains("ops.so cannot be opened by TensorFlow"), "{status}");
}

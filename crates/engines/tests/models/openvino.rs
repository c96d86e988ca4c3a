//! OpenVINO as an engine: the common suite on IRs, ONNX files and SavedModels, inline and behind a worker,
//! and what it refuses to compute with fewer bits than it says.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vesta_engines::{EngineName, Installed, IrModel, OpenVinoEngine, OpenVinoOptions};
use vesta_model::{
    Code, DType, Engine, InputLayout, PartialShape, RunRequest, Session, Shape, Status, Tensor,
};
use vesta_testkit::Given;

use crate::native::{Kept, installed, isolated, serve, serve_as_worker};
use crate::shared_data::{floats, output, request};
use crate::suite;
use crate::written::{self, node, write};

const IRS: Kept = Kept { folder: "ir", file: "model.xml" };
const ONNX: Kept = Kept { folder: "onnx", file: "model.onnx" };

fn inline() -> Option<OpenVinoEngine> {
    let Installed { folder, version, .. } = installed(EngineName::OpenVino)?;
    Some(OpenVinoEngine::open(&folder, &version, OpenVinoOptions::default()).unwrap())
}

/// The test above starts this program anew, for this test alone, to get a worker.
#[test]
fn a_process_that_is_told_to_is_an_openvino_worker() {
    let Some(engine) = inline() else { return };
    serve_as_worker(&engine);
}

/// A version's folder with one of the kept IRs in it.
fn version(name: &str) -> tempfile::TempDir {
    IRS.version(name)
}

fn load(engine: &dyn Engine, name: &str) -> Arc<dyn Session> {
    IRS.load(engine, name)
}

fn refusal(engine: &dyn Engine, folder: &Path) -> Status {
    let Err(status) = engine.load(&request(folder)) else {
        panic!("{} was taken", folder.display())
    };
    status
}

/// OpenVINO has no operators for strings.
fn conforms_on_irs(engine: &dyn Engine) {
    let (_folder, strings) = ONNX.strings();
    IRS.conform(
        engine,
        Given::Refused(strings.load),
        suite::refused_counter(),
        b"<net><layers></net>",
    );
}

fn conforms_on_onnx_files(engine: &dyn Engine) {
    let (_folder, strings) = ONNX.strings();
    ONNX.conform(
        engine,
        Given::Refused(strings.load),
        suite::refused_counter(),
        b"\xff\xffno model",
    );
}

fn conforms_on_saved_models(engine: &dyn Engine) {
    suite::conforms_with(engine, suite::refused_counter(), suite::refused_strings());
}

#[test]
fn openvino_conforms_on_irs() {
    let Some(engine) = inline() else { return };
    conforms_on_irs(&engine);
}

#[test]
fn openvino_conforms_on_onnx_files() {
    let Some(engine) = inline() else { return };
    conforms_on_onnx_files(&engine);
}

#[test]
fn openvino_conforms_on_saved_models() {
    let Some(engine) = inline() else { return };
    conforms_on_saved_models(&engine);
}

#[test]
fn openvino_behind_a_worker_conforms() {
    let worker = "openvino::a_process_that_is_told_to_is_an_openvino_worker";
    let Some(engine) = isolated(EngineName::OpenVino, worker) else { return };
    conforms_on_irs(&engine);
    conforms_on_saved_models(&engine);
}

#[test]
fn an_answer_does_not_wait_for_a_run_that_is_late() {
    let Some(engine) = inline() else { return };
    let session = load(&engine, "slow_half_plus_two");
    let x = floats(&[1], &[2.0]);
    let request = RunRequest {
        signature: "serving_default".to_owned(),
        inputs: vec![InputLayout::of(&x)],
        outputs: vec![0],
    };
    let begun = Instant::now();
    let whole = session.run_over(&request, vec![x.clone()], None).unwrap();
    let whole_run = begun.elapsed();
    assert_eq!(whole, [floats(&[1], &[3.0])]);
    let begun = Instant::now();
    let deadline = Some(begun + whole_run / 10);
    let status = session.run_over(&request, vec![x.clone()], deadline).unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(begun.elapsed() < whole_run * 8 / 10, "{:?} of {whole_run:?}", begun.elapsed());
    let later = Some(Instant::now() + Duration::from_secs(100));
    assert_eq!(session.run_over(&request, vec![x], later).unwrap(), whole);
}

/// Runs of one model at the same time, of shapes that change from one to the next. OpenVINO keeps no lock
/// on what it reads when a request is made, so that none may be made beside them.
#[test]
fn runs_of_one_model_go_on_beside_each_other() {
    const THREADS: usize = 8;
    const RUNS: usize = 1000;
    let Some(engine) = inline() else { return };
    let session = load(&engine, "half_plus_two");
    let session = &*session;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                for run in 0..RUNS {
                    let rows = [1, 3, 400, 40][(thread + run) % 4];
                    let x = (thread * RUNS + run) as f32;
                    let y = serve(session, &[floats(&[rows], &vec![x; rows])]).unwrap();
                    assert_eq!(y, [floats(&[rows], &vec![x / 2.0 + 2.0; rows])]);
                }
            });
        }
    });
}

/// A run that nobody waits for any more keeps its request; others have theirs, and wait no longer than they
/// want.
#[test]
fn late_runs_take_no_more_than_their_requests() {
    let Some(engine) = inline() else { return };
    let session = load(&engine, "slow_half_plus_two");
    let x = floats(&[1], &[2.0]);
    let request = RunRequest {
        signature: "serving_default".to_owned(),
        inputs: vec![InputLayout::of(&x)],
        outputs: vec![0],
    };
    for _ in 0..20 {
        let deadline = Some(Instant::now() + Duration::from_millis(5));
        let status = session.run_over(&request, vec![x.clone()], deadline).unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    }
    assert_eq!(session.run_over(&request, vec![x], None).unwrap(), [floats(&[1], &[3.0])]);
}

#[test]
fn signatures_are_those_of_the_ir() {
    let Some(engine) = inline() else { return };
    let ends = |name: &str| {
        let session = load(&engine, name);
        let signature = &session.description().signatures["serving_default"];
        let of = |specs: &[vesta_model::TensorSpec]| -> Vec<String> {
            specs.iter().map(|own| own.alias.clone()).collect()
        };
        let input = &signature.inputs[0];
        (of(&signature.inputs), of(&signature.outputs), input.dtype, input.shape.clone())
    };
    let one = |name: &str| vec![name.to_owned()];
    let open = PartialShape::Ranked(vec![None]);
    assert_eq!(ends("half_plus_two"), (one("x"), one("y"), DType::F32, open.clone()));
    assert_eq!(ends("integers"), (one("i"), one("y"), DType::I64, open));
    let fixed = PartialShape::Ranked(vec![Some(1), Some(3)]);
    assert_eq!(ends("fixed_batch").3, fixed);
    assert_eq!(ends("sum_and_difference").0, ["a", "b"]);
}

#[test]
fn shapes_are_what_the_ir_declares() {
    let Some(engine) = inline() else { return };
    let session = load(&engine, "fixed_batch");
    let y = serve(&*session, &[floats(&[1, 3], &[0.0, 2.0, 4.0])]).unwrap();
    assert_eq!(y, [floats(&[1, 3], &[2.0, 3.0, 4.0])]);
    let status = serve(&*session, &[floats(&[2, 3], &[0.0; 6])]).unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("shape [2,3], but the model declares [1,3]"), "{status}");
}

#[test]
fn what_would_be_computed_with_fewer_bits_is_refused() {
    let Some(engine) = inline() else { return };
    let status = refusal(&engine, version("doubles").path());
    assert_eq!(status.code(), Code::Unimplemented, "{status}");
    assert!(status.message().contains("input `d` of model.xml"), "{status}");
    let status = refusal(&engine, ONNX.version("string_identity").path());
    assert!(status.message().contains("serve the model by another engine"), "{status}");
    let session = load(&engine, "integers");
    let of = |value: i64| Tensor::of(Shape::vector(1), &[value]).unwrap();
    assert_eq!(serve(&*session, &[of(1 << 30)]).unwrap(), [of((1 << 30) + 1)]);
    let status = serve(&*session, &[of(1 << 40)]).unwrap_err();
    assert!(status.message().contains("more than 32 bits"), "{status}");
}

#[test]
fn ends_without_a_name_are_called_by_their_number() {
    let Some(engine) = inline() else { return };
    let folder = version("half_plus_two");
    let xml = folder.path().join("model.xml");
    let text = std::fs::read_to_string(&xml).unwrap();
    let nameless = [" names=\"x\"", " names=\"y\"", " output_names=\"y\""]
        .iter()
        .fold(text.clone(), |text, name| text.replace(name, ""));
    assert_ne!(text, nameless);
    std::fs::write(&xml, nameless).unwrap();
    let session = engine.load(&request(folder.path())).unwrap();
    let signature = session.description().signatures["serving_default"].clone();
    let aliases = (&*signature.inputs[0].alias, &*signature.outputs[0].alias);
    assert_eq!(aliases, ("input_0", "output_0"));
    assert_eq!(serve(&*session, &[floats(&[1], &[2.0])]).unwrap(), [floats(&[1], &[3.0])]);
}

/// Ends stand in the order of the file or the signature, whichever is asked for.
#[test]
fn outputs_are_not_mixed_up() {
    let Some(engine) = inline() else { return };
    for folder in [version("sum_and_difference"), ONNX.version("sum_and_difference")] {
        let session = engine.load(&request(folder.path())).unwrap();
        let signature = session.description().signatures["serving_default"].clone();
        let given = [("a", 5.0), ("b", 3.0)];
        let inputs: Vec<Tensor> = signature
            .inputs
            .iter()
            .map(|spec| floats(&[1], &[given.iter().find(|(a, _)| *a == spec.alias).unwrap().1]))
            .collect();
        let outputs = serve(&*session, &inputs).unwrap();
        let of = |alias| output(&*session, "serving_default", &outputs, alias).clone();
        assert_eq!((of("sum"), of("difference")), (floats(&[1], &[8.0]), floats(&[1], &[2.0])));
    }
}

#[test]
fn of_several_irs_one_must_be_meant() {
    let Some(engine) = inline() else { return };
    let folder = tempfile::tempdir().unwrap();
    for name in ["a", "b"] {
        for ending in ["xml", "bin"] {
            let from = IRS.path("half_plus_two").with_extension(ending);
            std::fs::copy(from, folder.path().join(name).with_extension(ending)).unwrap();
        }
    }
    let status = refusal(&engine, folder.path());
    assert!(status.message().contains("call one model.xml"), "{status}");
    std::fs::remove_file(folder.path().join("b.bin")).unwrap();
    assert!(IrModel::is_alone_in(folder.path()), "an XML file without weights is no IR");
    assert!(engine.load(&request(folder.path())).is_ok());
}

/// Every shortening of an IR is an error.
#[test]
fn cut_irs_are_errors() {
    let Some(engine) = inline() else { return };
    let folder = version("sum_and_difference");
    let (xml, bin) = (folder.path().join("model.xml"), folder.path().join("model.bin"));
    let whole = std::fs::read(&xml).unwrap();
    for cut in (0..whole.len() - 10).step_by(97) {
        std::fs::write(&xml, &whole[..cut]).unwrap();
        let status = refusal(&engine, folder.path());
        assert_eq!(status.code(), Code::DataLoss, "{status}");
    }
    std::fs::write(&xml, &whole).unwrap();
    std::fs::write(&bin, b"").unwrap();
    let status = refusal(&engine, folder.path());
    assert!(status.message().contains("OpenVINO does not take model.xml"), "{status}");
}

#[test]
fn what_has_no_translation_is_refused_by_name() {
    let Some(engine) = inline() else { return };
    let folder = tempfile::tempdir().unwrap();
    let float = DType::F32;
    write(
        folder.path(),
        vec![node("Placeholder", "x", &[], float), node("MatrixInverse", "inverse", &["x"], float)],
        &[(
            "serving_default",
            written::signature(
                &[("x", "x:0", float, &[-1, -1])],
                &[("y", "inverse:0", float, &[-1, -1])],
            ),
        )],
    );
    let status = refusal(&engine, folder.path());
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains("MatrixInverse at inverse"), "{status}");
    assert!(status.message().contains("--engine=auto"), "{status}");
}

//! OpenVINO as an engine: the common suite on IRs, ONNX files and SavedModels, inline and behind a worker,
//! and what it refuses to compute with fewer bits than it says.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use vesta_engines::{EngineName, EngineStore, Installed, IrModel, OpenVinoEngine};
use vesta_model::{
    Code, DType, Engine, EngineIdentity, InputLayout, PartialShape, RunRequest, Session, Shape,
    Status, Tensor,
};
use vesta_testkit::{Given, SuiteModel, SuiteModels, engine_suite};
use vesta_worker::{ChildOptions, IsolatedEngine, WorkerCommand, WorkerOptions, serve_child};

use crate::shared_data::{call, floats, folder, output, request};
use crate::suite::{self, WORKER};
use crate::written::{self, node, write};

/// OpenVINO out of the store, or `None` with a word about it on a person's machine.
fn installed() -> Option<Installed> {
    match EngineStore::from_env().find(EngineName::OpenVino, None) {
        Ok(installed) => Some(installed),
        Err(status) => {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{status}");
            eprintln!("skipped: {status}");
            None
        }
    }
}

fn inline() -> Option<OpenVinoEngine> {
    let Installed { folder, version, .. } = installed()?;
    Some(OpenVinoEngine::open(&folder, &version).unwrap())
}

fn isolated() -> Option<IsolatedEngine> {
    let identity = EngineIdentity { name: "openvino".to_owned(), version: installed()?.version };
    let command = WorkerCommand::new(std::env::current_exe().unwrap())
        .arg("--exact")
        .arg("openvino::a_process_that_is_told_to_is_an_openvino_worker")
        .env(WORKER, "1");
    Some(IsolatedEngine::new(identity, command, WorkerOptions::default()))
}

/// The test above starts this program anew, for this test alone, to get a worker.
#[test]
fn a_process_that_is_told_to_is_an_openvino_worker() {
    let Some(engine) = inline() else { return };
    let served = serve_child(&engine, &ChildOptions::default());
    if std::env::var_os(WORKER).is_some() {
        served.unwrap();
    } else {
        assert_eq!(served.unwrap_err().code(), Code::FailedPrecondition);
    }
}

fn kept(form: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models").join(form)
}

/// A version's folder with one of the kept IRs in it.
fn version(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for ending in ["xml", "bin"] {
        let from = kept("ir").join(name).with_extension(ending);
        std::fs::copy(from, folder.path().join("model").with_extension(ending)).unwrap();
    }
    folder
}

/// A version's folder with one of the kept ONNX files in it.
fn onnx_version(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let from = kept("onnx").join(name).with_extension("onnx");
    std::fs::copy(from, folder.path().join("model.onnx")).unwrap();
    folder
}

fn load(engine: &dyn Engine, name: &str) -> Arc<dyn Session> {
    engine.load(&request(version(name).path())).unwrap_or_else(|status| panic!("{name}: {status}"))
}

fn refusal(engine: &dyn Engine, folder: &Path) -> Status {
    let Err(status) = engine.load(&request(folder)) else {
        panic!("{} was taken", folder.display())
    };
    status
}

fn serve(session: &dyn Session, inputs: &[Tensor]) -> Result<Vec<Tensor>, Status> {
    call(session, "serving_default", inputs)
}

/// Holds an engine to the suite, on IRs or ONNX files. Of strings it has a refusal to show.
fn conforms_on_files(engine: &dyn Engine, version: fn(&str) -> tempfile::TempDir, damaged: &Path) {
    let names = ["half_plus_two", "slow_half_plus_two", "sum_and_difference"];
    let folders = names.map(version);
    let text = onnx_version("string_identity");
    let model = |folder: &Path| Given::Model(SuiteModel::new(request(folder), &[]));
    let [half, slow, sum] = folders.each_ref().map(|folder| model(folder.path()));
    let report = engine_suite(
        engine,
        &SuiteModels {
            half_plus_two: half,
            slow_half_plus_two: slow,
            string_identity: Given::Refused(request(text.path())),
            sum_and_difference: sum,
            counter: suite::refused_counter(),
            damaged: model(damaged),
        },
    );
    eprintln!("{}", report.text());
    report.verdict().unwrap();
}

fn conforms_on_irs(engine: &dyn Engine) {
    let damaged = version("half_plus_two");
    std::fs::write(damaged.path().join("model.xml"), "<net><layers></net>").unwrap();
    conforms_on_files(engine, version, damaged.path());
}

fn conforms_on_onnx_files(engine: &dyn Engine) {
    let damaged = tempfile::tempdir().unwrap();
    std::fs::write(damaged.path().join("model.onnx"), b"\xff\xffno model").unwrap();
    conforms_on_files(engine, onnx_version, damaged.path());
}

/// A SavedModel that gives strings back, which has no translation.
fn conforms_on_saved_models(engine: &dyn Engine) {
    let strings = match folder() {
        Some(shared) => Given::Refused(request(&shared.join("golden/models/id_string/1"))),
        None => Given::Missing("the shared models".to_owned()),
    };
    suite::conforms_with(engine, suite::refused_counter(), strings);
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
    let Some(engine) = isolated() else { return };
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
    let status = refusal(&engine, onnx_version("string_identity").path());
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
    for folder in [version("sum_and_difference"), onnx_version("sum_and_difference")] {
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
            let from = kept("ir").join("half_plus_two").with_extension(ending);
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

//! ONNX Runtime as an engine: the common suite on ONNX files and on SavedModels, inline and behind a
//! worker, and what files can be.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vesta_engines::{EngineName, Installed, OnnxModel, OnnxRuntimeEngine};
use vesta_model::{
    AlignedBytes, Code, DType, Engine, InputLayout, PartialShape, RunRequest, Session, Shape,
    Status, Tensor,
};
use vesta_testkit::Given;

use crate::native::{Kept, installed, isolated, serve, serve_as_worker};
use crate::shared_data::{call, floats, output, request, strings};
use crate::suite;
use crate::written::{self, node, write};

const KEPT: Kept = Kept { folder: "onnx", file: "model.onnx" };

pub(crate) fn inline() -> Option<OnnxRuntimeEngine> {
    let Installed { folder, version, .. } = installed(EngineName::OnnxRuntime)?;
    Some(OnnxRuntimeEngine::open(&folder, &version).unwrap())
}

/// The test above starts this program anew, for this test alone, to get a worker.
#[test]
fn a_process_that_is_told_to_is_an_onnxruntime_worker() {
    let Some(engine) = inline() else { return };
    serve_as_worker(&engine);
}

fn version(name: &str) -> tempfile::TempDir {
    KEPT.version(name)
}

fn load(engine: &dyn Engine, name: &str) -> Arc<dyn Session> {
    KEPT.load(engine, name)
}

fn refusal(engine: &dyn Engine, name: &str) -> Status {
    let Err(status) = engine.load(&request(version(name).path())) else {
        panic!("{name} was taken")
    };
    status
}

/// Holds an engine to the suite, on ONNX files.
fn conforms_on_files(engine: &dyn Engine) {
    let (_folder, strings) = KEPT.strings();
    let strings = Given::Model(strings);
    KEPT.conform(engine, strings, suite::refused_counter(), b"\xff\xffno model");
}

fn conforms_on_saved_models(engine: &dyn Engine) {
    suite::conforms_with(engine, suite::refused_counter(), suite::refused_strings());
}

#[test]
fn onnxruntime_conforms_on_files() {
    let Some(engine) = inline() else { return };
    conforms_on_files(&engine);
}

#[test]
fn onnxruntime_conforms_on_saved_models() {
    let Some(engine) = inline() else { return };
    conforms_on_saved_models(&engine);
}

#[test]
fn onnxruntime_behind_a_worker_conforms() {
    let worker = "onnxruntime::a_process_that_is_told_to_is_an_onnxruntime_worker";
    let Some(engine) = isolated(EngineName::OnnxRuntime, worker) else { return };
    conforms_on_files(&engine);
    conforms_on_saved_models(&engine);
}

#[test]
fn a_run_ends_at_its_deadline() {
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
    for _ in 0..2 {
        let begun = Instant::now();
        let deadline = Some(begun + whole_run / 10);
        let status = session.run_over(&request, vec![x.clone()], deadline).unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
        assert!(begun.elapsed() < whole_run * 8 / 10, "{:?} of {whole_run:?}", begun.elapsed());
    }
    let later = Some(Instant::now() + Duration::from_secs(100));
    assert_eq!(session.run_over(&request, vec![x], later).unwrap(), whole);
}

#[test]
fn signatures_are_those_of_the_file() {
    let shape = |name: &str| {
        let folder = version(name);
        let model = OnnxModel::open(folder.path()).unwrap();
        let signature = &model.description.signatures["serving_default"];
        let inputs: Vec<String> = signature.inputs.iter().map(|own| own.alias.clone()).collect();
        (inputs, signature.inputs[0].shape.clone(), signature.stateful)
    };
    let one = |name: &str| vec![name.to_owned()];
    assert_eq!(shape("half_plus_two"), (one("x"), PartialShape::Ranked(vec![None]), false));
    assert_eq!(shape("listed_constants"), (one("x"), PartialShape::Ranked(vec![None]), false));
    assert_eq!(shape("unknown_rank"), (one("x"), PartialShape::Unknown, false));
    let fixed = PartialShape::Ranked(vec![Some(1), Some(3)]);
    assert_eq!(shape("fixed_batch"), (one("x"), fixed, false));
    assert_eq!(shape("odd_names").0, ["525"]);
    assert_eq!(shape("sum_and_difference").0, ["a", "b"]);
    assert!(shape("random").2, "random numbers are drawn");
}

#[test]
fn shapes_are_what_the_file_declares() {
    let Some(engine) = inline() else { return };
    let session = load(&engine, "unknown_rank");
    for dims in [&[][..], &[2], &[1, 2, 1]] {
        let x = floats(dims, &vec![2.0; dims.iter().product()]);
        let y = floats(dims, &vec![3.0; dims.iter().product()]);
        assert_eq!(serve(&*session, &[x]).unwrap(), [y]);
    }
    let session = load(&engine, "fixed_batch");
    let y = serve(&*session, &[floats(&[1, 3], &[0.0, 2.0, 4.0])]).unwrap();
    assert_eq!(y, [floats(&[1, 3], &[2.0, 3.0, 4.0])]);
    let status = serve(&*session, &[floats(&[2, 3], &[0.0; 6])]).unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("shape [2,3], but the model declares [1,3]"), "{status}");
    let session = load(&engine, "listed_constants");
    assert_eq!(serve(&*session, &[floats(&[1], &[2.0])]).unwrap(), [floats(&[1], &[3.0])]);
}

#[test]
fn names_are_as_they_are() {
    let Some(engine) = inline() else { return };
    let session = load(&engine, "odd_names");
    let x = Tensor::of(Shape::vector(2), &[1i64, -(1 << 40)]).unwrap();
    let y = Tensor::of(Shape::vector(2), &[-1i64, 1 << 40]).unwrap();
    let given = serve(&*session, &[x]).unwrap();
    assert_eq!(*output(&*session, "serving_default", &given, "a b/\u{fc}:0"), y);
}

/// Outputs that are an input, or a weight, stay whole when the memory of the run is gone.
#[test]
fn outputs_outlive_what_they_are_made_of() {
    let Some(engine) = inline() else { return };
    let session = load(&engine, "passed_through");
    let given: Vec<Vec<Tensor>> = (0..20)
        .map(|n| serve(&*session, &[floats(&[1000], &vec![n as f32; 1000])]).unwrap())
        .collect();
    let names = ["less", "same", "seven", "x"];
    let outputs = session.description().signatures["serving_default"].outputs.clone();
    assert!(outputs.iter().map(|output| &*output.alias).eq(names));
    drop(session);
    for (n, outputs) in given.iter().enumerate() {
        let all = |value: f32| floats(&[1000], &vec![value; 1000]);
        let n = n as f32;
        assert_eq!(*outputs, [all(-n), all(n), floats(&[1], &[7.0]), all(n)]);
    }
}

#[test]
fn every_dtype_keeps_its_values() {
    let Some(engine) = inline() else { return };
    let session = load(&engine, "dtypes");
    let shape = || Shape::vector(4);
    let long = [0i64, 1, 2, 100];
    let given = serve(&*session, &[Tensor::of(shape(), &long).unwrap()]).unwrap();
    let of = |alias| output(&*session, "serving_default", &given, alias).clone();
    assert_eq!(of("float"), Tensor::of(shape(), &long.map(|x| x as f32)).unwrap());
    assert_eq!(of("double"), Tensor::of(shape(), &long.map(|x| x as f64)).unwrap());
    assert_eq!(of("int8"), Tensor::of(shape(), &long.map(|x| x as i8)).unwrap());
    assert_eq!(of("uint8"), Tensor::of(shape(), &long.map(|x| x as u8)).unwrap());
    assert_eq!(of("int16"), Tensor::of(shape(), &long.map(|x| x as i16)).unwrap());
    assert_eq!(of("uint16"), Tensor::of(shape(), &long.map(|x| x as u16)).unwrap());
    assert_eq!(of("int32"), Tensor::of(shape(), &long.map(|x| x as i32)).unwrap());
    assert_eq!(of("uint32"), Tensor::of(shape(), &long.map(|x| x as u32)).unwrap());
    assert_eq!(of("int64"), Tensor::of(shape(), &long).unwrap());
    assert_eq!(of("uint64"), Tensor::of(shape(), &long.map(|x| x as u64)).unwrap());
    assert_eq!(of("bool"), Tensor::of_bools(shape(), &long.map(|x| x != 0)).unwrap());
    let halves: Vec<u8> =
        [0u16, 0x3c00, 0x4000, 0x5640].iter().flat_map(|h| h.to_le_bytes()).collect();
    assert_eq!(of("float16"), Tensor::copied(DType::F16, shape(), &halves).unwrap());
    let upper: Vec<u8> =
        [0u16, 0x3f80, 0x4000, 0x42c8].iter().flat_map(|h| h.to_le_bytes()).collect();
    assert_eq!(of("bfloat16"), Tensor::copied(DType::BF16, shape(), &upper).unwrap());
    assert_eq!(of("float8e4m3fn").dtype(), DType::F8E4M3FN);
    assert_eq!(of("float8e5m2").bytes(), [0, 0x3c, 0x40, 0x56]);

    let session = load(&engine, "wide");
    let double = Tensor::of(Shape::vector(2), &[0.1f64, f64::MAX]).unwrap();
    let signed = Tensor::of(Shape::vector(2), &[i64::MIN, i64::MAX]).unwrap();
    let unsigned = Tensor::of(Shape::vector(2), &[0, u64::MAX]).unwrap();
    let given = [double, signed, unsigned];
    assert_eq!(serve(&*session, &given).unwrap(), given);
}

#[test]
fn strings_may_be_any_bytes() {
    let Some(engine) = inline() else { return };
    let session = load(&engine, "string_identity");
    let long = vec![b'x'; 100_000];
    let texts = strings(&[b"", b"a\0b", &[0xff, 0, 0xfe], &long]);
    assert_eq!(serve(&*session, std::slice::from_ref(&texts)).unwrap(), [texts]);
    let none = strings(&[]);
    assert_eq!(serve(&*session, std::slice::from_ref(&none)).unwrap(), [none]);
}

#[test]
fn bytes_that_do_not_lie_aligned_are_read_all_the_same() {
    let Some(engine) = inline() else { return };
    let session = load(&engine, "half_plus_two");
    let bytes: Vec<u8> = [0u8].into_iter().chain(2f32.to_le_bytes()).collect();
    let memory = Arc::new(AlignedBytes::copy_of(&bytes));
    let x = Tensor::new(DType::F32, Shape::vector(1), memory, 1..5).unwrap();
    let request = RunRequest {
        signature: "serving_default".to_owned(),
        inputs: vec![InputLayout::of(&x)],
        outputs: vec![0],
    };
    let y = session.run_over(&request, vec![x], None).unwrap();
    assert_eq!(y, [floats(&[1], &[3.0])]);
}

#[test]
fn ends_that_are_no_tensors_are_refused_by_name() {
    let Some(engine) = inline() else { return };
    for (name, told) in [
        ("sequence", "output `parts` of model.onnx is a sequence of tensors,"),
        ("maps", "output `scores` of model.onnx is a sequence of maps,"),
        ("optional", "input `x` of model.onnx is a value that may be absent"),
    ] {
        let status = refusal(&engine, name);
        assert_eq!(status.code(), Code::Unimplemented, "{status}");
        assert!(status.message().contains(told), "{status}");
    }
    let status = refusal(&engine, "unknown_operator");
    assert!(status.message().contains("Frobnicate"), "{status}");
}

#[test]
fn weights_may_lie_beside_the_model_and_nowhere_else() {
    let Some(engine) = inline() else { return };
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("1");
    std::fs::create_dir(&folder).unwrap();
    let mut beside = vec![0u8; 4096];
    beside[..8].copy_from_slice(&1i64.to_le_bytes());
    beside[8..16].copy_from_slice(&128i64.to_le_bytes());
    beside[16..20].copy_from_slice(&100f32.to_le_bytes());
    beside[20..24].copy_from_slice(&200f32.to_le_bytes());
    let weights = (0..128 * 256).map(|n| if n % 257 == 0 { 1f32 } else { 0.0 });
    beside.extend(weights.flat_map(f32::to_le_bytes));
    std::fs::write(folder.join("weights.bin"), &beside).unwrap();
    std::fs::write(outer.path().join("weights.bin"), &beside).unwrap();
    std::fs::copy(KEPT.path("external"), folder.join("any name.onnx")).unwrap();
    let session = engine.load(&request(&folder)).unwrap();
    // What was read stays, whatever becomes of the files.
    std::fs::remove_dir_all(&folder).unwrap();
    let row: Vec<f32> = (0..128).map(|n| n as f32).collect();
    for (big, more) in [(true, 100.0), (false, 200.0)] {
        let big = Tensor::of_bools(Shape::scalar(), &[big]).unwrap();
        let want: Vec<f32> =
            (0..256).map(|n| if n < 128 { n as f32 + more } else { more }).collect();
        let y = serve(&*session, &[big, floats(&[128], &row)]).unwrap();
        assert_eq!(y, [floats(&[1, 256], &want)]);
    }
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("weights.bin"), &beside).unwrap();
    std::fs::copy(KEPT.path("external_outside"), folder.join("model.onnx")).unwrap();
    let status = engine.load(&request(&folder)).err().unwrap();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("outside of the version's folder"), "{status}");
    std::fs::copy(KEPT.path("external"), folder.join("model.onnx")).unwrap();
    std::fs::write(folder.join("weights.bin"), &beside[..5000]).unwrap();
    let status = engine.load(&request(&folder)).err().unwrap();
    assert_eq!(status.code(), Code::DataLoss, "{status}");
}

#[test]
fn of_several_files_one_must_be_meant() {
    let Some(engine) = inline() else { return };
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.onnx", "b.onnx"] {
        std::fs::copy(KEPT.path("half_plus_two"), folder.path().join(name)).unwrap();
    }
    let status = engine.load(&request(folder.path())).err().unwrap();
    assert!(status.message().contains("call one model.onnx"), "{status}");
    std::fs::copy(KEPT.path("odd_names"), folder.path().join("model.onnx")).unwrap();
    let session = engine.load(&request(folder.path())).unwrap();
    assert!(session.description().signatures["serving_default"].input("525").is_some());
}

/// Every shortening of a file and many changes of a byte are errors or models, behind a worker: what
/// ends the process is an error, too.
#[test]
fn damaged_files_are_errors() {
    let Some(engine) = inline() else { return };
    let whole = std::fs::read(KEPT.path("sum_and_difference")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.onnx");
    let mut refused = 0;
    for cut in (0..whole.len()).step_by(3) {
        std::fs::write(&file, &whole[..cut]).unwrap();
        refused += usize::from(engine.load(&request(folder.path())).is_err());
    }
    assert!(refused > whole.len() / 3 - 4, "{refused} of {}", whole.len() / 3);
    for at in (0..whole.len()).step_by(2) {
        let mut other = whole.clone();
        other[at] ^= 0x55;
        std::fs::write(&file, &other).unwrap();
        if let Ok(session) = engine.load(&request(folder.path())) {
            assert!(session.description().signatures.contains_key("serving_default"));
        }
    }
}

#[test]
fn signatures_share_their_weights_and_their_names_stay() {
    let Some(engine) = inline() else { return };
    let folder = tempfile::tempdir().unwrap();
    let float = DType::F32;
    let weights: Vec<f32> = (0..256 * 256).map(|n| if n % 257 == 0 { 2.0 } else { 0.0 }).collect();
    let x = ("x", "x:0", float, &[-1i64, 256][..]);
    let signature = |output: (&'static str, &'static str)| {
        written::signature(&[x], &[(output.0, output.1, float, &[-1, 256])])
    };
    write(
        folder.path(),
        vec![
            node("Placeholder", "x", &[], float),
            written::floats("w", &[256, 256], &weights),
            node("MatMul", "twice", &["x", "w"], float),
            node("Neg", "less", &["twice"], float),
        ],
        &[("serving_default", signature(("y", "twice:0"))), ("less", signature(("z", "less:0")))],
    );
    let session = engine.load(&request(folder.path())).unwrap();
    let x = floats(&[2, 256], &[1.5; 512]);
    let y = call(&*session, "serving_default", std::slice::from_ref(&x)).unwrap();
    assert_eq!(y, [floats(&[2, 256], &[3.0; 512])]);
    assert_eq!(call(&*session, "less", &[x]).unwrap(), [floats(&[2, 256], &[-3.0; 512])]);
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
    let status = engine.load(&request(folder.path())).err().unwrap();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains("MatrixInverse at inverse"), "{status}");
    assert!(status.message().contains("--engine=auto"), "{status}");
}

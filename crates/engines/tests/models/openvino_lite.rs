//! `model.tflite` in OpenVINO: the common suite, ends and sizes as LiteRT has them, and what is refused by name.

use vesta_engines::{EngineName, Installed, OpenVinoEngine, OpenVinoOptions};
use vesta_model::{Code, Engine, Shape, Tensor};
use vesta_testkit::Given;

use crate::native::{Kept, gives_twice_and_itself, installed, serve};
use crate::shared_data::{call, floats, request};

const KEPT: Kept = Kept { folder: "lite", file: "model.tflite" };

/// The engine, or `None` with a word about it where it was installed without its reader.
fn inline() -> Option<OpenVinoEngine> {
    let Installed { folder, version, .. } = installed(EngineName::OpenVino)?;
    let engine = OpenVinoEngine::open(&folder, &version, OpenVinoOptions::default()).unwrap();
    let model = KEPT.version("half_plus_two");
    match engine.load(&request(model.path())) {
        Err(status) if status.code() == Code::FailedPrecondition => {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{status}");
            eprintln!("skipped: {status}");
            None
        }
        loaded => {
            drop(loaded.unwrap());
            Some(engine)
        }
    }
}

#[test]
fn openvino_conforms_on_lite_models() {
    let Some(engine) = inline() else { return };
    let refused = |name: &str| {
        let folder = KEPT.version(name);
        let load = request(folder.path());
        (folder, Given::Refused(load))
    };
    let (_slow, slow) = refused("slow_half_plus_two");
    let (_strings, strings) = refused("string_identity");
    let (_counter, counter) = refused("counter");
    KEPT.conform_with(&engine, slow, strings, counter, b"\x10\0\0\0TFL3 and no more");
}

#[test]
fn ends_may_be_one_tensor_and_constants() {
    let Some(engine) = inline() else { return };
    let session = KEPT.load(&engine, "the_same");
    gives_twice_and_itself(&*session);
}

#[test]
fn every_signature_runs_at_its_sizes_and_at_others() {
    let Some(engine) = inline() else { return };
    let session = KEPT.load(&engine, "two_signatures");
    let names: Vec<&String> = session.description().signatures.keys().collect();
    assert_eq!(names, ["add", "halve", "serving_default"]);
    let run = |signature: &str, inputs: &[Tensor]| call(&*session, signature, inputs);
    // The file declares two elements.
    for x in [&[1.0, 2.0][..], &[1.0, 2.0, 3.0]] {
        let x = floats(&[x.len()], x);
        let halved = run("halve", std::slice::from_ref(&x)).unwrap();
        let halves: Vec<f32> = x.to_vec::<f32>().unwrap().iter().map(|x| x / 2.0).collect();
        assert_eq!(halved, [floats(x.shape().dims(), &halves)]);
    }
    let pair = floats(&[2], &[1.0, 2.0]);
    assert_eq!(run("add", &[pair.clone(), pair.clone()]).unwrap(), [floats(&[2], &[2.0, 4.0])]);
    for unfit in [floats(&[3], &[0.0; 3]), floats(&[0], &[]), floats(&[1, 2], &[0.0; 2])] {
        let status = run("add", &[unfit, pair.clone()]).unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
    let halved = run("halve", &[floats(&[2], &[f32::NEG_INFINITY, f32::NAN])]).unwrap();
    let halved = halved[0].to_vec::<f32>().unwrap();
    assert!(halved[0] == f32::NEG_INFINITY && halved[1].is_nan(), "{halved:?}");
}

#[test]
fn sizes_may_be_computed_in_a_run() {
    let Some(engine) = inline() else { return };
    let session = KEPT.load(&engine, "twice_as_many");
    for rows in [1usize, 2, 100, 2] {
        let x: Vec<f32> = (0..rows * 3).map(|n| n as f32).collect();
        let want: Vec<f32> = x.chunks(3).flat_map(|row| [row, row].concat()).collect();
        let given = serve(&*session, &[floats(&[rows, 3], &x)]).unwrap();
        assert_eq!(given, [floats(&[rows * 2, 3], &want)]);
    }
    let session = KEPT.load(&engine, "scalar");
    let one = Tensor::of(Shape::scalar(), &[1.0f32]).unwrap();
    let two = Tensor::of(Shape::scalar(), &[2.0f32]).unwrap();
    assert_eq!(serve(&*session, &[one]).unwrap(), [two]);
}

/// A pooling passes over them, or does not, as it comes.
#[test]
fn numbers_that_are_not_finite_are_refused_where_they_would_go_other_ways() {
    let Some(engine) = inline() else { return };
    let session = KEPT.load(&engine, "late_sizes");
    for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x = [1.0; 64];
        x[40] = odd;
        let status = serve(&*session, &[floats(&[1, 64], &x)]).unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains("not finite"), "{status}");
    }
}

#[test]
fn what_litert_computes_otherwise_is_refused_by_name() {
    let Some(engine) = inline() else { return };
    for (name, words) in [
        ("int8", "FULLY_CONNECTED at PartitionedCall:0 (quantised"),
        ("uint8", "QUANTIZE at "),
        ("positive", "WHERE at "),
        ("counter", "ASSIGN_VARIABLE at "),
        ("string_identity", "(of string)"),
        ("examples", "ParseExampleV2 at "),
        ("of_tensorflow", "FlexAddV2 at "),
        ("slow_half_plus_two", "WHILE at "),
        ("dtypes", "CAST at "),
    ] {
        let folder = KEPT.version(name);
        let Err(status) = engine.load(&request(folder.path())) else { panic!("{name} was taken") };
        assert_eq!(status.code(), Code::Unimplemented, "{name}: {status}");
        assert!(status.message().contains(words), "{name}: {status}");
    }
}

#[test]
fn an_installation_without_the_reader_says_what_to_do() {
    let Some(Installed { folder, version, .. }) = installed(EngineName::OpenVino) else { return };
    let older = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(&folder).unwrap() {
        let file = file.unwrap();
        if !file.file_name().to_string_lossy().contains("tensorflow_lite_frontend") {
            std::os::unix::fs::symlink(file.path(), older.path().join(file.file_name())).unwrap();
        }
    }
    let engine = OpenVinoEngine::open(older.path(), &version, OpenVinoOptions::default()).unwrap();
    let model = KEPT.version("half_plus_two");
    let Err(status) = engine.load(&request(model.path())) else { panic!("it was taken") };
    assert_eq!(status.code(), Code::FailedPrecondition);
    let advice = format!("`vesta engine remove openvino=={version}`");
    assert!(status.message().contains(&advice), "{status}");
}

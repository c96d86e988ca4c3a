//! LiteRT as an engine: the common suite, inline and behind a worker, and what its format is about.

use std::sync::Arc;

use prost::Message as _;
use vesta_engines::{EngineName, Installed, LiteRtEngine, LiteRtOptions};
use vesta_model::{Code, Engine, Session, Shape, StringsBuilder, Tensor};
use vesta_protos::tensorflow::feature::Kind;
use vesta_protos::tensorflow::{BytesList, Example, Feature, Features, FloatList, Int64List};
use vesta_testkit::{Given, SuiteModel};

use crate::native::{Kept, gives_twice_and_itself, installed, isolated, serve, serve_as_worker};
use crate::shared_data::{call, floats, folder, output, request, strings};

const KEPT: Kept = Kept { folder: "lite", file: "model.tflite" };

fn with_interpreters(interpreters: usize) -> Option<LiteRtEngine> {
    let Installed { folder, version, .. } = installed(EngineName::LiteRt)?;
    Some(LiteRtEngine::open(&folder, &version, LiteRtOptions { interpreters }).unwrap())
}

fn inline() -> Option<LiteRtEngine> {
    with_interpreters(LiteRtOptions::default().interpreters)
}

fn version(name: &str) -> tempfile::TempDir {
    KEPT.version(name)
}

fn load(engine: &dyn Engine, name: &str) -> Arc<dyn Session> {
    KEPT.load(engine, name)
}

fn conforms(engine: &dyn Engine) {
    let folder = version("counter");
    let counter = Given::Model(SuiteModel::new(request(folder.path()), &[]));
    let (_folder, strings) = KEPT.strings();
    KEPT.conform(engine, Given::Model(strings), counter, b"\x10\0\0\0TFL3 and no more");
}

#[test]
fn litert_conforms() {
    let Some(engine) = inline() else { return };
    conforms(&engine);
}

#[test]
fn litert_behind_a_worker_conforms() {
    let worker = "litert::a_process_that_is_told_to_is_a_litert_worker";
    let Some(engine) = isolated(EngineName::LiteRt, worker) else { return };
    conforms(&engine);
}

/// The test above starts this program anew, for this test alone, to get a worker.
#[test]
fn a_process_that_is_told_to_is_a_litert_worker() {
    let Some(engine) = inline() else { return };
    serve_as_worker(&engine);
}

#[test]
fn outputs_may_have_sizes_that_are_known_late() {
    let Some(engine) = inline() else { return };
    let session = load(&engine, "positive");
    for count in [3usize, 1, 40, 20_000, 2, 40] {
        let x: Vec<f32> =
            (0..count).map(|n| if n % 3 == 1 { -1.0 } else { n as f32 + 1.0 }).collect();
        let want: Vec<f32> = x.iter().copied().filter(|&x| x > 0.0).collect();
        let given = serve(&*session, &[floats(&[count], &x)]).unwrap();
        assert_eq!(given, [floats(&[want.len()], &want)]);
    }
    let session = load(&engine, "twice_as_many");
    for rows in [1usize, 2, 100, 2] {
        let x: Vec<f32> = (0..rows * 3).map(|n| n as f32).collect();
        let want: Vec<f32> = x.chunks(3).flat_map(|row| [row, row].concat()).collect();
        let given = serve(&*session, &[floats(&[rows, 3], &x)]).unwrap();
        assert_eq!(given, [floats(&[rows * 2, 3], &want)]);
    }
}

/// LiteRT does not see that such an output is too large for its memory, and wrote beyond it.
#[test]
fn outputs_of_fast_kernels_may_have_sizes_that_are_known_late() {
    let Some(engine) = inline() else { return };
    let session = load(&engine, "late_sizes");
    for rows in [1usize, 3000, 2, 50_000, 3000] {
        let x: Vec<f32> = (0..rows * 64).map(|n| (n % 97) as f32).collect();
        let want: Vec<f32> = x
            .chunks(64)
            .flat_map(|row| (0..64).map(|n| if n < 32 { row[n].max(row[n + 32]) } else { row[n] }))
            .collect();
        let given = serve(&*session, &[floats(&[rows, 64], &x)]).unwrap();
        assert!(given == [floats(&[rows, 2, 32], &want)], "{rows} rows");
    }
}

#[test]
fn strings_may_be_far_longer_than_those_that_came() {
    let Some(engine) = inline() else { return };
    let session = load(&engine, "repeated");
    for text in [&b"a"[..], &[0xff; 3000], b"", &[7; 100]] {
        let given = serve(&*session, &[strings(&[text, b"other"])]).unwrap();
        let want: Vec<&[u8]> = vec![text; 2000];
        assert!(given == [strings(&want)], "{} bytes each", text.len());
    }
}

#[test]
fn ends_may_be_one_tensor_and_constants() {
    let Some(engine) = inline() else { return };
    let session = load(&engine, "the_same");
    gives_twice_and_itself(&*session);
}

#[test]
fn every_dtype_keeps_its_values() {
    let Some(engine) = inline() else { return };
    let session = load(&engine, "dtypes");
    let shape = || Shape::new(vec![2, 4]).unwrap();
    let x = Tensor::of(shape(), &[0i32, 1, 2, 3, -1, 127, -128, 5]).unwrap();
    let given = serve(&*session, &[x]).unwrap();
    let of = |alias| output(&*session, "serving_default", &given, alias).clone();
    let long = [0i64, 1, 2, 3, -1, 127, -128, 5];
    assert_eq!(of("int64"), Tensor::of(shape(), &long).unwrap());
    assert_eq!(of("int16"), Tensor::of(shape(), &long.map(|x| x as i16)).unwrap());
    assert_eq!(of("int8"), Tensor::of(shape(), &long.map(|x| x as i8)).unwrap());
    assert_eq!(of("uint8"), Tensor::of(shape(), &long.map(|x| x as u8)).unwrap());
    assert_eq!(of("bool"), Tensor::of_bools(shape(), &long.map(|x| x != 0)).unwrap());
    assert_eq!(of("float32"), Tensor::of(shape(), &long.map(|x| x as f32)).unwrap());
    let session = load(&engine, "scalar");
    let one = Tensor::of(Shape::scalar(), &[1.0f32]).unwrap();
    let two = Tensor::of(Shape::scalar(), &[2.0f32]).unwrap();
    assert_eq!(serve(&*session, &[one]).unwrap(), [two]);
}

/// What TensorFlow's own interpreter gives for the same bytes; kernels may round the other way.
#[test]
fn quantized_numbers_are_bytes() {
    let Some(engine) = inline() else { return };
    let shape = || Shape::new(vec![1, 8]).unwrap();
    let close = |given: Vec<i16>, want: [i16; 4]| {
        let apart = given.iter().zip(want).map(|(a, b)| (a - b).abs()).max();
        assert!(given.len() == 4 && apart <= Some(1), "{given:?} {want:?}");
    };
    let x = Tensor::of(shape(), &[0i8, 1, 2, 3, 4, 5, 6, 7]).unwrap();
    let given = serve(&*load(&engine, "int8"), &[x]).unwrap();
    let bytes = given[0].to_vec::<i8>().unwrap();
    close(bytes.into_iter().map(i16::from).collect(), [29, -118, -42, -75]);
    let x = Tensor::of(shape(), &[0u8, 1, 2, 3, 4, 5, 6, 7]).unwrap();
    let given = serve(&*load(&engine, "uint8"), &[x]).unwrap();
    let bytes = given[0].to_vec::<u8>().unwrap();
    close(bytes.into_iter().map(i16::from).collect(), [4, 1, 2, 0]);
}

#[test]
fn each_signature_runs_its_own_graph() {
    let Some(engine) = inline() else { return };
    let session = load(&engine, "two_signatures");
    let (x, z) = (floats(&[2], &[1.0, 2.0]), floats(&[2], &[3.0, 4.0]));
    let halved = call(&*session, "halve", std::slice::from_ref(&x)).unwrap();
    assert_eq!(halved, [floats(&[2], &[0.5, 1.0])]);
    let sum = call(&*session, "add", &[x.clone(), z.clone()]).unwrap();
    assert_eq!(sum, [floats(&[2], &[4.0, 6.0])]);
    assert_eq!(serve(&*session, &[x, z]).unwrap(), sum);
}

#[test]
fn sizes_that_do_not_fit_are_the_callers_error_and_change_nothing() {
    let Some(engine) = inline() else { return };
    let session = load(&engine, "two_signatures");
    let x = floats(&[2], &[1.0, 2.0]);
    let call = |z: &Tensor| call(&*session, "add", &[x.clone(), z.clone()]);
    let want = [floats(&[2], &[2.0, 4.0])];
    for bad in [floats(&[3], &[0.0; 3]), floats(&[0], &[]), floats(&[1; 9], &[0.0])] {
        assert_eq!(call(&x).unwrap(), want);
        let status = call(&bad).unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
    assert_eq!(call(&x).unwrap(), want);
    let status = call(&floats(&[3], &[0.0; 3])).unwrap_err();
    assert!(status.message().starts_with("Failed to allocate tensors"), "{status}");
}

#[test]
fn runs_wait_for_an_interpreter_and_keep_their_rows() {
    for interpreters in [1, 3] {
        let Some(engine) = with_interpreters(interpreters) else { return };
        let session = load(&engine, "positive");
        std::thread::scope(|scope| {
            for thread in 1..=8usize {
                let session = &session;
                scope.spawn(move || {
                    for turn in 1..60 {
                        let x = vec![thread as f32; thread * turn % 37 + 1];
                        let x = floats(&[x.len()], &x);
                        assert_eq!(serve(&**session, std::slice::from_ref(&x)).unwrap(), [x]);
                    }
                });
            }
        });
    }
}

#[test]
fn an_operator_of_another_runtime_is_refused_by_name() {
    let Some(engine) = inline() else { return };
    let outcome = engine.load(&request(version("of_tensorflow").path()));
    let status = outcome.err().unwrap();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains("FlexAddV2"), "{status}");
    assert!(status.message().contains("serve the SavedModel"), "{status}");
}

fn strings_of(dims: &[usize], texts: &[&[u8]]) -> Tensor {
    let mut builder = StringsBuilder::new();
    texts.iter().for_each(|text| builder.push(text));
    Tensor::of_strings(Shape::new(dims.to_vec()).unwrap(), &builder).unwrap()
}

fn example(features: &[(&str, Kind)]) -> Vec<u8> {
    let feature = features
        .iter()
        .map(|(name, kind)| ((*name).to_owned(), Feature { kind: Some(kind.clone()) }));
    let features = Features { feature: feature.collect() };
    Example { features: Some(features) }.encode_to_vec()
}

fn feature_floats(value: &[f32]) -> Kind {
    Kind::FloatList(FloatList { value: value.to_vec() })
}

fn feature_ints(value: &[i64]) -> Kind {
    Kind::Int64List(Int64List { value: value.to_vec() })
}

fn feature_text(value: &[u8]) -> Kind {
    Kind::BytesList(BytesList { value: vec![value.to_vec().into()] })
}

#[test]
fn examples_are_parsed_before_the_graph() {
    let Some(engine) = inline() else { return };
    let full = example(&[
        ("x", feature_floats(&[1.0, 2.0])),
        ("n", feature_ints(&[3])),
        ("name", feature_text(b"first")),
    ]);
    let few = example(&[("n", feature_ints(&[-1])), ("unknown", feature_ints(&[9]))]);
    let session = load(&engine, "examples");
    let outputs = &session.description().signatures["serving_default"].outputs;
    let names: Vec<&str> = outputs.iter().map(|output| &*output.alias).collect();
    assert_eq!(names, ["name", "sum"]);
    for rows in [2usize, 1, 40] {
        let texts: Vec<&[u8]> = [&full[..], &few].into_iter().cycle().take(rows).collect();
        let given = serve(&*session, &[strings(&texts)]).unwrap();
        let sums: Vec<f32> = [6.0, 14.0].into_iter().cycle().take(rows).collect();
        assert_eq!(given[1], floats(&[rows], &sums));
        let named: Vec<&[u8]> =
            [&b"first"[..], b"missing"].into_iter().cycle().take(rows).collect();
        assert_eq!(given[0], strings_of(&[rows, 1], &named));
    }
    let status = serve(&*session, &[strings(&[&full, &[]])]).unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("Feature: n (data type: int64) is required"), "{status}");
    let status = serve(&*session, &[strings(&[b"no Example"])]).unwrap_err();
    assert!(status.message().contains("Could not parse example input"), "{status}");
    let given = serve(&*session, &[strings(&[&full])]).unwrap();
    assert_eq!(given[1], floats(&[1], &[6.0]));

    let session = load(&engine, "examples_alone");
    let given = serve(&*session, &[strings(&[&full, &few])]).unwrap();
    let want = [
        Tensor::of(Shape::new(vec![2, 1]).unwrap(), &[3i64, -1]).unwrap(),
        strings_of(&[2, 1], &[b"first", b"missing"]),
        floats(&[2, 2], &[1.0, 2.0, 7.0, 8.0]),
    ];
    assert_eq!(given, want);
}

/// The original's own model of the parsing alone, whose outputs have two names for one operator.
#[test]
fn the_originals_model_parses_examples() {
    let (Some(engine), Some(shared)) = (inline(), folder()) else { return };
    let place = shared.join("tfs-testdata").join("parse_example_tflite").join("00000123");
    let session = engine.load(&request(&place)).unwrap();
    let signature = &session.description().signatures["serving_default"];
    assert_eq!(&*signature.inputs[0].alias, "input");
    let given = example(&[("x", feature_floats(&[1.5])), ("y", feature_text(b"text"))]);
    let outputs = serve(&*session, &[strings(&[&given, &[]])]).unwrap();
    assert_eq!(
        outputs,
        [floats(&[2, 1], &[1.5, 0.0]), strings_of(&[2, 1], &[b"text", b"missing"])]
    );
}

/// The original's own models: declared as `[1, 1]`, fed with any number of elements.
#[test]
fn the_originals_models_give_its_answers() {
    let (Some(engine), Some(shared)) = (inline(), folder()) else { return };
    let data = shared.join("tfs-testdata");
    for name in ["saved_model_half_plus_two_tflite", "saved_model_half_plus_two_tflite_with_sigdef"]
    {
        let session = engine.load(&request(&data.join(name).join("00000123"))).unwrap();
        let signature = &session.description().signatures["serving_default"];
        assert_eq!((&*signature.inputs[0].alias, &*signature.outputs[0].alias), ("x", "y"));
        for (dims, x) in [(&[1][..], &[2.0][..]), (&[1, 1], &[2.0]), (&[3, 1], &[2.0, 4.0, 6.0])] {
            let want: Vec<f32> = x.iter().map(|x| x / 2.0 + 2.0).collect();
            let given = serve(&*session, &[floats(dims, x)]).unwrap();
            assert_eq!(given, [floats(dims, &want)], "{name}");
        }
    }
}

#[test]
fn a_folder_without_the_library_says_what_to_do() {
    let empty = tempfile::tempdir().unwrap();
    let opened = LiteRtEngine::open(empty.path(), "2.3.0", LiteRtOptions::default());
    let status = opened.err().unwrap();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("vesta engine install litert"), "{status}");
    std::fs::write(empty.path().join("libLiteRt.so"), b"no library").unwrap();
    let opened = LiteRtEngine::open(empty.path(), "2.3.0", LiteRtOptions::default());
    assert!(opened.err().unwrap().message().contains("cannot be opened"));
}

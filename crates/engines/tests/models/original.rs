//! The test models of TensorFlow Serving, and those that its recorded answers came from.

use std::path::{Path, PathBuf};

use crate::shared_data::{call, floats, folder, load, output, strings};
use prost::Message;
use vesta_model::{Code, DType, Session, Shape, Status, Tensor};
use vesta_protos::tensorflow::{
    BytesList, Example, Feature, Features, FloatList, Int64List, feature::Kind,
};

fn example(entries: &[(&str, Kind)]) -> Vec<u8> {
    let feature = entries
        .iter()
        .map(|(key, kind)| ((*key).to_owned(), Feature { kind: Some(kind.clone()) }))
        .collect();
    Example { features: Some(Features { feature }) }.encode_to_vec()
}

fn float(value: &[f32]) -> Kind {
    Kind::FloatList(FloatList { value: value.to_vec() })
}

/// The only version under a model's folder.
fn version(model: PathBuf) -> PathBuf {
    let mut versions: Vec<PathBuf> =
        std::fs::read_dir(&model).unwrap().map(|entry| entry.unwrap().path()).collect();
    versions.sort();
    versions.remove(0)
}

fn all_half_plus_two(shared: &Path) -> Vec<PathBuf> {
    let data = shared.join("tfs-testdata");
    let mut found: Vec<PathBuf> = std::fs::read_dir(&data)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let foreign = name.contains("tflite") || name.ends_with("mkl");
            name.starts_with("saved_model_half_plus_two") && !foreign
        })
        .filter(|path| path.is_dir())
        .map(version)
        .collect();
    found.push(data.join("saved_model_half_plus_two_2_versions/00000124"));
    found.push(shared.join("golden/models/half_plus_two/123"));
    found
}

#[test]
fn half_plus_two_of_every_age_adds_two_whatever_shape_it_is_fed() {
    let Some(shared) = folder() else { return };
    let models = all_half_plus_two(&shared);
    assert!(models.len() >= 9, "{models:?}");
    for model in models {
        let session = load(&model).unwrap_or_else(|error| panic!("{}: {error}", model.display()));
        for dims in [&[3][..], &[3, 1], &[1, 3], &[]] {
            let values = &[1.0, 2.0, -5.0][..dims.iter().product()];
            let out = call(&*session, "serving_default", &[floats(dims, values)]).unwrap();
            let want: Vec<f32> = values.iter().map(|x| x / 2.0 + 2.0).collect();
            assert_eq!(out[0], floats(dims, &want), "{}", model.display());
        }
        let none = call(&*session, "serving_default", &[floats(&[0], &[])]).unwrap();
        assert_eq!(none[0], floats(&[0], &[]), "{}", model.display());
    }
}

#[test]
fn examples_are_parsed_by_models_of_every_age() {
    let Some(shared) = folder() else { return };
    let mut parsed = 0;
    for model in all_half_plus_two(&shared) {
        let session = load(&model).unwrap();
        if !session.description().signatures.contains_key("regress_x_to_y") {
            continue;
        }
        parsed += 1;
        let given =
            strings(&[&example(&[("x", float(&[1.0]))]), &example(&[("x", float(&[6.0]))])]);
        let out = call(&*session, "regress_x_to_y", std::slice::from_ref(&given)).unwrap();
        assert_eq!(out[0].to_vec::<f32>().unwrap(), [2.5, 5.0], "{}", model.display());
        let out = call(&*session, "regress_x_to_y2", std::slice::from_ref(&given)).unwrap();
        assert_eq!(out[0].to_vec::<f32>().unwrap(), [3.5, 6.0], "{}", model.display());
        let out = call(&*session, "regress_x2_to_y3", &[floats(&[2, 1], &[1.0, 6.0])]).unwrap();
        assert_eq!(out[0].to_vec::<f32>().unwrap(), [3.5, 6.0], "{}", model.display());
    }
    assert!(parsed >= 8, "{parsed}");
}

#[test]
fn half_plus_three_adds_three_and_takes_examples_that_it_declares_as_numbers() {
    let Some(shared) = folder() else { return };
    let model = shared.join("tfs-testdata/saved_model_half_plus_three/00000123");
    let session = load(&model).unwrap();
    let out = call(&*session, "serving_default", &[floats(&[2], &[1.0, 2.0])]).unwrap();
    assert_eq!(out[0].to_vec::<f32>().unwrap(), [3.5, 4.0]);
    let regress = &session.description().signatures["tensorflow/serving/regress"];
    let input = &regress.inputs[0];
    assert_eq!((input.dtype, input.fed_dtype()), (DType::F32, DType::String));
    let given: Vec<Vec<u8>> = [1.0, 2.0].iter().map(|&x| example(&[("x", float(&[x]))])).collect();
    let given = strings(&given.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let out = call(&*session, "tensorflow/serving/regress", &[given]).unwrap();
    assert_eq!(out[0].to_vec::<f32>().unwrap(), [3.5, 4.0]);
}

#[test]
fn a_model_that_keeps_state_is_refused_by_name() {
    let Some(shared) = folder() else { return };
    let error = load(&shared.join("tfs-testdata/saved_model_counter/00000123")).unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented);
    assert!(error.message().contains("get_counter"), "{error}");
    assert!(error.message().contains("vesta engine install tensorflow"), "{error}");
}

#[test]
fn a_variable_that_only_an_init_operator_sets_is_told() {
    let Some(shared) = folder() else { return };
    let error =
        load(&shared.join("tfs-testdata/saved_model_half_plus_two_mkl/00000123")).unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(error.message().contains("conv2d/kernel"), "{error}");
}

#[test]
fn what_is_no_saved_model_is_an_error() {
    let Some(shared) = folder() else { return };
    assert!(load(&shared.join("tfs-testdata/bad_half_plus_two/00000123")).is_err());
    assert!(load(&shared.join("tfs-testdata/nowhere")).is_err());
}

#[test]
fn identity_of_every_dtype_is_bit_exact() {
    let Some(shared) = folder() else { return };
    let dtypes = [
        ("bfloat16", DType::BF16),
        ("bool", DType::Bool),
        ("float16", DType::F16),
        ("float64", DType::F64),
        ("int16", DType::I16),
        ("int32", DType::I32),
        ("int64", DType::I64),
        ("int8", DType::I8),
        ("uint32", DType::U32),
        ("uint64", DType::U64),
        ("uint8", DType::U8),
    ];
    for (name, dtype) in dtypes {
        let session = load(&shared.join(format!("golden/models/id_{name}/1"))).unwrap();
        let len = 3 * dtype.width().unwrap();
        let bytes: Vec<u8> = if dtype == DType::Bool {
            vec![1, 0, 1]
        } else {
            // Patterns that saturation, rounding or a detour over a float would destroy.
            (0..len).map(|at| [0x81, 0xfe, 0x7f, 0x93, 0x01, 0x5a, 0xc3, 0x7e][at % 8]).collect()
        };
        let input = Tensor::copied(dtype, Shape::vector(3), &bytes).unwrap();
        let out = call(&*session, "serving_default", std::slice::from_ref(&input)).unwrap();
        assert_eq!(out[0], input, "{name}");
    }
    let session = load(&shared.join("golden/models/id_string/1")).unwrap();
    let input = strings(&[b"a", b"", &[0xff, 0]]);
    let out = call(&*session, "serving_default", std::slice::from_ref(&input)).unwrap();
    assert_eq!(out[0], input);
}

fn golden(shared: &Path, model: &str) -> std::sync::Arc<vesta_engines::EmbeddedSession> {
    let path = shared.join(format!("golden/models/{model}/1"));
    load(&path).unwrap_or_else(|error| panic!("{model}: {error}"))
}

#[test]
fn int64_is_computed_in_64_bits() {
    let Some(shared) = folder() else { return };
    let session = golden(&shared, "multi");
    let a = floats(&[2, 2], &[1.0, 2.0, 3.0, 4.0]);
    let b = Tensor::of(Shape::vector(2), &[3i64, 5_000_000_000]).unwrap();
    let out = call(&*session, "serving_default", &[a.clone(), b]).unwrap();
    let of = |alias: &str| output(&*session, "serving_default", &out, alias);
    assert_eq!(of("twice").to_vec::<i64>().unwrap(), [6, 10_000_000_000]);
    assert_eq!(of("sum").to_vec::<f32>().unwrap(), [6.0, 5e9]);
    assert_eq!(of("mat").to_vec::<f32>().unwrap(), [1.0, 2.0, 3.0, 4.0]);
    assert_eq!(of("mat").shape().dims(), [2, 1, 2]);
    let out = call(&*session, "neg_sig", &[a]).unwrap();
    assert_eq!(out[0].to_vec::<f32>().unwrap(), [-1.0, -2.0, -3.0, -4.0]);
}

#[test]
fn strings_are_computed_byte_by_byte() {
    let Some(shared) = folder() else { return };
    let session = golden(&shared, "strs");
    let out = call(&*session, "serving_default", &[strings(&[b"abc", &[0xff, 0]])]).unwrap();
    let of = |alias: &str| output(&*session, "serving_default", &out, alias);
    assert_eq!(*of("out"), strings(&[b"ABC", &[0xff, 0]]));
    assert_eq!(*of("out_bytes"), strings(&[b"abcabc", &[0xff, 0, 0xff, 0]]));
    assert_eq!(of("len").to_vec::<i32>().unwrap(), [3, 2]);
    let session = golden(&shared, "strs1");
    let given = strings(&[b"\x89PNG\r\n\0"]);
    let out = call(&*session, "serving_default", std::slice::from_ref(&given)).unwrap();
    assert_eq!(out[0], given);
}

#[test]
fn every_dtype_is_converted_as_tensorflow_does() {
    let Some(shared) = folder() else { return };
    let session = golden(&shared, "types");
    let input = floats(&[4], &[1.0, -1.5, 0.0, 100.25]);
    let out = call(&*session, "serving_default", std::slice::from_ref(&input)).unwrap();
    let of = |alias: &str| output(&*session, "serving_default", &out, alias);
    assert_eq!(of("int8").to_vec::<i8>().unwrap(), [1, -1, 0, 100]);
    assert_eq!(of("int64").to_vec::<i64>().unwrap(), [1, -1, 0, 100]);
    assert_eq!(of("uint16").to_vec::<u16>().unwrap(), [1, 65535, 0, 100]);
    assert_eq!(of("float64").to_vec::<f64>().unwrap(), [1.0, -1.5, 0.0, 100.25]);
    assert_eq!(of("bool").bytes(), [1, 1, 0, 1]);
    assert_eq!(of("float16").bytes(), [0, 0x3c, 0, 0xbe, 0, 0, 0x44, 0x56]);
    assert_eq!(of("bfloat16").bytes(), [0x80, 0x3f, 0xc0, 0xbf, 0, 0, 0xc8, 0x42]);
    assert_eq!(of("complex64").dtype(), DType::Complex64);
    let out = call(&*session, "special", &[floats(&[2], &[1.0, 123_456.79])]).unwrap();
    let of = |alias: &str| output(&*session, "special", &out, alias);
    assert_eq!(of("d").to_vec::<f64>().unwrap()[0], 0.333_333_333_333_333_3);
    assert_eq!(of("third").to_vec::<f32>().unwrap(), [0.333_333_34, 41_152.266]);
    assert!(of("nan").to_vec::<f32>().unwrap().iter().all(|value| value.is_nan()));
    assert_eq!(of("ninf").to_vec::<f32>().unwrap(), [f32::NEG_INFINITY; 2]);
}

#[test]
fn errors_of_kernels_have_the_originals_words() {
    let Some(shared) = folder() else { return };
    let session = golden(&shared, "err");
    let given = |value: i32| Tensor::of(Shape::vector(1), &[value]).unwrap();
    let out = call(&*session, "serving_default", &[given(5)]).unwrap();
    assert_eq!(out[0].to_vec::<i32>().unwrap(), [2]);
    let error = call(&*session, "serving_default", &[given(0)]).unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().starts_with("Integer division by zero\n\t [[{{"), "{error}");
}

#[test]
fn outputs_of_unequal_batch_come_as_they_are() {
    let Some(shared) = folder() else { return };
    let session = golden(&shared, "mismatch");
    let out = call(&*session, "serving_default", &[floats(&[2], &[1.0, 2.0])]).unwrap();
    let of = |alias: &str| output(&*session, "serving_default", &out, alias);
    assert_eq!(*of("y"), floats(&[], &[3.0]));
    assert_eq!(*of("z"), floats(&[2], &[1.0, 2.0]));
}

#[test]
fn an_estimator_classifies_and_regresses() {
    let Some(shared) = folder() else { return };
    let session = golden(&shared, "estimator");
    let x = |value: f32| example(&[("x", float(&[value]))]);
    let given = strings(&[&x(1.0), &[x(2.0), x(3.0)].concat()]);
    let out = call(&*session, "classify_x_to_y", std::slice::from_ref(&given)).unwrap();
    let of = |alias: &str| output(&*session, "classify_x_to_y", &out, alias);
    assert_eq!(*of("scores"), floats(&[2, 2], &[-2.5, 2.5, -3.5, 3.5]));
    assert_eq!(of("classes").shape().dims(), [2, 2]);
    assert!(of("classes").strings().unwrap().iter().eq([&b"neg"[..], b"pos", b"neg", b"pos"]));
    let out = call(&*session, "regress_x_to_y", &[given]).unwrap();
    assert_eq!(out[0], floats(&[2, 1], &[2.5, 3.5]));
    let out = call(&*session, "serving_default", &[floats(&[1, 1], &[1.0])]).unwrap();
    assert_eq!(out[0], floats(&[1, 1], &[2.5]));
}

fn regress(session: &dyn Session, given: &[u8]) -> Status {
    call(session, "regress_x_to_y", &[strings(&[given])]).unwrap_err()
}

#[test]
fn bad_examples_are_told_in_the_originals_words() {
    let Some(shared) = folder() else { return };
    let session = golden(&shared, "estimator");
    let node = "\n\t [[{{node ParseExample/ParseExampleV2}}]]";
    let text = Kind::BytesList(BytesList { value: vec![b"a".to_vec().into()] });
    let whole = Kind::Int64List(Int64List { value: vec![1] });
    let cases: &[(Vec<u8>, &str)] = &[
        (
            example(&[]),
            "Name: <unknown>, Feature: x (data type: float) is required but could not be found.",
        ),
        (
            example(&[("x", float(&[1.0, 2.0]))]),
            "Name: <unknown>, Key: x, Index: 0.  Number of float values != expected.  Values size: 2 \
             but output shape: [1]",
        ),
        (
            example(&[("x", text)]),
            "Name: <unknown>, Key: x, Index: 0.  Data types don't match. Data type: string but \
             expected type: float",
        ),
        (
            example(&[("x", whole)]),
            "Name: <unknown>, Key: x, Index: 0.  Data types don't match. Data type: int64 but \
             expected type: float",
        ),
        (b"x".to_vec(), "Could not parse example input, value: 'x'"),
    ];
    for (given, want) in cases {
        let error = regress(&*session, given);
        assert_eq!(error.code(), Code::InvalidArgument);
        assert_eq!(error.message(), format!("{want}{node}"));
    }
}

#[test]
fn an_init_operator_is_described_but_not_called() {
    let Some(shared) = folder() else { return };
    let session = golden(&shared, "scalar");
    assert!(session.description().signatures.contains_key("__saved_model_init_op"));
    let error = call(&*session, "__saved_model_init_op", &[]).unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    let error = call(&*session, "nope", &[]).unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
}

#[test]
fn only_what_is_wanted_is_computed() {
    let Some(shared) = folder() else { return };
    let session = golden(&shared, "estimator");
    let signature = &session.description().signatures["classify_x_to_y"];
    let classes = signature.output("classes").unwrap();
    let given = strings(&[&example(&[("x", float(&[1.0]))])]);
    let mut run = session
        .prepare(&vesta_model::RunRequest {
            signature: "classify_x_to_y".to_owned(),
            inputs: vec![vesta_model::InputLayout::of(&given)],
            outputs: vec![classes],
        })
        .unwrap();
    run.input(0).copy_from_slice(given.bytes());
    let out = run.run(None).unwrap();
    assert_eq!(out.len(), 1);
    assert_eq!(out[0].dtype(), DType::String);
}

#[test]
fn a_deadline_that_passed_is_told() {
    let Some(shared) = folder() else { return };
    let session = golden(&shared, "scalar");
    let run = session
        .prepare(&vesta_model::RunRequest {
            signature: "serving_default".to_owned(),
            inputs: vec![vesta_model::InputLayout { shape: Shape::scalar(), string_bytes: 0 }],
            outputs: vec![0],
        })
        .unwrap();
    let error = run.run(Some(std::time::Instant::now())).unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
}

#[test]
fn small_models_may_run_inline() {
    let Some(shared) = folder() else { return };
    for model in ["half_plus_two/123", "multi/1", "strs/1"] {
        let session = load(&shared.join("golden/models").join(model)).unwrap();
        assert_eq!(session.inline_verdict(), Ok(()), "{model}");
    }
}

//! The contract's vectors for JSON, and the agreement of the ways to read a tensor.

use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::Value;
use vesta_model::{DType, Shape, Signature, StringsBuilder, Tensor, TensorSpec};

use super::example::ExamplesRequest;
use super::predict::{Form, PredictInputs, PredictRequest, read_at_once};
use super::{Refusal, float, write};
use crate::budget::Budget;

/// The contract's vectors of one kind; none, and a word about it, where they are not at hand.
pub(crate) fn vectors(kind: &str) -> Vec<Value> {
    let default = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let folder = std::env::var_os("VESTA_SHARED").map_or(default, PathBuf::from);
    let file = folder.join("contracts/tfs-rest-vectors.jsonl");
    let Ok(text) = std::fs::read_to_string(&file) else {
        assert!(std::env::var_os("CI").is_none(), "no vectors at {}", file.display());
        eprintln!("skipped: no vectors at {}; set VESTA_SHARED", file.display());
        return Vec::new();
    };
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let found: Vec<Value> = lines.filter(|vector| vector["kind"] == kind).collect();
    assert!(!found.is_empty(), "there is no vector of kind {kind}");
    found
}

fn dtype(name: &Value) -> DType {
    match name.as_str().unwrap() {
        "DT_INT32" => DType::I32,
        "DT_INT64" => DType::I64,
        "DT_UINT8" => DType::U8,
        "DT_UINT64" => DType::U64,
        "DT_FLOAT" => DType::F32,
        "DT_DOUBLE" => DType::F64,
        "DT_BOOL" => DType::Bool,
        "DT_STRING" => DType::String,
        "DT_HALF" => DType::F16,
        "DT_COMPLEX64" => DType::Complex64,
        other => panic!("{other}"),
    }
}

fn specs(map: &Value) -> Vec<TensorSpec> {
    let map = map.as_object().unwrap();
    map.iter().map(|(alias, name)| TensorSpec::dense(alias, dtype(name))).collect()
}

fn read(json: &str, signature: &Signature) -> Result<PredictInputs, Refusal> {
    let mut permit = Budget::new(1 << 28).permit();
    PredictRequest::parse(json.as_bytes())?.inputs(signature, &mut permit)
}

/// The elements of a tensor as JSON.
fn elements(tensor: &Tensor) -> Vec<Value> {
    let spec = TensorSpec::dense("x", tensor.dtype());
    let json = write::predictions(&[(&spec, tensor)], Form::Columnar).unwrap();
    let json: Value = serde_json::from_slice(&json).unwrap();
    fn flatten(value: &Value, out: &mut Vec<Value>) {
        match value {
            Value::Array(list) => list.iter().for_each(|value| flatten(value, out)),
            leaf => out.push(leaf.clone()),
        }
    }
    let mut out = Vec::new();
    flatten(&json["outputs"], &mut out);
    out
}

fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b || (a - b).abs() <= 1e-6 * a.abs().max(b.abs()),
        _ => a == b,
    }
}

fn check_error(refusal: &Refusal, expect: &Value, id: &Value) {
    let text = String::from_utf8(refusal.message.clone()).unwrap();
    if let Some(code) = expect["code"].as_str() {
        assert_eq!(refusal.code.name(), code, "{id}: {text}");
    }
    match (expect["error_exact"].as_str(), expect["error_contains"].as_str()) {
        (Some(exact), _) => assert_eq!(text, exact, "{id}"),
        (None, Some(part)) => assert!(text.contains(part), "{id}: {text}"),
        (None, None) => panic!("{id} wants no error but got {text}"),
    }
}

#[test]
fn predict_requests_are_read_as_the_contract_says() {
    for vector in vectors("predict_decode") {
        let id = &vector["id"];
        if vector["tensorinfo"]["default"] == "DT_HALF" {
            continue; // ours reads it
        }
        let signature = Signature::new("s", "", specs(&vector["tensorinfo"]), Vec::new());
        let expect = &vector["expect"];
        match read(vector["body"].as_str().unwrap(), &signature) {
            Err(refusal) => check_error(&refusal, expect, id),
            Ok(inputs) => {
                let form = if expect["format"] == "row" { Form::Row } else { Form::Columnar };
                assert_eq!(inputs.form, form, "{id}");
                for (spec, tensor) in signature.inputs.iter().zip(&inputs.tensors) {
                    let (tensor, want) = (tensor.as_ref().unwrap(), &expect["inputs"][&spec.alias]);
                    assert_eq!(serde_json::json!(tensor.shape().dims()), want["shape"], "{id}");
                    let mut values = want["values"].as_array().unwrap().clone();
                    if spec.dtype == DType::U8 {
                        values =
                            values.iter().map(|v| (v.as_i64().unwrap() as u8).into()).collect();
                    }
                    let got = elements(tensor);
                    assert_eq!(got.len(), values.len(), "{id}");
                    assert!(got.iter().zip(&values).all(|(a, b)| same(a, b)), "{id}: {got:?}");
                }
            }
        }
    }
}

fn tensor(vector: &Value) -> Tensor {
    let dims: Vec<usize> =
        vector["shape"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap() as usize).collect();
    let shape = Shape::new(dims).unwrap();
    let values = vector["values"].as_array().unwrap();
    let floats = || values.iter().map(|v| v.as_f64().unwrap());
    match dtype(&vector["dtype"]) {
        DType::I32 => {
            let values: Vec<i32> = values.iter().map(|v| v.as_i64().unwrap() as i32).collect();
            Tensor::of(shape, &values)
        }
        DType::F32 => Tensor::of(shape, &floats().map(|v| v as f32).collect::<Vec<_>>()),
        DType::F64 => Tensor::of(shape, &floats().collect::<Vec<_>>()),
        DType::String => {
            let mut strings = StringsBuilder::new();
            values.iter().for_each(|value| strings.push(value.as_str().unwrap().as_bytes()));
            Tensor::of_strings(shape, &strings)
        }
        dtype => {
            let bytes = vec![0; shape.bytes(dtype.width().unwrap()).unwrap()];
            Tensor::copied(dtype, shape, &bytes)
        }
    }
    .unwrap()
}

#[test]
fn answers_are_written_as_the_contract_says() {
    for vector in vectors("predict_encode") {
        let id = &vector["id"];
        let outputs = vector["outputs"].as_object().unwrap();
        if outputs.values().any(|output| output["dtype"] == "DT_HALF") {
            continue; // ours writes it
        }
        let tensors: Vec<(TensorSpec, Tensor)> = outputs
            .iter()
            .map(|(alias, output)| {
                (TensorSpec::dense(alias, dtype(&output["dtype"])), tensor(output))
            })
            .collect();
        let pairs: Vec<_> = tensors.iter().map(|(spec, tensor)| (spec, tensor)).collect();
        let form = if vector["format"] == "row" { Form::Row } else { Form::Columnar };
        match write::predictions(&pairs, form) {
            Err(refusal) => check_error(&refusal, &vector["expect"], id),
            Ok(json) => {
                let squeeze = |text: &str| text.split_whitespace().collect::<String>();
                let got = String::from_utf8(json).unwrap();
                let want = vector["expect"]["json_text"].as_str().unwrap();
                assert_eq!(squeeze(&got), squeeze(want), "{id}");
            }
        }
    }
}

#[test]
fn numbers_are_written_as_the_contract_says() {
    for vector in vectors("float_text") {
        let value = match vector["value"].as_str().unwrap() {
            "1/3" => 1.0 / 3.0,
            text => text.parse::<f64>().unwrap(),
        };
        let mut out = Vec::new();
        float::push_f32(&mut out, value as f32);
        assert_eq!(String::from_utf8(out).unwrap(), vector["float32_text"].as_str().unwrap());
        if let Some(want) = vector["float64_text"].as_str() {
            let mut out = Vec::new();
            float::push_f64(&mut out, value);
            assert_eq!(String::from_utf8(out).unwrap(), want);
        }
    }
}

#[test]
fn examples_are_refused_as_the_contract_says() {
    for vector in vectors("examples_decode") {
        let body = vector["body"].as_str().unwrap();
        let mut permit = Budget::new(1 << 20).permit();
        match ExamplesRequest::parse(body.as_bytes(), &mut permit) {
            Err(refusal) => check_error(&refusal, &vector["expect"], &vector["id"]),
            Ok(request) => {
                let want = vector["expect"]["examples"].as_array().map(Vec::len);
                assert_eq!(Some(request.examples.len()), want, "{}", vector["id"]);
            }
        }
    }
}

#[test]
fn results_are_written_as_the_contract_says() {
    let number = |value: &Value| match value.as_str() {
        Some(text) => text.parse::<f32>().unwrap(),
        None => value.as_f64().unwrap() as f32,
    };
    let check = |vector: &Value, result: Result<Vec<u8>, Refusal>| match result {
        Err(refusal) => check_error(&refusal, &vector["expect"], &vector["id"]),
        Ok(json) => {
            let squeeze = |text: &str| text.split_whitespace().collect::<String>();
            let want = vector["expect"]["json_text"].as_str().unwrap();
            assert_eq!(squeeze(std::str::from_utf8(&json).unwrap()), squeeze(want));
        }
    };
    for vector in vectors("regression_encode") {
        let values: Vec<f32> = vector["result"].as_array().unwrap().iter().map(number).collect();
        check(&vector, write::regressions(&values));
    }
    for vector in vectors("classification_encode") {
        let class =
            |pair: &Value| (pair[0].as_str().unwrap().as_bytes().to_vec(), number(&pair[1]));
        let rows = vector["result"].as_array().unwrap().iter();
        let results: Vec<Vec<_>> =
            rows.map(|row| row.as_array().unwrap().iter().map(class).collect()).collect();
        check(&vector, write::classifications(&results));
    }
}

/// Values that are nearly tensors.
fn nearly_tensor() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        8 => (-300i32..70000).prop_map(|v| v.to_string()),
        2 => (-5f64..5.0).prop_map(|v| format!("{v:?}")),
        1 => prop::sample::select(vec![
            "true", "null", "\"a\\u0041\"", "{\"b64\": \"YQ==\"}", "{\"b64\":\"*\"}", "{}", "NaN",
            "1e3", "99999999999", "{\"x\":1}", "[]", "18446744073709551615", "-0", "-1e-50",
        ]).prop_map(str::to_owned),
    ];
    leaf.prop_recursive(3, 24, 3, |inner| {
        prop::collection::vec(inner, 0..4).prop_map(|items| format!("[ {}]", items.join(" , ")))
    })
}

const DTYPES: [DType; 14] = [
    DType::F32,
    DType::F64,
    DType::I32,
    DType::I16,
    DType::I8,
    DType::U8,
    DType::I64,
    DType::U16,
    DType::U32,
    DType::U64,
    DType::Bool,
    DType::String,
    DType::F16,
    DType::Complex64,
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// A value is either read or has a fault with a name, and reading at once gives the same.
    #[test]
    fn ways_to_read_agree(
        values in prop::collection::vec(nearly_tensor(), 0..4),
        row in any::<bool>(),
        named in any::<bool>(),
        dtype in prop::sample::select(DTYPES.to_vec()),
    ) {
        let signature = Signature::new("s", "", vec![TensorSpec::dense("x", dtype)], Vec::new());
        let json = match (row, named) {
            (true, true) => {
                let rows: Vec<_> = values.iter().map(|v| format!("{{\"x\":{v}}}")).collect();
                format!("{{\"instances\":[{}]}}", rows.join(","))
            }
            (true, false) => format!("{{\"instances\":[{}]}}", values.join(",")),
            (false, true) => format!("{{\"inputs\":{{\"x\":[{}]}}}}", values.join(",")),
            (false, false) => format!("{{\"inputs\":{}}}", values.first().map_or("5", |v| v)),
        };
        let mut permit = Budget::new(1 << 20).permit();
        let at_once = read_at_once(json.as_bytes(), &signature, &mut permit);
        match read(&json, &signature) {
            Ok(inputs) => {
                prop_assert!(inputs.tensors[0].is_some());
                if let Some(at_once) = at_once {
                    prop_assert_eq!(at_once.tensors, inputs.tensors);
                    prop_assert_eq!(at_once.form, inputs.form);
                }
            }
            Err(refusal) => {
                prop_assert!(at_once.is_none(), "{} was read", json);
                let text = String::from_utf8_lossy(&refusal.message);
                prop_assert!(!text.contains("cannot be read as tensors"), "{}: {}", json, text);
                prop_assert_eq!(permit.bytes(), 0);
            }
        }
    }

    #[test]
    fn garbage_is_never_read_at_once_but_refused(
        bytes in prop::collection::vec(prop::sample::select(b"{}[],:\"\\inputs 019eN-.\0".to_vec()), 0..40),
    ) {
        let signature =
            Signature::new("s", "", vec![TensorSpec::dense("x", DType::F32)], Vec::new());
        let json = [b"{\"inputs\":[".as_slice(), &bytes].concat();
        let mut permit = Budget::new(1 << 20).permit();
        let at_once = read_at_once(&json, &signature, &mut permit);
        let exact = PredictRequest::parse(&json).and_then(|request| request.inputs(&signature, &mut permit));
        if let Some(at_once) = at_once {
            prop_assert_eq!(at_once.tensors, exact.unwrap().tensors);
        }
    }

    /// What is written is read back to the same bits.
    #[test]
    fn tensors_round_trip(floats in prop::collection::vec(any::<f32>(), 1..20), ints in prop::collection::vec(any::<i64>(), 1..20)) {
        let normal: Vec<f32> =
            floats.into_iter().filter(|v| v.is_finite() && !v.is_subnormal()).collect();
        let tensors = [
            Tensor::of(Shape::vector(normal.len()), &normal).unwrap(),
            Tensor::of(Shape::vector(ints.len()), &ints).unwrap(),
        ];
        for tensor in tensors {
            let spec = TensorSpec::dense("x", tensor.dtype());
            let json = write::predictions(&[(&spec, &tensor)], Form::Columnar).unwrap();
            let json = String::from_utf8(json).unwrap().replace("outputs", "inputs");
            let signature = Signature::new("s", "", vec![spec], Vec::new());
            let inputs = read(&json, &signature).unwrap();
            prop_assert_eq!(inputs.tensors[0].as_ref(), Some(&tensor));
        }
    }
}

#[test]
fn absurd_nesting_is_refused_quickly() {
    let signature = Signature::new("s", "", vec![TensorSpec::dense("x", DType::F32)], Vec::new());
    let deep = |n: usize| "[".repeat(n) + "1" + &"]".repeat(n);
    let start = std::time::Instant::now();
    for (n, want) in [
        (255, "tensor parsing error: x"),
        (511, "tensor parsing error: x"),
        (512, "JSON Parse error: More than 512 levels of brackets. at offset: 521"),
        (500_000, "JSON Parse error: More than 512 levels of brackets. at offset: 521"),
    ] {
        let text = read(&format!("{{\"inputs\":{}}}", deep(n)), &signature).unwrap_err().message;
        assert_eq!(String::from_utf8(text).unwrap(), want);
    }
    let text = read(&format!("{{\"instances\":{}}}", deep(255)), &signature).unwrap_err().message;
    assert_eq!(text, b"tensor parsing error: x");
    let most = read(&format!("{{\"inputs\":{}}}", deep(254)), &signature).unwrap();
    assert_eq!(most.tensors[0].as_ref().map(|tensor| tensor.shape().rank()), Some(254));
    let beside = |n: usize| format!("{{\"instances\":[1.0],\"nested\":{}}}", deep(n));
    assert!(read(&beside(511), &signature).is_ok());
    assert!(read(&beside(500_000), &signature).is_err());
    assert!(start.elapsed() < std::time::Duration::from_secs(5));
}

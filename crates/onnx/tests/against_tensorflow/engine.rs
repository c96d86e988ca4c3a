//! Runs a translated case on rten and compares.
//!
//! Invariant: a value that rten would change when it takes it in is foreign to it, not a wrong
//! answer: whole numbers beyond 32 bits, f64 and f16.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rten::{Model, Value, ValueOrView};
use rten_tensor::Tensor;
use rten_tensor::prelude::*;
use vesta_model::DType;
use vesta_onnx::Translation;

use crate::Verdict;
use crate::case::{Array, Case, Run};

/// Error that two orders of summation may differ by: relative to the number itself, and to the
/// largest number of its tensor, since sums of large numbers may come out small.
const RELATIVE_MAX: f64 = 2e-5;
const RELATIVE_TO_LARGEST_MAX: f64 = 2e-6;
const HALF_MAX: f64 = 4e-3;

pub(crate) fn judge(case: &Case, translation: &Translation, model: Vec<u8>) -> (Verdict, String) {
    if let Some(dtype) = foreign_dtype(translation) {
        return (Verdict::Foreign, format!("it has no {dtype}"));
    }
    let ran = catch_unwind(AssertUnwindSafe(|| run_all(case, translation, model)));
    ran.unwrap_or_else(|_| (Verdict::Wrong, "it panicked".into()))
}

/// A dtype of the model that rten replaces by another one.
fn foreign_dtype(translation: &Translation) -> Option<DType> {
    let held = [DType::F32, DType::I32, DType::I64, DType::Bool, DType::U8, DType::I8];
    translation.values.values().map(|facts| facts.dtype).find(|dtype| !held.contains(dtype))
}

fn run_all(case: &Case, translation: &Translation, model: Vec<u8>) -> (Verdict, String) {
    let model = match Model::load(model) {
        Ok(model) => model,
        Err(error) => return (Verdict::Unsupported, one_line(&error.to_string())),
    };
    for run in &case.runs {
        let (verdict, reason) = run_one(&model, translation, run);
        if verdict != Verdict::Agree {
            return (verdict, reason);
        }
    }
    (Verdict::Agree, String::new())
}

fn run_one(model: &Model, translation: &Translation, run: &Run) -> (Verdict, String) {
    let mut inputs: Vec<(rten::NodeId, ValueOrView)> = Vec::new();
    for (name, array) in translation.inputs.iter().zip(&run.inputs) {
        let Some(value) = to_value(array) else {
            return (Verdict::Foreign, "whole numbers beyond 32 bits".into());
        };
        // A feed that the fetches do not depend on is no input of the model.
        if let Ok(id) = model.node_id(name) {
            inputs.push((id, value.into()));
        }
    }
    let outputs: Vec<rten::NodeId> =
        translation.outputs.iter().map(|name| model.node_id(name).unwrap()).collect();
    let ran = model.run(inputs, &outputs, None);
    if run.fails {
        return match ran {
            Ok(_) => (Verdict::Wrong, "it answers where TensorFlow has an error".into()),
            Err(_) => (Verdict::Agree, String::new()),
        };
    }
    let results = match ran {
        Ok(results) => results,
        Err(error) => return (Verdict::Unsupported, one_line(&error.to_string())),
    };
    for (result, expected) in results.iter().zip(&run.outputs) {
        if let Err(reason) = compare(result, expected) {
            return (Verdict::Wrong, format!("{}: {reason}", expected.tensor));
        }
    }
    (Verdict::Agree, String::new())
}

fn one_line(text: &str) -> String {
    text.replace('\n', " ").chars().take(160).collect()
}

/// The elements as numbers.
fn numbers(array: &Array) -> Vec<f64> {
    let bytes = array.bytes.as_slice();
    match array.dtype {
        DType::F32 => each(bytes, |c: [u8; 4]| f32::from_le_bytes(c).into()),
        DType::F64 => each(bytes, f64::from_le_bytes),
        DType::I32 => each(bytes, |c: [u8; 4]| i32::from_le_bytes(c).into()),
        DType::I64 => each(bytes, |c: [u8; 8]| i64::from_le_bytes(c) as f64),
        DType::I8 => each(bytes, |c: [u8; 1]| i8::from_le_bytes(c).into()),
        DType::U8 | DType::Bool => each(bytes, |c: [u8; 1]| c[0].into()),
        other => panic!("no numbers of {other}"),
    }
}

fn each<const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> f64) -> Vec<f64> {
    bytes.chunks_exact(N).map(|chunk| read(chunk.try_into().unwrap())).collect()
}

fn to_value(array: &Array) -> Option<Value> {
    let values = numbers(array);
    let dims = array.dims.as_slice();
    Some(match array.dtype {
        DType::F32 => {
            let floats: Vec<f32> = values.iter().map(|&v| v as f32).collect();
            Tensor::from_data(dims, floats).into()
        }
        DType::I8 => {
            Tensor::from_data(dims, values.iter().map(|&v| v as i8).collect::<Vec<_>>()).into()
        }
        DType::U8 => {
            Tensor::from_data(dims, values.iter().map(|&v| v as u8).collect::<Vec<_>>()).into()
        }
        _ => {
            let fits = |&v: &f64| (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&v);
            if !values.iter().all(fits) {
                return None;
            }
            Tensor::from_data(dims, values.iter().map(|&v| v as i32).collect::<Vec<_>>()).into()
        }
    })
}

fn compare(result: &Value, expected: &Array) -> Result<(), String> {
    let (dtypes, dims, got): (&[DType], Vec<usize>, Vec<f64>) = match result {
        Value::FloatTensor(t) => {
            (&[DType::F32], t.shape().to_vec(), t.iter().map(|&v| v.into()).collect())
        }
        Value::Int32Tensor(t) => (
            &[DType::I32, DType::I64, DType::Bool],
            t.shape().to_vec(),
            t.iter().map(|&v| v.into()).collect(),
        ),
        Value::Int8Tensor(t) => {
            (&[DType::I8], t.shape().to_vec(), t.iter().map(|&v| v.into()).collect())
        }
        Value::UInt8Tensor(t) => {
            (&[DType::U8], t.shape().to_vec(), t.iter().map(|&v| v.into()).collect())
        }
        _ => return Err("no tensor".into()),
    };
    if !dtypes.contains(&expected.dtype) {
        return Err(format!("a tensor of {dtypes:?}, not {}", expected.dtype));
    }
    if dims != expected.dims {
        return Err(format!("shape {dims:?}, not {:?}", expected.dims));
    }
    let wanted = numbers(expected);
    let finite = wanted.iter().filter(|want| want.is_finite());
    let (share, share_of_largest) = match expected.dtype {
        // Which steps are rounded to half is the engine's own affair.
        DType::F16 => (HALF_MAX, HALF_MAX),
        _ => (RELATIVE_MAX, RELATIVE_TO_LARGEST_MAX),
    };
    let slack = finite.fold(1.0, |most: f64, want| most.max(want.abs())) * share_of_largest;
    for (at, (got, want)) in got.iter().zip(&wanted).enumerate() {
        let same = got == want || (got.is_nan() && want.is_nan());
        let is_float = matches!(expected.dtype, DType::F32 | DType::F16);
        let close = is_float && (got - want).abs() <= slack + share * want.abs();
        let agrees = same || (close && want.is_finite());
        if !agrees {
            return Err(format!("{got} at {at}, not {want}"));
        }
    }
    Ok(())
}

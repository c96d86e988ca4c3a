//! Records of every kind, on a session that writes down what it runs.

use std::sync::Mutex;

use vesta_model::{Code, DType, ModelDescription, Run, Shape, Signature, TensorSpec};
use vesta_protos::tensorflow::{self as tf, serving as proto};

use super::records::framed;
use super::*;

/// `serving_default` halves; `classify` and `regress` give the length of each example.
struct Written {
    description: ModelDescription,
    runs: Mutex<Vec<String>>,
}

fn session() -> Written {
    let dense = TensorSpec::dense;
    let signatures = [
        Signature::new(
            "serving_default",
            "tensorflow/serving/predict",
            vec![dense("x", DType::F32)],
            vec![dense("y", DType::F32)],
        ),
        Signature::new(
            "classify",
            "tensorflow/serving/classify",
            vec![dense("inputs", DType::String)],
            vec![dense("scores", DType::F32)],
        ),
        Signature::new(
            "regress",
            "tensorflow/serving/regress",
            vec![dense("inputs", DType::String)],
            vec![dense("outputs", DType::F32)],
        ),
    ];
    let signatures = signatures.into_iter().map(|one| (one.name.clone(), one.into())).collect();
    Written { description: ModelDescription { signatures }, runs: Mutex::default() }
}

impl Session for Written {
    fn description(&self) -> &ModelDescription {
        &self.description
    }

    fn prepare(&self, _: &RunRequest) -> Result<Box<dyn Run>, Status> {
        Err(Status::internal("warm-up hands its tensors over"))
    }

    fn run_over(
        &self,
        request: &RunRequest,
        inputs: Vec<Tensor>,
        deadline: Option<Instant>,
    ) -> Result<Vec<Tensor>, Status> {
        assert!(deadline.is_some());
        self.runs.lock().unwrap().push(request.signature.clone());
        let input = &inputs[0];
        if request.signature == "serving_default" {
            let values = input.to_vec::<f32>().unwrap();
            if values.iter().any(|value| value.is_nan()) {
                return Err(Status::invalid_argument("not a number"));
            }
            let halves: Vec<f32> = values.iter().map(|value| value / 2.0).collect();
            return Ok(vec![Tensor::of(input.shape().clone(), &halves)?]);
        }
        let strings = input.strings().unwrap();
        let lengths: Vec<f32> = strings.iter().map(|text| text.len() as f32).collect();
        let shape = match request.signature.as_str() {
            "classify" => Shape::new(vec![lengths.len(), 1])?,
            _ => Shape::vector(lengths.len()),
        };
        Ok(vec![Tensor::of(shape, &lengths)?])
    }
}

fn spec(signature: &str) -> Option<proto::ModelSpec> {
    // The name counts for nothing: the requests run on the version that they came with.
    let name = "another".to_owned();
    Some(proto::ModelSpec { name, signature_name: signature.to_owned(), version_choice: None })
}

fn log(kind: proto::prediction_log::LogType) -> Vec<u8> {
    proto::PredictionLog { log_metadata: None, log_type: Some(kind) }.encode_to_vec()
}

fn predict_of(signature: &str, x: f32) -> Vec<u8> {
    let tensor = tf::TensorProto {
        dtype: DType::F32.number(),
        float_val: vec![x],
        tensor_shape: Some(tf::TensorShapeProto {
            dim: vec![tf::tensor_shape_proto::Dim { size: 1, name: String::new() }],
            unknown_rank: false,
        }),
        ..tf::TensorProto::default()
    };
    let request = proto::PredictRequest {
        model_spec: spec(signature),
        inputs: [("x".to_owned(), tensor)].into(),
        ..proto::PredictRequest::default()
    };
    log(proto::prediction_log::LogType::PredictLog(proto::PredictLog {
        request: Some(request),
        response: None,
    }))
}

fn input() -> Option<proto::Input> {
    let list = proto::ExampleList { examples: vec![tf::Example::default(); 2] };
    Some(proto::Input { kind: Some(proto::input::Kind::ExampleList(list)) })
}

fn classify() -> Vec<u8> {
    let request = proto::ClassificationRequest { model_spec: spec("classify"), input: input() };
    log(proto::prediction_log::LogType::ClassifyLog(proto::ClassifyLog {
        request: Some(request),
        response: None,
    }))
}

fn regress() -> Vec<u8> {
    let request = proto::RegressionRequest { model_spec: spec("regress"), input: input() };
    log(proto::prediction_log::LogType::RegressLog(proto::RegressLog {
        request: Some(request),
        response: None,
    }))
}

fn multi() -> Vec<u8> {
    let task = |word: &str| proto::InferenceTask {
        model_spec: spec(word),
        method_name: format!("tensorflow/serving/{word}"),
    };
    let request = proto::MultiInferenceRequest {
        tasks: vec![task("classify"), task("regress")],
        input: input(),
    };
    log(proto::prediction_log::LogType::MultiInferenceLog(proto::MultiInferenceLog {
        request: Some(request),
        response: None,
    }))
}

fn file(records: &[Vec<u8>]) -> Vec<u8> {
    records.iter().flat_map(|bytes| framed(bytes)).collect()
}

fn warm_up(iterations: u32, file: &[u8]) -> (Result<usize, Status>, Vec<String>, String) {
    let metrics = Metrics::new().unwrap();
    let warm_up = WarmUp::new(iterations, 1 << 20, metrics.clone());
    let session = session();
    let outcome = warm_up.run(&session, file, "/m/1/file", "/m/1");
    let page = String::from_utf8(metrics.page()).unwrap();
    (outcome, session.runs.into_inner().unwrap(), page)
}

#[test]
fn the_runs_that_records_come_to_can_be_had() {
    let file = file(&[predict_of("", 1.0), multi(), classify()]);
    let metrics = Metrics::new().unwrap();
    let warm_up = WarmUp::new(5, 1 << 20, metrics);
    let session = session();
    let runs = warm_up.recorded_runs(&session, &*file, "/m/1/file", 2).unwrap();
    let names: Vec<&str> = runs.iter().map(|(request, _)| request.signature.as_str()).collect();
    assert_eq!(names, ["serving_default", "classify"]);
    assert_eq!(runs[0].1, [Tensor::of(Shape::vector(1), &[1f32]).unwrap()]);
    for (request, inputs) in &runs {
        let layouts: Vec<InputLayout> = inputs.iter().map(InputLayout::of).collect();
        assert_eq!(request.inputs, layouts);
    }
    assert!(warm_up.recorded_runs(&session, &b"garbage"[..], "/m/1/file", 2).is_err());
}

#[test]
fn records_of_every_kind_are_run_as_often_as_told() {
    let file = file(&[predict_of("", 1.0), classify(), regress(), multi(), Vec::new()]);
    let (outcome, runs, page) = warm_up(0, &file);
    assert_eq!(outcome, Ok(5), "a record without a kind is skipped");
    assert_eq!(runs, ["serving_default", "classify", "regress", "classify", "regress"]);
    let labels = "{model_path=\"/m/1\",status=\"OK\"}";
    let read = format!(":tensorflow:serving:model_warmup_records_read{labels} 5\n");
    assert!(page.contains(&read), "{page}");
    let timed = format!(":tensorflow:serving:model_warmup_latency_count{labels} 1\n");
    assert!(page.contains(&timed), "{page}");

    let (outcome, runs, _) = warm_up(3, &file);
    assert_eq!(outcome, Ok(5));
    assert_eq!(runs.len(), 15);
}

#[test]
fn any_failure_is_one_of_the_whole() {
    let fails = |bytes: &[u8]| {
        let (outcome, _, page) = warm_up(1, bytes);
        let status = outcome.unwrap_err();
        assert!(!page.contains("status=\"OK\""), "{page}");
        (status.code(), status.message().to_owned())
    };
    let nan = file(&[predict_of("", 1.0), predict_of("", f32::NAN)]);
    assert_eq!(fails(&nan), (Code::InvalidArgument, "not a number".to_owned()));
    let text = "Serving signature key \"absent\" not found.".to_owned();
    assert_eq!(fails(&file(&[predict_of("absent", 1.0)])), (Code::FailedPrecondition, text));
    let text = "corrupted record at 0. Please verify your warmup data is in TFRecord format.";
    assert_eq!(fails(b"this is no TFRecord"), (Code::DataLoss, text.to_owned()));
    let (code, text) = fails(&file(&[vec![0xff; 20]]));
    assert_eq!(code, Code::InvalidArgument);
    assert!(text.starts_with("Failed to parse warmup record: "), "{text}");
    for (kind, number) in [
        (proto::prediction_log::LogType::SessionRunLog(Default::default()), 5),
        (proto::prediction_log::LogType::PredictStreamedLog(Default::default()), 7),
    ] {
        let text = format!("Unsupported log_type for warmup: {number}");
        assert_eq!(fails(&file(&[log(kind)])), (Code::Unimplemented, text));
    }
}

#[test]
fn a_thousand_records_and_no_more() {
    let thousand = file(&vec![Vec::new(); 1000]);
    assert_eq!(warm_up(1, &thousand).0, Ok(1000));
    let status = warm_up(1, &[thousand, framed(b"")].concat()).0.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(
        status.message(),
        "Number of warmup records exceeds the maximum (1000) at /m/1/file"
    );
}

//! What is chosen, what a record says, and what is dropped.

use std::collections::BTreeMap;

use vesta_model::{BasePath, RequestLogForm, VersionPolicy};
use vesta_protos::tensorflow::TensorProto;

use super::super::warmup::records::Records;
use super::*;

fn config(model: &str, requests_per_billion: Option<u32>) -> ModelConfig {
    ModelConfig {
        name: model.into(),
        base_path: BasePath::Directory("/m".into()),
        policy: VersionPolicy::default(),
        labels: BTreeMap::new(),
        request_logging: requests_per_billion.map(|requests_per_billion| RequestLogging {
            form: RequestLogForm::TfRecord,
            path_prefix: "/log".into(),
            requests_per_billion,
        }),
    }
}

fn log() -> (RequestLog, Recordings, Metrics) {
    let metrics = Metrics::new().unwrap();
    let (log, recordings) = RequestLog::new(vec!["serve".to_owned()], metrics.clone());
    (log, recordings, metrics)
}

fn next(recordings: &Recordings) -> Next {
    recordings.next(Instant::now())
}

fn answered_by(signature: &str) -> proto::ModelSpec {
    let version = Some(proto::model_spec::VersionChoice::Version(7));
    proto::ModelSpec {
        name: "m".to_owned(),
        version_choice: version,
        signature_name: signature.to_owned(),
    }
}

fn predict() -> (Bytes, Bytes) {
    let tensor = TensorProto { dtype: 1, float_val: vec![2.0], ..TensorProto::default() };
    let request = proto::PredictRequest {
        inputs: [("x".to_owned(), tensor.clone())].into(),
        ..proto::PredictRequest::default()
    };
    let response = proto::PredictResponse {
        outputs: [("y".to_owned(), tensor)].into(),
        model_spec: Some(answered_by("serving_default")),
    };
    (request.encode_to_vec().into(), response.encode_to_vec().into())
}

fn record(recordings: &Recordings) -> Recorded {
    match next(recordings) {
        Next::Record(recorded) => recorded,
        _ => panic!("there is no record"),
    }
}

#[test]
fn the_share_is_kept() {
    let (log, _recordings, _) = log();
    assert!(!log.is_on() && log.choose("all").is_none());
    assert!(!RequestLog::default().is_on());
    let share = |share: u32| Some(share);
    log.configure(&[
        config("all", share(WHOLE)),
        config("none", share(0)),
        config("off", None),
        config("tenth", share(WHOLE / 10)),
    ]);
    assert!(log.is_on());
    let chosen = |model: &str| (0..10_000).filter(|_| log.choose(model).is_some()).count();
    assert_eq!((chosen("all"), chosen("none"), chosen("off"), chosen("nope")), (10_000, 0, 0, 0));
    let tenth = chosen("tenth");
    assert!((700..1300).contains(&tenth), "{tenth}");
    log.configure(&[]);
    assert!(!log.is_on());
}

#[test]
fn records_say_what_was_asked_and_answered() {
    let (log, recordings, _) = log();
    log.configure(&[config("m", Some(WHOLE))]);
    assert!(matches!(next(&recordings), Next::Routes(routes) if routes.len() == 1));
    let (request, response) = predict();
    log.choose("m").unwrap().answered(Call::Predict, request.clone(), response.clone());
    let recorded = record(&recordings);
    assert!(matches!(next(&recordings), Next::Idle));

    let file = recorded.tf_record();
    let bytes = Records::new(file.as_slice(), 1 << 20).next().unwrap().unwrap();
    let read = proto::PredictionLog::decode(bytes.as_slice()).unwrap();
    let metadata = read.log_metadata.unwrap();
    assert_eq!(metadata.model_spec, Some(answered_by("serving_default")));
    assert_eq!(metadata.saved_model_tags, ["serve"]);
    assert_eq!(metadata.sampling_config.unwrap().sampling_rate, 1.0);
    assert!(metadata.timestamp_secs > 1_700_000_000);
    let Some(proto::prediction_log::LogType::PredictLog(log)) = read.log_type else { panic!() };
    assert_eq!(log.request.unwrap().encode_to_vec(), request);
    assert_eq!(log.response.unwrap().encode_to_vec(), response);

    let line = String::from_utf8(recorded.json_line().unwrap()).unwrap();
    assert!(line.ends_with("}\n") && line.matches('\n').count() == 1, "{line}");
    let json: serde_json::Value = serde_json::from_str(&line).unwrap();
    let predict = &json["predict_log"];
    assert_eq!(predict["request"]["inputs"]["x"]["float_val"], serde_json::json!([2.0]));
    assert_eq!(predict["response"]["model_spec"]["version"], "7");
    assert_eq!(json["log_metadata"]["model_spec"]["name"], "m");
}

#[test]
fn multi_inference_is_of_the_model_of_its_results() {
    let (log, recordings, _) = log();
    log.configure(&[config("m", Some(WHOLE))]);
    next(&recordings);
    let result = proto::InferenceResult { model_spec: Some(answered_by("s")), result: None };
    let response = proto::MultiInferenceResponse { results: vec![result] };
    let response = Bytes::from(response.encode_to_vec());
    log.choose("m").unwrap().answered(Call::MultiInference, Bytes::new(), response);
    assert_eq!(record(&recordings).wire().metadata.unwrap().model_spec, Some(answered_by("s")));
}

#[test]
fn what_is_too_much_is_dropped_and_counted() {
    let (log, recordings, metrics) = log();
    log.configure(&[config("m", Some(WHOLE))]);
    next(&recordings);
    let answer = |bytes: usize| {
        let response = Bytes::from(vec![0; bytes]);
        log.choose("m").unwrap().answered(Call::Predict, Bytes::new(), response);
    };
    let dropped = || {
        let page = String::from_utf8(metrics.page()).unwrap();
        let label = "request_log_count{model_name=\"m\",status_code=\"RESOURCE_EXHAUSTED\"} ";
        page.split_once(label).map_or(0, |(_, rest)| rest.lines().next().unwrap().parse().unwrap())
    };
    answer(WAITING_BYTES_MAX + 1);
    assert_eq!(dropped(), 1);
    answer(WAITING_BYTES_MAX);
    answer(1);
    assert_eq!(dropped(), 2);
    record(&recordings);
    for _ in 0..WAITING_MAX + 5 {
        answer(1);
    }
    assert_eq!(dropped(), 7);
    for _ in 0..WAITING_MAX {
        record(&recordings);
    }
    assert!(matches!(next(&recordings), Next::Idle));
}

#[test]
fn a_route_that_stays_as_it_is_stays_the_same_one() {
    let (log, recordings, _) = log();
    let routes = || match next(&recordings) {
        Next::Routes(routes) => routes,
        _ => panic!("there are no routes"),
    };
    log.configure(&[config("a", Some(1)), config("b", Some(1))]);
    let mut first = routes();
    log.configure(&[config("b", Some(2)), config("a", Some(1))]);
    let mut second = routes();
    first.sort_by_key(|route| route.model.clone());
    second.sort_by_key(|route| route.model.clone());
    assert!(Arc::ptr_eq(&first[0], &second[0]));
    assert!(!Arc::ptr_eq(&first[1], &second[1]));
    drop((first, second));
    drop(log);
    assert!(matches!(next(&recordings), Next::End));
}

#[test]
fn an_example_that_cannot_be_read_has_no_line() {
    let (log, recordings, _) = log();
    log.configure(&[config("m", Some(WHOLE))]);
    next(&recordings);
    let garbage = Bytes::from_static(&[0xff; 9]);
    log.choose("m").unwrap().answered(Call::Classify, garbage, Bytes::new());
    let recorded = record(&recordings);
    assert_eq!(recorded.json_line().unwrap_err().code(), Code::InvalidArgument);
    assert!(!recorded.tf_record().is_empty());
}

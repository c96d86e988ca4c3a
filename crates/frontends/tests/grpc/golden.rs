//! The answers that were recorded from a real TensorFlow Serving, message for message.
//!
//! Left out: the one signature of every dtype, which the engine of these tests lacks, and the numbers
//! below the normal ones, which TensorFlow's kernels take for zero.

use base64::Engine as _;
use prost::Message;
use serde_json::Value;
use vesta_frontends::GrpcOptions;
use vesta_model::Code;
use vesta_protos::tensorflow::serving as proto;

use crate::client::{Server, call, shared};

fn bytes(text: &str) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}

/// A message in one form, whatever the order of its maps; NaN equals itself.
fn canonical(method: &str, message: &[u8]) -> Vec<u8> {
    fn of<M: Message + Default>(bytes: &[u8]) -> Vec<u8> {
        M::decode(bytes).unwrap().encode_to_vec()
    }
    match method {
        "Predict" => of::<proto::PredictResponse>(message),
        "Classify" => of::<proto::ClassificationResponse>(message),
        "Regress" => of::<proto::RegressionResponse>(message),
        "MultiInference" => of::<proto::MultiInferenceResponse>(message),
        "GetModelStatus" => of::<proto::GetModelStatusResponse>(message),
        "GetModelMetadata" => {
            let mut response = proto::GetModelMetadataResponse::decode(message).unwrap();
            for any in response.metadata.values_mut() {
                any.value = of::<proto::SignatureDefMap>(&any.value);
            }
            response.encode_to_vec()
        }
        _ => message.to_vec(),
    }
}

fn path(method: &str) -> String {
    match method {
        raw if raw.starts_with('/') => raw.to_owned(),
        "GetModelStatus" | "HandleReloadConfigRequest" => {
            format!("/tensorflow.serving.ModelService/{method}")
        }
        _ => format!("/tensorflow.serving.PredictionService/{method}"),
    }
}

async fn agrees(line: &Value, server: &Server) -> Result<(), String> {
    let method = line["method"].as_str().unwrap();
    let answer = call(server, &path(method), &bytes(line["req_b64"].as_str().unwrap())).await;
    let name = Code::from_number(answer.code()).map_or("OK", Code::name);
    if line["code"] != name {
        return Err(format!("{name}: {}", answer.details()));
    }
    if name != "OK" {
        let want = line["details"].as_str().unwrap_or_default();
        return if answer.details() == want { Ok(()) } else { Err(answer.details()) };
    }
    let want = bytes(line["resp_b64"].as_str().unwrap());
    let got = answer.message();
    if canonical(method, &got) == canonical(method, &want) {
        Ok(())
    } else {
        Err(format!("{got:x?}, wanted {want:x?}"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_answers_are_given() {
    let Some(shared) = shared() else { return };
    let server = Server::usual(GrpcOptions::default()).await;
    let text = std::fs::read_to_string(shared.join("golden/tfs-grpc.jsonl")).unwrap();
    let (mut agreed, mut left_out, mut wrong) = (0, 0, Vec::new());
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let beyond = line["id"] == 38 || line["id"] == 39;
        if beyond || !line["req_b64"].is_string() {
            left_out += 1;
            continue;
        }
        match agrees(&line, &server).await {
            Ok(()) => agreed += 1,
            Err(why) => wrong.push(format!(
                "#{} {} {}\n  got {why}\n  want {} {}",
                line["id"], line["method"], line["req"], line["code"], line["details"]
            )),
        }
    }
    assert!(wrong.is_empty(), "{agreed} agree, {} do not:\n{}", wrong.len(), wrong.join("\n"));
    assert!(agreed > 70 && left_out < 5, "{agreed} agree, {left_out} are left out");
    server.settle().await;
    let page = String::from_utf8(server.metrics.page()).unwrap();
    for part in [
        "request_count{model_name=\"half_plus_two\",status=\"OK\"}",
        "request_count{model_name=\"nope\",status=\"NOT_FOUND\"} 1\n",
        "request_latency_count{model_name=\"estimator\",API=\"Classify\",entrypoint=\"GRPC\"} 1\n",
        "runtime_latency_count{model_name=\"estimator\",API=\"Regress\",runtime=\"TF1\"} 1\n",
    ] {
        assert!(page.contains(part), "{part} is not in {page}");
    }
    server.stop().await.unwrap();
}

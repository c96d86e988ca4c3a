//! HandleReloadConfigRequest, as recorded and beyond.

use prost::Message as _;
use vesta_frontends::{Budget, GrpcOptions};
use vesta_model::Status;
use vesta_protos::tensorflow::serving as proto;
use vesta_protos::tensorflow::serving::metric::ValueIncrease;
use vesta_protos::tensorflow::serving::model_server_config::Config;

use crate::client::{Remembers, Server, call, exchange, framed, predict};

const RELOAD: &str = "/tensorflow.serving.ModelService/HandleReloadConfigRequest";

fn request(models: &[(&str, &str)]) -> proto::ReloadConfigRequest {
    let config = |&(name, path): &(&str, &str)| proto::ModelConfig {
        name: name.to_owned(),
        base_path: path.to_owned(),
        model_platform: "tensorflow".to_owned(),
        ..Default::default()
    };
    let list = proto::ModelConfigList { config: models.iter().map(config).collect() };
    proto::ReloadConfigRequest {
        config: Some(proto::ModelServerConfig { config: Some(Config::ModelConfigList(list)) }),
        ..Default::default()
    }
}

#[tokio::test]
async fn lists_are_passed_on_whole_or_refused() {
    let server = Server::usual(GrpcOptions::default()).await;
    let good = request(&[("a", "/m/a"), ("b", "file:///m/b")]).encode_to_vec();
    let answer = call(&server, RELOAD, &good).await;
    // A status is there, and it is OK.
    assert_eq!(answer.message(), &[10, 0][..]);
    {
        let lists = server.remembers.lists.lock().unwrap();
        let paths: Vec<_> = lists[0].iter().map(|model| model.base_path.to_string()).collect();
        assert_eq!(paths, ["/m/a", "/m/b"]);
    }
    for (bad, text) in [
        (
            request(&[("a", "/m/a"), ("a", "/m/b")]),
            "Illegal to list model a multiple times in config list",
        ),
        (
            request(&[("rel", "rel/path")]),
            "Expected model rel to have an absolute path or URI; got base_path()=rel/path",
        ),
        (
            proto::ReloadConfigRequest::default(),
            "ServerModelConfig type not supported by HandleReloadConfigRequest. Only \
             ModelConfigList is currently supported",
        ),
    ] {
        let answer = call(&server, RELOAD, &bad.encode_to_vec()).await;
        assert_eq!((answer.code(), answer.details().as_str()), (3, text));
    }
    assert_eq!(server.remembers.lists.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn failures_and_metrics_are_told() {
    let failure = Status::unknown("1 model(s) did not become available: {{{name: bad}, }");
    let serving = crate::rig::serve_models().await;
    let remembers = Remembers { failure: Some(failure.clone()), ..Remembers::default() };
    let server =
        Server::start(serving, GrpcOptions::default(), Budget::new(1 << 20), remembers).await;
    let answer = call(&server, RELOAD, &request(&[("bad", "/m")]).encode_to_vec()).await;
    assert_eq!((answer.code(), answer.details().as_str()), (2, failure.message()));

    let server = Server::usual(GrpcOptions::default()).await;
    call(&server, crate::client::PREDICT, &predict("half_plus_two", &[1.0])).await;
    let mut request = request(&[("a", "/m/a")]);
    request.metric_names = vec!["/tensorflow/serving/request_count".into(), "none".into()];
    let answer = call(&server, RELOAD, &request.encode_to_vec()).await;
    let response: proto::ReloadConfigResponse = answer.parsed();
    let increases: Vec<_> = response
        .metric
        .iter()
        .map(|metric| (metric.name.as_str(), metric.value_increase))
        .collect();
    let none = Some(ValueIncrease::Int64ValueIncrease(0));
    assert_eq!(increases, [("/tensorflow/serving/request_count", none), ("none", none)]);
}

#[tokio::test]
async fn a_panic_is_an_answer() {
    let serving = crate::rig::serve_models().await;
    let remembers = Remembers { panics: true, ..Remembers::default() };
    let server =
        Server::start(serving, GrpcOptions::default(), Budget::new(1 << 20), remembers).await;
    let mut send = server.connect().await;
    for _ in 0..2 {
        let reload = framed(&request(&[("a", "/m")]).encode_to_vec());
        let head = crate::client::request(&server, RELOAD);
        let answer = exchange(&mut send, head, reload, true).await.unwrap();
        assert_eq!(answer.code(), 13);
        assert_eq!(answer.details(), "the server failed to answer this call; its log says more");
    }
    server.settle().await;
}

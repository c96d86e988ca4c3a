//! Calls whose clients wait no longer than they said.

use std::sync::Arc;

use futures_util::future::join_all;
use prost::Message as _;
use vesta_frontends::{Budget, GrpcOptions};
use vesta_protos::tensorflow::serving as proto;
use vesta_protos::tensorflow::serving::model_server_config::Config;

use crate::client::{PREDICT, Remembers, Server, exchange, framed, predict, request};
use crate::slow::{Gate, serve_gated};

const RELOAD: &str = "/tensorflow.serving.ModelService/HandleReloadConfigRequest";
const CALLS: usize = 40;

/// Codes and texts of many calls of one time-out, sent at slightly different moments, since two
/// timers that nearly agree are told apart by chance.
async fn answers(server: &Server, path: &str, message: &[u8]) -> Vec<(i32, String)> {
    let calls = (0..CALLS as u64).map(|i| async move {
        tokio::time::sleep(std::time::Duration::from_micros(i * 370)).await;
        let head = request(server, path).header("grpc-timeout", "150m");
        let mut send = server.connect().await;
        let answer = exchange(&mut send, head, framed(message), true).await.unwrap();
        (answer.code(), answer.details())
    });
    join_all(calls).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_past_its_deadline_is_deadline_exceeded() {
    let gate = Arc::new(Gate::default());
    let serving = serve_gated(Arc::clone(&gate)).await;
    let remembers = Remembers { hangs: true, ..Remembers::default() };
    let server =
        Server::start(serving, GrpcOptions::default(), Budget::new(1 << 20), remembers).await;

    let list = Config::ModelConfigList(proto::ModelConfigList::default());
    let reload = proto::ReloadConfigRequest {
        config: Some(proto::ModelServerConfig { config: Some(list) }),
        ..Default::default()
    };
    for answer in answers(&server, RELOAD, &reload.encode_to_vec()).await {
        assert_eq!(answer, (4, "Deadline Exceeded".to_owned()));
    }

    let opened = {
        let (open, opened) = std::sync::mpsc::channel::<()>();
        let (closed, is_closed) = std::sync::mpsc::channel();
        // A guard may not be held where a task may change threads.
        let holder = std::thread::spawn(move || {
            let _hold = gate.close();
            closed.send(()).unwrap();
            let _ = opened.recv();
        });
        is_closed.recv().unwrap();
        (open, holder)
    };
    for answer in answers(&server, PREDICT, &predict("m", &[1.0])).await {
        assert_eq!(answer, (4, "Timed out waiting for notification".to_owned()));
    }
    drop(opened.0);
    opened.1.join().unwrap();
    server.settle().await;
}

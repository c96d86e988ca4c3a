//! The clients that TensorFlow Serving's users have: grpcio with the published stubs.
//!
//! Runs when `VESTA_CLIENT_PYTHON` names a Python with the package tensorflow-serving-api.

use std::process::Command;

use vesta_frontends::GrpcOptions;

use crate::client::Server;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn published_stubs_work_over_both_sockets() {
    let Some(python) = std::env::var_os("VESTA_CLIENT_PYTHON") else {
        assert!(std::env::var_os("CI").is_none(), "VESTA_CLIENT_PYTHON is not set");
        eprintln!("skipped: VESTA_CLIENT_PYTHON names no Python with tensorflow-serving-api");
        return;
    };
    let options = GrpcOptions { health: true, ..GrpcOptions::default() };
    let server = Server::usual(options).await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/grpc/client.py");
    let targets = [server.address.to_string(), format!("unix:{}", server.socket.display())];
    let status = tokio::task::spawn_blocking(move || {
        Command::new(python).arg(script).args(targets).env("TF_CPP_MIN_LOG_LEVEL", "3").status()
    });
    assert!(status.await.unwrap().unwrap().success());
    server.settle().await;
}

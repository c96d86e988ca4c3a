//! What the server does with requests that are wrong, huge, given up or in vain.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use prost::Message as _;
use vesta_frontends::{AnswerCompression, Budget, GrpcOptions};
use vesta_model::Version;
use vesta_serving::Aspired;

use crate::client::{PREDICT, Remembers, Server, call, exchange, framed, predict, request, ys};
use crate::slow::{Gate, serve_gated};

/// Bytes of memory that this process holds.
fn resident_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[tokio::test]
async fn an_answer_has_the_originals_headers() {
    let server = Server::usual(GrpcOptions::default()).await;
    let answer = call(&server, PREDICT, &predict("half_plus_two", &[1.0, 2.0, 5.0])).await;
    assert_eq!(ys(&answer), [2.5, 3.0, 4.5]);
    assert_eq!(answer.headers["content-type"], "application/grpc");
    let trailers = answer.trailers.unwrap();
    assert_eq!(trailers["grpc-status"], "0");
    assert_eq!(trailers.len(), 1);
}

#[tokio::test]
async fn compressed_requests_are_inflated() {
    let server = Server::usual(GrpcOptions::default()).await;
    let message = predict("half_plus_two", &[2.0; 1000]);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&message).unwrap();
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
    zlib.write_all(&message).unwrap();
    for (name, bytes) in [("gzip", gzip.finish().unwrap()), ("deflate", zlib.finish().unwrap())] {
        let mut body = framed(&bytes).to_vec();
        body[0] = 1;
        let mut send = server.connect().await;
        let request_of = || request(&server, PREDICT).header("grpc-encoding", name);
        let answer = exchange(&mut send, request_of(), body.into(), true).await.unwrap();
        assert_eq!(ys(&answer), [3.0; 1000]);
        // The flag alone decides: with it off, the bytes are taken as they are.
        let answer = exchange(&mut send, request_of(), framed(&message), true).await.unwrap();
        assert_eq!(ys(&answer).len(), 1000);
    }
    let mut send = server.connect().await;
    let odd = request(&server, PREDICT).header("grpc-encoding", "zstd");
    let answer = exchange(&mut send, odd, framed(&message), true).await.unwrap();
    assert_eq!(answer.code(), 12);
    assert_eq!(answer.headers["grpc-accept-encoding"], "identity,deflate,gzip");
    server.settle().await;
}

#[tokio::test]
async fn answers_are_compressed_for_those_who_take_it() {
    let options = GrpcOptions { compression: AnswerCompression::Gzip, ..GrpcOptions::default() };
    let server = Server::usual(options).await;
    let message = predict("half_plus_two", &[2.0; 1000]);
    let mut send = server.connect().await;
    let takes = request(&server, PREDICT).header("grpc-accept-encoding", "identity, gzip");
    let answer = exchange(&mut send, takes, framed(&message), true).await.unwrap();
    assert_eq!(answer.headers["grpc-encoding"], "gzip");
    assert!(answer.body[0] == 1 && answer.body.len() < 1000, "{} bytes", answer.body.len());
    assert_eq!(ys(&call(&server, PREDICT, &message).await).len(), 1000);
}

#[tokio::test]
async fn a_prefix_that_claims_gigabytes_costs_nothing() {
    let server = Server::usual(GrpcOptions::default()).await;
    let mut send = server.connect().await;
    let before = resident_bytes();
    let two_gib = Bytes::from_static(&[0, 0x80, 0, 0, 0]);
    let answer = exchange(&mut send, request(&server, PREDICT), two_gib, false).await.unwrap();
    assert_eq!(answer.code(), 8);
    assert_eq!(
        answer.details(),
        "SERVER: Received message larger than max (2147483648 vs. 2147483647)"
    );
    // Just below the limit a prefix is believed, and waited for.
    let below = Bytes::from_static(&[0, 0x7f, 0xff, 0xff, 0xff, 1, 2, 3]);
    let waiting = exchange(&mut send, request(&server, PREDICT), below, false);
    assert!(tokio::time::timeout(Duration::from_millis(300), waiting).await.is_err());
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more");
    server.settle().await;
}

#[tokio::test]
async fn what_is_no_message_is_internal_without_a_word() {
    let server = Server::usual(GrpcOptions::default()).await;
    let mut send = server.connect().await;
    let whole = framed(&predict("half_plus_two", &[1.0]));
    let cut = whole.slice(..whole.len() - 1);
    let more = [&whole[..], &[0]].concat().into();
    let twice = [&whole[..], &whole].concat().into();
    let garbage = framed(&[0xff; 3]);
    for body in [cut, more, twice, garbage, Bytes::new(), Bytes::from_static(&[0, 0])] {
        let answer =
            exchange(&mut send, request(&server, PREDICT), body.clone(), true).await.unwrap();
        assert_eq!((answer.code(), answer.details()), (13, String::new()), "{body:?}");
        assert!(answer.trailers.is_none(), "an error is headers alone");
    }
    // The connection serves on.
    let answer = exchange(&mut send, request(&server, PREDICT), whole, true).await.unwrap();
    assert_eq!(ys(&answer), [2.5]);
    server.settle().await;
}

#[tokio::test]
async fn what_is_no_call_is_refused() {
    let server = Server::usual(GrpcOptions::default()).await;
    let body = framed(&predict("half_plus_two", &[1.0]));
    for path in ["/tensorflow.serving.PredictionService/Nope", "/x", "/", "/a/b/c"] {
        let answer = call(&server, path, &[]).await;
        assert_eq!((answer.code(), answer.details()), (12, String::new()), "{path}");
    }
    let uri = format!("http://{}{PREDICT}", server.address);
    let mut send = server.connect().await;
    let json = http::Request::post(&uri).header("content-type", "application/json");
    assert_eq!(exchange(&mut send, json, body.clone(), true).await.unwrap().http, 415);
    let get = http::Request::get(&uri).header("content-type", "application/grpc");
    assert_eq!(exchange(&mut send, get, body, true).await.unwrap().http, 405);
}

#[tokio::test]
async fn metadata_may_be_large() {
    let server = Server::usual(GrpcOptions::default()).await;
    let body = framed(&predict("half_plus_two", &[1.0]));
    let mut send = server.connect().await;
    let large = request(&server, PREDICT).header("x", "y".repeat(60_000));
    assert_eq!(ys(&exchange(&mut send, large, body.clone(), true).await.unwrap()), [2.5]);
    let larger = request(&server, PREDICT).header("x", "y".repeat(80_000));
    let refused = exchange(&mut send, larger, body.clone(), true).await;
    assert!(refused.is_err() || refused.is_ok_and(|answer| answer.http == 431));
    let mut send = server.connect().await;
    let answer = exchange(&mut send, request(&server, PREDICT), body, true).await.unwrap();
    assert_eq!(ys(&answer), [2.5]);
}

#[tokio::test]
async fn a_used_up_budget_is_told_at_once() {
    let serving = crate::rig::serve_models().await;
    let budget = Budget::new(100_000);
    let server = Server::start(serving, GrpcOptions::default(), budget, Remembers::default()).await;
    let mut send = server.connect().await;
    let large = framed(&predict("half_plus_two", &[1.0; 50_000]));
    let answer = exchange(&mut send, request(&server, PREDICT), large, true).await.unwrap();
    assert_eq!(answer.code(), 8);
    assert!(answer.details().starts_with("the requests under way hold"), "{}", answer.details());
    let small = framed(&predict("half_plus_two", &[1.0; 1000]));
    let answer = exchange(&mut send, request(&server, PREDICT), small, true).await.unwrap();
    assert_eq!(ys(&answer).len(), 1000);
    server.settle().await;
}

#[tokio::test]
async fn a_small_message_of_a_huge_tensor_holds_up_nobody() {
    use vesta_protos::tensorflow::serving::{ModelSpec, PredictRequest};
    use vesta_protos::tensorflow::{DataType, TensorProto, TensorShapeProto, tensor_shape_proto};
    let server = Server::usual(GrpcOptions::default()).await;
    let dim = tensor_shape_proto::Dim { size: 200_000_000, ..Default::default() };
    let tensor = TensorProto {
        // Not the dtype of the model, so that the reading of it is all that is done.
        dtype: DataType::DtInt8.into(),
        tensor_shape: Some(TensorShapeProto { dim: vec![dim], unknown_rank: false }),
        int_val: vec![7],
        ..Default::default()
    };
    let request = PredictRequest {
        model_spec: Some(ModelSpec { name: "half_plus_two".into(), ..Default::default() }),
        inputs: [("x".to_owned(), tensor)].into(),
        ..Default::default()
    };
    let message = request.encode_to_vec();
    assert!(message.len() < 100);
    // The server shares this test's one thread; a beat tells how long that was held up.
    let held_up = std::cell::Cell::new(Duration::ZERO);
    let beat = async {
        loop {
            let last = Instant::now();
            tokio::time::sleep(Duration::from_millis(1)).await;
            held_up.set(held_up.get().max(last.elapsed()));
        }
    };
    let start = Instant::now();
    let answer = tokio::select! {
        answer = call(&server, PREDICT, &message) => answer,
        () = beat => unreachable!("it goes on"),
    };
    let took = start.elapsed();
    assert_eq!(answer.details(), "Expects arg[0] to be float but int8 is provided");
    let held_up = held_up.get();
    assert!(held_up < took / 2, "held up for {held_up:?} of {took:?}");
    server.settle().await;
}

#[tokio::test]
async fn large_tensors_go_through() {
    let server = Server::usual(GrpcOptions::default()).await;
    let message = predict("half_plus_two", &vec![2.0; 3_000_000]);
    let mut send = server.connect().await;
    let body = request(&server, PREDICT);
    let answer = exchange(&mut send, body, framed(&message), true).await.unwrap();
    let ys = ys(&answer);
    assert!(ys.len() == 3_000_000 && ys.iter().all(|&y| y == 3.0));
    drop(answer);
    server.settle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_goes_away_or_waits_no_longer_is_not_computed_for() {
    let gate = Arc::new(Gate::default());
    let serving = serve_gated(Arc::clone(&gate)).await;
    let server =
        Server::start(serving, GrpcOptions::default(), Budget::new(1 << 20), Remembers::default())
            .await;
    let body = framed(&predict("m", &[1.0]));
    let mut send = server.connect().await;
    let (first, abandoned, late);
    {
        let hold = gate.close();
        // The first run takes the one thread; the others wait in their queue.
        let head = request(&server, PREDICT).body(()).unwrap();
        let (answer, mut stream) = send.send_request(head, false).unwrap();
        stream.send_data(body.clone(), true).unwrap();
        first = answer;
        let start = Instant::now();
        while gate.runs.load(Ordering::SeqCst) == 0 {
            assert!(start.elapsed() < Duration::from_secs(10));
            std::thread::sleep(Duration::from_millis(5));
        }
        let head = request(&server, PREDICT).body(()).unwrap();
        let (answer, mut stream) = send.send_request(head, false).unwrap();
        stream.send_data(body.clone(), true).unwrap();
        drop(stream);
        abandoned = answer;
        let head = request(&server, PREDICT).header("grpc-timeout", "200m").body(()).unwrap();
        let (answer, mut stream) = send.send_request(head, false).unwrap();
        stream.send_data(body.clone(), true).unwrap();
        late = answer;
        std::thread::sleep(Duration::from_millis(100));
        drop(abandoned);
        std::thread::sleep(Duration::from_millis(400));
        drop(hold);
    }
    assert_eq!(late.await.unwrap().headers()["grpc-status"], "4");
    assert_eq!(first.await.unwrap().status(), 200);
    let answer = exchange(&mut send, request(&server, PREDICT), body, true).await.unwrap();
    assert_eq!(ys(&answer), [1.0]);
    assert_eq!(gate.runs.load(Ordering::SeqCst), 2, "the first and the last");
    server.settle().await;
}

#[tokio::test]
async fn health_answers_only_when_told_to() {
    const CHECK: &str = "/grpc.health.v1.Health/Check";
    let server = Server::usual(GrpcOptions::default()).await;
    assert_eq!(call(&server, CHECK, &[]).await.code(), 12);
    let options = GrpcOptions { health: true, ..GrpcOptions::default() };
    let server = Server::usual(options).await;
    assert_eq!(call(&server, CHECK, &[]).await.message(), &[8, 1][..]);
    let unknown = call(&server, CHECK, &[10, 1, b'x']).await;
    assert_eq!((unknown.code(), unknown.details().as_str()), (5, "service name unknown"));

    // Watch says it once and stays, until the server ends.
    let mut send = server.connect().await;
    let head = request(&server, "/grpc.health.v1.Health/Watch").body(()).unwrap();
    let (answer, mut stream) = send.send_request(head, false).unwrap();
    stream.send_data(framed(&[]), true).unwrap();
    let mut body = answer.await.unwrap().into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), &[0, 0, 0, 0, 2, 8, 1][..]);
    let silence = tokio::time::timeout(Duration::from_millis(200), body.data()).await;
    assert!(silence.is_err());
    let stopping = tokio::spawn(server.stop());
    assert_eq!(body.data().await.unwrap().unwrap(), &[0, 0, 0, 0, 2, 8, 2][..]);
    assert!(body.data().await.is_none());
    assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "14");
    drop((send, body));
    stopping.await.unwrap().unwrap();
}

#[tokio::test]
async fn health_follows_what_serves() {
    let serving = crate::rig::serve_models().await;
    let options = GrpcOptions { health: true, ..GrpcOptions::default() };
    let server =
        Server::start(serving.clone(), options, Budget::new(1 << 20), Remembers::default()).await;
    let mut send = server.connect().await;
    let head = request(&server, "/grpc.health.v1.Health/Watch").body(()).unwrap();
    let (answer, mut stream) = send.send_request(head, false).unwrap();
    stream.send_data(framed(&[]), true).unwrap();
    let mut body = answer.await.unwrap().into_body();
    let framed_status = |status: u8| vec![0, 0, 0, 0, 2, 8, status];
    assert_eq!(body.data().await.unwrap().unwrap(), framed_status(1));

    // The one model that is configured there goes and comes back.
    let versions = serving.models().into_iter().find(|(name, _)| name.as_str() == "versioned");
    assert!(versions.is_some_and(|(_, versions)| !versions.is_empty()));
    serving.aspire(&"versioned".into(), Vec::new());
    assert_eq!(body.data().await.unwrap().unwrap(), framed_status(2));
    let wanted = Aspired {
        version: Version(1),
        artifact: Ok("/models/versioned/1".into()),
        tags: vec!["serve".to_owned()],
        edition: None,
    };
    serving.aspire(&"versioned".into(), vec![wanted]);
    assert_eq!(body.data().await.unwrap().unwrap(), framed_status(1));
    serving.begin_drain();
    assert_eq!(body.data().await.unwrap().unwrap(), framed_status(2));
    let check = call(&server, "/grpc.health.v1.Health/Check", &[]).await;
    assert_eq!(check.message(), &[8, 2][..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_under_way_are_answered_before_the_end() {
    let gate = Arc::new(Gate::default());
    let serving = serve_gated(Arc::clone(&gate)).await;
    let server =
        Server::start(serving, GrpcOptions::default(), Budget::new(1 << 20), Remembers::default())
            .await;
    let address = server.address;
    let mut send = server.connect().await;
    let (answer, stopping);
    {
        let hold = gate.close();
        let head = request(&server, PREDICT).body(()).unwrap();
        let (pending, mut stream) = send.send_request(head, false).unwrap();
        stream.send_data(framed(&predict("m", &[1.0])), true).unwrap();
        answer = pending;
        while gate.runs.load(Ordering::SeqCst) == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        stopping = tokio::spawn(server.stop());
        std::thread::sleep(Duration::from_millis(200));
        assert!(std::net::TcpStream::connect(address).is_err(), "nothing new is taken");
        drop(hold);
    }
    assert_eq!(answer.await.unwrap().status(), 200);
    drop(send);
    stopping.await.unwrap().unwrap();
}

#[tokio::test]
async fn time_to_end_is_bounded() {
    let gate = Arc::new(Gate::default());
    let serving = serve_gated(Arc::clone(&gate)).await;
    let options = GrpcOptions { drain: Duration::from_millis(200), ..GrpcOptions::default() };
    let server = Server::start(serving, options, Budget::new(1 << 20), Remembers::default()).await;
    // A request that never ends.
    let mut send = server.connect().await;
    let head = request(&server, PREDICT).body(()).unwrap();
    let (_answer, _stream) = send.send_request(head, false).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.stop().await.unwrap();
}

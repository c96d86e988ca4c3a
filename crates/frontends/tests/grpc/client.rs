//! A gRPC server in this process, and a client that sends and shows every byte.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, Request};
use prost::Message;
use tokio::sync::oneshot;
use vesta_frontends::{Budget, GrpcOptions, Metrics, serve_grpc};
use vesta_model::{ModelConfig, Status};
use vesta_serving::{Reconfigure, Serving};

/// Remembers the lists that it was given, and answers as it was told.
#[derive(Default)]
pub(crate) struct Remembers {
    pub(crate) lists: Mutex<Vec<Vec<ModelConfig>>>,
    pub(crate) failure: Option<Status>,
    pub(crate) panics: bool,
    pub(crate) hangs: bool,
}

impl Reconfigure for Remembers {
    fn reconfigure(
        &self,
        models: Vec<ModelConfig>,
    ) -> Pin<Box<dyn Future<Output = Result<(), Status>> + Send + '_>> {
        self.lists.lock().unwrap().push(models);
        assert!(!self.panics, "on purpose");
        Box::pin(async {
            if self.hangs {
                std::future::pending::<()>().await;
            }
            self.failure.clone().map_or(Ok(()), Err)
        })
    }
}

/// A server that is told to stop when it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) socket: PathBuf,
    pub(crate) budget: Budget,
    pub(crate) metrics: Metrics,
    pub(crate) remembers: Arc<Remembers>,
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<Result<(), Status>>,
    _folder: tempfile::TempDir,
}

/// What came back of a call.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) http: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Server {
    pub(crate) async fn start(
        serving: Serving,
        options: GrpcOptions,
        budget: Budget,
        remembers: Remembers,
    ) -> Server {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("grpc.sock");
        let unix = UnixListener::bind(&socket).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let metrics = Metrics::new().unwrap();
        let remembers = Arc::new(remembers);
        let task = tokio::spawn(serve_grpc(
            vec![listener],
            Some(unix),
            serving,
            Arc::clone(&remembers) as Arc<dyn Reconfigure>,
            options,
            metrics.clone(),
            budget.clone(),
            async {
                let _ = stopped.await;
            },
        ));
        let stop = Some(stop);
        Server { address, socket, budget, metrics, remembers, stop, task, _folder: folder }
    }

    /// One with the recorded models.
    pub(crate) async fn usual(options: GrpcOptions) -> Server {
        let serving = crate::rig::serve_models().await;
        Server::start(serving, options, Budget::new(1 << 30), Remembers::default()).await
    }

    pub(crate) async fn connect(&self) -> SendRequest<Bytes> {
        let stream = tokio::net::TcpStream::connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (send, connection) = h2::client::Builder::new()
            .initial_window_size(1 << 24)
            .initial_connection_window_size(1 << 24)
            .handshake(stream)
            .await
            .unwrap();
        tokio::spawn(connection);
        send.ready().await.unwrap()
    }

    /// Tells the server to stop and waits until it has.
    pub(crate) async fn stop(mut self) -> Result<(), Status> {
        self.stop.take();
        tokio::time::timeout(Duration::from_secs(20), self.task).await.unwrap().unwrap()
    }

    /// Waits until all bytes are given back.
    pub(crate) async fn settle(&self) {
        for _ in 0..200 {
            if self.budget.bytes_taken() == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{} bytes are not given back", self.budget.bytes_taken());
    }
}

pub(crate) fn framed(message: &[u8]) -> Bytes {
    let mut out = vec![0];
    out.extend((message.len() as u32).to_be_bytes());
    out.extend_from_slice(message);
    out.into()
}

pub(crate) fn request(server: &Server, path: &str) -> http::request::Builder {
    Request::post(format!("http://{}{path}", server.address))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
}

/// Sends `body` as it is; then waits for what comes.
pub(crate) async fn exchange(
    send: &mut SendRequest<Bytes>,
    request: http::request::Builder,
    body: Bytes,
    ends: bool,
) -> Result<Answer, h2::Error> {
    let request = request.body(()).unwrap();
    *send = send.clone().ready().await?;
    let (response, mut stream) = send.send_request(request, false)?;
    // A server that has answered already takes no more.
    let _ = stream.send_data(body, ends);
    let response = response.await?;
    let (head, mut stream) = response.into_parts();
    let mut body = BytesMut::new();
    while let Some(piece) = stream.data().await {
        let piece = piece?;
        let _ = stream.flow_control().release_capacity(piece.len());
        body.extend_from_slice(&piece);
    }
    let trailers = stream.trailers().await?;
    Ok(Answer { http: head.status.as_u16(), headers: head.headers, body: body.freeze(), trailers })
}

impl Answer {
    fn last_headers(&self) -> &HeaderMap {
        self.trailers.as_ref().unwrap_or(&self.headers)
    }

    pub(crate) fn code(&self) -> i32 {
        self.last_headers()["grpc-status"].to_str().unwrap().parse().unwrap()
    }

    pub(crate) fn details(&self) -> String {
        let Some(text) = self.last_headers().get("grpc-message") else { return String::new() };
        let mut out = Vec::new();
        let mut bytes = text.as_bytes().iter();
        while let Some(&byte) = bytes.next() {
            if byte == b'%' {
                let hex = [*bytes.next().unwrap(), *bytes.next().unwrap()];
                let hex = std::str::from_utf8(&hex).unwrap();
                out.push(u8::from_str_radix(hex, 16).unwrap());
            } else {
                out.push(byte);
            }
        }
        String::from_utf8(out).unwrap()
    }

    /// The one message of an answer that went well.
    pub(crate) fn message(&self) -> Bytes {
        assert_eq!((self.http, self.code()), (200, 0), "{self:?}");
        assert!(!self.headers.contains_key("grpc-status"), "a status belongs to the trailers");
        let len = u32::from_be_bytes(self.body[1..5].try_into().unwrap()) as usize;
        assert_eq!((self.body[0], self.body.len()), (0, 5 + len));
        self.body.slice(5..)
    }

    pub(crate) fn parsed<M: Message + Default>(&self) -> M {
        M::decode(self.message()).unwrap()
    }
}

pub(crate) const PREDICT: &str = "/tensorflow.serving.PredictionService/Predict";

pub(crate) async fn call(server: &Server, path: &str, message: &[u8]) -> Answer {
    let mut send = server.connect().await;
    exchange(&mut send, request(server, path), framed(message), true).await.unwrap()
}

/// A Predict of `x` on `model`.
pub(crate) fn predict(model: &str, x: &[f32]) -> Vec<u8> {
    use vesta_protos::tensorflow::serving::{ModelSpec, PredictRequest};
    use vesta_protos::tensorflow::{DataType, TensorProto, TensorShapeProto, tensor_shape_proto};
    let dim = tensor_shape_proto::Dim { size: x.len() as i64, ..Default::default() };
    let tensor = TensorProto {
        dtype: DataType::DtFloat.into(),
        tensor_shape: Some(TensorShapeProto { dim: vec![dim], unknown_rank: false }),
        tensor_content: x.iter().flat_map(|x| x.to_le_bytes()).collect(),
        ..Default::default()
    };
    let spec = ModelSpec { name: model.to_owned(), ..Default::default() };
    let request = PredictRequest {
        model_spec: Some(spec),
        inputs: [("x".to_owned(), tensor)].into(),
        ..Default::default()
    };
    request.encode_to_vec()
}

/// The values of `y` in an answer to it.
pub(crate) fn ys(answer: &Answer) -> Vec<f32> {
    let response: vesta_protos::tensorflow::serving::PredictResponse = answer.parsed();
    response.outputs["y"].float_val.clone()
}

pub(crate) fn shared() -> Option<PathBuf> {
    let default = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let folder = std::env::var_os("VESTA_SHARED").map_or(default, PathBuf::from);
    if folder.join("golden/tfs-grpc.jsonl").exists() {
        return Some(folder);
    }
    assert!(std::env::var_os("CI").is_none(), "no recorded answers at {}", folder.display());
    eprintln!("skipped: no recorded answers at {}; set VESTA_SHARED", folder.display());
    None
}

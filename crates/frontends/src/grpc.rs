//! The gRPC server: HTTP/2 below, TensorFlow Serving's calls above.
//!
//! Owns: connections, messages on the wire ([`message`], [`answer`]), the way of a call from its
//! headers to its trailers ([`exchange`]), health checks, encryption ([`tls`]), the authority of Unix
//! sockets ([`frames`]). May not know: what a call does, how sockets are bound.
//! Invariant: a call is answered by a status whatever it holds and whatever goes wrong in it, and
//! what it holds in memory has been taken out of the budget.

mod answer;
mod exchange;
mod frames;
mod health;
mod hpack;
mod incoming;
mod message;
mod tls;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt, Shared, join_all};
use futures_util::stream::{Stream, TryStreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::Server;
use tonic::transport::server::Connected;
use vesta_model::Status;
use vesta_serving::{Reconfigure, Serving};

pub(crate) use answer::Reply;
pub use tls::Tls;

use crate::budget::Budget;
use crate::metrics::Metrics;
use crate::offload::Offload;
use crate::tfs::method_check::MethodCheck;
use crate::tfs::request_log::RequestLog;
use crate::tfs::rpc::Calls;
use crate::tfs::tensor_proto::TensorForm;
use exchange::Exchange;
use incoming::LocalStream;

/// Work on fewer bytes is done on the wire's own threads.
const BYTES_IN_PLACE_MAX: usize = 1 << 20;

/// How the original compresses its answers when it is told to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AnswerCompression {
    /// Not at all.
    #[default]
    None,
    /// zlib, which gRPC calls deflate.
    Deflate,
    /// gzip.
    Gzip,
}

/// Limits and choices of the gRPC server.
#[derive(Clone)]
pub struct GrpcOptions {
    /// Keys and certificates of all sockets; `None` for no encryption.
    pub tls: Option<Tls>,
    /// The longest request message, inflated. The original's limit is the largest 32-bit integer.
    pub message_bytes_max: usize,
    /// The most metadata that a request may have.
    pub header_bytes_max: u32,
    /// What a client may send of one call before any of it was read.
    pub stream_window_bytes: u32,
    /// What a client may send of all calls of a connection before any of it was read.
    pub connection_window_bytes: u32,
    /// The largest HTTP/2 frame that clients may send, from 16 KiB to just under 16 MiB.
    pub frame_bytes_max: u32,
    /// Calls at once on one connection; more wait at the client.
    pub streams_max: u32,
    /// How long a connection may be silent before it is asked whether it is still there.
    pub keepalive_interval: Duration,
    /// How long it may take to answer that.
    pub keepalive_timeout: Duration,
    /// When a connection is asked to end, so that clients spread anew; `None` for never.
    pub connection_age_max: Option<Duration>,
    /// Whether the health service answers.
    pub health: bool,
    /// Whether tensors are answered as raw content rather than as lists of values.
    pub tensors_as_content: bool,
    /// Whether calls are refused on signatures whose method name is another call's.
    pub method_check: MethodCheck,
    /// Calls that may be under way at once; one more is refused at once. `None` for no limit but
    /// those of queues and memory.
    pub calls_max: Option<usize>,
    /// How answers are compressed, for clients that take it.
    pub compression: AnswerCompression,
    /// How long calls under way may go on once the shutdown began.
    pub drain: Duration,
    /// Where calls are recorded.
    pub request_log: RequestLog,
}

impl Default for GrpcOptions {
    fn default() -> GrpcOptions {
        GrpcOptions {
            tls: None,
            message_bytes_max: i32::MAX as usize,
            header_bytes_max: 64 * 1024,
            // Smaller windows cost large tensors a third of their speed.
            stream_window_bytes: 4 * 1024 * 1024,
            connection_window_bytes: 16 * 1024 * 1024,
            frame_bytes_max: 256 * 1024,
            streams_max: 1024,
            keepalive_interval: Duration::from_secs(120),
            keepalive_timeout: Duration::from_secs(20),
            connection_age_max: None,
            health: false,
            tensors_as_content: false,
            method_check: MethodCheck::default(),
            calls_max: None,
            compression: AnswerCompression::None,
            drain: Duration::from_secs(30),
            request_log: RequestLog::default(),
        }
    }
}

/// Says, to all that ask, that the server shuts down.
type Ending = Shared<Pin<Box<dyn Future<Output = ()> + Send>>>;

/// Serves gRPC on all these sockets, which are bound and listen already, until `shutdown` resolves;
/// then takes no new calls, and returns once those under way are answered or `drain` is over.
///
/// # Errors
/// `INTERNAL` when a socket cannot be used.
#[expect(clippy::too_many_arguments, reason = "each is a part of the server of its own")]
pub async fn serve_grpc(
    tcp: Vec<std::net::TcpListener>,
    unix: Option<std::os::unix::net::UnixListener>,
    serving: Serving,
    reconfigure: Arc<dyn Reconfigure>,
    options: GrpcOptions,
    metrics: Metrics,
    budget: Budget,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Status> {
    let shutdown: BoxFuture<'static, ()> = Box::pin(shutdown);
    let ending: Ending = shutdown.shared();
    let form = if options.tensors_as_content { TensorForm::Content } else { TensorForm::Fields };
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let calls = Calls {
        serving,
        reconfigure,
        metrics,
        budget: budget.clone(),
        offload: Offload::new(processors, BYTES_IN_PLACE_MAX),
        form,
        method_check: options.method_check,
        request_log: options.request_log.clone(),
    };
    let exchange = Exchange::new(calls, budget, &options, ending.clone());
    let mut servers: Vec<Serves> = Vec::new();
    for listener in tcp {
        let connections = incoming::tcp(listener)?;
        servers.push(match &options.tls {
            None => serve_on(connections, &exchange, &options, &ending),
            Some(tls) => serve_on(tls.connections(connections), &exchange, &options, &ending),
        });
    }
    if let Some(listener) = unix {
        let connections = incoming::unix(listener)?;
        servers.push(match &options.tls {
            None => serve_on(connections.map_ok(LocalStream::new), &exchange, &options, &ending),
            Some(tls) => {
                let connections = tls.connections(connections).map_ok(LocalStream::new);
                serve_on(connections, &exchange, &options, &ending)
            }
        });
    }
    let all = join_all(servers);
    let out_of_time = async {
        ending.await;
        tokio::time::sleep(options.drain).await;
    };
    tokio::select! {
        results = all => {
            for result in results {
                result.map_err(|error| {
                    Status::internal(format!("the gRPC server failed: {error}")).with_cause(error)
                })?;
            }
        }
        () = out_of_time => {
            tracing::warn!("gRPC calls were still under way when the time to end them was over");
        }
    }
    Ok(())
}

/// One socket that is served until the end.
type Serves = BoxFuture<'static, Result<(), tonic::transport::Error>>;

fn serve_on<C, S>(
    connections: C,
    exchange: &Exchange,
    options: &GrpcOptions,
    ending: &Ending,
) -> Serves
where
    C: Stream<Item = std::io::Result<S>> + Send + 'static,
    S: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    S::ConnectInfo: Clone + Send + Sync,
{
    let server = transport(options).serve_with_incoming_shutdown(
        exchange.clone(),
        connections,
        ending.clone(),
    );
    Box::pin(server)
}

fn transport(options: &GrpcOptions) -> Server {
    let server = Server::builder()
        .initial_stream_window_size(options.stream_window_bytes)
        .initial_connection_window_size(options.connection_window_bytes)
        .max_frame_size(options.frame_bytes_max)
        .max_concurrent_streams(options.streams_max)
        .http2_max_header_list_size(options.header_bytes_max)
        .http2_keepalive_interval(Some(options.keepalive_interval))
        .http2_keepalive_timeout(Some(options.keepalive_timeout));
    match options.connection_age_max {
        Some(age) => server.max_connection_age(age),
        None => server,
    }
}

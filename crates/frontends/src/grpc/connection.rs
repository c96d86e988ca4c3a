//! The life of connections, from their first byte to their last.
//!
//! Owns: the HTTP/2 server of each connection, its limits, and when it is asked to end. May not know:
//! what is said on it, how it came in.
//! Invariant: a connection that is asked to end takes no new calls and answers those under way, unless
//! the time that they were given is over.

use std::convert::Infallible;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{Stream, StreamExt as _};
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tonic::body::Body as TonicBody;

use super::exchange::Exchange;
use super::{Ending, GrpcOptions};

/// Serves every connection until the end, then those that are open until they close.
pub(super) async fn serve<S>(
    connections: impl Stream<Item = io::Result<S>>,
    exchange: Exchange,
    options: GrpcOptions,
    ending: Ending,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let options = Arc::new(options);
    let mut open = JoinSet::new();
    {
        // Dropped with this block, so that nobody connects to a server that ends.
        let mut connections = pin!(connections);
        let mut end = ending.clone();
        loop {
            tokio::select! {
                () = &mut end => break,
                Some(_) = open.join_next(), if !open.is_empty() => {}
                next = connections.next() => match next {
                    Some(Ok(stream)) => {
                        let (exchange, options) = (exchange.clone(), Arc::clone(&options));
                        open.spawn(connection(stream, exchange, options, ending.clone()));
                    }
                    Some(Err(error)) => tracing::debug!(%error, "a gRPC connection failed"),
                    None => break,
                },
            }
        }
    }
    while open.join_next().await.is_some() {}
}

async fn connection<S>(stream: S, exchange: Exchange, options: Arc<GrpcOptions>, mut ending: Ending)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let calls = options.connection_idle_max.map(|_| Arc::new(Calls::default()));
    let counted = calls.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let under_way = counted.as_ref().map(UnderWay::begin);
        let answer = exchange.call(request.map(TonicBody::new));
        async move {
            let answer = answer.await;
            Ok::<_, Infallible>(match under_way {
                None => answer,
                Some(under_way) => hold(answer, under_way),
            })
        }
    });
    let mut connection = pin!(builder(&options).serve_connection(TokioIo::new(stream), service));
    let mut age_over = options.connection_age_max.map(|age| Instant::now() + spread(age));
    let mut grace_over = None;
    let mut idle_over = idle_end(&options, calls.as_deref());
    let mut told = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a gRPC connection ended early");
                }
                return;
            }
            () = &mut ending, if !told => {
                told = true;
                connection.as_mut().graceful_shutdown();
            }
            () = until(age_over), if age_over.is_some() && !told => {
                age_over = None;
                told = true;
                grace_over = options.connection_age_grace.map(|grace| Instant::now() + grace);
                connection.as_mut().graceful_shutdown();
            }
            () = until(grace_over), if grace_over.is_some() => {
                tracing::debug!("a gRPC connection was cut, for its calls took longer than its grace");
                return;
            }
            () = until(idle_over), if idle_over.is_some() && !told => {
                let now = Instant::now();
                idle_over = idle_end(&options, calls.as_deref());
                // Calls since then, or under way now, begin the time anew.
                if idle_over.is_some_and(|end| end <= now) {
                    told = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

fn builder(options: &GrpcOptions) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(options.stream_window_bytes)
        .initial_connection_window_size(options.connection_window_bytes)
        .max_frame_size(options.frame_bytes_max)
        .max_concurrent_streams(options.streams_max)
        .max_header_list_size(options.header_bytes_max)
        .keep_alive_interval(Some(options.keepalive_interval))
        .keep_alive_timeout(options.keepalive_timeout);
    builder
}

/// The age, a tenth more or less, so that clients of one moment do not come back all at once.
fn spread(age: Duration) -> Duration {
    let random = RandomState::new().hash_one(()) % 201;
    age.mul_f64(0.9 + random as f64 / 1000.0)
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// When the connection will have been idle for as long as it may.
fn idle_end(options: &GrpcOptions, calls: Option<&Calls>) -> Option<Instant> {
    Some(calls?.idle_since() + options.connection_idle_max?)
}

/// The calls of a connection.
struct Calls {
    /// How many are under way, and when that last changed.
    state: Mutex<(usize, Instant)>,
}

impl Default for Calls {
    fn default() -> Calls {
        Calls { state: Mutex::new((0, Instant::now())) }
    }
}

impl Calls {
    fn change(&self, change: impl FnOnce(usize) -> usize) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = (change(state.0), Instant::now());
    }

    /// Since when no call is under way; now if one is.
    fn idle_since(&self) -> Instant {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.0 == 0 { state.1 } else { Instant::now() }
    }
}

/// One call, until the last of its answer was sent.
struct UnderWay {
    calls: Arc<Calls>,
}

impl UnderWay {
    fn begin(calls: &Arc<Calls>) -> UnderWay {
        calls.change(|count| count + 1);
        UnderWay { calls: Arc::clone(calls) }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.calls.change(|count| count.saturating_sub(1));
    }
}

fn hold(answer: Response<TonicBody>, under_way: UnderWay) -> Response<TonicBody> {
    answer.map(|body| TonicBody::new(Held { body, _under_way: under_way }))
}

struct Held {
    body: TonicBody,
    _under_way: UnderWay,
}

impl Body for Held {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_spread_by_a_tenth() {
        let age = Duration::from_secs(100);
        let spread: Vec<Duration> = (0..50).map(|_| spread(age)).collect();
        assert!(spread.iter().all(|s| (90..=111).contains(&s.as_secs())), "{spread:?}");
        assert!(spread.iter().any(|s| *s != spread[0]));
    }
}

//! The HTTP/1 server under the REST interface.
//!
//! Owns: connections, their limits and time-outs, bodies (reassembled as they arrive, inflated,
//! counted against the budget), and the end of it all when the server stops.
//! May not know: what a request means.
//! Invariant: nothing is reserved on a client's word; each body and each connection has a limit.

use std::convert::Infallible;
use std::io::Read as _;
use std::net::TcpListener;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use flate2::bufread::MultiGzDecoder;
use http::header::{CONNECTION, CONTENT_ENCODING};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use vesta_model::Status;
use vesta_serving::Serving;

use crate::budget::{Budget, Permit};
use crate::metrics::Metrics;
use crate::tfs::rest::{Answer, Rest, RestOptions};

/// Headers of one request. The original has no limit; 2,000 are known to be sent.
const HEADERS_MAX: usize = 2200;
/// Bytes of a request's head. One header of a megabyte is known to be sent.
const HEAD_BYTES_MAX: usize = 5 << 18;
/// How long to wait after a connection could not be accepted, for lack of file descriptors mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a refused body is read on, so that the client gets to read the answer.
const LINGER: Duration = Duration::from_secs(2);
/// Inflated bodies are counted in steps of this size.
const INFLATE_STEP_BYTES: usize = 1 << 18;

/// Serves TensorFlow Serving's REST interface on `listener` until `shutdown` resolves, then lets
/// requests under way end.
///
/// # Errors
/// `INTERNAL` when the listener cannot be used.
pub async fn serve_rest(
    listener: TcpListener,
    serving: Serving,
    options: RestOptions,
    metrics: Metrics,
    budget: Budget,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Status> {
    serve(listener, Rest::new(serving, options, metrics, budget), shutdown).await
}

/// Serves `rest` on `listener`; see [`serve_rest`].
///
/// # Errors
/// `INTERNAL` when the listener cannot be used.
pub async fn serve(
    listener: TcpListener,
    rest: Rest,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Status> {
    let unusable = |error: std::io::Error| {
        Status::internal(format!("the REST port cannot be listened on: {error}")).with_cause(error)
    };
    listener.set_nonblocking(true).map_err(unusable)?;
    let listener = tokio::net::TcpListener::from_std(listener).map_err(unusable)?;
    let places = Arc::new(Semaphore::new(rest.options().connections_max.max(1)));
    let (stop, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accept = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            (place, accepted) = accept => match accepted {
                Ok((stream, _)) => {
                    let connection = connection(stream, rest.clone(), stopped.clone());
                    connections.spawn(async move {
                        connection.await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a REST connection cannot be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    // The receivers live in the connections; without any there is nobody to tell.
    let _ = stop.send(true);
    let drained =
        timeout(rest.options().drain, async { while connections.join_next().await.is_some() {} });
    if drained.await.is_err() {
        tracing::warn!(
            open = connections.len(),
            "REST connections are cut at the end of the drain"
        );
    }
    Ok(())
}

async fn connection(stream: TcpStream, rest: Rest, mut stopped: watch::Receiver<bool>) {
    // Answers are written whole, so waiting for more to send would only delay them.
    let _ = stream.set_nodelay(true);
    let head_timeout = rest.options().head_timeout;
    let service = service_fn(move |request| {
        let rest = rest.clone();
        async move { Ok::<_, Infallible>(respond(&rest, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_headers(HEADERS_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = told(&mut stopped) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a REST connection ended early");
    }
}

/// Resolves when the server is told to stop.
async fn told(stopped: &mut watch::Receiver<bool>) {
    // A sender that is gone has stopped too.
    let _ = stopped.wait_for(|&stopped| stopped).await;
}

async fn respond(rest: &Rest, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let answer = match take_body(rest, &head.headers, body).await {
        Ok((body, permit)) => {
            let target = head.uri.path_and_query().map_or("*", |target| target.as_str());
            rest.answer(head.method.as_str(), target, &head.headers, body, permit).await
        }
        Err(refused) => {
            let mut answer = match refused {
                Refused::TooLarge => rest.refuse_size(),
                Refused::Because(status) => rest.refuse(&status),
            };
            answer.headers.insert(CONNECTION, HeaderValue::from_static("close"));
            answer
        }
    };
    let Answer { status, headers, body } = answer;
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// Why a body was not taken in.
enum Refused {
    /// It has more bytes than one may have.
    TooLarge,
    Because(Status),
}

impl From<Status> for Refused {
    fn from(status: Status) -> Refused {
        Refused::Because(status)
    }
}

/// The body, inflated if need be, and the permit for its bytes.
async fn take_body(
    rest: &Rest,
    headers: &HeaderMap,
    mut body: Incoming,
) -> Result<(Bytes, Permit), Refused> {
    let mut permit = rest.budget().permit();
    let bytes = match read_body(rest.options(), &mut body, &mut permit).await {
        Ok(bytes) => bytes,
        Err(refused) => {
            // A client that is still sending would not see an answer before a closed connection.
            let _ = timeout(LINGER, async { while let Some(Ok(_)) = body.frame().await {} }).await;
            return Err(refused);
        }
    };
    if !is_gzip(headers) || bytes.is_empty() {
        return Ok((bytes, permit));
    }
    let bytes_max = rest.options().inflated_bytes_max.min(rest.options().body_bytes_max);
    // Few bytes may become many, so even those are inflated in turn.
    Ok(rest.codec().run_long(move || inflate(&bytes, bytes_max, permit)).await?)
}

/// Takes in a body as it arrives.
async fn read_body(
    options: &RestOptions,
    body: &mut Incoming,
    permit: &mut Permit,
) -> Result<Bytes, Refused> {
    let bytes_max = options.body_bytes_max;
    // What the client announces is good for refusing early, not for reserving memory.
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(Refused::TooLarge);
    }
    let mut first = Bytes::new();
    let mut joined = BytesMut::new();
    loop {
        let frame = timeout(options.body_timeout, body.frame()).await.map_err(|_| {
            Status::deadline_exceeded("the body paused for too long while it was sent")
        })?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| {
            Status::invalid_argument(
                "the body ended before it was whole, or its chunks are malformed",
            )
            .with_cause(error)
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + joined.len() + data.len() > bytes_max {
            return Err(Refused::TooLarge);
        }
        permit.grow(data.len())?;
        // Most bodies come in one piece and need no copy.
        if first.is_empty() && joined.is_empty() {
            first = data;
        } else {
            if joined.is_empty() {
                joined.extend_from_slice(&std::mem::take(&mut first));
            }
            joined.extend_from_slice(&data);
        }
    }
    Ok(if joined.is_empty() { first } else { joined.freeze() })
}

/// Whether a body is compressed. Other encodings are taken as they are, as the original does.
fn is_gzip(headers: &HeaderMap) -> bool {
    let encoding = headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes).unwrap_or_default();
    memchr::memmem::find(encoding, b"gzip").is_some()
}

/// Inflates a body. One that is no gzip, or inflates to more than `bytes_max`, is an empty body.
fn inflate(bytes: &[u8], bytes_max: usize, mut permit: Permit) -> Result<(Bytes, Permit), Status> {
    let mut decoder = MultiGzDecoder::new(bytes);
    let mut inflated = Vec::new();
    loop {
        let start = inflated.len();
        permit.grow(INFLATE_STEP_BYTES)?;
        match (&mut decoder).take(INFLATE_STEP_BYTES as u64).read_to_end(&mut inflated) {
            Ok(0) => break,
            Ok(read) if start + read <= bytes_max => {
                permit.shrink(INFLATE_STEP_BYTES.saturating_sub(read));
            }
            Ok(_) | Err(_) => {
                inflated.clear();
                break;
            }
        }
    }
    // The compressed bytes end here.
    let surplus = permit.bytes().saturating_sub(inflated.len());
    permit.shrink(surplus);
    Ok((inflated.into(), permit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn bodies_inflate_up_to_a_limit() {
        let budget = Budget::new(1 << 22);
        let plain = vec![b'x'; 600_000];
        let packed = gzip(&plain);
        let (bytes, permit) =
            inflate(&packed, 1 << 20, budget.take(packed.len()).unwrap()).unwrap();
        assert_eq!(bytes, plain);
        assert_eq!(permit.bytes(), plain.len());
        let (bytes, permit) = inflate(&packed, 1 << 19, budget.permit()).unwrap();
        assert!(bytes.is_empty());
        assert_eq!(permit.bytes(), 0);
        let (bytes, _) = inflate(b"not gzip", 1 << 19, budget.permit()).unwrap();
        assert!(bytes.is_empty());
        let (bytes, _) = inflate(&packed[..packed.len() / 2], 1 << 20, budget.permit()).unwrap();
        assert!(bytes.is_empty());
        let small = Budget::new(1 << 18);
        assert!(inflate(&packed, 1 << 20, small.permit()).is_err());
    }
}

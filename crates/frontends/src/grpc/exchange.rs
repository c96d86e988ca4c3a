//! The way of one call, from its headers to its trailers.
//!
//! Owns: what the headers of a call say, its deadline, panics in it. May not know: what the call
//! does.
//! Invariant: each call gets an answer of its own, and dropping its future abandons its work.

use std::any::Any;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use tokio::sync::Semaphore;
use tonic::body::Body as TonicBody;
use tower_service::Service;
use vesta_model::{Code, Status};

use super::answer::{GRPC_ACCEPT_ENCODING, GRPC_ENCODING, failure, refused, success};
use super::health::{self, HealthMethod};
use super::message::{Encoding, inflate, receive};
use super::{AnswerCompression, Ending, GrpcOptions};
use crate::budget::Budget;
use crate::offload::Offload;
use crate::tfs::rpc::{self, Calls};

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const ACCEPTED: HeaderValue = HeaderValue::from_static("identity,deflate,gzip");

/// Answers calls. Clones are the same one.
#[derive(Clone)]
pub(super) struct Exchange {
    inner: Arc<Inner>,
}

struct Inner {
    calls: Calls,
    budget: Budget,
    offload: Offload,
    message_bytes_max: usize,
    health: bool,
    compression: AnswerCompression,
    places: Option<Semaphore>,
    ending: Ending,
}

/// Who answers a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Call(rpc::Method),
    Health(HealthMethod),
}

impl Exchange {
    pub(super) fn new(
        calls: Calls,
        budget: Budget,
        options: &GrpcOptions,
        ending: Ending,
    ) -> Exchange {
        let offload = calls.offload.clone();
        let inner = Inner {
            calls,
            budget,
            offload,
            message_bytes_max: options.message_bytes_max,
            health: options.health,
            compression: options.compression,
            places: options.calls_max.map(Semaphore::new),
            ending,
        };
        Exchange { inner: Arc::new(inner) }
    }
}

impl Service<Request<TonicBody>> for Exchange {
    type Response = Response<TonicBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<TonicBody>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<TonicBody>) -> Self::Future {
        let inner = Arc::clone(&self.inner);
        // Here and not in the future: the server around this one has a timer of its own, started
        // after this call, whose answer is CANCELLED. Ours must not end later.
        let deadline = deadline(request.headers());
        Box::pin(async move { Ok(inner.answer(request, deadline).await) })
    }
}

impl Inner {
    async fn answer(
        &self,
        request: Request<TonicBody>,
        deadline: Option<Instant>,
    ) -> Response<TonicBody> {
        let (head, body) = request.into_parts();
        if head.method != Method::POST {
            return refused(StatusCode::METHOD_NOT_ALLOWED);
        }
        if !is_grpc(&head.headers) {
            return refused(StatusCode::UNSUPPORTED_MEDIA_TYPE);
        }
        let path = head.uri.path();
        let Some(route) = self.route(path) else {
            return failure(&Status::unimplemented(""));
        };
        let sent = head.headers.get(GRPC_ENCODING).map(HeaderValue::as_bytes);
        let Some(encoding) = Encoding::from_header(sent) else {
            let mut response = failure(&Status::unimplemented(
                "the message is compressed in a way that is not known here; use identity, gzip \
                 or deflate",
            ));
            response.headers_mut().insert(GRPC_ACCEPT_ENCODING, ACCEPTED);
            return response;
        };
        let answer_encoding = self.answer_encoding(&head.headers);
        let exchange = self.exchange(route, body, encoding, deadline, answer_encoding);
        let exchange = AssertUnwindSafe(exchange).catch_unwind();
        let outcome = match deadline {
            None => exchange.await,
            // The exchange is asked first, so a run that is late answers in its own words.
            Some(end) => match tokio::time::timeout_at(end.into(), exchange).await {
                Ok(outcome) => outcome,
                Err(_) => Ok(Err(Status::deadline_exceeded("Deadline Exceeded"))),
            },
        };
        let status = match outcome {
            Ok(Ok(response)) => return response,
            Ok(Err(status)) => status,
            Err(panic) => panicked(path, &*panic),
        };
        log(path, &status);
        failure(&status)
    }

    fn route(&self, path: &str) -> Option<Route> {
        let call = rpc::Method::from_path(path).map(Route::Call);
        call.or_else(|| HealthMethod::from_path(path).filter(|_| self.health).map(Route::Health))
    }

    /// How the answer is compressed, if its client takes that.
    fn answer_encoding(&self, headers: &HeaderMap) -> Encoding {
        let wanted = match self.compression {
            AnswerCompression::None => return Encoding::Identity,
            AnswerCompression::Deflate => Encoding::Deflate,
            AnswerCompression::Gzip => Encoding::Gzip,
        };
        let taken = headers
            .get(GRPC_ACCEPT_ENCODING)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|list| list.split(',').any(|name| name.trim() == wanted.name()));
        if taken { wanted } else { Encoding::Identity }
    }

    async fn exchange(
        &self,
        route: Route,
        body: TonicBody,
        encoding: Encoding,
        deadline: Option<Instant>,
        answer_encoding: Encoding,
    ) -> Result<Response<TonicBody>, Status> {
        // Health and what the server says of itself are answered however busy it is.
        let _place = match (&self.places, route) {
            (Some(places), Route::Call(_)) => Some(places.try_acquire().map_err(|_| exhausted())?),
            _ => None,
        };
        let message = self.message(body, encoding).await?;
        let mut reply = match route {
            Route::Call(method) => self.calls.call(method, message, deadline).await?,
            Route::Health(HealthMethod::Check) => health::check(message, &self.calls.serving)?,
            Route::Health(HealthMethod::Watch) => {
                return health::watch(message, &self.calls.serving, self.ending.clone());
            }
        };
        if answer_encoding != Encoding::Identity {
            let bytes = reply.len();
            reply = self.offload.run(bytes, move || Ok(reply.compressed(answer_encoding))).await?;
        }
        Ok(success(reply, answer_encoding))
    }

    async fn message(&self, body: TonicBody, encoding: Encoding) -> Result<Bytes, Status> {
        let received = receive(body, &self.budget, self.message_bytes_max).await?;
        if !received.compressed {
            return Ok(received.bytes);
        }
        let (budget, bytes_max) = (self.budget.clone(), self.message_bytes_max);
        // Little may become much, so inflating counts for more than it looks.
        const GROWTH: usize = 16;
        self.offload
            .run(received.bytes.len().saturating_mul(GROWTH), move || {
                inflate(&received.bytes, encoding, &budget, bytes_max)
            })
            .await
    }
}

/// The original's words when all the threads of `--grpc_max_threads` are at work.
fn exhausted() -> Status {
    Status::resource_exhausted("Server Threadpool Exhausted")
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(CONTENT_TYPE) else { return false };
    let Some(rest) = kind.as_bytes().strip_prefix(b"application/grpc") else { return false };
    matches!(rest, [] | b"+proto" | [b';', ..] | [b'+', b'p', b'r', b'o', b't', b'o', b';', ..])
}

/// When the caller stops waiting. A time-out that cannot be read is none, as with the original.
fn deadline(headers: &HeaderMap) -> Option<Instant> {
    let timeout = parse_timeout(headers.get(GRPC_TIMEOUT)?.as_bytes())?;
    Instant::now().checked_add(timeout)
}

fn parse_timeout(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count = digits.iter().fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(count * 3600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

fn panicked(path: &str, panic: &(dyn Any + Send)) -> Status {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(path, panic = text, "a gRPC call panicked");
    Status::internal("the server failed to answer this call; its log says more")
}

fn log(path: &str, status: &Status) {
    let (code, message) = (status.code().name(), status.message());
    let cause = status.cause().map(tracing::field::display);
    if matches!(status.code(), Code::Internal | Code::Unknown | Code::DataLoss)
        && !message.is_empty()
    {
        tracing::warn!(path, code, message, cause, "a gRPC call failed");
    } else {
        tracing::debug!(path, code, message, cause, "a gRPC call failed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read() {
        let ms = Duration::from_millis;
        for (text, want) in [
            ("1H", Some(ms(3_600_000))),
            ("2M", Some(ms(120_000))),
            ("10S", Some(ms(10_000))),
            ("250m", Some(ms(250))),
            ("99999999u", Some(Duration::from_micros(99_999_999))),
            ("7n", Some(Duration::from_nanos(7))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("100000000S", None),
            ("S", None),
            ("", None),
            ("1", None),
            ("-1S", None),
            ("1s", None),
        ] {
            assert_eq!(parse_timeout(text.as_bytes()), want, "{text}");
        }
    }

    #[test]
    fn content_types_are_checked() {
        let check = |kind: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            is_grpc(&headers)
        };
        for kind in ["application/grpc", "application/grpc+proto", "application/grpc;x"] {
            assert!(check(kind), "{kind}");
        }
        for kind in ["application/json", "application/grpc-web", "application/grpc+json", ""] {
            assert!(!check(kind), "{kind}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }
}

//! The health service.
//!
//! Owns: which names are known. May not know: whether models serve; the server answers only once
//! they do, and says NOT_SERVING from the moment that its end was asked for.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::future::{BoxFuture, Select, select};
use http::{HeaderMap, Response};
use http_body::{Body, Frame};
use prost::Message as _;
use tonic::body::Body as TonicBody;
use vesta_model::Status;
use vesta_protos::health::health_check_response::ServingStatus;
use vesta_protos::health::{HealthCheckRequest, HealthCheckResponse};

use super::Ending;
use super::answer::{Reply, respond, trailers};
use crate::draining::Draining;

/// The server as a whole, its services by the names that the original has, and by their full names.
const NAMES: [&str; 5] = [
    "",
    "ModelService",
    "PredictionService",
    "tensorflow.serving.ModelService",
    "tensorflow.serving.PredictionService",
];

/// A method of the health service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HealthMethod {
    Check,
    Watch,
}

impl HealthMethod {
    /// The method at a request's path.
    pub(super) fn from_path(path: &str) -> Option<HealthMethod> {
        match path.strip_prefix("/grpc.health.v1.Health/")? {
            "Check" => Some(HealthMethod::Check),
            "Watch" => Some(HealthMethod::Watch),
            _ => None,
        }
    }
}

fn is_known(message: Bytes) -> Result<bool, Status> {
    let request = HealthCheckRequest::decode(message)
        .map_err(|error| super::message::malformed().with_cause(error))?;
    Ok(NAMES.contains(&&*request.service))
}

fn reply(status: ServingStatus) -> Reply {
    Reply::of(&HealthCheckResponse { status: status.into() })
}

/// How a service is.
///
/// # Errors
/// `NOT_FOUND` for an unknown name.
pub(super) fn check(message: Bytes, draining: &Draining) -> Result<Reply, Status> {
    if is_known(message)? {
        Ok(reply(status(draining)))
    } else {
        Err(Status::not_found("service name unknown"))
    }
}

fn status(draining: &Draining) -> ServingStatus {
    if draining.has_begun() { ServingStatus::NotServing } else { ServingStatus::Serving }
}

/// How a service is now and later: one change, when the server is told to end.
///
/// # Errors
/// `INTERNAL` for an unreadable request.
pub(super) fn watch(
    message: Bytes,
    draining: &Draining,
    ending: Ending,
) -> Result<Response<TonicBody>, Status> {
    let known = is_known(message)?;
    let first = if known { status(draining) } else { ServingStatus::ServiceUnknown };
    let last =
        (first == ServingStatus::Serving).then(|| reply(ServingStatus::NotServing).framed().0);
    let trailers = Some(trailers(&Status::unavailable("the server is shutting down")));
    // A server may end without having been drained.
    let begun: BoxFuture<'static, ()> = Box::pin(draining.begun());
    let change = select(begun, ending.clone());
    let watched = Watched { first: Some(reply(first).framed().0), last, trailers, change, ending };
    Ok(respond(TonicBody::new(watched)))
}

/// An answer that stays open until the server ends, and says so as soon as that is to happen.
struct Watched {
    first: Option<Bytes>,
    last: Option<Bytes>,
    trailers: Option<HeaderMap>,
    change: Select<BoxFuture<'static, ()>, Ending>,
    ending: Ending,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if let Some(first) = this.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        if this.last.is_some() {
            ready!(Pin::new(&mut this.change).poll(cx));
            return Poll::Ready(this.last.take().map(|last| Ok(Frame::data(last))));
        }
        if this.ending.peek().is_none() {
            ready!(Pin::new(&mut this.ending).poll(cx));
        }
        Poll::Ready(this.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.last.is_none() && self.trailers.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_short_and_long() {
        let draining = Draining::default();
        let check = |name: &str| {
            let request = HealthCheckRequest { service: name.to_owned() };
            check(request.encode_to_vec().into(), &draining).map(|reply| reply.framed().0)
        };
        for name in NAMES {
            assert_eq!(check(name).unwrap(), &[0, 0, 0, 0, 2, 8, 1][..]);
        }
        let unknown = Status::not_found("service name unknown");
        assert_eq!(check("model"), Err(unknown));
        draining.begin();
        assert_eq!(check("").unwrap(), &[0, 0, 0, 0, 2, 8, 2][..]);
    }
}

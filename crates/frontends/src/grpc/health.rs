//! The health service.
//!
//! Owns: which names are known, and when they are told to be well: as soon as one configured model
//! serves, so that a server with one broken model among many still gets clients; not once none does.
//! May not know: how models come up.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::future::{Either, select};
use futures_util::stream::{self, BoxStream, StreamExt as _};
use http::{HeaderMap, Response};
use http_body::{Body, Frame};
use prost::Message as _;
use tokio::sync::watch;
use tonic::body::Body as TonicBody;
use vesta_model::Status;
use vesta_protos::health::health_check_response::ServingStatus;
use vesta_protos::health::{HealthCheckRequest, HealthCheckResponse};
use vesta_serving::{Readiness, Serving};

use super::Ending;
use super::answer::{Reply, respond, trailers};

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

/// How the server is. One that is configured to serve nothing is well, as the original is.
fn status_of(readiness: &Readiness) -> ServingStatus {
    let nothing_serves = readiness.models_ready == 0 && !readiness.models.is_empty();
    if readiness.draining || nothing_serves {
        ServingStatus::NotServing
    } else {
        ServingStatus::Serving
    }
}

/// How a service is.
///
/// # Errors
/// `NOT_FOUND` for an unknown name.
pub(super) fn check(message: Bytes, serving: &Serving) -> Result<Reply, Status> {
    if is_known(message)? {
        Ok(reply(status_of(&serving.readiness())))
    } else {
        Err(Status::not_found("service name unknown"))
    }
}

/// How a service is now and whenever that changes, until the server ends.
///
/// # Errors
/// `INTERNAL` for an unreadable request.
pub(super) fn watch(
    message: Bytes,
    serving: &Serving,
    ending: Ending,
) -> Result<Response<TonicBody>, Status> {
    let known = is_known(message)?;
    let statuses = statuses(Watching {
        changes: serving.changes(),
        serving: serving.clone(),
        known,
        ending,
        told: None,
        over: false,
    });
    let trailers = Some(trailers(&Status::unavailable("the server is shutting down")));
    Ok(respond(TonicBody::new(Watched { statuses: Some(statuses), trailers })))
}

/// What one call that watches knows.
struct Watching {
    serving: Serving,
    changes: watch::Receiver<()>,
    known: bool,
    ending: Ending,
    told: Option<ServingStatus>,
    over: bool,
}

impl Watching {
    fn status(&self) -> ServingStatus {
        match (self.known, self.over) {
            (false, _) => ServingStatus::ServiceUnknown,
            (true, true) => ServingStatus::NotServing,
            (true, false) => status_of(&self.serving.readiness()),
        }
    }
}

/// Each status that differs from the one before.
fn statuses(watching: Watching) -> BoxStream<'static, ServingStatus> {
    let next = |mut watching: Watching| async move {
        loop {
            // Looked at before the status, so that no change falls between the two.
            watching.changes.mark_unchanged();
            let status = watching.status();
            if watching.told.replace(status) != Some(status) {
                return Some((status, watching));
            }
            if watching.over {
                return None;
            }
            let change = std::pin::pin!(watching.changes.changed());
            watching.over = match select(change, watching.ending.clone()).await {
                // Without a life cycle there is nothing to come.
                Either::Left((change, _)) => change.is_err(),
                Either::Right(_) => true,
            };
        }
    };
    stream::unfold(watching, next).boxed()
}

/// An answer that stays open until the server ends, and says so as soon as that is to happen.
struct Watched {
    statuses: Option<BoxStream<'static, ServingStatus>>,
    trailers: Option<HeaderMap>,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if let Some(statuses) = &mut this.statuses {
            if let Some(status) = ready!(statuses.as_mut().poll_next(cx)) {
                return Poll::Ready(Some(Ok(Frame::data(reply(status).framed().0))));
            }
            this.statuses = None;
        }
        Poll::Ready(this.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.statuses.is_none() && self.trailers.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_model_that_serves_is_enough_and_nothing_to_serve_is_well() {
        let readiness = |models_ready, waiting: usize, draining: bool| Readiness {
            ready: waiting == 0 && !draining,
            draining,
            models_ready,
            models: vec![("m".into(), "it waits".to_owned()); waiting],
        };
        assert_eq!(status_of(&readiness(0, 0, false)), ServingStatus::Serving);
        assert_eq!(status_of(&readiness(1, 1, false)), ServingStatus::Serving);
        assert_eq!(status_of(&readiness(0, 2, false)), ServingStatus::NotServing);
        assert_eq!(status_of(&readiness(2, 0, true)), ServingStatus::NotServing);
    }

    #[test]
    fn names_are_known_short_and_long() {
        let request = |name: &str| HealthCheckRequest { service: name.to_owned() };
        for name in NAMES {
            assert_eq!(is_known(request(name).encode_to_vec().into()), Ok(true), "{name}");
        }
        assert_eq!(is_known(request("model").encode_to_vec().into()), Ok(false));
        assert!(is_known(Bytes::from_static(&[0xff])).is_err());
    }
}

//! Whether the server lives and is ready, for whoever sends it clients: `GET /healthz`, `GET /readyz`.
//!
//! Ours: the original has neither. Owns: the two paths and what they answer. May not know: sockets,
//! how models come up.

use http::StatusCode;
use vesta_serving::Readiness;

use crate::tfs::json::Pretty;

/// One of the two questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// Whether the process lives.
    Live,
    /// Whether every configured model can be used.
    Ready,
}

impl Probe {
    /// The question at a request's target; a query string is passed over.
    pub(crate) fn of(method: &str, target: &str) -> Option<Probe> {
        if method != "GET" && method != "HEAD" {
            return None;
        }
        match target.split_once('?').map_or(target, |(path, _)| path) {
            "/healthz" => Some(Probe::Live),
            "/readyz" => Some(Probe::Ready),
            _ => None,
        }
    }
}

/// The answer to [`Probe::Ready`]: 200 with `{"ready": true}`, or 503 with what is not ready and why.
pub(crate) fn ready_answer(readiness: &Readiness) -> (StatusCode, Vec<u8>) {
    let mut writer = Pretty::new();
    writer.start_object();
    writer.key(b"ready");
    writer.value();
    writer.out().extend_from_slice(if readiness.ready { b"true" } else { b"false" });
    if readiness.draining {
        writer.key(b"reason");
        writer.string(b"the server is shutting down");
    }
    if !readiness.models.is_empty() {
        writer.key(b"models");
        writer.start_array();
        for (model, reason) in &readiness.models {
            writer.start_object();
            writer.key(b"name");
            writer.string(model.as_str().as_bytes());
            writer.key(b"reason");
            writer.string(reason.as_bytes());
            writer.end_object();
        }
        writer.end_array();
    }
    writer.end_object();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, writer.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_two_paths_are_probes() {
        assert_eq!(Probe::of("GET", "/healthz"), Some(Probe::Live));
        assert_eq!(Probe::of("HEAD", "/readyz?verbose"), Some(Probe::Ready));
        for (method, target) in [("POST", "/readyz"), ("GET", "/readyz/"), ("GET", "/READYZ")] {
            assert_eq!(Probe::of(method, target), None, "{method} {target}");
        }
    }

    #[test]
    fn what_is_not_ready_is_named_with_the_reason() {
        let json = |readiness: &Readiness| {
            let (status, body) = ready_answer(readiness);
            (status.as_u16(), serde_json::from_slice::<serde_json::Value>(&body).unwrap())
        };
        let ready = Readiness { ready: true, models_ready: 1, ..Readiness::default() };
        assert_eq!(json(&ready), (200, serde_json::json!({"ready": true})));
        let broken = Readiness {
            models: vec![("m".into(), "version 1 \"failed\"".to_owned())],
            ..Readiness::default()
        };
        let want = serde_json::json!({
            "ready": false, "models": [{"name": "m", "reason": "version 1 \"failed\""}],
        });
        assert_eq!(json(&broken), (503, want));
        let leaving = Readiness { draining: true, models_ready: 1, ..Readiness::default() };
        let want = serde_json::json!({"ready": false, "reason": "the server is shutting down"});
        assert_eq!(json(&leaving), (503, want));
    }
}

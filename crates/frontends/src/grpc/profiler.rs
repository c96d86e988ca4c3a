//! The profiler service: what the server did for a while, as a trace.
//!
//! Owns: the three calls, one profile at a time. May not know: how spans come about.
//! Invariant: nothing is recorded while no profile is on, and a client makes this server write no file:
//! the trace is in the answer.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use prost::Message;
use tokio::sync::Notify;
use vesta_model::Status;
use vesta_protos::tensorflow::{
    MonitorRequest, MonitorResponse, ProfileRequest, ProfileResponse, ProfileToolData,
    TerminateRequest, TerminateResponse,
};
use vesta_serving::Serving;

use super::Ending;
use super::answer::Reply;
use super::trace::trace;
use crate::metrics::{Figures, Metrics};

/// The longest profile.
const PROFILE_MAX: Duration = Duration::from_secs(3600);
/// The longest look of Monitor.
const MONITOR_MAX: Duration = Duration::from_secs(60);
/// The file that clients make of a trace.
const FILE: &str = "xplane.pb";

/// A method of the profiler service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProfilerMethod {
    Profile,
    Terminate,
    Monitor,
}

impl ProfilerMethod {
    /// The method at a request's path.
    pub(super) fn from_path(path: &str) -> Option<ProfilerMethod> {
        match path.strip_prefix("/tensorflow.ProfilerService/")? {
            "Profile" => Some(ProfilerMethod::Profile),
            "Terminate" => Some(ProfilerMethod::Terminate),
            "Monitor" => Some(ProfilerMethod::Monitor),
            _ => None,
        }
    }
}

/// The service.
pub(super) struct Profiler {
    metrics: Metrics,
    serving: Serving,
    ending: Ending,
    /// The profile that is on.
    current: Mutex<Option<Current>>,
}

struct Current {
    session: String,
    stop: Arc<Notify>,
}

impl Profiler {
    pub(super) fn new(metrics: Metrics, serving: Serving, ending: Ending) -> Profiler {
        Profiler { metrics, serving, ending, current: Mutex::default() }
    }

    /// Answers one call.
    ///
    /// # Errors
    /// `INTERNAL` for bytes that are no request, `ALREADY_EXISTS` for a second profile at a time.
    pub(super) async fn call(
        &self,
        method: ProfilerMethod,
        message: Bytes,
    ) -> Result<Reply, Status> {
        match method {
            ProfilerMethod::Profile => self.profile(parse(message)?).await,
            ProfilerMethod::Terminate => self.terminate(&parse(message)?),
            ProfilerMethod::Monitor => self.monitor(parse(message)?).await,
        }
    }

    async fn profile(&self, request: ProfileRequest) -> Result<Reply, Status> {
        let on = self.metrics.recorder().begin().ok_or_else(|| {
            Status::already_exists("another profile is being recorded; try again when it is over")
        })?;
        let options = request.opts.unwrap_or_default();
        let duration = match options.duration_ms {
            0 => request.duration_ms,
            own => own,
        };
        let duration = Duration::from_millis(duration).min(PROFILE_MAX);
        let stop = Arc::new(Notify::new());
        let session = request.session_id;
        *self.lock() = Some(Current { session, stop: Arc::clone(&stop) });
        tokio::select! {
            () = tokio::time::sleep(duration) => {}
            () = stop.notified() => {}
            () = self.ending.clone() => {}
        }
        let recording = on.finish();
        let space = trace(&recording, &request.host_name, request.max_events);
        let empty_trace = space.planes.is_empty();
        let mut response = ProfileResponse { empty_trace, ..ProfileResponse::default() };
        if request.emit_xspace {
            response.xspace = Some(space);
        } else {
            let data = space.encode_to_vec();
            response.tool_data.push(ProfileToolData { name: FILE.to_owned(), data });
        }
        Ok(Reply::of(&response))
    }

    fn terminate(&self, request: &TerminateRequest) -> Result<Reply, Status> {
        if let Some(current) = &*self.lock()
            && current.session == request.session_id
        {
            // Kept for the profile, should it not wait yet.
            current.stop.notify_one();
        }
        Ok(Reply::of(&TerminateResponse {}))
    }

    async fn monitor(&self, request: MonitorRequest) -> Result<Reply, Status> {
        let duration = Duration::from_millis(request.duration_ms).min(MONITOR_MAX);
        let before = self.metrics.figures();
        tokio::select! {
            () = tokio::time::sleep(duration) => {}
            () = self.ending.clone() => {}
        }
        let after = self.metrics.figures();
        let mut text = String::new();
        // Writing to a String cannot fail.
        if request.timestamp {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let _ = writeln!(text, "time: {} s since 1970", now.as_secs());
        }
        let readiness = self.serving.readiness();
        let waiting = readiness.models.len();
        let _ = writeln!(text, "models ready: {}, not ready: {waiting}", readiness.models_ready);
        for (model, figures) in &after {
            let since = before.get(model).copied().unwrap_or_default();
            push_figures(&mut text, model, figures, &since, duration);
        }
        Ok(Reply::of(&MonitorResponse { data: text }))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Current>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn push_figures(
    text: &mut String,
    model: &str,
    now: &Figures,
    before: &Figures,
    duration: Duration,
) {
    let model = if model.is_empty() { "(no model)" } else { model };
    let answered = now.answered.saturating_sub(before.answered);
    let failed = now.failed.saturating_sub(before.failed);
    let _ = write!(text, "{model}: {answered} calls answered, {failed} failed");
    if !duration.is_zero() {
        let _ = write!(text, " in {} ms", duration.as_millis());
    }
    let timed = now.timed.saturating_sub(before.timed);
    if timed > 0 {
        let mean = (now.micros - before.micros) / timed as f64 / 1000.0;
        let _ = write!(text, ", {mean:.3} ms each");
    }
    let _ = writeln!(text, " ({} and {} since the start)", now.answered, now.failed);
}

fn parse<M: Message + Default>(message: Bytes) -> Result<M, Status> {
    M::decode(message).map_err(|error| super::message::malformed().with_cause(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_of_the_time_that_was_looked_at() {
        let figures = |answered, failed, timed, micros| Figures { answered, failed, timed, micros };
        let mut text = String::new();
        let (now, before) = (figures(12, 3, 12, 9000.0), figures(2, 3, 2, 4000.0));
        push_figures(&mut text, "m", &now, &before, Duration::from_millis(500));
        push_figures(&mut text, "", &figures(0, 1, 0, 0.0), &Figures::default(), Duration::ZERO);
        assert_eq!(
            text,
            "m: 10 calls answered, 0 failed in 500 ms, 0.500 ms each (12 and 3 since the start)\n\
             (no model): 0 calls answered, 1 failed (0 and 1 since the start)\n"
        );
    }
}

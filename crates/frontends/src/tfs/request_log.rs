//! Requests that are recorded with their answers: which ones, and in what form.
//!
//! Owns: the choice of requests, the way from a call to whoever writes them down, the records' bytes
//! (`PredictionLog`). May not know: files, threads.
//! Invariant: a call pays for the record of its own request alone, and never waits: what nobody has
//! written down yet is bounded, and what is beyond is dropped and counted.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use bytes::Bytes;
use prost::{Message, Oneof};
use prost_reflect::{DynamicMessage, SerializeOptions};
use vesta_model::{Code, ModelConfig, ModelName, RequestLogging, Status};
use vesta_protos::tensorflow::serving as proto;

use super::warmup::records::framed;
use crate::metrics::Metrics;

/// Records that may wait to be written down.
const WAITING_MAX: usize = 4096;
/// Bytes that those may have together.
const WAITING_BYTES_MAX: usize = 64 << 20;
/// Shares are counted in parts of this.
const WHOLE: u32 = 1_000_000_000;

/// The calls' side: records a share of the requests of some models. Clones are the same one; the
/// default records nothing.
#[derive(Clone, Default)]
pub struct RequestLog {
    tap: Option<Arc<Tap>>,
}

struct Tap {
    routes: ArcSwap<Routes>,
    orders: Sender<Order>,
    waiting: Arc<Waiting>,
    tags: Vec<String>,
    metrics: Metrics,
}

type Routes = HashMap<ModelName, Arc<Route>>;

/// What waits to be written down.
#[derive(Default)]
struct Waiting {
    records: AtomicUsize,
    bytes: AtomicUsize,
}

/// Where the records of one model go.
#[derive(Debug, PartialEq, Eq)]
pub struct Route {
    /// The model.
    pub model: ModelName,
    /// How its requests are recorded.
    pub logging: RequestLogging,
}

enum Order {
    Record(Recorded),
    Routes(Vec<Arc<Route>>),
    Flush(Sender<()>),
}

/// What comes next for whoever writes.
pub enum Next {
    /// A request to write down.
    Record(Recorded),
    /// Nothing came for a while.
    Idle,
    /// From now on these routes are in force, and no others.
    Routes(Vec<Arc<Route>>),
    /// Everything so far is to be safe before the sender is told.
    Flush(Sender<()>),
    /// Nothing will come any more.
    End,
}

/// The writer's side.
pub struct Recordings {
    orders: Receiver<Order>,
    waiting: Arc<Waiting>,
}

/// Which call was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Classify,
    Regress,
    MultiInference,
    Predict,
}

/// A request that was chosen. Nothing is written unless it is answered.
pub(crate) struct Chosen {
    tap: Arc<Tap>,
    route: Arc<Route>,
}

/// One request and its answer.
pub struct Recorded {
    route: Arc<Route>,
    call: Call,
    seconds: i64,
    request: Bytes,
    response: Bytes,
    tap: Arc<Tap>,
}

/// A record as it is written: request and answer still as bytes.
#[derive(Clone, PartialEq, Message)]
struct RecordWire {
    #[prost(message, optional, tag = "1")]
    metadata: Option<proto::LogMetadata>,
    #[prost(oneof = "CallWire", tags = "2, 3, 4, 6")]
    call: Option<CallWire>,
}

#[derive(Clone, PartialEq, Oneof)]
enum CallWire {
    #[prost(message, tag = "2")]
    Classify(LogWire),
    #[prost(message, tag = "3")]
    Regress(LogWire),
    #[prost(message, tag = "4")]
    MultiInference(LogWire),
    #[prost(message, tag = "6")]
    Predict(LogWire),
}

#[derive(Clone, PartialEq, Message)]
struct LogWire {
    #[prost(bytes = "bytes", tag = "1")]
    request: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    response: Bytes,
}

/// What an answer says of who gave it. Those of MultiInference say it of each result.
#[derive(Clone, PartialEq, Message)]
struct AnsweredWire {
    #[prost(message, optional, tag = "2")]
    model_spec: Option<proto::ModelSpec>,
}

/// An answer of MultiInference, of which only who gave it is read.
#[derive(Clone, PartialEq, Message)]
struct ResultsWire {
    #[prost(message, repeated, tag = "1")]
    results: Vec<ResultWire>,
}

#[derive(Clone, PartialEq, Message)]
struct ResultWire {
    #[prost(message, optional, tag = "1")]
    model_spec: Option<proto::ModelSpec>,
}

impl RequestLog {
    /// A log that records nothing yet, and the side of it that writes. `tags` are those that select
    /// the graphs of models; records carry them.
    pub fn new(tags: Vec<String>, metrics: Metrics) -> (RequestLog, Recordings) {
        let (orders, received) = channel();
        let waiting = Arc::<Waiting>::default();
        let recordings = Recordings { orders: received, waiting: Arc::clone(&waiting) };
        let routes = ArcSwap::default();
        let tap = Tap { routes, orders, waiting, tags, metrics };
        (RequestLog { tap: Some(Arc::new(tap)) }, recordings)
    }

    /// Records the requests of these models, as they say, and of no others.
    pub fn configure(&self, models: &[ModelConfig]) {
        let Some(tap) = &self.tap else { return };
        let former = tap.routes.load();
        let mut routes = Routes::new();
        for config in models {
            let Some(logging) = &config.request_logging else { continue };
            let route = Route { model: config.name.clone(), logging: logging.clone() };
            // One that stays as it is goes on in its file.
            let same = former.get(&config.name).filter(|former| ***former == route);
            routes.insert(config.name.clone(), same.cloned().unwrap_or_else(|| Arc::new(route)));
        }
        if routes.is_empty() && former.is_empty() {
            return;
        }
        let in_force = routes.values().cloned().collect();
        tap.routes.store(Arc::new(routes));
        tap.tell(Order::Routes(in_force));
    }

    /// Waits until what was recorded so far is written, or `limit` is over. Blocks.
    pub fn flush(&self, limit: Duration) {
        let Some(tap) = &self.tap else { return };
        let (done, told) = channel();
        tap.tell(Order::Flush(done));
        // Late or gone: there is nothing more to do about it.
        let _ = told.recv_timeout(limit);
    }

    /// Whether the next request of `model` is to be recorded.
    pub(crate) fn choose(&self, model: &str) -> Option<Chosen> {
        let tap = self.tap.as_ref()?;
        let routes = tap.routes.load();
        let route = routes.get(model)?;
        let chosen = fastrand::u32(0..WHOLE) < route.logging.requests_per_billion;
        chosen.then(|| Chosen { tap: Arc::clone(tap), route: Arc::clone(route) })
    }

    /// Whether any request may be chosen.
    pub(crate) fn is_on(&self) -> bool {
        self.tap.as_ref().is_some_and(|tap| !tap.routes.load().is_empty())
    }
}

impl Tap {
    fn tell(&self, order: Order) {
        // A writer that is gone has said why.
        let _ = self.orders.send(order);
    }
}

impl Chosen {
    /// Records the request with its answer, both encoded; drops them when too much waits already.
    pub(crate) fn answered(self, call: Call, request: Bytes, response: Bytes) {
        let Chosen { tap, route } = self;
        let bytes = request.len() + response.len();
        let records = tap.waiting.records.fetch_add(1, Ordering::AcqRel);
        let before = tap.waiting.bytes.fetch_add(bytes, Ordering::AcqRel);
        if records >= WAITING_MAX || before.saturating_add(bytes) > WAITING_BYTES_MAX {
            tap.waiting.leave(bytes);
            tap.metrics.recorded(route.model.as_str(), Some(Code::ResourceExhausted), 1);
            return;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let recorded = Recorded { route, call, seconds, request, response, tap: Arc::clone(&tap) };
        tap.tell(Order::Record(recorded));
    }
}

impl Waiting {
    fn leave(&self, bytes: usize) {
        self.records.fetch_sub(1, Ordering::AcqRel);
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
    }
}

impl Recordings {
    /// The next order; [`Next::Idle`] when none comes before `until`.
    pub fn next(&self, until: Instant) -> Next {
        match self.orders.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(Order::Record(recorded)) => {
                self.waiting.leave(recorded.request.len() + recorded.response.len());
                Next::Record(recorded)
            }
            Ok(Order::Routes(routes)) => Next::Routes(routes),
            Ok(Order::Flush(done)) => Next::Flush(done),
            Err(RecvTimeoutError::Timeout) => Next::Idle,
            Err(RecvTimeoutError::Disconnected) => Next::End,
        }
    }
}

impl Recorded {
    /// Where it goes.
    pub fn route(&self) -> &Arc<Route> {
        &self.route
    }

    /// The record as it stands in a TFRecord file.
    pub fn tf_record(&self) -> Vec<u8> {
        framed(&self.wire().encode_to_vec())
    }

    /// The record as a line of JSON, with the line feed.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when the request or its answer is not what its message says.
    pub fn json_line(&self) -> Result<Vec<u8>, Status> {
        let broken = |why: String| {
            Status::invalid_argument(format!("a record cannot be written as JSON: {why}"))
        };
        let kind = vesta_protos::descriptor_pool()
            .get_message_by_name("tensorflow.serving.PredictionLog")
            .ok_or_else(|| broken("there is no message PredictionLog".to_owned()))?;
        let message = DynamicMessage::decode(kind, self.wire().encode_to_vec().as_slice())
            .map_err(|error| broken(error.to_string()))?;
        let mut line = Vec::new();
        let mut writer = serde_json::Serializer::new(&mut line);
        let options = SerializeOptions::new().use_proto_field_name(true);
        message
            .serialize_with_options(&mut writer, &options)
            .map_err(|error| broken(error.to_string()))?;
        line.push(b'\n');
        Ok(line)
    }

    fn wire(&self) -> RecordWire {
        let log = LogWire { request: self.request.clone(), response: self.response.clone() };
        let model_spec = match self.call {
            Call::MultiInference => ResultsWire::decode(self.response.clone())
                .ok()
                .and_then(|answer| answer.results.into_iter().next())
                .and_then(|result| result.model_spec),
            Call::Classify | Call::Regress | Call::Predict => {
                AnsweredWire::decode(self.response.clone())
                    .ok()
                    .and_then(|answer| answer.model_spec)
            }
        };
        RecordWire {
            metadata: Some(proto::LogMetadata {
                model_spec,
                sampling_config: Some(proto::SamplingConfig {
                    sampling_rate: self.route.logging.share(),
                    ..proto::SamplingConfig::default()
                }),
                saved_model_tags: self.tap.tags.clone(),
                timestamp_secs: self.seconds,
                ..proto::LogMetadata::default()
            }),
            call: Some(match self.call {
                Call::Classify => CallWire::Classify(log),
                Call::Regress => CallWire::Regress(log),
                Call::MultiInference => CallWire::MultiInference(log),
                Call::Predict => CallWire::Predict(log),
            }),
        }
    }
}

#[cfg(test)]
mod tests;

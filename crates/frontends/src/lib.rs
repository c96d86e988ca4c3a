//! The wires that clients speak, to the vocabulary and back.
//!
//! Owns: TensorFlow Serving's REST and gRPC interfaces ([`tfs`]), the HTTP/1 server under the one
//! ([`http`]) and the HTTP/2 server under the other ([`grpc`]), the tables from status to wire
//! ([`status`]), the metrics page ([`metrics`]), the probes ([`health`]) and the bytes that requests may hold ([`budget`]).
//! May not know: engines, model files, flags.
//! Invariant: nothing here panics on input, and every buffer that input can grow has a limit.

pub mod budget;
pub mod grpc;
mod health;
pub mod http;
pub mod metrics;
mod offload;
mod recorder;
pub mod status;
pub mod tfs;

pub use self::budget::{Budget, Permit};
pub use self::grpc::{AnswerCompression, GrpcOptions, Tls, serve_grpc};
pub use self::http::serve_rest;
pub use self::metrics::{
    EngineChosen, Metrics, RunMetrics, ShownChoice, Weighed, show_queue_depths,
};
pub use self::tfs::method_check::MethodCheck;
pub use self::tfs::model_config::model_configs;
pub use self::tfs::request_log::{Next, Recorded, Recordings, RequestLog, Route};
pub use self::tfs::rest::{METRICS_PATH, RestOptions};
pub use self::tfs::warmup::{WARM_UP_FILE, WarmUp};

//! Engines on whole models: those of the original, the demo, those of the common suite.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test")]

mod demo;
mod litert;
mod native;
mod onnxruntime;
mod openvino;
mod openvino_lite;
mod original;
mod shared_data;
mod suite;
mod tensorflow;
mod written;

//! TensorFlow's C API, opened at run time.
//!
//! Owns the table of functions, and the lifetimes of sessions, tensors and statuses behind safe
//! values. Knows no protobuf message: configurations and run options are bytes that it hands on.
//! Invariant: a library that was opened is never closed (TensorFlow does not survive that), so what
//! the table points to is valid for as long as the process lives.

#![expect(
    unsafe_code,
    reason = "TensorFlow is reached through C functions that are looked up here"
)]

mod error;
mod library;
mod session;
mod table;
mod value;

pub use error::TensorFlowError;
pub use library::TensorFlow;
pub use session::{GraphOutput, TensorFlowSession};
pub use value::TensorFlowValue;

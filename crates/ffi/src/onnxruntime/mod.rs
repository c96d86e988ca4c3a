//! ONNX Runtime's C API, opened at run time.
//!
//! Owns the table of functions, and the lifetimes of environment, session, values and run options
//! behind safe values. May not know: what is in a model; it is bytes here, and its ends are names.
//! Invariant: memory under a value lives until no value of ONNX Runtime's can point into it.

#![expect(
    unsafe_code,
    reason = "ONNX Runtime is reached through C functions that are looked up here"
)]

mod error;
mod library;
mod session;
mod table;
mod value;

pub use error::OnnxRuntimeError;
pub use library::OnnxRuntime;
pub use session::{OnnxPackedWeights, OnnxRunOptions, OnnxSession};
pub use value::{OnnxTexts, OnnxValue};

//! LiteRT's C API (TensorFlow Lite under its new name), opened at run time.
//!
//! Owns the table of functions, and the lifetimes of environment, model, compiled model and buffers
//! behind safe values. May not know: what is in a model file; it is bytes here, and signatures are
//! positions. Invariant: LiteRT is never left with a pointer that it reads outside of a call.

#![expect(unsafe_code, reason = "LiteRT is reached through C functions that are looked up here")]

mod compiled;
mod error;
mod library;
mod table;

pub use compiled::{LiteRtInput, LiteRtKernels, LiteRtModel, LiteRtOutput};
pub use error::LiteRtError;
pub use library::LiteRt;

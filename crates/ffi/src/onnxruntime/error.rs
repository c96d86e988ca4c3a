//! What ONNX Runtime says when something failed.

use std::fmt;

/// A number of ONNX Runtime's own, and a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnnxRuntimeError {
    /// `OrtErrorCode`; never 0.
    pub code: i32,
    /// What it wrote of it.
    pub message: String,
}

impl OnnxRuntimeError {
    /// The number for arguments that do not fit.
    pub const INVALID_ARGUMENT: i32 = 2;
    /// The number for an operator that there is no kernel for.
    pub const NOT_IMPLEMENTED: i32 = 9;

    /// For what is refused before ONNX Runtime sees it.
    pub(super) fn invalid(message: impl Into<String>) -> OnnxRuntimeError {
        OnnxRuntimeError { code: OnnxRuntimeError::INVALID_ARGUMENT, message: message.into() }
    }
}

impl fmt::Display for OnnxRuntimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for OnnxRuntimeError {}

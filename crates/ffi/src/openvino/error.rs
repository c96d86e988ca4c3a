//! What OpenVINO says when something failed.

use std::fmt;

/// A number of OpenVINO's own, and a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenVinoError {
    /// `ov_status_e`; never 0. Most failures have the number of none in particular.
    pub code: i32,
    /// What it wrote of it. OpenVINO keeps one text for the process: of failures at the same moment,
    /// it may be that of another.
    pub message: String,
}

impl OpenVinoError {
    /// The number for arguments that do not fit.
    const PARAMETER_MISMATCH: i32 = -4;

    /// The number for arguments that its C API refuses before the rest of it sees them.
    const INVALID_C_PARAM: i32 = -14;

    /// Whether the C API itself refused an argument.
    pub(super) fn is_of_the_api(&self) -> bool {
        self.code == OpenVinoError::INVALID_C_PARAM
    }

    /// For what is refused before OpenVINO sees it.
    pub(super) fn invalid(message: impl Into<String>) -> OpenVinoError {
        OpenVinoError { code: OpenVinoError::PARAMETER_MISMATCH, message: message.into() }
    }
}

impl fmt::Display for OpenVinoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for OpenVinoError {}

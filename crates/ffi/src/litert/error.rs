//! What LiteRT says when something failed.

use std::fmt;

/// A number of LiteRT's own, and a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiteRtError {
    /// `LiteRtStatus`; never 0.
    pub code: i32,
    /// Which call failed, and what LiteRT wrote of it.
    pub message: String,
    /// Whether LiteRT wrote anything of it.
    pub is_explained: bool,
}

impl LiteRtError {
    /// The number for arguments that do not fit.
    pub const INVALID_ARGUMENT: i32 = 1;
    /// The number for what went wrong in a run.
    pub const RUNTIME_FAILURE: i32 = 3;
    /// The number for a run that was cancelled.
    pub const CANCELLED: i32 = 100;

    /// For what is refused before LiteRT sees it.
    pub(super) fn invalid(message: impl Into<String>) -> LiteRtError {
        LiteRtError {
            code: LiteRtError::INVALID_ARGUMENT,
            message: message.into(),
            is_explained: true,
        }
    }
}

impl fmt::Display for LiteRtError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for LiteRtError {}

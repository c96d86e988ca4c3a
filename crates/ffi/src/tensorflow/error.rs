//! What TensorFlow says when something failed.

use std::ffi::CStr;
use std::fmt;

use super::library::TensorFlow;
use super::table::Status;

/// A canonical code and a text, as TensorFlow gave them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorFlowError {
    /// gRPC's canonical number; never 0.
    pub code: i32,
    /// The text.
    pub message: String,
}

impl TensorFlowError {
    /// `INVALID_ARGUMENT`, for what is refused before TensorFlow sees it.
    pub(super) fn invalid(message: impl Into<String>) -> TensorFlowError {
        TensorFlowError { code: 3, message: message.into() }
    }
}

impl fmt::Display for TensorFlowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for TensorFlowError {}

/// A `TF_Status` of our own.
pub(super) struct OwnStatus {
    library: &'static TensorFlow,
    status: *mut Status,
}

impl OwnStatus {
    pub(super) fn new(library: &'static TensorFlow) -> OwnStatus {
        // SAFETY: takes nothing; what it gives is freed once, in `drop`.
        let status = unsafe { (library.table.new_status)() };
        OwnStatus { library, status }
    }

    /// For a call that writes into it.
    pub(super) fn as_ptr(&mut self) -> *mut Status {
        self.status
    }

    /// What the last call wrote.
    ///
    /// # Errors
    /// What it wrote, unless that is OK.
    pub(super) fn outcome(&self) -> Result<(), TensorFlowError> {
        // SAFETY: the status is alive, and nobody else has it.
        let code = unsafe { (self.library.table.code)(self.status) };
        if code == 0 {
            return Ok(());
        }
        // SAFETY: the text is terminated by zero and lives as long as the status is not changed,
        // hence during the copy.
        let message = unsafe { CStr::from_ptr((self.library.table.message)(self.status)) };
        Err(TensorFlowError { code, message: message.to_string_lossy().into_owned() })
    }
}

impl Drop for OwnStatus {
    fn drop(&mut self) {
        // SAFETY: made in `new`, freed here alone.
        unsafe { (self.library.table.delete_status)(self.status) }
    }
}

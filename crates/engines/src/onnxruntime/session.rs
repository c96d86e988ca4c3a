//! A session of ONNX Runtime as the model of a signature.
//!
//! May not know: where models come from.

use std::ffi::{CStr, CString};
use std::sync::Arc;
use std::time::Instant;

use vesta_ffi::{OnnxRunOptions, OnnxRuntime, OnnxSession, OnnxValue};
use vesta_model::{Signature, Status, Tensor};

use super::deadlines::Deadlines;
use super::values::{from_value, status, to_value};
use crate::bound::{Runner, is_past, late};

/// A session, and the names of its ends.
pub(super) struct OnnxRunner {
    pub(super) library: &'static OnnxRuntime,
    pub(super) session: OnnxSession,
    /// The model's inputs, one for each of the signature's.
    pub(super) feeds: Vec<CString>,
    /// The model's outputs, one for each of the signature's.
    pub(super) fetches: Vec<CString>,
    /// Those of all sessions of the version.
    pub(super) deadlines: Arc<Deadlines>,
}

/// A name as ONNX Runtime takes it.
///
/// # Errors
/// `INVALID_ARGUMENT` for a zero byte in it.
pub(super) fn name_of(name: &str) -> Result<CString, Status> {
    CString::new(name).map_err(|_| {
        Status::invalid_argument(format!("the name {name:?} has a zero byte in it; rename it"))
    })
}

impl Runner for OnnxRunner {
    fn run(
        &self,
        signature: &Signature,
        inputs: Vec<Tensor>,
        outputs: &[usize],
        deadline: Option<Instant>,
    ) -> Result<Vec<Tensor>, Status> {
        let options = Arc::new(OnnxRunOptions::new(self.library).map_err(|error| status(&error))?);
        let values = inputs
            .into_iter()
            .map(|input| to_value(self.library, input))
            .collect::<Result<Vec<OnnxValue>, _>>()?;
        let feeds: Vec<(&CStr, &OnnxValue)> =
            self.feeds.iter().map(CString::as_c_str).zip(&values).collect();
        let fetches: Vec<&CStr> =
            outputs.iter().map(|&index| self.fetches[index].as_c_str()).collect();
        let listed = deadline
            .map(|deadline| self.deadlines.list(deadline, Arc::clone(&options)))
            .transpose()?;
        let outcome = self.session.run(&options, &feeds, &fetches);
        drop(listed);
        // A run that was told to end says so in words alone.
        let given =
            outcome.map_err(|error| if is_past(deadline) { late() } else { status(&error) })?;
        let outputs = outputs.iter().zip(given);
        outputs.map(|(&index, value)| from_value(&signature.outputs[index].alias, value)).collect()
    }
}

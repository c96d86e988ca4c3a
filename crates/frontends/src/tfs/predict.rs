//! A run of a signature, as all calls do it: which outputs, how long it took.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vesta_model::{Signature, Status, Tensor};
use vesta_serving::{InferRequest, Lease};

use crate::metrics::{Api, Metrics};
use crate::recorder::SpanKind;

/// The signatures of a version, by name.
pub(crate) type Signatures = BTreeMap<String, Arc<Signature>>;

/// What a request asks a version to compute.
#[derive(Clone, Debug)]
pub(crate) struct Feed {
    pub(crate) signature: String,
    /// One for each input of the signature, in its order.
    pub(crate) inputs: Vec<Tensor>,
    /// Positions of the outputs wanted.
    pub(crate) outputs: Vec<usize>,
}

/// The signature's own name, or the default one when the request says none.
pub(crate) fn signature_or_default(name: &str) -> &str {
    if name.is_empty() { Signature::DEFAULT_NAME } else { name }
}

/// When a run that starts now must end.
pub(crate) fn deadline_after(timeout: Option<Duration>) -> Option<Instant> {
    // A time-out that no clock can tell is none.
    timeout.and_then(|timeout| Instant::now().checked_add(timeout))
}

/// Runs `signature` and counts the time that it took, if it succeeded.
///
/// # Errors
/// Those of [`Lease::infer`].
pub(crate) async fn run(
    lease: &Lease,
    request: InferRequest,
    api: Api,
    metrics: &Metrics,
) -> Result<Vec<Tensor>, Status> {
    let start = Instant::now();
    let signature = request.signature.clone();
    let outputs = lease.infer(request).await?;
    let (model, time) = (lease.model().as_str(), start.elapsed());
    metrics.ran(model, api, time);
    metrics.ran_signature(model, &signature, time);
    if metrics.recorder().is_on() {
        metrics.recorder().note(SpanKind::Run, model, &signature, time);
    }
    Ok(outputs)
}

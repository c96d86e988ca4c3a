//! Trying a model out where it can do no harm: a throw-away worker.
//!
//! Owns what is tried. Knows nothing of who asks or why.
//! Invariant: the worker is gone when a probe returns, or when the session that it gave is dropped;
//! stateful signatures are never run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vesta_model::{
    AlignedBytes, Code, Encoding, EngineIdentity, InputLayout, LoadRequest, ModelDescription,
    PartialShape, RunRequest, Session, Shape, Signature, Status, Tensor, TensorSpec,
};

use crate::isolated::{IsolatedEngine, IsolatedSession};
use crate::options::WorkerOptions;
use crate::process::WorkerCommand;
use crate::restart::RestartPolicy;
use crate::wire::tensor_bytes;

/// What a probe found: the model loads, and no run of it harmed its process.
#[derive(Clone, Debug, PartialEq)]
pub struct Probed {
    /// What the model can do.
    pub description: ModelDescription,
    /// Signatures that were run, each with what the engine said when it refused the input.
    pub ran: Vec<(String, Option<Status>)>,
    /// Signatures that were not, each with the reason.
    pub skipped: Vec<(String, String)>,
}

/// Loads a model in a throw-away worker and runs each stateless signature once: on its defaults,
/// else on zeros of its declared shape, with 1 for sizes that may vary. `run_limit` bounds each run.
///
/// A clean refusal of such an input is no failure; a worker that dies, panics or hangs is.
///
/// # Errors
/// Those of loading in a worker; those of a run that took the process down or did not end.
pub fn probe(
    identity: EngineIdentity,
    command: WorkerCommand,
    options: WorkerOptions,
    request: &LoadRequest,
    run_limit: Duration,
) -> Result<Probed, Status> {
    probe_session(identity, command, options, request, run_limit).map(|(probed, _)| probed)
}

/// As [`probe`], with the session in its throw-away worker for further runs. The worker is not
/// replaced when it ends.
///
/// # Errors
/// Those of [`probe`].
pub fn probe_session(
    identity: EngineIdentity,
    command: WorkerCommand,
    options: WorkerOptions,
    request: &LoadRequest,
    run_limit: Duration,
) -> Result<(Probed, Arc<IsolatedSession>), Status> {
    let options = WorkerOptions { restart: RestartPolicy::never(), ..options };
    let session = IsolatedEngine::new(identity, command, options).load_isolated(request)?;
    let tried = try_signatures(session.as_ref(), run_limit);
    let ran = tried.ran.into_iter().map(|(name, outcome)| {
        let refused = harmless(&name, outcome)?;
        Ok((name, refused))
    });
    let probed = Probed {
        ran: ran.collect::<Result<_, Status>>()?,
        skipped: tried.skipped,
        description: session.description().clone(),
    };
    Ok((probed, session))
}

/// What came of trial runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tried {
    /// Signatures that were run, each with what the engine said.
    pub ran: Vec<(String, Result<(), Status>)>,
    /// Signatures that were not, each with the reason.
    pub skipped: Vec<(String, String)>,
}

/// Runs each stateless signature of a session once: on its defaults, else on zeros of its declared
/// shape, with 1 for sizes that may vary. `run_limit` bounds each run. Ends at the first run that the
/// session's process did not survive (`UNAVAILABLE`).
pub fn try_signatures(session: &dyn Session, run_limit: Duration) -> Tried {
    let mut tried = Tried::default();
    for (name, signature) in &session.description().signatures {
        match trial(name, signature) {
            Err(reason) => tried.skipped.push((name.clone(), reason)),
            Ok((request, inputs)) => {
                let outcome = session.run_over(&request, inputs, Some(Instant::now() + run_limit));
                let outcome = outcome.map(drop);
                let died = matches!(&outcome, Err(status) if status.code() == Code::Unavailable);
                tried.ran.push((name.clone(), outcome));
                if died {
                    break;
                }
            }
        }
    }
    tried
}

/// What the engine said, unless the run harmed its process.
fn harmless(name: &str, outcome: Result<(), Status>) -> Result<Option<Status>, Status> {
    let Err(status) = outcome else { return Ok(None) };
    match status.code() {
        Code::Unavailable | Code::Internal | Code::DeadlineExceeded | Code::ResourceExhausted => {
            Err(status.prefixed(&format!("a trial run of signature `{name}` failed: ")))
        }
        _ => Ok(Some(status)),
    }
}

/// A request for a trial run, or why there is none.
fn trial(name: &str, signature: &Signature) -> Result<(RunRequest, Vec<Tensor>), String> {
    if signature.stateful {
        return Err("it is stateful".to_owned());
    }
    let inputs: Vec<Tensor> =
        signature.inputs.iter().map(trial_input).collect::<Result<_, String>>()?;
    let layouts = inputs.iter().map(InputLayout::of).collect();
    let request = RunRequest {
        signature: name.to_owned(),
        inputs: layouts,
        outputs: (0..signature.outputs.len()).collect(),
    };
    Ok((request, inputs))
}

fn trial_input(spec: &TensorSpec) -> Result<Tensor, String> {
    if let Some(default) = &spec.default {
        return Ok(default.clone());
    }
    let PartialShape::Ranked(dims) = &spec.shape else {
        return Err(format!("input `{}` is of unknown rank", spec.alias));
    };
    if !matches!(spec.encoding, Encoding::Dense(_)) {
        return Err(format!("input `{}` is no dense tensor", spec.alias));
    }
    let dims: Vec<usize> = dims.iter().map(|dim| dim.unwrap_or(1)).collect();
    let of_spec = |status: Status| format!("input `{}`: {}", spec.alias, status.message());
    let shape = Shape::new(dims).map_err(of_spec)?;
    let bytes = tensor_bytes(spec.fed_dtype(), &shape, 0).map_err(of_spec)?;
    /// A declared shape larger than this is not worth a trial.
    const INPUT_BYTES_MAX: usize = 1 << 30;
    if bytes > INPUT_BYTES_MAX {
        return Err(format!("input `{}` takes {bytes} bytes", spec.alias));
    }
    // Zero offsets are a valid layout of empty strings.
    let memory = Arc::new(AlignedBytes::zeroed(bytes));
    Tensor::whole(spec.fed_dtype(), shape, memory).map_err(of_spec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vesta_model::DType;

    #[test]
    fn unknown_sizes_become_one_and_unknown_ranks_are_skipped() {
        let ranked = PartialShape::Ranked(vec![None, Some(3)]);
        let spec = TensorSpec::dense("x", DType::F32).with_shape(ranked.clone());
        assert_eq!(trial_input(&spec).unwrap().shape().dims(), [1, 3]);
        let text = TensorSpec::dense("x", DType::String).with_shape(ranked);
        assert_eq!(trial_input(&text).unwrap().strings().unwrap().len(), 3);
        assert!(trial_input(&TensorSpec::dense("x", DType::F32)).is_err());
        let mut signature = Signature::new("s", "", vec![], vec![]);
        assert!(trial("s", &signature).is_ok());
        signature.stateful = true;
        assert!(trial("s", &signature).is_err());
    }
}

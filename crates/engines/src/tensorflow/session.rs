//! One version in TensorFlow: its signatures bound to the tensors of its graph, and its runs.
//!
//! May not know: how versions come and go. Invariant: a run of a signature feeds and fetches just
//! what the signature names, whatever lies there: interior tensors take any shape, as the original
//! lets them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message as _;
use vesta_ffi::{GraphOutput, TensorFlow, TensorFlowSession, TensorFlowValue};
use vesta_model::{
    DType, Encoding, LoadRequest, RunRequest, Signature, Status, Tensor, TensorSpec,
};
use vesta_protos::tensorflow::RunOptions;

use super::import::importable;
use super::pace::Pace;
use super::status;
use super::values::{from_tensorflow, not_in_graph, to_tensorflow};
use crate::bound::{Bound, BoundSession, Runner};
use crate::model_settings::open_model;

/// A version loaded in TensorFlow.
pub(super) struct LoadedModel {
    library: &'static TensorFlow,
    session: TensorFlowSession,
}

/// A signature in terms of the graph.
pub(super) struct Endpoints {
    signature: Arc<Signature>,
    inputs: Vec<Endpoint>,
    outputs: Vec<Endpoint>,
    pace: Pace,
}

/// The number of the pool that is none: the run stays on the thread that calls.
const CALLING_THREAD: i32 = -1;

/// Where a declared tensor lies, or why it cannot be used. A signature with such a tensor is still
/// described: clients ask for metadata of it, and may call it without that output.
type Endpoint = Result<GraphOutput, Status>;

impl LoadedModel {
    /// Reads the signatures, then has TensorFlow load the same folder.
    pub(super) fn load(
        library: &'static TensorFlow,
        request: &LoadRequest,
        config: &[u8],
    ) -> Result<BoundSession<LoadedModel>, Status> {
        // Ours first: its errors have the original's words, and no damaged file reaches TensorFlow.
        let model = open_model(&request.artifact, &request.tags)?;
        let mut description = model.description().clone();
        let session = match model.frozen_graph() {
            Some(graph) => TensorFlowSession::import(library, &importable(library, graph)?, config),
            None => TensorFlowSession::load(library, &request.artifact, &request.tags, config),
        };
        let session = session.map_err(status)?;
        let mut bound = BTreeMap::new();
        for (name, signature) in &mut description.signatures {
            let inputs: Vec<Endpoint> =
                signature.inputs.iter().map(|spec| endpoint(&session, spec)).collect();
            let outputs = signature.outputs.iter().map(|spec| endpoint(&session, spec)).collect();
            say_what_is_fed(signature, &inputs);
            let signature = Arc::clone(signature);
            let operators = model.operators(name)?;
            let pace = Pace::new(signature.stateful, operators.keys().map(String::as_str));
            bound.insert(name.clone(), Endpoints { signature, inputs, outputs, pace });
        }
        Ok(BoundSession::new(description, LoadedModel { library, session }, bound))
    }
}

/// Writes down where the graph takes another dtype than the signature declares.
fn say_what_is_fed(signature: &mut Arc<Signature>, inputs: &[Endpoint]) {
    for (index, endpoint) in inputs.iter().enumerate() {
        let taken = endpoint.as_ref().ok().and_then(|output| plain_dtype(output.dtype()));
        if let Some(taken) = taken.filter(|&taken| taken != signature.inputs[index].dtype) {
            Arc::make_mut(signature).inputs[index].fed_as = Some(taken);
        }
    }
}

/// The dtype of a tensor, or behind a reference to a variable.
fn plain_dtype(number: i32) -> Option<DType> {
    let plain =
        if number > DType::REFERENCE_OFFSET { number - DType::REFERENCE_OFFSET } else { number };
    DType::from_number(plain)
}

/// Finds a declared tensor in the graph.
fn endpoint(session: &TensorFlowSession, spec: &TensorSpec) -> Endpoint {
    let kind = match &spec.encoding {
        Encoding::Dense(name) => {
            let (operation, index) = split(name);
            return session.output(operation, index).ok_or_else(|| not_in_graph(name));
        }
        Encoding::CooSparse { .. } => "a sparse",
        Encoding::Composite => "a composite",
    };
    Err(Status::unimplemented(format!(
        "`{}` is {kind} tensor, which a request cannot carry; give the model a signature of dense \
         tensors",
        spec.alias
    )))
}

/// `x:1` is output 1 of `x`; a bare name is output 0.
fn split(name: &str) -> (&str, usize) {
    match name.rsplit_once(':') {
        Some((operation, index)) => match index.parse() {
            Ok(index) => (operation, index),
            Err(_) => (name, 0),
        },
        None => (name, 0),
    }
}

impl Bound for Endpoints {
    fn signature(&self) -> &Signature {
        &self.signature
    }
}

impl Runner for LoadedModel {
    type Bound = Endpoints;

    fn run(
        &self,
        bound: &Endpoints,
        request: &RunRequest,
        inputs: Vec<Tensor>,
        deadline: Option<Instant>,
    ) -> Result<Vec<Tensor>, Status> {
        let bytes: u64 = inputs.iter().map(|input| input.bytes().len() as u64).sum();
        let options = run_options(&bound.pace, bytes, deadline)?;
        let endpoints = bound.inputs.iter().cloned().collect::<Result<Vec<_>, _>>()?;
        let fetches = request
            .outputs
            .iter()
            .map(|&index| bound.outputs[index].clone())
            .collect::<Result<Vec<_>, _>>()?;
        let values = inputs
            .into_iter()
            .map(|input| to_tensorflow(self.library, input))
            .collect::<Result<Vec<TensorFlowValue>, _>>()?;
        let feeds: Vec<_> = endpoints.into_iter().zip(&values).collect();
        let started = Instant::now();
        let given = self.session.run(&options, &feeds, &fetches, &[]).map_err(status)?;
        bound.pace.learn(bytes, started.elapsed());
        let outputs = &bound.signature.outputs;
        request
            .outputs
            .iter()
            .zip(given)
            .map(|(&index, value)| from_tensorflow(&outputs[index].alias, value))
            .collect()
    }
}

/// The serialized options of a run that ends at `deadline`.
///
/// # Errors
/// `DEADLINE_EXCEEDED` when it has passed.
fn run_options(pace: &Pace, bytes: u64, deadline: Option<Instant>) -> Result<Vec<u8>, Status> {
    let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    if left.is_some_and(|left| left.is_zero()) {
        return Err(Status::deadline_exceeded("Timed out waiting for notification"));
    }
    let mut options = RunOptions::default();
    if pace.is_short(bytes, left) {
        options.inter_op_thread_pool = CALLING_THREAD;
    } else if let Some(left) = left {
        // Rounded up: 0 would mean no limit.
        let left_ms = left.saturating_add(Duration::from_micros(999)).as_millis();
        options.timeout_in_ms = i64::try_from(left_ms).unwrap_or(i64::MAX);
    }
    Ok(options.encode_to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensor_names_are_split_as_tensorflow_does() {
        assert_eq!(split("x:0"), ("x", 0));
        assert_eq!(split("scope/x:12"), ("scope/x", 12));
        assert_eq!(split("x"), ("x", 0));
        assert_eq!(split("x:y"), ("x:y", 0));
    }

    #[test]
    fn a_deadline_becomes_milliseconds_and_never_no_limit() {
        let unknown = Pace::new(false, [].into_iter());
        let options = |deadline: Option<Instant>| {
            let options = run_options(&unknown, 4, deadline)?;
            Ok::<_, Status>(RunOptions::decode(options.as_slice()).unwrap())
        };
        assert_eq!(options(None).unwrap(), RunOptions::default());
        assert!(options(Some(Instant::now())).is_err());
        if let Ok(soon) = options(Some(Instant::now() + Duration::from_micros(300))) {
            assert_eq!(soon.timeout_in_ms, 1);
        }
        let later = options(Some(Instant::now() + Duration::from_secs(5))).unwrap();
        assert!((4_000..=5_000).contains(&later.timeout_in_ms), "{later:?}");
    }

    #[test]
    fn a_run_known_to_be_short_stays_on_its_thread() {
        let short = Pace::new(false, [].into_iter());
        short.learn(4, Duration::from_micros(30));
        let options = run_options(&short, 4, Some(Instant::now() + Duration::from_secs(5)));
        let options = RunOptions::decode(options.unwrap().as_slice()).unwrap();
        assert_eq!((options.inter_op_thread_pool, options.timeout_in_ms), (CALLING_THREAD, 0));
    }
}

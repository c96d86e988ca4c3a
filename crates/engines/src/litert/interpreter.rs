//! One compiled model, and what must be remembered of it between runs.
//!
//! Owns sizes: of inputs, which a run may change; of outputs, which may be known only when it is
//! over. Invariant: an output is never given less room than the runtime asked for, and after a
//! failure the runtime's memory of former buffers is wiped before it is used again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use vesta_ffi::{LiteRt, LiteRtError, LiteRtInput, LiteRtKernels, LiteRtModel, LiteRtOutput};
use vesta_model::{AlignedBytes, Code, DType, Memory, Shape, Status, Tensor};

use super::values::{Fed, given};

/// The most bytes that are tried for an output whose size shows only when it is computed.
const OUTPUT_BYTES_MAX: usize = 1 << 30;
/// The least room that an output is given once it did not fit.
const ROOM_MIN: usize = 4096;
/// How the runtime says that an output does not fit; its number follows.
const TOO_SMALL: &str = "Custom allocation is too small for tensor idx: ";

/// What a model is compiled from; shared by its interpreters.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) library: &'static LiteRt,
    pub(super) bytes: Arc<AlignedBytes>,
    pub(super) keys: Vec<String>,
    pub(super) threads: usize,
    /// Such that none writes beyond the memory of an output.
    pub(super) kernels: LiteRtKernels,
    pub(super) graphs: Arc<Vec<Graph>>,
}

/// The ends of one graph, in the order of the runtime.
pub(super) struct Graph {
    pub(super) inputs: Vec<End>,
    pub(super) outputs: Vec<End>,
    pub(super) is_stateful: bool,
}

/// A tensor that is fed or fetched.
pub(super) struct End {
    pub(super) name: String,
    pub(super) dtype: DType,
    /// The runtime's number of the dtype.
    pub(super) element: i32,
    /// The runtime's number of the tensor.
    pub(super) number: usize,
    /// The most bytes that it was seen to need.
    pub(super) room: AtomicUsize,
}

/// A model in the form that the foreign interface takes.
struct Whole(Arc<AlignedBytes>);

impl AsRef<[u8]> for Whole {
    fn as_ref(&self) -> &[u8] {
        self.0.bytes()
    }
}

/// A compiled model. One run at a time.
pub(super) struct Interpreter {
    source: Arc<Source>,
    model: LiteRtModel,
    laid_out: Vec<LaidOut>,
}

/// How the tensors of a graph lie.
#[derive(Default)]
struct LaidOut {
    /// Sizes of the inputs; `None` when they must be given anew.
    inputs: Option<Vec<Vec<i32>>>,
    /// Sizes of the outputs as far as they are known before a run.
    outputs: Vec<Vec<i32>>,
    /// Whether a call failed since.
    has_failed: bool,
}

/// Why a run did not come to an end.
enum Stop {
    Failed(Status),
    /// Outputs, by position, that need more room.
    Cramped(Vec<usize>),
}

impl From<Status> for Stop {
    fn from(status: Status) -> Stop {
        Stop::Failed(status)
    }
}

impl Interpreter {
    /// # Errors
    /// `INVALID_ARGUMENT` for a model that the runtime does not take.
    pub(super) fn new(source: Arc<Source>) -> Result<Interpreter, Status> {
        let model = compile(&source)?;
        let laid_out = source.graphs.iter().map(|_| LaidOut::default()).collect();
        Ok(Interpreter { source, model, laid_out })
    }

    /// Lays a graph out as the file has it, which finds operators that the runtime lacks.
    ///
    /// # Errors
    /// `UNIMPLEMENTED` with the runtime's words.
    pub(super) fn check(&mut self, graph: usize) -> Result<(), Status> {
        match self.model.allocate(graph) {
            Ok(_) => Ok(()),
            Err(error) => Err(Status::unimplemented(format!(
                "LiteRT cannot run the model.tflite: {}",
                error.message.replace('\n', "; ")
            ))),
        }
    }

    /// Runs a graph on `inputs`, in the order of the runtime, and gives all its outputs.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for sizes that the model does not take, `DEADLINE_EXCEEDED`, `INTERNAL`
    /// for a run that fails, `RESOURCE_EXHAUSTED` for outputs that are too large.
    pub(super) fn run(
        &mut self,
        graph: usize,
        inputs: &[(Vec<i32>, Fed)],
        deadline: Option<Instant>,
    ) -> Result<Vec<Tensor>, Status> {
        let source = Arc::clone(&self.source);
        let known = &source.graphs[graph];
        loop {
            let cramped = match self.try_run(graph, inputs, deadline) {
                Ok(outputs) => return Ok(outputs),
                Err(stop) => {
                    self.laid_out[graph].has_failed = true;
                    match stop {
                        Stop::Failed(status) => return Err(status),
                        Stop::Cramped(cramped) => cramped,
                    }
                }
            };
            for position in cramped {
                widen(&known.outputs[position], known.is_stateful)?;
            }
        }
    }

    fn try_run(
        &mut self,
        graph: usize,
        inputs: &[(Vec<i32>, Fed)],
        deadline: Option<Instant>,
    ) -> Result<Vec<Tensor>, Stop> {
        self.lay_out(graph, inputs)?;
        let source = Arc::clone(&self.source);
        let known = &source.graphs[graph];
        let fed: Vec<LiteRtInput<'_>> = known
            .inputs
            .iter()
            .zip(inputs)
            .map(|(end, (dims, fed))| LiteRtInput {
                element: end.element,
                dims,
                bytes: fed.bytes(),
            })
            .collect();
        let fed_bytes = inputs.iter().map(|(_, fed)| fed.bytes().len()).sum();
        let sizes = &self.laid_out[graph].outputs;
        let mut rooms = known
            .outputs
            .iter()
            .zip(sizes)
            .map(|(end, dims)| Ok(AlignedBytes::zeroed(room_for(end, dims, fed_bytes)?)))
            .collect::<Result<Vec<_>, Status>>()?;
        let mut given_to: Vec<LiteRtOutput<'_>> = known
            .outputs
            .iter()
            .zip(sizes)
            .zip(&mut rooms)
            .map(|((end, dims), room)| LiteRtOutput {
                element: end.element,
                dims,
                bytes: room.bytes_mut(),
            })
            .collect();
        let ran = self.model.run(graph, &fed, &mut given_to, deadline);
        drop(given_to);
        ran.map_err(|error| {
            // A loop that is told to stop says that it failed.
            let is_late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if is_late { Stop::Failed(late()) } else { stopped(known, &error) }
        })?;
        let dims = self.model.output_dims(graph).map_err(|error| failed(&error))?;
        let outputs = known.outputs.iter().zip(dims).zip(rooms);
        let outputs = outputs.map(|((end, dims), room)| given(&end.name, end.dtype, &dims, room));
        Ok(outputs.collect::<Result<_, _>>()?)
    }

    /// Gives the inputs their sizes, where they are others than those of the last run.
    fn lay_out(&mut self, graph: usize, inputs: &[(Vec<i32>, Fed)]) -> Result<(), Status> {
        if self.laid_out[graph].has_failed {
            self.forget(graph, inputs)?;
        }
        let laid_out = &mut self.laid_out[graph];
        let wanted: Vec<Vec<i32>> = inputs.iter().map(|(dims, _)| dims.clone()).collect();
        if laid_out.inputs.as_ref() == Some(&wanted) {
            return Ok(());
        }
        laid_out.inputs = None;
        let names = &self.source.graphs[graph].inputs;
        for (position, (dims, end)) in wanted.iter().zip(names).enumerate() {
            // A scalar has one size.
            if !dims.is_empty() {
                self.model.resize(graph, position, dims).map_err(|error| {
                    self.laid_out[graph].has_failed = true;
                    Status::invalid_argument(format!(
                        "Failed to resize input tensor: {} to {dims:?}: {}",
                        end.name, error.message
                    ))
                })?;
            }
        }
        let outputs = self.model.allocate(graph).map_err(|error| {
            self.laid_out[graph].has_failed = true;
            let sizes: Vec<String> =
                wanted.iter().zip(names).map(|(dims, e)| format!("{} {dims:?}", e.name)).collect();
            Status::invalid_argument(format!(
                "Failed to allocate tensors for inputs of the sizes {}: {}",
                sizes.join(", "),
                error.message.replace('\n', "; ")
            ))
        })?;
        self.laid_out[graph] = LaidOut { inputs: Some(wanted), outputs, has_failed: false };
        Ok(())
    }

    /// Has the runtime forget the buffers of a run that failed. It does so when an input gets other
    /// sizes.
    fn forget(&mut self, graph: usize, inputs: &[(Vec<i32>, Fed)]) -> Result<(), Status> {
        self.laid_out[graph] = LaidOut::default();
        for (position, (dims, _)) in inputs.iter().enumerate() {
            if let Some((first, rest)) = dims.split_first() {
                let other: Vec<i32> =
                    std::iter::once(first % 2 + 1).chain(rest.iter().copied()).collect();
                for dims in [&other, dims] {
                    if self.model.resize(graph, position, dims).is_err() {
                        self.laid_out[graph].has_failed = true;
                        break;
                    }
                }
                return Ok(());
            }
        }
        // Nothing can be resized: a fresh one, then.
        self.model = compile(&self.source)?;
        self.laid_out.iter_mut().for_each(|laid_out| *laid_out = LaidOut::default());
        Ok(())
    }
}

fn compile(source: &Source) -> Result<LiteRtModel, Status> {
    let keys: Vec<&str> = source.keys.iter().map(String::as_str).collect();
    let bytes = Arc::new(Whole(Arc::clone(&source.bytes)));
    let loaded = LiteRtModel::load(source.library, bytes, &keys, source.threads, source.kernels);
    loaded.map_err(|error| {
        Status::invalid_argument(format!("LiteRT does not take the model.tflite: {error}"))
    })
}

/// How many bytes an output is given.
fn room_for(end: &End, dims: &[i32], fed_bytes: usize) -> Result<usize, Status> {
    let learned = end.room.load(Ordering::Relaxed);
    let Some(width) = end.dtype.width() else {
        // Strings are mostly as long as those that they are made of.
        return Ok(learned.max(ROOM_MIN).max(fed_bytes.saturating_mul(2).min(OUTPUT_BYTES_MAX)));
    };
    let dims: Vec<usize> = dims.iter().map(|&dim| usize::try_from(dim).unwrap_or(0)).collect();
    Ok(Shape::new(dims)?.bytes(width)?.max(learned))
}

/// What came of a run that failed.
fn stopped(graph: &Graph, error: &LiteRtError) -> Stop {
    let number = error.message.split_once(TOO_SMALL).and_then(|(_, rest)| {
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse::<usize>().ok()
    });
    let cramped = |fits: &dyn Fn(&End) -> bool| -> Vec<usize> {
        let ends = graph.outputs.iter().enumerate();
        ends.filter(|(_, end)| fits(end)).map(|(position, _)| position).collect()
    };
    let cramped = match number {
        Some(number) => cramped(&|end| end.number == number),
        // Of strings that do not fit, nothing is said where it could be read.
        None if !error.is_explained && error.code == LiteRtError::RUNTIME_FAILURE => {
            cramped(&|end| end.dtype == DType::String)
        }
        None => Vec::new(),
    };
    if cramped.is_empty() { Stop::Failed(failed(error)) } else { Stop::Cramped(cramped) }
}

fn late() -> Status {
    Status::deadline_exceeded("the run was stopped at its deadline")
}

fn failed(error: &LiteRtError) -> Status {
    if error.code == LiteRtError::CANCELLED {
        return late();
    }
    Status::internal(format!(
        "Failed to invoke TfLite interpreter: {}",
        error.message.replace('\n', "; ")
    ))
}

/// More room for an output in the next run.
///
/// # Errors
/// `RESOURCE_EXHAUSTED` when it is more than is ever given; for a graph that keeps something, since
/// a run of it is not repeated.
fn widen(end: &End, is_stateful: bool) -> Result<(), Status> {
    let had = end.room.load(Ordering::Relaxed).max(ROOM_MIN / 4);
    if had >= OUTPUT_BYTES_MAX {
        return Err(Status::new(
            Code::ResourceExhausted,
            format!("output {} is larger than {OUTPUT_BYTES_MAX} bytes", end.name),
        ));
    }
    end.room.fetch_max(had.saturating_mul(4).min(OUTPUT_BYTES_MAX), Ordering::Relaxed);
    if is_stateful {
        return Err(Status::new(
            Code::ResourceExhausted,
            format!(
                "output {} was larger than foreseen; the model keeps state, so the run is not \
                 repeated by itself: send the request again",
                end.name
            ),
        ));
    }
    Ok(())
}

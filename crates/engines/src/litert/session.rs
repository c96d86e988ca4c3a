//! One version in LiteRT: its signatures bound to graphs, and the interpreters that run them.
//!
//! May not know: how versions come and go. Invariant: no more interpreters than allowed exist, and
//! one serves one run at a time; a model that keeps state has one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use vesta_ffi::{LiteRt, LiteRtKernels};
use vesta_model::{DType, LoadRequest, ModelDescription, RunRequest, Signature, Status, Tensor};

use super::examples::Parsing;
use super::flatbuffer::File;
use super::head::{self, Ends};
use super::interpreter::{End, Graph, Interpreter, Source};
use super::schema::{Model, Subgraph};
use super::signatures::{self, Served};
use super::sizes::{self, Follows};
use super::values::Fed;
use super::{read_file, unbundled};
use crate::bound::{Bound, BoundSession, Runner};
use crate::pool::Pool;

/// A version loaded in LiteRT.
pub(super) struct LoadedModel {
    source: Arc<Source>,
    /// Of each graph, what is run before it.
    parsings: Vec<Option<Parsing>>,
    interpreters: Pool<Interpreter>,
    /// Where the sizes of outputs follow from those of inputs, and the runtime does not know them before a run.
    learner: Option<Learner>,
}

/// Learns how much room outputs need for inputs of certain sizes, by a run on kernels that are checked: the
/// fast ones would write beyond it.
struct Learner {
    source: Arc<Source>,
    /// Made for the first request.
    interpreter: Mutex<Option<Interpreter>>,
    /// Graphs, and sizes of their inputs, that were run.
    seen: Mutex<BTreeSet<Sizes>>,
}

/// A graph by number, and the sizes of its inputs.
type Sizes = (usize, Vec<Vec<i32>>);

/// More sizes than these are not remembered. The room that was learned is.
const SIZES_MAX: usize = 4096;

/// A signature in terms of a graph.
pub(super) struct Ports {
    signature: Arc<Signature>,
    graph: usize,
    /// For each input of the graph, where it comes from.
    inputs: Vec<Feed>,
    /// For each output of the signature, its position in the graph.
    outputs: Vec<usize>,
    /// The position in the signature of the input that brings Examples.
    examples: Option<usize>,
}

/// Where an input of a graph comes from.
enum Feed {
    /// The input of the signature at this position.
    Input(usize),
    /// What the graph's Examples give, by position.
    Parsed(usize),
}

impl LoadedModel {
    /// Reads the file, and compiles it once.
    pub(super) fn load(
        library: &'static LiteRt,
        request: &LoadRequest,
        interpreters_max: usize,
    ) -> Result<BoundSession<LoadedModel>, Status> {
        let bytes = read_file(&request.artifact)?;
        let file = File::new(&bytes);
        let model = Model::read(&file)?;
        let served = signatures::of(&model)?;
        let mut wanted: Vec<usize> = served.iter().map(|one| one.subgraph).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let wanted: Vec<(usize, Option<Parsing>)> =
            wanted.into_iter().map(|n| (n, Parsing::find(&model.subgraphs[n], &model))).collect();
        let headed = head::put_before(&bytes, &model, &wanted)?;
        let graphs = wanted
            .iter()
            .zip(&headed.ends)
            .map(|((number, _), ends)| graph(&model.subgraphs[*number], ends, model.is_stateful()))
            .collect::<Result<Vec<_>, _>>()?;
        let bound = served.iter().map(|one| bind(one, &wanted, &headed.ends)).collect();
        let follows = wanted.iter().map(|(number, _)| sizes::follow(&model, *number)).max();
        let kernels = match follows {
            Some(Follows::Fed) => LiteRtKernels::Checked,
            // A run is made twice, which a model that keeps state does not stand.
            Some(Follows::Computed) if model.is_stateful() => LiteRtKernels::Checked,
            _ => LiteRtKernels::Fast,
        };
        let source = Source {
            library,
            bytes: Arc::new(headed.bytes),
            keys: (0..wanted.len()).map(head::key).collect(),
            threads: request.threads,
            kernels,
            graphs: Arc::new(graphs),
        };
        let must_learn = follows == Some(Follows::Computed) && kernels == LiteRtKernels::Fast;
        let learner = must_learn.then(|| Learner::new(&source));
        let source = Arc::new(source);
        let first = Interpreter::new(Arc::clone(&source))
            .and_then(|mut first| {
                (0..wanted.len()).try_for_each(|graph| first.check(graph))?;
                Ok(first)
            })
            .map_err(|status| with_unbundled(status, &model))?;
        let interpreters_max = if model.is_stateful() { 1 } else { interpreters_max.max(1) };
        let signatures: BTreeMap<_, _> = served
            .into_iter()
            .map(|one| (one.signature.name.clone(), Arc::new(one.signature)))
            .collect();
        let runner = LoadedModel {
            source,
            parsings: wanted.into_iter().map(|(_, parsing)| parsing).collect(),
            interpreters: Pool::new(vec![first], interpreters_max),
            learner,
        };
        Ok(BoundSession::new(ModelDescription { signatures }, runner, bound))
    }
}

impl Learner {
    fn new(source: &Source) -> Learner {
        let source = Source { kernels: LiteRtKernels::Checked, ..source.clone() };
        Learner { source: Arc::new(source), interpreter: Mutex::default(), seen: Mutex::default() }
    }

    /// Runs a graph, unless it was run with inputs of these sizes before.
    ///
    /// # Errors
    /// Those of the run.
    fn learn(
        &self,
        graph: usize,
        fed: &[(Vec<i32>, Fed)],
        deadline: Option<Instant>,
    ) -> Result<(), Status> {
        let sizes = (graph, fed.iter().map(|(dims, _)| dims.clone()).collect());
        if self.seen.lock().unwrap_or_else(PoisonError::into_inner).contains(&sizes) {
            return Ok(());
        }
        let mut interpreter = self.interpreter.lock().unwrap_or_else(PoisonError::into_inner);
        let interpreter = match &mut *interpreter {
            Some(made) => made,
            none => none.insert(Interpreter::new(Arc::clone(&self.source))?),
        };
        let outputs = interpreter.run(graph, fed, deadline)?;
        for (end, output) in self.source.graphs[graph].outputs.iter().zip(outputs) {
            end.room.fetch_max(output.bytes().len(), Ordering::Relaxed);
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= SIZES_MAX {
            seen.clear();
        }
        seen.insert(sizes);
        Ok(())
    }
}

/// Adds the operators that no runtime brings with it: they are what is wrong, mostly.
fn with_unbundled(status: Status, model: &Model<'_>) -> Status {
    let unbundled = unbundled(model);
    if unbundled.is_empty() {
        return status;
    }
    Status::new(
        status.code(),
        format!(
            "{}; the model uses operators that are no part of TensorFlow Lite: {}; convert it with \
             built-in operators alone, or serve the SavedModel",
            status.message(),
            unbundled.join(", ")
        ),
    )
}

fn graph(subgraph: &Subgraph<'_>, ends: &Ends, is_stateful: bool) -> Result<Graph, Status> {
    let end = |tensor: usize, number: usize| {
        let tensor = &subgraph.tensors[tensor];
        let (dtype, element) = tensor.dtype()?;
        let room = AtomicUsize::new(0);
        Ok(End { name: tensor.name.to_owned(), dtype, element, number, room })
    };
    Ok(Graph {
        inputs: ends.inputs.iter().map(|&n| end(n, n)).collect::<Result<_, Status>>()?,
        outputs: ends
            .outputs
            .iter()
            .map(|&(n, seen)| end(n, seen))
            .collect::<Result<_, Status>>()?,
        is_stateful,
    })
}

fn bind(one: &Served, wanted: &[(usize, Option<Parsing>)], ends: &[Ends]) -> (String, Ports) {
    // Each subgraph of a signature is wanted, and each tensor of one is an end of it.
    let graph = wanted.iter().position(|(n, _)| *n == one.subgraph).unwrap_or_default();
    let ends = &ends[graph];
    let position = |tensors: &[usize], n: usize| tensors.iter().position(|&t| t == n);
    let parsing = wanted[graph].1.as_ref();
    let parsed = parsing.map_or(&[][..], |parsing| &parsing.outputs);
    let feed = |&n: &usize| {
        let input = position(&one.inputs, n).map(Feed::Input);
        input.or_else(|| position(parsed, n).map(Feed::Parsed))
    };
    let inputs = ends.inputs.iter().filter_map(feed).collect();
    let given: Vec<usize> = ends.outputs.iter().map(|&(n, _)| n).collect();
    let outputs = one.outputs.iter().filter_map(|&n| position(&given, n)).collect();
    let examples = parsing.and_then(|parsing| position(&one.inputs, parsing.serialized));
    let signature = Arc::new(one.signature.clone());
    (one.signature.name.clone(), Ports { signature, graph, inputs, outputs, examples })
}

impl Bound for Ports {
    fn signature(&self) -> &Signature {
        &self.signature
    }
}

impl Runner for LoadedModel {
    type Bound = Ports;

    fn run(
        &self,
        bound: &Ports,
        request: &RunRequest,
        inputs: Vec<Tensor>,
        deadline: Option<Instant>,
    ) -> Result<Vec<Tensor>, Status> {
        let parsed = match (&self.parsings[bound.graph], bound.examples) {
            (Some(parsing), Some(examples)) => parsing.parse(&inputs[examples])?,
            _ => Vec::new(),
        };
        let fed = bound
            .inputs
            .iter()
            .map(|feed| {
                let (alias, tensor) = match *feed {
                    Feed::Input(n) => (bound.signature.inputs[n].alias.as_str(), &inputs[n]),
                    Feed::Parsed(n) => ("of the Examples", &parsed[n]),
                };
                Ok((dims(alias, tensor)?, Fed::of(tensor.clone())?))
            })
            .collect::<Result<Vec<_>, Status>>()?;
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(Status::deadline_exceeded("the deadline passed before the run began"));
        }
        if let Some(learner) = &self.learner {
            learner.learn(bound.graph, &fed, deadline)?;
        }
        let make = || Interpreter::new(Arc::clone(&self.source));
        let mut interpreter = self.interpreters.take(deadline, make)?;
        let outcome = interpreter.run(bound.graph, &fed, deadline);
        self.interpreters.put_back(interpreter);
        let outputs = outcome?;
        Ok(request.outputs.iter().map(|&n| outputs[bound.outputs[n]].clone()).collect())
    }
}

/// The sizes of an input as the runtime takes them.
///
/// # Errors
/// `INVALID_ARGUMENT` for an empty tensor, and one with too many dimensions or elements.
pub(crate) fn dims(alias: &str, tensor: &Tensor) -> Result<Vec<i32>, Status> {
    let shape = tensor.shape();
    if shape.elements() == 0 {
        return Err(Status::invalid_argument(format!(
            "input {alias} of shape {shape} is empty, which TensorFlow Lite does not take"
        )));
    }
    let dims = shape.dims().iter().map(|&dim| i32::try_from(dim).ok());
    let dims: Option<Vec<i32>> = dims.collect();
    dims.filter(|dims| dims.len() <= 8).ok_or_else(|| {
        let dtype: DType = tensor.dtype();
        Status::invalid_argument(format!(
            "input {alias} of dtype {dtype} and shape {shape} is too large for TensorFlow Lite"
        ))
    })
}

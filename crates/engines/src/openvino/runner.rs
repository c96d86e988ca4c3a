//! One version in OpenVINO: its signatures bound to compiled models, and the end of its runs.
//!
//! A run is told to end at its deadline, and looks between operators alone: within a loop it goes on to
//! the loop's end. So the answer does not wait for it. Invariant: what a run reads is kept to its end, and
//! a run that was given up is one of the signature's few until then.

use std::num::NonZero;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vesta_ffi::{OpenVinoInput, OpenVinoModel, OpenVinoPort, OpenVinoRequest};
use vesta_model::{PartialShape, RunRequest, Signature, Status, Tensor, TensorSpec};
use vesta_protos::onnx::ModelProto;

use super::values::{from_output, status, to_input, to_openvino, unfit, words};
use crate::bound::{Bound, Runner, late};
use crate::ordinary::{Careful, Ordinary, is_ordinary, is_ordinary_sum};
use crate::pool::Pool;

/// How long a run that was told to end may take before it is left to itself.
const GRACE: Duration = Duration::from_millis(5);

/// Where the ends of a signature stand among those of the model.
#[derive(Clone)]
pub(super) struct Ends {
    /// One for each of the signature's inputs.
    pub(super) inputs: Vec<usize>,
    /// One for each of the signature's outputs; several may be the same.
    pub(super) outputs: Vec<usize>,
}

impl Ends {
    /// Finds ends by their names in the model.
    ///
    /// # Errors
    /// `INTERNAL` when the model lacks one.
    pub(super) fn find(named: &[String], all: &[String]) -> Result<Vec<usize>, Status> {
        let place = |name: &String| {
            let lacks = || Status::internal(format!("the model has no `{name}`"));
            all.iter().position(|known| known == name).ok_or_else(lacks)
        };
        named.iter().map(place).collect()
    }
}

/// A signature in terms of a compiled model.
pub(super) struct BoundModel {
    signature: Arc<Signature>,
    /// The shapes that it takes, one for each of the signature's inputs.
    shapes: Vec<PartialShape>,
    /// What makes the model's only input of the signature's.
    before: Option<Part>,
    network: Part,
    /// What the network was made for, if not for any run.
    limits: Option<Limits>,
}

/// A network that is made for ordinary runs.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// Where the output stands that says whether a run was, where its inputs do not.
    sums: Option<usize>,
}

impl Limits {
    /// Writes into the model what a run is known by; `None` where any run is ordinary.
    pub(super) fn of(ordinary: &Ordinary, model: &mut ModelProto) -> Option<Limits> {
        let place = model.graph.as_ref().map_or(0, |graph| graph.output.len());
        let sums = ordinary.write_sums(model).map(|_| place);
        ordinary.is_limited().then_some(Limits { sums })
    }
}

/// A compiled model, or what a signature has of one.
struct Part {
    /// As many as runs may go on at a time.
    requests: Arc<Pool<OpenVinoRequest>>,
    ends: Ends,
}

/// A model as OpenVINO runs it.
pub(super) struct Compiled {
    inputs: Vec<OpenVinoPort>,
    outputs: Vec<OpenVinoPort>,
    requests: Arc<Pool<OpenVinoRequest>>,
}

impl Compiled {
    /// Compiles a model.
    ///
    /// # Errors
    /// `UNIMPLEMENTED` for what OpenVINO cannot run as it is meant.
    pub(super) fn new(model: &OpenVinoModel, threads: usize) -> Result<Compiled, Status> {
        let refused = |error| Status::unimplemented(words(&error));
        let inputs = model.inputs().map_err(refused)?;
        let outputs = model.outputs().map_err(refused)?;
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let requests = model.compile(threads, cores / threads.max(1)).map_err(refused)?;
        let runs_max = requests.len();
        Ok(Compiled { inputs, outputs, requests: Arc::new(Pool::new(requests, runs_max)) })
    }

    /// The model for a signature, whose inputs must be the model's. All have the same requests.
    ///
    /// # Errors
    /// `UNIMPLEMENTED` where OpenVINO's ends are not the signature's.
    pub(super) fn bind(
        &self,
        signature: Arc<Signature>,
        shapes: Vec<PartialShape>,
        ends: Ends,
    ) -> Result<BoundModel, Status> {
        self.expect_fed(&ends)?;
        check_ends("input", &signature.inputs, &ends.inputs, &self.inputs)?;
        check_ends("output", &signature.outputs, &ends.outputs, &self.outputs)?;
        Ok(BoundModel { signature, shapes, before: None, network: self.part(ends), limits: None })
    }

    /// The model behind another one, which makes its only input of the signature's.
    ///
    /// # Errors
    /// As [`Compiled::bind`].
    pub(super) fn bind_behind(
        &self,
        (before, its_ends): (Compiled, Ends),
        signature: Arc<Signature>,
        shapes: Vec<PartialShape>,
        ends: Ends,
    ) -> Result<BoundModel, Status> {
        before.expect_fed(&its_ends)?;
        self.expect_fed(&ends)?;
        check_ends("input", &signature.inputs, &its_ends.inputs, &before.inputs)?;
        check_ends("output", &signature.outputs, &ends.outputs, &self.outputs)?;
        let before = Some(before.part(its_ends));
        Ok(BoundModel { signature, shapes, before, network: self.part(ends), limits: None })
    }

    fn part(&self, ends: Ends) -> Part {
        Part { requests: Arc::clone(&self.requests), ends }
    }

    fn expect_fed(&self, ends: &Ends) -> Result<(), Status> {
        let is_fed = |index| ends.inputs.iter().filter(|&&fed| fed == index).count() == 1;
        if (0..self.inputs.len()).all(is_fed) {
            return Ok(());
        }
        Err(Status::unimplemented("OpenVINO finds other inputs in it than its signature has"))
    }
}

impl BoundModel {
    /// The same, of a network that was made within limits.
    pub(super) fn within(self, limits: Option<Limits>) -> BoundModel {
        BoundModel { limits, ..self }
    }

    /// Compiles a model for one signature alone, see [`Compiled`].
    pub(super) fn compile(
        model: &OpenVinoModel,
        signature: Arc<Signature>,
        shapes: Vec<PartialShape>,
        ends: Ends,
        threads: usize,
    ) -> Result<BoundModel, Status> {
        Compiled::new(model, threads)?.bind(signature, shapes, ends)
    }

    /// The same model for another signature of it, whose ends were checked. Both have the same requests.
    pub(super) fn again(
        &self,
        signature: Arc<Signature>,
        shapes: Vec<PartialShape>,
        ends: Ends,
    ) -> BoundModel {
        let network = Part { requests: Arc::clone(&self.network.requests), ends };
        BoundModel { signature, shapes, before: None, network, limits: None }
    }
}

impl Bound for BoundModel {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn shapes(&self) -> &[PartialShape] {
        &self.shapes
    }
}

/// Runs of a version. They share nothing beyond their signature's requests.
#[derive(Default)]
pub(super) struct Runs {
    /// Answers what is not ordinary.
    pub(super) careful: Option<Careful>,
}

/// Checks that the model has the ends that the signature tells of.
pub(super) fn check_ends(
    side: &str,
    specs: &[TensorSpec],
    places: &[usize],
    ports: &[OpenVinoPort],
) -> Result<(), Status> {
    for (spec, &place) in specs.iter().zip(places) {
        let missing =
            || Status::unimplemented(format!("OpenVINO finds no {side} `{}` in it", spec.alias));
        let port = ports.get(place).ok_or_else(missing)?;
        let dtype = if side == "input" { spec.fed_dtype() } else { spec.dtype };
        let end = format!("{side} `{}`", spec.alias);
        let element = to_openvino(dtype).ok_or_else(|| unfit(&end, &dtype.to_string()))?;
        if element != port.element {
            return Err(Status::unimplemented(format!(
                "{end} is of {dtype}, and OpenVINO makes its type {} of it",
                port.element
            )));
        }
    }
    Ok(())
}

impl Runner for Runs {
    type Bound = BoundModel;

    fn run(
        &self,
        bound: &BoundModel,
        request: &RunRequest,
        inputs: Vec<Tensor>,
        deadline: Option<Instant>,
    ) -> Result<Vec<Tensor>, Status> {
        if request.outputs.is_empty() {
            return Ok(Vec::new());
        }
        let Signature { inputs: specs, outputs: declared, .. } = &*bound.signature;
        let named = |at: usize| specs.get(at).map_or(MADE, |spec| spec.alias.as_str());
        let outputs: Vec<(usize, &str)> =
            request.outputs.iter().map(|&at| (at, declared[at].alias.as_str())).collect();
        let careful = bound.limits.as_ref().and(self.careful.as_ref());
        // Tensors share their memory.
        let again = careful.map(|careful| (careful, inputs.clone()));
        match (bound.run_ordinary(&named, inputs, &outputs, deadline)?, again) {
            (Some(given), _) => Ok(given),
            (None, Some((careful, inputs))) => careful.run(request, inputs, deadline),
            (None, None) => Err(Status::internal("a run is not ordinary, and none else may be")),
        }
    }
}

/// What a value between two models is called.
const MADE: &str = "made of the inputs";

impl BoundModel {
    /// The outputs with these numbers and names; `None` of a run that was not ordinary.
    fn run_ordinary<'n>(
        &self,
        named: &dyn Fn(usize) -> &'n str,
        inputs: Vec<Tensor>,
        outputs: &[(usize, &str)],
        deadline: Option<Instant>,
    ) -> Result<Option<Vec<Tensor>>, Status> {
        let may_be = |inputs: &[Tensor]| self.limits.is_none() || is_ordinary(inputs);
        if !may_be(&inputs) {
            return Ok(None);
        }
        let inputs = match &self.before {
            Some(before) => {
                before.run(named, inputs, &[(0, MADE)], None, deadline)?.unwrap_or_default()
            }
            None => inputs,
        };
        if self.before.is_some() && !may_be(&inputs) {
            return Ok(None);
        }
        let sums = self.limits.and_then(|limits| limits.sums);
        self.network.run(named, inputs, outputs, sums, deadline)
    }
}

impl Part {
    /// Gives the outputs with these numbers and names; `None` where `sums` stands and says that the run
    /// was not ordinary.
    fn run<'n>(
        &self,
        named: &dyn Fn(usize) -> &'n str,
        inputs: Vec<Tensor>,
        outputs: &[(usize, &str)],
        sums: Option<usize>,
        deadline: Option<Instant>,
    ) -> Result<Option<Vec<Tensor>>, Status> {
        let fed = inputs.into_iter().enumerate().map(|(at, tensor)| to_input(named(at), tensor));
        let fed = fed.collect::<Result<Vec<_>, _>>()?;
        let mut numbered: Vec<_> = self.ends.inputs.iter().zip(fed).collect();
        numbered.sort_by_key(|(place, _)| **place);
        let fed = numbered.into_iter().map(|(_, input)| input).collect();
        let none_more = || Err(Status::internal("all requests of a model are made at once"));
        let taken = self.requests.take(deadline, none_more)?;
        let mut run = OneRun { requests: Arc::clone(&self.requests), taken: Some(taken) };
        if !run.ends_by(fed, deadline)? {
            run.leave();
            return Err(late());
        }
        if let Some(place) = sums
            && !run.is_ordinary(place)?
        {
            return Ok(None);
        }
        run.outputs(&self.ends, outputs).map(Some)
    }
}

/// A run on a request that goes back when this is dropped, which waits for the end of the run.
struct OneRun {
    requests: Arc<Pool<OpenVinoRequest>>,
    taken: Option<OpenVinoRequest>,
}

impl OneRun {
    /// Runs; tells whether the run is over, which it is but for a deadline.
    fn ends_by(
        &mut self,
        fed: Vec<OpenVinoInput>,
        deadline: Option<Instant>,
    ) -> Result<bool, Status> {
        let Some(request) = &mut self.taken else { return Err(gone()) };
        request.start(fed).map_err(|error| status(&error))?;
        let Some(deadline) = deadline else {
            request.wait().map_err(|error| status(&error))?;
            return Ok(true);
        };
        let left = deadline.saturating_duration_since(Instant::now());
        // Whole milliseconds are waited for.
        let is_over = request.wait_for(left + Duration::from_micros(999));
        is_over.map_err(|error| status(&error))
    }

    /// Tells a run to end, and leaves it to a thread if it does not. Without one, it is waited for here.
    fn leave(mut self) {
        let Some(request) = &mut self.taken else { return };
        request.cancel();
        if !matches!(request.wait_for(GRACE), Ok(false)) {
            return;
        }
        let name = "openvino-late".to_owned();
        let _ = std::thread::Builder::new().name(name).spawn(move || drop(self));
    }

    /// Whether the run was ordinary, as the output in this place says.
    fn is_ordinary(&self, place: usize) -> Result<bool, Status> {
        let Some(request) = &self.taken else { return Err(gone()) };
        let sum = request.output(place).map_err(|error| status(&error))?;
        Ok(is_ordinary_sum(sum.bytes))
    }

    /// The outputs with these numbers and names.
    fn outputs(&self, ends: &Ends, outputs: &[(usize, &str)]) -> Result<Vec<Tensor>, Status> {
        let Some(request) = &self.taken else { return Err(gone()) };
        let one = |&(index, name): &(usize, &str)| {
            let output = request.output(ends.outputs[index]).map_err(|error| status(&error))?;
            from_output(name, &output)
        };
        outputs.iter().map(one).collect()
    }
}

impl Drop for OneRun {
    fn drop(&mut self) {
        if let Some(mut request) = self.taken.take() {
            request.clear();
            self.requests.put_back(request);
        }
    }
}

fn gone() -> Status {
    Status::internal("a run has no request")
}

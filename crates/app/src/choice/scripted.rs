//! For tests: an engine whose answers, processor time and faults are written down.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use vesta_engines::EngineName;
use vesta_model::{
    AlignedBytes, DType, LoadRequest, ModelDescription, PartialShape, Run, RunRequest, Session,
    Shape, Signature, Status, Tensor, TensorSpec,
};

use super::contest::{Contender, Opened, Serve};

/// What it answers.
pub(super) type Answer = fn(&[Tensor]) -> Result<Vec<Tensor>, Status>;

/// A session that answers as it is told, and whose runs all take the same time.
#[derive(Clone)]
pub(super) struct Scripted {
    description: ModelDescription,
    answer: Answer,
    cpu_of_a_run: Duration,
    runs: Arc<AtomicU32>,
}

impl Scripted {
    pub(super) fn new(signature: Signature, answer: Answer) -> Scripted {
        let signatures = BTreeMap::from([(signature.name.clone(), Arc::new(signature))]);
        Scripted {
            description: ModelDescription { signatures },
            answer,
            cpu_of_a_run: Duration::from_millis(10),
            runs: Arc::default(),
        }
    }

    /// The same with one more signature.
    pub(super) fn and(mut self, signature: Signature) -> Scripted {
        self.description.signatures.insert(signature.name.clone(), Arc::new(signature));
        self
    }

    pub(super) fn runs(&self) -> u32 {
        self.runs.load(Ordering::Relaxed)
    }

    pub(super) fn cpu_of_a_run(&self) -> Duration {
        self.cpu_of_a_run
    }

    /// Of all runs so far.
    pub(super) fn cpu(&self) -> Duration {
        self.cpu_of_a_run * self.runs()
    }
}

impl Session for Scripted {
    fn description(&self) -> &ModelDescription {
        &self.description
    }

    fn prepare(&self, request: &RunRequest) -> Result<Box<dyn Run>, Status> {
        let inputs = request
            .inputs
            .iter()
            .map(|layout| Ok((layout.shape.clone(), AlignedBytes::zeroed(layout.shape.bytes(4)?))));
        let inputs = inputs.collect::<Result<_, Status>>()?;
        Ok(Box::new(ScriptedRun { session: self.clone(), request: request.clone(), inputs }))
    }

    fn run_over(
        &self,
        _: &RunRequest,
        inputs: Vec<Tensor>,
        _: Option<Instant>,
    ) -> Result<Vec<Tensor>, Status> {
        self.runs.fetch_add(1, Ordering::Relaxed);
        (self.answer)(&inputs)
    }
}

/// A run over floats.
struct ScriptedRun {
    session: Scripted,
    request: RunRequest,
    inputs: Vec<(Shape, AlignedBytes)>,
}

impl Run for ScriptedRun {
    fn input(&mut self, index: usize) -> &mut [u8] {
        self.inputs[index].1.bytes_mut()
    }

    fn run(self: Box<Self>, deadline: Option<Instant>) -> Result<Vec<Tensor>, Status> {
        let of = |(shape, memory): (Shape, AlignedBytes)| {
            Tensor::whole(DType::F32, shape, Arc::new(memory))
        };
        let inputs = self.inputs.into_iter().map(of).collect::<Result<_, Status>>()?;
        self.session.run_over(&self.request, inputs, deadline)
    }
}

/// Signature `s` with the float input `x` of these sizes and the output `y`.
pub(super) fn signature(dims: &[Option<usize>]) -> Signature {
    let x = TensorSpec::dense("x", DType::F32).with_shape(PartialShape::Ranked(dims.to_vec()));
    Signature::new("s", "", vec![x], vec![TensorSpec::dense("y", DType::F32)])
}

pub(super) fn doubled(inputs: &[Tensor]) -> Result<Vec<Tensor>, Status> {
    scaled(inputs, 2.0)
}

pub(super) fn scaled(inputs: &[Tensor], factor: f32) -> Result<Vec<Tensor>, Status> {
    let of = |tensor: &Tensor| {
        let values: Vec<f32> =
            tensor.to_vec::<f32>().unwrap_or_default().iter().map(|value| value * factor).collect();
        Tensor::of(tensor.shape().clone(), &values)
    };
    inputs.iter().map(of).collect()
}

/// An engine that loads every model as one session.
#[derive(Clone)]
pub(super) struct ScriptedEngine {
    pub(super) name: EngineName,
    pub(super) loads: Result<Scripted, Status>,
    /// How often it has loaded.
    pub(super) opened: Arc<AtomicU32>,
}

impl ScriptedEngine {
    /// An engine whose runs take so many milliseconds.
    pub(super) fn new(name: EngineName, cpu_ms: u64, answer: Answer) -> ScriptedEngine {
        let mut scripted = Scripted::new(signature(&[None]), answer);
        scripted.cpu_of_a_run = Duration::from_millis(cpu_ms);
        ScriptedEngine { name, loads: Ok(scripted), opened: Arc::default() }
    }

    pub(super) fn refusing(name: EngineName, status: Status) -> ScriptedEngine {
        ScriptedEngine { name, loads: Err(status), opened: Arc::default() }
    }

    /// The same for a model of another signature.
    pub(super) fn with(mut self, signature: Signature) -> ScriptedEngine {
        if let Ok(scripted) = &mut self.loads {
            let cpu_of_a_run = scripted.cpu_of_a_run;
            *scripted = Scripted { cpu_of_a_run, ..Scripted::new(signature, scripted.answer) };
        }
        self
    }
}

impl Contender for ScriptedEngine {
    fn name(&self) -> EngineName {
        self.name
    }

    fn release(&self) -> &str {
        "1.0"
    }

    fn open(&self, _: &LoadRequest) -> Result<Box<dyn Opened>, Status> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(self.loads.clone()?))
    }
}

impl Opened for Scripted {
    fn session(&self) -> &dyn Session {
        self
    }

    fn cpu_time(&self) -> Option<Duration> {
        Some(self.cpu())
    }

    fn close(self: Box<Self>) -> Serve {
        Box::new(move || Ok(Arc::new(*self)))
    }

    fn stay(self: Box<Self>) -> Arc<dyn Session> {
        Arc::new(*self)
    }
}

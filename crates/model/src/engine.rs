//! The three blocking traits that every engine implements and every wrapper decorates.
//!
//! An [`Engine`] loads a version and gives a [`Session`]; the session prepares a [`Run`] that owns
//! the memory its inputs are written into; the run is consumed by running it. Isolation in a worker
//! process, verification and metrics wrap the same traits.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use crate::{
    BatchingParameters, HealthListener, ModelName, SessionHealth, SessionProcess, Shape, Signature,
    Status, Tensor, Version,
};

/// Which library, in which release.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EngineIdentity {
    /// Short lower-case name, such as `embedded` or `tensorflow`.
    pub name: String,
    /// Its version, such as `2.21.0`.
    pub version: String,
}

/// What an engine needs to know to load one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadRequest {
    /// The model's name, for logs and errors.
    pub model: ModelName,
    /// The version's number, for logs and errors.
    pub version: Version,
    /// The directory that holds the version's files.
    pub artifact: PathBuf,
    /// SavedModel tags that select the graph; usually `serve` alone.
    pub tags: Vec<String>,
    /// Threads that one run may use; at least 1.
    pub threads: usize,
}

/// What a loaded version can do.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct ModelDescription {
    /// Every signature by name, also those that only initialise.
    pub signatures: BTreeMap<String, Arc<Signature>>,
}

/// Size of one input of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputLayout {
    /// The shape.
    pub shape: Shape,
    /// For strings: bytes of all strings together without their offsets; else 0.
    pub string_bytes: usize,
}

impl InputLayout {
    /// The layout of this tensor.
    pub fn of(tensor: &Tensor) -> InputLayout {
        InputLayout { shape: tensor.shape().clone(), string_bytes: tensor.string_payload_bytes() }
    }
}

/// What one run will compute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunRequest {
    /// Name of the signature.
    pub signature: String,
    /// One layout per input of the signature, in its order.
    pub inputs: Vec<InputLayout>,
    /// Positions of the outputs wanted, in the order wanted.
    pub outputs: Vec<usize>,
}

/// A library that can load models. Calls block, possibly for minutes.
pub trait Engine: Send + Sync {
    /// Which library this is.
    fn identity(&self) -> EngineIdentity;

    /// Loads one version.
    ///
    /// # Errors
    /// `NOT_FOUND`, `DATA_LOSS`, `INVALID_ARGUMENT` for files that are absent, damaged or wrong;
    /// `UNIMPLEMENTED` for models that this engine cannot run, naming what is missing and what to
    /// do.
    fn load(&self, request: &LoadRequest) -> Result<Arc<dyn Session>, Status>;

    /// Runs `work`, a loop that calls [`Run::run`] for as long as the server lives, and returns when
    /// it does. An engine with threads of its own may run it on one of them, so that a run need not
    /// change threads.
    fn host_runs(&self, work: Box<dyn FnOnce() + Send + '_>) {
        work();
    }
}

/// A version loaded in an engine. Dropping it unloads the version.
pub trait Session: Send + Sync {
    /// What it can do.
    fn description(&self) -> &ModelDescription;

    /// Takes the memory for one run.
    ///
    /// # Errors
    /// `NOT_FOUND` for an unknown signature, `INVALID_ARGUMENT` for layouts that do not fit it,
    /// `RESOURCE_EXHAUSTED` when the memory is not to be had, `UNAVAILABLE` while the session's
    /// process is being replaced.
    fn prepare(&self, request: &RunRequest) -> Result<Box<dyn Run>, Status>;

    /// Runs over inputs that lie ready in memory of the caller's, such as a shared slot.
    ///
    /// The default copies them into memory of [`Session::prepare`]; an engine that can read foreign
    /// memory overrides it and saves the copy. The tensors are dropped before this returns, unless
    /// an output is a view of one.
    ///
    /// # Errors
    /// Those of [`Session::prepare`] and [`Run::run`]; `INVALID_ARGUMENT` when the tensors are not
    /// those that the request lays out.
    fn run_over(
        &self,
        request: &RunRequest,
        inputs: Vec<Tensor>,
        deadline: Option<Instant>,
    ) -> Result<Vec<Tensor>, Status> {
        if inputs.len() != request.inputs.len() {
            return Err(Status::invalid_argument(format!(
                "the request lays out {} inputs, but {} were given",
                request.inputs.len(),
                inputs.len()
            )));
        }
        let mut run = self.prepare(request)?;
        for (index, input) in inputs.into_iter().enumerate() {
            let memory = run.input(index);
            if memory.len() != input.bytes().len() {
                return Err(Status::invalid_argument(format!(
                    "input {index} is laid out with {} bytes, but has {}",
                    memory.len(),
                    input.bytes().len()
                )));
            }
            memory.copy_from_slice(input.bytes());
        }
        run.run(deadline)
    }

    /// How requests of this version are run together; `None` to run each alone.
    ///
    /// A wrapper of sessions that is outside the one that decides this must pass it on.
    fn batching(&self) -> Option<&BatchingParameters> {
        None
    }

    /// How the session is doing now; `listener` hears of each change from then on, in place of any
    /// listener before it.
    ///
    /// The default is a session that always serves, which is right where nothing but the server's
    /// own process carries it.
    fn watch(&self, listener: HealthListener) -> SessionHealth {
        drop(listener);
        SessionHealth::Serving
    }

    /// The process that carries it; `None` for the server's own.
    ///
    /// A wrapper of sessions must pass it on. It may read what the system tells of a process.
    fn process(&self) -> Option<SessionProcess> {
        None
    }
}

/// One computation, from the memory for its inputs to its outputs.
pub trait Run: Send {
    /// The memory of input `index` (in the order of the request), zeroed or not, to be filled
    /// whole: elements row-major little-endian, or the string layout. It is as long as dtype and
    /// layout say.
    fn input(&mut self, index: usize) -> &mut [u8];

    /// Computes and gives the outputs in the order wanted.
    ///
    /// # Errors
    /// Those of the computation; `DEADLINE_EXCEEDED` when `deadline` passed; `UNAVAILABLE` when the
    /// engine's process died.
    fn run(self: Box<Self>, deadline: Option<Instant>) -> Result<Vec<Tensor>, Status>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AlignedBytes, DType, Memory};

    /// Gives back its one input.
    struct Echo(ModelDescription);
    struct EchoRun(Shape, AlignedBytes);

    impl Session for Echo {
        fn description(&self) -> &ModelDescription {
            &self.0
        }

        fn prepare(&self, request: &RunRequest) -> Result<Box<dyn Run>, Status> {
            let shape = request.inputs[0].shape.clone();
            let bytes = shape.bytes(4)?;
            Ok(Box::new(EchoRun(shape, AlignedBytes::zeroed(bytes))))
        }
    }

    impl Run for EchoRun {
        fn input(&mut self, _: usize) -> &mut [u8] {
            self.1.bytes_mut()
        }

        fn run(self: Box<Self>, _: Option<Instant>) -> Result<Vec<Tensor>, Status> {
            Ok(vec![Tensor::copied(DType::F32, self.0, self.1.bytes())?])
        }
    }

    #[test]
    fn running_over_foreign_memory_copies_unless_an_engine_knows_better() {
        let session = Echo(ModelDescription::default());
        let request = RunRequest {
            signature: "s".to_owned(),
            inputs: vec![InputLayout { shape: Shape::vector(2), string_bytes: 0 }],
            outputs: vec![0],
        };
        let x = Tensor::of(Shape::vector(2), &[1f32, 2.0]).unwrap();
        let y = session.run_over(&request, vec![x.clone()], None).unwrap();
        assert_eq!(y, vec![x.clone()]);

        let longer = Tensor::of(Shape::vector(3), &[0f32; 3]).unwrap();
        assert!(session.run_over(&request, vec![longer], None).is_err());
        assert!(session.run_over(&request, vec![x.clone(), x], None).is_err());
    }
}

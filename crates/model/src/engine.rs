//! The three blocking traits that every engine implements and every wrapper decorates.
//!
//! An [`Engine`] loads a version and gives a [`Session`]; the session prepares a [`Run`] that owns
//! the memory its inputs are written into; the run is consumed by running it. Isolation in a worker
//! process, verification and metrics wrap the same traits.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use crate::{ModelName, Shape, Signature, Status, Tensor, Version};

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

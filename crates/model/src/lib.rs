//! The vocabulary that every crate of Vesta shares.
//!
//! Owns: names, versions, dtypes, shapes, tensors, signatures, [`Status`] and the three engine
//! traits [`Engine`], [`Session`] and [`Run`].
//! May not know: files, sockets, async, serialisation formats, any wire, any engine.
//! Invariant: nothing here blocks, allocates by more than its arguments say, or panics on input.

mod batching;
mod config;
mod dtype;
mod engine;
mod health;
mod memory;
mod name;
mod shape;
mod signature;
mod status;
mod strings;
mod tensor;

pub use batching::BatchingParameters;
pub use config::{BasePath, ModelConfig, RequestLogForm, RequestLogging, VersionPolicy};
pub use dtype::DType;
pub use engine::{
    Engine, EngineIdentity, InputLayout, LoadRequest, ModelDescription, Run, RunRequest, Session,
};
pub use health::{HealthListener, SessionHealth, SessionProcess};
pub use memory::{AlignedBytes, Memory};
pub use name::{Label, ModelName, ModelSpec, Version, VersionChoice};
pub use shape::{PartialShape, Shape};
pub use signature::{Encoding, Signature, TensorSpec};
pub use status::{Code, Status};
pub use strings::{StringsBuilder, StringsView, strings_byte_len};
pub use tensor::{Element, Tensor};

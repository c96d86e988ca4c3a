//! The engines that run models, behind the traits of `vesta-model`.
//!
//! Owns: the embedded engine, and the list of engines with the choice among them.
//! May not know: wires, serving, isolation.
//! Invariant: an engine answers as TensorFlow does or refuses the model, saying what to do.

mod embedded;
mod registry;

pub use embedded::{EmbeddedEngine, EmbeddedSession, run_inside};
pub use registry::{EngineChoice, EngineName, build};

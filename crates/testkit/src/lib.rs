//! For tests only.
//!
//! Owns: a fake engine that computes little and fails on demand, the conformance suite of engines,
//! tolerant comparison of tensors.
//! May not know: wires, serving.
//! Invariant: nothing here is linked into the server.

mod close;
mod fake;
mod script;
mod suite;

pub use close::tensors_close;
pub use fake::{FakeArtifact, FakeEngine};
pub use suite::{Cell, Given, Outcome, SuiteModel, SuiteModels, SuiteReport, engine_suite, infer};

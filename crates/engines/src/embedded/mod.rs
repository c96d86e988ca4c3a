//! The embedded engine: TensorFlow models in pure Rust, on rten and kernels of our own.
//!
//! A signature is frozen, its nodes are placed ([`plan`]) on the host ([`host`]) or in one numeric
//! graph ([`merge`], [`numeric`]) that passed the table of what rten computes exactly
//! ([`capability`]), and a request walks the steps that come of it ([`session`]).
//!
//! May not know: wires, serving. Invariant: a version is loaded only when every signature that
//! clients can call gives TensorFlow's answers; else the refusal names what is missing.

mod adaptation;
mod analysis;
mod capability;
#[cfg(test)]
mod differential;
mod direct;
mod example;
mod footprint;
mod graph;
mod host;
mod inline_safety;
mod loading;
mod merge;
mod numeric;
mod onnx;
mod plan;
mod session;
mod sizes;
mod stages;
mod threads;
mod twin;

use std::sync::Arc;

use vesta_model::{Engine, EngineIdentity, LoadRequest, Session, Status};

pub(crate) use self::host::ParseExample;
pub(crate) use self::loading::is_callable;
pub use self::session::EmbeddedSession;
pub use self::threads::run_inside;

/// The engine that needs no library.
#[derive(Clone, Copy, Debug, Default)]
pub struct EmbeddedEngine;

impl EmbeddedEngine {
    /// The name that operators choose it by.
    pub const NAME: &'static str = "embedded";

    /// Loads one version, as [`Engine::load`] does, as a session whose
    /// [`EmbeddedSession::inline_verdict`] can be asked.
    ///
    /// # Errors
    /// Those of [`Engine::load`].
    pub fn load_session(&self, request: &LoadRequest) -> Result<EmbeddedSession, Status> {
        loading::load(request)
    }
}

impl Engine for EmbeddedEngine {
    fn identity(&self) -> EngineIdentity {
        EngineIdentity {
            name: EmbeddedEngine::NAME.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    fn load(&self, request: &LoadRequest) -> Result<Arc<dyn Session>, Status> {
        Ok(Arc::new(self.load_session(request)?))
    }

    fn host_runs(&self, work: Box<dyn FnOnce() + Send + '_>) {
        threads::run_inside(work);
    }
}

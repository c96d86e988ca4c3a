//! The operator's other door: one model at a time.
//!
//! Owns the trait alone, as [`Reconfigure`](crate::Reconfigure) does.

use std::pin::Pin;

use vesta_model::{ModelConfig, ModelName, Status};

/// What an [`Administer`] gives: it resolves when the model is where it was wanted.
pub type Administered<'a> = Pin<Box<dyn Future<Output = Result<(), Status>> + Send + 'a>>;

/// Loads and unloads single models beside those of the configuration.
///
/// What was said is in force at once; dropping the future gives up the wait alone.
pub trait Administer: Send + Sync {
    /// Serves a model: as `config` says, or as it was configured before it was unloaded. Tries one
    /// that failed again. Resolves when it serves or has failed.
    ///
    /// # Errors
    /// `NOT_FOUND` without `config` for a model that is not configured; those of the configuration;
    /// and the one of a load that failed.
    fn load(&self, model: ModelName, config: Option<ModelConfig>) -> Administered<'_>;

    /// Serves a model no longer, until it is loaded or configured anew. Resolves when all of its
    /// versions have ended.
    ///
    /// # Errors
    /// `NOT_FOUND` for a model that is not configured.
    fn unload(&self, model: ModelName) -> Administered<'_>;
}

//! The operator's door: replacing the list of served models while the server runs.
//!
//! Owns the trait alone, so that a frontend can ask for a reload without knowing who reads
//! configuration or files.

use std::pin::Pin;

use vesta_model::{ModelConfig, Status};

/// Takes a new list of models to serve.
pub trait Reconfigure: Send + Sync {
    /// Replaces the whole list; models left out are unloaded. Resolves when every model that is new
    /// in the list serves or has failed.
    ///
    /// # Errors
    /// Those of the list itself, and one that names the new models that did not come up.
    fn reconfigure(
        &self,
        models: Vec<ModelConfig>,
    ) -> Pin<Box<dyn Future<Output = Result<(), Status>> + Send + '_>>;
}

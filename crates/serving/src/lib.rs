//! The heart: which versions of which models are loaded, who may use them, and where runs wait.

mod lease;
mod lifecycle;
mod options;
mod reconfigure;
mod serving;

pub use lease::{InferRequest, Lease};
pub use lifecycle::{Aspired, Phase, VersionStatus};
pub use options::ServingOptions;
pub use reconfigure::Reconfigure;
pub use serving::Serving;

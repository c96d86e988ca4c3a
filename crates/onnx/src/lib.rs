//! Translates a frozen TensorFlow graph to ONNX, one signature at a time.
//!
//! Owns: what each TensorFlow operator means in ONNX, and the refusal of what has no exact meaning
//! there. May not know: files, SavedModels, engines. What an engine can run of the result is the
//! engine's to say; [`Translation::operators`] and [`Translation::values`] are what it judges by.
//! Invariant: a model is given only when it computes what TensorFlow computes, for every feed whose
//! shape the signature accepts; dtypes are TensorFlow's own throughout.

mod call;
mod constant;
mod control;
mod elements;
mod errors;
mod floats;
mod gelu;
mod graph;
mod ops;
mod permute;
mod refusal;
mod registry;
mod signature;
mod signs;
mod translate;
mod value;
mod write;

pub use constant::onnx_number;
pub use errors::raised_error;
pub use refusal::{Refusal, Untranslatable};
pub use registry::translated_operators;
pub use signature::{Body, FeedSpec, FrozenSignature, Resizing};
pub use translate::{OperatorUse, Translation, ValueFacts, translate};
pub use write::{OPSET, count_operators};

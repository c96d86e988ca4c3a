//! Reads TensorFlow SavedModels (of TF1 and TF2) and frozen graphs in pure Rust.
//!
//! Owns: `saved_model.pb` or its text form, a `.pb` that is a GraphDef alone, the tensor bundle under `variables/`, the inlining of
//! functions, the search for each variable's value, and the freezing of one signature to a flat graph.
//! May not know: engines, ONNX, serving.
//! Invariant: no file, however damaged or malicious, makes it panic, recurse without bound or
//! allocate out of proportion to the sizes of the files read.

mod bodies;
mod branches;
mod bundle;
mod disk;
mod effects;
mod flat;
mod flatten;
mod freeze;
mod graph;
mod graph_file;
mod interface;
mod model;
mod object_graph;
mod op_defs;
mod output_types;
mod plan;
mod proofs;
mod signature;
mod tensor;
mod variables;
mod wire;

pub use bodies::FrozenBody;
pub use freeze::{Feed, FrozenGraph};
pub use graph_file::{GraphNames, graph_files};
pub use model::SavedModel;
pub use signature::from_def as signature_from_def;
pub use tensor::{tensor_from_proto, tensor_to_proto};

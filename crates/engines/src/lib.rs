//! The engines that run models, behind the traits of `vesta-model`.
//!
//! Owns: the embedded engine, the adapters to TensorFlow, LiteRT, ONNX Runtime and OpenVINO, the list of engines with
//! the choice among them, the store that native libraries lie in, what all of them say of a model, and its ONNX form.
//! May not know: wires, serving, isolation.
//! Invariant: an engine answers as TensorFlow does or refuses the model, saying what to do.

mod bound;
mod bounds;
mod convert;
mod embedded;
mod guards;
mod inspect;
mod litert;
mod model_settings;
mod networks;
mod onnxruntime;
mod openvino;
mod ordinary;
mod overrides;
mod pool;
mod registry;
mod store;
mod tensorflow;
mod translated;

pub use convert::{Conversion, ONNX_BYTES_MAX, Written, convert};
pub use embedded::{EmbeddedEngine, EmbeddedSession, run_inside};
pub use inspect::{
    EngineReport, Format, Inspection, SignatureReport, Sizes, Subject, inspect, unknown_signature,
};
pub use litert::{LITE_MODEL, LiteModel, LiteRtEngine, LiteRtOptions};
pub use model_settings::{
    MODEL_SETTINGS, ModelSettings, model_settings, part_of_runs, unavailable_engine,
};
pub use onnxruntime::{OnnxModel, OnnxRuntimeEngine};
pub use openvino::{IrModel, OpenVinoEngine, OpenVinoOptions};
pub use overrides::SessionOverrides;
pub use registry::{EngineChoice, EngineName, EngineOptions, build};
pub use store::{
    Damaged, EngineStore, InstallRequest, Installed, Outcome, Progress, Survey, Voucher,
    engine_of_wheel,
};
pub use tensorflow::{TensorFlowEngine, TensorFlowOptions};

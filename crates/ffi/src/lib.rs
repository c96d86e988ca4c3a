//! The only crate of Vesta with `unsafe`.
//!
//! Owns: views of shared memory, early changes of the environment, what faults do to a process, the
//! processor time of another process, memory that was freed, the C APIs of TensorFlow, LiteRT, ONNX
//! Runtime and OpenVINO.
//! May not know: anything of ours; it speaks in bytes, descriptors and `std::io::Error`.
//! Invariant: no safe function of this crate can be called so that memory is misread, whatever the
//! process at the other end of a shared mapping does.

mod cpu_clock;
mod environment;
mod freed_memory;
mod litert;
mod onnxruntime;
mod openvino;
mod shared_memory;
mod signals;
mod tensorflow;

pub use cpu_clock::process_cpu_time;
pub use environment::set_before_threads;
pub use freed_memory::{keep_freed_memory, return_freed_memory};
pub use litert::{LiteRt, LiteRtError, LiteRtInput, LiteRtKernels, LiteRtModel, LiteRtOutput};
pub use onnxruntime::{
    OnnxPackedWeights, OnnxRunOptions, OnnxRuntime, OnnxRuntimeError, OnnxSession, OnnxTexts,
    OnnxValue,
};
pub use openvino::{
    OpenVino, OpenVinoError, OpenVinoInput, OpenVinoModel, OpenVinoOutput, OpenVinoPort,
    OpenVinoRequest,
};
pub use shared_memory::SharedMemory;
pub use signals::die_of_faults;
pub use tensorflow::{
    GraphOutput, TensorFlow, TensorFlowError, TensorFlowSession, TensorFlowValue,
};

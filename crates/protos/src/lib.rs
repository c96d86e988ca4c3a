//! The messages of the wires and files that Vesta shares with others: TensorFlow
//! Serving's API and configuration, TensorFlow's saved models, ONNX models.
//!
//! Owns: the statement of those contracts, as `.proto` files of its own under
//! `proto/`, the Rust types compiled from them, and their text format. File paths,
//! package names, field names and numbers are those of the originals, for clients
//! see all of them by server reflection, in text files and in JSON.
//!
//! May not know: what any message means. There is no validation, no conversion
//! and no default here; those belong to the crate that speaks the wire or reads
//! the file.
//!
//! Invariant: decoding never copies a payload that its reader could borrow.
//! Tensor contents and strings, examples and ONNX weights are [`bytes::Bytes`],
//! which share the buffer that they were decoded from. Maps are ordered, so that
//! equal messages encode to equal bytes.

use std::sync::LazyLock;

use prost_reflect::DescriptorPool;

pub mod text;

/// TensorFlow's own messages: tensors, graphs, saved models, examples, session
/// configuration (package `tensorflow`).
#[expect(missing_docs, reason = "most fields say all with their name")]
pub mod tensorflow {
    include!(concat!(env!("OUT_DIR"), "/tensorflow.rs"));

    /// Canonical status codes (package `tensorflow.error`).
    pub mod error {
        include!(concat!(env!("OUT_DIR"), "/tensorflow.error.rs"));
    }

    /// Traces of TensorFlow's profiler (package `tensorflow.profiler`).
    pub mod profiler {
        include!(concat!(env!("OUT_DIR"), "/tensorflow.profiler.rs"));
    }

    /// TensorFlow Serving's API and configuration files (package
    /// `tensorflow.serving`).
    pub mod serving {
        include!(concat!(env!("OUT_DIR"), "/tensorflow.serving.rs"));

        /// Configuration of graph rewriting tools (package
        /// `tensorflow.serving.tools`).
        pub mod tools {
            include!(concat!(env!("OUT_DIR"), "/tensorflow.serving.tools.rs"));
        }
    }
}

/// Messages of Vesta's own (package `vesta`).
pub mod vesta {
    include!(concat!(env!("OUT_DIR"), "/vesta.rs"));
}

/// The ONNX model format (package `onnx`).
#[expect(missing_docs, reason = "most fields say all with their name")]
pub mod onnx {
    include!(concat!(env!("OUT_DIR"), "/onnx.rs"));
}

/// Health checks of gRPC servers (package `grpc.health.v1`).
#[expect(missing_docs, reason = "most fields say all with their name")]
pub mod health {
    include!(concat!(env!("OUT_DIR"), "/grpc.health.v1.rs"));
}

/// All compiled files and the well-known ones that they import, as an encoded
/// `google.protobuf.FileDescriptorSet` in which every file comes after those that
/// it imports.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The descriptors of all messages, for text files, JSON and reflection. Made at
/// the first call.
#[expect(clippy::expect_used, reason = "the bytes were written by this crate's own build")]
pub fn descriptor_pool() -> &'static DescriptorPool {
    static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
        DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("the built descriptor set is whole")
    });
    &POOL
}

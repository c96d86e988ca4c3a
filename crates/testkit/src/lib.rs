//! For tests only.
//!
//! Owns: a fake engine, the conformance suite of engines, tolerant comparison of tensors.
//! May not know: wires, serving.

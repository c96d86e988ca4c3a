//! TensorFlow Serving's interfaces: what its calls mean ([`predict`], [`classify`], [`regress`],
//! [`metadata`]) and how REST says it ([`rest`]). The serving crate's door is all that is called.

pub(crate) mod classify;
mod debug_text;
pub(crate) mod json;
pub(crate) mod metadata;
pub(crate) mod predict;
pub(crate) mod regress;
pub mod rest;

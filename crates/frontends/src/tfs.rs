//! TensorFlow Serving's interfaces: what its calls mean ([`predict`], [`classify`], [`regress`],
//! [`metadata`]) and how REST and gRPC say it ([`rest`], [`rpc`]). The serving crate's door is all
//! that is called, but for recorded requests ([`warmup`]), which run on a session before anybody else
//! may have it.

pub(crate) mod classify;
mod debug_text;
pub(crate) mod json;
pub(crate) mod metadata;
pub mod method_check;
pub mod model_config;
pub(crate) mod predict;
pub(crate) mod regress;
pub mod request_log;
pub mod rest;
pub(crate) mod rpc;
pub(crate) mod tensor_proto;
mod texts;
pub mod warmup;

//! The program: flags, configuration, composition, logs, signals, subcommands.
//!
//! Owns the wiring of all crates, by values, in `compose.rs`. May not know: how any crate does its
//! work.
//! Invariant: everything that can be wrong with flags and files is found before a port opens.

mod artifact;
mod batched;
mod choice;
mod columns;
mod commands;
mod compose;
mod config;
mod config_poll;
mod convert;
mod demo;
mod engine;
mod fetching;
mod flags;
mod holding;
mod init;
mod inspect;
mod listen;
mod logs;
mod measured;
mod models;
mod placement;
mod progress;
mod request_log;
mod signals;
mod startup;
mod status;
mod tune;
mod warmup;
mod worker;

pub use commands::{model_server, vesta};

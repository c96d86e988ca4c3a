//! What the crate does to whole models.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test")]

mod graph_files;
mod graphs;
mod recorded;
mod support;
mod text;

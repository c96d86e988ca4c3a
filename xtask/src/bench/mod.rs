//! Measurements that a person asks for. They print figures and judge nothing.
//!
//! Compared settings take turns in one run on one machine, since machines are noisy; what to quote
//! are the ratios.

mod batching;
mod demo;
mod engines;
mod loading;
mod served;
mod worker;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::run::{cargo, show};

/// A folder with a program that was built already, as for the client tests.
const BIN: &str = "VESTA_BIN";

/// Measures something of the project in this folder.
type Benchmark = fn(&Path) -> Result<()>;

/// Every benchmark by name.
const BENCHMARKS: &[(&str, Benchmark)] = &[
    ("demo", demo::run),
    ("worker", worker::run),
    ("loading", loading::run),
    ("batching", batching::run),
    ("engines", engines::run),
];

/// Runs the benchmark called `name`.
///
/// # Errors
/// When there is none of that name or it fails.
pub(crate) fn run(root: &Path, name: &str) -> Result<()> {
    let Some((_, benchmark)) = BENCHMARKS.iter().find(|(known, _)| *known == name) else {
        let names: Vec<&str> = BENCHMARKS.iter().map(|(name, _)| *name).collect();
        bail!("no benchmark is called {name}; choose {}", names.join(" or "));
    };
    if std::env::var_os(BIN).is_none() {
        show(root, cargo().args(["build", "--release", "--locked", "-p", "vesta"]))?;
    }
    benchmark(root)
}

/// The program that is measured.
fn program(root: &Path) -> PathBuf {
    let folder = std::env::var_os(BIN).map_or_else(|| root.join("target/release"), PathBuf::from);
    folder.join("vesta")
}

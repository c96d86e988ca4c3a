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
#[derive(Clone, Copy)]
enum Benchmark {
    Whole(fn(&Path) -> Result<()>),
    /// Can be asked for some of its settings by their names; none means all.
    Parts(fn(&Path, &[String]) -> Result<()>),
}

/// Every benchmark by name.
const BENCHMARKS: &[(&str, Benchmark)] = &[
    ("demo", Benchmark::Whole(demo::run)),
    ("worker", Benchmark::Whole(worker::run)),
    ("loading", Benchmark::Whole(loading::run)),
    ("batching", Benchmark::Whole(batching::run)),
    ("engines", Benchmark::Parts(engines::run)),
];

/// Runs the benchmark called `name`, or `only` some settings of it.
///
/// # Errors
/// When there is none of that name or it fails.
pub(crate) fn run(root: &Path, name: &str, only: &[String]) -> Result<()> {
    let Some((_, benchmark)) = BENCHMARKS.iter().find(|(known, _)| *known == name) else {
        let names: Vec<&str> = BENCHMARKS.iter().map(|(name, _)| *name).collect();
        bail!("no benchmark is called {name}; choose {}", names.join(" or "));
    };
    if std::env::var_os(BIN).is_none() {
        show(root, cargo().args(["build", "--release", "--locked", "-p", "vesta"]))?;
    }
    match benchmark {
        Benchmark::Parts(run) => run(root, only),
        Benchmark::Whole(run) if only.is_empty() => run(root),
        Benchmark::Whole(_) => bail!("{name} is measured as a whole"),
    }
}

/// The program that is measured.
fn program(root: &Path) -> PathBuf {
    let folder = std::env::var_os(BIN).map_or_else(|| root.join("target/release"), PathBuf::from);
    folder.join("vesta")
}

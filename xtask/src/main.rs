//! Chores of the project: `cargo xtask test`, `ci`, `tidy`, `bench`.
//!
//! Owns the order in which everything is fetched, built and run. Needs cargo and python3 with pip,
//! and nothing else.

mod bench;
mod engine;
mod python;
mod run;
mod test;
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

/// Chores of the project.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Everything: sets up clients, builds, and runs every test. Counts them in its last line.
    Test {
        /// Only the Rust tests, without clients and recorded answers.
        #[arg(long)]
        rust_only: bool,
    },
    /// What `test` does, where a missing tool or test input is a failure.
    Ci,
    /// Rules of the house that no compiler checks.
    Tidy,
    /// Measurements, printed as ratios of one run.
    Bench {
        /// Which one: `demo`, `worker`, `loading`, `batching`, `engines`.
        name: String,
        /// Only these of what it measures, by name; for `engines`, its networks.
        only: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().chore) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            run::say(&format!("xtask: {problem:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(chore: Chore) -> Result<()> {
    let root = root()?;
    match chore {
        Chore::Test { rust_only } => test::run(&root, rust_only, std::env::var_os("CI").is_some()),
        Chore::Ci => test::run(&root, false, true),
        Chore::Tidy => tidy::run(&root),
        Chore::Bench { name, only } => bench::run(&root, &name, &only),
    }
}

/// The folder of the workspace.
fn root() -> Result<PathBuf> {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").context("run this as `cargo xtask`")?;
    PathBuf::from(here).parent().map(PathBuf::from).context("xtask lies inside the workspace")
}

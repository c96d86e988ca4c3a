//! Measurements that a person asks for. They print figures and judge nothing.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::run::show;

/// Runs the benchmark called `name`.
///
/// # Errors
/// When there is none of that name or it fails.
pub(crate) fn run(root: &Path, name: &str) -> Result<()> {
    match name {
        "demo" | "worker" => show(
            root,
            Command::new("cargo").args(["bench", "--locked", "-p", "vesta", "--bench", name]),
        ),
        _ => bail!("no benchmark is called {name}; choose demo or worker"),
    }
}

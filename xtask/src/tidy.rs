//! Rules of the house that no compiler checks.
//!
//! Each rule is a function from what it looks at to a list of problems, so that it can be tested.

mod edges;
mod flags;
mod models;
mod rows;
mod sources;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::run::{say, take};

/// Checks every rule.
///
/// # Errors
/// With the list of problems, when there is one.
pub(crate) fn run(root: &Path) -> Result<()> {
    let mut problems = edges::check(root)?;
    let files = tracked(root, &["*.rs"])?;
    problems.extend(sources::check(root, &files)?);
    problems.extend(models::check(root, &tracked(root, models::PATTERNS)?)?);
    problems.extend(rows::check(root)?);
    problems.extend(flags::check(root)?);
    if problems.is_empty() {
        say(&format!("tidy: {} Rust files, no problem", files.len()));
        return Ok(());
    }
    for problem in &problems {
        say(&format!("tidy: {problem}"));
    }
    bail!("tidy found {} problems", problems.len())
}

/// Files that git knows or would take, below the root.
fn tracked(root: &Path, patterns: &[&str]) -> Result<Vec<PathBuf>> {
    let listing = take(
        root,
        Command::new("git")
            .args(["ls-files", "--cached", "--others", "--exclude-standard", "--"])
            .args(patterns),
    )?;
    let mut files: Vec<PathBuf> = listing.lines().map(PathBuf::from).collect();
    files.retain(|file| root.join(file).is_file());
    files.sort();
    files.dedup();
    Ok(files)
}

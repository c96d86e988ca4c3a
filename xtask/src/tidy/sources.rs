//! Rules for source files: length, opening lines, names, `unsafe`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The most lines of a Rust file.
const LINES_MAX: usize = 600;

/// Names that say nothing.
const EMPTY_NAMES: &[&str] = &[
    "backend", "handler", "service", "instance", "context", "util", "utils", "helper", "helpers",
    "common", "core", "data", "info",
];

pub(super) fn check(root: &Path, files: &[PathBuf]) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for file in files {
        let text =
            std::fs::read_to_string(root.join(file)).with_context(|| file.display().to_string())?;
        problems.extend(
            problems_of(file, &text).into_iter().map(|p| format!("{}: {p}", file.display())),
        );
    }
    Ok(problems)
}

fn problems_of(file: &Path, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let lines = text.lines().count();
    if lines > LINES_MAX {
        problems.push(format!("{lines} lines, more than {LINES_MAX}; split it by what it owns"));
    }
    if !text.starts_with("//!") {
        problems.push("does not open with what it owns (`//!`)".to_owned());
    }
    let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    if EMPTY_NAMES.contains(&stem.as_str()) {
        problems.push(format!("`{stem}` is no name for a module; say what it owns"));
    }
    if !file.starts_with("crates/ffi") && text.lines().any(has_unsafe) {
        problems.push("`unsafe` outside crates/ffi".to_owned());
    }
    problems
}

/// Whether a line of code opens something unsafe.
fn has_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default().trim_start();
    ["unsafe {", "unsafe fn ", "unsafe impl ", "unsafe trait ", "unsafe extern "]
        .iter()
        .any(|form| code.find(form).is_some_and(|at| !code[..at].contains('"')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(file: &str, text: &str) -> usize {
        problems_of(Path::new(file), text).len()
    }

    #[test]
    fn each_rule_finds_its_breach() {
        assert_eq!(found("crates/model/src/name.rs", "//! Names.\n"), 0);
        assert_eq!(found("crates/model/src/name.rs", "use x;\n"), 1);
        assert_eq!(found("crates/model/src/util.rs", "//! Names.\n"), 1);
        assert_eq!(found("crates/model/src/a.rs", &format!("//! A.\n{}", "\n".repeat(600))), 1);
        let block = "//! A.\nfn f() { unsafe { g() } }\n";
        assert_eq!(found("crates/model/src/a.rs", block), 1);
        assert_eq!(found("crates/ffi/src/a.rs", block), 0);
        assert_eq!(found("crates/model/src/a.rs", "//! A.\n// unsafe { }\n"), 0);
    }
}

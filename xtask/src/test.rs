//! Everything that is tested, in one order, counted in one line.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::engine;
use crate::python::Python;
use crate::run::{cargo, say, show, tee, works};
use crate::tidy;

/// Where the recorded answers and test models lie when they are beside the repository.
const SHARED: &str = "../shared";

/// Tests that ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Count {
    fn add(&mut self, other: Count) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// Runs all tests; `strict` makes a missing tool or input a failure.
///
/// # Errors
/// When anything failed. The last line printed counts the tests either way.
pub(crate) fn run(root: &Path, rust_only: bool, strict: bool) -> Result<()> {
    let mut count = Count::default();
    checks(root, strict)?;
    let python = if rust_only { None } else { Some(Python::set_up(root)?) };
    show(root, cargo().args(["build", "--release", "--locked", "-p", "vesta"]))?;
    let engines = engine::install(root, strict)?;
    count.add(rust(root, &engines, python.as_ref(), strict)?);
    if let Some(python) = &python {
        count.add(clients(root, &engines, python, strict)?);
    }
    if strict && count.skipped > 0 {
        say(&format!("{} tests were skipped, which fails here", count.skipped));
        count.failed += count.skipped;
        count.skipped = 0;
    }
    say(&format!("{} passed, {} failed, {} skipped", count.passed, count.failed, count.skipped));
    if count.failed > 0 || count.passed == 0 {
        bail!("not all tests passed");
    }
    Ok(())
}

/// What needs no test runner: rules, form, lints.
fn checks(root: &Path, strict: bool) -> Result<()> {
    tidy::run(root)?;
    let run = |arguments: &[&str]| show(root, cargo().args(arguments));
    if present("rustfmt", strict)? {
        run(&["fmt", "--all", "--check"])?;
    }
    if present("cargo-clippy", strict)? {
        run(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--quiet",
            "--",
            "-D",
            "warnings",
        ])?;
    }
    Ok(())
}

fn present(program: &str, strict: bool) -> Result<bool> {
    if works(program, "--version") {
        return Ok(true);
    }
    if strict {
        bail!("{program} is missing; rustup component add rustfmt clippy");
    }
    say(&format!("skipped: {program} is not installed (rustup component add rustfmt clippy)"));
    Ok(false)
}

/// Unit, property, engine and scenario tests.
fn rust(root: &Path, engines: &Path, python: Option<&Python>, strict: bool) -> Result<Count> {
    let mut command = cargo();
    command.env("VESTA_HOME", engines);
    let with_nextest = works("cargo-nextest", "--version");
    if with_nextest {
        command.args(["nextest", "run", "--workspace", "--locked", "--no-fail-fast"]);
        command.args([
            "--status-level",
            "fail",
            "--final-status-level",
            "fail",
            "--show-progress",
            "none",
        ]);
        command.args(["--color", "never"]);
    } else {
        command.args([
            "test",
            "--workspace",
            "--locked",
            "--no-fail-fast",
            "--quiet",
            "--lib",
            "--bins",
            "--tests",
        ]);
    }
    if let Some(python) = python {
        command.env("VESTA_OP_FIXTURES", python.operator_fixtures(root)?);
        command.env("VESTA_ZOO_FIXTURES", python.zoo_fixtures(root)?);
        command.env("VESTA_CLIENT_PYTHON", python.program());
    }
    if let Some(shared) = shared(root) {
        command.env("VESTA_SHARED", shared);
    }
    if strict {
        command.env("CI", "true");
    }
    // nextest reports on standard error; `sh` is not at hand everywhere, so both are asked for.
    let (succeeded, printed) = if with_nextest {
        command
            .args(["--message-format", "libtest-json"])
            .env("NEXTEST_EXPERIMENTAL_LIBTEST_JSON", "1");
        tee_quietly(root, &mut command)?
    } else {
        tee(root, &mut command)?
    };
    let mut count = if with_nextest { nextest_count(&printed) } else { libtest_count(&printed) };
    if !succeeded && count.failed == 0 {
        count.failed = 1;
    }
    Ok(count)
}

/// As `tee`, without showing the machine-readable lines.
fn tee_quietly(root: &Path, command: &mut Command) -> Result<(bool, String)> {
    let output = command
        .current_dir(root)
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::inherit())
        .output()?;
    Ok((output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned()))
}

/// Counts from nextest's machine-readable lines, one per test and event.
fn nextest_count(printed: &str) -> Count {
    let mut count = Count::default();
    for line in printed.lines() {
        let Ok(event) = serde_json::from_str::<serde_json::Value>(line) else { continue };
        if event["type"] == "test" {
            match event["event"].as_str() {
                Some("ok") => count.passed += 1,
                Some("failed" | "timeout") => count.failed += 1,
                Some("ignored") => count.skipped += 1,
                _ => {}
            }
        }
    }
    count
}

/// Counts from the result lines of cargo's own runner.
fn libtest_count(printed: &str) -> Count {
    let mut count = Count::default();
    for line in printed.lines().filter(|line| line.starts_with("test result:")) {
        let number = |word: &str| {
            line.split([';', '.'])
                .find_map(|part| part.trim().strip_suffix(word)?.trim().parse::<usize>().ok())
                .unwrap_or(0)
        };
        count.add(Count {
            passed: number("passed"),
            failed: number("failed"),
            skipped: number("ignored"),
        });
    }
    count
}

/// Clients that others wrote, and the original's recorded answers.
fn clients(root: &Path, engines: &Path, python: &Python, strict: bool) -> Result<Count> {
    let mut count = Count::default();
    for script in ["tests/clients/run.py", "tests/golden/run.py"] {
        let mut command = python.command();
        command.arg(root.join(script)).env("VESTA_BIN", root.join("target/release"));
        command.env("VESTA_HOME", engines);
        if let Some(shared) = shared(root) {
            command.env("VESTA_SHARED", shared);
        }
        if strict {
            command.env("CI", "true");
        }
        let (succeeded, printed) = tee(root, &mut command)?;
        let mut counted = closing_count(&printed);
        if !succeeded && counted.failed == 0 {
            counted.failed = 1;
        }
        count.add(counted);
    }
    Ok(count)
}

/// Counts from a closing line `N passed, N failed, N skipped`.
fn closing_count(printed: &str) -> Count {
    let Some(line) = printed.lines().rev().find(|line| line.contains(" passed, ")) else {
        return Count::default();
    };
    let number = |word: &str| {
        line.split(',')
            .find_map(|part| part.trim().strip_suffix(word)?.trim().parse::<usize>().ok())
            .unwrap_or(0)
    };
    Count { passed: number("passed"), failed: number("failed"), skipped: number("skipped") }
}

/// The folder of shared test inputs: `VESTA_SHARED`, or beside the repository.
fn shared(root: &Path) -> Option<PathBuf> {
    std::env::var_os("VESTA_SHARED")
        .map(PathBuf::from)
        .or_else(|| Some(root.join(SHARED)))
        .filter(|folder| folder.join("golden").is_dir())
        .and_then(|folder| folder.canonicalize().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runners_are_counted() {
        let libtest = "test result: ok. 12 passed; 1 failed; 3 ignored; 0 measured; 0 filtered out\n\
                       noise\ntest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured\n";
        assert_eq!(libtest_count(libtest), Count { passed: 13, failed: 1, skipped: 3 });
        let nextest = "{\"type\":\"test\",\"event\":\"ok\",\"name\":\"a\"}\n\
                       {\"type\":\"test\",\"event\":\"failed\",\"name\":\"b\"}\n\
                       {\"type\":\"suite\",\"event\":\"ok\",\"passed\":1}\n";
        assert_eq!(nextest_count(nextest), Count { passed: 1, failed: 1, skipped: 0 });
        let closing = "5 passed, 0 failed, 2 skipped\n";
        assert_eq!(closing_count(closing), Count { passed: 5, failed: 0, skipped: 2 });
        assert_eq!(closing_count(""), Count::default());
    }
}

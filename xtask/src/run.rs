//! Running other programs, with their output shown or taken.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// Says what comes next, so that a log can be read.
#[expect(clippy::print_stdout, reason = "chores report on standard output")]
pub(crate) fn say(text: &str) {
    println!("{text}");
}

/// Runs a command in `folder` and shows what it prints.
///
/// # Errors
/// When it cannot be started or ends with a failure.
pub(crate) fn show(folder: &Path, command: &mut Command) -> Result<()> {
    say(&format!("$ {}", line(command)));
    let status = command
        .current_dir(folder)
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("{} could not be started", line(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", line(command));
    }
    Ok(())
}

/// Runs a command in `folder`, shows what it prints line by line, and gives it back, too.
///
/// # Errors
/// When it cannot be started. Whether it failed is told beside its output.
pub(crate) fn tee(folder: &Path, command: &mut Command) -> Result<(bool, String)> {
    use std::io::{BufRead as _, BufReader};
    say(&format!("$ {}", line(command)));
    let mut child = command
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("{} could not be started", line(command)))?;
    let mut taken = String::new();
    if let Some(out) = child.stdout.take() {
        for text in BufReader::new(out).lines() {
            let text = text?;
            say(&text);
            taken.push_str(&text);
            taken.push('\n');
        }
    }
    Ok((child.wait()?.success(), taken))
}

/// Cargo, as a person would start it.
///
/// This program was itself started by cargo, which describes its package in the environment; build scripts
/// that look there would see a change and build their crates (`ring`, and all that needs it) once more.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new("cargo");
    for (name, _) in std::env::vars_os() {
        let of_package = |name: &str| {
            ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|start| name.starts_with(start))
        };
        if name.to_str().is_some_and(of_package) {
            command.env_remove(&name);
        }
    }
    command
}

/// Runs a command quietly and gives what it printed.
///
/// # Errors
/// When it cannot be started or ends with a failure.
pub(crate) fn take(folder: &Path, command: &mut Command) -> Result<String> {
    let out = command
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{} could not be started", line(command)))?;
    if !out.status.success() {
        bail!(
            "{} ended with {}\n{}",
            line(command),
            out.status,
            String::from_utf8_lossy(&out.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Whether a command can be run at all.
pub(crate) fn works(program: &str, argument: &str) -> bool {
    Command::new(program)
        .arg(argument)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

//! The Python environment of the client tests: made in `target/`, filled from pinned packages.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::engine;
use crate::run::{say, show, take, works};

/// Pinned packages with their hashes.
pub(crate) const REQUIREMENTS: &str = "tests/clients/requirements.txt";

/// Makes one small graph per operator and what TensorFlow answers.
const FIXTURES: [&str; 3] = [
    "crates/onnx/tests/fixtures.py",
    "crates/onnx/tests/fixtures_further.py",
    "crates/onnx/tests/fixtures_half.py",
];

/// Makes whole networks and what TensorFlow answers; the second lists them.
const ZOO: &[&str] = &["crates/onnx/tests/zoo.py", "crates/onnx/tests/zoo_nets.py"];

/// Networks that are made at the same time.
const ZOO_PARTS: usize = 2;

/// A Python with the clients installed.
pub(crate) struct Python {
    program: PathBuf,
}

impl Python {
    /// Makes the environment, or takes the one of an earlier run when the pins are the same.
    ///
    /// # Errors
    /// When there is no python3 with venv and pip, or a package cannot be installed.
    pub(crate) fn set_up(root: &Path) -> Result<Python> {
        if !works("python3", "--version") {
            bail!("python3 is missing; it is needed for the client tests (or give --rust-only)");
        }
        let folder = root.join("target/python");
        let program = folder.join("bin/python");
        let pins = std::fs::read_to_string(root.join(REQUIREMENTS)).context(REQUIREMENTS)?;
        let stamp = folder.join("installed.txt");
        if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == pins) {
            return Ok(Python { program });
        }
        say("setting up the Python clients in target/python");
        engine::fetch_wheel(root)?;
        let mut install = environment(root, &folder, &program)?;
        // Without dependency resolution: every package is listed, so nothing unpinned gets in.
        show(
            root,
            install.args(["install", "--quiet", "--disable-pip-version-check"]).args([
                "--no-deps",
                "--require-hashes",
                "--only-binary=:all:",
                "--find-links",
                engine::WHEELS,
                "-r",
                REQUIREMENTS,
            ]),
        )?;
        std::fs::write(&stamp, pins)?;
        Ok(Python { program })
    }

    /// Path of the interpreter.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// The interpreter, ready to run.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env("TF_CPP_MIN_LOG_LEVEL", "3").env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }

    /// The folder of small graphs and TensorFlow's answers to them, made anew when the script
    /// changed.
    ///
    /// # Errors
    /// When TensorFlow cannot make them.
    pub(crate) fn operator_fixtures(&self, root: &Path) -> Result<PathBuf> {
        let folder = root.join("target/fixtures/operators");
        let mut script = String::new();
        for file in FIXTURES {
            script.push_str(&std::fs::read_to_string(root.join(file)).context(file)?);
        }
        let stamp = folder.join("made-by.py");
        if std::fs::read_to_string(&stamp).is_ok_and(|made| made == script) {
            return Ok(folder);
        }
        say("making operator fixtures with TensorFlow in target/fixtures");
        std::fs::create_dir_all(&folder)?;
        take(root, self.command().arg(root.join(FIXTURES[0])).arg(&folder))?;
        std::fs::write(&stamp, script)?;
        Ok(folder)
    }

    /// The folder of whole networks and TensorFlow's answers to them, made anew when the scripts or
    /// the packages changed.
    ///
    /// # Errors
    /// When one of them cannot be made.
    pub(crate) fn zoo_fixtures(&self, root: &Path) -> Result<PathBuf> {
        let folder = root.join("target/fixtures/zoo");
        let mut made_of = String::new();
        for file in ZOO.iter().chain([&REQUIREMENTS]) {
            made_of.push_str(&std::fs::read_to_string(root.join(file)).context(*file)?);
        }
        let stamp = folder.join("made-of.txt");
        if std::fs::read_to_string(&stamp).is_ok_and(|made| made == made_of) {
            return Ok(folder);
        }
        say("making networks with TensorFlow in target/fixtures/zoo");
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        std::fs::create_dir_all(&folder)?;
        let part = |part: usize| {
            let part = format!("--part={part}/{ZOO_PARTS}");
            take(root, self.command().arg(root.join(ZOO[0])).arg(part).arg(&folder))
        };
        std::thread::scope(|scope| {
            let parts: Vec<_> = (0..ZOO_PARTS).map(|at| scope.spawn(move || part(at))).collect();
            let made = parts.into_iter().map(|part| match part.join() {
                Ok(made) => made.map(drop),
                Err(_) => bail!("making networks panicked"),
            });
            made.collect::<Result<()>>()
        })?;
        std::fs::write(&stamp, made_of)?;
        Ok(folder)
    }
}

/// Makes an empty environment; gives the pip that fills it: its own, or where a system's Python comes
/// without the means to make one, the system's.
fn environment(root: &Path, folder: &Path, program: &Path) -> Result<Command> {
    let make = |without: &[&str]| {
        let mut command = Command::new("python3");
        show(root, command.args(["-m", "venv", "--clear"]).args(without).arg(folder))
    };
    let mut pip;
    if make(&[]).is_ok() {
        pip = Command::new(program);
        pip.args(["-m", "pip"]);
    } else {
        make(&["--without-pip"]).context("python3 cannot make an environment; it needs venv")?;
        pip = Command::new("python3");
        pip.args(["-m", "pip", "--python"]).arg(program);
    }
    Ok(pip)
}

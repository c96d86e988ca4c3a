//! Engines for the tests. TensorFlow is one wheel, for the Python that judges and for the engine that is
//! judged; LiteRT, ONNX Runtime, OpenVINO and an older TensorFlow are fetched by the program, as a person
//! does it.
//!
//! Invariant: a wheel comes through pip and has a sum that is pinned, by `requirements.txt` or by
//! `vesta`, which compares it in any case.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::python::REQUIREMENTS;
use crate::run::{say, show};

/// Where downloaded wheels stay.
pub(crate) const WHEELS: &str = "target/wheels";

/// `VESTA_HOME` of the tests.
const HOME: &str = "target/engines";

/// The releases that are tested, besides the newest of TensorFlow.
const OTHERS: [(&str, &str); 4] = [
    ("LiteRT", "litert==2.3.0"),
    ("ONNX Runtime", "onnxruntime==1.31.1"),
    ("OpenVINO", "openvino==2026.4.1"),
    // Beside the newest, so that two releases of one engine serve at once.
    ("older TensorFlow", "tensorflow==2.15.1"),
];

/// The package whose wheel is shared.
const PACKAGE: &str = "tensorflow-cpu==";

/// Downloads the wheel that the Python environment and the engine are both made of.
///
/// # Errors
/// When pip cannot fetch it.
pub(crate) fn fetch_wheel(root: &Path) -> Result<()> {
    let pins = fs::read_to_string(root.join(REQUIREMENTS)).context(REQUIREMENTS)?;
    let (_, requirement) = requirement(&pins)?;
    let folder = root.join(WHEELS);
    fs::create_dir_all(&folder)?;
    let list = folder.join("tensorflow.txt");
    fs::write(&list, requirement)?;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]);
    pip.args(["--require-hashes", "--only-binary=:all:", "--dest", WHEELS, "-r"]).arg(list);
    show(root, &mut pip)
}

/// Installs the engines with the built program; gives the `VESTA_HOME` that holds them. Where one
/// cannot be had, tests that need it skip themselves, which is a failure when `strict`.
///
/// # Errors
/// When one cannot be installed and `strict` is set.
pub(crate) fn install(root: &Path, strict: bool) -> Result<PathBuf> {
    let home = root.join(HOME);
    let pins = fs::read_to_string(root.join(REQUIREMENTS)).context(REQUIREMENTS)?;
    let (version, _) = requirement(&pins)?;
    let mut vesta = Command::new(root.join("target/release/vesta"));
    vesta.args(["engine", "install"]).arg(format!("tensorflow=={version}"));
    if let Some(wheel) = wheel(&root.join(WHEELS), version) {
        vesta.arg("--from-wheel").arg(wheel);
    }
    installed("TensorFlow", show(root, vesta.env("VESTA_HOME", &home)), strict)?;
    for (name, release) in OTHERS {
        let mut vesta = Command::new(root.join("target/release/vesta"));
        vesta.args(["engine", "install", release]).env("VESTA_HOME", &home);
        installed(name, show(root, &mut vesta), strict)?;
    }
    Ok(home)
}

/// Says what is left out when an engine could not be installed, or fails.
fn installed(engine: &str, outcome: Result<()>, strict: bool) -> Result<()> {
    match outcome {
        Err(problem) if strict => Err(problem.context(format!("the {engine} engine is needed"))),
        Err(problem) => {
            say(&format!("skipped: tests of the {engine} engine ({problem:#})"));
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// The version and the lines that pin it, as `requirements.txt` has them.
fn requirement(pins: &str) -> Result<(&str, &str)> {
    let start = pins.find(&format!("\n{PACKAGE}")).context("tensorflow-cpu is not pinned")? + 1;
    let pinned = &pins[start..];
    let end = pinned.split_inclusive('\n').take_while(|line| line.trim_end().ends_with('\\'));
    let end: usize = end.map(str::len).sum();
    // The last line of the entry has no backslash.
    let last = pinned[end..].find('\n').map_or(pinned.len(), |length| end + length + 1);
    let version = pinned[PACKAGE.len()..].split_whitespace().next().unwrap_or_default();
    if version.is_empty() {
        bail!("the pin of tensorflow-cpu has no version");
    }
    Ok((version, &pinned[..last]))
}

/// The wheel of this release in a folder.
fn wheel(folder: &Path, version: &str) -> Option<PathBuf> {
    let prefix = format!("tensorflow_cpu-{version}-");
    let mut wheels: Vec<PathBuf> = fs::read_dir(folder)
        .ok()?
        .flatten()
        .filter(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.starts_with(&prefix) && name.ends_with(".whl")
        })
        .map(|entry| entry.path())
        .collect();
    wheels.sort();
    wheels.pop()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pin_is_cut_out_whole() {
        let pins = "a==1 \\\n    --hash=sha256:1\n    # via b\ntensorflow-cpu==2.21.0 \\\n    \
                    --hash=sha256:2 \\\n    --hash=sha256:3\n    # via -r requirements.in\nz==1\n";
        let (version, lines) = requirement(pins).unwrap();
        assert_eq!(version, "2.21.0");
        assert_eq!(
            lines,
            "tensorflow-cpu==2.21.0 \\\n    --hash=sha256:2 \\\n    --hash=sha256:3\n"
        );
        assert!(requirement("a==1\n").is_err());
    }
}

//! One engine in a store: its folder and the `engine.json` beside its libraries.
//!
//! May not know: wheels, pip, other entries.
//! Invariant: an [`Installed`] was complete when it was read; what is not is a [`Damaged`] that says
//! why.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::version::Version;
use crate::EngineName;

/// The file that describes an entry.
pub(super) const MANIFEST: &str = "engine.json";

/// More of `engine.json` than this is not read.
const MANIFEST_BYTES_MAX: u64 = 1 << 20;

/// An engine that is in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Which engine.
    pub name: EngineName,
    /// Its release, such as `2.21.0`.
    pub version: String,
    /// Where its files lie.
    pub folder: PathBuf,
    /// The package that it came out of, such as `tensorflow-cpu`.
    pub package: String,
    /// File name of the wheel.
    pub wheel: String,
    /// sha256 of the wheel, in hexadecimal.
    pub sha256: String,
    /// Bytes of all its files.
    pub installed_bytes: u64,
    /// The processor that it runs on, such as `x86_64`.
    pub arch: String,
}

impl Installed {
    /// Path of one of its libraries, such as `libtensorflow_cc.so.2`.
    pub fn library(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }
}

/// An entry that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// Which engine the folder's place says.
    pub name: EngineName,
    /// Which release the folder's name says.
    pub version: String,
    /// Where it lies.
    pub folder: PathBuf,
    /// What is wrong with it.
    pub problem: String,
}

/// What `engine.json` holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) package: String,
    pub(super) wheel: String,
    pub(super) sha256: String,
    pub(super) installed_bytes: u64,
    pub(super) arch: String,
    pub(super) files: Vec<File>,
}

/// One file of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct File {
    /// Path inside the entry's folder.
    pub(super) path: String,
    pub(super) bytes: u64,
    /// In hexadecimal.
    pub(super) sha256: String,
}

/// Reads the entry at `folder`, whose place says that it is `name` in `version`.
///
/// Sizes are compared, contents are not: a look-up must not read a gigabyte.
///
/// # Errors
/// What is wrong with the entry, for people.
pub(super) fn read(
    name: EngineName,
    version: &Version,
    folder: &Path,
) -> Result<Installed, String> {
    let manifest = read_manifest(&folder.join(MANIFEST))?;
    let is = |what: &str, found: &str, wanted: &str| {
        if found == wanted {
            Ok(())
        } else {
            Err(format!("{MANIFEST} says {what} {found:?}, not {wanted:?}"))
        }
    };
    is("name", &manifest.name, name.as_str())?;
    is("version", &manifest.version, &version.to_string())?;
    is("arch", &manifest.arch, std::env::consts::ARCH)?;
    if manifest.files.is_empty() {
        return Err(format!("{MANIFEST} names no files"));
    }
    for file in &manifest.files {
        check_file(folder, file)?;
    }
    Ok(Installed {
        name,
        version: manifest.version,
        folder: folder.to_owned(),
        package: manifest.package,
        wheel: manifest.wheel,
        sha256: manifest.sha256,
        installed_bytes: manifest.installed_bytes,
        arch: manifest.arch,
    })
}

fn read_manifest(path: &Path) -> Result<Manifest, String> {
    let unreadable = |problem: std::io::Error| match problem.kind() {
        std::io::ErrorKind::NotFound => format!("{MANIFEST} is missing"),
        _ => format!("{MANIFEST} cannot be read: {problem}"),
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut text = Vec::new();
    file.take(MANIFEST_BYTES_MAX).read_to_end(&mut text).map_err(unreadable)?;
    serde_json::from_slice(&text).map_err(|problem| format!("{MANIFEST} is not valid: {problem}"))
}

fn check_file(folder: &Path, file: &File) -> Result<(), String> {
    match std::fs::metadata(folder.join(&file.path)) {
        Ok(found) if !found.is_file() => Err(format!("{} is not a file", file.path)),
        Ok(found) if found.len() != file.bytes => {
            Err(format!("{} has {} bytes, not {}", file.path, found.len(), file.bytes))
        }
        Ok(_) => Ok(()),
        Err(problem) if problem.kind() == std::io::ErrorKind::NotFound => {
            Err(format!("{} is missing", file.path))
        }
        Err(problem) => Err(format!("{} cannot be read: {problem}", file.path)),
    }
}

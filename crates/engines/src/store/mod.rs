//! The engine store: where native libraries lie, and which are there.
//!
//! Owns: the layout `<home>/engines/<engine>/<version>/`, and the places that are searched.
//! May not know: what a library is used for, terminals.
//! Invariant: reading needs no writable folder; a damaged entry is named and hides no other.

mod entry;
mod install;
mod packages;
mod pip;
mod progress;
mod version;
mod wheel;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use vesta_model::Status;

pub use entry::{Damaged, Installed};
pub use install::{InstallRequest, Outcome, Voucher, engine_of_wheel};
pub use progress::Progress;
use version::Version;

use crate::EngineName;

/// Where Vesta's things lie when neither `VESTA_HOME` nor a home folder says.
const SYSTEM_HOME: &str = "/var/lib/vesta";

/// Places of images and packages, searched after the home and never written.
const READ_ONLY_HOMES: &[&str] = &["/usr/local/share/vesta", "/usr/share/vesta"];

/// The folder of a home that holds the engines.
const ENGINES: &str = "engines";

/// The engines that are not part of the program.
const NATIVE: &[EngineName] =
    &[EngineName::TensorFlow, EngineName::LiteRt, EngineName::OpenVino, EngineName::OnnxRuntime];

/// The native engines on this machine.
#[derive(Clone, Debug)]
pub struct EngineStore {
    /// Where engines are installed to; searched first.
    home: PathBuf,
    /// Searched after `home`.
    read_only: Vec<PathBuf>,
}

/// Everything that lies in the store.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// What can be used: by engine, newest first.
    pub installed: Vec<Installed>,
    /// What cannot.
    pub damaged: Vec<Damaged>,
}

impl EngineStore {
    /// The store that the environment names: `VESTA_HOME`, else `$XDG_DATA_HOME/vesta`, else
    /// `$HOME/.local/share/vesta`, else `/var/lib/vesta`; besides, the read-only places
    /// `/usr/local/share/vesta` and `/usr/share/vesta`.
    pub fn from_env() -> EngineStore {
        EngineStore {
            home: home(|name| std::env::var_os(name)),
            read_only: READ_ONLY_HOMES.iter().map(PathBuf::from).collect(),
        }
    }

    /// The store in this home, and no other place.
    pub fn at(home: impl Into<PathBuf>) -> EngineStore {
        EngineStore { home: home.into(), read_only: Vec::new() }
    }

    /// The same store, where `home` is searched, too, after all others.
    #[must_use]
    pub fn with_read_only(mut self, home: impl Into<PathBuf>) -> EngineStore {
        self.read_only.push(home.into());
        self
    }

    /// Where engines are installed to.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The engines that can be used: by engine, newest first.
    pub fn installed(&self) -> Vec<Installed> {
        self.survey().installed
    }

    /// Everything that lies in the store. Of one release in several places, the first place counts.
    pub fn survey(&self) -> Survey {
        let mut survey = Survey::default();
        for &name in NATIVE {
            for (version, folder) in self.entries(name) {
                match entry::read(name, &version, &folder) {
                    Ok(installed) => survey.installed.push(installed),
                    Err(problem) => {
                        let version = version.to_string();
                        survey.damaged.push(Damaged { name, version, folder, problem });
                    }
                }
            }
        }
        survey
            .installed
            .dedup_by(|later, first| later.name == first.name && later.version == first.version);
        survey
    }

    /// The engine `name`: in release `version`, or in the newest of a series (`2.15`), or without one
    /// the newest that there is.
    ///
    /// # Errors
    /// `NOT_FOUND` when it is not installed and `DATA_LOSS` when it is damaged, both with the
    /// command to run; `INVALID_ARGUMENT` when `version` is none.
    pub fn find(&self, name: EngineName, version: Option<&str>) -> Result<Installed, Status> {
        if name == EngineName::Embedded {
            return Err(Status::invalid_argument(
                "the embedded engine is part of the program; it is never installed",
            ));
        }
        let wanted = version.map(|text| parse(name, text)).transpose()?;
        let meets = |found: &Version| wanted.as_ref().is_none_or(|wanted| wanted.is_met_by(found));
        let mut damaged = None;
        let mut entries = self.entries(name);
        entries.retain(|(version, _)| meets(version));
        // A release that is named in full comes before the others of what may be a series.
        entries.sort_by_key(|(version, _)| wanted.as_ref() != Some(version));
        for (version, folder) in entries {
            match entry::read(name, &version, &folder) {
                Ok(installed) => return Ok(installed),
                Err(problem) => damaged = damaged.or(Some((version, folder, problem))),
            }
        }
        Err(match damaged {
            Some((version, folder, problem)) => damaged_engine(name, &version, &folder, &problem),
            None => not_installed(name, version),
        })
    }

    /// Folders that are entries by their place and name: newest first, then by place.
    fn entries(&self, name: EngineName) -> Vec<(Version, PathBuf)> {
        let mut entries = Vec::new();
        for home in std::iter::once(&self.home).chain(&self.read_only) {
            let Ok(folders) = std::fs::read_dir(home.join(ENGINES).join(name.as_str())) else {
                continue;
            };
            for folder in folders.flatten() {
                let name = folder.file_name();
                let Some(version) = name.to_str().and_then(Version::parse) else { continue };
                // Another spelling of a version is not a name that the store gives.
                if name.to_str() == Some(version.to_string().as_str()) {
                    entries.push((version, folder.path()));
                }
            }
        }
        // Stable: an earlier place stays before a later one.
        entries.sort_by(|(a, _), (b, _)| b.cmp(a));
        entries
    }
}

/// The writable home by the environment; an empty variable counts as none.
fn home(variable: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    let set = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(home) = set("VESTA_HOME") {
        // The working folder may change; the store may not.
        return std::path::absolute(&home).unwrap_or(home);
    }
    // The XDG specification has relative paths ignored.
    let absolute = |path: &PathBuf| path.is_absolute();
    if let Some(folder) = set("XDG_DATA_HOME").filter(absolute) {
        return folder.join("vesta");
    }
    match set("HOME").filter(absolute) {
        Some(folder) => folder.join(".local/share/vesta"),
        None => PathBuf::from(SYSTEM_HOME),
    }
}

fn parse(name: EngineName, text: &str) -> Result<Version, Status> {
    Version::parse(text).ok_or_else(|| {
        Status::invalid_argument(format!(
            "{name}=={text}: expected a version by its numbers, such as 2.21.0"
        ))
    })
}

fn not_installed(name: EngineName, version: Option<&str>) -> Status {
    let engine = match version {
        Some(version) => format!("{name}=={version}"),
        None => name.to_string(),
    };
    Status::not_found(format!(
        "engine {engine} is not installed; run `vesta engine install {engine}`"
    ))
}

fn damaged_engine(name: EngineName, version: &Version, folder: &Path, problem: &str) -> Status {
    Status::new(
        vesta_model::Code::DataLoss,
        format!(
            "engine {name}=={version} in {} is damaged: {problem}; run `vesta engine remove \
             {name}=={version}`, then `vesta engine install {name}=={version}`",
            folder.display()
        ),
    )
}

#[cfg(test)]
mod tests;

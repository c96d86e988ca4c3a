//! Which versions lie under a base path.
//!
//! The names that count are those that TensorFlow Serving's number parser takes
//! (`sources/storage_path/file_system_storage_path_source.cc`): decimal, optional sign, leading
//! zeros and surrounding white space; everything else is passed over in silence.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt::Display;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use vesta_model::{ModelName, Status, Version};

use crate::{Found, Listing};

/// Lists the versions under the directory `base`.
///
/// # Errors
/// `NOT_FOUND` when the base path does not exist, `PERMISSION_DENIED` and the like when it cannot
/// be read; the text is the original's.
pub fn scan(model: &ModelName, base: &Path) -> Result<Listing, Status> {
    let entries = std::fs::read_dir(base).map_err(|error| unreadable(model, base, &error))?;
    let mut numbered = Numbered::default();
    for entry in entries {
        let name = entry.map_err(|error| unreadable(model, base, &error))?.file_name();
        numbered.add(name.as_bytes());
    }
    Ok(numbered
        .listing(|version, name| directory(model, version, base.join(OsStr::from_bytes(name)))))
}

/// Names under a base path that stand for versions.
#[derive(Default)]
pub(crate) struct Numbered {
    named: BTreeMap<Version, Vec<u8>>,
    doubled: BTreeSet<Version>,
}

impl Numbered {
    /// Takes a name in. Of two names of one number the later in byte order counts, as in the
    /// original.
    pub(crate) fn add(&mut self, name: &[u8]) {
        let Some(version) = parse_version(name) else { return };
        let kept = self.named.entry(version).or_default();
        if !kept.is_empty() {
            self.doubled.insert(version);
        }
        if kept.as_slice() < name {
            *kept = name.to_vec();
        }
    }

    /// The versions, with what `artifact` makes of each name.
    pub(crate) fn listing(
        self,
        artifact: impl Fn(Version, &[u8]) -> Result<PathBuf, Status>,
    ) -> Listing {
        let versions = self
            .named
            .iter()
            .map(|(&version, name)| Found {
                version,
                artifact: artifact(version, name),
                edition: None,
            })
            .collect();
        Listing { versions, doubled: self.doubled.into_iter().collect() }
    }
}

fn unreadable(model: &ModelName, base: &Path, error: &std::io::Error) -> Status {
    let status = if error.kind() == ErrorKind::NotFound {
        Status::not_found(format!("{} not found", base.display()))
    } else {
        status_of(base, error)
    };
    no_base_path(model, base.display(), &status)
}

/// What the original says of a base path that it cannot list.
pub(crate) fn no_base_path(model: &ModelName, base: impl Display, problem: &Status) -> Status {
    Status::new(
        problem.code(),
        format!("Could not find base path {base} for servable {model} with error {problem}"),
    )
}

fn status_of(path: &Path, error: &std::io::Error) -> Status {
    let path = path.display();
    match error.kind() {
        ErrorKind::NotFound => Status::not_found(format!("{path}; No such file or directory")),
        ErrorKind::PermissionDenied => {
            Status::permission_denied(format!("{path}; Permission denied"))
        }
        ErrorKind::NotADirectory => Status::failed_precondition(format!("{path}; Not a directory")),
        _ => Status::unknown(format!("{path}; {error}")),
    }
}

fn directory(model: &ModelName, version: Version, path: PathBuf) -> Result<PathBuf, Status> {
    let problem = match std::fs::metadata(&path) {
        Ok(found) if found.is_dir() => return Ok(path),
        Ok(_) => Status::failed_precondition(format!("{}; Not a directory", path.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Status::not_found(format!("{} not found", path.display()))
        }
        Err(error) => status_of(&path, &error),
    };
    Err(no_reservation(model, version, &problem))
}

/// What the original says of a version that it finds no directory for.
pub(crate) fn no_reservation(model: &ModelName, version: Version, problem: &Status) -> Status {
    problem.clone().prefixed(&format!(
        "Error while attempting to reserve resources to load servable \
         {{name: {model} version: {version}}}: "
    ))
}

/// The version that a directory name stands for.
pub(crate) fn parse_version(name: &[u8]) -> Option<Version> {
    let text = std::str::from_utf8(name).ok()?;
    let text = text.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\u{b}');
    // Rust's own parser takes the same signs and zeros and refuses overflow and an empty text.
    text.parse().ok().map(Version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use vesta_model::Code;

    #[test]
    fn names_of_the_original_count() {
        let cases: [(&str, Option<i64>); 12] = [
            ("+5", Some(5)),
            (" 7", Some(7)),
            ("-3", Some(-3)),
            ("0", Some(0)),
            ("0001", Some(1)),
            ("00000123", Some(123)),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("2.tmp", None),
            ("v8", None),
            (".9", None),
            ("", None),
        ];
        for (name, want) in cases {
            assert_eq!(parse_version(name.as_bytes()), want.map(Version), "{name:?}");
        }
    }

    #[test]
    fn a_file_and_a_dangling_link_are_seen_with_their_errors() {
        let base = tempfile::tempdir().unwrap();
        fs::create_dir(base.path().join("1")).unwrap();
        fs::create_dir(base.path().join("01")).unwrap();
        fs::write(base.path().join("11"), "x").unwrap();
        std::os::unix::fs::symlink("nowhere", base.path().join("3")).unwrap();
        std::os::unix::fs::symlink("1", base.path().join("4")).unwrap();
        let Listing { versions: found, doubled } = scan(&"m".into(), base.path()).unwrap();
        assert_eq!(doubled, [Version(1)]);
        let versions: Vec<i64> = found.iter().map(|f| f.version.0).collect();
        assert_eq!(versions, [1, 3, 4, 11]);
        assert_eq!(found[0].artifact, Ok(base.path().join("1")));
        let dangling = found[1].artifact.clone().unwrap_err();
        assert_eq!(dangling.code(), Code::NotFound);
        assert!(dangling.message().starts_with(
            "Error while attempting to reserve resources to load servable {name: m version: 3}: "
        ));
        assert!(found[2].artifact.is_ok());
        assert_eq!(found[3].artifact.clone().unwrap_err().code(), Code::FailedPrecondition);
    }

    #[test]
    fn a_missing_base_path_is_named() {
        let error = scan(&"m".into(), Path::new("/nonexistent")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "NOT_FOUND: Could not find base path /nonexistent for servable m with error \
             NOT_FOUND: /nonexistent not found"
        );
    }
}

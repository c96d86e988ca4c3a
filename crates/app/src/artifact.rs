//! The model that a command names: a version's folder, or a model's folder with versions in it.
//!
//! Owns the words that `inspect` and `convert` share. May not know: what the model is.

use std::path::{Path, PathBuf};

use vesta_engines::LITE_MODEL;
use vesta_model::Status;
use vesta_repository::scan;
use vesta_savedmodel::{SavedModel, graph_files};

/// The tags of a graph that serves.
const DEFAULT_TAGS: &str = "serve";

/// The words of a command: those that stand for themselves, and options with their values.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Words {
    pub(crate) places: Vec<String>,
    pub(crate) tags: Option<String>,
    pub(crate) signature: Option<String>,
    pub(crate) json: bool,
    pub(crate) help: bool,
}

impl Words {
    /// Reads `arguments`; a value stands behind `=` or is the next word. `flags` are the options that
    /// the command knows.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for another option, or one without its value.
    pub(crate) fn read(arguments: &[String], flags: &[&str]) -> Result<Words, Status> {
        let mut words = Words::default();
        let mut rest = arguments.iter();
        while let Some(word) = rest.next() {
            if matches!(word.as_str(), "--help" | "-h") {
                words.help = true;
                continue;
            }
            let Some(option) = word.strip_prefix("--") else {
                words.places.push(word.clone());
                continue;
            };
            let (name, value) = match option.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (option, None),
            };
            if !flags.contains(&name) {
                return Err(Status::invalid_argument(format!("unknown option --{name}")));
            }
            if name == "json" {
                words.json = true;
                continue;
            }
            let value = value.or_else(|| rest.next().cloned());
            let value = value.filter(|value| !value.is_empty());
            let value = value.ok_or_else(|| {
                Status::invalid_argument(format!("option --{name} needs a value"))
            })?;
            *(if name == "tags" { &mut words.tags } else { &mut words.signature }) = Some(value);
        }
        Ok(words)
    }

    /// The tags of the graph to look at.
    pub(crate) fn tags(&self) -> Vec<String> {
        let text = self.tags.as_deref().unwrap_or(DEFAULT_TAGS);
        text.split(',').filter(|tag| !tag.is_empty()).map(str::to_owned).collect()
    }
}

/// The version's folder that `place` means: itself, or the newest version in it.
///
/// # Errors
/// `NOT_FOUND` when it is neither; why the folder cannot be read.
pub(crate) fn find(place: &str) -> Result<PathBuf, Status> {
    let folder = Path::new(place);
    let has_model = || SavedModel::file_in(folder).is_some() || !graph_files(folder).is_empty();
    if has_model() || folder.join(LITE_MODEL).exists() {
        return Ok(folder.to_owned());
    }
    let metadata = folder
        .metadata()
        .map_err(|error| Status::not_found(format!("{place} cannot be read: {error}")))?;
    if !metadata.is_dir() {
        return Err(Status::invalid_argument(format!(
            "{place} is a file; give the folder of a model or of one of its versions"
        )));
    }
    let name = folder.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    let newest = scan(&name.as_str().into(), folder)?.versions.into_iter().rev();
    let version = newest.filter_map(|found| found.artifact.ok()).next();
    // A folder of another format is looked into all the same.
    Ok(version.unwrap_or_else(|| folder.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<Words, Status> {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        Words::read(&words, &["tags", "signature"])
    }

    #[test]
    fn options_take_the_next_word_or_their_own() {
        let words = read(&["m", "--tags", "serve,gpu", "--signature=s"]).unwrap();
        assert_eq!(words.places, ["m"]);
        assert_eq!(words.tags(), ["serve", "gpu"]);
        assert_eq!(words.signature.as_deref(), Some("s"));
        assert_eq!(read(&[]).unwrap().tags(), ["serve"]);
        assert!(read(&["--tags="]).is_err());
        assert!(read(&["--signature"]).is_err());
        assert!(read(&["--json"]).is_err());
    }

    #[test]
    fn the_newest_version_is_meant() {
        let base = tempfile::tempdir().unwrap();
        for version in ["2", "10", "notes"] {
            std::fs::create_dir(base.path().join(version)).unwrap();
        }
        let place = base.path().to_str().unwrap();
        assert_eq!(find(place).unwrap(), base.path().join("10"));
        std::fs::write(base.path().join("saved_model.pb"), b"").unwrap();
        assert_eq!(find(place).unwrap(), base.path());
        assert!(find(&format!("{place}/gone")).unwrap_err().message().contains("gone"));
    }
}

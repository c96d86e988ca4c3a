//! The file that lists the models, as it is read again and again.
//!
//! Owns: what of it was seen. May not know: what becomes of it.

use std::path::{Path, PathBuf};

use vesta_frontends::model_configs;
use vesta_model::{ModelConfig, Status};
use vesta_protos::tensorflow::serving::ModelServerConfig;

use super::text;

/// The file that `--model_config_file` names.
#[derive(Clone, Debug)]
pub(crate) struct ModelFile {
    path: PathBuf,
    /// What was in it when it was last read.
    seen: Result<String, Status>,
}

/// Why nothing comes of a file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Refusal {
    /// It cannot be read or parsed.
    File(Status),
    /// It lists what cannot be served.
    List(Status),
}

/// What a file says; `None` when that is nothing at all, which is not the same as an empty list.
pub(crate) type Said = Result<Option<Vec<ModelConfig>>, Refusal>;

impl ModelFile {
    pub(crate) fn new(path: &str) -> ModelFile {
        ModelFile { path: path.into(), seen: Ok(String::new()) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads it; `None` when it says nothing at all, which is not the same as an empty list.
    ///
    /// # Errors
    /// The original's, when it cannot be read or understood.
    pub(crate) fn read(&mut self) -> Result<Option<Vec<ModelConfig>>, Status> {
        self.seen = text::read_text(&self.path);
        self.understand().map_err(|refusal| match refusal {
            Refusal::File(status) | Refusal::List(status) => status,
        })
    }

    /// Reads it again, blocking; `None` when nothing has changed since the last time.
    pub(crate) fn read_if_changed(&mut self) -> Option<Said> {
        let now = text::read_text(&self.path);
        if now == self.seen {
            return None;
        }
        self.seen = now;
        Some(self.understand())
    }

    /// What was read last.
    fn understand(&self) -> Said {
        let text = self.seen.as_ref().map_err(|problem| Refusal::File(problem.clone()))?;
        let config: ModelServerConfig =
            text::understand(text, &self.path, "tensorflow.serving.ModelServerConfig")
                .map_err(Refusal::File)?;
        if config.config.is_none() {
            return Ok(None);
        }
        model_configs(&config).map(Some).map_err(Refusal::List)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_again_only_when_it_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("models.config");
        let list = |name: &str| {
            format!(
                "model_config_list {{ config {{ name: '{name}' base_path: '/m' model_platform: \
                 'tensorflow' }} }}"
            )
        };
        std::fs::write(&path, list("a")).unwrap();
        let mut file = ModelFile::new(&path.display().to_string());
        assert_eq!(file.read().unwrap().unwrap()[0].name.as_str(), "a");
        assert!(file.read_if_changed().is_none());
        std::fs::write(&path, list("b")).unwrap();
        let read = file.read_if_changed().unwrap().unwrap().unwrap();
        assert_eq!(read[0].name.as_str(), "b");
        assert!(file.read_if_changed().is_none());
        for bad in ["garbage", ""] {
            std::fs::write(&path, bad).unwrap();
            assert!(file.read_if_changed().unwrap().is_err());
            assert!(file.read_if_changed().is_none(), "an error is told once");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(file.read_if_changed().unwrap().is_err());
        std::fs::write(&path, "# nothing\n").unwrap();
        assert_eq!(file.read_if_changed(), Some(Ok(None)));
        std::fs::write(&path, "model_config_list {}").unwrap();
        assert_eq!(file.read_if_changed(), Some(Ok(Some(Vec::new()))));
    }
}

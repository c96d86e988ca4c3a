//! What a model's own files change in the session that runs it: `assets.extra/saved_model_config.pb`.
//!
//! Owns: reading the file, and which of its fields can be honoured. May not know: sessions.
//! Invariant: whatever is in the file, the model loads; what cannot be done is said.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::Path;

use prost::Message as _;
use vesta_protos::tensorflow::ConfigProto;
use vesta_protos::tensorflow::serving::SavedModelConfig;

/// Where it lies, from a version's own folder.
const FILE: &str = "assets.extra/saved_model_config.pb";
/// The most bytes that it may have.
const BYTES_MAX: u64 = 1 << 20;

/// What a model asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionOverrides {
    /// Whether TensorFlow's graph rewriting is off; `None` where the model does not say.
    pub disable_meta_optimizer: Option<bool>,
    /// What is there and cannot be done, each a sentence for the log.
    pub warnings: Vec<String>,
}

impl SessionOverrides {
    /// Reads what the version in `artifact` asks for; nothing, when it has no such file.
    pub fn of(artifact: &Path) -> SessionOverrides {
        let path = artifact.join(FILE);
        let broken = |why: String| SessionOverrides {
            warnings: vec![format!("{} is passed over: {why}", path.display())],
            ..SessionOverrides::default()
        };
        let mut bytes = Vec::new();
        let read =
            File::open(&path).and_then(|file| file.take(BYTES_MAX + 1).read_to_end(&mut bytes));
        match read {
            Ok(_) if bytes.len() as u64 > BYTES_MAX => {
                return broken(format!("it has more than {BYTES_MAX} bytes"));
            }
            Ok(_) => {}
            Err(none) if matches!(none.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return SessionOverrides::default();
            }
            Err(error) => return broken(error.to_string()),
        }
        match SavedModelConfig::decode(bytes.as_slice()) {
            Ok(config) => SessionOverrides::from_message(&config, &path),
            Err(error) => broken(format!("it is no SavedModelConfig: {error}")),
        }
    }

    fn from_message(config: &SavedModelConfig, path: &Path) -> SessionOverrides {
        let session = config.session_overrides.clone().unwrap_or_default();
        let asked = [
            ("remote_op_remap_config", session.remote_op_remap_config.is_some()),
            ("batch_op_rewriter_config", session.batch_op_rewriter_config.is_some()),
            ("tfrt_runtime_config", config.tfrt_runtime_config.is_some()),
        ];
        let warnings = asked
            .into_iter()
            .filter(|(_, asked)| *asked)
            .map(|(field, _)| {
                format!(
                    "{} has a {field}, which no engine here knows; it is passed over",
                    path.display()
                )
            })
            .collect();
        SessionOverrides { disable_meta_optimizer: session.disable_meta_optimizer, warnings }
    }

    /// Puts what can be honoured into a session's configuration.
    pub(crate) fn apply(&self, config: &mut ConfigProto) {
        if let Some(disable) = self.disable_meta_optimizer {
            let graph = config.graph_options.get_or_insert_default();
            graph.rewrite_options.get_or_insert_default().disable_meta_optimizer = disable;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vesta_protos::tensorflow::serving;

    fn overrides(bytes: &[u8]) -> SessionOverrides {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("assets.extra")).unwrap();
        std::fs::write(folder.path().join(FILE), bytes).unwrap();
        SessionOverrides::of(folder.path())
    }

    fn with_session(session: serving::SessionOverrides) -> Vec<u8> {
        SavedModelConfig { session_overrides: Some(session), ..SavedModelConfig::default() }
            .encode_to_vec()
    }

    #[test]
    fn what_is_not_there_or_empty_changes_nothing() {
        assert_eq!(overrides(b""), SessionOverrides::default());
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(SessionOverrides::of(folder.path()), SessionOverrides::default());
        let mut config = ConfigProto::default();
        SessionOverrides::default().apply(&mut config);
        assert_eq!(config, ConfigProto::default());
    }

    #[test]
    fn graph_rewriting_is_turned_off_and_on() {
        for disable in [true, false] {
            let said = overrides(&with_session(serving::SessionOverrides {
                disable_meta_optimizer: Some(disable),
                ..serving::SessionOverrides::default()
            }));
            assert_eq!(said.warnings, [""; 0]);
            let mut config = ConfigProto::default();
            said.apply(&mut config);
            let options = config.graph_options.unwrap().rewrite_options.unwrap();
            assert_eq!(options.disable_meta_optimizer, disable);
        }
    }

    #[test]
    fn what_cannot_be_done_is_said() {
        let said = overrides(&with_session(serving::SessionOverrides {
            batch_op_rewriter_config: Some(Vec::new()),
            ..serving::SessionOverrides::default()
        }));
        assert!(said.warnings[0].contains("has a batch_op_rewriter_config"), "{said:?}");
        for (bytes, word) in [
            (&[0xff; 20][..], "is no SavedModelConfig"),
            (&vec![0; (BYTES_MAX + 1) as usize], "has more than"),
        ] {
            let said = overrides(bytes);
            assert_eq!(said.disable_meta_optimizer, None);
            assert!(said.warnings.len() == 1 && said.warnings[0].contains(word), "{said:?}");
        }
    }
}

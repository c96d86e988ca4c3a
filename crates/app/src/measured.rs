//! Loads as the log and the metrics page tell them: a decorator of the engine.
//!
//! Owns: TensorFlow's own lines and numbers of a load, the record in ML Metadata that a version may
//! name, and warnings about what its files ask of a session in vain. May not know: which engine it wraps. Invariant: it changes no outcome.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tracing::{info, warn};
use vesta_engines::SessionOverrides;
use vesta_frontends::Metrics;
use vesta_model::{Engine, EngineIdentity, LoadRequest, Session, Status};

/// Where a version names its record in ML Metadata.
const MLMD_FILE: &str = "assets.extra/mlmd_uuid";
/// More of it is no name.
const MLMD_BYTES_MAX: u64 = 256;

/// An engine whose loads are told.
pub(crate) struct Measured {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) metrics: Metrics,
}

impl Engine for Measured {
    fn identity(&self) -> EngineIdentity {
        self.engine.identity()
    }

    fn load(&self, request: &LoadRequest) -> Result<Arc<dyn Session>, Status> {
        let path = request.artifact.display().to_string();
        info!("Reading SavedModel from: {path}");
        for warning in SessionOverrides::of(&request.artifact).warnings {
            warn!("{warning}");
        }
        let start = Instant::now();
        let outcome = self.engine.load(request);
        let time = start.elapsed();
        let said = match &outcome {
            Ok(_) => "success: OK".to_owned(),
            Err(problem) => format!("fail: {problem}"),
        };
        info!(
            "SavedModel load for tags {{ {} }}; Status: {said}. Took {} microseconds.",
            request.tags.join(" "),
            time.as_micros()
        );
        self.metrics.loaded(&path, outcome.is_ok(), time);
        if outcome.is_ok()
            && let Some(uuid) = mlmd_uuid(&request.artifact)
        {
            self.metrics.described_by(request.model.as_str(), request.version.0, &uuid);
        }
        outcome
    }

    fn host_runs(&self, work: Box<dyn FnOnce() + Send + '_>) {
        self.engine.host_runs(work);
    }
}

/// What a version says of its record, if it says it in so many words.
fn mlmd_uuid(artifact: &Path) -> Option<String> {
    let mut uuid = String::new();
    let file = File::open(artifact.join(MLMD_FILE)).ok()?;
    file.take(MLMD_BYTES_MAX + 1).read_to_string(&mut uuid).ok()?;
    let uuid = uuid.trim();
    (!uuid.is_empty() && uuid.len() as u64 <= MLMD_BYTES_MAX).then(|| uuid.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_a_short_word() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("assets.extra")).unwrap();
        assert_eq!(mlmd_uuid(folder.path()), None);
        for (text, want) in [
            ("test_mlmd_uuid\n".to_owned(), Some("test_mlmd_uuid".to_owned())),
            (" \n".to_owned(), None),
            ("x".repeat(300), None),
        ] {
            std::fs::write(folder.path().join(MLMD_FILE), &text).unwrap();
            assert_eq!(mlmd_uuid(folder.path()), want, "{text}");
        }
        std::fs::write(folder.path().join(MLMD_FILE), [0xff]).unwrap();
        assert_eq!(mlmd_uuid(folder.path()), None);
    }
}

//! Whether the server can answer for everything that it is configured to serve.
//!
//! Owns the verdict and its words; may not know who asks. Invariant: what is said to be ready can be
//! resolved, as far as one moment can tell.

use vesta_model::{ModelName, Version};

use crate::{Phase, VersionStatus};

/// Whether every configured model can be used, and why not.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Readiness {
    /// Whether every configured model has a version that serves, and the server is not on its way
    /// out.
    pub ready: bool,
    /// Whether the server is on its way out: no model is ready then, whatever still serves.
    pub draining: bool,
    /// How many of the configured models have a version that serves.
    pub models_ready: usize,
    /// The models that are not ready, each with the reason, by name.
    pub models: Vec<(ModelName, String)>,
}

/// Why a model with these versions, newest first, is not ready; `None` when it is.
pub(crate) fn reason(versions: &[VersionStatus]) -> Option<String> {
    if versions.iter().any(|shown| shown.phase == Phase::Available) {
        return None;
    }
    // What is on its way up says more than what has ended.
    let newest = versions.iter().find(|shown| shown.phase != Phase::End).or(versions.first());
    Some(match newest {
        None => "no version was found yet; is there a folder with a number under its base path?"
            .to_owned(),
        Some(shown) => told(shown),
    })
}

fn told(shown: &VersionStatus) -> String {
    let version: Version = shown.version;
    let why = shown.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
    match shown.phase {
        Phase::Start => format!("version {version} waits to be loaded"),
        Phase::Loading if shown.restarting => {
            format!("version {version} is being restarted{why}")
        }
        Phase::Loading if shown.error.is_some() => {
            format!("version {version} failed and is tried again{why}")
        }
        Phase::Loading => format!("version {version} is being loaded"),
        Phase::Available => format!("version {version} serves"),
        Phase::Unloading => format!("version {version} is being unloaded"),
        Phase::End if shown.error.is_some() => format!("version {version} failed{why}"),
        Phase::End => format!("version {version} was unloaded"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vesta_model::Status;

    fn shown(version: i64, phase: Phase, error: Option<Status>) -> VersionStatus {
        VersionStatus { version: Version(version), phase, error, restarting: false }
    }

    #[test]
    fn one_version_that_serves_is_enough() {
        let broken = shown(2, Phase::End, Some(Status::not_found("no file")));
        assert_eq!(reason(&[broken.clone(), shown(1, Phase::Available, None)]), None);
        assert_eq!(reason(&[broken]).as_deref(), Some("version 2 failed: NOT_FOUND: no file"));
        let ended = Status::unavailable("it ended (signal 9)");
        let retried = shown(1, Phase::Loading, Some(ended));
        assert_eq!(
            reason(std::slice::from_ref(&retried)).as_deref(),
            Some("version 1 failed and is tried again: UNAVAILABLE: it ended (signal 9)")
        );
        let restarting = VersionStatus { restarting: true, ..retried };
        assert_eq!(
            reason(&[shown(2, Phase::End, None), restarting]).as_deref(),
            Some("version 1 is being restarted: UNAVAILABLE: it ended (signal 9)")
        );
        assert!(reason(&[]).is_some_and(|why| why.contains("no version was found")));
    }
}

//! When the ports may open.
//!
//! Owns: the rule, and the words of a start that failed or takes long. May not know: how versions are
//! found and loaded.
//! Invariant: no port opens before a model serves, unless none is configured; a model that is missing
//! or broken holds up the others for a bounded time alone.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use tracing::{info, warn};
use vesta_model::{ModelName, Status, Version};
use vesta_serving::{Phase, Serving, VersionStatus};

/// How often models are looked at while the start waits for them.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// When the log says for the first time what the start waits for.
const FIRST_REMINDER: Duration = Duration::from_secs(1);
/// How often it repeats that.
const REMINDER_INTERVAL: Duration = Duration::from_secs(10);

/// A version that ended by an error.
pub(crate) type Failure = (ModelName, Version, Status);

/// Where a configured model stands.
#[derive(Clone, Debug, PartialEq)]
enum Standing {
    /// It has a version that serves.
    Available,
    /// A version waits for its first load or is in it.
    Coming,
    /// A version failed and is tried again.
    TriedAgain(Version, Status),
    /// Nothing is left to try.
    Failed(Version, Status),
    /// There is no version.
    Absent,
}

impl Standing {
    fn of(versions: &[VersionStatus]) -> Standing {
        let any = |phase| versions.iter().any(|version| version.phase == phase);
        let first_error = |phase| {
            let mut found = versions.iter().filter(|version| version.phase == phase);
            found.find_map(|version| Some((version.version, version.error.clone()?)))
        };
        let is_first_try = |version: &VersionStatus| {
            version.phase == Phase::Start
                || version.phase == Phase::Loading
                    && (version.error.is_none() || version.restarting)
        };
        if any(Phase::Available) {
            Standing::Available
        } else if versions.iter().any(is_first_try) {
            Standing::Coming
        } else if let Some((version, error)) = first_error(Phase::Loading) {
            Standing::TriedAgain(version, error)
        } else if let Some((version, error)) = first_error(Phase::End) {
            Standing::Failed(version, error)
        } else {
            Standing::Absent
        }
    }

    /// Whether nothing is known that would make it come up soon.
    fn is_stuck(&self) -> bool {
        matches!(self, Standing::Absent | Standing::TriedAgain(..))
    }
}

/// What to do about the ports.
#[derive(Debug, PartialEq)]
enum Verdict {
    Open,
    Wait,
    Fail(Vec<Failure>),
}

/// The rule. `given_up` holds the models that were stuck for as long as one waits for such.
fn judge(standings: &[(ModelName, Standing)], given_up: &BTreeSet<ModelName>) -> Verdict {
    let is_settled = |name: &ModelName, standing: &Standing| match standing {
        Standing::Available | Standing::Failed(..) => true,
        Standing::Coming => false,
        Standing::TriedAgain(..) | Standing::Absent => given_up.contains(name),
    };
    if standings.is_empty() {
        return Verdict::Open;
    }
    let failures: Vec<Failure> = standings
        .iter()
        .filter_map(|(name, standing)| match standing {
            Standing::Failed(version, error) => Some((name.clone(), *version, error.clone())),
            _ => None,
        })
        .collect();
    if failures.len() == standings.len() {
        return Verdict::Fail(failures);
    }
    let one_serves = standings.iter().any(|(_, standing)| *standing == Standing::Available);
    if one_serves && standings.iter().all(|(name, standing)| is_settled(name, standing)) {
        Verdict::Open
    } else {
        Verdict::Wait
    }
}

/// Waits until the ports may open. `models` gives the configured ones, which may change meanwhile.
///
/// # Errors
/// `UNKNOWN` with the original's list when every model failed for good.
pub(crate) async fn wait(
    serving: &Serving,
    models: impl Fn() -> Vec<ModelName>,
    stuck_max: Duration,
) -> Result<(), Status> {
    let begun = Instant::now();
    let mut given_up = BTreeSet::new();
    let mut remind_at = begun + FIRST_REMINDER;
    loop {
        let standings: Vec<(ModelName, Standing)> = models()
            .into_iter()
            .map(|name| {
                // An error says that nothing is known of it.
                let versions = serving.status(name.as_str(), None).unwrap_or_default();
                let standing = Standing::of(&versions);
                (name, standing)
            })
            .collect();
        if begun.elapsed() >= stuck_max {
            let stuck = standings.iter().filter(|(_, standing)| standing.is_stuck());
            given_up.extend(stuck.map(|(name, _)| name.clone()));
        }
        match judge(&standings, &given_up) {
            Verdict::Open => {
                if let Some(missing) = describe(&standings) {
                    warn!("opening the ports without some of the models: {missing}");
                }
                return Ok(());
            }
            Verdict::Fail(failures) => {
                return Err(did_not_become_available(&failures, "servable(s)"));
            }
            Verdict::Wait => {}
        }
        if Instant::now() >= remind_at {
            remind_at = Instant::now() + REMINDER_INTERVAL;
            info!(
                "the ports are closed until a model serves; waiting for: {}",
                describe(&standings).unwrap_or_default()
            );
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// What is amiss with each model that does not serve; `None` when all do.
fn describe(standings: &[(ModelName, Standing)]) -> Option<String> {
    let lines: Vec<String> = standings
        .iter()
        .filter_map(|(name, standing)| match standing {
            Standing::Available => None,
            Standing::Coming => Some(format!("{name} (loading)")),
            Standing::TriedAgain(version, error) => {
                Some(format!("{name} (version {version} is tried again: {error})"))
            }
            Standing::Failed(version, error) => {
                Some(format!("{name} (version {version} failed: {error})"))
            }
            Standing::Absent => Some(format!("{name} (no version under its base path)")),
        })
        .collect();
    (!lines.is_empty()).then(|| lines.join(", "))
}

/// The original's sentence about models that did not come up; `noun` is what it calls them there.
pub(crate) fn did_not_become_available(failures: &[Failure], noun: &str) -> Status {
    let mut text = format!("{} {noun} did not become available: {{", failures.len());
    for (name, version, status) in failures {
        // Writing to a String cannot fail.
        let _ = write!(text, "{{{{name: {name} version: {version}}} due to error: {status}}}, ");
    }
    text.push('}');
    Status::unknown(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(number: i64, phase: Phase, error: Option<&str>) -> VersionStatus {
        VersionStatus {
            version: Version(number),
            phase,
            error: error.map(|text| Status::not_found(text.to_owned())),
            restarting: false,
        }
    }

    fn failed() -> Standing {
        Standing::Failed(Version(1), Status::not_found("gone"))
    }

    fn tried_again() -> Standing {
        Standing::TriedAgain(Version(1), Status::not_found("gone"))
    }

    fn verdict(standings: &[Standing], given_up: &[usize]) -> Verdict {
        let name = |index: usize| ModelName::from(format!("m{index}").as_str());
        let standings: Vec<_> =
            standings.iter().cloned().enumerate().map(|(i, s)| (name(i), s)).collect();
        judge(&standings, &given_up.iter().map(|&i| name(i)).collect())
    }

    #[test]
    fn a_models_best_version_says_where_it_stands() {
        let of = Standing::of;
        assert_eq!(of(&[]), Standing::Absent);
        assert_eq!(of(&[version(1, Phase::End, None)]), Standing::Absent);
        let broken = version(2, Phase::End, Some("gone"));
        assert_eq!(of(&[broken.clone(), version(1, Phase::Available, None)]), Standing::Available);
        assert_eq!(of(&[broken.clone(), version(1, Phase::Loading, None)]), Standing::Coming);
        assert_eq!(of(&[broken, version(1, Phase::Loading, Some("gone"))]), tried_again());
        assert_eq!(of(&[version(1, Phase::End, Some("gone"))]), failed());
    }

    #[test]
    fn ports_open_when_one_serves_and_the_others_had_their_chance() {
        use Standing::{Absent, Available, Coming};
        assert_eq!(verdict(&[], &[]), Verdict::Open);
        assert_eq!(verdict(&[Available, Available], &[]), Verdict::Open);
        assert_eq!(verdict(&[Available, failed()], &[]), Verdict::Open);
        assert_eq!(verdict(&[Available, Coming], &[1]), Verdict::Wait);
        for stuck in [Absent, tried_again()] {
            assert_eq!(verdict(&[Available, stuck.clone()], &[]), Verdict::Wait);
            assert_eq!(verdict(&[Available, stuck.clone()], &[1]), Verdict::Open);
            assert_eq!(verdict(&[failed(), stuck.clone()], &[1]), Verdict::Wait);
            assert_eq!(verdict(&[stuck], &[0]), Verdict::Wait);
        }
        assert!(
            matches!(verdict(&[failed(), failed()], &[]), Verdict::Fail(all) if all.len() == 2)
        );
    }
}

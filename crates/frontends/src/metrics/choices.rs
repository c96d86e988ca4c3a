//! Which engine serves a version, and what finding that out took, for the metrics page and the list of
//! models.
//!
//! Owns: names and labels of the series. May not know: how an engine is chosen.
//! Invariant: a series lives as long as the version that it speaks of, and a version has one; counts of
//! shadow checks stay.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

use prometheus::proto::MetricType;
use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry};
use vesta_model::Session;

use super::{Metrics, is_admitted};

const CHOICE: &str = "vesta_engine_choice_info";
const TRIAL: &str = "vesta_engine_trial_seconds";
const CHECKS: &str = "vesta_shadow_checks_total";

/// What is shown of each version, the latest last.
type Board = BTreeMap<(String, i64), Vec<Arc<EngineChosen>>>;

pub(super) struct Choices {
    board: Mutex<Board>,
    choice: IntGaugeVec,
    trial: GaugeVec,
    checks: IntCounterVec,
    /// Versions with checks; bounded as names are, since an alarm outlives its version.
    checked: RwLock<HashSet<Box<str>>>,
}

impl Choices {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Choices> {
        let choice = IntGaugeVec::new(
            Opts::new(CHOICE, "which engine serves a version, and why"),
            &["model_name", "version", "engine", "engine_version", "reason"],
        )?;
        let trial = GaugeVec::new(
            Opts::new(TRIAL, "seconds that trying engines out took in the load of a version"),
            &["model_name", "version"],
        )?;
        let checks = IntCounterVec::new(
            Opts::new(
                CHECKS,
                "runs that were to be made again on the reference engine, by outcome",
            ),
            &["model_name", "version", "outcome"],
        )?;
        registry.register(Box::new(choice.clone()))?;
        registry.register(Box::new(trial.clone()))?;
        registry.register(Box::new(checks.clone()))?;
        let (board, checked) = Default::default();
        Ok(Choices { board, choice, trial, checks, checked })
    }

    pub(super) fn declare(metrics: &Metrics) {
        metrics.declare(CHOICE, MetricType::GAUGE);
        metrics.declare(TRIAL, MetricType::GAUGE);
        metrics.declare(CHECKS, MetricType::COUNTER);
    }
}

/// Which engine serves a version, and how that came about.
#[derive(Clone, Debug)]
pub struct EngineChosen {
    /// The model's name.
    pub model: String,
    /// The version's number.
    pub version: i64,
    /// The engine's name.
    pub engine: String,
    /// Its release.
    pub release: String,
    /// In a word, what it was chosen by.
    pub reason: &'static str,
    /// The same as a sentence.
    pub because: String,
    /// What trying engines out took.
    pub trial: Duration,
    /// Threads of one run.
    pub threads: usize,
    /// The engines that were weighed against each other.
    pub contenders: Vec<Weighed>,
    /// What runs it.
    pub session: Weak<dyn Session>,
}

/// An engine that was weighed against others.
#[derive(Clone, Debug, PartialEq)]
pub struct Weighed {
    /// The engine's name.
    pub engine: String,
    /// Its release.
    pub release: String,
    /// Whether the others were compared with it.
    pub is_reference: bool,
    /// Processor time in milliseconds of one run of everything that it was tried on, and the largest
    /// error as a part of an output's largest magnitude; or why it is out.
    pub outcome: Result<(f64, f64), String>,
}

impl Weighed {
    /// The engine and its release, as `NAME==VERSION`.
    pub fn title(&self) -> String {
        format!("{}=={}", self.engine, self.release)
    }

    /// Whether both are of one release of one engine.
    pub fn is_same_engine(&self, other: &Weighed) -> bool {
        (&self.engine, &self.release) == (&other.engine, &other.release)
    }
}

/// Keeps the series of a version on the page until it is dropped.
pub struct ShownChoice {
    metrics: Metrics,
    chosen: Arc<EngineChosen>,
}

impl Metrics {
    /// Shows which engine serves a version for as long as the answer is kept. Of a version that is
    /// shown twice, because one session takes the place of another, the later is shown.
    pub fn show_choice(&self, chosen: EngineChosen) -> ShownChoice {
        let chosen = Arc::new(chosen);
        let mut board = self.inner.choices.board();
        let shown = board.entry((chosen.model.clone(), chosen.version)).or_default();
        if let Some(former) = shown.last() {
            self.inner.choices.take_down(former);
        }
        shown.push(Arc::clone(&chosen));
        self.inner.choices.put_up(&chosen);
        ShownChoice { metrics: self.clone(), chosen }
    }

    /// Counts `count` runs of a version that were to be made again on the reference engine; 0 shows that
    /// there were none yet.
    pub fn shadow_checked(&self, model: &str, version: i64, outcome: &str, count: u64) {
        let Choices { checks, checked, .. } = &self.inner.choices;
        let version = version.to_string();
        if is_admitted(checked, &format!("{model} {version}")) {
            checks.with_label_values(&[model, &version, outcome]).inc_by(count);
        }
    }

    /// Which engine serves a version, while it is loaded.
    pub(crate) fn choice_of(&self, model: &str, version: i64) -> Option<Arc<EngineChosen>> {
        let board = self.inner.choices.board();
        board.get(&(model.to_owned(), version))?.last().cloned()
    }
}

impl Choices {
    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put_up(&self, chosen: &EngineChosen) {
        let version = chosen.version.to_string();
        self.choice.with_label_values(&labels(chosen, &version)).set(1);
        let trial = chosen.trial.as_secs_f64();
        self.trial.with_label_values(&[&chosen.model, &version]).set(trial);
    }

    fn take_down(&self, chosen: &EngineChosen) {
        let version = chosen.version.to_string();
        // What is up was put up, so that there is no error to speak of.
        let _ = self.choice.remove_label_values(&labels(chosen, &version));
        let _ = self.trial.remove_label_values(&[&chosen.model, &version]);
    }
}

fn labels<'c>(chosen: &'c EngineChosen, version: &'c str) -> [&'c str; 5] {
    [&chosen.model, version, &chosen.engine, &chosen.release, chosen.reason]
}

impl Drop for ShownChoice {
    fn drop(&mut self) {
        let (choices, chosen) = (&self.metrics.inner.choices, &self.chosen);
        let key = (chosen.model.clone(), chosen.version);
        let mut board = choices.board();
        let Some(shown) = board.get_mut(&key) else { return };
        let was_up = shown.last().is_some_and(|last| Arc::ptr_eq(last, chosen));
        shown.retain(|other| !Arc::ptr_eq(other, chosen));
        if was_up {
            choices.take_down(chosen);
            if let Some(other) = shown.last() {
                choices.put_up(other);
            }
        }
        if shown.is_empty() {
            board.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vesta_model::{ModelDescription, Run, RunRequest, Status};

    struct Nothing;

    impl Session for Nothing {
        fn description(&self) -> &ModelDescription {
            unreachable!("nobody asks")
        }

        fn prepare(&self, _: &RunRequest) -> Result<Box<dyn Run>, Status> {
            Err(Status::internal("nobody runs"))
        }
    }

    fn chosen(engine: &str) -> EngineChosen {
        EngineChosen {
            model: "m".to_owned(),
            version: 2,
            engine: engine.to_owned(),
            release: "2.21.0".to_owned(),
            reason: "measured",
            because: "it is the fastest".to_owned(),
            trial: Duration::from_millis(1500),
            threads: 1,
            contenders: Vec::new(),
            session: Weak::<Nothing>::new(),
        }
    }

    fn line(engine: &str) -> String {
        format!(
            "vesta_engine_choice_info{{model_name=\"m\",engine=\"{engine}\",\
             engine_version=\"2.21.0\",reason=\"measured\",version=\"2\"}} 1\n"
        )
    }

    #[test]
    fn a_choice_is_shown_for_as_long_as_it_is_kept() {
        let metrics = Metrics::new().unwrap();
        let page = || String::from_utf8(metrics.page()).unwrap();
        assert!(page().contains("# TYPE vesta_engine_choice_info gauge\n"));
        let shown = metrics.show_choice(chosen("tensorflow"));
        assert!(page().contains(&line("tensorflow")), "{}", page());
        assert!(
            page().contains("vesta_engine_trial_seconds{model_name=\"m\",version=\"2\"} 1.5\n")
        );
        assert!(metrics.choice_of("m", 2).is_some() && metrics.choice_of("m", 1).is_none());
        drop(shown);
        assert!(!page().contains("vesta_engine_choice_info{"));
        assert!(!page().contains("vesta_engine_trial_seconds{"));
        assert!(metrics.choice_of("m", 2).is_none());
    }

    #[test]
    fn shadow_checks_are_shown_before_there_are_any() {
        let metrics = Metrics::new().unwrap();
        metrics.shadow_checked("m", 2, "disagreed", 0);
        metrics.shadow_checked("m", 2, "agreed", 3);
        let page = String::from_utf8(metrics.page()).unwrap();
        assert!(page.contains("# TYPE vesta_shadow_checks_total counter\n"), "{page}");
        for (outcome, count) in [("agreed", 3), ("disagreed", 0)] {
            let line = format!(
                "vesta_shadow_checks_total{{model_name=\"m\",outcome=\"{outcome}\",version=\"2\"}} {count}\n"
            );
            assert!(page.contains(&line), "{page}");
        }
    }

    #[test]
    fn the_later_of_two_is_shown_whichever_goes_first() {
        let metrics = Metrics::new().unwrap();
        let is_up = |engine: &str| {
            let page = String::from_utf8(metrics.page()).unwrap();
            let name = metrics.choice_of("m", 2).map(|chosen| chosen.engine.clone());
            page.contains(&line(engine)) && name.as_deref() == Some(engine)
        };
        let first = metrics.show_choice(chosen("onnxruntime"));
        let second = metrics.show_choice(chosen("tensorflow"));
        assert!(is_up("tensorflow") && !is_up("onnxruntime"));
        drop(first);
        assert!(is_up("tensorflow"));
        // The same engine again, as where a session that failed is replaced.
        let third = metrics.show_choice(chosen("tensorflow"));
        drop(second);
        assert!(is_up("tensorflow"));
        let fourth = metrics.show_choice(chosen("onnxruntime"));
        drop(fourth);
        assert!(is_up("tensorflow"));
        drop(third);
        assert!(!is_up("tensorflow"));
    }
}

//! Metrics of which engine serves a version, and what finding that out took.
//!
//! Owns: their names and labels. May not know: how an engine is chosen.
//! Invariant: a series lives as long as the version that it speaks of.

use std::time::Duration;

use prometheus::proto::MetricType;
use prometheus::{GaugeVec, IntGaugeVec, Opts, Registry};

use super::Metrics;

const CHOICE: &str = "vesta_engine_choice_info";
const TRIAL: &str = "vesta_engine_trial_seconds";

pub(super) struct Choices {
    choice: IntGaugeVec,
    trial: GaugeVec,
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
        registry.register(Box::new(choice.clone()))?;
        registry.register(Box::new(trial.clone()))?;
        Ok(Choices { choice, trial })
    }

    pub(super) fn declare(metrics: &Metrics) {
        metrics.declare(CHOICE, MetricType::GAUGE);
        metrics.declare(TRIAL, MetricType::GAUGE);
    }
}

/// Which engine serves a version.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// What trying engines out took.
    pub trial: Duration,
}

/// Keeps the series of a version on the page until it is dropped.
pub struct ShownChoice {
    metrics: Metrics,
    chosen: EngineChosen,
}

impl Metrics {
    /// Shows which engine serves a version for as long as the answer is kept.
    pub fn show_choice(&self, chosen: EngineChosen) -> ShownChoice {
        let choices = &self.inner.choices;
        let version = chosen.version.to_string();
        let labels = [&chosen.model, &version, &chosen.engine, &chosen.release, chosen.reason];
        choices.choice.with_label_values(&labels).set(1);
        let trial = chosen.trial.as_secs_f64();
        choices.trial.with_label_values(&[&chosen.model, &version]).set(trial);
        ShownChoice { metrics: self.clone(), chosen }
    }
}

impl Drop for ShownChoice {
    fn drop(&mut self) {
        let (choices, chosen) = (&self.metrics.inner.choices, &self.chosen);
        let version = chosen.version.to_string();
        let labels = [&chosen.model, &version, &chosen.engine, &chosen.release, chosen.reason];
        // One that is gone was shown twice, which no version is.
        let _ = choices.choice.remove_label_values(&labels);
        let _ = choices.trial.remove_label_values(&[&chosen.model, &version]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_shown_for_as_long_as_it_is_kept() {
        let metrics = Metrics::new().unwrap();
        let page = || String::from_utf8(metrics.page()).unwrap();
        assert!(page().contains("# TYPE vesta_engine_choice_info gauge\n"));
        let shown = metrics.show_choice(EngineChosen {
            model: "m".to_owned(),
            version: 2,
            engine: "tensorflow".to_owned(),
            release: "2.21.0".to_owned(),
            reason: "measured",
            trial: Duration::from_millis(1500),
        });
        let line = "vesta_engine_choice_info{model_name=\"m\",engine=\"tensorflow\",\
                    engine_version=\"2.21.0\",reason=\"measured\",version=\"2\"} 1\n";
        assert!(page().contains(line), "{}", page());
        assert!(
            page().contains("vesta_engine_trial_seconds{model_name=\"m\",version=\"2\"} 1.5\n")
        );
        drop(shown);
        assert!(!page().contains("vesta_engine_choice_info{"));
        assert!(!page().contains("vesta_engine_trial_seconds{"));
    }
}

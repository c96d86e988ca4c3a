//! Metrics of what is asked of models: by signature, by the number of examples.
//!
//! Owns: their names, labels and limits. May not know: what a signature is.

use std::collections::{HashMap, HashSet};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use prometheus::proto::MetricType;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

use super::{Metrics, micros};

const LATENCY: &str = ":vesta:serving:signature_latency";
const EXAMPLES: &str = ":tensorflow:serving:request_example_counts";
const EXAMPLES_TOTAL: &str = ":tensorflow:serving:request_example_count_total";

/// Distinct signatures that may be on the page; later ones count under no name.
const SIGNATURES_MAX: usize = 1000;

pub(super) struct Signatures {
    /// Those of each model that are on the page.
    known: RwLock<HashMap<Box<str>, HashSet<Box<str>>>>,
    latency: HistogramVec,
    examples: HistogramVec,
    examples_total: IntCounterVec,
}

impl Signatures {
    pub(super) fn new(registry: &Registry, micros: Vec<f64>) -> prometheus::Result<Signatures> {
        let counts = (0..15).map(|power| f64::from(1u32 << power)).collect();
        let signatures = Signatures {
            known: RwLock::default(),
            latency: HistogramVec::new(
                HistogramOpts::new(LATENCY, "microseconds of one run that went well")
                    .buckets(micros),
                &["model_name", "signature_name"],
            )?,
            examples: HistogramVec::new(
                HistogramOpts::new(EXAMPLES, "examples of one request").buckets(counts),
                &["model"],
            )?,
            examples_total: IntCounterVec::new(
                Opts::new(EXAMPLES_TOTAL, "examples of all requests"),
                &["model"],
            )?,
        };
        registry.register(Box::new(signatures.latency.clone()))?;
        registry.register(Box::new(signatures.examples.clone()))?;
        registry.register(Box::new(signatures.examples_total.clone()))?;
        Ok(signatures)
    }

    /// Whether a signature is on the page, or may come to it. Models come and go with their
    /// signatures for as long as the server lives.
    fn is_admitted(&self, model: &str, signature: &str) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if known.get(model).is_some_and(|of_model| of_model.contains(signature)) {
            return true;
        }
        drop(known);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.values().map(HashSet::len).sum::<usize>() >= SIGNATURES_MAX {
            return known.get(model).is_some_and(|of_model| of_model.contains(signature));
        }
        known.entry(model.into()).or_default().insert(signature.into());
        true
    }

    pub(super) fn declare(metrics: &Metrics) {
        metrics.declare(LATENCY, MetricType::HISTOGRAM);
        metrics.declare(EXAMPLES, MetricType::HISTOGRAM);
        metrics.declare(EXAMPLES_TOTAL, MetricType::COUNTER);
    }
}

impl Metrics {
    /// Counts the time of a run of a signature that succeeded.
    pub(crate) fn ran_signature(&self, model: &str, signature: &str, time: Duration) {
        let admitted = self.inner.signatures.is_admitted(model, signature);
        let labels = if admitted { [model, signature] } else { ["", ""] };
        self.inner.signatures.latency.with_label_values(&labels).observe(micros(time));
    }

    /// Counts the examples of a request, where the original does.
    pub(crate) fn examples(&self, model: &str, count: usize) {
        let labels = [self.bounded(model)];
        self.inner.signatures.examples.with_label_values(&labels).observe(count as f64);
        self.inner.signatures.examples_total.with_label_values(&labels).inc_by(count as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(metrics: &Metrics) -> String {
        String::from_utf8(metrics.page()).unwrap()
    }

    #[test]
    fn signatures_are_timed_by_name_and_bounded() {
        let metrics = Metrics::new().unwrap();
        for number in 0..SIGNATURES_MAX + 3 {
            metrics.ran_signature("m", &format!("s{number}"), Duration::from_micros(20));
        }
        metrics.ran_signature("m", "s0", Duration::from_micros(20));
        let page = page(&metrics);
        let count = |labels: &str, count: u64| {
            let line = format!(":vesta:serving:signature_latency_count{{{labels}}} {count}\n");
            assert!(page.contains(&line), "{line}");
        };
        count("model_name=\"m\",signature_name=\"s0\"", 2);
        count("model_name=\"\",signature_name=\"\"", 3);
    }

    #[test]
    fn examples_are_counted_in_powers_of_two() {
        let metrics = Metrics::new().unwrap();
        metrics.examples("m", 3);
        metrics.examples("m", 20_000);
        let page = page(&metrics);
        for line in [
            "request_example_counts_bucket{model=\"m\",le=\"2\"} 0\n",
            "request_example_counts_bucket{model=\"m\",le=\"4\"} 1\n",
            "request_example_counts_bucket{model=\"m\",le=\"16384\"} 1\n",
            "request_example_counts_bucket{model=\"m\",le=\"+Inf\"} 2\n",
            ":tensorflow:serving:request_example_count_total{model=\"m\"} 20003\n",
        ] {
            assert!(page.contains(line), "{line} is not in {page}");
        }
    }
}

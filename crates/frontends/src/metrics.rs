//! The metrics page and the metrics of the request path.
//!
//! Owns: the original's names, labels and text form. Other parts of the server put their own
//! collectors into [`Metrics::registry`] and say their names with [`Metrics::declare`].
//! May not know: requests; it is told what to count.
//! Invariant: what clients send cannot make the page grow without bound.

mod choices;
mod loads;
mod process;
mod runs;
mod signatures;

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use prometheus::core::Collector as _;
use prometheus::proto::{Metric, MetricFamily, MetricType};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};
use vesta_model::{Code, Status};

use self::choices::Choices;
use self::loads::Loads;
use self::signatures::Signatures;
use crate::recorder::{Recorder, SpanKind};
use crate::tfs::json::push_six_digits;

pub use choices::{EngineChosen, ShownChoice, Weighed};
pub use runs::{RunMetrics, show_queue_depths};

/// A call as the metrics name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Api {
    Predict,
    Classify,
    Regress,
}

impl Api {
    /// As the original's metrics call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Api::Predict => "Predict",
            Api::Classify => "Classify",
            Api::Regress => "Regress",
        }
    }
}

/// Distinct model names that requests may bring onto the page; later ones count under no name.
const NAMES_MAX: usize = 1000;
/// Longer names count under no name.
const NAME_BYTES_MAX: usize = 256;
/// What runtime the original names for all of its runs.
const RUNTIME: &str = "TF1";

/// What was counted of the calls on one model.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Figures {
    /// Calls that went well.
    pub(crate) answered: u64,
    /// Calls that failed.
    pub(crate) failed: u64,
    /// Calls whose time was taken.
    pub(crate) timed: u64,
    /// The time of those together.
    pub(crate) micros: f64,
}

/// The registry and the counters of the request path. Clones are the same one.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Registry,
    recorder: Recorder,
    declared: RwLock<BTreeMap<String, MetricType>>,
    names: RwLock<HashSet<Box<str>>>,
    warm_ups: RwLock<HashSet<Box<str>>>,
    request_count: IntCounterVec,
    request_latency: HistogramVec,
    runtime_latency: HistogramVec,
    warm_up_latency: HistogramVec,
    warm_up_records: IntCounterVec,
    request_log_count: IntCounterVec,
    choices: Choices,
    loads: Loads,
    signatures: Signatures,
}

impl Metrics {
    /// Metrics with nothing counted.
    ///
    /// # Errors
    /// `INTERNAL` when the metrics contradict each other, which they do not.
    pub fn new() -> Result<Metrics, Status> {
        let name = |word: &str| format!(":tensorflow:serving:{word}");
        let mut limits = vec![10.0];
        limits.extend((1..33).scan(10.0, |limit, _| {
            *limit *= 1.8;
            Some(*limit)
        }));
        let histogram = |word: &str, help: &str, labels: &[&str]| {
            let options = HistogramOpts::new(name(word), help).buckets(limits.clone());
            HistogramVec::new(options, labels)
        };
        let count = Opts::new(name("request_count"), "requests by model and status");
        let build = || -> prometheus::Result<Metrics> {
            let registry = Registry::new();
            let inner = Inner {
                choices: Choices::new(&registry)?,
                loads: Loads::new(&registry)?,
                signatures: Signatures::new(&registry, limits.clone())?,
                registry,
                recorder: Recorder::default(),
                declared: RwLock::default(),
                names: RwLock::default(),
                warm_ups: RwLock::default(),
                request_count: IntCounterVec::new(count, &["model_name", "status"])?,
                request_latency: histogram(
                    "request_latency",
                    "microseconds from a whole request to its answer",
                    &["model_name", "API", "entrypoint"],
                )?,
                runtime_latency: histogram(
                    "runtime_latency",
                    "microseconds of one run",
                    &["model_name", "API", "runtime"],
                )?,
                warm_up_latency: histogram(
                    "model_warmup_latency",
                    "microseconds of the recorded requests of one load",
                    &["model_path", "status"],
                )?,
                warm_up_records: IntCounterVec::new(
                    Opts::new(name("model_warmup_records_read"), "recorded requests by version"),
                    &["model_path", "status"],
                )?,
                request_log_count: IntCounterVec::new(
                    Opts::new(name("request_log_count"), "recorded requests by outcome"),
                    &["model_name", "status_code"],
                )?,
            };
            inner.registry.register(Box::new(inner.request_log_count.clone()))?;
            inner.registry.register(Box::new(inner.request_count.clone()))?;
            inner.registry.register(Box::new(inner.request_latency.clone()))?;
            inner.registry.register(Box::new(inner.runtime_latency.clone()))?;
            inner.registry.register(Box::new(inner.warm_up_latency.clone()))?;
            inner.registry.register(Box::new(inner.warm_up_records.clone()))?;
            Ok(Metrics { inner: Arc::new(inner) })
        };
        let metrics = build().map_err(|error| {
            Status::internal(format!("the metrics cannot be made: {error}")).with_cause(error)
        })?;
        metrics.declare(&name("request_count"), MetricType::COUNTER);
        Choices::declare(&metrics);
        Loads::declare(&metrics);
        Signatures::declare(&metrics);
        metrics.declare(&name("request_log_count"), MetricType::COUNTER);
        metrics.declare(&name("request_latency"), MetricType::HISTOGRAM);
        metrics.declare(&name("runtime_latency"), MetricType::HISTOGRAM);
        metrics.declare(&name("model_warmup_latency"), MetricType::HISTOGRAM);
        metrics.declare(&name("model_warmup_records_read"), MetricType::COUNTER);
        Ok(metrics)
    }

    /// Where collectors are registered. Their names are put on the page as they are, so names in the
    /// style of the original have colons for slashes.
    pub fn registry(&self) -> &Registry {
        &self.inner.registry
    }

    /// Puts a metric's name and kind on the page even while it has no sample.
    pub fn declare(&self, name: &str, kind: MetricType) {
        let mut declared = self.inner.declared.write().unwrap_or_else(PoisonError::into_inner);
        declared.insert(name.to_owned(), kind);
    }

    /// Counts a request by its outcome; `model` is empty when the request names none.
    pub(crate) fn answered(&self, model: &str, code: Option<Code>) {
        let status = code.map_or("OK", Code::name);
        self.inner.request_count.with_label_values(&[self.bounded(model), status]).inc();
    }

    /// Counts the time of a request that succeeded, from its last byte to its answer.
    pub(crate) fn took(&self, model: &str, api: &str, entrypoint: &str, time: Duration) {
        let labels = [self.bounded(model), api, entrypoint];
        self.inner.request_latency.with_label_values(&labels).observe(micros(time));
        let kind = if entrypoint == "GRPC" { SpanKind::GrpcCall } else { SpanKind::RestCall };
        // Questions about models have no name of their own.
        if !api.is_empty() {
            self.inner.recorder.note(kind, labels[0], api, time);
        }
    }

    /// Where calls and runs are recorded one by one while somebody asks for that.
    pub(crate) fn recorder(&self) -> &Recorder {
        &self.inner.recorder
    }

    /// What was counted of calls so far, by model.
    pub(crate) fn figures(&self) -> BTreeMap<String, Figures> {
        let mut figures: BTreeMap<String, Figures> = BTreeMap::new();
        let label = |metric: &Metric, name: &str| {
            let found = metric.get_label().iter().find(|label| label.name() == name);
            found.map(|label| label.value().to_owned()).unwrap_or_default()
        };
        let each = |family: Vec<MetricFamily>| {
            family.into_iter().flat_map(|family| family.get_metric().to_vec())
        };
        for metric in each(self.inner.request_count.collect()) {
            let of = figures.entry(label(&metric, "model_name")).or_default();
            let count = metric.get_counter().get_value() as u64;
            match &*label(&metric, "status") {
                "OK" => of.answered += count,
                _ => of.failed += count,
            }
        }
        for metric in each(self.inner.request_latency.collect()) {
            let of = figures.entry(label(&metric, "model_name")).or_default();
            of.timed += metric.get_histogram().get_sample_count();
            of.micros += metric.get_histogram().get_sample_sum();
        }
        figures
    }

    /// Counts the time of a run that succeeded.
    pub(crate) fn ran(&self, model: &str, api: Api, time: Duration) {
        let labels = [self.bounded(model), api.name(), RUNTIME];
        self.inner.runtime_latency.with_label_values(&labels).observe(micros(time));
    }

    /// Counts one warm-up: the version's folder, how it ended, how many records were read.
    pub(crate) fn warmed_up(
        &self,
        model_path: &str,
        error: Option<&Status>,
        records: usize,
        time: Duration,
    ) {
        let status = error.map_or_else(|| "OK".to_owned(), Status::to_string);
        // Folders come and go with versions for as long as the server lives.
        let admitted = is_admitted(&self.inner.warm_ups, &format!("{model_path} {status}"));
        let labels = if admitted { [model_path, &status] } else { ["", ""] };
        self.inner.warm_up_latency.with_label_values(&labels).observe(micros(time));
        self.inner.warm_up_records.with_label_values(&labels).inc_by(records as u64);
    }

    /// Counts requests of `model` that were written down, or were not for the reason `code`.
    pub fn recorded(&self, model: &str, code: Option<Code>, count: u64) {
        let labels = [self.bounded(model), code.map_or("OK", Code::name)];
        self.inner.request_log_count.with_label_values(&labels).inc_by(count);
    }

    /// `model`, or nothing when there are too many names already.
    fn bounded<'m>(&self, model: &'m str) -> &'m str {
        let admitted = !model.is_empty()
            && model.len() <= NAME_BYTES_MAX
            && is_admitted(&self.inner.names, model);
        if admitted { model } else { "" }
    }

    /// The page.
    pub fn page(&self) -> Vec<u8> {
        let mut kinds = self.inner.declared.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut families: BTreeMap<String, MetricFamily> = BTreeMap::new();
        for family in self.inner.registry.gather() {
            kinds.insert(family.name().to_owned(), family.get_field_type());
            families.insert(family.name().to_owned(), family);
        }
        let mut page = Vec::new();
        for (name, kind) in kinds {
            let word = match kind {
                MetricType::COUNTER => "counter",
                MetricType::GAUGE => "gauge",
                MetricType::HISTOGRAM => "histogram",
                _ => "untyped",
            };
            page.extend_from_slice(format!("# TYPE {name} {word}\n").as_bytes());
            for metric in families.get(&name).into_iter().flat_map(MetricFamily::get_metric) {
                push_metric(&mut page, &name, kind, metric);
            }
        }
        page
    }
}

/// `name` as a label's value: itself, or nothing when there are too many already.
fn label_of<'n>(names: &RwLock<HashSet<Box<str>>>, name: &'n str) -> &'n str {
    if is_admitted(names, name) { name } else { "" }
}

/// Whether `name` is among the names so far, or may become the next of them.
fn is_admitted(names: &RwLock<HashSet<Box<str>>>, name: &str) -> bool {
    if names.read().unwrap_or_else(PoisonError::into_inner).contains(name) {
        return true;
    }
    let mut names = names.write().unwrap_or_else(PoisonError::into_inner);
    let admitted = names.len() < NAMES_MAX || names.contains(name);
    if admitted {
        names.insert(name.into());
    }
    admitted
}

fn micros(time: Duration) -> f64 {
    time.as_micros() as f64
}

fn push_metric(page: &mut Vec<u8>, name: &str, kind: MetricType, metric: &Metric) {
    let mut labels: Vec<_> = metric.get_label().iter().collect();
    // The registry sorts labels; the original has the model first.
    labels.sort_by_key(|label| label.name() != "model_name");
    let labels: Vec<String> = labels
        .into_iter()
        .map(|label| format!("{}=\"{}\"", label.name(), escaped(label.value())))
        .collect();
    let labels = labels.join(",");
    if kind != MetricType::HISTOGRAM {
        let value = match kind {
            MetricType::COUNTER => metric.get_counter().get_value(),
            _ => metric.get_gauge().get_value(),
        };
        push_sample(page, &format!("{name}{{{labels}}}"), value);
        return;
    }
    let histogram = metric.get_histogram();
    let comma = if labels.is_empty() { "" } else { "," };
    let mut bucket = |limit: &[u8], count: u64| {
        page.extend_from_slice(format!("{name}_bucket{{{labels}{comma}le=\"").as_bytes());
        page.extend_from_slice(limit);
        page.extend_from_slice(format!("\"}} {count}\n").as_bytes());
    };
    for limit in histogram.get_bucket() {
        let mut text = Vec::new();
        push_six_digits(&mut text, limit.upper_bound());
        bucket(&text, limit.cumulative_count());
    }
    bucket(b"+Inf", histogram.get_sample_count());
    push_sample(page, &format!("{name}_sum{{{labels}}}"), histogram.get_sample_sum());
    let count = histogram.get_sample_count();
    page.extend_from_slice(format!("{name}_count{{{labels}}} {count}\n").as_bytes());
}

/// A line of a name with labels and a value; whole numbers have all their digits.
fn push_sample(page: &mut Vec<u8>, name: &str, value: f64) {
    /// Above it, doubles do not hold every whole number.
    const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;
    page.extend_from_slice(name.as_bytes());
    page.push(b' ');
    if value.fract() == 0.0 && value.abs() <= WHOLE_MAX {
        page.extend_from_slice(format!("{value:.0}").as_bytes());
    } else {
        push_six_digits(page, value);
    }
    page.push(b'\n');
}

/// A label's value. The original escapes no line feeds, but a page with them is not one.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(metrics: &Metrics) -> String {
        String::from_utf8(metrics.page()).unwrap()
    }

    #[test]
    fn the_page_has_the_originals_form() {
        let metrics = Metrics::new().unwrap();
        metrics.declare(":a:first", MetricType::GAUGE);
        assert!(page(&metrics).starts_with(
            "# TYPE :a:first gauge\n\
             # TYPE :tensorflow:cc:saved_model:load_attempt_count counter\n\
             # TYPE :tensorflow:cc:saved_model:load_latency counter\n\
             # TYPE :tensorflow:serving:mlmd_map gauge\n\
             # TYPE :tensorflow:serving:model_warmup_latency histogram\n\
             # TYPE :tensorflow:serving:model_warmup_records_read counter\n\
             # TYPE :tensorflow:serving:request_count counter\n\
             # TYPE :tensorflow:serving:request_example_count_total counter\n\
             # TYPE :tensorflow:serving:request_example_counts histogram\n\
             # TYPE :tensorflow:serving:request_latency histogram\n\
             # TYPE :tensorflow:serving:request_log_count counter\n"
        ));
        metrics.answered("m\"\\", None);
        metrics.answered("", Some(Code::InvalidArgument));
        metrics.took("m", "predict", "REST", Duration::from_micros(20));
        let page = page(&metrics);
        for line in [
            ":tensorflow:serving:request_count{model_name=\"m\\\"\\\\\",status=\"OK\"} 1\n",
            ":tensorflow:serving:request_count{model_name=\"\",status=\"INVALID_ARGUMENT\"} 1\n",
            "{model_name=\"m\",API=\"predict\",entrypoint=\"REST\",le=\"10\"} 0\n",
            "{model_name=\"m\",API=\"predict\",entrypoint=\"REST\",le=\"32.4\"} 1\n",
            ",le=\"1.47476e+09\"} 1\n",
            ",le=\"+Inf\"} 1\n",
            "request_latency_sum{model_name=\"m\",API=\"predict\",entrypoint=\"REST\"} 20\n",
            "request_latency_count{model_name=\"m\",API=\"predict\",entrypoint=\"REST\"} 1\n",
        ] {
            assert!(page.contains(line), "{line} is not in {page}");
        }
        assert_eq!(page.matches(",le=").count(), 34);
    }

    #[test]
    fn a_limit_belongs_to_its_bucket() {
        let metrics = Metrics::new().unwrap();
        for micros in [10, 18, 19] {
            metrics.took("m", "Predict", "GRPC", Duration::from_micros(micros));
        }
        let page = page(&metrics);
        for (limit, count) in [("10", 1), ("18", 2), ("32.4", 3)] {
            let line = format!("entrypoint=\"GRPC\",le=\"{limit}\"}} {count}\n");
            assert!(page.contains(&line), "{line} is not in {page}");
        }
    }

    #[test]
    fn names_are_bounded() {
        let metrics = Metrics::new().unwrap();
        for i in 0..NAMES_MAX + 10 {
            metrics.answered(&format!("model{i}"), Some(Code::NotFound));
        }
        metrics.answered(&"x".repeat(NAME_BYTES_MAX + 1), None);
        let page = page(&metrics);
        assert_eq!(page.matches("model_name=\"model").count(), NAMES_MAX);
        assert!(page.contains("{model_name=\"\",status=\"NOT_FOUND\"} 10\n"));
        metrics.answered("model5", None);
        assert_eq!(metrics.bounded("model5"), "model5");
    }
}

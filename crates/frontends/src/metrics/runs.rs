//! The metrics of waits and batches: the original's of its batching session, and what its users ask
//! for: queue depth, queue wait, batch fill.
//!
//! May not know how batches are formed; it is told by `serving`, and asks it for depths when the page
//! is read. Invariant: neither models nor sizes of batches make the page grow without bound.

use std::collections::HashSet;
use std::sync::RwLock;
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{MetricFamily, MetricType};
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntGaugeVec, Opts};
use vesta_model::{ModelName, Status};
use vesta_serving::{FormedBatch, QueueWatch, RunObserver};

use super::{Metrics, is_admitted, micros};

/// Queue depth by model and version.
const DEPTH: &str = "vesta_queue_depth";
/// Seconds in the queue by model.
const WAIT: &str = "vesta_queue_wait_seconds";
/// Rows of a batch in proportion to those that it may have, by model.
const FILL: &str = "vesta_batch_fill_ratio";
/// Requests in a batch, by model.
const REQUESTS: &str = "vesta_batch_requests";

/// Counts waits and batches.
pub struct RunMetrics {
    metrics: Metrics,
    sizes: RwLock<HashSet<Box<str>>>,
    queuing_latency: HistogramVec,
    wrapped_run_count: IntCounter,
    padding_size: HistogramVec,
    input_batch_size: Histogram,
    processed_batch_size: Histogram,
    wait: HistogramVec,
    fill: HistogramVec,
    requests: HistogramVec,
}

/// `count` limits, each `factor` times the former one.
fn exponential(start: f64, factor: f64, count: usize) -> Vec<f64> {
    std::iter::successors(Some(start), |limit| Some(limit * factor)).take(count).collect()
}

fn sizes() -> Vec<f64> {
    exponential(1.0, 2.0, 14)
}

impl RunMetrics {
    /// Puts the metrics on the page of `metrics`; once for each.
    ///
    /// # Errors
    /// `INTERNAL` when they are on it already.
    pub fn new(metrics: &Metrics) -> Result<RunMetrics, Status> {
        RunMetrics::register(metrics).map_err(|error| {
            Status::internal(format!("the metrics of batches cannot be made: {error}"))
                .with_cause(error)
        })
    }

    fn register(metrics: &Metrics) -> prometheus::Result<RunMetrics> {
        let name = |word: &str| format!(":tensorflow:serving:batching_session:{word}");
        let histogram = |name: &str, help: &str, limits: Vec<f64>, labels: &[&str]| {
            HistogramVec::new(HistogramOpts::new(name, help).buckets(limits), labels)
        };
        let single = |word: &str, help: &str| {
            Histogram::with_opts(HistogramOpts::new(name(word), help).buckets(sizes()))
        };
        let run_metrics = RunMetrics {
            metrics: metrics.clone(),
            sizes: RwLock::default(),
            queuing_latency: histogram(
                &name("queuing_latency"),
                "microseconds of one request in its queue",
                exponential(100.0, 1.2, 52),
                &["thread_pool_name"],
            )?,
            wrapped_run_count: IntCounter::new(name("wrapped_run_count"), "batches that were run")?,
            padding_size: histogram(
                &name("padding_size"),
                "rows with which a batch was filled up, by the size of that batch",
                sizes(),
                &["execution_batch_size"],
            )?,
            input_batch_size: single("input_batch_size", "rows of each input of a request")?,
            processed_batch_size: single("processed_batch_size", "rows of a batch, filled up")?,
            wait: histogram(
                WAIT,
                "seconds of one request in its queue, batched or not",
                exponential(0.000_01, 2.0, 23),
                &["model_name"],
            )?,
            fill: histogram(
                FILL,
                "rows of a batch in proportion to those that it may have",
                (1..=10).map(|tenths| f64::from(tenths) / 10.0).collect(),
                &["model_name"],
            )?,
            requests: histogram(REQUESTS, "requests in a batch", sizes(), &["model_name"])?,
        };
        run_metrics.show()?;
        Ok(run_metrics)
    }

    fn show(&self) -> prometheus::Result<()> {
        let collectors: [(MetricType, Box<dyn Collector>); 8] = [
            (MetricType::HISTOGRAM, Box::new(self.queuing_latency.clone())),
            (MetricType::COUNTER, Box::new(self.wrapped_run_count.clone())),
            (MetricType::HISTOGRAM, Box::new(self.padding_size.clone())),
            (MetricType::HISTOGRAM, Box::new(self.input_batch_size.clone())),
            (MetricType::HISTOGRAM, Box::new(self.processed_batch_size.clone())),
            (MetricType::HISTOGRAM, Box::new(self.wait.clone())),
            (MetricType::HISTOGRAM, Box::new(self.fill.clone())),
            (MetricType::HISTOGRAM, Box::new(self.requests.clone())),
        ];
        for (kind, collector) in collectors {
            for description in collector.desc() {
                self.metrics.declare(&description.fq_name, kind);
            }
            self.metrics.registry().register(collector)?;
        }
        Ok(())
    }

    fn of_model<'m>(&self, model: &'m ModelName) -> [&'m str; 1] {
        [self.metrics.bounded(model.as_str())]
    }
}

impl RunObserver for RunMetrics {
    fn waited(&self, model: &ModelName, batched: bool, wait: Duration) {
        self.wait.with_label_values(&self.of_model(model)).observe(wait.as_secs_f64());
        if batched {
            // The original's label is empty in its server.
            self.queuing_latency.with_label_values(&[""]).observe(micros(wait));
        }
    }

    fn entered(&self, _: &ModelName, rows: usize, inputs: usize) {
        for _ in 0..inputs {
            self.input_batch_size.observe(rows as f64);
        }
    }

    fn formed(&self, model: &ModelName, batch: FormedBatch) {
        let FormedBatch { requests, rows, padding_rows, rows_max } = batch;
        let size = (rows + padding_rows).to_string();
        let label = if is_admitted(&self.sizes, &size) { &*size } else { "" };
        self.padding_size.with_label_values(&[label]).observe(padding_rows as f64);
        self.processed_batch_size.observe((rows + padding_rows) as f64);
        let model = self.of_model(model);
        self.fill.with_label_values(&model).observe(rows as f64 / rows_max.max(1) as f64);
        self.requests.with_label_values(&model).observe(requests as f64);
    }

    fn handed_over(&self, _: &ModelName) {
        self.wrapped_run_count.inc();
    }
}

/// The depths of queues, looked up when the page is read.
struct Depths {
    queues: QueueWatch,
    gauge: IntGaugeVec,
}

/// Puts how many requests wait for each version on the page of `metrics`; once for each.
///
/// # Errors
/// `INTERNAL` when it is on it already.
pub fn show_queue_depths(metrics: &Metrics, queues: QueueWatch) -> Result<(), Status> {
    let options = Opts::new(DEPTH, "requests that wait to be run");
    let register = || -> prometheus::Result<()> {
        let gauge = IntGaugeVec::new(options, &["model_name", "version"])?;
        metrics.declare(DEPTH, MetricType::GAUGE);
        metrics.registry().register(Box::new(Depths { queues, gauge }))
    };
    register().map_err(|error| {
        Status::internal(format!("the metric of queues cannot be made: {error}")).with_cause(error)
    })
}

impl Collector for Depths {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // Versions that went are not shown any more.
        self.gauge.reset();
        for depth in self.queues.depths() {
            let labels = [depth.model.as_str(), &depth.version.to_string()];
            let requests = i64::try_from(depth.requests).unwrap_or(i64::MAX);
            self.gauge.with_label_values(&labels).set(requests);
        }
        self.gauge.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(metrics: &Metrics) -> String {
        String::from_utf8(metrics.page()).unwrap()
    }

    #[test]
    fn names_labels_and_limits_are_the_originals() {
        let metrics = Metrics::new().unwrap();
        let runs = RunMetrics::new(&metrics).unwrap();
        let model = ModelName::from("m");
        for word in ["queuing_latency", "padding_size"] {
            let line = format!("# TYPE :tensorflow:serving:batching_session:{word} histogram\n");
            assert!(page(&metrics).contains(&line), "even without a sample");
        }
        runs.entered(&model, 3, 2);
        runs.waited(&model, true, Duration::from_micros(150));
        runs.waited(&model, false, Duration::from_micros(150));
        runs.formed(&model, FormedBatch { requests: 2, rows: 6, padding_rows: 2, rows_max: 12 });
        runs.handed_over(&model);
        let page = page(&metrics);
        let session = ":tensorflow:serving:batching_session:";
        for line in [
            "queuing_latency_bucket{thread_pool_name=\"\",le=\"100\"} 0",
            "queuing_latency_bucket{thread_pool_name=\"\",le=\"172.8\"} 1",
            "queuing_latency_bucket{thread_pool_name=\"\",le=\"1.09205e+06\"} 1",
            "queuing_latency_count{thread_pool_name=\"\"} 1",
            "wrapped_run_count{} 1",
            "padding_size_bucket{execution_batch_size=\"8\",le=\"1\"} 0",
            "padding_size_bucket{execution_batch_size=\"8\",le=\"8192\"} 1",
            "padding_size_sum{execution_batch_size=\"8\"} 2",
            "input_batch_size_count{} 2",
            "input_batch_size_sum{} 6",
            "processed_batch_size_bucket{le=\"4\"} 0",
            "processed_batch_size_sum{} 8",
        ] {
            assert!(page.contains(&format!("{session}{line}\n")), "{line} is not in {page}");
        }
        for line in [
            "vesta_queue_wait_seconds_count{model_name=\"m\"} 2",
            "vesta_batch_fill_ratio_bucket{model_name=\"m\",le=\"0.5\"} 1",
            "vesta_batch_fill_ratio_bucket{model_name=\"m\",le=\"0.4\"} 0",
            "vesta_batch_requests_sum{model_name=\"m\"} 2",
        ] {
            assert!(page.contains(&format!("{line}\n")), "{line} is not in {page}");
        }
        let limits = page.lines().filter(|line| line.contains("queuing_latency_bucket")).count();
        assert_eq!(limits, 53);
        assert!(RunMetrics::new(&metrics).is_err(), "once for each page");
    }

    #[test]
    fn sizes_are_bounded() {
        let metrics = Metrics::new().unwrap();
        let runs = RunMetrics::new(&metrics).unwrap();
        let model = ModelName::from("m");
        for rows in 0..super::super::NAMES_MAX + 5 {
            runs.formed(&model, FormedBatch { requests: 1, rows, padding_rows: 0, rows_max: 9 });
        }
        assert!(page(&metrics).contains("padding_size_count{execution_batch_size=\"\"} 5\n"));
    }
}

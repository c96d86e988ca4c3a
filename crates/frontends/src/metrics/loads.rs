//! Metrics of loads, and of versions by what they carry.
//!
//! Owns: their names and labels, most of them TensorFlow's own. May not know: how a version is loaded.

use std::collections::HashSet;
use std::sync::RwLock;
use std::time::Duration;

use prometheus::proto::MetricType;
use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

use super::{Metrics, is_admitted, label_of, micros};

const ATTEMPTS: &str = ":tensorflow:cc:saved_model:load_attempt_count";
const LATENCY: &str = ":tensorflow:cc:saved_model:load_latency";
const MLMD: &str = ":tensorflow:serving:mlmd_map";

/// Distinct folders are bounded as names are: versions come and go for as long as the server lives.
pub(super) struct Loads {
    paths: RwLock<HashSet<Box<str>>>,
    attempts: IntCounterVec,
    latency: IntCounterVec,
    mlmd: IntGaugeVec,
}

impl Loads {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Loads> {
        let loads = Loads {
            paths: RwLock::default(),
            attempts: IntCounterVec::new(
                Opts::new(ATTEMPTS, "tries to load a version, by outcome"),
                &["model_path", "status"],
            )?,
            latency: IntCounterVec::new(
                Opts::new(LATENCY, "microseconds of tries that went well"),
                &["model_path"],
            )?,
            mlmd: IntGaugeVec::new(
                Opts::new(MLMD, "versions that name their record in ML Metadata"),
                &["model_name", "version", "mlmd_uuid"],
            )?,
        };
        registry.register(Box::new(loads.attempts.clone()))?;
        registry.register(Box::new(loads.latency.clone()))?;
        registry.register(Box::new(loads.mlmd.clone()))?;
        Ok(loads)
    }

    pub(super) fn declare(metrics: &Metrics) {
        metrics.declare(ATTEMPTS, MetricType::COUNTER);
        metrics.declare(LATENCY, MetricType::COUNTER);
        metrics.declare(MLMD, MetricType::GAUGE);
    }
}

impl Metrics {
    /// Counts one try to load the version in the folder `model_path`.
    pub fn loaded(&self, model_path: &str, succeeded: bool, time: Duration) {
        let loads = &self.inner.loads;
        let path = label_of(&loads.paths, model_path);
        let status = if succeeded { "success" } else { "fail" };
        loads.attempts.with_label_values(&[path, status]).inc();
        if succeeded {
            let micros = micros(time) as u64;
            loads.latency.with_label_values(&[path]).inc_by(micros);
        }
    }

    /// Tells which record in ML Metadata a version says it is described by.
    pub fn described_by(&self, model: &str, version: i64, mlmd_uuid: &str) {
        let version = version.to_string();
        let all = format!("{model} {version} {mlmd_uuid}");
        if is_admitted(&self.inner.loads.paths, &all) {
            self.inner.loads.mlmd.with_label_values(&[model, &version, mlmd_uuid]).set(1);
        }
    }
}

//! A server with the fake engine, and the words that the tests use.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use vesta_model::{Label, ModelName, ModelSpec, Shape, Status, Tensor, Version, VersionChoice};
use vesta_serving::{
    Aspired, AspiredVersionPolicy, Edition, InferRequest, Lease, Phase, Serving, ServingOptions,
};

use crate::fake::FakeEngine;

/// How long anything may take that a test waits for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct World {
    pub(crate) engine: FakeEngine,
    pub(crate) serving: Serving,
}

pub(crate) fn options() -> ServingOptions {
    ServingOptions {
        load_threads: 2,
        unload_threads: 2,
        run_threads: 2,
        queue_runs_max: 100,
        load_retries_max: 0,
        load_retry_interval: Duration::from_millis(30),
        engine_threads: 1,
        policy: AspiredVersionPolicy::default(),
    }
}

impl World {
    pub(crate) fn new() -> World {
        World::with(options())
    }

    pub(crate) fn with(options: ServingOptions) -> World {
        let engine = FakeEngine::default();
        let serving = Serving::start(Arc::new(engine.clone()), options).unwrap();
        World { engine, serving }
    }

    /// Aspires these versions of `model`.
    pub(crate) fn want(&self, model: &str, versions: &[i64]) {
        let wanted = versions.iter().map(|&version| aspired(model, version)).collect();
        self.serving.aspire(&model.into(), wanted);
    }

    /// Aspires these versions and waits until each serves and nothing else does.
    pub(crate) fn serve(&self, model: &str, versions: &[i64]) {
        self.want(model, versions);
        eventually(|| self.available(model) == versions);
    }

    pub(crate) fn phase(&self, model: &str, version: i64) -> Option<Phase> {
        let shown = self.serving.status(model, Some(Version(version))).ok()?;
        Some(shown[0].phase)
    }

    pub(crate) fn error(&self, model: &str, version: i64) -> Option<Status> {
        self.serving.status(model, Some(Version(version))).unwrap()[0].error.clone()
    }

    pub(crate) fn await_phase(&self, model: &str, version: i64, phase: Phase) {
        eventually(|| self.phase(model, version) == Some(phase));
    }

    /// Available versions, oldest first.
    pub(crate) fn available(&self, model: &str) -> Vec<i64> {
        let all = self.serving.status(model, None).unwrap_or_default();
        let available = all.iter().rev().filter(|shown| shown.phase == Phase::Available);
        available.map(|shown| shown.version.0).collect()
    }

    pub(crate) fn lease(&self, model: &str) -> Result<Lease, Status> {
        self.serving.resolve(&ModelSpec::latest(model))
    }

    pub(crate) fn lease_of(&self, model: &str, version: i64) -> Result<Lease, Status> {
        let choice = VersionChoice::Version(Version(version));
        self.serving.resolve(&ModelSpec { name: model.into(), choice })
    }

    pub(crate) fn lease_by_label(&self, model: &str, label: &str) -> Result<Lease, Status> {
        let choice = VersionChoice::Label(label.into());
        self.serving.resolve(&ModelSpec { name: model.into(), choice })
    }
}

pub(crate) fn aspired(model: &str, version: i64) -> Aspired {
    aspired_at(version, &format!("/models/{model}/{version}"))
}

pub(crate) fn aspired_at(version: i64, path: &str) -> Aspired {
    Aspired {
        version: Version(version),
        artifact: Ok(PathBuf::from(path)),
        tags: vec!["serve".to_owned()],
        edition: None,
    }
}

/// The same with the state of its files.
pub(crate) fn aspired_in_edition(model: &str, version: i64, edition: u64) -> Aspired {
    Aspired { edition: Some(Edition(edition)), ..aspired(model, version) }
}

pub(crate) fn labels(all: &[(&str, &str, i64)]) -> BTreeMap<ModelName, BTreeMap<Label, Version>> {
    let mut labels: BTreeMap<ModelName, BTreeMap<Label, Version>> = BTreeMap::new();
    for &(model, label, version) in all {
        labels.entry(model.into()).or_default().insert(label.into(), Version(version));
    }
    labels
}

/// A request for `y` of these values.
pub(crate) fn halve(values: &[f32]) -> InferRequest {
    InferRequest {
        signature: "serving_default".to_owned(),
        inputs: vec![Tensor::of(Shape::vector(values.len()), values).unwrap()],
        outputs: vec![0],
        deadline: None,
    }
}

/// Runs `x = 1` and gives `y`.
pub(crate) async fn ask(lease: &Lease) -> Result<f32, Status> {
    let outputs = lease.infer(halve(&[1.0])).await?;
    Ok(outputs[0].to_vec::<f32>().unwrap()[0])
}

/// Waits until `condition` holds.
#[track_caller]
pub(crate) fn eventually(condition: impl Fn() -> bool) {
    let since = Instant::now();
    while !condition() {
        assert!(since.elapsed() < PATIENCE, "this never came true");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Lets a request go as far as it gets at once, which is into its lane.
pub(crate) async fn begun<F: Future>(request: F) -> Pin<Box<F>> {
    let mut request = Box::pin(request);
    poll_fn(|cx| {
        assert!(request.as_mut().poll(cx).is_pending(), "the request does not wait");
        Poll::Ready(())
    })
    .await;
    request
}

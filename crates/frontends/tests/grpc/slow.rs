//! An engine whose runs take as long as they are told.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use vesta_model::{
    DType, Engine, EngineIdentity, LoadRequest, ModelDescription, ModelName, Run, RunRequest,
    Session, Signature, Status, Tensor, TensorSpec, Version,
};
use vesta_serving::{Aspired, Serving, ServingOptions};

/// Runs wait until the gate is open.
#[derive(Default)]
pub(crate) struct Gate {
    closed: Mutex<()>,
    pub(crate) runs: AtomicUsize,
}

impl Gate {
    /// Closes it until the guard is dropped.
    pub(crate) fn close(&self) -> std::sync::MutexGuard<'_, ()> {
        self.closed.lock().unwrap()
    }
}

struct Gated(Arc<Gate>);

struct Loaded {
    gate: Arc<Gate>,
    description: ModelDescription,
}

struct Prepared {
    gate: Arc<Gate>,
    request: RunRequest,
    input: Vec<u8>,
}

impl Engine for Gated {
    fn identity(&self) -> EngineIdentity {
        EngineIdentity { name: "gated".into(), version: "1".into() }
    }

    fn load(&self, _: &LoadRequest) -> Result<Arc<dyn Session>, Status> {
        let spec = |alias| vec![TensorSpec::dense(alias, DType::F32)];
        let signature = Signature::new("serving_default", "", spec("x"), spec("y"));
        let signatures = [(signature.name.clone(), Arc::new(signature))].into();
        let description = ModelDescription { signatures };
        Ok(Arc::new(Loaded { gate: Arc::clone(&self.0), description }))
    }
}

impl Session for Loaded {
    fn description(&self) -> &ModelDescription {
        &self.description
    }

    fn prepare(&self, request: &RunRequest) -> Result<Box<dyn Run>, Status> {
        let input = vec![0; request.inputs[0].shape.bytes(4)?];
        Ok(Box::new(Prepared { gate: Arc::clone(&self.gate), request: request.clone(), input }))
    }
}

impl Run for Prepared {
    fn input(&mut self, _: usize) -> &mut [u8] {
        &mut self.input
    }

    fn run(self: Box<Self>, _: Option<Instant>) -> Result<Vec<Tensor>, Status> {
        self.gate.runs.fetch_add(1, Ordering::SeqCst);
        drop(self.gate.closed.lock().unwrap());
        let shape = self.request.inputs[0].shape.clone();
        Ok(vec![Tensor::whole(DType::F32, shape, Arc::new(self.input))?])
    }
}

/// The model `m`, one run at a time.
pub(crate) async fn serve_gated(gate: Arc<Gate>) -> Serving {
    let options = ServingOptions {
        load_threads: 1,
        unload_threads: 1,
        run_threads: 1,
        queue_runs_max: 100,
        load_retries_max: 0,
        load_retry_interval: Duration::from_secs(1),
        engine_threads: 1,
        policy: Default::default(),
    };
    let serving = Serving::start(Arc::new(Gated(gate)), options).unwrap();
    let model = ModelName::from("m");
    let artifact = Ok(PathBuf::from("/models/m/1"));
    serving.aspire(
        &model,
        vec![Aspired { version: Version(1), artifact, tags: Vec::new(), edition: None }],
    );
    assert_eq!(serving.settled(std::slice::from_ref(&model)).await, []);
    serving
}

//! An engine whose loads, runs and unloads can be held, made to fail, and are written down.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use vesta_model::{
    AlignedBytes, BatchingParameters, DType, Engine, EngineIdentity, HealthListener, LoadRequest,
    Memory, ModelDescription, Run, RunRequest, Session, SessionHealth, Shape, Signature, Status,
    Tensor, TensorSpec, strings_byte_len,
};

/// A door that callers wait at while it is shut.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<(bool, usize)>, Condvar)>);

impl Gate {
    pub(crate) fn shut(&self) {
        self.0.0.lock().unwrap().0 = true;
    }

    pub(crate) fn open(&self) {
        self.0.0.lock().unwrap().0 = false;
        self.0.1.notify_all();
    }

    /// How many wait there now.
    pub(crate) fn waiting(&self) -> usize {
        self.0.0.lock().unwrap().1
    }

    fn pass(&self) {
        let mut state = self.0.0.lock().unwrap();
        state.1 += 1;
        while state.0 {
            state = self.0.1.wait(state).unwrap();
        }
        state.1 -= 1;
    }
}

/// What the tests steer for one model or version, by `m` or `m:1`.
#[derive(Clone, Default)]
pub(crate) struct Script {
    pub(crate) load: Gate,
    pub(crate) run: Gate,
    pub(crate) unload: Gate,
    /// What the next loads fail with, in order; after that they succeed.
    pub(crate) failures: Arc<Mutex<Vec<Status>>>,
    /// How long each run takes.
    pub(crate) run_takes: Arc<Mutex<Duration>>,
    /// Whether runs give no outputs at all.
    pub(crate) mute: Arc<Mutex<bool>>,
    /// How the sessions to come batch.
    pub(crate) batching: Arc<Mutex<Option<BatchingParameters>>>,
    /// The rows of each run of a signature with a first dimension, in order.
    pub(crate) rows_run: Arc<Mutex<Vec<usize>>>,
    /// How the sessions are doing, and who hears of it.
    health: Arc<Mutex<(Option<SessionHealth>, Vec<HealthListener>)>>,
}

impl Script {
    /// Lets sessions to come be like that, and tells nobody.
    pub(crate) fn come_up_as(&self, health: SessionHealth) {
        self.health.lock().unwrap().0 = Some(health);
    }

    /// Lets the sessions of this version be like that from now on, those to come as well.
    pub(crate) fn be(&self, health: SessionHealth) {
        let mut state = self.health.lock().unwrap();
        for listener in &state.1 {
            listener(health.clone());
        }
        state.0 = Some(health);
    }
}

/// What in `x` makes a run fail.
pub(crate) const BAD: f32 = -99.0;

/// The engine. `y` of the signature `serving_default` is half of `x` plus the version's number; a
/// NaN in `x` makes it panic, [`BAD`] is an invalid argument. `pair` gives back its inputs. `count` is
/// stateful: `n` is how often it was run, for each row of `x`. `odd` gives one row too many, `total`
/// a scalar.
#[derive(Clone, Default)]
pub(crate) struct FakeEngine {
    scripts: Arc<Mutex<HashMap<String, Script>>>,
    log: Arc<Mutex<Vec<String>>>,
    unload_threads: Arc<Mutex<Vec<String>>>,
}

impl FakeEngine {
    /// The script of a version, such as `m:1`.
    pub(crate) fn script(&self, id: &str) -> Script {
        self.scripts.lock().unwrap().entry(id.to_owned()).or_default().clone()
    }

    /// Everything that happened: `load m:1 /path`, `loaded m:1`, `run m:1`, `unload m:1`,
    /// `unloaded m:1`.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// How often this was written down.
    pub(crate) fn count(&self, line: &str) -> usize {
        self.log().iter().filter(|logged| logged.starts_with(line)).count()
    }

    /// The names of the threads that unloaded.
    pub(crate) fn unload_threads(&self) -> Vec<String> {
        self.unload_threads.lock().unwrap().clone()
    }

    fn note(&self, line: String) {
        self.log.lock().unwrap().push(line);
    }
}

impl Engine for FakeEngine {
    fn identity(&self) -> EngineIdentity {
        EngineIdentity { name: "fake".to_owned(), version: "1".to_owned() }
    }

    fn load(&self, request: &LoadRequest) -> Result<Arc<dyn Session>, Status> {
        let id = format!("{}:{}", request.model, request.version);
        let script = self.script(&id);
        self.note(format!("load {id} {}", request.artifact.display()));
        script.load.pass();
        if request.artifact.as_os_str() == "/panic" {
            panic!("this load panics");
        }
        let mut failures = script.failures.lock().unwrap();
        if !failures.is_empty() {
            return Err(failures.remove(0));
        }
        drop(failures);
        self.note(format!("loaded {id}"));
        let add = request.version.0 as f32;
        let description = ModelDescription { signatures: signatures() };
        let batching = script.batching.lock().unwrap().clone();
        let (engine, runs) = (self.clone(), Arc::default());
        Ok(Arc::new(FakeSession { id, add, script, engine, description, batching, runs }))
    }
}

fn signatures() -> BTreeMap<String, Arc<Signature>> {
    let dense = TensorSpec::dense;
    let signatures = [
        Signature::new(
            "serving_default",
            "tensorflow/serving/predict",
            vec![dense("x", DType::F32)],
            vec![dense("y", DType::F32)],
        ),
        Signature::new(
            "pair",
            "",
            vec![dense("a", DType::I64), dense("b", DType::String)],
            vec![dense("a", DType::I64), dense("b", DType::String)],
        ),
        Signature::new(
            "many",
            "",
            vec![dense("x", DType::F32)],
            ["a", "b", "c", "d", "e", "f", "g"].map(|name| dense(name, DType::F32)).into(),
        ),
        Signature::new("odd", "", vec![dense("x", DType::F32)], vec![dense("y", DType::F32)]),
        Signature::new("total", "", vec![dense("x", DType::F32)], vec![dense("y", DType::F32)]),
        Signature::new("none", "", vec![], vec![dense("y", DType::F32)]),
        Signature {
            stateful: true,
            ..Signature::new(
                "count",
                "",
                vec![dense("x", DType::F32)],
                vec![dense("n", DType::F32)],
            )
        },
    ];
    signatures.into_iter().map(|signature| (signature.name.clone(), Arc::new(signature))).collect()
}

struct FakeSession {
    id: String,
    add: f32,
    script: Script,
    engine: FakeEngine,
    description: ModelDescription,
    batching: Option<BatchingParameters>,
    /// Runs of `count`.
    runs: Arc<AtomicUsize>,
}

struct FakeRun {
    id: String,
    add: f32,
    script: Script,
    engine: FakeEngine,
    request: RunRequest,
    inputs: Vec<(DType, AlignedBytes)>,
    runs: Arc<AtomicUsize>,
}

impl Session for FakeSession {
    fn description(&self) -> &ModelDescription {
        &self.description
    }

    fn prepare(&self, request: &RunRequest) -> Result<Box<dyn Run>, Status> {
        let signature = &self.description.signatures[&request.signature];
        let inputs = signature
            .inputs
            .iter()
            .zip(&request.inputs)
            .map(|(spec, layout)| {
                let bytes = match spec.dtype.width() {
                    Some(width) => layout.shape.bytes(width).unwrap(),
                    None => strings_byte_len(layout.shape.elements(), layout.string_bytes).unwrap(),
                };
                (spec.dtype, AlignedBytes::zeroed(bytes))
            })
            .collect();
        Ok(Box::new(FakeRun {
            id: self.id.clone(),
            add: self.add,
            script: self.script.clone(),
            engine: self.engine.clone(),
            request: request.clone(),
            inputs,
            runs: Arc::clone(&self.runs),
        }))
    }

    fn batching(&self) -> Option<&BatchingParameters> {
        self.batching.as_ref()
    }

    fn watch(&self, listener: HealthListener) -> SessionHealth {
        let mut state = self.script.health.lock().unwrap();
        state.1.push(listener);
        state.0.clone().unwrap_or(SessionHealth::Serving)
    }
}

impl Drop for FakeSession {
    fn drop(&mut self) {
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        self.engine.unload_threads.lock().unwrap().push(thread);
        self.engine.note(format!("unload {}", self.id));
        self.script.unload.pass();
        self.engine.note(format!("unloaded {}", self.id));
    }
}

impl FakeRun {
    fn tensor(&self, index: usize) -> Tensor {
        let (dtype, memory) = &self.inputs[index];
        let shape: Shape = self.request.inputs[index].shape.clone();
        Tensor::copied(*dtype, shape, memory.bytes()).unwrap()
    }
}

impl Run for FakeRun {
    fn input(&mut self, index: usize) -> &mut [u8] {
        self.inputs[index].1.bytes_mut()
    }

    fn run(self: Box<Self>, _deadline: Option<Instant>) -> Result<Vec<Tensor>, Status> {
        self.engine.note(format!("run {}", self.id));
        self.script.run.pass();
        std::thread::sleep(*self.script.run_takes.lock().unwrap());
        if *self.script.mute.lock().unwrap() {
            return Ok(Vec::new());
        }
        let rows = self.request.inputs.first().and_then(|x| x.shape.dims().first().copied());
        self.script.rows_run.lock().unwrap().extend(rows);
        if self.request.signature == "pair" {
            return Ok(self.request.outputs.iter().map(|&index| self.tensor(index)).collect());
        }
        if self.request.signature == "none" {
            return Ok(vec![Tensor::of(Shape::vector(1), &[0f32])?]);
        }
        let x = self.tensor(0);
        let values = x.to_vec::<f32>().unwrap();
        match self.request.signature.as_str() {
            "odd" => {
                let y = vec![0f32; values.len() + 1];
                return Ok(vec![Tensor::of(Shape::vector(y.len()), &y)?]);
            }
            "total" => {
                return Ok(vec![Tensor::of(Shape::scalar(), &[values.iter().sum::<f32>()])?]);
            }
            "many" => return Ok(vec![x; self.request.outputs.len()]),
            "count" => {
                let run = self.runs.fetch_add(1, Ordering::Relaxed) + 1;
                return Ok(vec![Tensor::of(x.shape().clone(), &vec![run as f32; values.len()])?]);
            }
            _ => {}
        }
        if values.contains(&BAD) {
            return Err(Status::invalid_argument("x is bad"));
        }
        if values.iter().any(|value| value.is_nan()) {
            panic!("this run panics");
        }
        let y: Vec<f32> = values.iter().map(|value| value / 2.0 + self.add).collect();
        Ok(vec![Tensor::of(x.shape().clone(), &y)?])
    }
}

//! An engine that computes little and misbehaves as its file says.
//!
//! Owns the fake models. Knows nothing of processes; inside a worker it is told the socket, so that
//! it can write garbage to it.
//! Invariant: a fake model's answers are exact, so that a wrong row cannot be taken for rounding.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tempfile::TempDir;
use vesta_model::{
    AlignedBytes, DType, Engine, EngineIdentity, LoadRequest, Memory, ModelDescription,
    PartialShape, Run, RunRequest, Session, Shape, Signature, Status, Tensor, TensorSpec, Version,
    strings_byte_len,
};

use crate::script::{Model, Script};

/// The fake engine. A model is a directory with a file `fake.txt`; see [`FakeArtifact`].
#[derive(Debug, Default)]
pub struct FakeEngine {
    socket: Option<Arc<OwnedFd>>,
}

/// A fake model in a directory of its own, removed when dropped.
///
/// The script has one directive per line: `model NAME` with one of
/// - `half_plus_two`: `x` float of any shape to `y = x / 2 + 2`,
/// - `string_identity`: `text` to the same,
/// - `sum_and_difference`: `a` and `b` float to `difference = a - b` and `sum = a + b`,
/// - `counter`: no input, stateful; `count` int64 scalar, 1 at the first run of a session,
/// - `spread`: `n` int64 scalar to `ones`, n uint8 elements of 1;
///
/// `on load FAULT [once]` and `on run FAULT [once]` with one of `sleep MS`, `hang`, `panic`,
/// `abort`, `kill`, `exit STATUS`, `garbage`, `error CODE TEXT`; and `keep inputs`.
#[derive(Debug)]
pub struct FakeArtifact {
    dir: TempDir,
    name: String,
}

struct FakeSession {
    script: Script,
    description: ModelDescription,
    socket: Option<Arc<OwnedFd>>,
    count: AtomicI64,
    kept: Mutex<Vec<Tensor>>,
}

struct FakeRun {
    session: Arc<FakeSession>,
    request: RunRequest,
    inputs: Vec<AlignedBytes>,
}

/// What the trait object holds, so that runs can keep the session alive.
struct FakeHandle(Arc<FakeSession>);

impl FakeEngine {
    /// A fake engine.
    pub fn new() -> FakeEngine {
        FakeEngine::default()
    }

    /// A fake engine in a worker whose socket this is.
    pub fn with_socket(socket: OwnedFd) -> FakeEngine {
        FakeEngine { socket: Some(Arc::new(socket)) }
    }

    /// What fake engines are called.
    pub fn fake_identity() -> EngineIdentity {
        EngineIdentity { name: "fake".to_owned(), version: "1".to_owned() }
    }
}

impl FakeArtifact {
    /// A model called `name` with this script.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn new(name: &str, script: &str) -> std::io::Result<FakeArtifact> {
        let dir = tempfile::tempdir()?;
        std::fs::write(dir.path().join("fake.txt"), script)?;
        Ok(FakeArtifact { dir, name: name.to_owned() })
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The request that loads it as version 1.
    pub fn request(&self) -> LoadRequest {
        LoadRequest {
            model: self.name.as_str().into(),
            version: Version(1),
            artifact: self.dir.path().to_owned(),
            tags: vec!["serve".to_owned()],
            threads: 1,
        }
    }
}

impl Engine for FakeEngine {
    fn identity(&self) -> EngineIdentity {
        FakeEngine::fake_identity()
    }

    fn load(&self, request: &LoadRequest) -> Result<Arc<dyn Session>, Status> {
        let file = request.artifact.join("fake.txt");
        let text = std::fs::read_to_string(&file).map_err(|error| {
            Status::not_found(format!("{} cannot be read", file.display())).with_cause(error)
        })?;
        let script = Script::parse(&text, &request.artifact)?;
        for planned in &script.on_load {
            planned.happen(self.socket.as_deref())?;
        }
        let description = describe(script.model);
        Ok(Arc::new(FakeHandle(Arc::new(FakeSession {
            script,
            description,
            socket: self.socket.clone(),
            count: AtomicI64::new(0),
            kept: Mutex::default(),
        }))))
    }
}

impl Session for FakeHandle {
    fn description(&self) -> &ModelDescription {
        &self.0.description
    }

    fn prepare(&self, request: &RunRequest) -> Result<Box<dyn Run>, Status> {
        let signature = self.0.signature(request)?;
        let inputs = signature
            .inputs
            .iter()
            .zip(&request.inputs)
            .map(|(spec, layout)| {
                let bytes = match spec.dtype.width() {
                    Some(width) => layout.shape.bytes(width)?,
                    None => strings_byte_len(layout.shape.elements(), layout.string_bytes)
                        .ok_or_else(|| Status::invalid_argument("too many strings"))?,
                };
                Ok(AlignedBytes::zeroed(bytes))
            })
            .collect::<Result<_, Status>>()?;
        Ok(Box::new(FakeRun { session: Arc::clone(&self.0), request: request.clone(), inputs }))
    }

    fn run_over(
        &self,
        request: &RunRequest,
        inputs: Vec<Tensor>,
        deadline: Option<Instant>,
    ) -> Result<Vec<Tensor>, Status> {
        let signature = self.0.signature(request)?;
        let laid_out = inputs.len() == signature.inputs.len()
            && inputs.iter().zip(signature.inputs.iter().zip(&request.inputs)).all(
                |(input, (spec, layout))| {
                    input.dtype() == spec.dtype && *input.shape() == layout.shape
                },
            );
        if !laid_out {
            return Err(Status::invalid_argument("the inputs are not those of the request"));
        }
        self.0.run(request, &inputs, deadline)
    }
}

impl Run for FakeRun {
    fn input(&mut self, index: usize) -> &mut [u8] {
        self.inputs.get_mut(index).map(AlignedBytes::bytes_mut).unwrap_or_default()
    }

    fn run(self: Box<Self>, deadline: Option<Instant>) -> Result<Vec<Tensor>, Status> {
        let signature = self.session.signature(&self.request)?;
        let specs = signature.inputs.iter().zip(&self.request.inputs);
        let inputs = specs
            .zip(self.inputs)
            .map(|((spec, layout), memory)| {
                let memory: Arc<dyn Memory> = Arc::new(memory);
                Tensor::whole(spec.dtype, layout.shape.clone(), memory)
            })
            .collect::<Result<Vec<_>, _>>()?;
        self.session.run(&self.request, &inputs, deadline)
    }
}

impl FakeSession {
    fn signature(&self, request: &RunRequest) -> Result<&Signature, Status> {
        let signature = self.description.signatures.get(&request.signature).ok_or_else(|| {
            Status::not_found(format!("there is no signature `{}`", request.signature))
        })?;
        if request.inputs.len() != signature.inputs.len()
            || request.outputs.iter().any(|&index| index >= signature.outputs.len())
        {
            return Err(Status::invalid_argument("inputs or outputs are not the signature's"));
        }
        Ok(signature)
    }

    fn run(
        &self,
        request: &RunRequest,
        inputs: &[Tensor],
        deadline: Option<Instant>,
    ) -> Result<Vec<Tensor>, Status> {
        let late = || match deadline {
            Some(deadline) if deadline <= Instant::now() => {
                Err(Status::deadline_exceeded("the deadline passed"))
            }
            _ => Ok(()),
        };
        late()?;
        for planned in &self.script.on_run {
            planned.happen(self.socket.as_deref())?;
        }
        if self.script.keeps_inputs {
            self.kept.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(inputs);
        }
        let outputs = self.compute(inputs)?;
        late()?;
        let wanted = request.outputs.iter().filter_map(|&index| outputs.get(index).cloned());
        Ok(wanted.collect())
    }

    /// All outputs, in the order of their aliases.
    fn compute(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, Status> {
        match self.script.model {
            Model::HalfPlusTwo => Ok(vec![map(inputs, 0, |x| x / 2.0 + 2.0)?]),
            Model::StringIdentity => Ok(inputs.to_vec()),
            Model::SumAndDifference => {
                let [a, b] = inputs else { return Err(Status::internal("two inputs are needed")) };
                if a.shape() != b.shape() {
                    return Err(Status::invalid_argument("a and b must be of one shape"));
                }
                let (a, b) = (values(a)?, values(b)?);
                let zip = |f: fn(f32, f32) -> f32| -> Vec<f32> {
                    a.iter().zip(&b).map(|(&a, &b)| f(a, b)).collect()
                };
                let shape = || inputs[0].shape().clone();
                Ok(vec![
                    Tensor::of(shape(), &zip(|a, b| a - b))?,
                    Tensor::of(shape(), &zip(|a, b| a + b))?,
                ])
            }
            Model::Counter => {
                let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
                Ok(vec![Tensor::of(Shape::scalar(), &[count])?])
            }
            Model::Spread => {
                let n = inputs.first().and_then(|n| n.to_vec::<i64>()).unwrap_or_default();
                let n = n.first().and_then(|&n| usize::try_from(n).ok()).unwrap_or(0);
                Ok(vec![Tensor::of(Shape::vector(n), &vec![1u8; n])?])
            }
        }
    }
}

fn map(inputs: &[Tensor], index: usize, f: fn(f32) -> f32) -> Result<Tensor, Status> {
    let input = inputs.get(index).ok_or_else(|| Status::internal("an input is missing"))?;
    let mapped: Vec<f32> = values(input)?.into_iter().map(f).collect();
    Tensor::of(input.shape().clone(), &mapped)
}

fn values(tensor: &Tensor) -> Result<Vec<f32>, Status> {
    tensor.to_vec::<f32>().ok_or_else(|| Status::invalid_argument("the input must be float"))
}

fn describe(model: Model) -> ModelDescription {
    let float =
        |alias| TensorSpec::dense(alias, DType::F32).with_shape(PartialShape::Ranked(vec![None]));
    let of = |alias, dtype, dims: Vec<Option<usize>>| {
        TensorSpec::dense(alias, dtype).with_shape(PartialShape::Ranked(dims))
    };
    let (inputs, outputs, stateful) = match model {
        Model::HalfPlusTwo => (vec![float("x")], vec![float("y")], false),
        Model::StringIdentity => {
            let text = || of("text", DType::String, vec![None]);
            (vec![text()], vec![text()], false)
        }
        Model::SumAndDifference => {
            (vec![float("a"), float("b")], vec![float("sum"), float("difference")], false)
        }
        Model::Counter => (vec![], vec![of("count", DType::I64, vec![])], true),
        Model::Spread => {
            (vec![of("n", DType::I64, vec![])], vec![of("ones", DType::U8, vec![None])], false)
        }
    };
    let mut signature =
        Signature::new(Signature::DEFAULT_NAME, "tensorflow/serving/predict", inputs, outputs);
    signature.stateful = stateful;
    let signatures = BTreeMap::from([(Signature::DEFAULT_NAME.to_owned(), Arc::new(signature))]);
    ModelDescription { signatures }
}

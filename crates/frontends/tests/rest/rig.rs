//! A REST server in this process over an engine that is a few lines of Rust, with the models that
//! the recorded exchanges ask; and a client that shows every byte.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message as _;
use tokio::sync::oneshot;
use vesta_frontends::{Budget, METRICS_PATH, Metrics, RestOptions, serve_rest};
use vesta_model::{
    DType, Encoding, Engine, EngineIdentity, Label, LoadRequest, ModelDescription, ModelName,
    PartialShape, Run, RunRequest, Session, Shape, Signature, Status, StringsBuilder, Tensor,
    TensorSpec, Version,
};
use vesta_protos::tensorflow::{Example, feature};
use vesta_serving::{Aspired, Serving, ServingOptions};

pub(crate) type Compute = fn(&str, &[Tensor]) -> Result<Vec<Tensor>, Status>;

pub(crate) struct FewLines;

struct Loaded {
    description: ModelDescription,
    compute: Compute,
}

struct Prepared {
    compute: Compute,
    request: RunRequest,
    dtypes: Vec<DType>,
    inputs: Vec<Vec<u8>>,
}

impl Engine for FewLines {
    fn identity(&self) -> EngineIdentity {
        EngineIdentity { name: "few-lines".into(), version: "1".into() }
    }

    fn load(&self, request: &LoadRequest) -> Result<Arc<dyn Session>, Status> {
        let (signatures, compute) = model(request.model.as_str(), request.version);
        let signatures = signatures
            .into_iter()
            .map(|s| (s.name.clone(), Arc::new(s)))
            .collect::<BTreeMap<_, _>>();
        Ok(Arc::new(Loaded { description: ModelDescription { signatures }, compute }))
    }
}

impl Session for Loaded {
    fn description(&self) -> &ModelDescription {
        &self.description
    }

    fn prepare(&self, request: &RunRequest) -> Result<Box<dyn Run>, Status> {
        let signature = &self.description.signatures[&request.signature];
        let dtypes: Vec<DType> = signature.inputs.iter().map(|spec| spec.dtype).collect();
        let inputs = dtypes
            .iter()
            .zip(&request.inputs)
            .map(|(dtype, layout)| match dtype.width() {
                Some(width) => vec![0; layout.shape.bytes(width).unwrap()],
                None => vec![0; (layout.shape.elements() + 1) * 8 + layout.string_bytes],
            })
            .collect();
        let request = request.clone();
        Ok(Box::new(Prepared { compute: self.compute, request, dtypes, inputs }))
    }
}

impl Run for Prepared {
    fn input(&mut self, index: usize) -> &mut [u8] {
        &mut self.inputs[index]
    }

    fn run(self: Box<Self>, _: Option<Instant>) -> Result<Vec<Tensor>, Status> {
        let layouts = self.request.inputs.into_iter().zip(self.dtypes).zip(self.inputs);
        let inputs: Vec<Tensor> = layouts
            .map(|((layout, dtype), bytes)| {
                Tensor::whole(dtype, layout.shape, Arc::new(bytes)).unwrap()
            })
            .collect();
        let outputs = (self.compute)(&self.request.signature, &inputs)?;
        Ok(self.request.outputs.iter().map(|&i| outputs[i].clone()).collect())
    }
}

fn spec(alias: &str, tensor: &str, dtype: DType, dims: Option<&[i64]>) -> TensorSpec {
    let shape = match dims {
        None => PartialShape::Unknown,
        Some(dims) => {
            PartialShape::Ranked(dims.iter().map(|&dim| usize::try_from(dim).ok()).collect())
        }
    };
    let mut spec = TensorSpec::dense(alias, dtype).with_shape(shape);
    spec.encoding = Encoding::Dense(tensor.to_owned());
    spec
}

const PREDICT: &str = "tensorflow/serving/predict";

fn init_op() -> Signature {
    let output = spec("__saved_model_init_op", "NoOp", DType::Invalid, None);
    Signature::new("__saved_model_init_op", "", Vec::new(), vec![output])
}

/// One input, one output, as TensorFlow 2 writes them.
fn plain(input: &str, output: &str, dtype: DType, dims: Option<&[i64]>) -> Vec<Signature> {
    let x = spec(input, &format!("serving_default_{input}:0"), dtype, dims);
    let y = spec(output, "StatefulPartitionedCall:0", dtype, dims);
    vec![Signature::new("serving_default", PREDICT, vec![x], vec![y]), init_op()]
}

fn map(tensor: &Tensor, f: impl Fn(f32) -> f32) -> Tensor {
    let values: Vec<f32> = tensor.to_vec::<f32>().unwrap().into_iter().map(f).collect();
    Tensor::of(tensor.shape().clone(), &values).unwrap()
}

fn half_plus(tensor: &Tensor, add: f32) -> Vec<Tensor> {
    vec![map(tensor, |x| x / 2.0 + add)]
}

fn dtype_of(name: &str) -> Option<DType> {
    Some(match name.strip_prefix("id_")? {
        "float16" => DType::F16,
        "bfloat16" => DType::BF16,
        "float64" => DType::F64,
        other => *DType::ALL.iter().find(|dtype| dtype.name() == other)?,
    })
}

fn model(name: &str, version: Version) -> (Vec<Signature>, Compute) {
    let vector: Option<&[i64]> = Some(&[-1]);
    if let Some(dtype) = dtype_of(name) {
        return (plain("x", "y", dtype, vector), |_, inputs| Ok(inputs.to_vec()));
    }
    match (name, version.0) {
        ("versioned", 2) => {
            (plain("x", "y", DType::F32, vector), |_, inputs| Ok(half_plus(&inputs[0], 3.0)))
        }
        ("half_plus_two" | "versioned", _) => {
            (plain("x", "y", DType::F32, vector), |_, inputs| Ok(half_plus(&inputs[0], 2.0)))
        }
        ("scalar", _) => {
            (plain("x", "y", DType::F32, None), |_, inputs| Ok(vec![map(&inputs[0], |x| x + 1.0)]))
        }
        ("rank3", _) => (plain("x", "y", DType::F32, None), |_, inputs| Ok(inputs.to_vec())),
        ("err", _) => (plain("x", "y", DType::I32, vector), divide),
        ("mismatch", _) => {
            let x = spec("x", "x:0", DType::F32, vector);
            let outputs =
                vec![spec("y", "y:0", DType::F32, None), spec("z", "z:0", DType::F32, None)];
            (vec![Signature::new("serving_default", PREDICT, vec![x], outputs)], |_, inputs| {
                let sum = inputs[0].to_vec::<f32>().unwrap().iter().sum::<f32>();
                let first = Tensor::of(Shape::scalar(), &[sum]).unwrap();
                Ok(vec![first, inputs[0].clone()])
            })
        }
        ("multi", _) => (multi_signatures(), multi),
        ("strs", _) => {
            let s = spec("s", "serving_default_s:0", DType::String, vector);
            let outputs = vec![
                spec("len", "PartitionedCall:0", DType::I32, vector),
                spec("out", "PartitionedCall:1", DType::String, vector),
                spec("out_bytes", "PartitionedCall:2", DType::String, vector),
            ];
            let default = Signature::new("serving_default", PREDICT, vec![s], outputs);
            (vec![default, init_op()], strs)
        }
        ("strs1", _) => {
            (plain("s_bytes", "r_bytes", DType::String, vector), |_, inputs| Ok(inputs.to_vec()))
        }
        ("types", _) => (types_signatures(), types),
        ("estimator", _) => (estimator_signatures(), estimator),
        _ => panic!("no such model: {name}"),
    }
}

fn divide(_: &str, inputs: &[Tensor]) -> Result<Vec<Tensor>, Status> {
    let values = inputs[0].to_vec::<i32>().unwrap();
    if values.contains(&0) {
        return Err(Status::invalid_argument(
            "Integer division by zero\n\t [[{{function_node __inference_f_1652}}{{node floordiv}}]]",
        ));
    }
    let values: Vec<i32> = values.into_iter().map(|x| 10 / x).collect();
    Ok(vec![Tensor::of(inputs[0].shape().clone(), &values).unwrap()])
}

fn multi_signatures() -> Vec<Signature> {
    let matrix: Option<&[i64]> = Some(&[-1, 2]);
    let a = spec("a", "serving_default_a:0", DType::F32, matrix);
    let b = spec("b", "serving_default_b:0", DType::I64, Some(&[-1]));
    let outputs = vec![
        spec("mat", "PartitionedCall_1:0", DType::F32, Some(&[-1, 1, 2])),
        spec("sum", "PartitionedCall_1:1", DType::F32, Some(&[-1])),
        spec("twice", "PartitionedCall_1:2", DType::I64, Some(&[-1])),
    ];
    let neg_a = spec("a", "neg_sig_a:0", DType::F32, matrix);
    let neg = spec("neg", "PartitionedCall:0", DType::F32, matrix);
    vec![
        Signature::new("serving_default", PREDICT, vec![a, b], outputs),
        Signature::new("neg_sig", PREDICT, vec![neg_a], vec![neg]),
        init_op(),
    ]
}

fn multi(signature: &str, inputs: &[Tensor]) -> Result<Vec<Tensor>, Status> {
    let a = &inputs[0];
    if signature == "neg_sig" {
        return Ok(vec![map(a, |x| -x)]);
    }
    let (rows, columns) = (a.shape().dims()[0], a.shape().dims()[1]);
    let values = a.to_vec::<f32>().unwrap();
    let b = inputs[1].to_vec::<i64>().unwrap();
    // As broadcasting does, one row of sums meets all of b.
    let sums: Vec<f32> = b
        .iter()
        .enumerate()
        .map(|(i, b)| {
            let row = i.min(rows - 1);
            values[row * columns..(row + 1) * columns].iter().sum::<f32>() + *b as f32
        })
        .collect();
    let twice: Vec<i64> = b.iter().map(|b| b * 2).collect();
    Ok(vec![
        a.reshaped(Shape::new(vec![rows, 1, columns]).unwrap())?,
        Tensor::of(Shape::vector(sums.len()), &sums)?,
        Tensor::of(Shape::vector(twice.len()), &twice)?,
    ])
}

fn strs(_: &str, inputs: &[Tensor]) -> Result<Vec<Tensor>, Status> {
    let shape = inputs[0].shape().clone();
    let strings = inputs[0].strings().unwrap();
    let (mut upper, mut double) = (StringsBuilder::new(), StringsBuilder::new());
    let mut lengths = Vec::new();
    for text in strings.iter() {
        lengths.push(text.len() as i32);
        upper.push(&text.to_ascii_uppercase());
        double.push(&[text, text].concat());
    }
    Ok(vec![
        Tensor::of(shape.clone(), &lengths)?,
        Tensor::of_strings(shape.clone(), &upper)?,
        Tensor::of_strings(shape, &double)?,
    ])
}

fn types_signatures() -> Vec<Signature> {
    let x = || vec![spec("x", "x:0", DType::F32, Some(&[-1]))];
    let output = |alias: &str, dtype| spec(alias, alias, dtype, None);
    let floats = ["big", "inf", "nan", "ninf", "third", "tiny"];
    let mut special: Vec<_> = floats.map(|alias| output(alias, DType::F32)).into();
    special.push(output("d", DType::F64));
    vec![
        Signature::new("special", PREDICT, x(), special),
        Signature::new("nocomplex", PREDICT, x(), vec![output("half", DType::F16)]),
    ]
}

fn types(signature: &str, inputs: &[Tensor]) -> Result<Vec<Tensor>, Status> {
    let x = &inputs[0];
    let values = x.to_vec::<f32>().unwrap();
    if signature == "nocomplex" {
        let bytes: Vec<u8> =
            values.iter().flat_map(|&x| half::f16::from_f32(x).to_le_bytes()).collect();
        return Ok(vec![Tensor::copied(DType::F16, x.shape().clone(), &bytes)?]);
    }
    let thirds: Vec<f64> = values.iter().map(|&x| f64::from(x) * (1.0 / 3.0)).collect();
    Ok(vec![
        map(x, |x| x * 1e30),
        Tensor::of(x.shape().clone(), &thirds)?,
        map(x, |_| f32::INFINITY),
        map(x, |_| f32::NAN),
        map(x, |_| f32::NEG_INFINITY),
        map(x, |x| x * (1.0 / 3.0)),
        map(x, |x| x * 1e-45),
    ])
}

fn estimator_signatures() -> Vec<Signature> {
    let examples = || vec![spec("inputs", "tf_example:0", DType::String, Some(&[-1]))];
    let output = |alias: &str, tensor: &str, dtype, width: i64| {
        spec(alias, tensor, dtype, Some(&[-1, width]))
    };
    let column = |alias: &str, tensor: &str| output(alias, tensor, DType::F32, 1);
    let scores = || output("scores", "concat:0", DType::F32, 2);
    let classes = output("classes", "Tile:0", DType::String, 2);
    let x = vec![column("x", "ParseExample/ParseExampleV2:0")];
    let (classify, regress) = ("tensorflow/serving/classify", "tensorflow/serving/regress");
    vec![
        Signature::new("classify_scores_only", classify, examples(), vec![scores()]),
        Signature::new("classify_x_to_y", classify, examples(), vec![classes, scores()]),
        Signature::new("regress_x_to_y", regress, examples(), vec![column("outputs", "y:0")]),
        Signature::new("regress_x2_to_y", regress, examples(), vec![column("outputs", "y2:0")]),
        Signature::new("serving_default", PREDICT, x, vec![column("y", "y:0")]),
    ]
}

fn estimator(signature: &str, inputs: &[Tensor]) -> Result<Vec<Tensor>, Status> {
    if signature == "serving_default" {
        return Ok(half_plus(&inputs[0], 2.0));
    }
    let feature = if signature == "regress_x2_to_y" { "x2" } else { "x" };
    let mut ys = Vec::new();
    for bytes in inputs[0].strings().unwrap().iter() {
        let example =
            Example::decode(bytes).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let features = example.features.unwrap_or_default().feature;
        let kind = features.get(feature).and_then(|feature| feature.kind.clone());
        let Some(feature::Kind::FloatList(list)) = kind else {
            return Err(Status::invalid_argument("no float x"));
        };
        ys.push(list.value[0] / 2.0 + 2.0);
    }
    let rows = ys.len();
    if signature.starts_with("regress") {
        return Ok(vec![Tensor::of(Shape::new(vec![rows, 1])?, &ys)?]);
    }
    let pairs: Vec<f32> = ys.iter().flat_map(|y| [-y, *y]).collect();
    let shape = Shape::new(vec![rows, 2])?;
    let scores = Tensor::of(shape.clone(), &pairs)?;
    if signature == "classify_scores_only" {
        return Ok(vec![scores]);
    }
    let mut labels = StringsBuilder::new();
    (0..rows).for_each(|_| ["neg", "pos"].iter().for_each(|label| labels.push(label.as_bytes())));
    Ok(vec![Tensor::of_strings(shape, &labels)?, scores])
}

/// The recorded models and versions.
const MODELS: [(&str, &[i64]); 23] = [
    ("err", &[1]),
    ("estimator", &[1]),
    ("half_plus_two", &[123]),
    ("id_bfloat16", &[1]),
    ("id_bool", &[1]),
    ("id_float16", &[1]),
    ("id_float64", &[1]),
    ("id_int16", &[1]),
    ("id_int32", &[1]),
    ("id_int64", &[1]),
    ("id_int8", &[1]),
    ("id_string", &[1]),
    ("id_uint32", &[1]),
    ("id_uint64", &[1]),
    ("id_uint8", &[1]),
    ("mismatch", &[1]),
    ("multi", &[1]),
    ("rank3", &[1]),
    ("scalar", &[1]),
    ("strs", &[1]),
    ("strs1", &[1]),
    ("types", &[1]),
    ("versioned", &[1, 2]),
];

/// A server that stops when it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) budget: Budget,
    stop: Option<oneshot::Sender<()>>,
    runtime: Option<tokio::runtime::Runtime>,
    task: Option<tokio::task::JoinHandle<Result<(), Status>>>,
}

impl Server {
    pub(crate) fn start(options: RestOptions, budget: Budget) -> Server {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let serving = runtime.block_on(serve_models());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let metrics = Metrics::new().unwrap();
        let stopped = async {
            let _ = stopped.await;
        };
        let served = serve_rest(listener, serving, options, metrics, budget.clone(), stopped);
        let task = runtime.spawn(served);
        Server { address, budget, stop: Some(stop), runtime: Some(runtime), task: Some(task) }
    }

    pub(crate) fn usual() -> Server {
        Server::start(usual_options(), Budget::new(1 << 30))
    }

    /// Tells the server to stop and waits until it has.
    pub(crate) fn stop(&mut self) -> Result<(), Status> {
        self.stop.take();
        self.runtime.as_ref().unwrap().block_on(self.task.take().unwrap()).unwrap()
    }

    /// Whether all bytes are given back, which is when the last answer has left.
    pub(crate) fn gives_all_back(&self) -> bool {
        let until = Instant::now() + Duration::from_secs(5);
        while self.budget.bytes_taken() > 0 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.budget.bytes_taken() == 0
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    /// Sends `request` as it is, says that it is all, and reads to the end.
    pub(crate) fn exchange(&self, request: &[u8]) -> String {
        let mut stream = self.connect();
        stream.write_all(request).unwrap();
        let mut all = Vec::new();
        let mut part = [0; 4096];
        // A kept connection ends by silence.
        stream.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
        while let Ok(n @ 1..) = stream.read(&mut part) {
            all.extend_from_slice(&part[..n]);
        }
        let _ = stream.shutdown(Shutdown::Both);
        String::from_utf8_lossy(&all).into_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }
}

pub(crate) fn usual_options() -> RestOptions {
    RestOptions { metrics_path: Some(METRICS_PATH.to_owned()), ..RestOptions::default() }
}

pub(crate) async fn serve_models() -> Serving {
    let options = ServingOptions {
        load_threads: 2,
        unload_threads: 2,
        run_threads: 2,
        queue_runs_max: 1000,
        load_retries_max: 0,
        load_retry_interval: Duration::from_secs(1),
        engine_threads: 1,
        policy: Default::default(),
    };
    let serving = Serving::start(Arc::new(FewLines), options).unwrap();
    let mut names = Vec::new();
    for (name, versions) in MODELS {
        let name = ModelName::from(name);
        let wanted = versions
            .iter()
            .map(|&version| Aspired {
                version: Version(version),
                artifact: Ok(PathBuf::from(format!("/models/{name}/{version}"))),
                tags: vec!["serve".to_owned()],
                edition: None,
            })
            .collect();
        serving.aspire(&name, wanted);
        names.push(name);
    }
    assert_eq!(serving.settled(&names).await, []);
    let labels =
        BTreeMap::from([(Label::from("stable"), Version(1)), (Label::from("canary"), Version(2))]);
    let both = Instant::now() + Duration::from_secs(10);
    let labels = BTreeMap::from([(ModelName::from("versioned"), labels)]);
    // Settled means one version; the other may still load.
    while let Err(error) = serving.set_labels(labels.clone(), false) {
        assert!(Instant::now() < both, "{error}");
        std::thread::sleep(Duration::from_millis(10));
    }
    serving
}

/// An answer that was read by its `Content-Length`.
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }
}

/// Reads one answer; `has_body` is false for answers to HEAD.
pub(crate) fn read_response(stream: &mut TcpStream, has_body: bool) -> Response {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        bytes.push(byte[0]);
    }
    let head = String::from_utf8(bytes).unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let mut response = Response { status, headers, body: Vec::new() };
    if has_body {
        let length = response.header("Content-Length").map_or(0, |text| text.parse().unwrap());
        response.body = vec![0; length];
        stream.read_exact(&mut response.body).unwrap();
    }
    response
}

//! What comes of one case on an engine, next to TensorFlow's own answers.
//!
//! May not know: which engine it is, or what is expected of it.

use std::path::Path;
use std::time::{Duration, Instant};

use prost::Message as _;
use vesta_model::{
    Code, DType, Engine, InputLayout, LoadRequest, PartialShape, RunRequest, Session, Shape,
    Status, Tensor, Version,
};
use vesta_onnx::translate;
use vesta_protos::tensorflow::meta_graph_def::MetaInfoDef;
use vesta_protos::tensorflow::tensor_info::Encoding;
use vesta_protos::tensorflow::tensor_shape_proto::Dim;
use vesta_protos::tensorflow::{
    GraphDef, MetaGraphDef, SavedModel, SignatureDef, TensorInfo, TensorShapeProto,
};
use vesta_testkit::tensors_close;

use crate::case::{Array, Case, Run};

/// Error allowed: this share of the number itself, or of the largest of its tensor.
const RELATIVE_MAX: f64 = 1e-4;
/// The same where half precision is computed with.
const RELATIVE_MAX_HALF: f64 = 4e-3;

/// No case computes for so long: one that does hangs.
const RUN_MAX: Duration = Duration::from_secs(60);

fn tensor(array: &Array) -> Tensor {
    let shape = Shape::new(array.dims.clone()).unwrap();
    Tensor::copied(array.dtype, shape, &array.bytes).unwrap()
}

fn call(session: &dyn Session, outputs: usize, run: &Run) -> Result<Vec<Tensor>, Status> {
    let inputs: Vec<Tensor> = run.inputs.iter().map(tensor).collect();
    let request = RunRequest {
        signature: "serving_default".to_owned(),
        inputs: inputs.iter().map(InputLayout::of).collect(),
        outputs: (0..outputs).collect(),
    };
    session.run_over(&request, inputs, Some(Instant::now() + RUN_MAX))
}

fn halves(tensor: &Tensor) -> Vec<f64> {
    let bits = tensor.bytes().chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    bits.map(|bits| half::f16::from_bits(bits).to_f64()).collect()
}

fn agree(got: &Tensor, want: &Tensor) -> Result<(), String> {
    let share = match want.dtype() {
        DType::F16 | DType::BF16 => RELATIVE_MAX_HALF,
        _ => RELATIVE_MAX,
    };
    let finite = |numbers: Vec<f64>| {
        numbers.into_iter().filter(|n| n.is_finite()).fold(0.0, |most: f64, n| most.max(n.abs()))
    };
    let largest = match want.dtype() {
        DType::F32 => finite(want.to_vec::<f32>().unwrap().into_iter().map(f64::from).collect()),
        DType::F64 => finite(want.to_vec::<f64>().unwrap()),
        DType::F16 => finite(halves(want)),
        _ => 0.0,
    };
    tensors_close(got, want, share, share * largest)
}

/// What came of a case: `agree`, or a verdict with its reason; `None` for a case without a translation.
pub(crate) fn judge(engine: &dyn Engine, case: &Case) -> Option<(&'static str, String)> {
    let nodes = case.nodes();
    translate(&case.signature(&nodes)).ok().filter(|_| case.is_translated)?;
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), case);
    let request = LoadRequest {
        model: "case".into(),
        version: Version(1),
        artifact: folder.path().to_owned(),
        tags: vec!["serve".to_owned()],
        threads: 1,
    };
    let session = match engine.load(&request) {
        Ok(session) => session,
        Err(status) if status.code() == Code::Unimplemented => {
            return Some(("unsupported", status.to_string()));
        }
        Err(status) => return Some(("wrong", status.to_string())),
    };
    for (number, run) in case.runs.iter().enumerate() {
        let given = match (call(&*session, case.fetches.len(), run), run.fails) {
            (Ok(given), false) => given,
            (Err(_), true) => continue,
            (Ok(_), true) => {
                return Some(("wrong", "an answer where TensorFlow has an error".into()));
            }
            (Err(status), false) => return Some(("wrong", status.to_string())),
        };
        for (given, array) in given.iter().zip(&run.outputs) {
            if let Err(reason) = agree(given, &tensor(array)) {
                return Some(("wrong", format!("run {number}, {}: {reason}", array.tensor)));
            }
        }
    }
    Some(("agree", String::new()))
}

/// Writes a case as a SavedModel whose aliases keep the order of its feeds and fetches.
fn write(folder: &Path, case: &Case) {
    let tensor = |number: usize, name: &str, dtype: i32, shape: Option<TensorShapeProto>| {
        let encoding = Some(Encoding::Name(name.to_owned()));
        (format!("{number:02}"), TensorInfo { dtype, tensor_shape: shape, encoding })
    };
    let feeds = case.feeds.iter().enumerate();
    let fetches = case.fetches.iter().zip(&case.runs[0].outputs).enumerate();
    let signature = SignatureDef {
        inputs: feeds
            .map(|(n, feed)| tensor(n, &feed.tensor, feed.dtype.number(), Some(shape(&feed.shape))))
            .collect(),
        outputs: fetches
            .map(|(n, (name, array))| tensor(n, name, array.dtype.number(), None))
            .collect(),
        method_name: "tensorflow/serving/predict".to_owned(),
        ..SignatureDef::default()
    };
    let graph = MetaGraphDef {
        meta_info_def: Some(MetaInfoDef {
            tags: vec!["serve".to_owned()],
            ..MetaInfoDef::default()
        }),
        graph_def: Some(GraphDef { node: case.nodes(), ..GraphDef::default() }),
        signature_def: [("serving_default".to_owned(), signature)].into(),
        ..MetaGraphDef::default()
    };
    let model = SavedModel { saved_model_schema_version: 1, meta_graphs: vec![graph] };
    std::fs::write(folder.join("saved_model.pb"), model.encode_to_vec()).unwrap();
}

fn shape(shape: &PartialShape) -> TensorShapeProto {
    let PartialShape::Ranked(dims) = shape else {
        return TensorShapeProto { unknown_rank: true, ..TensorShapeProto::default() };
    };
    let size = |dim: &Option<usize>| dim.map_or(-1, |dim| i64::try_from(dim).unwrap());
    let dim = dims.iter().map(|dim| Dim { size: size(dim), ..Dim::default() }).collect();
    TensorShapeProto { dim, unknown_rank: false }
}

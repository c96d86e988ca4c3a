//! Every operator against TensorFlow's own answers, as `crates/onnx/tests/fixtures.py` writes them.
//!
//! Each case runs twice: placed as a server would place it, and with all that rten can take given to
//! rten, so that the rows of the table are tried even where the host would do. A case is refused or
//! right; a wrong answer fails the test, and so does a row of the table that no case reaches.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use prost::Message;
use vesta_model::{DType, LoadRequest, PartialShape, Shape, Status, Tensor, Version};
use vesta_protos::tensorflow::GraphDef;
use vesta_testkit::tensors_close;

use super::analysis::{Feed, SignatureGraph};
use super::capability;
use super::loading::Placed;

/// Error that another order of summation may make.
const RELATIVE_MAX: f64 = 2e-5;
const ABSOLUTE_MAX: f64 = 1e-5;
/// The same of half precision.
const HALF_MAX: f64 = 4e-3;

struct Case {
    name: String,
    graph: SignatureGraph,
    runs: Vec<Run>,
}

/// Inputs, and TensorFlow's answers to them or the words of its error.
struct Run {
    inputs: Vec<Tensor>,
    wants: Result<Vec<Tensor>, String>,
}

fn fixtures() -> Option<PathBuf> {
    let folder = std::env::var_os("VESTA_OP_FIXTURES").map(PathBuf::from);
    if folder.is_none() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "VESTA_OP_FIXTURES is not set");
        eprintln!(
            "skipped: VESTA_OP_FIXTURES is not set; crates/onnx/tests/fixtures.py writes them"
        );
    }
    folder
}

fn dtype_of(name: &str) -> DType {
    let own = match name {
        "float32" => "float",
        "float64" => "double",
        "float16" => "half",
        other => other,
    };
    *DType::ALL.iter().find(|dtype| dtype.name() == own).unwrap()
}

fn shape_of(text: &str) -> PartialShape {
    match text {
        "unknown" => PartialShape::Unknown,
        "scalar" => PartialShape::Ranked(vec![]),
        sizes => PartialShape::Ranked(sizes.split(',').map(|n| n.parse().ok()).collect()),
    }
}

fn tensor(folder: &Path, dtype: &str, shape: &str, file: &str) -> Tensor {
    let dims: Vec<usize> = match shape_of(shape) {
        PartialShape::Ranked(dims) => dims.into_iter().map(Option::unwrap).collect(),
        PartialShape::Unknown => panic!("{shape}"),
    };
    let bytes = std::fs::read(folder.join(file)).unwrap();
    Tensor::copied(dtype_of(dtype), Shape::new(dims).unwrap(), &bytes).unwrap()
}

fn read(folder: &Path) -> Case {
    let nodes =
        GraphDef::decode(&std::fs::read(folder.join("graph.pb")).unwrap()[..]).unwrap().node;
    let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
    let mut graph =
        SignatureGraph { name: name.clone(), nodes, feeds: Vec::new(), fetches: Vec::new() };
    let mut runs: Vec<Run> = Vec::new();
    for line in std::fs::read_to_string(folder.join("case.txt")).unwrap().lines() {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["feed", name, dtype, shape] => graph.feeds.push(Feed {
                tensor: name.to_owned(),
                dtype: dtype_of(dtype),
                shape: shape_of(shape),
            }),
            ["fetch", name] => graph.fetches.push(name.to_owned()),
            ["run"] => runs.push(Run { inputs: Vec::new(), wants: Ok(Vec::new()) }),
            ["fails", ref words @ ..] => {
                runs.push(Run { inputs: Vec::new(), wants: Err(words.join(" ")) });
            }
            ["in", _, dtype, shape, file] => {
                runs.last_mut().unwrap().inputs.push(tensor(folder, dtype, shape, file));
            }
            ["out", _, dtype, shape, file] => {
                let wants = runs.last_mut().unwrap().wants.as_mut().unwrap();
                wants.push(tensor(folder, dtype, shape, file));
            }
            _ => {}
        }
    }
    Case { name, graph, runs }
}

fn request() -> LoadRequest {
    LoadRequest {
        model: "case".into(),
        version: Version(1),
        artifact: PathBuf::new(),
        tags: vec![],
        threads: 1,
    }
}

fn near(got: f64, want: f64) -> bool {
    (got.is_nan() && want.is_nan())
        || got == want
        || (got - want).abs() <= ABSOLUTE_MAX + RELATIVE_MAX * want.abs()
}

/// Sums of half are compared by value: TensorFlow rounds after each step, in an order of its own.
fn is_sum(case: &Case) -> bool {
    ["Mean.", "Sum."].iter().any(|op| case.name.starts_with(op))
}

fn agree(got: &Tensor, want: &Tensor, is_sum: bool) -> Result<(), String> {
    if got.dtype() != want.dtype() || got.shape() != want.shape() {
        return Err(format!("{got:?} for {want:?}"));
    }
    let pairs: Vec<(f64, f64)> = match got.dtype() {
        DType::F32 => {
            let (a, b) = (got.to_vec::<f32>().unwrap(), want.to_vec::<f32>().unwrap());
            a.into_iter().map(f64::from).zip(b.into_iter().map(f64::from)).collect()
        }
        DType::F64 => {
            got.to_vec::<f64>().unwrap().into_iter().zip(want.to_vec::<f64>().unwrap()).collect()
        }
        _ if got.bytes() == want.bytes() => Vec::new(),
        DType::F16 if is_sum => return tensors_close(got, want, HALF_MAX, HALF_MAX),
        _ => return Err(format!("{:?} for {:?}", got.bytes(), want.bytes())),
    };
    match pairs.iter().find(|(got, want)| !near(*got, *want)) {
        Some((got, want)) => Err(format!("{got} for {want}")),
        None => Ok(()),
    }
}

enum Verdict {
    Right,
    Refused(String),
    Wrong(String),
}

fn judge(case: &Case, light_nodes_max: usize, used: &mut BTreeSet<String>) -> Verdict {
    let graphs = std::slice::from_ref(&case.graph);
    let placed = match Placed::new(graphs, &request(), light_nodes_max) {
        Ok(placed) => placed,
        Err(status) => return Verdict::Refused(status.message().to_owned()),
    };
    used.extend(placed.model.iter().flat_map(|model| model.operators().clone()));
    let program = &placed.plan.programs[0];
    let outputs: Vec<usize> = (0..program.fetches.len()).collect();
    for Run { inputs, wants } in &case.runs {
        let run = || program.run(placed.model.as_ref(), 1, inputs.clone(), &outputs, None);
        let ran: Result<Vec<Tensor>, Status> = catch_unwind(AssertUnwindSafe(run))
            .unwrap_or_else(|_| Err(Status::internal("it panicked")));
        match (ran, wants) {
            (Err(status), Err(words)) if status.message().contains(words.as_str()) => {}
            (Err(status), _) => return Verdict::Wrong(status.message().to_owned()),
            (Ok(_), Err(words)) => return Verdict::Wrong(format!("an answer, not {words}")),
            (Ok(got), Ok(wants)) => {
                for (got, want) in got.iter().zip(wants) {
                    if let Err(text) = agree(got, want, is_sum(case)) {
                        return Verdict::Wrong(text);
                    }
                }
            }
        }
    }
    Verdict::Right
}

#[test]
fn no_answer_differs_from_tensorflows() {
    let Some(folder) = fixtures() else { return };
    let mut folders: Vec<PathBuf> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    let mut wrong = Vec::new();
    let mut refused: BTreeMap<String, String> = BTreeMap::new();
    let mut used = BTreeSet::new();
    let mut right = 0;
    for folder in folders.iter().filter(|folder| folder.is_dir()) {
        let case = read(folder);
        for light_nodes_max in [super::plan::LIGHT_NODES_MAX, 0] {
            match judge(&case, light_nodes_max, &mut used) {
                Verdict::Right => right += 1,
                Verdict::Refused(text) => drop(refused.insert(case.name.clone(), text)),
                Verdict::Wrong(text) => {
                    wrong.push(format!("{} (light: {light_nodes_max}): {text}", case.name));
                }
            }
        }
    }
    if let Some(path) = std::env::var_os("VESTA_OP_REFUSED") {
        let lines: Vec<String> =
            refused.iter().map(|(name, text)| format!("{name}: {text}\n")).collect();
        std::fs::write(path, lines.concat()).unwrap();
    }
    assert!(right > 0, "no case in {}", folder.display());
    assert!(wrong.is_empty(), "{} wrong, {right} right:\n{}", wrong.len(), wrong.join("\n"));
    let unproven: Vec<&str> = capability::operators().filter(|op| !used.contains(*op)).collect();
    assert!(unproven.is_empty(), "rows that no case reaches: {unproven:?}");
}

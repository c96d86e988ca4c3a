//! Reads one case as `fixtures.py` wrote it.

use std::path::Path;

use prost::Message as _;
use vesta_model::{DType, PartialShape};
use vesta_onnx::{FeedSpec, FrozenSignature, Resizing};
use vesta_protos::tensorflow::{GraphDef, NodeDef};

/// A tensor with its values.
pub(crate) struct Array {
    pub(crate) tensor: String,
    pub(crate) dtype: DType,
    pub(crate) dims: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

/// Inputs and the answers to them.
#[derive(Default)]
pub(crate) struct Run {
    pub(crate) inputs: Vec<Array>,
    pub(crate) outputs: Vec<Array>,
    /// Whether TensorFlow answers with an error.
    pub(crate) fails: bool,
}

/// One graph.
#[derive(Default)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) op: String,
    pub(crate) dtype: String,
    pub(crate) variant: String,
    pub(crate) is_translated: bool,
    pub(crate) feeds: Vec<FeedSpec>,
    pub(crate) fetches: Vec<String>,
    pub(crate) runs: Vec<Run>,
    graph: Vec<u8>,
}

impl Case {
    /// All cases of a folder, by name; what else is in it is not looked at.
    pub(crate) fn read_all(folder: &Path) -> Vec<Case> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut folders: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        folders.retain(|path| path.join("case.txt").exists());
        folders.sort();
        folders.iter().map(|folder| Case::read(folder)).collect()
    }

    pub(crate) fn read(folder: &Path) -> Case {
        let mut case = Case {
            name: folder.file_name().unwrap().to_str().unwrap().to_owned(),
            graph: std::fs::read(folder.join("graph.pb")).unwrap(),
            ..Case::default()
        };
        for line in std::fs::read_to_string(folder.join("case.txt")).unwrap().lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["op", op] => case.op = op.to_owned(),
                ["dtype", dtype] => case.dtype = dtype.to_owned(),
                ["variant", variant] => case.variant = variant.to_owned(),
                ["expect", expect] => case.is_translated = expect == "translated",
                ["feed", tensor, dtype, shape] => case.feeds.push(FeedSpec {
                    tensor: tensor.to_owned(),
                    dtype: dtype_of(dtype),
                    shape: shape_of(shape),
                }),
                ["fetch", tensor] => case.fetches.push(tensor.to_owned()),
                ["run"] => case.runs.push(Run::default()),
                ["fails", ..] => case.runs.push(Run { fails: true, ..Run::default() }),
                [kind @ ("in" | "out"), tensor, dtype, shape, file] => {
                    let array = Array {
                        tensor: tensor.to_owned(),
                        dtype: dtype_of(dtype),
                        dims: dims_of(shape),
                        bytes: std::fs::read(folder.join(file)).unwrap(),
                    };
                    let run = case.runs.last_mut().unwrap();
                    if kind == "in" { &mut run.inputs } else { &mut run.outputs }.push(array);
                }
                _ => panic!("{line}"),
            }
        }
        case
    }

    pub(crate) fn nodes(&self) -> Vec<NodeDef> {
        GraphDef::decode(self.graph.as_slice()).unwrap().node
    }

    pub(crate) fn signature<'a>(&self, nodes: &'a [NodeDef]) -> FrozenSignature<'a> {
        FrozenSignature {
            nodes,
            feeds: self.feeds.clone(),
            fetches: self.fetches.clone(),
            checks: &[],
            bodies: Vec::new(),
            resizing: Resizing::Computed,
        }
    }
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

fn dims_of(text: &str) -> Vec<usize> {
    if text == "scalar" { vec![] } else { text.split(',').map(|n| n.parse().unwrap()).collect() }
}

fn shape_of(text: &str) -> PartialShape {
    match text {
        "unknown" => PartialShape::Unknown,
        "scalar" => PartialShape::Ranked(vec![]),
        sizes => PartialShape::Ranked(sizes.split(',').map(|n| n.parse().ok()).collect()),
    }
}

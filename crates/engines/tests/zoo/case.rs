//! Reads one net's inputs and answers as `zoo.py` wrote them.

use std::collections::BTreeMap;
use std::path::Path;

use vesta_model::{DType, Shape, Tensor};

/// Inputs and TensorFlow's answers to them, by alias.
pub(crate) struct Run {
    pub(crate) signature: String,
    pub(crate) inputs: BTreeMap<String, Tensor>,
    pub(crate) outputs: BTreeMap<String, Tensor>,
}

/// One net.
pub(crate) struct Case {
    /// What a refusal has to name, where the net cannot run.
    pub(crate) refused: Option<Vec<String>>,
    pub(crate) runs: Vec<Run>,
}

impl Case {
    pub(crate) fn read(folder: &Path) -> Case {
        let mut case = Case { refused: None, runs: Vec::new() };
        for line in std::fs::read_to_string(folder.join("case.txt")).unwrap().lines() {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["expect", "runs"] => {}
                ["expect", "refused", ref operators @ ..] => {
                    case.refused = Some(operators.iter().map(|&op| op.to_owned()).collect());
                }
                ["run", signature] => case.runs.push(Run {
                    signature: signature.to_owned(),
                    inputs: BTreeMap::new(),
                    outputs: BTreeMap::new(),
                }),
                [kind @ ("in" | "out"), alias, dtype, shape, file] => {
                    let run = case.runs.last_mut().unwrap();
                    let arrays = if kind == "in" { &mut run.inputs } else { &mut run.outputs };
                    arrays.insert(alias.to_owned(), tensor(&folder.join(file), dtype, shape));
                }
                _ => panic!("{line}"),
            }
        }
        case
    }
}

fn tensor(file: &Path, dtype: &str, shape: &str) -> Tensor {
    let dtype = match dtype {
        "float32" => "float",
        "float64" => "double",
        other => other,
    };
    let dtype = *DType::ALL.iter().find(|known| known.name() == dtype).unwrap();
    let sizes: Vec<usize> = match shape {
        "scalar" => Vec::new(),
        sizes => sizes.split(',').map(|size| size.parse().unwrap()).collect(),
    };
    Tensor::copied(dtype, Shape::new(sizes).unwrap(), &std::fs::read(file).unwrap()).unwrap()
}

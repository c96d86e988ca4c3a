//! `vesta convert`: writes one signature of a model as ONNX.

use std::path::Path;
use std::process::ExitCode;

use vesta_engines::ONNX_BYTES_MAX;
use vesta_model::Status;

use crate::artifact::{self, Words};
use crate::commands::{complain, print};

const USAGE: &str = "\
usage: vesta convert MODEL_DIR OUT.onnx [--signature NAME] [--tags A,B]

writes one signature of a SavedModel or frozen graph as ONNX, exactly or not at all: what has no exact
form there is refused by name. MODEL_DIR is a version's folder, or a model's, of which the newest version
is taken.
Weights that do not fit into one file of 2 GiB are written beside it, to OUT.onnx.data.

  --signature NAME   the signature (serving_default, or the only one)
  --tags A,B         the tags of the graph (serve)
";

/// Runs the command.
pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let words = match Words::read(arguments, &["signature", "tags"]) {
        Ok(words) if words.help => {
            print(USAGE);
            return ExitCode::SUCCESS;
        }
        Ok(words) => words,
        Err(problem) => return misused(problem.message()),
    };
    let [place, out] = &words.places[..] else {
        return misused("a model's folder and a file to write are needed");
    };
    match write(place, Path::new(out), &words) {
        Ok(text) => {
            print(&text);
            ExitCode::SUCCESS
        }
        Err(status) => {
            complain(&format!("vesta convert: {}\n", status.message()));
            ExitCode::FAILURE
        }
    }
}

fn write(place: &str, out: &Path, words: &Words) -> Result<String, Status> {
    let artifact = artifact::find(place)?;
    let signature = words.signature.as_deref();
    let conversion = vesta_engines::convert(&artifact, &words.tags(), signature)?;
    let written = conversion.write(out, ONNX_BYTES_MAX)?;
    let beside = written
        .weights
        .map_or_else(String::new, |weights| format!(", its weights {}", weights.display()));
    Ok(format!(
        "wrote {}{beside} ({} nodes, {} bytes)\n",
        written.model.display(),
        written.nodes,
        written.bytes
    ))
}

fn misused(problem: &str) -> ExitCode {
    complain(&format!("vesta convert: {problem}\n\n{USAGE}"));
    ExitCode::from(2)
}

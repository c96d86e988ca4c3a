//! `vesta inspect`: what a model holds and what each engine says of it, for people or as JSON.

use std::collections::BTreeMap;
use std::process::ExitCode;

use serde_json::{Value, json};
use vesta_engines::{EngineReport, EngineStore, Inspection, SignatureReport, Subject};
use vesta_model::{Encoding, PartialShape, Status, TensorSpec};

use crate::artifact::{self, Words};
use crate::commands::{complain, print};

const USAGE: &str = "\
usage: vesta inspect MODEL_DIR [--signature NAME] [--tags A,B] [--json]

tells the signatures, operators and sizes of a SavedModel or frozen graph, or else of a model.tflite,
and what each engine says of it. MODEL_DIR is a version's folder, or a model's, of which the newest version is taken.

  --signature NAME   this signature alone
  --tags A,B         the tags of the graph (serve)
  --json             as JSON
";

/// Operators that the text names for each signature; JSON has all.
const OPERATORS_SHOWN_MAX: usize = 12;

/// Runs the command.
pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let words = match Words::read(arguments, &["signature", "tags", "json"]) {
        Ok(words) if words.help => {
            print(USAGE);
            return ExitCode::SUCCESS;
        }
        Ok(words) => words,
        Err(problem) => return misused(problem.message()),
    };
    let [place] = &words.places[..] else { return misused("one model's folder is needed") };
    match look(place, &words) {
        Ok(inspection) if words.json => {
            print(&format!("{:#}\n", as_json(&inspection)));
            ExitCode::SUCCESS
        }
        Ok(inspection) => {
            print(&as_text(&inspection));
            ExitCode::SUCCESS
        }
        Err(status) => {
            complain(&format!("vesta inspect: {}\n", status.message()));
            ExitCode::FAILURE
        }
    }
}

fn look(place: &str, words: &Words) -> Result<Inspection, Status> {
    let artifact = artifact::find(place)?;
    let store = EngineStore::from_env();
    vesta_engines::inspect(&artifact, &words.tags(), words.signature.as_deref(), &store)
}

fn misused(problem: &str) -> ExitCode {
    complain(&format!("vesta inspect: {problem}\n\n{USAGE}"));
    ExitCode::from(2)
}

fn tensor_names(spec: &TensorSpec) -> Vec<&str> {
    match &spec.encoding {
        Encoding::Dense(name) => vec![name],
        Encoding::CooSparse { values, indices, dense_shape } => vec![values, indices, dense_shape],
        Encoding::Composite => vec![],
    }
}

/// A shape as an array with -1 for open sizes; null when not even the rank is known.
fn shape_json(shape: &PartialShape) -> Value {
    match shape {
        PartialShape::Unknown => Value::Null,
        PartialShape::Ranked(sizes) => {
            sizes.iter().map(|size| size.map_or(json!(-1), |size| json!(size))).collect()
        }
    }
}

fn spec_json(spec: &TensorSpec) -> Value {
    json!({
        "name": spec.alias,
        "dtype": spec.dtype.name(),
        "shape": shape_json(&spec.shape),
        "tensors": tensor_names(spec),
    })
}

fn counts_json(counts: &Result<BTreeMap<String, usize>, Status>) -> Value {
    match counts {
        Ok(counts) => json!({ "operators": counts }),
        Err(status) => json!({ "refused": status.message() }),
    }
}

fn signature_json(report: &SignatureReport) -> Value {
    let signature = &report.signature;
    json!({
        "name": signature.name,
        "method": signature.method,
        "stateful": signature.stateful,
        "inputs": signature.inputs.iter().map(spec_json).collect::<Value>(),
        "outputs": signature.outputs.iter().map(spec_json).collect::<Value>(),
        "tensorflow": counts_json(&report.operators),
        "onnx": counts_json(&report.onnx),
    })
}

/// As for a SavedModel, but that it has no operators of TensorFlow.
fn onnx_signature_json(report: &SignatureReport) -> Value {
    let mut told = signature_json(report);
    if let Some(told) = told.as_object_mut() {
        told.remove("tensorflow");
    }
    told
}

/// As for a SavedModel, but that its operators are of TensorFlow Lite.
fn lite_signature_json(report: &SignatureReport) -> Value {
    let mut told = signature_json(report);
    if let Some(told) = told.as_object_mut() {
        told.remove("tensorflow");
        told.insert("tensorflow_lite".to_owned(), counts_json(&report.operators));
    }
    told
}

fn engine_json(report: &EngineReport) -> Value {
    let (available, text) = match &report.verdict {
        Ok(text) => (true, text.as_str()),
        Err(status) => (false, status.message()),
    };
    json!({
        "name": report.name.as_str(),
        "versions": report.versions,
        "runs": available,
        "verdict": text,
    })
}

fn as_json(inspection: &Inspection) -> Value {
    let signature_json = match inspection.subject {
        Subject::SavedModel => signature_json,
        Subject::Lite => lite_signature_json,
        Subject::Onnx | Subject::Ir => onnx_signature_json,
    };
    let format = |format: &vesta_engines::Format| json!({ "name": format.name, "file": format.file, "served": format.is_served });
    json!({
        "directory": inspection.artifact.display().to_string(),
        "formats": inspection.formats.iter().map(format).collect::<Value>(),
        "tag_sets": inspection.tag_sets,
        "bytes": {
            "graph": inspection.sizes.graph_bytes,
            "variables": inspection.sizes.variables_bytes,
            "assets": inspection.sizes.assets_bytes,
        },
        "signatures": inspection.signatures.iter().map(signature_json).collect::<Value>(),
        "engines": inspection.engines.iter().map(engine_json).collect::<Value>(),
    })
}

fn as_text(inspection: &Inspection) -> String {
    let formats: Vec<String> = inspection
        .formats
        .iter()
        .map(|format| {
            let note = if format.is_served { "" } else { ", not served by this build" };
            format!("{} ({}{note})", format.name, format.file)
        })
        .collect();
    let tags: Vec<String> = inspection.tag_sets.iter().map(|tags| tags.join(",")).collect();
    let sizes = &inspection.sizes;
    let mut text = table(&[
        ["directory", &inspection.artifact.display().to_string()],
        ["format", &formats.join(", ")],
        ["tags", &tags.join(" | ")],
        ["graph", &size_text(sizes.graph_bytes)],
        ["variables", &size_text(sizes.variables_bytes)],
        ["assets", &size_text(sizes.assets_bytes)],
    ]);
    for report in &inspection.signatures {
        text.push('\n');
        text.push_str(&signature_text(report, inspection.subject));
    }
    text.push_str("\nengines\n");
    let rows: Vec<[String; 3]> = inspection.engines.iter().map(engine_row).collect();
    text.push_str(&indented(&rows));
    text
}

fn signature_text(report: &SignatureReport, subject: Subject) -> String {
    let signature = &report.signature;
    let state = if signature.stateful { ", keeps state" } else { "" };
    let method = if signature.method.is_empty() { "no method" } else { &signature.method };
    let mut text = format!("signature {} ({method}{state})\n", signature.name);
    let row = |kind: &str, spec: &TensorSpec| -> [String; 5] {
        let names = tensor_names(spec).join(", ");
        [kind.into(), spec.alias.clone(), spec.dtype.to_string(), spec.shape.to_string(), names]
    };
    let mut rows: Vec<[String; 5]> = Vec::new();
    rows.extend(signature.inputs.iter().map(|spec| row("input", spec)));
    rows.extend(signature.outputs.iter().map(|spec| row("output", spec)));
    text.push_str(&indented(&rows));
    let (tensorflow, onnx) = (&report.operators, &report.onnx);
    let counts = match subject {
        Subject::SavedModel => vec![("TensorFlow  ", tensorflow), ("ONNX        ", onnx)],
        Subject::Lite => vec![("whole file  ", tensorflow)],
        Subject::Onnx | Subject::Ir => vec![("whole file  ", onnx)],
    };
    for (what, counts) in counts {
        text.push_str(&format!("  {what}{}\n", counts_text(counts)));
    }
    text
}

fn engine_row(report: &EngineReport) -> [String; 3] {
    let verdict = match &report.verdict {
        Ok(text) => text.clone(),
        Err(status) => format!("no: {}", status.message()),
    };
    [report.name.to_string(), report.versions.join(", "), verdict]
}

/// The commonest operators first.
fn counts_text(counts: &Result<BTreeMap<String, usize>, Status>) -> String {
    let counts = match counts {
        Ok(counts) => counts,
        Err(status) => return format!("none: {}", status.message()),
    };
    let mut sorted: Vec<(&String, &usize)> = counts.iter().collect();
    sorted.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    let all: usize = counts.values().sum();
    let shown: Vec<String> = sorted
        .iter()
        .take(OPERATORS_SHOWN_MAX)
        .map(|(operator, count)| format!("{operator} {count}"))
        .collect();
    let more = match sorted.len().saturating_sub(OPERATORS_SHOWN_MAX) {
        0 => String::new(),
        more => format!(" and {more} kinds more"),
    };
    format!("{all} nodes: {}{more}", shown.join(", "))
}

fn size_text(bytes: u64) -> String {
    const UNITS: &[&str] = &["KiB", "MiB", "GiB", "TiB"];
    let (mut size, mut unit) = (bytes as f64, None);
    for name in UNITS {
        if size < 1024.0 {
            break;
        }
        size /= 1024.0;
        unit = Some(name);
    }
    unit.map_or_else(|| format!("{bytes} bytes"), |unit| format!("{size:.1} {unit}"))
}

fn table(rows: &[[&str; 2]]) -> String {
    let width = rows.iter().map(|row| row[0].len()).max().unwrap_or(0);
    rows.iter().map(|[name, value]| format!("{name:width$}  {value}\n")).collect()
}

/// Rows in columns, two spaces in.
fn indented<const N: usize>(rows: &[[String; N]]) -> String {
    let widths: Vec<usize> = (0..N)
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
        format!("  {}\n", cells.collect::<Vec<String>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_one_decimal_and_a_unit() {
        assert_eq!(size_text(0), "0 bytes");
        assert_eq!(size_text(1023), "1023 bytes");
        assert_eq!(size_text(1536), "1.5 KiB");
        assert_eq!(size_text(3 << 30), "3.0 GiB");
    }

    #[test]
    fn operators_are_named_by_how_often_they_stand() {
        let counts = BTreeMap::from([("Add".to_owned(), 1), ("Mul".to_owned(), 3)]);
        assert_eq!(counts_text(&Ok(counts)), "4 nodes: Mul 3, Add 1");
        let many = (0..14).map(|n| (format!("Op{n:02}"), 1)).collect();
        assert!(counts_text(&Ok(many)).ends_with("Op11 1 and 2 kinds more"));
        assert_eq!(counts_text(&Err(Status::unimplemented("why"))), "none: why");
    }
}

//! Translates the graphs that `fixtures.py` wrote, runs them on the embedded engine's kernels and
//! compares with TensorFlow's own answers.
//!
//! Owns: the list of what those kernels get wrong (`rten.txt`). A row there that agrees again fails
//! the test just as a new disagreement does, so the list stays true in both directions.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test")]

mod case;
mod engine;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use prost::Message as _;
use vesta_onnx::{FrozenSignature, Resizing, translate};

use case::Case;

/// What came of one case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Every answer is TensorFlow's.
    Agree,
    /// The translator refused it, as the case expects.
    Refused,
    /// The kernels hold no such dtype; what they would make of it is not looked at.
    Foreign,
    /// The kernels do not take a node of it.
    Unsupported,
    /// The kernels give another answer.
    Wrong,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Verdict::Agree => "agree",
            Verdict::Refused => "refused",
            Verdict::Foreign => "foreign",
            Verdict::Unsupported => "unsupported",
            Verdict::Wrong => "wrong",
        }
    }
}

fn fixtures() -> Option<PathBuf> {
    match std::env::var_os("VESTA_OP_FIXTURES") {
        Some(folder) => Some(folder.into()),
        None => {
            assert!(
                std::env::var_os("CI").is_none_or(|ci| ci != "true"),
                "VESTA_OP_FIXTURES is not set; write them with crates/onnx/tests/fixtures.py"
            );
            eprintln!(
                "skipped: no operator is compared with TensorFlow, since VESTA_OP_FIXTURES is not \
                 set; python crates/onnx/tests/fixtures.py FOLDER writes them"
            );
            None
        }
    }
}

/// Rows `case verdict reason` of what is known to be outside the kernels' reach. The verdict
/// `varies` is that of sums that overflow, which a checked build answers with a panic.
fn known_gaps() -> BTreeMap<String, String> {
    include_str!("rten.txt")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let mut words = line.splitn(3, ' ');
            (words.next().unwrap().to_owned(), words.next().unwrap().to_owned())
        })
        .collect()
}

fn judge(case: &Case, models: &Path) -> Result<(Verdict, String), String> {
    let nodes = case.nodes();
    let translated = translate(&case.signature(&nodes));
    let translation = match (translated, case.is_translated) {
        (Ok(translation), true) => translation,
        (Ok(_), false) => return Err("translated, but it has no exact translation".into()),
        (Err(error), true) => return Err(error.to_string()),
        (Err(error), false) => return Ok((Verdict::Refused, error.to_string())),
    };
    let bytes = translation.model.encode_to_vec();
    // ONNX's schema has no graph input without a rank, though engines take one.
    if case.feeds.iter().all(|feed| feed.shape != vesta_model::PartialShape::Unknown) {
        std::fs::write(models.join(format!("{}.onnx", case.name)), &bytes).unwrap();
    }
    // As the embedded engine takes it.
    let signature = FrozenSignature { resizing: Resizing::Operator, ..case.signature(&nodes) };
    let translation = translate(&signature).map_err(|error| error.to_string())?;
    let bytes = translation.model.encode_to_vec();
    Ok(engine::judge(case, &translation, bytes))
}

#[test]
fn answers_are_tensorflows() {
    let Some(folder) = fixtures() else { return };
    let folder_of_models = tempfile::tempdir().unwrap();
    let models = std::env::var_os("VESTA_OP_MODELS").map(PathBuf::from);
    let models = models.unwrap_or_else(|| folder_of_models.path().to_owned());
    let gaps = known_gaps();
    let mut seen = Vec::new();
    let mut failures = Vec::new();
    let mut table = String::new();
    for case in Case::read_all(&folder) {
        seen.push(case.name.clone());
        let (verdict, reason) = match judge(&case, &models) {
            Ok(judged) => judged,
            Err(reason) => {
                failures.push(format!("{}: {reason}", case.name));
                continue;
            }
        };
        let row = format!("{} {} {} {}", case.op, case.dtype, case.variant, verdict.word());
        table.push_str(&format!("{row} {reason}\n"));
        let expected = gaps.get(&case.name).map_or("agree", String::as_str);
        let is_known = matches!(verdict, Verdict::Refused | Verdict::Foreign)
            || expected == "varies"
            || verdict.word() == expected;
        if !is_known {
            failures.push(format!(
                "{} {} {reason} (expected: {expected})",
                case.name,
                verdict.word()
            ));
        }
    }
    if let Some(path) = std::env::var_os("VESTA_OP_TABLE") {
        std::fs::write(path, &table).unwrap();
    }
    let stale = gaps.keys().filter(|name| !seen.contains(name));
    failures.extend(stale.map(|name| format!("{name}: no such case")));
    assert!(!seen.is_empty(), "no cases in {}", folder.display());
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), seen.len(), failures.join("\n"));
    check(&models, &folder);
}

/// Holds the models to ONNX's own checker, and their answers on ONNX Runtime to TensorFlow's, if a
/// Python that has both was named.
fn check(models: &Path, cases: &Path) {
    let Some(python) = std::env::var_os("VESTA_CLIENT_PYTHON") else {
        eprintln!(
            "skipped: nothing is held to ONNX's checker and ONNX Runtime, since \
             VESTA_CLIENT_PYTHON is not set"
        );
        return;
    };
    for script in ["tests/check.py", "tests/onnx_runtime.py"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(script);
        let mut command = std::process::Command::new(&python);
        let checked = command.arg(path).args([models, cases]).output().unwrap();
        let said = [&checked.stdout, &checked.stderr].map(|text| String::from_utf8_lossy(text));
        assert!(checked.status.success(), "{script}:\n{}\n{}", said[0], said[1]);
    }
}

//! Translated operators on ONNX Runtime and OpenVINO against TensorFlow's own answers, on the graphs that
//! `crates/onnx/tests/fixtures.py` writes, each in a SavedModel of its own.
//!
//! Owns: the lists of what an engine has no kernel for, or an inexact one (`onnxruntime.txt`,
//! `openvino.txt`). A row there that agrees again fails the test just as a new disagreement does, so the
//! lists stay true in both directions. There is no row for a wrong answer: what is wrong is refused before
//! it is loaded.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test")]

#[path = "../../../onnx/tests/against_tensorflow/case.rs"]
mod case;
mod child;
mod judge;

use std::path::PathBuf;

use vesta_engines::{EngineName, EngineStore};

use case::Case;

/// The path of an environment variable, or `None` with a word about it on a person's machine.
pub(crate) fn fixtures() -> Option<PathBuf> {
    let folder = std::env::var_os("VESTA_OP_FIXTURES").map(PathBuf::from);
    if folder.is_none() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "VESTA_OP_FIXTURES is not set");
        eprintln!(
            "skipped: no operator is compared with TensorFlow, since VESTA_OP_FIXTURES is not set; \
             python crates/onnx/tests/fixtures.py FOLDER writes them"
        );
    }
    folder
}

/// Whether an engine is there; if not, a word about it on a person's machine.
fn is_installed(name: EngineName) -> bool {
    let found = EngineStore::from_env().find(name, None);
    if let Err(status) = &found {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{status}");
        eprintln!("skipped: {status}");
    }
    found.is_ok()
}

/// Whether a row of a list is of this case: a `*` stands for any operator, or any variant.
fn is_of(row: &str, case: &str) -> bool {
    match row.strip_prefix("*.").and_then(|rest| rest.strip_suffix(".*")) {
        Some(dtype) => case.split('.').nth(1) == Some(dtype),
        None => row == case,
    }
}

/// Holds an engine to TensorFlow's answers, but for the cases of `list`, which it refuses. Of a dtype that
/// is listed as a whole it may take some cases and must refuse one.
fn gives_tensorflows_answers(name: EngineName, list: &str) {
    let Some(folder) = fixtures().filter(|_| is_installed(name)) else { return };
    let rows = || {
        let lines = list.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.filter_map(|line| line.split(' ').next())
    };
    let cases: Vec<String> = Case::read_all(&folder).into_iter().map(|case| case.name).collect();
    let (mut failures, mut seen, mut agreed) = (Vec::new(), Vec::new(), 0);
    for child::Judged { case, verdict, reason } in child::judge_all(name, &cases) {
        let row = rows().find(|row| *row == case).or_else(|| rows().find(|row| is_of(row, &case)));
        let expected = match row {
            Some(row) if row != case && verdict == "agree" => "agree",
            Some(_) => "unsupported",
            None => "agree",
        };
        agreed += usize::from(verdict == "agree");
        if verdict != expected {
            failures.push(format!("{case} {verdict} {reason}"));
        }
        seen.push((case, verdict));
    }
    let is_refused =
        |row: &str| seen.iter().any(|(case, verdict)| verdict == "unsupported" && is_of(row, case));
    let stale = rows().filter(|row| !is_refused(row));
    failures.extend(stale.map(|row| format!("{row}: no such case is refused")));
    eprintln!("{agreed} of {} cases agree", seen.len());
    assert!(agreed > 0, "no case in {}", folder.display());
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), seen.len(), failures.join("\n"));
}

#[test]
fn onnxruntime_gives_tensorflows_answers() {
    gives_tensorflows_answers(EngineName::OnnxRuntime, include_str!("onnxruntime.txt"));
}

#[test]
fn openvino_gives_tensorflows_answers() {
    gives_tensorflows_answers(EngineName::OpenVino, include_str!("openvino.txt"));
}

/// The tests above start this program anew, for this test alone.
#[test]
fn a_process_that_is_told_to_judges_cases() {
    let told = child::judge_what_is_told();
    assert_eq!(told.is_some(), std::env::var_os(child::ENGINE).is_some());
}

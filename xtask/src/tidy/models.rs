//! Rules for models in the repository: few, small, and where tests or the demo look for them.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// Files of models, by the endings of their names.
pub(super) const PATTERNS: &[&str] =
    &["*.onnx", "*.pb", "*.tflite", "*.xml", "*.bin", "*.data-00000-of-*"];

const BYTES_MAX: u64 = 512 << 10;

pub(super) fn check(root: &Path, files: &[PathBuf]) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for file in files {
        let metadata = root.join(file).metadata().with_context(|| file.display().to_string())?;
        problems.extend(problem_of(file, metadata.len()));
    }
    Ok(problems)
}

fn problem_of(file: &Path, bytes: u64) -> Option<String> {
    let is_wanted =
        file.components().any(|part| matches!(part.as_os_str().to_str(), Some("tests" | "demo")));
    let problem = if !is_wanted {
        "a model that no test reads; what a test writes belongs in a folder of its own".to_owned()
    } else if bytes > BYTES_MAX {
        format!("{bytes} bytes, more than {BYTES_MAX}; tests fetch large models or make them")
    } else {
        return None;
    };
    Some(format!("{}: {problem}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_lie_with_tests_and_are_small() {
        let problem = |file: &str, bytes| problem_of(Path::new(file), bytes);
        assert_eq!(problem("crates/engines/tests/models/lite/add.tflite", 900), None);
        assert_eq!(problem("demo/models/resnet8/1/saved_model.pb", 100_000), None);
        assert!(problem("crates/onnx/Add.onnx", 900).unwrap().contains("no test reads"));
        assert!(problem("crates/onnx/tests/big.onnx", 1 << 20).unwrap().contains("more than"));
    }
}

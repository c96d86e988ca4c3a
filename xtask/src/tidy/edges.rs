//! Which crate may depend on which. What is not said here is forbidden.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::run::{cargo, take};

/// Crate and what it may see of ours. `app` and tests see all.
const EDGES: &[(&str, &[&str])] = &[
    ("vesta-model", &[]),
    ("vesta-protos", &[]),
    ("vesta-ffi", &[]),
    ("vesta-savedmodel", &["vesta-model", "vesta-protos"]),
    ("vesta-onnx", &["vesta-model", "vesta-protos"]),
    ("vesta-repository", &["vesta-model"]),
    ("vesta-serving", &["vesta-model"]),
    (
        "vesta-engines",
        &["vesta-model", "vesta-protos", "vesta-onnx", "vesta-savedmodel", "vesta-ffi"],
    ),
    ("vesta-worker", &["vesta-model", "vesta-ffi"]),
    ("vesta-frontends", &["vesta-model", "vesta-protos", "vesta-serving"]),
    ("vesta-testkit", &["vesta-model", "vesta-worker"]),
    ("xtask", &[]),
];

/// The crate that wires all others.
const APP: &str = "vesta";

/// Looks at the workspace as cargo sees it.
pub(super) fn check(root: &Path) -> Result<Vec<String>> {
    let metadata =
        take(root, cargo().args(["metadata", "--format-version=1", "--no-deps", "--offline"]))?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists packages")?;
    let mut seen = BTreeMap::new();
    let mut problems = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default().to_owned();
        let ours = package["dependencies"].as_array().into_iter().flatten().filter(|edge| {
            // Tests may see anything: a dev-dependency is no edge of the architecture.
            edge["kind"].as_str() != Some("dev") && edge["path"].is_string()
        });
        seen.insert(
            name.clone(),
            ours.filter_map(|edge| edge["name"].as_str().map(str::to_owned)).collect::<Vec<_>>(),
        );
        problems.extend(manifest(&name, package["manifest_path"].as_str().unwrap_or_default())?);
    }
    problems.extend(forbidden(&seen));
    Ok(problems)
}

/// Every crate takes the workspace's lints.
fn manifest(name: &str, path: &str) -> Result<Option<String>> {
    let text = std::fs::read_to_string(path).with_context(|| path.to_owned())?;
    Ok((!text.contains("[lints]\nworkspace = true"))
        .then(|| format!("{name} does not take the workspace's lints")))
}

fn forbidden(seen: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, targets) in seen {
        if name == APP {
            continue;
        }
        let Some((_, allowed)) = EDGES.iter().find(|(known, _)| known == name) else {
            problems.push(format!(
                "{name} is a new crate: say in ARCHITECTURE.md and here what it may see"
            ));
            continue;
        };
        for target in targets.iter().filter(|target| !allowed.contains(&target.as_str())) {
            problems.push(format!("{name} may not see {target}"));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(name: &str, targets: &[&str]) -> BTreeMap<String, Vec<String>> {
        BTreeMap::from([(name.to_owned(), targets.iter().map(|&t| t.to_owned()).collect())])
    }

    #[test]
    fn an_edge_that_is_not_listed_is_found() {
        assert_eq!(
            forbidden(&world("vesta-serving", &["vesta-model", "vesta-protos"])),
            ["vesta-serving may not see vesta-protos"]
        );
        assert_eq!(forbidden(&world("vesta-serving", &["vesta-model"])), Vec::<String>::new());
        assert_eq!(forbidden(&world("vesta", &["vesta-worker"])), Vec::<String>::new());
        assert_eq!(forbidden(&world("vesta-new", &[])).len(), 1);
    }
}

//! Every row of `docs/compat/` names the scenario that proves it.
//!
//! A row's last cell is `file::name`: a file of the repository that contains the name.

use std::path::Path;

use anyhow::{Context as _, Result};

/// The folder of the compatibility tables.
const FOLDER: &str = "docs/compat";

pub(super) fn check(root: &Path) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for entry in std::fs::read_dir(root.join(FOLDER)).with_context(|| FOLDER.to_owned())? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let text = std::fs::read_to_string(&path)?;
        for (number, cell) in scenarios(&text) {
            if let Some(problem) = broken(root, &cell) {
                problems.push(format!("{FOLDER}/{name}:{number}: {problem}"));
            }
        }
    }
    Ok(problems)
}

/// Line number and last cell of every row; heads and rules of tables are left out.
fn scenarios(text: &str) -> Vec<(usize, String)> {
    let lines: Vec<&str> = text.lines().collect();
    let is_rule = |line: &str| line.starts_with('|') && line.chars().all(|c| "|-: ".contains(c));
    lines
        .iter()
        .enumerate()
        .filter(|(i, line)| {
            line.starts_with('|')
                && !is_rule(line)
                && !lines.get(i + 1).is_some_and(|next| is_rule(next))
        })
        .map(|(i, line)| {
            let cell = line.trim_end_matches(['|', ' ']).rsplit('|').next().unwrap_or_default();
            (i + 1, cell.trim().trim_matches('`').to_owned())
        })
        .collect()
}

fn broken(root: &Path, cell: &str) -> Option<String> {
    let Some((file, name)) = cell.split_once("::") else {
        return Some(format!("`{cell}` names no scenario (file::name)"));
    };
    match std::fs::read_to_string(root.join(file)) {
        Err(_) => Some(format!("the scenario's file {file} does not exist")),
        Ok(text) if !text.contains(name) => Some(format!("{file} has no scenario {name}")),
        Ok(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_cell_of_each_row_is_taken() {
        let text = "# T\n\n| a | scenario |\n|---|---|\n| x \\| y | `f.rs::g` |\n| z | none |\n";
        assert_eq!(scenarios(text), [(5, "f.rs::g".to_owned()), (6, "none".to_owned())]);
    }

    #[test]
    fn a_row_without_its_scenario_is_found() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert_eq!(broken(root, "src/tidy/rows.rs::a_row_without_its_scenario_is_found"), None);
        assert!(broken(root, "src/nothing.rs::x").is_some());
        assert!(broken(root, "none").is_some());
    }
}

//! The page of flags has a line for each flag of the table, with its help.
//!
//! A test of the program holds the page to the table letter by letter; this rule says early, without
//! building anything, that it was forgotten.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};

const TABLE: &str = "crates/app/src/flags/table.rs";
const PAGE: &str = "docs/flags.md";

pub(super) fn check(root: &Path) -> Result<Vec<String>> {
    let read =
        |file: &str| std::fs::read_to_string(root.join(file)).with_context(|| file.to_owned());
    Ok(problems(&in_table(&read(TABLE)?), &on_page(&read(PAGE)?)))
}

fn problems(table: &BTreeMap<String, String>, page: &BTreeMap<String, String>) -> Vec<String> {
    let remedy = "run `vesta flags > docs/flags.md`";
    let mut problems = Vec::new();
    for (name, help) in table {
        match page.get(name) {
            None => problems.push(format!("{PAGE} lacks --{name}; {remedy}")),
            Some(other) if other != help => {
                problems.push(format!("{PAGE} says something else of --{name}; {remedy}"));
            }
            Some(_) => {}
        }
    }
    let gone = page.keys().filter(|name| !table.contains_key(*name));
    problems.extend(
        gone.filter(|name| !["help", "version"].contains(&name.as_str()))
            .map(|name| format!("{PAGE} has --{name}, which is no flag; {remedy}")),
    );
    problems
}

/// Names and helps out of lines like `name: type = default, "help";`.
fn in_table(text: &str) -> BTreeMap<String, String> {
    let rows = text.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("    ")?.split_once(": ")?;
        let help = rest.strip_suffix("\";")?.rsplit_once(", \"")?.1;
        let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        is_name.then(|| (name.to_owned(), help.trim_start_matches("Vesta: ").to_owned()))
    });
    rows.collect()
}

/// The same out of the rows of the page.
fn on_page(text: &str) -> BTreeMap<String, String> {
    let rows = text.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("| `--")?.split_once("` | ")?;
        let help = rest.strip_suffix(" |")?.splitn(3, " | ").nth(2)?;
        Some((name.to_owned(), help.replace("\\|", "|")))
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_that_is_missing_or_gone_is_found() {
        let table = in_table(
            "    port: i32 = 8500, \"The port, or 0.\";\n    x: bool = true, \"Vesta: X.\";",
        );
        let page = on_page(
            "| `--port` | int32 | `8500` | The port, or 0. |\n| `--x` | bool | `true` | X. |",
        );
        assert_eq!(problems(&table, &page), Vec::<String>::new());
        assert_eq!(table.len(), 2);
        assert_eq!(problems(&table, &BTreeMap::new()).len(), 2);
        assert_eq!(problems(&BTreeMap::new(), &page).len(), 2);
        let other = on_page("| `--port` | int32 | `8500` | Something. |\n| `--x` | bool |  | X. |");
        assert_eq!(problems(&table, &other).len(), 1);
    }
}

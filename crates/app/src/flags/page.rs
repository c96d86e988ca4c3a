//! The page of all flags, `docs/flags.md`.
//!
//! Owns: its form. Invariant: everything in it comes out of the table, so it is never behind.

use std::fmt::Write as _;

use super::table::{FLAGS, Flag, Flags};

/// What the help of a flag begins with that the original does not have.
const OWN: &str = "Vesta: ";

const HEAD: &str = "\
# Flags

Made by `vesta flags > docs/flags.md`; change `crates/app/src/flags/table.rs`, not this page. Only
`--name=value` is a flag, a boolean may stand bare, and the last repeat wins. What each flag does in
comparison with TensorFlow Serving, and the test that shows it, is in
[compat/flags.md](compat/flags.md).

## Those of TensorFlow Serving
";

/// The page, as Markdown.
pub(crate) fn page() -> String {
    let defaults = Flags::default();
    let mut text = HEAD.to_owned();
    let (own, original): (Vec<&Flag>, Vec<&Flag>) =
        FLAGS.iter().partition(|flag| flag.help.starts_with(OWN));
    table(&mut text, &original, &defaults);
    // Writing to a String cannot fail.
    let _ = writeln!(text, "| `--version` | bool | `false` | Print the version and end. |");
    let _ = writeln!(text, "| `--help` | bool | `false` | Print the flags and end with 255. |");
    text.push_str("\n## Vesta's own\n");
    table(&mut text, &own, &defaults);
    text
}

fn table(text: &mut String, flags: &[&Flag], defaults: &Flags) {
    text.push_str("\n| flag | type | default | meaning |\n|---|---|---|---|\n");
    for flag in flags {
        let default = match (flag.describe)(defaults) {
            empty if empty.is_empty() => String::new(),
            value => format!("`{value}`"),
        };
        let help = flag.help.strip_prefix(OWN).unwrap_or(flag.help).replace('|', "\\|");
        let _ = writeln!(text, "| `--{}` | {} | {default} | {help} |", flag.name, flag.kind);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_the_repository_is_this_one() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/flags.md");
        let kept = std::fs::read_to_string(file).unwrap_or_default();
        assert!(kept == page(), "docs/flags.md is behind; run `vesta flags > docs/flags.md`");
    }
}

//! Errors of runs that the graph itself raises, carried in the names of nodes.
//!
//! ONNX has no operator that ends a run with a text of one's own. Engines do tell the name of the node at
//! which a run ended.
//! Invariant: what `within_name` writes, [`raised_error`] finds in any text that quotes the name.

const MARK: &str = "error of the model: ";
const PLACE: &str = " [[{{node ";
const END: &str = "}}]]";

/// Longer texts are cut: names of nodes are kept by engines, and told in logs.
const ERROR_CHARS_MAX: usize = 400;

/// The name of a node: `error`, the TensorFlow node it came from, and a name of its own.
pub(crate) fn within_name(error: &str, origin: &str, own: &str) -> String {
    let quoted = |text: &str| -> String {
        let one_line = text.chars().map(|c| if c.is_control() { ' ' } else { c });
        one_line.filter(|c| *c != '\'').take(ERROR_CHARS_MAX).collect()
    };
    format!("{MARK}{}{PLACE}{}{END} {own}", quoted(error), quoted(origin))
}

/// What the model itself says, within what an engine says of a run that ended at one of the nodes that
/// [`crate::translate`] made for that; in TensorFlow's form, with the node on a line of its own.
///
/// ```
/// let text = "while running Gather node. Name:'error of the model: too much [[{{node a/Assert}}]] a/b_7' \
///             Status Message: idx=1";
/// assert_eq!(vesta_onnx::raised_error(text).unwrap(), "too much\n\t [[{{node a/Assert}}]]");
/// assert_eq!(vesta_onnx::raised_error("no memory"), None);
/// ```
#[must_use]
pub fn raised_error(engine_text: &str) -> Option<String> {
    // Of nodes within branches and loops the innermost is named last.
    let (_, rest) = engine_text.rsplit_once(MARK)?;
    let (error, rest) = rest.split_once(PLACE)?;
    let (node, _) = rest.split_once(END)?;
    Some(format!("{error}\n\t{PLACE}{node}{END}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_name_carries_is_found_again() {
        let name = within_name("it's\nwrong", "f/x", "f/x/Gather_3");
        let told = format!("Name:'If_1' Status Message: Name:'{name}' Status Message: idx=1");
        assert_eq!(raised_error(&told).unwrap(), "its wrong\n\t [[{{node f/x}}]]");
    }

    #[test]
    fn long_errors_are_cut() {
        assert!(within_name(&"x".repeat(9000), "y", "z").len() < 500);
    }
}

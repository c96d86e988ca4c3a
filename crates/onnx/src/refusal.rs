//! Why a graph was not translated. Owns the text that an operator of the server reads.

use std::error::Error;
use std::fmt;

/// One node that has no exact translation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refusal {
    /// Its operator, such as `Bincount`.
    pub op: String,
    /// Its name in the graph.
    pub node: String,
    /// What stands in the way.
    pub reason: String,
}

/// The nodes that keep a graph from being translated.
///
/// A node that reads the result of a refused one is listed only when its own operator is unknown,
/// since no more can be said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Untranslatable {
    /// All of them, in the order of the graph; never empty.
    pub operators: Vec<Refusal>,
}

/// Nodes that the text names for each reason; a graph may repeat one a thousand times.
const NODES_SHOWN_MAX: usize = 3;

impl fmt::Display for Untranslatable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the graph has operators that cannot be translated to ONNX exactly: ")?;
        let mut groups: Vec<(&Refusal, Vec<&str>)> = Vec::new();
        for refusal in &self.operators {
            let same = |known: &&mut (&Refusal, Vec<&str>)| {
                known.0.op == refusal.op && known.0.reason == refusal.reason
            };
            match groups.iter_mut().find(same) {
                Some(group) => group.1.push(&refusal.node),
                None => groups.push((refusal, vec![&refusal.node])),
            }
        }
        for (i, (refusal, nodes)) in groups.iter().enumerate() {
            if i > 0 {
                f.write_str("; ")?;
            }
            let shown = nodes.len().min(NODES_SHOWN_MAX);
            write!(f, "{} at {}", refusal.op, nodes[..shown].join(", "))?;
            if nodes.len() > shown {
                write!(f, " and {} more", nodes.len() - shown)?;
            }
            write!(f, " ({})", refusal.reason)?;
        }
        f.write_str("; it needs TensorFlow itself")
    }
}

impl Error for Untranslatable {}

/// Why one node was refused, before it is known which.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reason(pub(crate) String);

/// A refusal as an error value.
pub(crate) fn refuse<T>(reason: impl Into<String>) -> Result<T, Reason> {
    Err(Reason(reason.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_groups_nodes_and_says_what_to_do() {
        let at = |node: &str| Refusal {
            op: "Bincount".into(),
            node: node.into(),
            reason: "no translation".into(),
        };
        let error = Untranslatable { operators: ["a", "b", "c", "d"].map(at).to_vec() };
        assert_eq!(
            error.to_string(),
            "the graph has operators that cannot be translated to ONNX exactly: Bincount at a, b, \
             c and 1 more (no translation); it needs TensorFlow itself"
        );
    }
}

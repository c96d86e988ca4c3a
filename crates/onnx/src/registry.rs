//! The table from TensorFlow operator to translator.
//!
//! Invariant: an operator stands in one family only.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crate::call::Call;
use crate::graph::Graph;
use crate::ops;
use crate::refusal::Reason;
use crate::value::ValueId;

/// What the outputs of a node became.
pub(crate) type Outcome = Result<Vec<ValueId>, Reason>;

/// Writes the ONNX nodes for one TensorFlow node.
pub(crate) type Translator = fn(&mut Graph, &Call<'_>) -> Outcome;

/// Some operators of one kind.
pub(crate) type Family = &'static [(&'static str, Translator)];

const FAMILIES: &[Family] = ops::FAMILIES;

static TABLE: LazyLock<BTreeMap<&'static str, Translator>> =
    LazyLock::new(|| FAMILIES.iter().flat_map(|family| family.iter().copied()).collect());

/// The translator of an operator.
pub(crate) fn translator(op: &str) -> Option<Translator> {
    TABLE.get(op).copied()
}

/// Every TensorFlow operator that has a translation, in alphabetical order.
pub fn translated_operators() -> impl Iterator<Item = &'static str> {
    TABLE.keys().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_operator_stands_twice() {
        let rows: usize = FAMILIES.iter().map(|family| family.len()).sum();
        assert_eq!(rows, TABLE.len());
    }
}

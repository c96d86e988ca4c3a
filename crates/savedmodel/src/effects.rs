//! Which operators make a graph stateful, and which state a graph reads and writes.
//!
//! Invariant: what is not known to be harmless and is declared stateful by the model counts as
//! stateful; the mistake is then a slower engine, not a wrong answer.

use std::collections::{BTreeSet, HashSet};

use vesta_protos::tensorflow::OpDef;

use crate::flatten::Flat;
use crate::graph::{Program, functions_named};

/// What an operator does besides computing its outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Changes what its first input refers to.
    Writes(&'static str),
    /// Depends on or changes something else than its inputs.
    Other(&'static str),
}

impl Effect {
    fn text(self) -> &'static str {
        match self {
            Effect::Writes(text) | Effect::Other(text) => text,
        }
    }
}

const CHANGES_TABLE: Effect = Effect::Writes("changes a table");

/// What running a graph reads and changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Effects {
    /// Why it is stateful.
    pub(crate) reason: Option<String>,
    /// Names of the variables and tables that it reaches.
    pub(crate) reads: BTreeSet<String>,
    /// Names of those that it changes.
    pub(crate) writes: BTreeSet<String>,
    /// Whether it may change others too.
    pub(crate) writes_unknown: bool,
}

/// The effect of operators that TensorFlow defines; `None` for harmless and unknown ones.
pub(crate) fn known_effect(op: &str) -> Option<Effect> {
    use Effect::{Other, Writes};
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| op.starts_with(prefix));
    let is = |names: &[&str]| names.contains(&op);
    if starts(&["Stateless", "TensorScatter"]) {
        return None;
    }
    if starts(&["Assign", "ResourceScatter", "ResourceApply", "ResourceSparseApply", "SparseApply"])
        || starts(&["Apply", "ResourceAccumulator", "ResourceConditionalAccumulator"])
        || (op.starts_with("Scatter") && op != "ScatterNd" && op != "ScatterNdNonAliasingAdd")
        || is(&[
            "ResourceStridedSliceAssign",
            "StridedSliceAssign",
            "CountUpTo",
            "ResourceCountUpTo",
        ])
        || is(&["DestroyResourceOp", "DestroyTemporaryVariable"])
    {
        return Some(Writes("writes a variable"));
    }
    if starts(&["InitializeTable", "LookupTableInsert", "LookupTableImport", "LookupTableRemove"]) {
        return Some(CHANGES_TABLE);
    }
    if starts(&["Random", "ParameterizedTruncatedNormal", "StatefulRandom", "StatefulUniform"])
        && !op.starts_with("RandomDataset")
        || starts(&["StatefulStandardNormal", "StatefulTruncatedNormal", "TruncatedNormal"])
        || is(&[
            "Multinomial",
            "NonDeterministicInts",
            "RngSkip",
            "RngReadAndSkip",
            "SampleDistortedBoundingBox",
        ])
        || is(&["SampleDistortedBoundingBoxV2", "RandomCrop"])
        || op.ends_with("CandidateSampler")
    {
        // Those that take a generator change the variable that holds its state.
        return Some(if starts(&["Stateful", "Rng"]) {
            Writes("draws random numbers")
        } else {
            Other("draws random numbers")
        });
    }
    if starts(&[
        "Iterator",
        "OneShotIterator",
        "AnonymousIterator",
        "MakeIterator",
        "MultiDeviceIterator",
    ]) || starts(&[
        "AnonymousMultiDeviceIterator",
        "DeleteIterator",
        "DeleteMultiDeviceIterator",
    ]) {
        return Some(Other("uses an iterator"));
    }
    if starts(&[
        "Save",
        "Restore",
        "MergeV2Checkpoints",
        "TFRecordReader",
        "TextLineReader",
        "WholeFileReader",
    ]) || starts(&["FixedLengthRecordReader", "IdentityReader", "LMDBReader", "Reader"])
        || is(&["ReadFile", "WriteFile", "MatchingFiles", "ImmutableConst", "ShardedFilespec"])
        || op.ends_with("SummaryWriter")
        || (op.starts_with("Write") && op.ends_with("Summary"))
    {
        return Some(Other("reads or writes files"));
    }
    if is(&["PyFunc", "PyFuncStateless", "EagerPyFunc"]) {
        return Some(Other("calls Python"));
    }
    if starts(&[
        "Queue",
        "FIFOQueue",
        "PaddingFIFOQueue",
        "PriorityQueue",
        "Barrier",
        "Stage",
        "Unstage",
    ]) || starts(&["MapStage", "MapUnstage", "OrderedMap", "RecordInput", "Stack"])
    {
        return Some(Other("keeps a queue"));
    }
    if is(&["Timestamp"]) {
        return Some(Other("reads the clock"));
    }
    None
}

/// Operators that are declared stateful but whose state cannot be told from outside.
fn is_harmless(op: &str) -> bool {
    const NAMES: &[&str] = &[
        "Assert",
        "BatchFunction",
        "Case",
        "DisableCopyOnRead",
        "If",
        "IsVariableInitialized",
        "Placeholder",
        "Print",
        "PrintV2",
        "ReadVariableOp",
        "ResourceGather",
        "ResourceGatherNd",
        "StatefulPartitionedCall",
        "TemporaryVariable",
        "TPUPartitionedCall",
        "VarHandleOp",
        "VarIsInitializedOp",
        "Variable",
        "VariableShape",
        "VariableV2",
        "While",
        "XlaLaunch",
    ];
    const PREFIXES: &[&str] =
        &["HashTable", "MutableHashTable", "MutableDenseHashTable", "LookupTable", "TensorArray"];
    NAMES.contains(&op) || PREFIXES.iter().any(|prefix| op.starts_with(prefix))
}

/// Whether all that an operator gives are handles: making one changes nothing yet.
fn makes_handles(def: &OpDef) -> bool {
    let resource = vesta_model::DType::Resource.number();
    !def.output_arg.is_empty() && def.output_arg.iter().all(|arg| arg.r#type == resource)
}

/// The effect of `op` in `program`.
fn effect(program: &Program<'_>, op: &str) -> Option<Effect> {
    known_effect(op).or_else(|| {
        let def = program.ops.get(op)?;
        let stateful = def.is_stateful && !is_harmless(op) && !makes_handles(def);
        (stateful && !program.functions.contains_key(op))
            .then_some(Effect::Other("is declared stateful by the model"))
    })
}

/// The effects of running `flat`.
pub(crate) fn of(program: &Program<'_>, flat: &Flat<'_>) -> Effects {
    let mut effects = Effects::default();
    for (node, at) in flat.nodes.iter().zip(0..) {
        let op = node.def.op.as_str();
        if let Some(state) = flat.state_name(at) {
            effects.reads.insert(state.to_owned());
        }
        if let Some(effect) = effect(program, op) {
            if let Effect::Writes(_) = effect {
                match node.inputs.first().and_then(|&handle| flat.state_behind(handle)) {
                    Some(state) => {
                        effects.writes.insert(state.to_owned());
                    }
                    // Tables are never frozen, so an unknown one spoils no constant.
                    None => effects.writes_unknown |= effect != CHANGES_TABLE,
                }
            }
            effects.reason.get_or_insert_with(|| {
                format!("operator {op} of node `{}` {}", flat.name(at), effect.text())
            });
        } else if let Some((inner, effect)) = effect_of_functions(program, flat, at) {
            effects.writes_unknown |=
                matches!(effect, Effect::Writes(_)) && effect != CHANGES_TABLE;
            effects.reason.get_or_insert_with(|| {
                format!("operator {inner} under node `{}` ({op}) {}", flat.name(at), effect.text())
            });
        }
    }
    effects
}

/// The first effect in the functions that a node may call, directly or not.
fn effect_of_functions<'a>(
    program: &Program<'a>,
    flat: &Flat<'a>,
    node: u32,
) -> Option<(&'a str, Effect)> {
    let attrs = flat.nodes[node as usize].def.attr.values();
    let mut seen: HashSet<&str> = HashSet::new();
    let mut pending: Vec<&str> = attrs.flat_map(functions_named).collect();
    let mut found = None;
    while let Some(name) = pending.pop() {
        let Some(function) = program.functions.get(name).filter(|_| seen.insert(name)) else {
            continue;
        };
        for node in &function.node_def {
            match effect(program, &node.op) {
                // A write outweighs others, for it concerns the other signatures too.
                Some(effect @ Effect::Writes(_)) => return Some((node.op.as_str(), effect)),
                Some(effect) => found = found.or(Some((node.op.as_str(), effect))),
                None => {}
            }
            pending.push(&node.op);
            pending.extend(node.attr.values().flat_map(functions_named));
        }
    }
    found
}

/// Whether a source is a handle or a reference that operators pass on unchanged.
pub(crate) fn passes_on(op: &str) -> bool {
    matches!(op, "Identity" | "RefIdentity" | "Enter" | "RefEnter" | "Switch" | "RefSwitch")
}

/// Operators that stand for a variable or a table.
pub(crate) fn holds_state(op: &str) -> bool {
    is_variable(op) || op.contains("HashTable")
}

/// Operators that stand for a variable.
pub(crate) fn is_variable(op: &str) -> bool {
    matches!(op, "VarHandleOp" | "VariableV2" | "Variable")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_are_told_apart() {
        for op in
            ["Assign", "AssignSubVariableOp", "ScatterUpdate", "ResourceScatterNdAdd", "ApplyAdam"]
        {
            assert!(matches!(known_effect(op), Some(Effect::Writes(_))), "{op}");
        }
        for op in [
            "RandomUniform",
            "IteratorGetNext",
            "ReadFile",
            "PyFunc",
            "RestoreV2",
            "TruncatedNormal",
        ] {
            assert!(matches!(known_effect(op), Some(Effect::Other(_))), "{op}");
        }
        for op in [
            "ScatterNd",
            "TensorScatterUpdate",
            "StatelessRandomUniformV2",
            "LookupTableFindV2",
            "Stack",
        ] {
            assert_eq!(known_effect(op).is_some(), op == "Stack", "{op}");
        }
    }
}

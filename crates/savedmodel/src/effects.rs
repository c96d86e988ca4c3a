//! Which operators make a graph stateful, and which state a graph reads and writes.
//!
//! Invariant: what is not known to be harmless and is declared stateful by the model counts as
//! stateful; the mistake is then a slower engine, not a wrong answer.

use std::collections::{BTreeSet, HashSet};

use vesta_protos::tensorflow::OpDef;

use crate::flat::Flat;
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

/// Operators by the beginnings of their names, those of whole names, and what they do. The first
/// rule that fits counts.
const RULES: &[(&[&str], &[&str], Option<Effect>)] = {
    const WRITES: Option<Effect> = Some(Effect::Writes("writes a variable"));
    const RANDOM: &str = "draws random numbers";
    const FILES: Option<Effect> = Some(Effect::Other("reads or writes files"));
    const QUEUE: Option<Effect> = Some(Effect::Other("keeps a queue"));
    &[
        (&["Stateless", "TensorScatter", "RandomDataset"], &["ScatterNd"], None),
        (&["ScatterNdNonAliasingAdd"], &[], None),
        (
            &["Assign", "Scatter", "Apply", "SparseApply", "CountUpTo"],
            &["StridedSliceAssign"],
            WRITES,
        ),
        (
            &["ResourceScatter", "ResourceApply", "ResourceSparseApply", "ResourceCountUpTo"],
            &[],
            WRITES,
        ),
        (&["ResourceAccumulator", "ResourceConditionalAccumulator"], &[], WRITES),
        (
            &["DestroyTemporaryVariable"],
            &["ResourceStridedSliceAssign", "DestroyResourceOp"],
            WRITES,
        ),
        (
            &["InitializeTable", "LookupTableInsert", "LookupTableImport", "LookupTableRemove"],
            &[],
            Some(CHANGES_TABLE),
        ),
        // Those that take a generator change the variable that holds its state.
        (
            &["StatefulRandom", "StatefulUniform", "StatefulStandardNormal", "Rng"],
            &["StatefulTruncatedNormal"],
            Some(Effect::Writes(RANDOM)),
        ),
        (
            &["Random", "ParameterizedTruncatedNormal", "TruncatedNormal", "SampleDistorted"],
            &["Multinomial", "NonDeterministicInts"],
            Some(Effect::Other(RANDOM)),
        ),
        (
            &["Iterator", "OneShotIterator", "AnonymousIterator", "MakeIterator"],
            &["DeleteIterator", "DeleteMultiDeviceIterator"],
            Some(Effect::Other("uses an iterator")),
        ),
        (
            &["MultiDeviceIterator", "AnonymousMultiDeviceIterator"],
            &[],
            Some(Effect::Other("uses an iterator")),
        ),
        (&["Save", "Restore", "MergeV2Checkpoints", "Reader", "TFRecordReader"], &[], FILES),
        (&["TextLineReader", "WholeFileReader", "FixedLengthRecordReader"], &[], FILES),
        (
            &["IdentityReader", "LMDBReader"],
            &["ReadFile", "WriteFile", "MatchingFiles", "ImmutableConst"],
            FILES,
        ),
        (&[], &["PyFunc", "PyFuncStateless", "EagerPyFunc"], Some(Effect::Other("calls Python"))),
        (&["Queue", "FIFOQueue", "PaddingFIFOQueue", "PriorityQueue", "Barrier"], &[], QUEUE),
        (&["RandomShuffleQueue", "Stage", "Unstage", "MapStage", "MapUnstage"], &[], QUEUE),
        (&["OrderedMap", "RecordInput", "Stack"], &[], QUEUE),
        (&[], &["Timestamp"], Some(Effect::Other("reads the clock"))),
    ]
};

/// The effect of operators that TensorFlow defines; `None` for harmless and unknown ones.
pub(crate) fn known_effect(op: &str) -> Option<Effect> {
    if op.ends_with("CandidateSampler") {
        return Some(Effect::Other("draws random numbers"));
    }
    if op.ends_with("SummaryWriter") || (op.starts_with("Write") && op.ends_with("Summary")) {
        return Some(Effect::Other("reads or writes files"));
    }
    let fits = |(prefixes, names, _): &&(&[&str], &[&str], Option<Effect>)| {
        names.contains(&op) || prefixes.iter().any(|prefix| op.starts_with(prefix))
    };
    RULES.iter().find(fits).and_then(|&(_, _, effect)| effect)
}

/// Operators that are declared stateful but whose state cannot be told from outside.
fn is_harmless(op: &str) -> bool {
    const NAMES: &[&str] = &[
        "Assert",
        "CheckNumerics",
        "CheckNumericsV2",
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
        for op in
            ["ScatterNd", "TensorScatterUpdate", "StatelessRandomUniformV2", "LookupTableFindV2"]
        {
            assert_eq!(known_effect(op), None, "{op}");
        }
    }
}

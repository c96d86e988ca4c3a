//! Which node runs where: the static partition of all signatures over host and numeric engine.
//!
//! A signature becomes a list of steps. Host steps run one node; a numeric step runs a part of the
//! graph in the numeric engine. Both kinds may alternate. The numeric parts of all signatures form
//! one graph ([`super::merge`]), so that weights are held once.
//!
//! May not know: how either side computes. Invariant: what a numeric part reads from the host or
//! from an earlier part comes in through a declared input, so any part can be run by itself.

use std::collections::BTreeSet;
use std::sync::Arc;

use vesta_model::{DType, Status, Tensor};
use vesta_protos::tensorflow::NodeDef;

use super::analysis::{Analysis, Operation, Origin, SignatureGraph, ValueId, analyse};
use super::host::Kernel;
use super::merge::{Merger, NumericGraph};
use super::sizes::sizes;

/// Signatures of up to this many light nodes stay on the host as a whole: handing them over would
/// cost more than they do.
pub(crate) const LIGHT_NODES_MAX: usize = 64;

/// Position of a tensor during a run.
pub(crate) type Slot = usize;

/// One signature, ready to run.
pub(crate) struct Program {
    /// Slot and dtype of each feed, in the order of the signature's inputs.
    pub(crate) feeds: Vec<(Slot, DType)>,
    pub(crate) constants: Vec<(Slot, Tensor)>,
    pub(crate) steps: Vec<Step>,
    /// Slot and dtype of each fetch, in the order of the signature's outputs.
    pub(crate) fetches: Vec<(Slot, DType)>,
    pub(crate) slots: usize,
}

/// One step of a program.
pub(crate) enum Step {
    /// A node on the host.
    Host { kernel: Arc<Kernel>, op: String, node: String, inputs: Vec<Slot>, outputs: Vec<Slot> },
    /// A part of a numeric graph.
    Numeric(NumericStep),
}

/// A part of a numeric graph, run by naming the inputs given and the outputs wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NumericStep {
    /// Slots and positions in [`NumericGraph::feeds`].
    pub(crate) inputs: Vec<(Slot, usize)>,
    /// Positions in [`NumericGraph::fetches`] and slots.
    pub(crate) outputs: Vec<(usize, Slot)>,
}

impl Step {
    /// Slots it reads.
    pub(crate) fn reads(&self) -> impl Iterator<Item = Slot> + '_ {
        let (host, numeric) = match self {
            Step::Host { inputs, .. } => (&inputs[..], &[][..]),
            Step::Numeric(step) => (&[][..], &step.inputs[..]),
        };
        host.iter().copied().chain(numeric.iter().map(|(slot, _)| *slot))
    }

    /// Slots it fills.
    pub(crate) fn fills(&self) -> impl Iterator<Item = Slot> + '_ {
        let (host, numeric) = match self {
            Step::Host { outputs, .. } => (&outputs[..], &[][..]),
            Step::Numeric(step) => (&[][..], &step.outputs[..]),
        };
        host.iter().copied().chain(numeric.iter().map(|(_, slot)| *slot))
    }
}

/// All signatures of a version.
pub(crate) struct Plan {
    /// In the order of the signatures given.
    pub(crate) programs: Vec<Program>,
    /// The numeric parts of all of them; without nodes when the host does all.
    pub(crate) numeric: NumericGraph,
}

/// Why a version cannot be run.
#[derive(Debug)]
pub(crate) enum Obstacle {
    /// Nodes of one signature that have no place.
    Operators { signature: String, missing: Vec<Missing> },
    /// The graph contradicts itself.
    Broken { signature: String, status: Status },
}

/// A node that has no place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    pub(crate) node: String,
    /// The operator and the dtype it is used with, such as `MatMul (double)`.
    pub(crate) operator: String,
}

/// Says whether the numeric engine computes a node exactly, given dtypes of inputs and outputs.
pub(crate) type Admits<'a> = &'a dyn Fn(&NodeDef, &[DType], &[DType]) -> bool;

/// Places all nodes of all signatures. A signature of at most `light_nodes_max` nodes which the host
/// can run as a whole stays there ([`LIGHT_NODES_MAX`]).
///
/// # Errors
/// The first signature that cannot be run, with every operator that is missing for it.
pub(crate) fn plan(
    graphs: &[SignatureGraph],
    admits: Admits<'_>,
    light_nodes_max: usize,
) -> Result<Plan, Obstacle> {
    let mut merger = Merger::default();
    let mut programs = Vec::with_capacity(graphs.len());
    for graph in graphs {
        let loops = loops(graph);
        if !loops.is_empty() {
            return Err(Obstacle::Operators { signature: graph.name.clone(), missing: loops });
        }
        let broken = |status| Obstacle::Broken { signature: graph.name.clone(), status };
        let analysis = analyse(graph).map_err(broken)?;
        let placed = place(&analysis, &graph.name, admits, light_nodes_max)?;
        programs.push(placed.program(graph, &mut merger).map_err(broken)?);
    }
    Ok(Plan { programs, numeric: merger.finish() })
}

/// The nodes of TF1's loops, if there is one: its edges go in a circle, so the graph has no order that
/// could be analysed.
fn loops(graph: &SignatureGraph) -> Vec<Missing> {
    const OPERATORS: &[&str] = &["Enter", "Exit", "LoopCond", "Merge", "NextIteration", "Switch"];
    let bare = |node: &NodeDef| node.op.strip_prefix("Ref").unwrap_or(&node.op).to_owned();
    if !graph.nodes.iter().any(|node| bare(node) == "NextIteration") {
        return Vec::new();
    }
    let of_loops = graph.nodes.iter().filter(|node| OPERATORS.contains(&bare(node).as_str()));
    of_loops.map(|node| Missing { node: node.name.clone(), operator: node.op.clone() }).collect()
}

/// Where an operation runs: on the host or in the numeric engine, and in which turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    numeric: bool,
    level: usize,
}

struct Placed<'p, 'a> {
    analysis: &'p Analysis<'a>,
    /// One per operation.
    places: Vec<Place>,
}

fn place<'p, 'a>(
    analysis: &'p Analysis<'a>,
    signature: &str,
    admits: Admits<'_>,
    light_nodes_max: usize,
) -> Result<Placed<'p, 'a>, Obstacle> {
    let dtypes = |ids: &[ValueId]| -> Vec<DType> {
        ids.iter().map(|&id| analysis.values[id].dtype).collect()
    };
    let light = analysis.operations.len() <= light_nodes_max
        && analysis.operations.iter().all(|operation| runs_on_host(analysis, operation));
    let sizes = tells_sizes(analysis);
    let mut missing = Vec::new();
    let mut chosen: Vec<Choice> = Vec::with_capacity(analysis.operations.len());
    for operation in &analysis.operations {
        let on_host = runs_on_host(analysis, operation);
        let numeric = exact_numbers(analysis, &sizes, operation)
            && picks_surely(analysis, operation)
            && admits(operation.node, &dtypes(&operation.inputs), &dtypes(&operation.outputs));
        if !on_host && !numeric {
            missing.push(Missing {
                node: operation.node.name.clone(),
                operator: operation.described(&analysis.values),
            });
            chosen.push(Choice { numeric: false, may_follow: false });
            continue;
        }
        let stays = light || (on_host && stays(analysis, operation, &chosen));
        let tells = operation.outputs.iter().all(|&id| sizes[id]);
        chosen.push(Choice { numeric: numeric && !stays, may_follow: numeric && !light && tells });
    }
    if !missing.is_empty() {
        return Err(Obstacle::Operators { signature: signature.to_owned(), missing });
    }
    follow(analysis, &mut chosen);
    let mut places: Vec<Place> = Vec::with_capacity(chosen.len());
    for (operation, choice) in analysis.operations.iter().zip(&chosen) {
        let level = level(analysis, &places, operation, choice.numeric);
        places.push(Place { numeric: choice.numeric, level });
    }
    Ok(Placed { analysis, places })
}

/// On which side an operation is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Choice {
    numeric: bool,
    /// Whether it may go to the numeric engine when a reader is there: what it gives are sizes.
    may_follow: bool,
}

/// Takes what computes sizes to where they are read: the translation has to see how a size comes
/// about, to know the shape that it makes.
fn follow(analysis: &Analysis<'_>, chosen: &mut [Choice]) {
    for at in (0..chosen.len()).rev() {
        if chosen[at].numeric || !chosen[at].may_follow {
            continue;
        }
        let outputs = &analysis.operations[at].outputs;
        let mut later = analysis.operations.iter().zip(chosen.iter()).skip(at + 1);
        chosen[at].numeric = later.any(|(reader, choice)| {
            choice.numeric && reader.inputs.iter().any(|id| outputs.contains(id))
        });
    }
}

/// For each value whether it follows from shapes and constants alone.
fn tells_sizes(analysis: &Analysis<'_>) -> Vec<bool> {
    let mut tells: Vec<bool> = analysis
        .values
        .iter()
        .map(|value| matches!(value.origin, Origin::Folded(_) | Origin::Weights(_)))
        .collect();
    for operation in &analysis.operations {
        let shape = matches!(operation.node.op.as_str(), "Shape" | "Size" | "Rank");
        let all = shape || operation.inputs.iter().all(|&id| tells[id]);
        operation.outputs.iter().for_each(|&id| tells[id] = all);
    }
    tells
}

/// Whether the whole numbers that a node gives, and the wide ones that it takes, are sizes of
/// tensors. The numeric engine holds all of them in 32 bits, so numbers out of a request stay on the
/// host; int32 may be read there, for it fits.
fn exact_numbers(analysis: &Analysis<'_>, sizes: &[bool], operation: &Operation<'_>) -> bool {
    let dtype = |id: ValueId| analysis.values[id].dtype;
    operation.outputs.iter().all(|&id| sizes[id] || !matches!(dtype(id), DType::I32 | DType::I64))
        && operation.inputs.iter().all(|&id| sizes[id] || dtype(id) != DType::I64)
}

/// Whether a node that looks up rows does so by indices that are known at load: by any others the
/// numeric engine gives an answer where TensorFlow has an error.
fn picks_surely(analysis: &Analysis<'_>, operation: &Operation<'_>) -> bool {
    !matches!(operation.node.op.as_str(), "Gather" | "GatherV2")
        || operation.inputs.get(1).is_some_and(|&id| {
            matches!(analysis.values[id].origin, Origin::Folded(_) | Origin::Weights(_))
        })
}

/// Whether the host computes every output of the node that is read.
fn runs_on_host(analysis: &Analysis<'_>, operation: &Operation<'_>) -> bool {
    let Some(kernel) = &operation.kernel else { return false };
    (0..operation.outputs.len())
        .all(|at| kernel.computes(at) || !is_read(analysis, operation.outputs[at]))
}

fn is_read(analysis: &Analysis<'_>, value: ValueId) -> bool {
    analysis.fetches.contains(&value)
        || analysis.operations.iter().any(|operation| operation.inputs.contains(&value))
}

/// Whether a node that could run in the numeric engine should stay on the host: it changes nothing
/// but a shape, or moves something other than floats, and all it reads is on the host anyway.
fn stays(analysis: &Analysis<'_>, operation: &Operation<'_>, chosen: &[Choice]) -> bool {
    let from_host = operation.inputs.iter().all(|&id| match analysis.values[id].origin {
        Origin::Operation(at) => !chosen[at].numeric,
        _ => true,
    });
    let free = matches!(
        operation.node.op.as_str(),
        "Reshape" | "ExpandDims" | "Squeeze" | "Shape" | "Size" | "Rank"
    );
    let dtype = operation.outputs.first().map(|&id| analysis.values[id].dtype);
    let moves = operation.kernel.as_ref().is_some_and(|kernel| kernel.moves);
    // Rows of a table are copied by the host as fast as by anyone, and it refuses what lies outside.
    let looks_up = matches!(operation.node.op.as_str(), "Gather" | "GatherV2");
    from_host && (free || looks_up || (moves && dtype != Some(DType::F32)))
}

/// The turn in which an operation can run: numeric turn `n` comes after host turn `n`, host turn
/// `n + 1` after numeric turn `n`.
fn level(
    analysis: &Analysis<'_>,
    places: &[Place],
    operation: &Operation<'_>,
    numeric: bool,
) -> usize {
    let mut level = 0;
    for &id in &operation.inputs {
        let Origin::Operation(at) = analysis.values[id].origin else { continue };
        let from = places[at];
        level = level.max(from.level + usize::from(from.numeric && !numeric));
    }
    level
}

impl Placed<'_, '_> {
    /// Turns the signature into steps and adds its numeric parts to the common graph.
    fn program(&self, graph: &SignatureGraph, merger: &mut Merger) -> Result<Program, Status> {
        let dtyped = |ids: &[ValueId]| -> Vec<(Slot, DType)> {
            ids.iter().map(|&id| (id, self.analysis.values[id].dtype)).collect()
        };
        let mut program = Program {
            feeds: dtyped(&self.analysis.feeds),
            constants: Vec::new(),
            steps: Vec::new(),
            fetches: dtyped(&self.analysis.fetches),
            slots: self.analysis.values.len(),
        };
        let sizes = sizes(self.analysis, graph);
        let mut part = merger.signature(self.analysis, &sizes);
        let levels = self.places.iter().map(|place| place.level + 1).max().unwrap_or(0);
        for level in 0..levels {
            self.host_steps(level, &mut program.steps);
            let members: Vec<usize> = self.at(Place { numeric: true, level }).collect();
            if members.is_empty() {
                continue;
            }
            let inside: BTreeSet<ValueId> = members
                .iter()
                .flat_map(|&at| &self.analysis.operations[at].outputs)
                .copied()
                .collect();
            for &at in &members {
                part.add(&self.analysis.operations[at], &inside)?;
            }
            let leaving = inside.into_iter().filter(|&id| self.leaves(id, level));
            program.steps.push(Step::Numeric(part.step(leaving)?));
        }
        let mut wanted: BTreeSet<Slot> = self.analysis.fetches.iter().copied().collect();
        wanted.extend(program.steps.iter().flat_map(Step::reads));
        for id in wanted {
            if let Some(tensor) = self.analysis.constant(id)? {
                program.constants.push((id, tensor));
            }
        }
        Ok(program)
    }

    fn at(&self, place: Place) -> impl Iterator<Item = usize> + '_ {
        (0..self.places.len()).filter(move |&at| self.places[at] == place)
    }

    fn host_steps(&self, level: usize, steps: &mut Vec<Step>) {
        for at in self.at(Place { numeric: false, level }) {
            let operation = &self.analysis.operations[at];
            if let Some(kernel) = &operation.kernel {
                steps.push(Step::Host {
                    kernel: Arc::clone(kernel),
                    op: operation.node.op.clone(),
                    node: operation.node.name.clone(),
                    inputs: operation.inputs.clone(),
                    outputs: operation.outputs.clone(),
                });
            }
        }
    }

    /// Whether an output of a numeric operation is read outside its part.
    fn leaves(&self, id: ValueId, level: usize) -> bool {
        self.analysis.fetches.contains(&id)
            || self.analysis.operations.iter().zip(&self.places).any(|(operation, place)| {
                operation.inputs.contains(&id) && *place != Place { numeric: true, level }
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::analysis::Feed;
    use std::collections::BTreeMap;
    use vesta_model::PartialShape;
    use vesta_protos::tensorflow::{AttrValue, attr_value::Value};

    fn node(op: &str, name: &str, inputs: &[&str], dtype: DType) -> NodeDef {
        let value = Some(Value::Type(dtype.number()));
        NodeDef {
            name: name.to_owned(),
            op: op.to_owned(),
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            attr: BTreeMap::from([("T".to_owned(), AttrValue { value })]),
            ..NodeDef::default()
        }
    }

    fn graph(name: &str, feed: &str, fetch: &str, nodes: Vec<NodeDef>) -> SignatureGraph {
        let feed = Feed {
            tensor: feed.to_owned(),
            dtype: DType::F32,
            shape: PartialShape::Ranked(vec![None, Some(2)]),
        };
        SignatureGraph {
            name: name.to_owned(),
            nodes,
            feeds: vec![feed],
            fetches: vec![fetch.to_owned()],
        }
    }

    /// Numeric takes products; the host takes `Neg`.
    fn admits(node: &NodeDef, _: &[DType], _: &[DType]) -> bool {
        node.op == "MatMul"
    }

    fn kinds(program: &Program) -> Vec<&str> {
        program
            .steps
            .iter()
            .map(|step| match step {
                Step::Host { node, .. } => node.as_str(),
                Step::Numeric(_) => "numeric",
            })
            .collect()
    }

    #[test]
    fn parts_alternate_in_the_order_of_what_they_read() {
        let f = DType::F32;
        let nodes = vec![
            node("MatMul", "a", &["x:0", "x:0"], f),
            node("Neg", "b", &["a:0"], f),
            node("MatMul", "c", &["b:0", "a:0"], f),
            node("Neg", "unread", &["a:0"], f),
        ];
        let plan = plan(&[graph("s", "x:0", "c:0", nodes)], &admits, 0).unwrap();
        assert_eq!(kinds(&plan.programs[0]), ["numeric", "b", "numeric"]);
        // The product `a` leaves the first part and comes into the second as an input.
        assert_eq!(plan.numeric.feeds.len(), 3);
        assert_eq!(plan.numeric.fetches.len(), 2);
    }

    #[test]
    fn equal_networks_of_two_signatures_are_one() {
        let f = DType::F32;
        let first = graph("a", "x:0", "p/m:0", vec![node("MatMul", "p/m", &["x:0", "x:0"], f)]);
        let second = graph("b", "y:0", "q/m:0", vec![node("MatMul", "q/m", &["y:0", "y:0"], f)]);
        let plan = plan(&[first, second], &admits, 0).unwrap();
        assert_eq!(plan.numeric.nodes.len(), 1);
        assert_eq!(plan.numeric.feeds.len(), 1);
    }

    #[test]
    fn nodes_of_one_name_and_two_meanings_stay_two() {
        let f = DType::F32;
        let first = graph("a", "x:0", "m:0", vec![node("MatMul", "m", &["x:0", "x:0"], f)]);
        let other =
            vec![node("MatMul", "n", &["x:0", "x:0"], f), node("MatMul", "m", &["n:0", "x:0"], f)];
        let plan = plan(&[first, graph("b", "x:0", "m:0", other)], &admits, 0).unwrap();
        assert_eq!(plan.numeric.nodes.len(), 2);
        let names: BTreeSet<&str> =
            plan.numeric.nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names.len(), 2);
    }

    #[test]
    fn every_missing_operator_is_named() {
        let nodes = vec![
            node("MatrixInverse", "a", &["x:0"], DType::F32),
            node("Cholesky", "b", &["a:2"], DType::F32),
        ];
        let Err(Obstacle::Operators { signature, missing }) =
            plan(&[graph("s", "x:0", "b:0", nodes)], &admits, 0)
        else {
            panic!("it was placed")
        };
        let missing: Vec<&str> = missing.iter().map(|missing| missing.operator.as_str()).collect();
        assert_eq!(
            (signature.as_str(), missing),
            ("s", vec!["MatrixInverse (float)", "Cholesky (float)"])
        );
    }

    #[test]
    fn light_signatures_stay_on_the_host() {
        let both = |node: &NodeDef, _: &[DType], _: &[DType]| node.op == "Neg";
        let graphs = [graph("s", "x:0", "n:0", vec![node("Neg", "n", &["x:0"], DType::F32)])];
        assert_eq!(kinds(&plan(&graphs, &both, 1).unwrap().programs[0]), ["n"]);
        assert_eq!(kinds(&plan(&graphs, &both, 0).unwrap().programs[0]), ["numeric"]);
    }

    #[test]
    fn a_fetch_that_is_fed_takes_no_step() {
        let plan = plan(&[graph("s", "x:0", "x:0", vec![])], &admits, 0).unwrap();
        assert!(plan.programs[0].steps.is_empty());
        assert_eq!(plan.programs[0].feeds, plan.programs[0].fetches);
    }

    #[test]
    fn a_graph_that_reads_what_nothing_gives_is_broken() {
        let graphs = [graph("s", "x:0", "n:0", vec![node("Neg", "n", &["gone:0"], DType::F32)])];
        assert!(matches!(plan(&graphs, &admits, 0), Err(Obstacle::Broken { .. })));
    }
}

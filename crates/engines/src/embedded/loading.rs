//! From a directory to a session: reads, freezes, places, translates, loads.
//!
//! May not know: how requests are run. Invariant: when it returns, the model's files and protobufs
//! are let go; a refusal names the signature, what is missing and what to do.

use std::collections::BTreeMap;
use std::sync::Arc;

use vesta_model::{DType, LoadRequest, Signature, Status};
use vesta_onnx::Refusal;
use vesta_protos::tensorflow::NodeDef;
use vesta_savedmodel::{FrozenGraph, SavedModel};

use super::analysis::{Feed, SignatureGraph};
use super::capability;
use super::inline_safety;
use super::numeric::{NumericModel, NumericObstacle};
use super::onnx;
use super::plan::{LIGHT_NODES_MAX, Missing, Obstacle, Plan, Program, plan};
use super::session::{Callable, EmbeddedSession, Shared};
use crate::OnnxModel;
use crate::model_settings::open_model;

/// Rounds of placing and translating. Each takes nodes off the numeric engine that turned out to
/// have no exact counterpart; real models need one or two.
const ROUNDS_MAX: usize = 16;

/// What to do about a model that this engine refuses.
const ADVICE: &str = "install TensorFlow with `vesta engine install tensorflow`";

/// The same of an ONNX file.
const ADVICE_ON_ONNX: &str = "install ONNX Runtime with `vesta engine install onnxruntime`";

/// Nodes that a refusal names for each operator.
const NODES_NAMED_MAX: usize = 3;

/// Loads one version.
pub(crate) fn load(request: &LoadRequest) -> Result<EmbeddedSession, Status> {
    if OnnxModel::is_alone_in(&request.artifact) {
        return onnx::load(request, |why| refused_for(request, "", why, ADVICE_ON_ONNX));
    }
    let model = open_model(&request.artifact, &request.tags)?;
    let graphs = frozen(&model, request)?;
    let mut description = model.description().clone();
    let placed = Placed::new(&graphs, request, LIGHT_NODES_MAX)?;
    let inline = placed.inline_verdict();
    // All that is needed was copied: the model's bytes go before the first request comes.
    let names: Vec<String> = graphs.into_iter().map(|graph| graph.name).collect();
    drop(model);
    let callable: BTreeMap<String, Callable> = names
        .into_iter()
        .zip(placed.plan.programs)
        .filter_map(|(name, program)| {
            let signature = description.signatures.get_mut(&name)?;
            say_what_is_fed(signature, &program);
            Some((name, Callable { signature: Arc::clone(signature), program }))
        })
        .collect();
    let shared = Shared { callable, numeric: placed.model, threads: request.threads.max(1) };
    Ok(EmbeddedSession::new(description, shared, inline))
}

/// Writes down where the graph takes another dtype than the signature declares.
fn say_what_is_fed(signature: &mut Arc<Signature>, program: &Program) {
    for (index, &(_, taken)) in program.feeds.iter().enumerate() {
        if signature.inputs.get(index).is_some_and(|spec| spec.dtype != taken) {
            Arc::make_mut(signature).inputs[index].fed_as = Some(taken);
        }
    }
}

/// Every signature that clients can call, frozen.
fn frozen(model: &SavedModel, request: &LoadRequest) -> Result<Vec<SignatureGraph>, Status> {
    let mut graphs = Vec::new();
    for (name, signature) in &model.description().signatures {
        if !is_callable(signature) {
            continue;
        }
        let graph = model.freeze(name).map_err(|status| {
            status.prefixed(&format!("signature {name} of {}: ", said(request)))
        })?;
        if let Some(reason) = &graph.stateful {
            return Err(refused(request, name, &format!("it keeps state ({reason})")));
        }
        if !graph.dropped_checks.is_empty() {
            // TensorFlow answers with an error where such a check fails; without it there would be
            // an answer that nobody should trust.
            let checks = graph.dropped_checks.join(", ");
            return Err(refused(
                request,
                name,
                &format!("it has checks that are not made ({checks})"),
            ));
        }
        graphs.push(taken(name, graph)?);
    }
    if graphs.is_empty() {
        return Err(Status::invalid_argument(format!(
            "{} has no signature that could be called",
            said(request)
        )));
    }
    Ok(graphs)
}

/// Init operators have an output that is no tensor; they are described but never called.
pub(crate) fn is_callable(signature: &Signature) -> bool {
    let real = |dtype: DType| dtype != DType::Invalid;
    !signature.outputs.is_empty() && signature.outputs.iter().any(|spec| real(spec.dtype))
}

fn taken(name: &str, graph: FrozenGraph) -> Result<SignatureGraph, Status> {
    let feeds = graph
        .feeds
        .into_iter()
        .map(|feed| Feed { tensor: feed.tensor, dtype: feed.dtype, shape: feed.shape })
        .collect();
    Ok(SignatureGraph { name: name.to_owned(), nodes: graph.nodes, feeds, fetches: graph.fetches })
}

/// A plan with its numeric part loaded.
pub(crate) struct Placed {
    pub(crate) plan: Plan,
    pub(crate) model: Option<NumericModel>,
}

impl Placed {
    /// Places and loads; see [`plan()`] for `light_nodes_max`.
    ///
    /// # Errors
    /// `UNIMPLEMENTED` with what is missing, `INVALID_ARGUMENT` for graphs that make no sense.
    pub(crate) fn new(
        graphs: &[SignatureGraph],
        request: &LoadRequest,
        light_nodes_max: usize,
    ) -> Result<Placed, Status> {
        let mut kept: BTreeMap<String, String> = BTreeMap::new();
        for _ in 0..ROUNDS_MAX {
            let plan = placed(graphs, &kept, light_nodes_max, request)?;
            if plan.numeric.nodes.is_empty() {
                return Ok(Placed { plan, model: None });
            }
            match NumericModel::load(plan.numeric.clone()) {
                Ok(model) => return Ok(Placed { plan, model: Some(model) }),
                Err(NumericObstacle::Engine(text)) => {
                    return Err(refused(request, "", &format!("it cannot be loaded: {text}")));
                }
                Err(NumericObstacle::Nodes(refusals)) => exclude(&mut kept, &refusals),
            }
        }
        Err(refused(request, "", "no division of its graph was found"))
    }
}

impl Placed {
    fn inline_verdict(&self) -> Result<(), String> {
        inline_safety::check(&self.plan)?;
        self.model.as_ref().map_or(Ok(()), NumericModel::is_bounded)
    }
}

/// Takes refused nodes off the numeric engine, with the reason.
fn exclude(kept: &mut BTreeMap<String, String>, refusals: &[Refusal]) {
    for refusal in refusals {
        // Copies of a node under one name carry a number.
        let name = match refusal.node.rsplit_once('~') {
            Some((name, copy)) if copy.parse::<u32>().is_ok() => name,
            _ => &refusal.node,
        };
        kept.entry(name.to_owned()).or_insert_with(|| refusal.reason.clone());
    }
}

/// Places all signatures; nodes in `kept` stay off the numeric engine.
fn placed(
    graphs: &[SignatureGraph],
    kept: &BTreeMap<String, String>,
    light_nodes_max: usize,
    request: &LoadRequest,
) -> Result<Plan, Status> {
    let admits = |node: &NodeDef, inputs: &[DType], outputs: &[DType]| {
        !kept.contains_key(&node.name) && capability::is_candidate(node, inputs, outputs)
    };
    plan(graphs, &admits, light_nodes_max).map_err(|obstacle| match obstacle {
        Obstacle::Broken { signature, status } => {
            status.prefixed(&format!("signature {signature} of {}: ", said(request)))
        }
        Obstacle::Operators { signature, missing } => {
            refused(request, &signature, &format!("it has no {}", named(missing, kept)))
        }
    })
}

/// Operators, each with some of the nodes where it stands.
pub(super) fn named(missing: Vec<Missing>, kept: &BTreeMap<String, String>) -> String {
    let mut operators: BTreeMap<(String, Option<&String>), Vec<String>> = BTreeMap::new();
    for Missing { node, operator } in missing {
        let reason = kept.get(&node);
        operators.entry((operator, reason)).or_default().push(node);
    }
    let texts = operators.into_iter().map(|((operator, reason), nodes)| {
        let shown = nodes.len().min(NODES_NAMED_MAX);
        let more = match nodes.len() - shown {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let why = reason.map_or_else(String::new, |reason| format!(" ({reason})"));
        format!("{operator} at {}{more}{why}", nodes[..shown].join(", "))
    });
    texts.collect::<Vec<String>>().join("; no ")
}

fn said(request: &LoadRequest) -> String {
    format!("model {} version {}", request.model, request.version)
}

fn refused(request: &LoadRequest, signature: &str, why: &str) -> Status {
    refused_for(request, signature, why, ADVICE)
}

fn refused_for(request: &LoadRequest, signature: &str, why: &str, advice: &str) -> Status {
    let of =
        if signature.is_empty() { String::new() } else { format!("signature {signature} of ") };
    Status::unimplemented(format!(
        "the embedded engine cannot run {of}{}: {why}; {advice}",
        said(request)
    ))
}

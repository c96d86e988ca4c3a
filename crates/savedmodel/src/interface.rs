//! The signature of a graph that has none: what requests give it, and what they ask for.
//!
//! Owns the search for inputs and outputs, and what is said where there is no telling. Invariant: a
//! tensor is called by its node's name, with `:N` behind it where it is not the node's first.

use std::collections::{HashMap, HashSet};

use vesta_model::{DType, Status};
use vesta_protos::tensorflow::attr_value::Value;
use vesta_protos::tensorflow::{
    GraphDef, NodeDef, SignatureDef, TensorInfo, TensorShapeProto, tensor_info,
};

use crate::effects::is_variable;
use crate::graph::split_tensor_name;
use crate::graph_file::GraphNames;
use crate::output_types::output_types;

const METHOD: &str = "tensorflow/serving/predict";
/// Before this version of the graph format, a placeholder of any shape was declared as a scalar.
const SCALARS_SINCE: i32 = 24;
/// Names that an error lists.
const NAMED_MAX: usize = 8;

/// Positions of nodes, and who takes what.
struct Nodes<'g> {
    graph: &'g GraphDef,
    index: HashMap<&'g str, usize>,
}

/// A tensor: its node, and which output.
type Tensor = (usize, u32);

/// The signature of `graph` that `names` gives, or that is found.
///
/// # Errors
/// As [`crate::graph_file::read`].
pub(crate) fn find(graph: &GraphDef, names: &GraphNames) -> Result<SignatureDef, Status> {
    let index = graph.node.iter().zip(0..).map(|(node, at)| (node.name.as_str(), at)).collect();
    let nodes = Nodes { graph, index };
    let named_inputs = nodes.named("inputs", &names.inputs)?;
    let outputs = if names.outputs.is_empty() {
        nodes.check_frozen(graph.node.iter())?;
        nodes.untaken(&named_inputs)?
    } else {
        nodes.named("outputs", &names.outputs)?
    };
    let needed = nodes.behind(&outputs, &named_inputs);
    nodes.check_frozen(needed.iter().map(|&at| &graph.node[at]))?;
    let inputs = if named_inputs.is_empty() { nodes.placeholders(&needed) } else { named_inputs };
    let mut signature = SignatureDef { method_name: METHOD.to_owned(), ..SignatureDef::default() };
    for tensor in inputs {
        let (key, told) = nodes.told(tensor, true)?;
        signature.inputs.insert(key, told);
    }
    for tensor in outputs {
        let (key, told) = nodes.told(tensor, false)?;
        signature.outputs.insert(key, told);
    }
    Ok(signature)
}

impl Nodes<'_> {
    fn named(&self, list: &str, names: &[String]) -> Result<Vec<Tensor>, Status> {
        let found = names.iter().map(|name| {
            let (node, output) = split_tensor_name(name);
            let at = self.index.get(node).ok_or_else(|| {
                let known: Vec<usize> = match list {
                    "inputs" => self.placeholders(&(0..self.graph.node.len()).collect())
                        .into_iter().map(|(at, _)| at).collect(),
                    _ => self.ends(),
                };
                Status::invalid_argument(format!(
                    "vesta.toml: [graph] {list} names `{name}`, which the graph does not have; it has {}",
                    self.listed(&known)
                ))
            })?;
            Ok((*at, output))
        });
        found.collect()
    }

    /// Names of nodes for an error, the first few.
    fn listed(&self, nodes: &[usize]) -> String {
        if nodes.is_empty() {
            return "none that could be meant".to_owned();
        }
        let mut names: Vec<&str> =
            nodes.iter().take(NAMED_MAX).map(|&at| self.graph.node[at].name.as_str()).collect();
        if nodes.len() > NAMED_MAX {
            names.push("...");
        }
        names.join(", ")
    }

    fn check_frozen<'n>(&self, nodes: impl Iterator<Item = &'n NodeDef>) -> Result<(), Status> {
        let mut variables = nodes.filter(|node| is_variable(&node.op));
        match variables.next() {
            None => Ok(()),
            Some(node) => Err(Status::failed_precondition(format!(
                "the graph is not frozen: the value of its variable `{}` is not in the file; freeze it with \
                 `tf.compat.v1.graph_util.convert_variables_to_constants`, or export a SavedModel",
                node.name
            ))),
        }
    }

    /// Nodes that no other takes anything of.
    fn ends(&self) -> Vec<usize> {
        let mut taken = HashSet::new();
        for input in self.graph.node.iter().flat_map(|node| &node.input) {
            taken.insert(split_tensor_name(input.trim_start_matches('^')).0);
        }
        let nodes = self.graph.node.iter().zip(0..);
        nodes
            .filter(|(node, _)| !taken.contains(node.name.as_str()) && !is_no_output(&node.op))
            .map(|(_, at)| at)
            .collect()
    }

    /// The tensors of nodes that no other takes anything of, and that depend on an input.
    fn untaken(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, Status> {
        let ends = self.ends();
        let reached = self.ahead_of(inputs);
        let depends = |end: &usize| reached.contains(end);
        let mut chosen: Vec<usize> = ends.iter().copied().filter(depends).collect();
        if chosen.is_empty() {
            chosen = ends;
        }
        let mut tensors = Vec::new();
        for at in chosen {
            let count = self.types(at)?.len();
            tensors.extend((0..count as u32).map(|output| (at, output)));
        }
        if tensors.is_empty() {
            return Err(Status::invalid_argument(
                "no node of the graph gives an output; name them in vesta.toml: [graph] outputs = [\"...\"]",
            ));
        }
        Ok(tensors)
    }

    /// All nodes that depend on the given tensors, or else on a placeholder, in one pass over the graph.
    fn ahead_of(&self, given: &[Tensor]) -> HashSet<usize> {
        let mut users: HashMap<usize, Vec<usize>> = HashMap::new();
        for (node, at) in self.graph.node.iter().zip(0..) {
            for input in &node.input {
                let name = split_tensor_name(input.trim_start_matches('^')).0;
                if let Some(&from) = self.index.get(name) {
                    users.entry(from).or_default().push(at);
                }
            }
        }
        let nodes = self.graph.node.iter().zip(0..);
        let mut pending: Vec<usize> = match given {
            [] => nodes.filter(|(node, _)| is_placeholder(&node.op)).map(|(_, at)| at).collect(),
            _ => given.iter().map(|&(at, _)| at).collect(),
        };
        let mut seen = HashSet::new();
        while let Some(at) = pending.pop() {
            if seen.insert(at) {
                pending.extend(users.get(&at).into_iter().flatten());
            }
        }
        seen
    }

    /// All nodes that `tensors` need; nothing is needed behind the given ones.
    fn behind(&self, tensors: &[Tensor], given: &[Tensor]) -> HashSet<usize> {
        let given: HashSet<usize> = given.iter().map(|&(at, _)| at).collect();
        let mut seen = HashSet::new();
        let mut pending: Vec<usize> = tensors.iter().map(|&(at, _)| at).collect();
        while let Some(at) = pending.pop() {
            if !seen.insert(at) || given.contains(&at) {
                continue;
            }
            for input in &self.graph.node[at].input {
                let name = split_tensor_name(input.trim_start_matches('^')).0;
                pending.extend(self.index.get(name));
            }
        }
        seen
    }

    /// The placeholders among `needed`; those that have a default only where there are no others.
    fn placeholders(&self, needed: &HashSet<usize>) -> Vec<Tensor> {
        let of = |wanted: fn(&str) -> bool| -> Vec<Tensor> {
            let nodes = self.graph.node.iter().zip(0..);
            nodes
                .filter(|(node, at)| wanted(&node.op) && needed.contains(at))
                .map(|(_, at)| (at, 0))
                .collect()
        };
        let bare = of(|op| matches!(op, "Placeholder" | "PlaceholderV2"));
        if bare.is_empty() { of(|op| op == "PlaceholderWithDefault") } else { bare }
    }

    fn types(&self, at: usize) -> Result<Vec<i32>, Status> {
        let node = &self.graph.node[at];
        output_types(self.graph, node).ok_or_else(|| {
            Status::invalid_argument(format!(
                "the dtype of `{}` (operator {}) is not known, so it can be no output; name others in \
                 vesta.toml: [graph] outputs = [\"...\"]",
                node.name, node.op
            ))
        })
    }

    /// A tensor's key and declaration.
    fn told(&self, (at, output): Tensor, is_input: bool) -> Result<(String, TensorInfo), Status> {
        let node = &self.graph.node[at];
        let types = self.types(at)?;
        let dtype = types.get(output as usize).copied().ok_or_else(|| {
            Status::invalid_argument(format!(
                "`{}:{output}` is named, but operator {} gives {} tensors",
                node.name,
                node.op,
                types.len()
            ))
        })?;
        if DType::from_number(dtype).is_none_or(|dtype| dtype == DType::Invalid) {
            return Err(Status::invalid_argument(format!(
                "`{}` has a dtype that no request can carry; name other tensors in vesta.toml under [graph]",
                node.name
            )));
        }
        let key = if output == 0 { node.name.clone() } else { format!("{}:{output}", node.name) };
        let shape = is_input.then(|| self.shape(node)).flatten();
        let unknown = TensorShapeProto { dim: Vec::new(), unknown_rank: true };
        Ok((
            key,
            TensorInfo {
                encoding: Some(tensor_info::Encoding::Name(format!("{}:{output}", node.name))),
                dtype,
                tensor_shape: Some(shape.unwrap_or(unknown)),
            },
        ))
    }

    /// The declared shape of a placeholder.
    fn shape(&self, node: &NodeDef) -> Option<TensorShapeProto> {
        if !is_placeholder(&node.op) {
            return None;
        }
        let Some(Value::Shape(shape)) = &node.attr.get("shape")?.value else { return None };
        let version = self.graph.versions.as_ref().map_or(0, |versions| versions.producer);
        let is_any = version < SCALARS_SINCE && shape.dim.is_empty() && node.op == "Placeholder";
        (!is_any).then(|| shape.clone())
    }
}

fn is_placeholder(op: &str) -> bool {
    matches!(op, "Placeholder" | "PlaceholderV2" | "PlaceholderWithDefault")
}

/// Operators whose outputs are nothing to ask for.
fn is_no_output(op: &str) -> bool {
    is_placeholder(op)
        || op.ends_with("Summary")
        || op.ends_with("SummaryV2")
        || matches!(op, "Const" | "NoOp" | "Assert" | "Print" | "PrintV2" | "SaveV2")
}

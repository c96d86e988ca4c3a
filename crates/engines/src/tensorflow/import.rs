//! A frozen graph as this release of TensorFlow takes it.
//!
//! Knows which attributes operators have by the library's own list. Invariant: nothing that computes is
//! changed: only where nodes should run, and what other releases wrote beside.

use std::collections::{HashMap, HashSet};

use prost::Message as _;
use vesta_ffi::TensorFlow;
use vesta_model::Status;
use vesta_protos::tensorflow::{GraphDef, NodeDef, OpList};

/// `graph` without devices, which this machine may not have, and without attributes that the library
/// does not know: those of later releases, at their defaults.
///
/// # Errors
/// `UNIMPLEMENTED` for operators that the library does not have, by name and node.
pub(super) fn importable(library: &TensorFlow, graph: &GraphDef) -> Result<Vec<u8>, Status> {
    let known = OpList::decode(library.operators().as_slice()).map_err(|error| {
        Status::internal("TensorFlow's list of operators cannot be read").with_cause(error)
    })?;
    let attributes: HashMap<&str, HashSet<&str>> = known
        .op
        .iter()
        .map(|op| (op.name.as_str(), op.attr.iter().map(|attr| attr.name.as_str()).collect()))
        .collect();
    let mut graph = graph.clone();
    let functions: HashSet<String> = graph
        .library
        .iter()
        .flat_map(|library| &library.function)
        .filter_map(|function| Some(function.signature.as_ref()?.name.clone()))
        .collect();
    let inner = graph.library.iter_mut().flat_map(|library| &mut library.function);
    let nodes = inner.flat_map(|function| &mut function.node_def).chain(&mut graph.node);
    for node in nodes {
        match attributes.get(node.op.as_str()) {
            Some(known) => clean(node, known),
            None if functions.contains(&node.op) => node.device.clear(),
            None => {
                return Err(Status::unimplemented(format!(
                    "TensorFlow {} has no operator {}, which node `{}` needs; give its library by \
                     --custom_op_libraries, or install a release that has it",
                    library.version(),
                    node.op,
                    node.name
                )));
            }
        }
    }
    Ok(graph.encode_to_vec())
}

fn clean(node: &mut NodeDef, known: &HashSet<&str>) {
    node.device.clear();
    // Those of TensorFlow's own bind nodes to others that may be gone, or repeat shapes.
    node.attr.retain(|key, _| known.contains(key.as_str()));
}

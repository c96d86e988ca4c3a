//! What is translated: one signature of a frozen graph, as its reader lends it.
//!
//! Invariant: nothing here owns weights; they stay in the nodes' `Const` attributes.

use vesta_model::{DType, PartialShape};
use vesta_protos::tensorflow::NodeDef;

/// A value that a request brings.
#[derive(Clone, Debug, PartialEq)]
pub struct FeedSpec {
    /// Its tensor, such as `x:0`; may be one that a node of the graph would compute.
    pub tensor: String,
    /// Its dtype.
    pub dtype: DType,
    /// What its shape is known to be. The translation is exact for feeds that this accepts, so
    /// whoever runs it holds requests to it.
    pub shape: PartialShape,
}

/// One signature of a graph without functions, variables and control flow.
#[derive(Clone, Debug)]
pub struct FrozenSignature<'a> {
    /// Every node after those that it reads; weights are `Const` nodes.
    pub nodes: &'a [NodeDef],
    /// What is fed, in the order of the model's inputs.
    pub feeds: Vec<FeedSpec>,
    /// Tensors to compute, in the order of the model's outputs, such as `y:0`.
    pub fetches: Vec<String>,
}

/// A tensor's name with its output number, so that `x` and `x:0` are one.
pub(crate) fn canonical(tensor: &str) -> String {
    if tensor.contains(':') { tensor.to_owned() } else { format!("{tensor}:0") }
}

/// The node that a tensor or control edge comes from.
pub(crate) fn producer(edge: &str) -> &str {
    let edge = edge.strip_prefix('^').unwrap_or(edge);
    edge.rsplit_once(':').map_or(edge, |(node, _)| node)
}

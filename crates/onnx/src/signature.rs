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

/// A function as one branch or loop of the graph calls it.
#[derive(Clone, Debug, Default)]
pub struct Body<'a> {
    /// The node that calls it.
    pub node: String,
    /// The attribute that names it: `then_branch`, `else_branch`, `branches[0]` and so on, `cond` or
    /// `body`.
    pub attribute: String,
    /// As those of a signature; nothing of the graph around it is read but by `arguments`.
    pub nodes: &'a [NodeDef],
    /// The tensors that it is given, in the order of the call.
    pub arguments: Vec<String>,
    /// The tensors that it gives, in their order.
    pub results: Vec<String>,
    /// Nodes that give nothing but an error, each with what it looks at as its first input.
    pub checks: &'a [NodeDef],
    /// What its own branches and loops call.
    pub bodies: Vec<Body<'a>>,
}

/// How images are resized between cells that are next to each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resizing {
    /// By cells and shares that are computed as TensorFlow computes them.
    #[default]
    Computed,
    /// By ONNX's operator. Engines compute its places by other operations, which round elsewhere.
    Operator,
}

/// One signature of a graph without calls and variables.
#[derive(Clone, Debug)]
pub struct FrozenSignature<'a> {
    /// Every node after those that it reads; weights are `Const` nodes.
    pub nodes: &'a [NodeDef],
    /// What is fed, in the order of the model's inputs.
    pub feeds: Vec<FeedSpec>,
    /// Tensors to compute, in the order of the model's outputs, such as `y:0`.
    pub fetches: Vec<String>,
    /// Nodes that give nothing but an error, each with what it looks at as its first input.
    pub checks: &'a [NodeDef],
    /// The functions of its branches and loops.
    pub bodies: Vec<Body<'a>>,
    /// How its images are resized.
    pub resizing: Resizing,
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

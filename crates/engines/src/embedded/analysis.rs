//! A signature's graph as values and operations: dtypes inferred, aliases resolved, constants folded.
//!
//! May not know: placement, rten. Invariant: every operation stands after those it reads from, and
//! `Identity` and its kin are gone.

use std::collections::HashMap;
use std::sync::Arc;

use vesta_model::{DType, PartialShape, Status, Tensor};
use vesta_protos::tensorflow::{NodeDef, TensorProto};
use vesta_savedmodel::tensor_from_proto;

use super::graph::{Attributes, canonical, output_dtypes, split_tensor, tensor_name};
use super::host::{self, Kernel};

/// Constants up to this size are kept as tensors too, so that the host can compute with them.
const FOLDED_BYTES_MAX: usize = 1 << 20;

/// The most bytes that one constant may take.
const CONSTANT_BYTES_MAX: usize = 1 << 32;

/// One signature as it came out of the saved model.
#[derive(Clone, Debug)]
pub(crate) struct SignatureGraph {
    pub(crate) name: String,
    /// In an order in which they can run.
    pub(crate) nodes: Vec<NodeDef>,
    pub(crate) feeds: Vec<Feed>,
    /// Names of tensors.
    pub(crate) fetches: Vec<String>,
}

/// A tensor that a request gives.
#[derive(Clone, Debug)]
pub(crate) struct Feed {
    pub(crate) tensor: String,
    pub(crate) dtype: DType,
    pub(crate) shape: PartialShape,
}

/// Position of a value in [`Analysis::values`].
pub(crate) type ValueId = usize;

/// One tensor of the graph.
#[derive(Debug)]
pub(crate) struct Value<'a> {
    /// `node:output`.
    pub(crate) name: String,
    pub(crate) dtype: DType,
    pub(crate) origin: Origin<'a>,
}

/// Where a value comes from.
#[derive(Clone, Debug)]
pub(crate) enum Origin<'a> {
    /// The request gives it.
    Feed,
    /// A `Const` node holds it.
    Weights(&'a NodeDef),
    /// It was computed at load.
    Folded(Tensor),
    /// The operation at this position computes it.
    Operation(usize),
}

/// One node that runs.
pub(crate) struct Operation<'a> {
    pub(crate) node: &'a NodeDef,
    pub(crate) inputs: Vec<ValueId>,
    pub(crate) outputs: Vec<ValueId>,
    /// How the host computes it, if it can.
    pub(crate) kernel: Option<Arc<Kernel>>,
    /// Why the host cannot, where there is more to say than that it lacks the operator.
    pub(crate) obstacle: Option<String>,
}

impl Operation<'_> {
    /// The operator and the dtypes it is used with, for refusals: `MatMul (double)`.
    pub(crate) fn described(&self, values: &[Value<'_>]) -> String {
        let of = |ids: &[ValueId]| ids.first().map(|&id| values[id].dtype);
        let stated = Attributes(self.node).dtype("T");
        let dtype = stated.or_else(|| of(&self.outputs)).or_else(|| of(&self.inputs));
        match (dtype, &self.obstacle) {
            (_, Some(obstacle)) => format!("{} ({obstacle})", self.node.op),
            (Some(dtype), None) if dtype != DType::Invalid => {
                format!("{} ({dtype})", self.node.op)
            }
            _ => self.node.op.clone(),
        }
    }
}

/// A signature's graph, ready to be placed.
pub(crate) struct Analysis<'a> {
    pub(crate) values: Vec<Value<'a>>,
    pub(crate) operations: Vec<Operation<'a>>,
    pub(crate) feeds: Vec<ValueId>,
    pub(crate) fetches: Vec<ValueId>,
}

/// Operators whose output is their input.
fn is_alias(node: &NodeDef) -> bool {
    matches!(
        node.op.as_str(),
        "Identity" | "StopGradient" | "PreventGradient" | "Snapshot" | "PlaceholderWithDefault"
    )
}

struct Builder<'a> {
    values: Vec<Value<'a>>,
    names: HashMap<String, ValueId>,
    operations: Vec<Operation<'a>>,
}

impl<'a> Builder<'a> {
    fn add(&mut self, name: String, dtype: DType, origin: Origin<'a>) -> ValueId {
        let id = self.values.len();
        self.names.insert(name.clone(), id);
        self.values.push(Value { name, dtype, origin });
        id
    }

    fn find(&mut self, name: &str, reader: &str) -> Result<ValueId, Status> {
        let name = canonical(name).unwrap_or_default();
        let known = self.names.get(&name).copied();
        known.or_else(|| self.further_output(&name)).ok_or_else(|| {
            Status::invalid_argument(format!(
                "{reader} reads tensor {name}, which nothing computes"
            ))
        })
    }

    /// An output beyond the first of an operator that is not known here, whose number of outputs
    /// nobody can say; the operator is refused later, by name.
    fn further_output(&mut self, name: &str) -> Option<ValueId> {
        let (node, _) = split_tensor(name)?;
        let first = *self.names.get(&tensor_name(node, 0))?;
        let Origin::Operation(at) = self.values[first].origin else { return None };
        if self.values[first].dtype != DType::Invalid || self.operations[at].node.name != node {
            return None;
        }
        let id = self.add(name.to_owned(), DType::Invalid, Origin::Operation(at));
        self.operations[at].outputs.push(id);
        Some(id)
    }

    fn node(&mut self, node: &'a NodeDef) -> Result<(), Status> {
        let first = tensor_name(&node.name, 0);
        match node.op.as_str() {
            // What runs for its effect on order alone has no place in a frozen graph.
            "NoOp" => return Ok(()),
            "Placeholder" if !self.names.contains_key(&first) => {
                return Err(Status::invalid_argument(format!(
                    "placeholder {} is not an input of the signature",
                    node.name
                )));
            }
            "Placeholder" => return Ok(()),
            "Const" => {
                if !self.names.contains_key(&first) {
                    let dtype = Attributes(node).dtype_or("dtype", DType::Invalid);
                    self.add(first, dtype, Origin::Weights(node));
                }
                return Ok(());
            }
            _ => {}
        }
        // A node whose only output is fed does not run, nor are its inputs needed.
        let dtypes = output_dtypes(node);
        let outputs = dtypes.as_ref().map_or(1, Vec::len);
        let fed = |at: usize| self.names.contains_key(&tensor_name(&node.name, at));
        if outputs > 0 && (0..outputs).all(fed) {
            return Ok(());
        }
        let inputs = node
            .input
            .iter()
            .filter(|input| !input.starts_with('^'))
            .map(|input| self.find(input, &node.name))
            .collect::<Result<Vec<_>, _>>()?;
        if let (true, &[input]) = (is_alias(node), &inputs[..]) {
            self.names.insert(first, input);
            return Ok(());
        }
        self.operation(node, inputs, dtypes)
    }

    fn operation(
        &mut self,
        node: &'a NodeDef,
        inputs: Vec<ValueId>,
        dtypes: Option<Vec<DType>>,
    ) -> Result<(), Status> {
        let input_dtypes: Vec<DType> = inputs.iter().map(|&id| self.values[id].dtype).collect();
        self.correct_feeds(node, &inputs);
        // TensorFlow's own optimiser divides by constants so, and rounds twice for it.
        let divisor = (node.op == "RealDiv").then(|| self.constant(*inputs.get(1)?)).flatten();
        let found = match divisor.and_then(|divisor| host::times_reciprocal(&divisor)) {
            Some(kernel) => Ok(Some(kernel)),
            None => host::kernel(node, &input_dtypes),
        };
        let (kernel, obstacle) = match (&dtypes, found) {
            (None, _) => (None, None),
            (Some(_), Ok(kernel)) => (kernel.map(Arc::new), None),
            (Some(_), Err(obstacle)) => (None, Some(obstacle)),
        };
        let dtypes = dtypes.unwrap_or_else(|| vec![DType::Invalid]);
        let folded = kernel.as_deref().and_then(|kernel| self.fold(kernel, &inputs));
        let operation = self.operations.len();
        let mut outputs = Vec::with_capacity(dtypes.len());
        for (at, &dtype) in dtypes.iter().enumerate() {
            let name = tensor_name(&node.name, at);
            let origin = match folded.as_ref().and_then(|tensors| tensors.get(at)) {
                Some(tensor) => Origin::Folded(tensor.clone()),
                None => Origin::Operation(operation),
            };
            // A fed output keeps its feed under the name; what is computed here is not read.
            let fed = self.names.get(&name).copied();
            outputs.push(self.add(name.clone(), dtype, origin));
            if let Some(fed) = fed {
                self.names.insert(name, fed);
            }
        }
        if folded.is_none() {
            self.operations.push(Operation { node, inputs, outputs, kernel, obstacle });
        }
        Ok(())
    }

    /// Some signatures declare an input of Examples with another dtype than its placeholder has.
    fn correct_feeds(&mut self, node: &NodeDef, inputs: &[ValueId]) {
        if let ("ParseExample" | "ParseExampleV2", Some(&serialized)) =
            (node.op.as_str(), inputs.first())
            && matches!(self.values[serialized].origin, Origin::Feed)
        {
            self.values[serialized].dtype = DType::String;
        }
    }

    /// Outputs of a node whose inputs are all small constants.
    fn fold(&self, kernel: &Kernel, inputs: &[ValueId]) -> Option<Vec<Tensor>> {
        let tensors = inputs.iter().map(|&id| self.constant(id)).collect::<Option<Vec<_>>>()?;
        if tensors.is_empty() {
            return None;
        }
        // An error belongs to the request that asks for the value, so it is left to happen then.
        let outputs = kernel.compute(&tensors.iter().collect::<Vec<_>>()).ok()?;
        let bytes: usize = outputs.iter().map(|tensor| tensor.bytes().len()).sum();
        (bytes <= FOLDED_BYTES_MAX).then_some(outputs)
    }

    fn constant(&self, id: ValueId) -> Option<Tensor> {
        match &self.values[id].origin {
            Origin::Folded(tensor) => Some(tensor.clone()),
            Origin::Weights(node) => small_constant(node),
            _ => None,
        }
    }
}

/// The tensor of a `Const` node, if it is small.
fn small_constant(node: &NodeDef) -> Option<Tensor> {
    let proto = Attributes(node).tensor("value")?;
    if proto.tensor_content.len() > FOLDED_BYTES_MAX {
        return None;
    }
    constant_of(node).ok().filter(|tensor| tensor.bytes().len() <= FOLDED_BYTES_MAX)
}

/// The tensor of a `Const` node.
///
/// # Errors
/// `INVALID_ARGUMENT` when the node contradicts itself.
pub(crate) fn constant_of(node: &NodeDef) -> Result<Tensor, Status> {
    let proto = check_constant(node)?;
    // A copy of its own, so that the model's file can go once all is loaded.
    let tensor = tensor_from_proto(proto, CONSTANT_BYTES_MAX)?;
    if tensor.dtype() == DType::String {
        return Ok(tensor);
    }
    Tensor::copied(tensor.dtype(), tensor.shape().clone(), tensor.bytes())
}

/// The value of a `Const` node, if its two statements of the dtype agree; where they do not,
/// TensorFlow itself dies.
///
/// # Errors
/// `INVALID_ARGUMENT` when they disagree, or there is no value.
pub(crate) fn check_constant(node: &NodeDef) -> Result<&TensorProto, Status> {
    let attributes = Attributes(node);
    let proto = attributes
        .tensor("value")
        .ok_or_else(|| Status::invalid_argument(format!("constant {} has no value", node.name)))?;
    if attributes.dtype("dtype").is_some_and(|dtype| dtype.number() != proto.dtype) {
        return Err(Status::invalid_argument(format!(
            "constant {} is declared with another dtype than it has",
            node.name
        )));
    }
    Ok(proto)
}

/// Analyses one signature.
///
/// # Errors
/// `INVALID_ARGUMENT` for graphs that contradict themselves.
pub(crate) fn analyse(graph: &SignatureGraph) -> Result<Analysis<'_>, Status> {
    let mut builder = Builder { values: Vec::new(), names: HashMap::new(), operations: Vec::new() };
    let mut feeds = Vec::with_capacity(graph.feeds.len());
    for feed in &graph.feeds {
        let name = canonical(&feed.tensor).ok_or_else(|| {
            Status::invalid_argument(format!("{} is no name of a tensor", feed.tensor))
        })?;
        let known = builder.names.get(&name).copied();
        feeds.push(known.unwrap_or_else(|| builder.add(name, feed.dtype, Origin::Feed)));
    }
    for node in &graph.nodes {
        builder.node(node)?;
    }
    let fetches = graph
        .fetches
        .iter()
        .map(|fetch| builder.find(fetch, "the signature"))
        .collect::<Result<Vec<_>, _>>()?;
    let Builder { values, operations, .. } = builder;
    let mut analysis = Analysis { values, operations, feeds, fetches };
    analysis.drop_dead();
    Ok(analysis)
}

impl Analysis<'_> {
    /// Drops operations that no fetch depends on.
    fn drop_dead(&mut self) {
        let mut live = vec![false; self.values.len()];
        for &fetch in &self.fetches {
            live[fetch] = true;
        }
        let mut kept = Vec::with_capacity(self.operations.len());
        let mut places = vec![usize::MAX; self.operations.len()];
        for (at, operation) in std::mem::take(&mut self.operations).into_iter().enumerate().rev() {
            if operation.outputs.iter().any(|&id| live[id]) {
                operation.inputs.iter().for_each(|&id| live[id] = true);
                kept.push((at, operation));
            }
        }
        for (place, (at, operation)) in kept.into_iter().rev().enumerate() {
            places[at] = place;
            self.operations.push(operation);
        }
        for value in &mut self.values {
            if let Origin::Operation(at) = &mut value.origin {
                *at = places[*at];
            }
        }
    }

    /// The value as a tensor, if it is a constant that is or can be held on the host.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when a `Const` node contradicts itself.
    pub(crate) fn constant(&self, id: ValueId) -> Result<Option<Tensor>, Status> {
        match &self.values[id].origin {
            Origin::Folded(tensor) => Ok(Some(tensor.clone())),
            Origin::Weights(node) => constant_of(node).map(Some),
            Origin::Feed | Origin::Operation(_) => Ok(None),
        }
    }
}

//! Writing a frozen graph: nodes with unique names, explicit attributes and constants for variables.
//!
//! Knows no files but through the values of variables. Invariant: every constant that is written
//! has the dtype and length that it claims.

use std::collections::{BTreeMap, HashMap, HashSet};

use prost::Message as _;
use vesta_model::{DType, PartialShape, Status};
use vesta_protos::tensorflow::attr_value::Value as Attr;
use vesta_protos::tensorflow::{AttrValue, FunctionDef, NodeDef, TensorProto, TensorShapeProto};

use crate::bodies::{FrozenBody, is_control};
use crate::flat::Flat;
use crate::graph::{Program, functions_named, split_tensor_name};
use crate::plan::{Held, Plan, Step, Value, reads_by_handle};
use crate::proofs;
use crate::tensor::{shape_from_proto, shape_to_proto};

/// The attribute of an `Assert` that has what it says.
const ASSERTED: &str = "_asserted";

/// Bytes of a frozen graph, weights left out.
const GRAPH_BYTES_MAX: usize = 2 << 30;

/// One input of a frozen graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Feed {
    /// The name that clients use.
    pub alias: String,
    /// The tensor that is given, such as `x:0`. It may have been an output of any operator; no node
    /// of the frozen graph gives it.
    pub tensor: String,
    /// Its dtype.
    pub dtype: DType,
    /// The shape that the signature declares. Feeds are not held to it.
    pub shape: PartialShape,
}

/// One signature as a flat graph: no function calls, no variables, no control edges.
///
/// Inputs of nodes, feeds and fetches are always written `node:output`. Nodes that only pass a
/// tensor on (`Identity`, `StopGradient`, an unfed `PlaceholderWithDefault`) are gone, and so are
/// checks. Attributes are complete: those that were left at their default are filled in from the
/// model's operator definitions, and those that begin with `_` are left out. Operators that no
/// graph without state can hold (tables, TF1 loops, functional `While` and `If`) are left as they
/// are, for the reader to refuse by name.
#[derive(Clone, Debug, Default)]
pub struct FrozenGraph {
    /// The signature's name.
    pub signature: String,
    /// Nodes, each behind those whose outputs it takes (but for the edge that closes a TF1 loop).
    /// The bytes of variables and large constants are shared with the model, never copied; equal
    /// `tensor_content` pointers in two graphs of one model mean the same variable.
    pub nodes: Vec<NodeDef>,
    /// The functions that kept nodes name (bodies of `While` and the like), and those that these
    /// name in turn. They are as the model has them.
    pub functions: Vec<FunctionDef>,
    /// The same functions as graphs of their own, one for each place that calls one.
    pub bodies: Vec<FrozenBody>,
    /// Why they could not be made into such graphs; then there are none.
    pub unfrozen: Option<Status>,
    /// One per signature input, in its order.
    pub feeds: Vec<Feed>,
    /// One per signature output, in its order: an output of a node, or the tensor of a feed.
    pub fetches: Vec<String>,
    /// Why the signature is stateful: then variables are left as nodes, and the graph must not be
    /// run in place of the original.
    pub stateful: Option<String>,
    /// Names of checks (`Assert`, `CheckNumerics`, `EnsureShape`) that were left out: where these
    /// would have failed, the frozen graph gives an answer.
    pub dropped_checks: Vec<String>,
    /// The same, those of bodies left out, as nodes that read what they look at: for readers that
    /// can end a run with an error. An `Assert` has an attribute `_asserted`: what it says besides the
    /// numbers of the run.
    pub checks: Vec<NodeDef>,
    /// Why TF1's control flow stands in the graph as it was, where it has some.
    pub unlifted: Option<Status>,
    /// Version of the graph format that the model was written for.
    pub producer: i32,
}

/// Writes `plan`. `variable` gives the value of the variable that a node stands for.
///
/// # Errors
/// Those of `variable`; `INVALID_ARGUMENT` for constants that contradict themselves and for
/// placeholders that nothing feeds; `RESOURCE_EXHAUSTED` for a graph beyond the limit.
pub(crate) fn write(
    program: &Program<'_>,
    flat: &Flat<'_>,
    plan: &Plan,
    feeds: &[Feed],
    variable: impl Fn(Held) -> Result<TensorProto, Status>,
) -> Result<Written, Status> {
    let mut writer = Writer::new(program, flat, plan, feeds);
    let mut controls = Vec::new();
    for step in &plan.steps {
        match step {
            Step::Variable(held) => {
                let name = writer.node_names[&Key::Variable(*held)].clone();
                writer.push(constant(name, variable(*held)?)?)?;
            }
            Step::Keep { node, inputs } => {
                writer.keep(*node, inputs, &variable)?;
                if is_control(&flat.nodes[*node as usize].def.op) {
                    controls.push((*node, writer.node_names[&Key::Node(*node)].clone()));
                }
            }
        }
    }
    let fetches = plan.fetches.iter().map(|&fetch| writer.tensor_name(fetch)).collect();
    let checks = plan.checks.iter().map(|&(node, looked_at)| {
        let op = flat.nodes[node as usize].def.op.clone();
        let mut attr = flat.attrs(node)?;
        if op == "Assert" {
            let text = Attr::S(proofs::asserted(flat, node).into_bytes());
            attr.insert(ASSERTED.to_owned(), AttrValue { value: Some(text) });
        }
        let input = vec![writer.tensor_name(looked_at)];
        Ok(NodeDef { name: flat.name(node), op, input, attr, ..NodeDef::default() })
    });
    let checks = checks.collect::<Result<_, Status>>()?;
    Ok(Written { nodes: writer.nodes, fetches, controls, checks })
}

/// What was written.
pub(crate) struct Written {
    pub(crate) nodes: Vec<NodeDef>,
    pub(crate) fetches: Vec<String>,
    /// Branches and loops: position in the flat graph and name.
    pub(crate) controls: Vec<(u32, String)>,
    pub(crate) checks: Vec<NodeDef>,
}

/// The functions that `nodes` name, directly or not.
pub(crate) fn functions(program: &Program<'_>, nodes: &[NodeDef]) -> Vec<FunctionDef> {
    let mut seen: HashSet<&str> = HashSet::new();
    let mut found = Vec::new();
    let mut pending: Vec<&str> = nodes.iter().flat_map(named).collect();
    while let Some(name) = pending.pop() {
        if let Some((&name, &function)) = program.functions.get_key_value(name)
            && seen.insert(name)
        {
            found.push(function.clone());
            pending.extend(function.node_def.iter().flat_map(named));
        }
    }
    found
}

fn named(node: &NodeDef) -> impl Iterator<Item = &str> {
    let attrs = node.attr.values().flat_map(functions_named);
    std::iter::once(node.op.as_str()).chain(attrs)
}

/// How often each operator occurs in what `plan` will write.
pub(crate) fn operators(flat: &Flat<'_>, plan: &Plan) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for step in &plan.steps {
        let op = match step {
            Step::Variable(_) => "Const",
            Step::Keep { node, inputs } => {
                let op = flat.nodes[*node as usize].def.op.as_str();
                rewritten(op, inputs).unwrap_or(op)
            }
        };
        *counts.entry(op.to_owned()).or_insert(0) += 1;
    }
    counts
}

/// What an operator that reads a variable by handle becomes when the variable is a constant.
fn rewritten(op: &str, inputs: &[Value]) -> Option<&'static str> {
    if !reads_by_handle(op) || !matches!(inputs.first(), Some(Value::Variable(_))) {
        return None;
    }
    match op {
        "ResourceGather" => Some("GatherV2"),
        "ResourceGatherNd" => Some("GatherNd"),
        "VariableShape" => Some("Const"),
        _ => None,
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Node(u32),
    Variable(Held),
}

struct Writer<'w, 'a> {
    program: &'w Program<'a>,
    flat: &'w Flat<'a>,
    feeds: &'w [Feed],
    node_names: HashMap<Key, String>,
    taken: HashSet<String>,
    nodes: Vec<NodeDef>,
    bytes: usize,
}

impl<'w, 'a> Writer<'w, 'a> {
    /// Names all nodes: those of the main graph keep theirs, others get one that is free.
    fn new(
        program: &'w Program<'a>,
        flat: &'w Flat<'a>,
        plan: &Plan,
        feeds: &'w [Feed],
    ) -> Writer<'w, 'a> {
        let mut writer = Writer {
            program,
            flat,
            feeds,
            node_names: HashMap::new(),
            taken: feeds.iter().map(|feed| split_tensor_name(&feed.tensor).0.to_owned()).collect(),
            nodes: Vec::new(),
            bytes: 0,
        };
        let keys = plan.steps.iter().map(|step| match *step {
            Step::Keep { node, .. } => (Key::Node(node), flat.name(node), flat.is_in_main(node)),
            Step::Variable(held @ Held::Node(node)) => {
                (Key::Variable(held), flat.name(node), false)
            }
            Step::Variable(held @ Held::Argument(argument)) => {
                (Key::Variable(held), format!("variable_{argument}"), false)
            }
        });
        let (main, inner): (Vec<_>, Vec<_>) = keys.partition(|&(_, _, is_in_main)| is_in_main);
        for (key, name, _) in main {
            writer.taken.insert(name.clone());
            writer.node_names.insert(key, name);
        }
        for (key, name, _) in inner {
            let name = writer.free_name(name);
            writer.node_names.insert(key, name);
        }
        writer
    }

    fn free_name(&mut self, wanted: String) -> String {
        let mut name = wanted.clone();
        let mut count = 0u32;
        while !self.taken.insert(name.clone()) {
            count += 1;
            name = format!("{wanted}_{count}");
        }
        name
    }

    fn tensor_name(&self, value: Value) -> String {
        let (key, output) = match value {
            Value::Feed(feed) => {
                let (node, output) = split_tensor_name(&self.feeds[feed as usize].tensor);
                return format!("{node}:{output}");
            }
            Value::Node { node, output } => (Key::Node(node), output),
            Value::Variable(held) => (Key::Variable(held), 0),
        };
        let name = self.node_names.get(&key).map_or("", String::as_str);
        format!("{name}:{output}")
    }

    fn keep(
        &mut self,
        node: u32,
        inputs: &[Value],
        variable: &impl Fn(Held) -> Result<TensorProto, Status>,
    ) -> Result<(), Status> {
        let op = self.flat.nodes[node as usize].def.op.as_str();
        let name = self.node_names[&Key::Node(node)].clone();
        if let (Some(op), Some(&Value::Variable(handle))) = (rewritten(op, inputs), inputs.first())
        {
            return match op {
                "Const" => self.shape_of_variable(node, name, &variable(handle)?),
                _ => self.gather(node, name, op, inputs),
            };
        }
        let mut attr = self.flat.attrs(node)?;
        self.fill_defaults(op, &mut attr);
        let input = inputs.iter().map(|&input| self.tensor_name(input)).collect();
        let written = NodeDef { name, op: op.to_owned(), input, attr, ..NodeDef::default() };
        if op == "Const" {
            check_constant(&written)?;
        }
        self.push(written)
    }

    fn fill_defaults(&self, op: &str, attr: &mut BTreeMap<String, AttrValue>) {
        for def in self.program.ops.get(op).iter().flat_map(|def| &def.attr) {
            if let Some(default) = &def.default_value
                && !def.name.starts_with('_')
                && !attr.contains_key(&def.name)
            {
                attr.insert(def.name.clone(), default.clone());
            }
        }
    }

    /// A lookup of rows of a variable, as one of a constant.
    fn gather(
        &mut self,
        node: u32,
        name: String,
        op: &str,
        inputs: &[Value],
    ) -> Result<(), Status> {
        let given = |key: &str| self.flat.attr(node, key).cloned().unwrap_or_default();
        let mut attr = BTreeMap::from([
            ("Tparams".to_owned(), given("dtype")),
            ("Tindices".to_owned(), given("Tindices")),
        ]);
        let mut input: Vec<String> = inputs.iter().map(|&value| self.tensor_name(value)).collect();
        if op == "GatherV2" {
            let batch_dims = match given("batch_dims").value {
                Some(Attr::I(count)) => count,
                _ => 0,
            };
            // The rows lie behind the dimensions that indices and variable share.
            let axis_name = self.free_name(format!("{name}/axis"));
            let axis = i32::try_from(batch_dims).map_err(|_| {
                Status::invalid_argument(format!("node `{name}` has {batch_dims} batch dimensions"))
            })?;
            let axis = int_constant(DType::I32, &[], &axis.to_le_bytes());
            input.push(format!("{axis_name}:0"));
            self.push(constant(axis_name, axis)?)?;
            attr.insert("Taxis".to_owned(), dtype_attr(DType::I32));
            attr.insert("batch_dims".to_owned(), AttrValue { value: Some(Attr::I(batch_dims)) });
        }
        self.push(NodeDef { name, op: op.to_owned(), input, attr, ..NodeDef::default() })
    }

    fn shape_of_variable(
        &mut self,
        node: u32,
        name: String,
        value: &TensorProto,
    ) -> Result<(), Status> {
        let shape = shape_from_proto(value.tensor_shape.as_ref())?;
        let wide = self.flat.attr(node, "out_type").map(|value| &value.value)
            == Some(&Some(Attr::Type(DType::I64.number())));
        let bytes: Vec<u8> = shape
            .dims()
            .iter()
            .flat_map(|&size| {
                (size as i64).to_le_bytes().into_iter().take(if wide { 8 } else { 4 })
            })
            .collect();
        let dtype = if wide { DType::I64 } else { DType::I32 };
        self.push(constant(name, int_constant(dtype, &[shape.rank()], &bytes))?)
    }

    fn push(&mut self, node: NodeDef) -> Result<(), Status> {
        let shared = match node.attr.get("value").and_then(|value| value.value.as_ref()) {
            Some(Attr::Tensor(tensor)) => tensor.tensor_content.len(),
            _ => 0,
        };
        self.bytes += node.encoded_len().saturating_sub(shared);
        if self.bytes > GRAPH_BYTES_MAX {
            return Err(Status::resource_exhausted(format!(
                "the graph takes more than {GRAPH_BYTES_MAX} bytes once its function calls are \
                 inlined"
            )));
        }
        self.nodes.push(node);
        Ok(())
    }
}

fn dtype_attr(dtype: DType) -> AttrValue {
    AttrValue { value: Some(Attr::Type(dtype.number())) }
}

fn int_constant(dtype: DType, dims: &[usize], bytes: &[u8]) -> TensorProto {
    TensorProto {
        dtype: dtype.number(),
        tensor_shape: Some(shape_to_proto(dims)),
        tensor_content: bytes.to_vec().into(),
        ..TensorProto::default()
    }
}

fn constant(name: String, value: TensorProto) -> Result<NodeDef, Status> {
    let attr = BTreeMap::from([
        ("dtype".to_owned(), AttrValue { value: Some(Attr::Type(value.dtype)) }),
        ("value".to_owned(), AttrValue { value: Some(Attr::Tensor(Box::new(value))) }),
    ]);
    let node = NodeDef { name, op: "Const".to_owned(), attr, ..NodeDef::default() };
    check_constant(&node)?;
    Ok(node)
}

/// Refuses a constant whose parts contradict each other: TensorFlow aborts on some of those.
fn check_constant(node: &NodeDef) -> Result<(), Status> {
    let wrong =
        |what: &str| Err(Status::invalid_argument(format!("the constant `{}` {what}", node.name)));
    let value = |key: &str| node.attr.get(key).and_then(|value| value.value.as_ref());
    let Some(Attr::Tensor(tensor)) = value("value") else { return wrong("has no value") };
    if value("dtype") != Some(&Attr::Type(tensor.dtype)) {
        return wrong("has a value of another dtype than it claims");
    }
    let no_shape = TensorShapeProto::default();
    let proto = tensor.tensor_shape.as_ref().unwrap_or(&no_shape);
    let Ok(shape) = shape_from_proto(Some(proto)) else {
        return wrong("has an impossible shape");
    };
    let width = DType::from_number(tensor.dtype).and_then(DType::width);
    match width.map(|width| shape.bytes(width)) {
        Some(Err(_)) => wrong("has an impossible shape"),
        Some(Ok(len))
            if !tensor.tensor_content.is_empty() && tensor.tensor_content.len() != len =>
        {
            wrong("is not as long as its shape says")
        }
        _ => Ok(()),
    }
}

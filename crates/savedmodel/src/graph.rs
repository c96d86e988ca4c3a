//! A meta graph made ready to be walked: nodes and functions by name, operator definitions.
//!
//! Knows no semantics of operators but that some call functions. Borrows the messages, copies
//! nothing.

use std::collections::HashMap;

use vesta_model::Status;
use vesta_protos::tensorflow::attr_value::Value;
use vesta_protos::tensorflow::{AttrValue, FunctionDef, MetaGraphDef, NodeDef};

use crate::op_defs::OpDefs;

/// One graph: the main one, or the body of a function.
#[derive(Debug)]
pub(crate) struct Body<'a> {
    pub(crate) nodes: &'a [NodeDef],
    pub(crate) index: HashMap<&'a str, u32>,
    /// For a function, its arguments by name.
    pub(crate) arguments: HashMap<&'a str, u32>,
    pub(crate) function: Option<&'a FunctionDef>,
}

/// Everything of a meta graph that walking needs.
#[derive(Debug)]
pub(crate) struct Program<'a> {
    pub(crate) main: Body<'a>,
    pub(crate) functions: HashMap<&'a str, &'a FunctionDef>,
    pub(crate) ops: OpDefs<'a>,
}

impl<'a> Body<'a> {
    /// The body of `function`.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when two of its nodes share a name.
    pub(crate) fn of_function(function: &'a FunctionDef) -> Result<Body<'a>, Status> {
        let signature = function.signature.iter().flat_map(|signature| &signature.input_arg);
        Ok(Body {
            nodes: &function.node_def,
            index: index_nodes(&function.node_def)?,
            arguments: signature.zip(0..).map(|(arg, at)| (arg.name.as_str(), at)).collect(),
            function: Some(function),
        })
    }

    /// The node called `name`.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when there is none.
    pub(crate) fn node(&self, name: &str) -> Result<u32, Status> {
        self.index.get(name).copied().ok_or_else(|| {
            let place = match self.function.and_then(|function| function.signature.as_ref()) {
                Some(signature) => format!("function {}", signature.name),
                None => "the graph".to_owned(),
            };
            Status::invalid_argument(format!("{place} has no node `{name}`, which is referred to"))
        })
    }
}

impl<'a> Program<'a> {
    /// Indexes `meta`.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when two nodes share a name.
    pub(crate) fn new(meta: &'a MetaGraphDef) -> Result<Program<'a>, Status> {
        let graph = meta.graph_def.as_ref();
        let nodes: &[NodeDef] = graph.map_or(&[], |graph| &graph.node);
        let functions: &[FunctionDef] =
            graph.and_then(|graph| graph.library.as_ref()).map_or(&[], |library| &library.function);
        Ok(Program {
            main: Body {
                nodes,
                index: index_nodes(nodes)?,
                arguments: HashMap::new(),
                function: None,
            },
            functions: functions
                .iter()
                .filter_map(|function| Some((function.signature.as_ref()?.name.as_str(), function)))
                .collect(),
            ops: OpDefs::new(meta, functions),
        })
    }
}

fn index_nodes(nodes: &[NodeDef]) -> Result<HashMap<&str, u32>, Status> {
    let mut index = HashMap::with_capacity(nodes.len());
    for (node, at) in nodes.iter().zip(0..) {
        if index.insert(node.name.as_str(), at).is_some() {
            return Err(Status::invalid_argument(format!("two nodes are called `{}`", node.name)));
        }
    }
    Ok(index)
}

/// Splits a tensor's name in the main graph: `x:1` is output 1 of `x`, `x` is output 0.
pub(crate) fn split_tensor_name(name: &str) -> (&str, u32) {
    match name.rsplit_once(':') {
        Some((node, output)) => match output.parse() {
            Ok(output) => (node, output),
            Err(_) => (name, 0),
        },
        None => (name, 0),
    }
}

/// Every function that an attribute names.
pub(crate) fn functions_named(value: &AttrValue) -> Vec<&str> {
    match &value.value {
        Some(Value::Func(function)) => vec![function.name.as_str()],
        Some(Value::List(list)) => list.func.iter().map(|f| f.name.as_str()).collect(),
        _ => Vec::new(),
    }
}

/// Replaces references to attributes of the function that a node stands in.
///
/// Values nest by functions with attributes, at most as deep as messages may.
///
/// # Errors
/// `INVALID_ARGUMENT` when the function was called without such an attribute.
pub(crate) fn substitute<'b>(
    value: &AttrValue,
    binding: &impl Fn(&str) -> Option<&'b AttrValue>,
) -> Result<AttrValue, Status> {
    let functions = |function: &vesta_protos::tensorflow::NameAttrList| {
        let mut function = function.clone();
        for value in function.attr.values_mut() {
            *value = substitute(value, binding)?;
        }
        Ok::<_, Status>(function)
    };
    Ok(match &value.value {
        Some(Value::Placeholder(name)) => binding(name).cloned().ok_or_else(|| {
            Status::invalid_argument(format!("a function is called without its attribute `{name}`"))
        })?,
        Some(Value::Func(function)) => AttrValue { value: Some(Value::Func(functions(function)?)) },
        Some(Value::List(list)) if !list.func.is_empty() => {
            let mut list = list.clone();
            list.func = list.func.iter().map(functions).collect::<Result<_, _>>()?;
            AttrValue { value: Some(Value::List(list)) }
        }
        _ => value.clone(),
    })
}

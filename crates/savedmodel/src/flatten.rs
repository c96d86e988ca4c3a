//! Inlining: from fetches back through functions to a flat list of the nodes that run.
//!
//! Owns the meaning of names (`node:1` in graphs, `node:output:1` in functions, `^node` for order)
//! and of function calls. Knows no operator but those that call.
//! Invariant: no recursion, and a bound on nodes, depth and steps, so any graph ends with a result
//! or a clear error.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use vesta_model::Status;
use vesta_protos::tensorflow::attr_value::Value;
use vesta_protos::tensorflow::op_def::ArgDef;
use vesta_protos::tensorflow::{AttrValue, FunctionDef, NodeDef};

use crate::branches::{Branches, tensor_inputs};
use crate::effects::known_effect;
use crate::flat::{Flat, FlatNode, Ref, Scope, Source};
use crate::graph::{Body, Program, split_tensor_name, substitute};
use crate::op_defs::arg_len;

/// Nodes and calls that a signature may have once all is inlined.
const NODES_MAX: usize = 300_000;
/// Calls within calls.
const DEPTH_MAX: u32 = 128;
/// References followed in all; real graphs need a few per node.
const STEPS_MAX: u64 = 50_000_000;
/// References followed from one tensor to what computes it.
const CHAIN_MAX: usize = 100_000;
/// Paths in names longer than this are replaced by a short one.
const PATH_BYTES_MAX: usize = 256;

/// What to flatten.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Request<'r> {
    /// Tensors that are given; nothing behind them is needed.
    pub(crate) feeds: &'r [&'r str],
    /// Tensors that are wanted.
    pub(crate) fetches: &'r [&'r str],
    /// Nodes that have to run.
    pub(crate) targets: &'r [&'r str],
}

enum Task {
    /// Follow the inputs of a node.
    Expand(u32),
    /// Make a node or call run.
    Run { scope: u32, node: u32 },
    /// Make what computes a tensor run.
    Reach(Ref),
    /// The same for a name inside a call.
    ReachName { scope: u32, name: usize },
}

struct Flattener<'p, 'a> {
    program: &'p Program<'a>,
    feeds: HashMap<(u32, u32), u32>,
    branches: Branches,
    bodies: HashMap<&'a str, Rc<Body<'a>>>,
    scopes: Vec<Scope<'a>>,
    calls: HashMap<(u32, u32), u32>,
    nodes: Vec<FlatNode<'a>>,
    ids: HashMap<(u32, u32), u32>,
    tasks: Vec<Task>,
    steps: u64,
}

/// Flattens what `request` needs of the main graph.
///
/// # Errors
/// `INVALID_ARGUMENT` for names that do not resolve and functions that call themselves,
/// `RESOURCE_EXHAUSTED` for graphs over the limits, `UNIMPLEMENTED` for operators whose outputs are
/// not known.
pub(crate) fn flatten<'a>(program: &Program<'a>, request: Request<'_>) -> Result<Flat<'a>, Status> {
    let main = Body {
        nodes: program.main.nodes,
        index: program.main.index.clone(),
        arguments: HashMap::new(),
        function: None,
    };
    let mut flattener = Flattener::new(program, Scope::root(Rc::new(main)));
    for (feed, at) in request.feeds.iter().zip(0..) {
        let (node, output) = split_tensor_name(feed);
        flattener.feeds.entry((program.main.node(node)?, output)).or_insert(at);
    }
    let feeds = &flattener.feeds;
    flattener.branches =
        Branches::decide(&program.main, |node, output| feeds.contains_key(&(node, output)));
    let mut fetches = Vec::with_capacity(request.fetches.len());
    for fetch in request.fetches {
        let (node, output) = split_tensor_name(fetch);
        let node = program.main.node(node)?;
        fetches.push(flattener.resolve(Ref::Output { scope: 0, node, output })?);
    }
    for target in request.targets {
        let node = program.main.node(split_tensor_name(target).0)?;
        flattener.tasks.push(Task::Run { scope: 0, node });
    }
    flattener.work()?;
    Ok(Flat { nodes: flattener.nodes, fetches, scopes: flattener.scopes })
}

/// Flattens all that the function `name` gives and does, called with these attributes. Its
/// arguments are the feeds; their number is given beside.
///
/// # Errors
/// As [`flatten`]; `INVALID_ARGUMENT` when there is no such function.
pub(crate) fn flatten_function<'a>(
    program: &Program<'a>,
    name: &str,
    bindings: BTreeMap<String, AttrValue>,
) -> Result<(Flat<'a>, usize), Status> {
    let function = *program.functions.get(name).ok_or_else(|| {
        Status::invalid_argument(format!("the function {name} is called, which is not there"))
    })?;
    let (argument_spans, returns) = interface(function, &bindings)?;
    let arguments = argument_spans.iter().map(|span| span.1).sum();
    let body = Rc::new(Body::of_function(function)?);
    let root = Scope { bindings, argument_spans, returns, ..Scope::root(Rc::clone(&body)) };
    let mut flattener = Flattener::new(program, root);
    let mut fetches = Vec::new();
    for output in 0..flattener.scopes[0].returns.len() {
        let reference = flattener.returned(0, output as u32)?;
        fetches.push(flattener.resolve(reference)?);
    }
    flattener.run_effects(0, &body)?;
    flattener.work()?;
    Ok((Flat { nodes: flattener.nodes, fetches, scopes: flattener.scopes }, arguments))
}

impl<'p, 'a> Flattener<'p, 'a> {
    fn new(program: &'p Program<'a>, main: Scope<'a>) -> Flattener<'p, 'a> {
        Flattener {
            program,
            feeds: HashMap::new(),
            branches: Branches::default(),
            bodies: HashMap::new(),
            scopes: vec![main],
            calls: HashMap::new(),
            nodes: Vec::new(),
            ids: HashMap::new(),
            tasks: Vec::new(),
            steps: 0,
        }
    }

    fn work(&mut self) -> Result<(), Status> {
        while let Some(task) = self.tasks.pop() {
            self.step()?;
            match task {
                Task::Expand(id) => self.expand(id)?,
                Task::Run { scope, node } => self.run(scope, node)?,
                Task::Reach(reference) => {
                    self.resolve(reference)?;
                }
                Task::ReachName { scope, name } => {
                    let name = self.scopes[scope as usize].returns[name].0;
                    let mut references = Vec::new();
                    self.parse(scope, name, &mut references)?;
                    for reference in references {
                        self.resolve(reference)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), Status> {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return Err(Status::resource_exhausted(
                "the graph takes too many steps to inline; its function calls may form a loop",
            ));
        }
        Ok(())
    }

    fn expand(&mut self, id: u32) -> Result<(), Status> {
        let FlatNode { def, scope, .. } = self.nodes[id as usize];
        let mut inputs = Vec::with_capacity(def.input.len());
        let mut references = Vec::new();
        for name in &def.input {
            if let Some(node) = name.strip_prefix('^') {
                self.run_named(scope, node)?;
                continue;
            }
            references.clear();
            self.parse(scope, name, &mut references)?;
            for &reference in &references {
                inputs.push(self.resolve(reference)?);
            }
        }
        self.nodes[id as usize].inputs = inputs;
        Ok(())
    }

    /// Makes the node run that an order input names; in functions that may be an argument, too.
    fn run_named(&mut self, scope: u32, name: &str) -> Result<(), Status> {
        let body = &self.scopes[scope as usize].body;
        if body.arguments.contains_key(name) {
            return Ok(());
        }
        let node = body.node(name)?;
        self.tasks.push(Task::Run { scope, node });
        Ok(())
    }

    fn run(&mut self, scope: u32, node: u32) -> Result<(), Status> {
        // To run a placeholder that is fed is to feed it.
        let op = &self.scopes[scope as usize].body.nodes[node as usize].op;
        if scope == 0 && op == "Placeholder" && self.feeds.contains_key(&(node, 0)) {
            return Ok(());
        }
        if scope == 0 && self.branches.dead.contains(&node) {
            return Ok(());
        }
        if self.call(scope, node)?.is_none() {
            self.flat(scope, node)?;
        }
        Ok(())
    }

    /// Follows a reference through calls to what computes the tensor.
    fn resolve(&mut self, reference: Ref) -> Result<Source, Status> {
        let mut at = reference;
        for _ in 0..CHAIN_MAX {
            self.step()?;
            at = match at {
                Ref::Argument { scope: 0, index } => return Ok(Source::Feed(index)),
                Ref::Argument { scope, index } => {
                    let arguments = &self.scopes[scope as usize].arguments;
                    arguments.get(index as usize).copied().ok_or_else(|| {
                        Status::invalid_argument(format!(
                            "the call `{}` lacks argument {index} of its function",
                            self.scopes[scope as usize].path.trim_end_matches('/')
                        ))
                    })?
                }
                Ref::Output { scope, node, output } => {
                    let feed = self.feeds.get(&(node, output)).filter(|_| scope == 0);
                    if let Some(&feed) = feed {
                        return Ok(Source::Feed(feed));
                    }
                    if let Some(passed) = self.passed(scope, node, output)? {
                        at = passed;
                        continue;
                    }
                    match self.call(scope, node)? {
                        Some(child) => self.returned(child, output)?,
                        None => {
                            let node = self.flat(scope, node)?;
                            return Ok(Source::Node { node, output });
                        }
                    }
                }
            };
        }
        Err(Status::invalid_argument(format!(
            "function calls pass a tensor on in a circle, or more than {CHAIN_MAX} times"
        )))
    }

    /// The input that an output of a branch always is.
    fn passed(&self, scope: u32, node: u32, output: u32) -> Result<Option<Ref>, Status> {
        let passed = self.branches.passed.get(&(node, output)).filter(|_| scope == 0);
        let Some(&input) = passed else { return Ok(None) };
        let main = &self.program.main;
        let mut references = Vec::new();
        if let Some(name) = tensor_inputs(&main.nodes[node as usize]).nth(input as usize) {
            self.parse(scope, name, &mut references)?;
        }
        Ok(references.pop())
    }

    fn returned(&self, scope: u32, output: u32) -> Result<Ref, Status> {
        let call = &self.scopes[scope as usize];
        let missing = || {
            Status::invalid_argument(format!(
                "the call `{}` gives no output {output}",
                call.path.trim_end_matches('/')
            ))
        };
        let &(name, index) = call.returns.get(output as usize).ok_or_else(missing)?;
        let mut references = Vec::new();
        self.parse(scope, name, &mut references)?;
        // `node:list:2` names one tensor of a list, from which later ones are counted.
        match (references.get(index), references.first()) {
            (Some(&reference), _) => Ok(reference),
            (None, Some(&Ref::Output { scope, node, output })) => {
                Ok(Ref::Output { scope, node, output: output + index as u32 })
            }
            _ => Err(missing()),
        }
    }

    fn flat(&mut self, scope: u32, node: u32) -> Result<u32, Status> {
        if let Some(&id) = self.ids.get(&(scope, node)) {
            return Ok(id);
        }
        self.check_size()?;
        let id = self.nodes.len() as u32;
        let def = &self.scopes[scope as usize].body.nodes[node as usize];
        self.nodes.push(FlatNode { def, scope, inputs: Vec::new() });
        self.ids.insert((scope, node), id);
        self.tasks.push(Task::Expand(id));
        Ok(id)
    }

    fn check_size(&self) -> Result<(), Status> {
        if self.nodes.len() + self.scopes.len() >= NODES_MAX {
            return Err(Status::resource_exhausted(format!(
                "the graph has more than {NODES_MAX} nodes once its function calls are inlined"
            )));
        }
        Ok(())
    }

    /// The tensors that an input of a node, or a returned name, means.
    fn parse(&self, scope: u32, name: &str, out: &mut Vec<Ref>) -> Result<(), Status> {
        let Scope { body, argument_spans, .. } = &self.scopes[scope as usize];
        if body.function.is_none() {
            let (node, output) = split_tensor_name(name);
            out.push(Ref::Output { scope, node: body.node(node)?, output });
            return Ok(());
        }
        let malformed = || Status::invalid_argument(format!("`{name}` names no tensor"));
        let mut parts = name.split(':');
        let first = parts.next().unwrap_or_default();
        let (second, third, fourth) = (parts.next(), parts.next(), parts.next());
        let (base, count, index) = if let Some(&argument) = body.arguments.get(first) {
            let (base, count) = argument_spans[argument as usize];
            (base, count, second)
        } else {
            let node = body.node(first)?;
            let def = &body.nodes[node as usize];
            let output = second.ok_or_else(malformed)?;
            let (base, count) =
                self.program.ops.output(&def.op, output, |key| self.attr(scope, def, key))?;
            (base, count, third)
        };
        if fourth.is_some() {
            return Err(malformed());
        }
        let span = match index {
            None => 0..count,
            Some(index) => {
                let index: usize = index.parse().map_err(|_| malformed())?;
                if index >= count {
                    return Err(Status::invalid_argument(format!(
                        "`{name}` names one of {count} tensors"
                    )));
                }
                index..index + 1
            }
        };
        let node = body.index.get(first).copied();
        out.extend(span.map(|at| {
            let at = (base + at) as u32;
            match node.filter(|_| !body.arguments.contains_key(first)) {
                Some(node) => Ref::Output { scope, node, output: at },
                None => Ref::Argument { scope, index: at },
            }
        }));
        Ok(())
    }

    /// An attribute of a node, in the call it stands in.
    fn attr<'s>(&'s self, scope: u32, def: &'s NodeDef, key: &str) -> Option<&'s AttrValue> {
        let value = def.attr.get(key)?;
        match &value.value {
            Some(Value::Placeholder(name)) => self.scopes[scope as usize].bindings.get(name),
            _ => Some(value),
        }
    }

    /// The scope of a node's call, made at the first use; `None` when the node calls nothing.
    fn call(&mut self, scope: u32, node: u32) -> Result<Option<u32>, Status> {
        let def = &self.scopes[scope as usize].body.nodes[node as usize];
        let (name, attrs) = match def.op.as_str() {
            "PartitionedCall" | "StatefulPartitionedCall" => {
                if let Some(&child) = self.calls.get(&(scope, node)) {
                    return Ok(Some(child));
                }
                match self.attr(scope, def, "f").map(|value| &value.value) {
                    Some(Some(Value::Func(function))) => (function.name.as_str(), &function.attr),
                    _ => {
                        return Err(Status::invalid_argument(format!(
                            "the call `{}` names no function",
                            def.name
                        )));
                    }
                }
            }
            op if self.program.functions.contains_key(op) => {
                if let Some(&child) = self.calls.get(&(scope, node)) {
                    return Ok(Some(child));
                }
                (op, &def.attr)
            }
            _ => return Ok(None),
        };
        let function = *self.program.functions.get(name).ok_or_else(|| {
            Status::invalid_argument(format!(
                "`{}` calls the function {name}, which the model does not have",
                def.name
            ))
        })?;
        let outer = &self.scopes[scope as usize].bindings;
        let mut bindings = BTreeMap::new();
        for (key, value) in attrs.iter().filter(|(key, _)| !key.starts_with('_')) {
            bindings.insert(key.clone(), substitute(value, &|name: &str| outer.get(name))?);
        }
        self.enter(scope, node, function, bindings).map(Some)
    }

    fn enter(
        &mut self,
        parent: u32,
        node: u32,
        function: &'a FunctionDef,
        bindings: BTreeMap<String, AttrValue>,
    ) -> Result<u32, Status> {
        self.check_size()?;
        let caller = &self.scopes[parent as usize];
        let def = &caller.body.nodes[node as usize];
        let depth = caller.depth + 1;
        let name = function.signature.as_ref().map_or("", |signature| &signature.name);
        self.check_ancestry(parent, depth, name)?;

        let id = self.scopes.len() as u32;
        let mut path = format!("{}{}/", caller.path, def.name);
        if path.len() > PATH_BYTES_MAX {
            path = format!("call_{id}/");
        }
        let mut arguments = Vec::new();
        for input in &def.input {
            match input.strip_prefix('^') {
                Some(before) => self.run_named(parent, before)?,
                None => self.parse(parent, input, &mut arguments)?,
            }
        }
        let body = match self.bodies.get(name) {
            Some(body) => Rc::clone(body),
            None => {
                let body = Rc::new(Body::of_function(function)?);
                self.bodies.insert(name, Rc::clone(&body));
                body
            }
        };
        let (argument_spans, returns) = interface(function, &bindings)?;
        // The call computes all that it is given, and all its effects, whatever is used of it.
        self.tasks.extend(arguments.iter().map(|&argument| Task::Reach(argument)));
        self.tasks.extend((0..returns.len()).map(|name| Task::ReachName { scope: id, name }));
        self.run_effects(id, &body)?;
        self.calls.insert((parent, node), id);
        self.scopes.push(Scope {
            body,
            parent: Some(parent),
            depth,
            path,
            bindings,
            arguments,
            argument_spans,
            returns,
        });
        Ok(id)
    }

    /// Makes all run that a function does besides giving its results.
    fn run_effects(&mut self, scope: u32, body: &Body<'a>) -> Result<(), Status> {
        let control = body.function.iter().flat_map(|function| function.control_ret.values());
        for after in control {
            let node = body.node(after.trim_start_matches('^'))?;
            self.tasks.push(Task::Run { scope, node });
        }
        for (inner, node) in body.nodes.iter().zip(0..) {
            if known_effect(&inner.op).is_some() {
                self.tasks.push(Task::Run { scope, node });
            }
        }
        self.steps += body.nodes.len() as u64;
        Ok(())
    }

    fn check_ancestry(&self, parent: u32, depth: u32, name: &str) -> Result<(), Status> {
        if depth > DEPTH_MAX {
            return Err(Status::resource_exhausted(format!(
                "function calls are nested more than {DEPTH_MAX} deep"
            )));
        }
        let mut at = Some(parent);
        while let Some(scope) = at {
            let scope = &self.scopes[scope as usize];
            let signature = scope.body.function.and_then(|function| function.signature.as_ref());
            if signature.is_some_and(|signature| signature.name == name) {
                return Err(Status::invalid_argument(format!("the function {name} calls itself")));
            }
            at = scope.parent;
        }
        Ok(())
    }
}

/// The spans of a function's arguments and its returned tensors, in a call with these attributes.
#[expect(clippy::type_complexity, reason = "the two halves of one interface, taken apart at once")]
fn interface<'a>(
    function: &'a FunctionDef,
    bindings: &BTreeMap<String, AttrValue>,
) -> Result<(Vec<(usize, usize)>, Vec<(&'a str, usize)>), Status> {
    let Some(signature) = &function.signature else { return Ok((Vec::new(), Vec::new())) };
    let len = |arg: &ArgDef| arg_len(arg, &signature.attr, |name| bindings.get(name));
    let mut spans = Vec::with_capacity(signature.input_arg.len());
    let mut base = 0;
    for arg in &signature.input_arg {
        let count = len(arg)?;
        spans.push((base, count));
        base += count;
    }
    let mut returns = Vec::with_capacity(signature.output_arg.len());
    for arg in &signature.output_arg {
        let name = function.ret.get(&arg.name).ok_or_else(|| {
            Status::invalid_argument(format!(
                "the function {} does not return its output `{}`",
                signature.name, arg.name
            ))
        })?;
        returns.extend((0..len(arg)?).map(|index| (name.as_str(), index)));
    }
    Ok((spans, returns))
}

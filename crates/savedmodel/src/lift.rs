//! TF1 control flow (`Switch`, `Merge`, `Enter`, `Exit`, ...) as functional branches and loops.
//!
//! Works on a frozen graph, whose nodes stand in the order they can run. Each merge of two branches
//! becomes a `StatelessIf`, each frame a `StatelessWhile`, TensorArrays become lists: what readers of
//! frozen graphs know already. Invariant: a graph is lifted whole or not at all; what is computed
//! before a branch or loop is handed in, never computed again, unless it depends on constants alone.

use std::collections::{BTreeMap, HashMap, HashSet};

use vesta_model::Status;
use vesta_protos::tensorflow::attr_value::Value;
use vesta_protos::tensorflow::{AttrValue, NodeDef};

use crate::arrays;
use crate::bodies::FrozenBody;
use crate::freeze::FrozenGraph;
use crate::gates::{Gates, Predicate};
use crate::graph::split_tensor_name;

/// Branches and loops within each other.
const DEPTH_MAX: usize = 32;
/// Nodes of all regions, and steps towards them.
const STEPS_MAX: usize = 2_000_000;

/// Whether a graph holds what is lifted.
pub(crate) fn is_needed(nodes: &[NodeDef]) -> bool {
    nodes
        .iter()
        .any(|node| matches!(node.op.as_str(), "Merge" | "Exit") || arrays::is_array(&node.op))
}

/// `graph` with functional branches and loops in the place of TF1's.
///
/// # Errors
/// `UNIMPLEMENTED` for what has no such form, by the node; `RESOURCE_EXHAUSTED` beyond the limits.
pub(crate) fn lift(graph: &FrozenGraph) -> Result<FrozenGraph, Status> {
    graph.nodes.iter().try_for_each(expect_inputs)?;
    let mut lifter = Lifter::new(graph);
    let fetches = graph.fetches.iter().map(|fetch| lifter.lower(MAIN, fetch));
    let fetches = fetches.collect::<Result<_, _>>()?;
    let mut checks = Vec::new();
    for check in &graph.checks {
        let Some(looked_at) = check.input.first() else { continue };
        let Some(looked_at) = lifter.looked_at(looked_at) else { continue };
        let mut check = check.clone();
        check.input = vec![lifter.lower(MAIN, &looked_at)?];
        checks.push(check);
    }
    let main = lifter.regions.swap_remove(MAIN);
    Ok(FrozenGraph { nodes: main.nodes, bodies: main.bodies, fetches, checks, ..graph.clone() })
}

/// Refuses operators of TF1's control flow that do not have the inputs that theirs have.
fn expect_inputs(node: &NodeDef) -> Result<(), Status> {
    let wanted = match node.op.as_str() {
        "Merge" | "Switch" => 2,
        "Enter" | "Exit" | "LoopCond" | "NextIteration" => 1,
        _ => return Ok(()),
    };
    if node.input.len() == wanted && !node.input.iter().any(|input| input.starts_with('^')) {
        return Ok(());
    }
    refuse(node, &format!("has {} inputs, where {wanted} belong", node.input.len()))
}

/// The region outside of all branches and loops.
const MAIN: usize = 0;

/// What a region is the body of.
#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Main,
    /// One side of a predicate.
    Branch(Predicate, bool),
    /// A round of the loop over this frame, or its condition.
    Loop(String),
}

/// Nodes that become one graph.
#[derive(Debug)]
struct Region {
    kind: Kind,
    parent: usize,
    depth: usize,
    /// Its arguments, which it may share with another.
    group: usize,
    nodes: Vec<NodeDef>,
    bodies: Vec<FrozenBody>,
    /// Names of its nodes.
    written: HashSet<String>,
    /// Tensors of the graph by what they are called here.
    names: HashMap<String, String>,
}

/// The arguments of the two bodies of a branch or loop.
#[derive(Clone, Debug, Default)]
struct Group {
    /// Tensors of the region around, behind the states of a loop.
    captured: Vec<String>,
    /// Where each stands among them.
    places: HashMap<String, usize>,
    states: usize,
}

impl Group {
    fn argument(at: usize) -> String {
        format!("<{at}>:0")
    }

    fn capture(&mut self, tensor: &str) -> String {
        let next = self.captured.len();
        let at = *self.places.entry(tensor.to_owned()).or_insert(next);
        if at == next {
            self.captured.push(tensor.to_owned());
        }
        Group::argument(self.states + at)
    }

    fn arguments(&self) -> Vec<String> {
        (0..self.states + self.captured.len()).map(Group::argument).collect()
    }
}

/// A branch or loop whose bodies are done, and that waits for what it is given.
#[derive(Clone, Debug)]
struct Built {
    op: &'static str,
    name: String,
    given: Vec<String>,
}

/// What a tensor is in a region.
enum Found {
    Named(String),
    /// It is known once these are.
    Needs(Vec<String>),
}

struct Lifter<'g> {
    graph: &'g FrozenGraph,
    index: HashMap<&'g str, usize>,
    /// The functions that each node calls.
    bodies: HashMap<&'g str, Vec<&'g FrozenBody>>,
    /// The merges at the head of the loop over each frame, in the graph's order.
    headers: HashMap<String, Vec<&'g str>>,
    /// Where each of them stands among those of its frame.
    places: HashMap<&'g str, usize>,
    gates: Gates,
    regions: Vec<Region>,
    groups: Vec<Group>,
    built: HashMap<(usize, String), Built>,
    steps: usize,
}

fn refuse<T>(node: &NodeDef, why: &str) -> Result<T, Status> {
    Err(Status::unimplemented(format!("{} at {} {why}", node.op, node.name)))
}

impl<'g> Lifter<'g> {
    fn new(graph: &'g FrozenGraph) -> Lifter<'g> {
        let index =
            graph.nodes.iter().zip(0..).map(|(node, at)| (node.name.as_str(), at)).collect();
        let main = Region {
            kind: Kind::Main,
            parent: MAIN,
            depth: 0,
            group: 0,
            nodes: Vec::new(),
            bodies: Vec::new(),
            written: HashSet::new(),
            names: HashMap::new(),
        };
        let mut bodies: HashMap<&str, Vec<&FrozenBody>> = HashMap::new();
        for body in &graph.bodies {
            bodies.entry(&body.node).or_default().push(body);
        }
        let mut lifter = Lifter {
            graph,
            gates: Gates::of(&graph.nodes),
            index,
            bodies,
            headers: HashMap::new(),
            places: HashMap::new(),
            regions: vec![main],
            groups: vec![Group::default()],
            built: HashMap::new(),
            steps: 0,
        };
        for merge in graph.nodes.iter().filter(|node| node.op == "Merge") {
            if let Ok(Some(frame)) = lifter.frame_of_header(merge) {
                let headers = lifter.headers.entry(frame).or_default();
                lifter.places.insert(&merge.name, headers.len());
                headers.push(&merge.name);
            }
        }
        lifter
    }

    /// Which state of its loop a merge at its head is.
    fn place(&self, header: &NodeDef) -> Result<usize, Status> {
        match self.places.get(header.name.as_str()) {
            Some(&at) => Ok(at),
            None => refuse(header, "is no head of a loop that is known"),
        }
    }

    fn node(&self, tensor: &str) -> Option<(&'g NodeDef, u32)> {
        let (name, output) = split_tensor_name(tensor);
        Some((&self.graph.nodes[*self.index.get(name)?], output))
    }

    /// What a check looks at, as it is outside; `None` where it always holds. TF1's `Assert` stands in
    /// the branch in which its condition is false.
    fn looked_at(&self, tensor: &str) -> Option<String> {
        match self.node(tensor) {
            Some((node, output)) if node.op == "Switch" && node.input[0] == node.input[1] => {
                (output == 0).then(|| node.input[0].clone())
            }
            _ => Some(tensor.to_owned()),
        }
    }

    /// What `tensor` is called in a region; it is computed there if it is not yet.
    fn lower(&mut self, region: usize, tensor: &str) -> Result<String, Status> {
        let mut pending = vec![tensor.to_owned()];
        while let Some(next) = pending.last() {
            self.steps += 1;
            if self.steps > STEPS_MAX || pending.len() > STEPS_MAX {
                return Err(Status::resource_exhausted("the graph takes too many steps to lift"));
            }
            if self.regions[region].names.contains_key(next) {
                pending.pop();
                continue;
            }
            let next = next.clone();
            match self.find(region, &next)? {
                Found::Named(name) => {
                    self.regions[region].names.insert(next, name);
                    pending.pop();
                }
                Found::Needs(more) => pending.extend(more),
            }
        }
        self.regions[region].names.get(tensor).cloned().ok_or_else(|| Status::internal("lifting"))
    }

    fn find(&mut self, region: usize, tensor: &str) -> Result<Found, Status> {
        let Some((node, output)) = self.node(tensor) else {
            return Ok(Found::Named(match region {
                MAIN => tensor.to_owned(),
                _ => self.capture(region, tensor),
            }));
        };
        match node.op.as_str() {
            "Switch" => self.switch(region, tensor, node, output),
            "Enter" => {
                let frame = frame_of(node)?;
                self.owned(region, tensor, node, &Kind::Loop(frame), |lifter| {
                    Ok(Found::Named(lifter.capture(region, &node.input[0])))
                })
            }
            "Merge" if output != 0 => refuse(node, "tells which branch was taken"),
            "Merge" => match self.frame_of_header(node)? {
                Some(frame) => {
                    let at = self.place(node)?;
                    self.owned(region, tensor, node, &Kind::Loop(frame), |_| {
                        Ok(Found::Named(Group::argument(at)))
                    })
                }
                None => self.branch(region, node),
            },
            "Exit" => self.leave(region, node),
            "LoopCond" => self.same_as(region, &node.input[0]),
            "NextIteration" => refuse(node, "closes no loop"),
            _ => self.plain(region, tensor, node, output),
        }
    }

    fn same_as(&self, region: usize, tensor: &str) -> Result<Found, Status> {
        Ok(match self.regions[region].names.get(tensor) {
            Some(name) => Found::Named(name.clone()),
            None => Found::Needs(vec![tensor.to_owned()]),
        })
    }

    fn capture(&mut self, region: usize, tensor: &str) -> String {
        let group = self.regions[region].group;
        self.groups[group].capture(tensor)
    }

    /// What belongs to the region of this kind: this one, or one around, which hands it in.
    fn owned(
        &mut self,
        region: usize,
        tensor: &str,
        node: &NodeDef,
        kind: &Kind,
        own: impl FnOnce(&mut Self) -> Result<Found, Status>,
    ) -> Result<Found, Status> {
        if self.regions[region].kind == *kind {
            return own(self);
        }
        let mut at = region;
        while at != MAIN {
            at = self.regions[at].parent;
            if self.regions[at].kind == *kind {
                return Ok(Found::Named(self.capture(region, tensor)));
            }
        }
        refuse(node, "is read outside of its branch or loop")
    }

    fn switch(
        &mut self,
        region: usize,
        tensor: &str,
        node: &'g NodeDef,
        output: u32,
    ) -> Result<Found, Status> {
        let is_loop = self.node(&node.input[1]).is_some_and(|(node, _)| node.op == "LoopCond");
        if is_loop {
            if output != 1 {
                return refuse(node, "is read behind a loop without leaving it");
            }
            return self.same_as(region, &node.input[0]);
        }
        let kind = Kind::Branch(node.input[1].clone(), output == 1);
        self.owned(region, tensor, node, &kind, |lifter| {
            Ok(Found::Named(lifter.capture(region, &node.input[0])))
        })
    }

    /// The frame of a merge at the head of a loop.
    fn frame_of_header(&self, merge: &NodeDef) -> Result<Option<String>, Status> {
        let inputs: Vec<_> = merge.input.iter().filter_map(|input| self.node(input)).collect();
        if !inputs.iter().any(|(node, _)| node.op == "NextIteration") {
            return Ok(None);
        }
        match &inputs[..] {
            [(enter, _), (next, _)] if enter.op == "Enter" && next.op == "NextIteration" => {
                frame_of(enter).map(Some)
            }
            _ => refuse(merge, "is no head of a loop that is known"),
        }
    }

    fn open(&mut self, parent: usize, kind: Kind, group: usize) -> Result<usize, Status> {
        let depth = self.regions[parent].depth + 1;
        if depth > DEPTH_MAX {
            return Err(Status::resource_exhausted(format!(
                "branches and loops nest more than {DEPTH_MAX} deep"
            )));
        }
        self.regions.push(Region {
            kind,
            parent,
            depth,
            group,
            nodes: Vec::new(),
            bodies: Vec::new(),
            written: HashSet::new(),
            names: HashMap::new(),
        });
        Ok(self.regions.len() - 1)
    }

    /// Makes a body of a finished region, once all arguments of its group are known.
    fn close(
        &mut self,
        region: usize,
        node: &str,
        attribute: &str,
        results: Vec<String>,
    ) -> FrozenBody {
        let arguments = self.groups[self.regions[region].group].arguments();
        let region = &mut self.regions[region];
        FrozenBody {
            node: node.to_owned(),
            attribute: attribute.to_owned(),
            nodes: std::mem::take(&mut region.nodes),
            arguments,
            results,
            checks: Vec::new(),
            bodies: std::mem::take(&mut region.bodies),
        }
    }

    /// The merge of two branches.
    fn branch(&mut self, region: usize, merge: &'g NodeDef) -> Result<Found, Status> {
        let key = (region, merge.name.clone());
        if !self.built.contains_key(&key) {
            let Some((predicate, sides)) = self.gates.closed_by(&merge.name) else {
                return refuse(merge, "joins branches whose condition cannot be told");
            };
            let (predicate, sides) = (predicate.clone(), *sides);
            self.groups.push(Group::default());
            let group = self.groups.len() - 1;
            let mut sides_done = Vec::new();
            for (input, side) in merge.input.iter().zip(sides) {
                let inner = self.open(region, Kind::Branch(predicate.clone(), side), group)?;
                let result = self.lower(inner, input)?;
                sides_done.push((inner, side, result));
            }
            let mut given = vec![predicate];
            given.extend(self.groups[group].captured.clone());
            for (inner, side, result) in sides_done {
                let attribute = if side { "then_branch" } else { "else_branch" };
                let body = self.close(inner, &merge.name, attribute, vec![result]);
                self.regions[region].bodies.push(body);
            }
            let built = Built { op: "StatelessIf", name: merge.name.clone(), given };
            self.built.insert(key.clone(), built);
        }
        let built = self.built[&key].clone();
        self.call(region, built, 0)
    }

    /// What a loop gives.
    fn leave(&mut self, region: usize, exit: &'g NodeDef) -> Result<Found, Status> {
        let switch =
            self.node(&exit.input[0]).filter(|(node, output)| node.op == "Switch" && *output == 0);
        let Some((switch, _)) = switch else { return refuse(exit, "leaves no loop that is known") };
        let header = self.node(&switch.input[0]).filter(|(node, _)| node.op == "Merge");
        let condition = self.node(&switch.input[1]).filter(|(node, _)| node.op == "LoopCond");
        let (Some((header, _)), Some((condition, _))) = (header, condition) else {
            return refuse(exit, "leaves no loop that is known");
        };
        let Some(frame) = self.frame_of_header(header)? else {
            return refuse(exit, "leaves no loop that is known");
        };
        let at = self.place(header)?;
        let key = (region, condition.name.clone());
        if !self.built.contains_key(&key) {
            let headers = self.headers.get(&frame).cloned().unwrap_or_default();
            let built = self.round(region, &frame, &headers, condition)?;
            self.built.insert(key.clone(), built);
        }
        let built = self.built[&key].clone();
        self.call(region, built, at)
    }

    fn round(
        &mut self,
        region: usize,
        frame: &str,
        headers: &[&'g str],
        condition: &'g NodeDef,
    ) -> Result<Built, Status> {
        self.groups.push(Group { states: headers.len(), ..Group::default() });
        let group = self.groups.len() - 1;
        let test = self.open(region, Kind::Loop(frame.to_owned()), group)?;
        let goes_on = self.lower(test, &condition.input[0])?;
        let body = self.open(region, Kind::Loop(frame.to_owned()), group)?;
        let (mut given, mut results) = (Vec::new(), Vec::new());
        for header in headers {
            let inputs = self.node(header).map_or(&[][..], |(node, _)| &node.input);
            let [enter, next] = inputs else {
                return refuse(condition, "has a state of other inputs");
            };
            let (Some((enter, _)), Some((next, _))) = (self.node(enter), self.node(next)) else {
                return refuse(condition, "has a state of other inputs");
            };
            given.push(enter.input[0].clone());
            results.push(self.lower(body, &next.input[0])?);
        }
        let captured = self.groups[group].captured.clone();
        // What a loop only reads is handed on as it is.
        results.extend((0..captured.len()).map(|at| Group::argument(headers.len() + at)));
        given.extend(captured);
        let name = condition.name.clone();
        for (inner, attribute, results) in [(test, "cond", vec![goes_on]), (body, "body", results)]
        {
            let body = self.close(inner, &name, attribute, results);
            self.regions[region].bodies.push(body);
        }
        Ok(Built { op: "StatelessWhile", name, given })
    }

    /// An output of a branch or loop, whose node is written once all that it is given is known.
    fn call(&mut self, region: usize, built: Built, output: usize) -> Result<Found, Status> {
        let Built { op, name, given } = built;
        let Some(input) = self.known(region, &given) else {
            return Ok(Found::Needs(self.unknown(region, &given)));
        };
        let result = format!("{name}:{output}");
        let region = &mut self.regions[region];
        if region.written.insert(name.clone()) {
            let attr: BTreeMap<String, AttrValue> = BTreeMap::new();
            let op = op.to_owned();
            region.nodes.push(NodeDef { name, op, input, attr, ..NodeDef::default() });
        }
        Ok(Found::Named(result))
    }

    /// What tensors are called, when all are known.
    fn known(&self, region: usize, tensors: &[String]) -> Option<Vec<String>> {
        let names = &self.regions[region].names;
        tensors.iter().map(|tensor| names.get(tensor).cloned()).collect()
    }

    fn unknown(&self, region: usize, tensors: &[String]) -> Vec<String> {
        let names = &self.regions[region].names;
        tensors.iter().filter(|tensor| !names.contains_key(*tensor)).cloned().collect()
    }

    /// Any other node, and arrays.
    fn plain(
        &mut self,
        region: usize,
        tensor: &str,
        node: &'g NodeDef,
        output: u32,
    ) -> Result<Found, Status> {
        let is_array = arrays::is_array(&node.op);
        let inputs = if is_array { arrays::inputs(node)? } else { node.input.clone() };
        let Some(input) = self.known(region, &inputs) else {
            return Ok(Found::Needs(self.unknown(region, &inputs)));
        };
        if self.regions[region].written.insert(node.name.clone()) {
            let written = if is_array {
                arrays::listed(node, input, |name| self.node(name).map(|(node, _)| node))?
            } else {
                vec![NodeDef { input, ..node.clone() }]
            };
            let bodies = self.bodies.get(node.name.as_str()).into_iter().flatten();
            let region = &mut self.regions[region];
            region.bodies.extend(bodies.copied().cloned());
            region.nodes.extend(written);
        }
        Ok(Found::Named(if is_array { arrays::output(node, output)? } else { tensor.to_owned() }))
    }
}

fn frame_of(enter: &NodeDef) -> Result<String, Status> {
    match enter.attr.get("frame_name").map(|value| &value.value) {
        Some(Some(Value::S(name))) => Ok(String::from_utf8_lossy(name).into_owned()),
        _ => refuse(enter, "has no frame"),
    }
}

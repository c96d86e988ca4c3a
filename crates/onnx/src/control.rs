//! Branches and loops: TensorFlow's functional `If`, `Case` and `While` as ONNX's `If` and `Loop`.
//!
//! A body becomes a graph within the graph. What a loop hands on unchanged is no state of ONNX's loop:
//! its body reads it from around. Invariant: what is known of a state inside a body (its sizes) holds
//! before the first round and, when it holds before a round, after it; see
//! docs/adr/0017-branches-and-loops.md.

use vesta_model::DType;
use vesta_protos::tensorflow::NodeDef;

use crate::constant::{Constant, onnx_number};
use crate::graph::{Attr, Subgraph};
use crate::ops::lists;
use crate::refusal::Reason;
use crate::signature::{Body, canonical};
use crate::translate::{Piece, Translating, alias};
use crate::value::{Dim, Dims, List, Value, ValueId};

/// How often a loop's body is gone through until what is known of its states holds.
const ROUNDS_MAX: usize = 12;

/// Branches of one `Case`.
const BRANCHES_MAX: usize = 256;

/// Whether an operator is one of these.
pub(crate) fn is_control(op: &str) -> bool {
    matches!(op, "Case" | "If" | "StatelessCase" | "StatelessIf" | "StatelessWhile" | "While")
}

/// One state of a loop, or one result of a branch.
#[derive(Clone, Debug, PartialEq)]
struct State {
    /// TensorFlow's.
    dtype: DType,
    /// Of the ONNX value.
    dims: Dims,
    list: Option<List>,
    /// Axes whose size is another one in each round.
    open: Vec<bool>,
}

impl State {
    fn of(value: &Value) -> State {
        let rank = value.dims.as_ref().map_or(0, Vec::len);
        State {
            dtype: value.dtype,
            dims: value.dims.clone(),
            list: value.list.clone(),
            open: vec![false; rank],
        }
    }

    /// The dtype of the ONNX value.
    fn held(&self) -> DType {
        self.list.as_ref().map_or(self.dtype, |list| list.dtype)
    }

    /// Takes back what does not hold of `other`; gives whether it all did.
    fn admit(&mut self, other: &State, symbol: &mut dyn FnMut() -> Dim) -> bool {
        let (Some(own), Some(others)) = (&mut self.dims, &other.dims) else {
            let held = self.dims.is_none();
            (self.dims, self.open) = (None, Vec::new());
            return held;
        };
        if own.len() != others.len() {
            (self.dims, self.open) = (None, Vec::new());
            return false;
        }
        let mut held = true;
        for ((dim, other), is_open) in own.iter_mut().zip(others).zip(&mut self.open) {
            if dim != other && !*is_open {
                (*dim, *is_open, held) = (symbol(), true, false);
            }
        }
        if let Some(list) = &mut self.list {
            list.dims = Some(own.get(1..).unwrap_or_default().to_vec());
            match (&mut list.grown, other.list.as_ref().and_then(|it| it.grown.as_ref())) {
                (own @ None, Some(grown)) => (*own, held) = (Some(grown.clone()), false),
                (Some(own), Some(grown))
                    if own.number != grown.number && own.number != Dim::Known(0) =>
                {
                    (own.number, held) = (Dim::Known(0), false);
                }
                _ => {}
            }
        }
        held
    }

    fn value(&self, name: Option<String>) -> Value {
        let list = self.list.clone();
        Value { plain: name, list, ..Value::new(self.dtype, self.dims.clone()) }
    }
}

impl<'a> Translating<'a> {
    /// Writes a branch or loop. `None` when something of it was refused.
    pub(crate) fn control(
        &mut self,
        node: &'a NodeDef,
        inputs: &[ValueId],
    ) -> Option<Vec<ValueId>> {
        let outcome = match node.op.as_str() {
            "Case" | "StatelessCase" => self.cases(node, inputs),
            "If" | "StatelessIf" => self.branch(node, inputs),
            _ => self.repeat(node, inputs),
        };
        match outcome {
            Ok(results) => Some(results),
            Err(Obstacle::Refused) => None,
            Err(Obstacle::Reason(reason)) => {
                self.refuse(&node.op, &node.name, reason);
                None
            }
        }
    }

    fn body(
        &self,
        node: &NodeDef,
        attribute: &str,
        given: usize,
    ) -> Result<&'a Body<'a>, Obstacle> {
        let bodies = self.piece.bodies;
        let found =
            bodies.iter().find(|body| body.node == node.name && body.attribute == attribute);
        match found {
            Some(body) if body.arguments.len() == given => Ok(body),
            Some(_) => Err(Obstacle::Reason(format!("its {attribute} takes other arguments"))),
            None => Err(Obstacle::Reason(format!("its {attribute} is not there"))),
        }
    }

    /// Writes a body into the graph as it stands, with these arguments.
    fn written(
        &mut self,
        body: &'a Body<'a>,
        arguments: &[ValueId],
    ) -> Result<Vec<ValueId>, Obstacle> {
        let piece = Piece {
            nodes: body.nodes,
            fetches: &body.results,
            checks: body.checks,
            bodies: &body.bodies,
            path: format!("{}{}/", self.piece.path, body.node),
        };
        let origin = self.graph.origin.clone();
        let mut inner = Translating::new(piece, std::mem::take(&mut self.graph));
        for (tensor, &id) in body.arguments.iter().zip(arguments) {
            // A value of its own, so that nothing of what stands around is changed.
            let value = inner.graph.get(id).clone();
            let own = inner.graph.add(Value { convolution: None, ..value });
            inner.bind_argument(tensor, own);
        }
        let results = inner.translate();
        let Translating { graph, mut refusals, .. } = inner;
        self.graph = graph;
        self.graph.origin = origin;
        let is_whole = refusals.is_empty();
        self.refusals.append(&mut refusals);
        results.filter(|_| is_whole).ok_or(Obstacle::Refused)
    }

    /// The values that a graph within gives, each by a node of its own.
    fn outputs(&mut self, results: &[ValueId]) -> Result<Vec<String>, Obstacle> {
        let mut names: Vec<String> = Vec::new();
        for &id in results {
            let value = self.graph.get(id);
            if value.dtype == DType::Resource || lists::is_unmade(value) {
                return Err(Obstacle::Reason(
                    "it gives a list whose elements have no known size, or a handle".to_owned(),
                ));
            }
            let mut name = self.graph.plain(id);
            let is_own = self.graph.nodes.iter().any(|node| node.outputs.contains(&name));
            if !is_own || names.contains(&name) {
                let (dtype, dims) =
                    self.graph.facts.get(&name).cloned().unwrap_or((DType::Invalid, None));
                name = self.graph.emit("Identity", &[&name], vec![], dtype, dims);
            }
            names.push(name);
        }
        Ok(names)
    }

    /// A truth, as TensorFlow takes one of a scalar.
    fn truth(&mut self, id: ValueId) -> Result<String, Obstacle> {
        let value = self.graph.get(id);
        match (value.dtype, value.rank()) {
            (DType::Bool, Some(0)) => Ok(self.graph.plain(id)),
            (DType::Bool, None) => {
                let name = self.graph.plain(id);
                Ok(self.graph.reshape(&name, &[], Some(vec![])))
            }
            (dtype, rank) => Err(Obstacle::Reason(format!(
                "its condition is no single truth but of dtype {dtype} and rank {rank:?}"
            ))),
        }
    }

    fn branch(&mut self, node: &'a NodeDef, inputs: &[ValueId]) -> Result<Vec<ValueId>, Obstacle> {
        let Some((&condition, given)) = inputs.split_first() else {
            return Err(Obstacle::Reason("it has no condition".to_owned()));
        };
        let then = self.body(node, "then_branch", given.len())?;
        let other = self.body(node, "else_branch", given.len())?;
        let value = self.graph.get(condition);
        let known = value.constant.as_ref().filter(|_| value.dtype == DType::Bool);
        if let Some([truth]) = known.and_then(Constant::to_ints).as_deref() {
            let results = self.written(if *truth != 0 { then } else { other }, given)?;
            return Ok(results.into_iter().map(|id| alias(&mut self.graph, id)).collect());
        }
        let condition = self.truth(condition)?;
        let write = |this: &mut Self, body| this.written(body, given);
        self.either(&condition, |this| write(this, then), |this| write(this, other))
    }

    /// One of several, by a number; the last for any number that none has.
    fn cases(&mut self, node: &'a NodeDef, inputs: &[ValueId]) -> Result<Vec<ValueId>, Obstacle> {
        let Some((&number, given)) = inputs.split_first() else {
            return Err(Obstacle::Reason("it has no number of a branch".to_owned()));
        };
        let own = |body: &&Body<'_>| body.node == node.name;
        let count = self.piece.bodies.iter().filter(own).count();
        let bodies = (0..count)
            .map(|at| self.body(node, &format!("branches[{at}]"), given.len()))
            .collect::<Result<Vec<_>, _>>()?;
        let Some((&last, others)) = bodies.split_last() else {
            return Err(Obstacle::Reason("it has no branches".to_owned()));
        };
        if count > BRANCHES_MAX {
            return Err(Obstacle::Reason(format!("it has more than {BRANCHES_MAX} branches")));
        }
        let value = self.graph.get(number);
        if (value.dtype, value.rank()) != (DType::I32, Some(0)) {
            return Err(Obstacle::Reason(
                "its number of a branch is no scalar of int32".to_owned(),
            ));
        }
        if let Some([known]) = value.constant.as_ref().and_then(Constant::to_ints).as_deref() {
            let chosen = usize::try_from(*known).ok().and_then(|at| others.get(at));
            let results = self.written(chosen.copied().unwrap_or(last), given)?;
            return Ok(results.into_iter().map(|id| alias(&mut self.graph, id)).collect());
        }
        let number = self.graph.plain(number);
        let (zero, end) = (self.whole(0)?, self.whole(others.len())?);
        let is_below =
            self.graph.emit("Less", &[&number, &zero], vec![], DType::Bool, Some(vec![]));
        let inputs = [&*is_below, &end, &number];
        let number = self.graph.emit("Where", &inputs, vec![], DType::I32, Some(vec![]));
        self.case_among(&number, 0, &bodies, given)
    }

    fn whole(&mut self, number: usize) -> Result<String, Obstacle> {
        let scalar = self.graph.scalar(DType::I32, number as f64);
        scalar.map_err(|Reason(reason)| Obstacle::Reason(reason))
    }

    /// Those of some branches whose numbers begin with `first`. They are halved, for readers of a model
    /// follow graphs within graphs a few steps only.
    fn case_among(
        &mut self,
        number: &str,
        first: usize,
        bodies: &[&'a Body<'a>],
        given: &[ValueId],
    ) -> Result<Vec<ValueId>, Obstacle> {
        if let [body] = bodies {
            return self.written(body, given);
        }
        let (lower, upper) = bodies.split_at(bodies.len() / 2);
        let middle = first + lower.len();
        let own = self.whole(middle)?;
        let is_lower = self.graph.emit("Less", &[number, &own], vec![], DType::Bool, Some(vec![]));
        self.either(
            &is_lower,
            |this| this.case_among(number, first, lower, given),
            |this| this.case_among(number, middle, upper, given),
        )
    }

    /// ONNX's `If` over two ways to write the same results.
    fn either(
        &mut self,
        condition: &str,
        then: impl FnOnce(&mut Self) -> Result<Vec<ValueId>, Obstacle>,
        other: impl FnOnce(&mut Self) -> Result<Vec<ValueId>, Obstacle>,
    ) -> Result<Vec<ValueId>, Obstacle> {
        // Both are looked at, so that all is named that stands in the way.
        let (then, other) = (self.one_branch(then), self.one_branch(other));
        let ((then, mut states), (other, others)) = (then?, other?);
        if states.len() != others.len() {
            return Err(Obstacle::Reason(
                "its branches give different numbers of results".to_owned(),
            ));
        }
        for (state, other) in states.iter_mut().zip(&others) {
            if state.dtype != other.dtype || state.held() != other.held() {
                return Err(Obstacle::Reason("its branches give different dtypes".to_owned()));
            }
            state.admit(other, &mut || self.graph.symbol());
        }
        let given = states.iter().map(|state| (state.held(), state.dims.clone())).collect();
        let attributes = vec![
            ("then_branch", Attr::Graph(Box::new(then))),
            ("else_branch", Attr::Graph(Box::new(other))),
        ];
        if states.is_empty() {
            return Ok(vec![]);
        }
        let names = self.graph.emit_many("If", &[condition], attributes, given);
        let values = names.into_iter().zip(&states).map(|(name, state)| state.value(Some(name)));
        Ok(values.map(|value| self.graph.add(value)).collect())
    }

    fn one_branch(
        &mut self,
        write: impl FnOnce(&mut Self) -> Result<Vec<ValueId>, Obstacle>,
    ) -> Result<(Subgraph, Vec<State>), Obstacle> {
        let outer = self.graph.enter();
        let written = write(self).and_then(|results| {
            let outputs = self.outputs(&results)?;
            let states = results.iter().map(|&id| State::of(self.graph.get(id))).collect();
            Ok((outputs, states))
        });
        let nodes = self.graph.leave(outer);
        let (outputs, states) = written?;
        Ok((Subgraph { inputs: vec![], nodes, outputs }, states))
    }

    fn repeat(&mut self, node: &'a NodeDef, inputs: &[ValueId]) -> Result<Vec<ValueId>, Obstacle> {
        let condition = self.body(node, "cond", inputs.len())?;
        let body = self.body(node, "body", inputs.len())?;
        if body.results.len() != inputs.len() || condition.results.len() != 1 {
            return Err(Obstacle::Reason("its functions give other results".to_owned()));
        }
        let is_same = |at: &usize| canonical(&body.results[*at]) == canonical(&body.arguments[*at]);
        let carried: Vec<usize> = (0..inputs.len()).filter(|at| !is_same(at)).collect();
        let mut inputs = inputs.to_vec();
        let first = match self.written(condition, &inputs) {
            Ok(results) => self.truth(results[0])?,
            Err(obstacle) => {
                // What stands in the way of the body is named, too.
                let outer = self.graph.enter();
                let _ = self.written(body, &inputs);
                self.graph.leave(outer);
                return Err(obstacle);
            }
        };
        let mut states: Vec<State> =
            carried.iter().map(|&at| State::of(self.graph.get(inputs[at]))).collect();
        if let Some(state) = states.iter().find(|state| onnx_number(state.held()).is_none()) {
            return Err(Obstacle::Reason(format!("its state is of dtype {}", state.dtype)));
        }
        for _ in 0..ROUNDS_MAX {
            let symbols = self.graph.symbols_len();
            let outer = self.graph.enter();
            let round = self.round(condition, body, &inputs, &carried, &states);
            let nodes = self.graph.leave(outer);
            let Round { arguments, outputs, results } = round?;
            if results.iter().zip(&states).any(|(a, b)| a.dtype != b.dtype || a.held() != b.held())
            {
                return Err(Obstacle::Reason("a state changes its dtype".to_owned()));
            }
            let mut holds = true;
            for ((state, result), &at) in states.iter_mut().zip(&results).zip(&carried) {
                if state.list.as_ref().is_some_and(|list| list.unmade.is_some()) {
                    inputs[at] = self.made(inputs[at], result, symbols)?;
                    (*state, holds) = (State::of(self.graph.get(inputs[at])), false);
                } else {
                    holds &= state.admit(result, &mut || self.graph.symbol());
                }
            }
            if holds {
                let Some(outputs) = outputs else { return Err(Obstacle::Refused) };
                let graph = Subgraph { inputs: arguments, nodes, outputs };
                return Ok(self.finish(&first, graph, &inputs, &carried, &states));
            }
        }
        Err(Obstacle::Reason("the sizes of its states do not settle".to_owned()))
    }

    /// A list that had no sizes, with those of what the loop's body puts in.
    fn made(&mut self, id: ValueId, result: &State, symbols: u32) -> Result<ValueId, Obstacle> {
        let dims = result.list.as_ref().filter(|list| list.unmade.is_none());
        let dims = dims.and_then(|list| list.dims.clone());
        let Some(dims) = dims else {
            return Err(Obstacle::Reason(
                "the rank of a list's elements is not known before the loop runs".to_owned(),
            ));
        };
        // A size that comes up in the loop is not there before it.
        let dims: Vec<Option<Dim>> = dims
            .into_iter()
            .map(|dim| match dim {
                Dim::Symbol(symbol) if symbol > symbols => None,
                Dim::Symbol(symbol) => self.graph.sized_by(symbol).map(|_| dim),
                Dim::Known(_) => Some(dim),
            })
            .collect();
        lists::make(&mut self.graph, id, &dims).map_err(|why| Obstacle::Reason(why.0))
    }

    /// Goes once through the body, and through the condition of the next round.
    fn round(
        &mut self,
        condition: &'a Body<'a>,
        body: &'a Body<'a>,
        inputs: &[ValueId],
        carried: &[usize],
        states: &[State],
    ) -> Result<Round, Obstacle> {
        let mut arguments = vec![
            self.graph.argument(DType::I64, Some(vec![])),
            self.graph.argument(DType::Bool, Some(vec![])),
        ];
        let mut given = inputs.to_vec();
        for (&at, state) in carried.iter().zip(states) {
            let name = self.graph.argument(state.held(), state.dims.clone());
            let is_unmade = state.list.as_ref().is_some_and(|list| list.unmade.is_some());
            given[at] = self.graph.add(state.value((!is_unmade).then(|| name.clone())));
            arguments.push(name);
        }
        let results = self.written(body, &given)?;
        let next: Vec<ValueId> = carried.iter().map(|&at| results[at]).collect();
        let states: Vec<State> = next.iter().map(|&id| State::of(self.graph.get(id))).collect();
        if next.iter().any(|&id| lists::is_unmade(self.graph.get(id)))
            || given.iter().any(|&id| lists::is_unmade(self.graph.get(id)))
        {
            return Ok(Round { arguments, outputs: None, results: states });
        }
        let mut after = inputs.to_vec();
        carried.iter().zip(&next).for_each(|(&at, &id)| after[at] = id);
        let again = self.written(condition, &after)?[0];
        let again_name = self.truth(again)?;
        let dims = Some(vec![]);
        let again = self.graph.emit("Identity", &[&again_name], vec![], DType::Bool, dims);
        let mut outputs = vec![again];
        outputs.extend(self.outputs(&next)?);
        Ok(Round { arguments, outputs: Some(outputs), results: states })
    }

    fn finish(
        &mut self,
        first: &str,
        graph: Subgraph,
        inputs: &[ValueId],
        carried: &[usize],
        states: &[State],
    ) -> Vec<ValueId> {
        let mut results = inputs.to_vec();
        let before: Vec<String> = carried.iter().map(|&at| self.graph.plain(inputs[at])).collect();
        let mut names = vec!["", first];
        names.extend(before.iter().map(String::as_str));
        let mut after = states.to_vec();
        for state in &mut after {
            // What changes from round to round is one size once the loop has ended.
            let open = state.open.clone();
            for (dim, _) in state.dims.iter_mut().flatten().zip(open).filter(|(_, open)| *open) {
                *dim = self.graph.symbol();
            }
            if let (Some(list), Some(dims)) = (&mut state.list, &state.dims) {
                list.dims = Some(dims.get(1..).unwrap_or_default().to_vec());
            }
        }
        if !carried.is_empty() {
            let given = after.iter().map(|state| (state.held(), state.dims.clone())).collect();
            let attributes = vec![("body", Attr::Graph(Box::new(graph)))];
            let names = self.graph.emit_many("Loop", &names, attributes, given);
            for ((&at, state), name) in carried.iter().zip(&after).zip(names) {
                results[at] = self.graph.add(state.value(Some(name)));
            }
        }
        results
            .into_iter()
            .enumerate()
            .map(|(at, id)| if carried.contains(&at) { id } else { alias(&mut self.graph, id) })
            .collect()
    }
}

/// What a loop's body came to.
struct Round {
    arguments: Vec<String>,
    /// The condition of the next round, then the states; `None` where a list is still to be made.
    outputs: Option<Vec<String>>,
    results: Vec<State>,
}

/// Why a branch or loop was not written.
enum Obstacle {
    /// Something within it was refused, and named.
    Refused,
    /// Itself.
    Reason(String),
}

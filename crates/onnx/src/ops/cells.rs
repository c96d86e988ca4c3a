//! Cells of recurrent networks that TensorFlow computes in one operator, and rows of them.
//!
//! Invariant: results stand in the order of TensorFlow's outputs, all of them, read or not.

use vesta_model::DType;

use super::expect_dtype;
use super::formula::Formula;
use super::guards::{sizes, whole};
use crate::call::Call;
use crate::graph::{Attr, Graph, Subgraph};
use crate::refusal::{Reason, refuse};
use crate::registry::{Family, Outcome};
use crate::value::{Dim, ValueId};

pub(super) const FAMILY: Family = &[
    ("BlockLSTM", |g, c| row(g, c, &Order::FIRST, 1.0, 3.0)),
    ("BlockLSTMV2", |g, c| row(g, c, &Order::SECOND, 0.0, 0.0)),
    ("GRUBlockCell", gated),
    ("LSTMBlockCell", |g, c| {
        let weights = Weights::read(g, c, 3, &Order::FIRST, (1.0, 3.0))?;
        let [x, before, hidden] = [c.input(0)?, c.input(1)?, c.input(2)?];
        Ok(weights.step(g, x, before, hidden)?.to_vec())
    }),
];

/// Where the gates stand in the columns of the weights.
#[derive(Clone, Copy)]
struct Order {
    candidate: usize,
    forget: usize,
}

impl Order {
    /// Input, candidate, forget, output.
    const FIRST: Order = Order { candidate: 1, forget: 2 };
    /// Input, forget, candidate, output.
    const SECOND: Order = Order { candidate: 2, forget: 1 };
}

/// What a cell of long short-term memory has besides its state.
struct Weights {
    order: Order,
    matrix: ValueId,
    bias: ValueId,
    /// By which input, forget and output gate look at the state.
    peepholes: Option<[ValueId; 3]>,
    forget_bias: f32,
    clip: f32,
    /// Cells, when their number is known.
    size: Dim,
}

impl Weights {
    /// Of a node whose weights begin with its input `at`.
    fn read(
        g: &Graph,
        c: &Call<'_>,
        at: usize,
        order: &Order,
        (forget_bias, clip): (f32, f32),
    ) -> Result<Weights, Reason> {
        let (matrix, bias) = (c.input(at)?, c.input(at + 4)?);
        expect_dtype(g.get(matrix).dtype, &[DType::F32])?;
        let size = match g.dims(bias)?[..] {
            [Dim::Known(n)] if n.is_multiple_of(4) => Dim::Known(n / 4),
            _ => return refuse("the number of its cells is not known"),
        };
        let peepholes = [c.input(at + 1)?, c.input(at + 2)?, c.input(at + 3)?];
        Ok(Weights {
            order: *order,
            matrix,
            bias,
            peepholes: c.flag("use_peephole", false)?.then_some(peepholes),
            forget_bias: c.float("forget_bias", forget_bias)?,
            clip: c.float("cell_clip", clip)?,
            size,
        })
    }

    /// Input gate, state, forget gate, output gate, candidate, tanh of the state, hidden state.
    fn step(
        &self,
        g: &mut Graph,
        x: ValueId,
        before: ValueId,
        hidden: ValueId,
    ) -> Result<[ValueId; 7], Reason> {
        let all = columns(g, x, hidden, self.matrix, self.bias)?;
        let gates = split(g, all, 4, self.size);
        let mut f = Formula { g, dtype: DType::F32 };
        let gate = |f: &mut Formula<'_>, sum: ValueId, state: ValueId, of: usize| {
            let sum = match self.peepholes {
                Some(peepholes) => {
                    let seen = f.node("Mul", &[state, peepholes[of]])?;
                    f.node("Add", &[sum, seen])?
                }
                None => sum,
            };
            f.node("Sigmoid", &[sum])
        };
        let input = gate(&mut f, gates[0], before, 0)?;
        let bias = f.number(self.forget_bias.into())?;
        let kept = f.node("Add", &[gates[self.order.forget], bias])?;
        let forget = gate(&mut f, kept, before, 1)?;
        let candidate = f.node("Tanh", &[gates[self.order.candidate]])?;
        let new = f.node("Mul", &[candidate, input])?;
        let old = f.node("Mul", &[before, forget])?;
        let mut state = f.node("Add", &[new, old])?;
        if self.clip > 0.0 {
            let (low, high) = (f.number(-f64::from(self.clip))?, f.number(self.clip.into())?);
            let bounded = f.node("Max", &[state, low])?;
            state = f.node("Min", &[bounded, high])?;
        }
        let output = gate(&mut f, gates[3], state, 2)?;
        let shown = f.node("Tanh", &[state])?;
        let hidden = f.node("Mul", &[shown, output])?;
        Ok([input, state, forget, output, candidate, shown, hidden])
    }
}

/// Both inputs of a cell side by side, times a matrix, plus a bias.
fn columns(
    g: &mut Graph,
    x: ValueId,
    hidden: ValueId,
    matrix: ValueId,
    bias: ValueId,
) -> Result<ValueId, Reason> {
    expect_dtype(g.get(x).dtype, &[DType::F32])?;
    let rows = g.dims(x)?.first().copied().unwrap_or(Dim::Known(1));
    let width = g.dims(matrix)?;
    let [depth, columns] = width[..] else { return refuse("weights that are no matrix") };
    let names = [x, hidden].map(|id| g.plain(id));
    let names = [&*names[0], &names[1]];
    let attributes = vec![("axis", Attr::Int(1))];
    let both = g.emit("Concat", &names, attributes, DType::F32, Some(vec![rows, depth]));
    let matrix = g.plain(matrix);
    let dims = Some(vec![rows, columns]);
    let product = g.emit("MatMul", &[&both, &matrix], vec![], DType::F32, dims);
    let product = g.result(product);
    Formula { g, dtype: DType::F32 }.node("Add", &[product, bias])
}

/// `parts` equal ranges of columns.
fn split(g: &mut Graph, id: ValueId, parts: i64, size: Dim) -> Vec<ValueId> {
    let rows = g.get(id).dims.as_ref().and_then(|dims| dims.first().copied());
    let dims = rows.map(|rows| vec![rows, size]);
    let name = g.plain(id);
    let attributes = vec![("axis", Attr::Int(1)), ("num_outputs", Attr::Int(parts))];
    let given = (0..parts).map(|_| (DType::F32, dims.clone())).collect();
    let names = g.emit_many("Split", &[&name], attributes, given);
    names.into_iter().map(|name| g.result(name)).collect()
}

/// Reset gate, update gate, candidate, hidden state.
fn gated(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let [x, hidden] = [c.input(0)?, c.input(1)?];
    let (gates, candidate) = ((c.input(2)?, c.input(4)?), (c.input(3)?, c.input(5)?));
    let [size] = g.dims(candidate.1)?[..] else { return refuse("a bias that is no vector") };
    let both = columns(g, x, hidden, gates.0, gates.1)?;
    let both = Formula { g, dtype: DType::F32 }.node("Sigmoid", &[both])?;
    let [reset, update] = split(g, both, 2, size)[..] else { return refuse("it has no gates") };
    let seen = Formula { g, dtype: DType::F32 }.node("Mul", &[hidden, reset])?;
    let sum = columns(g, x, seen, candidate.0, candidate.1)?;
    let mut f = Formula { g, dtype: DType::F32 };
    let candidate = f.node("Tanh", &[sum])?;
    let one = f.number(1.0)?;
    let rest = f.node("Sub", &[one, update])?;
    let new = f.node("Mul", &[rest, candidate])?;
    let old = f.node("Mul", &[update, hidden])?;
    Ok(vec![reset, update, candidate, f.node("Add", &[new, old])?])
}

/// A cell for each row of the second input, up to the number in the first; zeros behind.
fn row(g: &mut Graph, c: &Call<'_>, order: &Order, forget_bias: f32, clip: f32) -> Outcome {
    let (length, xs) = (c.input(0)?, c.input(1)?);
    let weights = Weights::read(g, c, 4, order, (forget_bias, clip))?;
    let dims = g.dims(xs)?;
    let [all, batch, _] = dims[..] else { return refuse(format!("rows of rank {}", dims.len())) };
    let state = Some(vec![batch, weights.size]);
    let before = [c.input(2)?, c.input(3)?].map(|id| g.plain(id));
    let xs = g.plain(xs);
    let rounds = g.wide(length)?;
    let rounds = g.reshape(&rounds, &[], Some(vec![]));
    let outer = g.enter();
    let body = body(g, &weights, &xs, &dims);
    let nodes = g.leave(outer);
    let (inputs, outputs) = body?;
    let done = g.symbol();
    let rows = Some(vec![done, batch, weights.size]);
    let mut given = vec![(DType::F32, state); 2];
    given.extend(vec![(DType::F32, rows); 7]);
    let graph = Subgraph { inputs, nodes, outputs };
    let attributes = vec![("body", Attr::Graph(Box::new(graph)))];
    let names = [&*rounds, "", &before[0], &before[1]];
    let results = g.emit_many("Loop", &names, attributes, given);
    // What no round computed is zero.
    let (own, wanted) = (sizes(g, &results[2], 0, Some(1)), sizes(g, &xs, 0, Some(1)));
    let missing = whole(g, "Sub", &wanted, &own, &Some(vec![Dim::Known(1)]));
    let none = g.ints(&[0]);
    let pads = super::guards::joined(g, &[&none, &none, &none, &missing, &none, &none]);
    let zero = g.scalar(DType::F32, 0.0)?;
    let padded = results[2..].iter().map(|name| {
        let mode = vec![("mode", Attr::Text("constant"))];
        let dims = Some(vec![all, batch, weights.size]);
        let name = g.emit("Pad", &[name, &pads, &zero], mode, DType::F32, dims);
        g.result(name)
    });
    Ok(padded.collect())
}

/// One round: names of its inputs and outputs.
fn body(
    g: &mut Graph,
    weights: &Weights,
    xs: &str,
    dims: &[Dim],
) -> Result<(Vec<String>, Vec<String>), Reason> {
    let state = Some(vec![dims[1], weights.size]);
    let at = g.argument(DType::I64, Some(vec![]));
    let again = g.argument(DType::Bool, Some(vec![]));
    let before = [0, 1].map(|_| g.argument(DType::F32, state.clone()));
    let [cells, hidden] = before.clone().map(|name| g.result(name));
    let along = vec![("axis", Attr::Int(0))];
    let x = g.emit("Gather", &[xs, &at], along, DType::F32, Some(dims[1..].to_vec()));
    let x = g.result(x);
    let results = weights.step(g, x, cells, hidden)?;
    let mut outputs = vec![g.emit("Identity", &[&again], vec![], DType::Bool, Some(vec![]))];
    let [_, state_after, .., hidden_after] = results;
    for id in [state_after, hidden_after].into_iter().chain(results) {
        let name = g.plain(id);
        outputs.push(g.emit("Identity", &[&name], vec![], DType::F32, state.clone()));
    }
    let [cells, hidden] = before;
    Ok((vec![at, again, cells, hidden], outputs))
}

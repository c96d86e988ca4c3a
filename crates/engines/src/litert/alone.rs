//! One graph of a model file as a file of its own, for a reader that knows the first graph alone and tells
//! tensors by their names.
//!
//! Owns the names. May not know: who reads it. Invariant: every tensor has a name that no other has, inputs
//! and outputs are those of the graph, each once, and no output is an input, a constant or another output.

use std::collections::BTreeSet;

use vesta_model::{AlignedBytes, Status};

use super::head::{Field, Head, Target};
use super::operators;
use super::schema::{IDENTIFIER, Model, Subgraph, TensorInfo};

/// A graph as a file of its own.
pub(crate) struct Alone {
    pub(crate) bytes: AlignedBytes,
    /// Tensors of the graph, with their names in the file.
    pub(crate) inputs: Vec<(usize, String)>,
    pub(crate) outputs: Vec<(usize, String)>,
}

/// Writes a graph whose operators run no other graph.
///
/// # Errors
/// `UNIMPLEMENTED` for a file that is too large, and for one in which nothing can be computed.
pub(crate) fn write(file: &[u8], model: &Model<'_>, graph: &Subgraph<'_>) -> Result<Alone, Status> {
    let Some(empty_buffer) = model.empty_buffer else {
        return Err(Status::unimplemented("the model.tflite has no place for what is computed"));
    };
    let mut head = Head::default();
    let [root, codes, graphs, part] = [head.part(), head.part(), head.part(), head.part()];
    head.offset(Target::New(root));
    head.bytes.extend(IDENTIFIER);
    head.table(
        root,
        &[
            (0, Field::Number(model.version)),
            (1, Field::To(Target::New(codes))),
            (2, Field::To(Target::New(graphs))),
            (4, Field::To(Target::Old(model.buffers_at))),
        ],
    );
    let cast = head.part();
    let old = model.operator_codes.iter().map(|(at, _)| Target::Old(*at));
    let all: Vec<Target> = old.chain([Target::New(cast)]).collect();
    head.targets(codes, all.into_iter());
    let number = u32::from(operators::CAST);
    let fields =
        [(0, Field::Byte(operators::CAST)), (2, Field::Number(1)), (3, Field::Number(number))];
    head.table(cast, &fields);
    head.targets(graphs, [Target::New(part)].into_iter());
    let ends = ends(graph);
    body(&mut head, part, graph, &ends, (model.operator_codes.len(), empty_buffer))?;
    Ok(Alone {
        bytes: head.before(file)?,
        inputs: ends.inputs.iter().map(|&tensor| (tensor, name(tensor))).collect(),
        outputs: ends.outputs.iter().map(|&(tensor, seen)| (tensor, name(seen))).collect(),
    })
}

/// The name of a tensor by its number.
fn name(number: usize) -> String {
    format!("tensor {number}")
}

/// Tensors of the graph, with the numbers that they have in the new one.
type Numbered = Vec<(usize, usize)>;

/// The ends of a graph, each once.
struct Ends {
    inputs: Vec<usize>,
    outputs: Numbered,
    /// Those outputs that are copied, in the order of their copies, which stand behind the graph's own tensors.
    copied: Vec<usize>,
}

fn ends(graph: &Subgraph<'_>) -> Ends {
    let mut ends = Ends { inputs: Vec::new(), outputs: Vec::new(), copied: Vec::new() };
    let given: BTreeSet<usize> =
        graph.operators.iter().flat_map(|operator| operator.outputs.iter().copied()).collect();
    let (mut inputs, mut outputs) = (BTreeSet::new(), BTreeSet::new());
    ends.inputs.extend(graph.inputs.iter().filter(|&&tensor| inputs.insert(tensor)));
    for &tensor in graph.outputs.iter().filter(|&&tensor| outputs.insert(tensor)) {
        // An output that no operator gives would be lost.
        let seen = if given.contains(&tensor) {
            tensor
        } else {
            ends.copied.push(tensor);
            graph.tensors.len() + ends.copied.len() - 1
        };
        ends.outputs.push((tensor, seen));
    }
    ends
}

/// The graph itself; `cast` is the number of the operator that copies.
fn body(
    head: &mut Head,
    part: usize,
    graph: &Subgraph<'_>,
    ends: &Ends,
    (cast, empty_buffer): (usize, u32),
) -> Result<(), Status> {
    let [tensors, takes, gives, steps] = [head.part(), head.part(), head.part(), head.part()];
    let parts = [(0, tensors), (1, takes), (2, gives), (3, steps)];
    head.table(part, &parts.map(|(slot, part)| (slot, Field::To(Target::New(part)))));
    let own: Vec<usize> = graph.tensors.iter().map(|_| head.part()).collect();
    let copies: Vec<usize> = ends.copied.iter().map(|_| head.part()).collect();
    let all: Vec<Target> = own.iter().chain(&copies).map(|&part| Target::New(part)).collect();
    head.targets(tensors, all.into_iter());
    head.numbers(takes, &ends.inputs);
    head.numbers(gives, &ends.outputs.iter().map(|&(_, seen)| seen).collect::<Vec<_>>());
    let casts: Vec<usize> = ends.copied.iter().map(|_| head.part()).collect();
    let old = graph.operators.iter().map(|operator| Target::Old(operator.at.at));
    let all: Vec<Target> = old.chain(casts.iter().map(|&part| Target::New(part))).collect();
    head.targets(steps, all.into_iter());
    for (number, (like, part)) in graph.tensors.iter().zip(own).enumerate() {
        let buffer = like.at.number(2)?;
        tensor(head, part, like, (&name(number), buffer))?;
    }
    for (position, &from) in ends.copied.iter().enumerate() {
        let number = graph.tensors.len() + position;
        let like = &graph.tensors[from];
        tensor(head, copies[position], like, (&name(number), empty_buffer))?;
        let (takes, gives) = (head.part(), head.part());
        let fields = [
            (0, Field::Number(u32::try_from(cast).unwrap_or(u32::MAX))),
            (1, Field::To(Target::New(takes))),
            (2, Field::To(Target::New(gives))),
        ];
        head.table(casts[position], &fields);
        head.numbers(takes, &[from]);
        head.numbers(gives, &[number]);
    }
    Ok(())
}

/// A tensor like another, under this name and in this buffer. What quantises it is left out.
fn tensor(
    head: &mut Head,
    part: usize,
    like: &TensorInfo<'_>,
    (name, buffer): (&str, u32),
) -> Result<(), Status> {
    let name_part = head.part();
    let mut fields = vec![
        (1, Field::Byte(like.kind)),
        (2, Field::Number(buffer)),
        (3, Field::To(Target::New(name_part))),
        (8, Field::Byte(like.at.byte(8)?)),
    ];
    for slot in [0, 7] {
        fields.extend(like.at.place(slot)?.map(|at| (slot, Field::To(Target::Old(at)))));
    }
    head.table(part, &fields);
    head.text(name_part, name);
    Ok(())
}

//! One graph of a model file as a file of its own, for a reader that knows the first graph alone and tells
//! tensors by their names.
//!
//! Owns the names. May not know: who reads it. Invariant: every tensor has a name that no other has, inputs
//! and outputs are those of the graph, each once, and no output is an input, a constant or another output.

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
    let ends = body(&mut head, part, graph, (model.operator_codes.len(), empty_buffer))?;
    let (inputs, outputs) = ends;
    let named = |ends: Vec<(usize, usize)>| -> Vec<(usize, String)> {
        ends.into_iter().map(|(tensor, seen)| (tensor, name(seen))).collect()
    };
    Ok(Alone { bytes: head.before(file)?, inputs: named(inputs), outputs: named(outputs) })
}

/// The name of a tensor by its number.
fn name(number: usize) -> String {
    format!("tensor {number}")
}

/// Tensors of the graph, with the numbers that they have in the new one.
type Ends = Vec<(usize, usize)>;

/// The graph itself; gives its inputs and outputs.
fn body(
    head: &mut Head,
    part: usize,
    graph: &Subgraph<'_>,
    (cast, empty_buffer): (usize, u32),
) -> Result<(Ends, Ends), Status> {
    let mut inputs: Vec<usize> = Vec::new();
    graph.inputs.iter().for_each(|&tensor| {
        if !inputs.contains(&tensor) {
            inputs.push(tensor);
        }
    });
    let (mut outputs, mut copied): (Ends, Vec<usize>) = (Vec::new(), Vec::new());
    for &tensor in &graph.outputs {
        if outputs.iter().any(|&(known, _)| known == tensor) {
            continue;
        }
        // What no operator gives is lost as an output.
        let is_given = graph.operators.iter().any(|operator| operator.outputs.contains(&tensor));
        let seen = if is_given {
            tensor
        } else {
            copied.push(tensor);
            graph.tensors.len() + copied.len() - 1
        };
        outputs.push((tensor, seen));
    }
    let [tensors, takes, gives, steps] = [head.part(), head.part(), head.part(), head.part()];
    head.table(
        part,
        &[
            (0, Field::To(Target::New(tensors))),
            (1, Field::To(Target::New(takes))),
            (2, Field::To(Target::New(gives))),
            (3, Field::To(Target::New(steps))),
        ],
    );
    let likes: Vec<usize> = (0..graph.tensors.len()).chain(copied.iter().copied()).collect();
    let parts: Vec<usize> = likes.iter().map(|_| head.part()).collect();
    head.targets(tensors, parts.iter().map(|&part| Target::New(part)));
    head.numbers(takes, &inputs);
    head.numbers(gives, &outputs.iter().map(|&(_, seen)| seen).collect::<Vec<_>>());
    let copies: Vec<usize> = copied.iter().map(|_| head.part()).collect();
    let old = graph.operators.iter().map(|operator| Target::Old(operator.at.at));
    let all: Vec<Target> = old.chain(copies.iter().map(|&part| Target::New(part))).collect();
    head.targets(steps, all.into_iter());
    for (number, (like, part)) in likes.into_iter().zip(parts).enumerate() {
        let buffer = (number < graph.tensors.len()).then_some(());
        let buffer = match buffer {
            Some(()) => graph.tensors[like].at.number(2)?,
            None => empty_buffer,
        };
        tensor(head, part, &graph.tensors[like], (&name(number), buffer))?;
    }
    for (position, (from, part)) in copied.into_iter().zip(copies).enumerate() {
        let (takes, gives) = (head.part(), head.part());
        let fields = [
            (0, Field::Number(u32::try_from(cast).unwrap_or(u32::MAX))),
            (1, Field::To(Target::New(takes))),
            (2, Field::To(Target::New(gives))),
        ];
        head.table(part, &fields);
        head.numbers(takes, &[from]);
        head.numbers(gives, &[graph.tensors.len() + position]);
    }
    Ok((inputs.into_iter().map(|tensor| (tensor, tensor)).collect(), outputs))
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

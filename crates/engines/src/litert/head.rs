//! A new head for a model file: the file's own bytes follow it unchanged.
//!
//! Offsets in a flatbuffer lead forward, so what is to be different (here: signatures, and a copy of
//! each output that the runtime may move) can be put before a file that stays as it is, weights and
//! all. Owns the layout. May not know: which signature is for whom.
//! Invariant: signature number n is called by its number, and is of the n-th subgraph asked for; its
//! inputs and outputs are that subgraph's, each once.

use vesta_model::{AlignedBytes, Status};

use super::examples::Parsing;
use super::operators;
use super::schema::{IDENTIFIER, Model, Operator, Subgraph, dtype};

/// Larger files are not flatbuffers any more.
const BYTES_MAX: usize = i32::MAX as usize;
/// What the bytes of weights are aligned to, at least.
const ALIGNMENT: usize = 64;

/// A file with its new head.
pub(super) struct Headed {
    pub(super) bytes: AlignedBytes,
    /// Of each subgraph asked for.
    pub(super) ends: Vec<Ends>,
}

/// The ends of a subgraph, in the order of the runtime.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ends {
    /// Tensors of the file.
    pub(super) inputs: Vec<usize>,
    /// Tensors of the file, with the number that each has for the runtime.
    pub(super) outputs: Vec<(usize, usize)>,
}

/// Where an offset leads.
#[derive(Clone, Copy)]
pub(super) enum Target {
    /// A part of the head, by its number.
    New(usize),
    /// A place in the file.
    Old(usize),
}

/// A field of a table.
pub(super) enum Field {
    Byte(u8),
    Number(u32),
    To(Target),
}

/// The parts written so far; each is written after those that lead to it.
#[derive(Default)]
pub(super) struct Head {
    pub(super) bytes: Vec<u8>,
    offsets: Vec<(usize, Target)>,
    /// Where each part lies, once it is written.
    placed: Vec<usize>,
}

impl Head {
    /// The number of a part that is still to be written.
    pub(super) fn part(&mut self) -> usize {
        self.placed.push(0);
        self.placed.len() - 1
    }

    fn word(&mut self, word: u32) {
        self.bytes.extend(word.to_le_bytes());
    }

    pub(super) fn offset(&mut self, target: Target) {
        self.offsets.push((self.bytes.len(), target));
        self.word(0);
    }

    pub(super) fn table(&mut self, part: usize, fields: &[(usize, Field)]) {
        let slots = fields.iter().map(|(slot, _)| slot + 1).max().unwrap_or(0);
        let mut places = vec![0u16; slots];
        let mut next = 4u16;
        for (slot, _) in fields {
            places[*slot] = next;
            next += 4;
        }
        let start = self.bytes.len();
        let head = u16::try_from(4 + 2 * slots).unwrap_or(u16::MAX);
        for half in [head, next].into_iter().chain(places) {
            self.bytes.extend(half.to_le_bytes());
        }
        self.align(4);
        self.placed[part] = self.bytes.len();
        self.word(u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX));
        for (_, field) in fields {
            match field {
                Field::Byte(byte) => self.word(u32::from(*byte)),
                Field::Number(number) => self.word(*number),
                Field::To(target) => self.offset(*target),
            }
        }
    }

    pub(super) fn targets(&mut self, part: usize, targets: impl ExactSizeIterator<Item = Target>) {
        self.placed[part] = self.bytes.len();
        self.word(u32::try_from(targets.len()).unwrap_or(u32::MAX));
        targets.for_each(|target| self.offset(target));
    }

    pub(super) fn numbers(&mut self, part: usize, numbers: &[usize]) {
        self.placed[part] = self.bytes.len();
        self.word(u32::try_from(numbers.len()).unwrap_or(u32::MAX));
        numbers.iter().for_each(|&n| self.word(u32::try_from(n).unwrap_or(u32::MAX)));
    }

    pub(super) fn text(&mut self, part: usize, text: &str) {
        self.placed[part] = self.bytes.len();
        self.word(u32::try_from(text.len()).unwrap_or(u32::MAX));
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
        self.align(4);
    }

    fn align(&mut self, alignment: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(alignment), 0);
    }

    /// The head before `file`.
    pub(super) fn before(mut self, file: &[u8]) -> Result<AlignedBytes, Status> {
        self.align(ALIGNMENT);
        let length = self.bytes.len() + file.len();
        if length > BYTES_MAX {
            return Err(Status::unimplemented(
                "the model.tflite is larger than 2 GB; give the SavedModel that it was made from",
            ));
        }
        for (at, target) in self.offsets {
            let place = match target {
                Target::New(part) => self.placed[part],
                Target::Old(place) => self.bytes.len() + place,
            };
            let offset = u32::try_from(place - at).unwrap_or(u32::MAX);
            self.bytes[at..at + 4].copy_from_slice(&offset.to_le_bytes());
        }
        let mut whole = AlignedBytes::zeroed(length);
        let (head, rest) = whole.bytes_mut().split_at_mut(self.bytes.len());
        head.copy_from_slice(&self.bytes);
        rest.copy_from_slice(file);
        Ok(whole)
    }
}

/// Puts a head before `file` that has one signature for each of `wanted`, by number of subgraph, with
/// what was taken out of it.
///
/// # Errors
/// `UNIMPLEMENTED` for a file that is too large.
pub(super) fn put_before(
    file: &[u8],
    model: &Model<'_>,
    wanted: &[(usize, Option<Parsing>)],
) -> Result<Headed, Status> {
    let mut head = Head::default();
    let (root, codes, graphs, keys) = (head.part(), head.part(), head.part(), head.part());
    head.offset(Target::New(root));
    head.bytes.extend(IDENTIFIER);
    let mut fields = vec![
        (0, Field::Number(model.version)),
        (1, Field::To(Target::New(codes))),
        (2, Field::To(Target::New(graphs))),
        (4, Field::To(Target::Old(model.buffers_at))),
        (7, Field::To(Target::New(keys))),
    ];
    fields.extend(model.metadata_at.map(|at| (6, Field::To(Target::Old(at)))));
    head.table(root, &fields);

    let cast = head.part();
    let old_codes = model.operator_codes.iter().map(|(at, _)| Target::Old(*at));
    let new_codes: Vec<Target> = old_codes.chain([Target::New(cast)]).collect();
    head.targets(codes, new_codes.into_iter());
    head.table(
        cast,
        &[
            (0, Field::Byte(operators::CAST)),
            (2, Field::Number(1)),
            (3, Field::Number(operators::CAST.into())),
        ],
    );

    let is_wanted = |n: usize| wanted.iter().find(|(wanted, _)| *wanted == n);
    let parts: Vec<_> = (0..model.subgraphs.len())
        .map(|n| is_wanted(n).map(|(_, parsing)| (head.part(), parsing.as_ref())))
        .collect();
    let tables = parts.iter().zip(&model.subgraphs);
    let tables: Vec<Target> = tables
        .map(|(part, graph)| part.map_or(Target::Old(graph.at.at), |(part, _)| Target::New(part)))
        .collect();
    head.targets(graphs, tables.into_iter());
    let mut ends = vec![Ends::default(); model.subgraphs.len()];
    for ((part, graph), ends) in parts.iter().zip(&model.subgraphs).zip(&mut ends) {
        if let Some((part, parsing)) = *part {
            *ends = subgraph(&mut head, part, graph, model, parsing)?;
        }
    }
    let ends: Vec<Ends> = wanted.iter().map(|(n, _)| ends[*n].clone()).collect();

    let signatures: Vec<usize> = wanted.iter().map(|_| head.part()).collect();
    head.targets(keys, signatures.iter().map(|&part| Target::New(part)));
    for (number, part) in signatures.into_iter().enumerate() {
        let outputs: Vec<usize> = ends[number].outputs.iter().map(|&(_, seen)| seen).collect();
        signature(&mut head, part, (number, wanted[number].0), &ends[number].inputs, &outputs);
    }
    Ok(Headed { bytes: head.before(file)?, ends })
}

/// The name of signature number `number` for the runtime.
pub(super) fn key(number: usize) -> String {
    format!("signature {number}")
}

fn signature(
    head: &mut Head,
    part: usize,
    (number, subgraph): (usize, usize),
    inputs: &[usize],
    outputs: &[usize],
) {
    let (takes, gives, key_part) = (head.part(), head.part(), head.part());
    head.table(
        part,
        &[
            (0, Field::To(Target::New(takes))),
            (1, Field::To(Target::New(gives))),
            (2, Field::To(Target::New(key_part))),
            (4, Field::Number(u32::try_from(subgraph).unwrap_or(u32::MAX))),
        ],
    );
    for (vector, tensors) in [(takes, inputs), (gives, outputs)] {
        let entries: Vec<usize> = tensors.iter().map(|_| head.part()).collect();
        head.targets(vector, entries.iter().map(|&entry| Target::New(entry)));
        for (position, (entry, &tensor)) in entries.into_iter().zip(tensors).enumerate() {
            let name = head.part();
            let tensor = u32::try_from(tensor).unwrap_or(u32::MAX);
            let fields = [(0, Field::To(Target::New(name))), (1, Field::Number(tensor))];
            head.table(entry, &fields);
            head.text(name, &position.to_string());
        }
    }
    head.text(key_part, &key(number));
}

/// The subgraph anew, its outputs each once, and copied where the runtime may move them.
fn subgraph(
    head: &mut Head,
    part: usize,
    graph: &Subgraph<'_>,
    model: &Model<'_>,
    parsing: Option<&Parsing>,
) -> Result<Ends, Status> {
    let mut ends = Ends { inputs: graph.inputs.clone(), outputs: Vec::new() };
    if let Some(parsing) = parsing {
        ends.inputs.retain(|&tensor| tensor != parsing.serialized);
        ends.inputs.extend(&parsing.outputs);
    }
    let taken_out = parsing.map(|parsing| parsing.operator);
    let kept = || {
        let all = graph.operators.iter().enumerate();
        all.filter(|(number, _)| Some(*number) != taken_out).map(|(_, operator)| operator)
    };
    let mut copied = Vec::new();
    for &tensor in &graph.outputs {
        if ends.outputs.iter().any(|&(known, _)| known == tensor) {
            continue;
        }
        let seen = if needs_copy(graph, tensor, model, kept()) {
            copied.push(tensor);
            graph.tensors.len() + copied.len() - 1
        } else {
            tensor
        };
        ends.outputs.push((tensor, seen));
    }
    let [tensors, inputs, outputs, steps] = [head.part(), head.part(), head.part(), head.part()];
    let mut fields = vec![
        (0, Field::To(Target::New(tensors))),
        (1, Field::To(Target::New(inputs))),
        (2, Field::To(Target::New(outputs))),
        (3, Field::To(Target::New(steps))),
    ];
    fields.extend(graph.at.place(4)?.map(|at| (4, Field::To(Target::Old(at)))));
    head.table(part, &fields);
    let new_tensors: Vec<usize> = copied.iter().map(|_| head.part()).collect();
    let new_steps: Vec<usize> = copied.iter().map(|_| head.part()).collect();
    let all = graph.tensors.iter().map(|tensor| Target::Old(tensor.at.at));
    let all: Vec<Target> = all.chain(new_tensors.iter().map(|&part| Target::New(part))).collect();
    head.targets(tensors, all.into_iter());
    head.numbers(inputs, &ends.inputs);
    head.numbers(outputs, &ends.outputs.iter().map(|&(_, seen)| seen).collect::<Vec<_>>());
    let all = kept().map(|operator| Target::Old(operator.at.at));
    let all: Vec<Target> = all.chain(new_steps.iter().map(|&part| Target::New(part))).collect();
    head.targets(steps, all.into_iter());
    for (position, &tensor) in copied.iter().enumerate() {
        copy_of(head, graph, tensor, new_tensors[position], model)?;
        let (takes, gives) = (head.part(), head.part());
        let code = u32::try_from(model.operator_codes.len()).unwrap_or(u32::MAX);
        head.table(
            new_steps[position],
            &[
                (0, Field::Number(code)),
                (1, Field::To(Target::New(takes))),
                (2, Field::To(Target::New(gives))),
            ],
        );
        head.numbers(takes, &[tensor]);
        head.numbers(gives, &[graph.tensors.len() + position]);
    }
    Ok(ends)
}

/// A tensor like `tensor`, for a copy of it.
fn copy_of(
    head: &mut Head,
    graph: &Subgraph<'_>,
    tensor: usize,
    part: usize,
    model: &Model<'_>,
) -> Result<(), Status> {
    let like = &graph.tensors[tensor];
    let name = head.part();
    let mut fields = vec![
        (1, Field::Byte(like.kind)),
        (2, Field::Number(model.empty_buffer.unwrap_or(0))),
        (3, Field::To(Target::New(name))),
        (8, Field::Byte(like.at.byte(8)?)),
    ];
    for slot in [0, 4, 7] {
        fields.extend(like.at.place(slot)?.map(|at| (slot, Field::To(Target::Old(at)))));
    }
    head.table(part, &fields);
    head.text(name, &format!("{} (copy)", like.name));
    Ok(())
}

/// Whether an output must be copied to a place that the runtime keeps.
fn needs_copy<'o, 'f: 'o>(
    graph: &Subgraph<'f>,
    tensor: usize,
    model: &Model<'f>,
    mut operators: impl Iterator<Item = &'o Operator<'f>>,
) -> bool {
    let info = &graph.tensors[tensor];
    let can_be_copied = dtype(info.kind).is_some_and(|(dtype, _)| dtype.width().is_some());
    let makes = operators.find(|operator| operator.outputs.contains(&tensor));
    let is_steady = match makes {
        Some(operator) => operators::is_steady(&model.operator_codes[operator.code].1),
        None => info.constant.is_some(),
    };
    can_be_copied && model.empty_buffer.is_some() && !is_steady
}

//! Whether a graph of TensorFlow Lite is computed by OpenVINO as LiteRT computes it.
//!
//! Owns what is looked at besides the [`table`](super::table): dtypes, quantisation, the order of operators,
//! indices, constants. May not know: the library. Invariant: what passes has each operand in the file, fed, or
//! given by an operator before.

use std::collections::{BTreeMap, BTreeSet};

use vesta_model::{DType, Status};

use super::table::{SPECIAL, Takes, options, takes};
use crate::litert::flatbuffer::Table;
use crate::litert::schema::{Model, Operator, Subgraph, TensorInfo, dtype};

/// Whole numbers below it are floats without loss.
const EXACT_FLOATS: u64 = 1 << 24;

/// The field of a tensor that says how it is quantised, that which says that it is kept from run to run, and
/// that which says that most of it is left out.
const QUANTIZATION: usize = 4;
const IS_VARIABLE: usize = 5;
const SPARSITY: usize = 6;

/// What a refusal names at most, and characters of a name in it.
const NAMED_MAX: usize = 20;
const NAME_MAX: usize = 120;

/// The most inputs and outputs of a graph.
const ENDS_MAX: usize = 4096;

/// Elements of whole numbers that are looked into; a constant with more counts as unknown.
const INTEGERS_MAX: usize = 4096;

/// Dtypes that keep their values.
const HELD: [DType; 7] =
    [DType::F32, DType::F16, DType::I32, DType::I64, DType::Bool, DType::U8, DType::I8];

/// Those that are moved.
const MOVED: [DType; 4] = [DType::F32, DType::I32, DType::I64, DType::Bool];

/// 1 as a float, which is what a softmax multiplies with.
const ONE: u32 = 0x3f80_0000;

/// What a graph must be fed, for OpenVINO to compute it as LiteRT does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    /// Whether all numbers must be finite.
    pub(super) finite: bool,
    /// Inputs by tensor, whose whole numbers must be from 0 to below these.
    pub(super) below: BTreeMap<usize, usize>,
}

/// Refuses a graph that has something that is not known to be computed as LiteRT computes it; tells what it
/// must be fed for it.
///
/// # Errors
/// `UNIMPLEMENTED`, naming each operator once, with a tensor where it stands.
pub(crate) fn check(
    model: &Model<'_>,
    graph: &Subgraph<'_>,
    file_bytes: usize,
) -> Result<Needs, Status> {
    if graph.inputs.len().max(graph.outputs.len()) > ENDS_MAX {
        return Err(Status::unimplemented(format!(
            "a graph has more than {ENDS_MAX} inputs or outputs"
        )));
    }
    let mut looked = Looked::new(graph, file_bytes);
    let (mut found, mut needs) = (Vec::new(), Needs::default());
    for &input in &graph.inputs {
        if let Some(why) = looked.why_not_fed(input) {
            found.push(format!("input {} ({why})", short(graph.tensors[input].name)));
        }
    }
    let mut named = BTreeSet::new();
    for operator in &graph.operators {
        let name = model.operator_codes[operator.code].1.as_str();
        if let Some(why) = looked.why_not(name, operator)?
            && named.insert((name, why.clone()))
        {
            let output = operator.outputs.first().map_or("", |&n| graph.tensors[n].name);
            found.push(format!("{} at {} ({why})", short(name), short(output)));
        }
        if found.len() >= NAMED_MAX {
            found.push("and maybe more".to_owned());
            break;
        }
        needs.finite |= !SPECIAL.contains(&name) || has_activation(name, operator);
        if let Some((input, size)) = looked.picks_by_input(name, operator) {
            let below = needs.below.entry(input).or_insert(size);
            *below = size.min(*below);
        }
        looked.follow(name, operator);
    }
    let lost = graph.outputs.iter().find(|&&output| !looked.is_there(output));
    if let Some(&output) = lost.filter(|_| found.is_empty()) {
        found.push(format!("output {} (nothing gives it)", short(graph.tensors[output].name)));
    }
    if found.is_empty() {
        return Ok(needs);
    }
    Err(Status::unimplemented(format!(
        "OpenVINO does not compute all of it as LiteRT does: {}",
        found.join("; ")
    )))
}

/// The beginning of a name: a file may have one of any length.
fn short(name: &str) -> &str {
    name.char_indices().nth(NAME_MAX).map_or(name, |(end, _)| &name[..end])
}

/// A graph as far as it was looked into.
struct Looked<'g, 'f> {
    graph: &'g Subgraph<'f>,
    dtypes: Vec<Option<DType>>,
    /// Why a tensor is not held as it is meant.
    unheld: Vec<Option<String>>,
    /// What is fed, or given by an operator.
    given: BTreeSet<usize>,
    /// Operators by what they give.
    made_by: BTreeMap<usize, usize>,
    /// Whole numbers below [`EXACT_FLOATS`].
    small: BTreeSet<usize>,
    /// Whole numbers that follow from sizes and the file.
    sized: BTreeSet<usize>,
}

impl<'g, 'f> Looked<'g, 'f> {
    fn new(graph: &'g Subgraph<'f>, file_bytes: usize) -> Looked<'g, 'f> {
        let dtypes = graph.tensors.iter().map(|own| dtype(own.kind).map(|(dtype, _)| dtype));
        let made_by = graph.operators.iter().enumerate();
        let made_by = made_by.map(|(place, own)| own.outputs.iter().map(move |&n| (n, place)));
        let mut constants = Constants { left: file_bytes, known: BTreeMap::new() };
        let mut looked = Looked {
            graph,
            dtypes: dtypes.collect(),
            unheld: graph
                .tensors
                .iter()
                .map(|tensor| why_not_held(tensor, &mut constants))
                .collect(),
            given: graph.inputs.iter().copied().collect(),
            made_by: made_by.flatten().collect(),
            small: BTreeSet::new(),
            sized: BTreeSet::new(),
        };
        for number in 0..graph.tensors.len() {
            let Some(integers) = looked.integers(number) else { continue };
            looked.sized.insert(number);
            if integers.iter().all(|own| own.unsigned_abs() < EXACT_FLOATS) {
                looked.small.insert(number);
            }
        }
        looked
    }

    fn tensor(&self, number: usize) -> &'g TensorInfo<'f> {
        &self.graph.tensors[number]
    }

    fn is_there(&self, number: usize) -> bool {
        self.given.contains(&number) || self.tensor(number).constant.is_some()
    }

    /// Why an input cannot be fed.
    fn why_not_fed(&self, number: usize) -> Option<String> {
        match self.dtypes[number] {
            Some(DType::I64) => Some("of int64, which is cut to 32 bits".to_owned()),
            _ if self.tensor(number).constant.is_some() => Some("it is a constant, too".to_owned()),
            _ => self.unheld[number].clone(),
        }
    }

    /// Why an operator may be inexact.
    ///
    /// # Errors
    /// `DATA_LOSS` for options that lead out of the file.
    fn why_not(&self, name: &str, operator: &Operator<'_>) -> Result<Option<String>, Status> {
        let Some(takes) = takes(name) else {
            return Ok(Some("it is not known to be exact".to_owned()));
        };
        let of_options = why_not_with(name, operator)?;
        Ok(of_options
            .or_else(|| self.why_not_placed(name, operator))
            .or_else(|| self.why_not_given(name, operator, takes)))
    }

    /// Why an operator cannot stand where it does.
    fn why_not_placed(&self, name: &str, operator: &Operator<'_>) -> Option<String> {
        let left_out = operator.inputs.iter().position(Option::is_none);
        let may_be = |position: usize| {
            position == 2 && matches!(name, "FULLY_CONNECTED" | "CONV_3D")
                || position == 3 && name == "TRANSPOSE_CONV"
        };
        if left_out.is_some_and(|position| !may_be(position)) {
            return Some("without an operand".to_owned());
        }
        let inputs = || operator.inputs.iter().flatten().copied();
        if inputs().any(|number| !self.is_there(number)) {
            return Some("before an operand of it".to_owned());
        }
        if operator.outputs.iter().any(|&number| self.is_there(number)) {
            return Some("it gives what is there already".to_owned());
        }
        inputs()
            .chain(operator.outputs.iter().copied())
            .find_map(|number| self.unheld[number].clone())
    }

    /// Why an operator may be inexact for what it is given.
    fn why_not_given(&self, name: &str, operator: &Operator<'_>, takes: Takes) -> Option<String> {
        let inputs: Vec<usize> = operator.inputs.iter().flatten().copied().collect();
        let (data, others) = split(name, &inputs);
        let of = |number: Option<&usize>| number.and_then(|&number| self.dtypes[number]);
        let first = of(data.first());
        let are_small = || data.iter().all(|number| self.small.contains(number));
        let is_whole = matches!(first, Some(DType::I32 | DType::I64));
        let is_one = data.iter().all(|number| of(Some(number)) == first);
        let fits = match takes {
            _ if !is_one && takes != Takes::Picked => false,
            Takes::Floats => first == Some(DType::F32),
            Takes::Numbers => matches!(first, Some(DType::F32 | DType::I32)),
            Takes::Small => first == Some(DType::F32) || is_whole && are_small(),
            Takes::Sizes => is_whole && are_small() && all_of(data, &self.sized),
            Takes::SmallByConstant => is_whole && are_small() && self.divides(&inputs),
            Takes::SmallOnOneSide => match first {
                Some(DType::F32 | DType::Bool) => true,
                _ => is_whole && data.iter().any(|number| self.small.contains(number)),
            },
            Takes::Anything => first.is_some_and(|own| MOVED.contains(&own)),
            Takes::Picked => return self.why_not_picked(name, operator, &inputs),
            Takes::Converted => converts(first, of(operator.outputs.first())),
            Takes::Halves => {
                let is_kept = data.iter().all(|&number| self.tensor(number).constant.is_some());
                first == Some(DType::F16) && is_kept
            }
            Takes::Truths => first == Some(DType::Bool),
        };
        if !fits {
            return Some(match (first, of(operator.outputs.first())) {
                (Some(from), Some(to)) if takes == Takes::Converted => format!("{from} to {to}"),
                (Some(dtype), _) => format!("of {dtype}"),
                (None, _) => "of nothing".to_owned(),
            });
        }
        if others.iter().any(|number| !self.sized.contains(number)) {
            return Some("by numbers that a run computes".to_owned());
        }
        (name == "RSQRT" && !self.is_positive(inputs[0])).then(|| "of what may be 0".to_owned())
    }

    /// Whether what is divided by is in the file and never 0.
    fn divides(&self, inputs: &[usize]) -> bool {
        let divisor = inputs.get(1).and_then(|&number| self.integers(number));
        divisor.is_some_and(|integers| !integers.contains(&0))
    }

    /// Whether a tensor is a sum with a positive number, of what is no less than 0 in a variance. LiteRT's
    /// reciprocal root of 0 is no number.
    fn is_positive(&self, number: usize) -> bool {
        let sum = self.made_by.get(&number).and_then(|&place| self.graph.operators.get(place));
        let Some(sum) = sum else { return false };
        let positive = |own: &Option<usize>| {
            let bytes = own.and_then(|number| self.tensor(number).constant);
            bytes.is_some_and(|bytes| {
                let (words, _) = bytes.as_chunks::<4>();
                words.iter().all(|word| f32::from_le_bytes(*word) > 0.0)
            })
        };
        sum.inputs.len() == 2 && sum.inputs.iter().any(positive)
    }

    /// Why what is picked may lie outside: LiteRT ends such a run with an error, OpenVINO does not.
    fn why_not_picked(
        &self,
        name: &str,
        operator: &Operator<'_>,
        inputs: &[usize],
    ) -> Option<String> {
        let [data, indices] = inputs else { return Some("with other operands".to_owned()) };
        if !self.dtypes[*data].is_some_and(|own| MOVED.contains(&own)) {
            return Some("of another dtype".to_owned());
        }
        let Some(picked) = self.integers(*indices) else {
            let is_checked = self.picks_by_input(name, operator).is_some();
            return (!is_checked).then(|| "by indices that a run computes".to_owned());
        };
        let dims = &self.tensor(*data).dims;
        let within = |index: i64, axis: usize| {
            let size = dims.get(axis).map(|dim| dim.unwrap_or(1) as u64);
            index >= 0 && size.is_some_and(|size| index.unsigned_abs() < size)
        };
        let are_within = if name == "GATHER" {
            let axis = axis_of(operator, dims.len());
            axis.is_some_and(|axis| picked.iter().all(|&index| within(index, axis)))
        } else {
            let width = self.tensor(*indices).dims.last().copied().flatten().unwrap_or(0).max(1);
            picked.iter().enumerate().all(|(place, &index)| within(index, place % width))
        };
        (!are_within).then(|| "by indices that may lie outside".to_owned())
    }

    /// The input by which an operator picks, and the size of what it picks from: each request can be held to it.
    fn picks_by_input(&self, name: &str, operator: &Operator<'_>) -> Option<(usize, usize)> {
        let [Some(data), Some(indices)] = operator.inputs[..] else { return None };
        if name != "GATHER"
            || !self.graph.inputs.contains(&indices)
            || self.dtypes[indices] != Some(DType::I32)
        {
            return None;
        }
        let dims = &self.tensor(data).dims;
        let size = (*dims.get(axis_of(operator, dims.len())?)?)?;
        // What is computed may have other sizes than the file says.
        self.tensor(data).constant.map(|_| (indices, size))
    }

    /// The elements of a constant of whole numbers.
    fn integers(&self, number: usize) -> Option<Vec<i64>> {
        let bytes = self.tensor(number).constant?;
        let dtype = self.dtypes[number]?;
        if bytes.len() / dtype.width()? > INTEGERS_MAX {
            return None;
        }
        match dtype {
            DType::I32 => {
                let (words, _) = bytes.as_chunks::<4>();
                Some(words.iter().map(|word| i32::from_le_bytes(*word).into()).collect())
            }
            DType::I64 => {
                let (words, _) = bytes.as_chunks::<8>();
                let integers = words.iter().map(|word| i64::from_le_bytes(*word));
                let integers: Vec<i64> = integers.collect();
                // Others are cut.
                integers.iter().all(|&own| i32::try_from(own).is_ok()).then_some(integers)
            }
            _ => None,
        }
    }

    /// Notes what is known of an operator's results.
    fn follow(&mut self, name: &str, operator: &Operator<'_>) {
        let inputs: Vec<usize> = operator.inputs.iter().flatten().copied().collect();
        let (data, _) = split(name, &inputs);
        let all = |known: &BTreeSet<usize>| all_of(data, known);
        let is_small = |number: &usize| {
            self.small.contains(number) || self.dtypes[*number] == Some(DType::Bool)
        };
        let are_small = !data.is_empty() && data.iter().all(is_small);
        let (is_small, is_sized) = match name {
            "SHAPE" | "ZEROS_LIKE" => (true, true),
            "ARG_MAX" | "ARG_MIN" => (true, false),
            "ONE_HOT" => (false, false),
            // Sizes of one tensor, multiplied, are the number of its elements.
            "MUL" | "SUM" | "REDUCE_PROD" | "CUMSUM" => (false, all(&self.sized)),
            _ => (are_small, all(&self.sized)),
        };
        for &output in &operator.outputs {
            self.given.insert(output);
            if is_small {
                self.small.insert(output);
            }
            if is_sized {
                self.sized.insert(output);
            }
        }
    }
}

fn all_of(numbers: &[usize], known: &BTreeSet<usize>) -> bool {
    !numbers.is_empty() && numbers.iter().all(|number| known.contains(number))
}

/// Whether elements are finite; those of whole numbers are.
pub(super) fn are_finite(dtype: DType, bytes: &[u8]) -> bool {
    match dtype {
        DType::F32 => {
            let (words, _) = bytes.as_chunks::<4>();
            words.iter().all(|word| f32::from_le_bytes(*word).is_finite())
        }
        DType::F16 => {
            let (words, _) = bytes.as_chunks::<2>();
            words.iter().all(|word| u16::from_le_bytes(*word) & 0x7c00 != 0x7c00)
        }
        _ => true,
    }
}

/// Constants of floats that were looked into, each once.
struct Constants {
    /// Bytes that may still be read: those that lie over each other are no reason to read for ever.
    left: usize,
    /// Whether all are finite, by place and length.
    known: BTreeMap<(usize, usize), bool>,
}

impl Constants {
    fn are_finite(&mut self, dtype: DType, bytes: &[u8]) -> bool {
        let key = (bytes.as_ptr().addr(), bytes.len());
        if let Some(&known) = self.known.get(&key) {
            return known;
        }
        let Some(left) = self.left.checked_sub(bytes.len()) else { return false };
        self.left = left;
        let are_finite = are_finite(dtype, bytes);
        self.known.insert(key, are_finite);
        are_finite
    }
}

/// Why a tensor is not held as it is meant.
fn why_not_held(tensor: &TensorInfo<'_>, constants: &mut Constants) -> Option<String> {
    let known = dtype(tensor.kind).map(|(dtype, _)| dtype);
    let Some(own) = known.filter(|own| HELD.contains(own)) else {
        return Some(match known {
            Some(other) => format!("of {other}"),
            None => format!("of dtype number {}", tensor.kind),
        });
    };
    if is_quantised(tensor) {
        return Some("quantised, which OpenVINO computes in floats".to_owned());
    }
    if tensor.at.byte(IS_VARIABLE).unwrap_or(1) != 0 {
        return Some("it keeps state".to_owned());
    }
    if tensor.at.place(SPARSITY).is_ok_and(|place| place.is_none()) {
        let bytes = tensor.constant?;
        let sizes = tensor.dims.iter();
        let wanted = sizes.fold(own.width(), |bytes, dim| bytes?.checked_mul((*dim)?));
        if wanted != Some(bytes.len()) {
            return Some("a constant of another size than it says".to_owned());
        }
        let is_float = matches!(own, DType::F32 | DType::F16);
        let is_unfit = is_float && !constants.are_finite(own, bytes);
        return is_unfit.then(|| "a constant that is not finite".to_owned());
    }
    Some("of which most is left out".to_owned())
}

/// The axis along which a `GATHER` picks.
fn axis_of(operator: &Operator<'_>, rank: usize) -> Option<usize> {
    let own = operator.at.table(4).ok()??;
    let axis = i64::from(own.number(0).ok()?.cast_signed());
    usize::try_from(if axis < 0 { axis + i64::try_from(rank).ok()? } else { axis }).ok()
}

fn is_quantised(tensor: &TensorInfo<'_>) -> bool {
    let scales = tensor.at.table(QUANTIZATION).map(|own| own.map(|own| own.numbers(2)));
    match scales {
        Ok(None) => false,
        Ok(Some(Ok(scales))) => !scales.is_empty(),
        _ => true,
    }
}

/// Why the options of an operator are not heeded.
fn why_not_with(name: &str, operator: &Operator<'_>) -> Result<Option<String>, Status> {
    let own: Option<Table<'_>> = operator.at.table(4)?;
    let Some((kind, bounded)) = options(name) else { return Ok(None) };
    let Some(own) = own.filter(|_| operator.at.byte(3).is_ok_and(|own| own == kind)) else {
        return Ok(Some("without its options".to_owned()));
    };
    for bound in bounded {
        if own.byte(bound.slot)? > bound.most {
            return Ok(Some(bound.otherwise.to_owned()));
        }
    }
    if matches!(name, "RESHAPE" | "SQUEEZE") {
        own.numbers(0)?;
    }
    Ok((name == "SOFTMAX" && own.number(0)? != ONE).then(|| "with a factor".to_owned()))
}

/// Whether an operator that may have an activation has one.
fn has_activation(name: &str, operator: &Operator<'_>) -> bool {
    let own = operator.at.table(4).ok().flatten();
    let bounded = options(name).map_or(&[][..], |(_, bounded)| bounded);
    let mut joined = bounded.iter().filter(|bound| bound.most > 0);
    joined.any(|bound| {
        own.is_some_and(|own| own.byte(bound.slot).is_ok_and(|activation| activation > 0))
    })
}

/// Whether such numbers are converted alike. Floats that do not fit into whole numbers are not.
fn converts(from: Option<DType>, to: Option<DType>) -> bool {
    let (Some(from), Some(to)) = (from, to) else { return false };
    let kept = [DType::F32, DType::I32, DType::I64, DType::Bool];
    match from {
        DType::F32 => matches!(to, DType::F32 | DType::Bool),
        DType::F16 | DType::U8 | DType::I8 => to == DType::F32,
        DType::I32 | DType::I64 | DType::Bool => kept.contains(&to),
        _ => false,
    }
}

/// The operands out of whose elements an operator's result is made, and the others: axes, sizes, places.
fn split<'i>(name: &str, inputs: &'i [usize]) -> (&'i [usize], &'i [usize]) {
    let middle = match name {
        "ONE_HOT" | "PADV2" => {
            let (first, rest) = inputs.split_at(inputs.len().min(1));
            return (first, rest.get(..1).unwrap_or_default());
        }
        // Those whose first operand is no data.
        "FILL" | "SPLIT" | "TRANSPOSE_CONV" => {
            let (first, rest) = inputs.split_at(inputs.len().min(1));
            return (rest, first);
        }
        "SELECT" | "SELECT_V2" => {
            let (_, rest) = inputs.split_at(inputs.len().min(1));
            return (rest, &[]);
        }
        "SHAPE" | "CAST" | "DEQUANTIZE" => return (inputs, &[]),
        "BATCH_TO_SPACE_ND"
        | "SPACE_TO_BATCH_ND"
        | "SLICE"
        | "STRIDED_SLICE"
        | "PAD"
        | "TILE"
        | "MIRROR_PAD"
        | "EXPAND_DIMS"
        | "RESHAPE"
        | "TRANSPOSE"
        | "BROADCAST_TO"
        | "SPLIT_V"
        | "MEAN"
        | "SUM"
        | "REDUCE_MAX"
        | "REDUCE_MIN"
        | "REDUCE_PROD"
        | "REDUCE_ANY"
        | "REDUCE_ALL"
        | "CUMSUM"
        | "ARG_MAX"
        | "ARG_MIN"
        | "TOPK_V2"
        | "REVERSE_V2"
        | "REVERSE_SEQUENCE"
        | "RESIZE_BILINEAR"
        | "RESIZE_NEAREST_NEIGHBOR" => 1,
        _ => inputs.len(),
    };
    inputs.split_at(middle.min(inputs.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::litert::flatbuffer::File;

    fn refusal(bytes: &[u8]) -> Option<String> {
        let file = File::new(bytes);
        let model = Model::read(&file).unwrap();
        let checked = check(&model, &model.subgraphs[0], bytes.len());
        checked.err().map(|status| status.message().to_owned())
    }

    /// The converter writes no such constants; others do.
    #[test]
    fn a_constant_that_is_not_finite_is_refused() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/lite");
        let mut bytes = std::fs::read(folder.join("half_plus_two.tflite")).unwrap();
        assert_eq!(refusal(&bytes), None);
        let two = 2.0f32.to_le_bytes();
        let at = bytes.windows(4).rposition(|word| word == two).unwrap();
        bytes[at..at + 4].copy_from_slice(&f32::INFINITY.to_le_bytes());
        let refused = refusal(&bytes).unwrap();
        assert!(refused.contains("a constant that is not finite"), "{refused}");
    }

    /// A constant that many tensors are made of, or that lies over others, is no reason to read for ever.
    #[test]
    fn constants_are_read_about_once() {
        let bytes = [0u8; 64];
        let mut constants = Constants { left: 64, known: BTreeMap::new() };
        for _ in 0..1000 {
            assert!(constants.are_finite(DType::F32, &bytes));
        }
        assert!(!constants.are_finite(DType::F32, &bytes[4..]), "all was read");
    }
}

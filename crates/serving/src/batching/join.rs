//! The inputs of many requests become those of one batch. Pure.
//!
//! Owns the original's rules of shapes and padding: inputs of different shapes are filled up at the
//! end of each dimension with their own first element, the batch is filled up with copies of a row.
//! The rows are written straight into the memory that the engine reads. Invariant: what is written
//! fills the memory whole, and what is padded is bounded.

use std::ops::Range;

use vesta_model::{DType, InputLayout, Shape, Status, Tensor, strings_byte_len};

use crate::texts;

/// Bytes that one input of a padded batch may take, so that two requests of odd shapes cannot make
/// the server ask for the memory of their product.
const PADDED_BYTES_MAX: usize = 1 << 30;

/// Dimensions that a tensor may have to be padded, as in the original.
const PADDED_RANK_MAX: usize = 6;

/// Some rows of a tensor.
#[derive(Clone, Debug)]
pub(crate) struct Rows<'a> {
    pub(crate) tensor: &'a Tensor,
    pub(crate) rows: Range<usize>,
}

/// How one input of a batch is put together.
#[derive(Debug)]
pub(crate) struct Joint<'a> {
    parts: Vec<Rows<'a>>,
    /// Sizes of each dimension but the first, in the batch.
    tail: Vec<usize>,
    /// Copies of a row after the parts, and which of the parts it is the first row of.
    padding: usize,
    padding_of: usize,
    dtype: DType,
    pub(crate) layout: InputLayout,
}

impl<'a> Joint<'a> {
    /// Plans the input called `name` out of the rows of several requests, with `padding_rows` rows
    /// more; of those there are none when no request has a row that could be copied.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` when shapes differ and `pads` is off, `INVALID_ARGUMENT` for what cannot
    /// be padded, `RESOURCE_EXHAUSTED` when it would take too much memory.
    pub(crate) fn plan(
        name: &str,
        parts: Vec<Rows<'a>>,
        padding_rows: usize,
        pads: bool,
    ) -> Result<Joint<'a>, Status> {
        let (tail, is_padded) = common_tail(name, &parts, pads)?;
        let rows: usize = parts.iter().map(|part| part.rows.len()).sum();
        let padding_of = parts.iter().rposition(|part| !part.rows.is_empty());
        let padding = if padding_of.is_some() { padding_rows } else { 0 };
        let dims: Vec<usize> =
            std::iter::once(rows + padding).chain(tail.iter().copied()).collect();
        let layout = InputLayout { shape: Shape::new(dims)?, string_bytes: 0 };
        let dtype = parts.first().map_or(DType::Invalid, |part| part.tensor.dtype());
        let padding_of = padding_of.unwrap_or_default();
        let mut joint = Joint { parts, tail, padding, padding_of, dtype, layout };
        let is_padded = is_padded || padding > 0;
        if is_padded {
            joint.check_shape()?;
        }
        joint.layout.string_bytes = joint.string_bytes();
        let given: usize = joint.parts.iter().map(|p| p.tensor.string_payload_bytes()).sum();
        if is_padded && joint.layout.string_bytes > PADDED_BYTES_MAX.max(given) {
            return Err(texts::padded_batch_too_large(PADDED_BYTES_MAX));
        }
        Ok(joint)
    }

    fn check_shape(&self) -> Result<(), Status> {
        // What is kept of a string while it is joined, besides its own bytes.
        let width = self.dtype.width().unwrap_or(size_of::<&[u8]>());
        if self.layout.shape.bytes(width)? > PADDED_BYTES_MAX {
            return Err(texts::padded_batch_too_large(PADDED_BYTES_MAX));
        }
        Ok(())
    }

    /// Bytes that the strings of the batch take together.
    fn string_bytes(&self) -> usize {
        if self.dtype == DType::String {
            self.strings().iter().map(|text| text.len()).sum()
        } else {
            0
        }
    }

    /// Every string of the batch, in order.
    fn strings(&self) -> Vec<&'a [u8]> {
        let mut all = Vec::with_capacity(self.layout.shape.elements());
        for part in &self.parts {
            let Some(strings) = part.tensor.strings() else { continue };
            let source: Vec<&'a [u8]> =
                elements(part).filter_map(|index| strings.get(index)).collect();
            self.place(part, &source, &mut all);
        }
        let row = self.row_elements();
        let start: usize =
            self.parts.iter().take(self.padding_of).map(|p| p.rows.len() * row).sum();
        for _ in 0..self.padding {
            all.extend_from_within(start..start + row);
        }
        all
    }

    /// Appends the elements of a part, filled up to the shape of the batch.
    fn place(&self, part: &Rows<'_>, source: &[&'a [u8]], all: &mut Vec<&'a [u8]>) {
        let start = all.len();
        let Some(&first) = source.first() else { return };
        if self.is_like(part) {
            return all.extend_from_slice(source);
        }
        all.resize(start + part.rows.len() * self.row_elements(), first);
        for run in runs(part, &self.tail) {
            let to = start + run.to;
            all[to..to + run.len].copy_from_slice(&source[run.from..run.from + run.len]);
        }
    }

    /// Writes the input of the batch; `memory` is as long as the layout says.
    ///
    /// # Errors
    /// `INTERNAL` when it is not.
    pub(crate) fn write(&self, memory: &mut [u8]) -> Result<(), Status> {
        match self.dtype.width() {
            Some(width) => self.write_elements(memory, width),
            None => self.write_strings(memory),
        }
    }

    fn write_elements(&self, memory: &mut [u8], width: usize) -> Result<(), Status> {
        let row_bytes = self.row_elements() * width;
        let rows: usize = self.parts.iter().map(|part| part.rows.len()).sum();
        if memory.len() != (rows + self.padding) * row_bytes {
            return Err(wrong_memory());
        }
        let mut start = 0;
        for part in &self.parts {
            let bytes = part.rows.len() * row_bytes;
            let place = &mut memory[start..start + bytes];
            let range = elements(part);
            let source = &part.tensor.bytes()[range.start * width..range.end * width];
            if self.is_like(part) {
                place.copy_from_slice(source);
            } else if let Some(first) = source.get(..width) {
                place.chunks_exact_mut(width).for_each(|element| element.copy_from_slice(first));
                for run in runs(part, &self.tail) {
                    place[run.to * width..(run.to + run.len) * width]
                        .copy_from_slice(&source[run.from * width..(run.from + run.len) * width]);
                }
            }
            start += bytes;
        }
        let before: usize = self.parts.iter().take(self.padding_of).map(|p| p.rows.len()).sum();
        let row = before * row_bytes;
        for _ in 0..self.padding {
            memory.copy_within(row..row + row_bytes, start);
            start += row_bytes;
        }
        Ok(())
    }

    fn write_strings(&self, memory: &mut [u8]) -> Result<(), Status> {
        let strings = self.strings();
        let table = (strings.len() + 1) * size_of::<u64>();
        if strings_byte_len(strings.len(), self.layout.string_bytes) != Some(memory.len()) {
            return Err(wrong_memory());
        }
        let (offsets, mut payload) = memory.split_at_mut(table);
        let mut end = 0u64;
        let mut slots = offsets.chunks_exact_mut(size_of::<u64>());
        if let Some(first) = slots.next() {
            first.fill(0);
        }
        for (slot, text) in slots.zip(strings) {
            end += text.len() as u64;
            slot.copy_from_slice(&end.to_le_bytes());
            let (place, after) = payload.split_at_mut(text.len());
            place.copy_from_slice(text);
            payload = after;
        }
        Ok(())
    }

    /// Elements of one row of the batch.
    fn row_elements(&self) -> usize {
        self.tail.iter().product()
    }

    /// Whether a part has the shape of the batch already.
    fn is_like(&self, part: &Rows<'_>) -> bool {
        part.tensor.shape().dims().get(1..) == Some(&self.tail)
    }
}

fn wrong_memory() -> Status {
    Status::internal("the engine gave memory of another size than the batch takes")
}

/// The elements of some rows in their tensor.
fn elements(part: &Rows<'_>) -> Range<usize> {
    let row: usize = part.tensor.shape().dims().iter().skip(1).product();
    part.rows.start * row..part.rows.end * row
}

/// The sizes that all dimensions but the first have in the batch, and whether a part has others.
fn common_tail(name: &str, parts: &[Rows<'_>], pads: bool) -> Result<(Vec<usize>, bool), Status> {
    let tail_of = |part: &Rows<'_>| part.tensor.shape().dims().get(1..).map(<[usize]>::to_vec);
    let mut tail = parts.first().and_then(tail_of).unwrap_or_default();
    let differs =
        |tail: &[usize]| parts.iter().any(|part| part.tensor.shape().dims().get(1..) != Some(tail));
    if !differs(&tail) {
        return Ok((tail, false));
    }
    if !pads {
        return Err(texts::shapes_differ(name));
    }
    for part in parts {
        let dims = part.tensor.shape().dims();
        if dims.len() != tail.len() + 1 {
            return Err(texts::ranks_differ(name));
        }
        if dims.len() > PADDED_RANK_MAX {
            return Err(texts::rank_cannot_be_padded());
        }
        for (size, &own) in tail.iter_mut().zip(&dims[1..]) {
            *size = own.max(*size);
        }
    }
    let row: usize = Shape::new(tail.clone())?.elements();
    let is_empty = |part: &Rows<'_>| !part.rows.is_empty() && row > 0 && elements(part).is_empty();
    if parts.iter().any(is_empty) {
        return Err(texts::empty_tensor_in_batch());
    }
    Ok((tail, true))
}

/// Elements that lie in one piece both in a part and in the batch; places count from the part's own
/// start.
struct Run {
    from: usize,
    to: usize,
    len: usize,
}

/// The pieces of a part whose rows are filled up to `tail`.
fn runs<'a>(part: &'a Rows<'_>, tail: &'a [usize]) -> impl Iterator<Item = Run> + 'a {
    let own = part.tensor.shape().dims().get(1..).unwrap_or_default();
    let len = own.last().copied().unwrap_or(1);
    let outer = &own[..own.len().saturating_sub(1)];
    let count = part.rows.len() * outer.iter().product::<usize>();
    (0..count).map(move |index| {
        // The index in each outer dimension, from the innermost, gives the place in the batch.
        let (mut rest, mut to, mut stride) = (index, 0, tail.last().copied().unwrap_or(1));
        for (&size, &filled) in outer.iter().zip(tail).rev() {
            to += rest % size * stride;
            rest /= size;
            stride *= filled;
        }
        Run { from: index * len, to: to + rest * stride, len }
    })
}

#[cfg(test)]
#[path = "join_tests.rs"]
mod tests;

//! From the tensor message to a tensor, by the rules of the original.
//!
//! Owns: repeating the last value, dropping surplus values, wrapping, raw content. May not know:
//! signatures. Invariant: see the parent; an error of the message itself says nothing but that it
//! is one, since the caller alone knows the alias that the client must be told.

use std::sync::Arc;

use bytes::Bytes;
use vesta_model::{AlignedBytes, DType, Memory, Status, Tensor};

use super::Field;
use super::wire::{TensorWire, varints};
use crate::budget::Budget;
use crate::tfs::texts::{Expanded, Texts};

/// Why there is no tensor.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ParseError {
    /// The message is not one of a tensor.
    Invalid,
    /// It is, but the tensor is not to be had.
    Refused(Status),
}

impl From<Status> for ParseError {
    fn from(status: Status) -> ParseError {
        ParseError::Refused(status)
    }
}

/// A part of the received request.
struct Borrowed(Bytes);

impl Memory for Borrowed {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The tensor that a message stands for.
///
/// # Errors
/// [`ParseError::Invalid`] for an unknown dtype, a negative size and content of the wrong length;
/// otherwise `RESOURCE_EXHAUSTED` when it does not fit the budget.
pub(crate) fn tensor(wire: &TensorWire, budget: &Budget) -> Result<Tensor, ParseError> {
    let dtype = DType::from_number(wire.dtype).ok_or(ParseError::Invalid)?;
    let field = Field::of(dtype).ok_or(ParseError::Invalid)?;
    let shape = wire.shape.shape().ok_or(ParseError::Invalid)?;
    let count = shape.elements();
    let request = Request { wire, budget, dtype, field, count };
    let memory: Arc<dyn Memory> = if field == Field::Text {
        request.strings()?
    } else {
        // A dtype with a field of numbers has a width.
        let width = dtype.width().ok_or(ParseError::Invalid)?;
        let bytes = shape.bytes(width).map_err(|_| ParseError::Invalid)?;
        request.numbers(width, bytes)?
    };
    Ok(Tensor::whole(dtype, shape, memory)?)
}

struct Request<'a> {
    wire: &'a TensorWire,
    budget: &'a Budget,
    dtype: DType,
    field: Field,
    count: usize,
}

impl Request<'_> {
    fn numbers(&self, width: usize, bytes: usize) -> Result<Arc<dyn Memory>, ParseError> {
        if self.count == 0 {
            return Ok(Arc::new(AlignedBytes::zeroed(0)));
        }
        if !self.wire.content.is_empty() {
            if self.wire.content.len() != bytes {
                return Err(ParseError::Invalid);
            }
            if self.dtype != DType::Bool || self.wire.content.iter().all(|&byte| byte <= 1) {
                return Ok(Arc::new(Borrowed(self.wire.content.clone())));
            }
            let mut memory = Expanded::zeroed(bytes, self.budget)?;
            for (to, &from) in memory.bytes_mut().iter_mut().zip(&self.wire.content[..]) {
                *to = u8::from(from != 0);
            }
            return Ok(Arc::new(memory));
        }
        if let Some(borrowed) = self.borrowed(bytes) {
            return Ok(Arc::new(Borrowed(borrowed)));
        }
        let mut memory = Expanded::zeroed(bytes, self.budget)?;
        let target = memory.bytes_mut();
        let written = self.copy_values(target, width);
        repeat_last(target, written, width);
        Ok(Arc::new(memory))
    }

    /// The values where they are, when they lie there as the tensor holds them.
    fn borrowed(&self, bytes: usize) -> Option<Bytes> {
        let mut chunks = self.wire.chunks(self.field);
        let chunk = chunks.next().filter(|chunk| chunk.len() >= bytes)?;
        let values = chunk.slice(..bytes);
        match self.field {
            // Varints of one byte.
            Field::Bool => values.iter().all(|&byte| byte <= 1).then_some(values),
            Field::Float | Field::Double | Field::Complex64 | Field::Complex128 | Field::Float8 => {
                Some(values)
            }
            _ => None,
        }
    }

    /// Copies as many values as there are and fit. Gives the bytes written: whole elements.
    fn copy_values(&self, target: &mut [u8], width: usize) -> usize {
        match self.field {
            Field::Float | Field::Double | Field::Complex64 | Field::Complex128 | Field::Float8 => {
                let mut written = 0;
                for chunk in self.wire.chunks(self.field) {
                    let taken = chunk.len().min(target.len() - written);
                    target[written..written + taken].copy_from_slice(&chunk[..taken]);
                    written += taken;
                }
                // A real part without its imaginary part is no value, so nothing may stay of it.
                let whole = written - written % width;
                target[whole..].fill(0);
                whole
            }
            Field::Bool => self.copy_varints(target, |value| [u8::from(value != 0)]),
            _ => match width {
                1 => self.copy_varints(target, |value| [value as u8]),
                2 => self.copy_varints(target, |value| (value as u16).to_le_bytes()),
                4 => self.copy_varints(target, |value| (value as u32).to_le_bytes()),
                _ => self.copy_varints(target, |value| value.to_le_bytes()),
            },
        }
    }

    fn copy_varints<const N: usize>(
        &self,
        target: &mut [u8],
        element: impl Fn(u64) -> [u8; N],
    ) -> usize {
        let len = target.len();
        let mut slots = target.chunks_exact_mut(N);
        let mut written = 0;
        for chunk in self.wire.chunks(self.field) {
            // The values come first: a slot that was asked for must be filled.
            for (value, slot) in varints(&chunk).zip(&mut slots) {
                slot.copy_from_slice(&element(value));
                written += N;
            }
            if written == len {
                break;
            }
        }
        written
    }

    fn strings(&self) -> Result<Arc<dyn Memory>, ParseError> {
        if self.wire.content.is_empty() || self.count == 0 {
            return Ok(Arc::new(self.wire.texts.expanded(self.count, self.budget)?));
        }
        let texts = content_texts(&self.wire.content, self.count).ok_or(ParseError::Invalid)?;
        Ok(Arc::new(texts.expanded(self.count, self.budget)?))
    }
}

/// Fills what is left of `target` with its last element so far.
fn repeat_last(target: &mut [u8], written: usize, width: usize) {
    let Some(start) = written.checked_sub(width) else { return };
    if target[start..written].iter().all(|&byte| byte == 0) {
        // Zeros are there already.
        return;
    }
    let mut filled = written;
    // Copying the repeated part doubles it each time.
    while filled < target.len() {
        let taken = (filled - start).min(target.len() - filled);
        target.copy_within(start..start + taken, filled);
        filled += taken;
    }
}

/// Strings as raw content: all lengths as varints, then all bytes.
fn content_texts(content: &[u8], count: usize) -> Option<Texts> {
    // Each length takes a byte at least.
    if count > content.len() {
        return None;
    }
    let mut lens = Vec::with_capacity(count);
    let mut rest = content;
    for _ in 0..count {
        let len = rest.iter().position(|byte| byte & 0x80 == 0)? + 1;
        // Lengths are of 32 bits.
        let (head, tail) = rest.split_at_checked(len).filter(|_| len <= 5)?;
        lens.push(usize::try_from(varints(head).next()?).ok()?);
        rest = tail;
    }
    let mut texts = Texts::default();
    for len in lens {
        let (head, tail) = rest.split_at_checked(len)?;
        texts.push(head);
        rest = tail;
    }
    rest.is_empty().then_some(texts)
}

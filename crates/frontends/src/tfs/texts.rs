//! Byte strings as they come out of a request, on their way into a tensor.
//!
//! Owns: a store that costs eight bytes a string, however short they are, and its expansion into
//! the string layout. May not know: what the strings are.
//! Invariant: memory for the expansion is taken out of the budget before it is allocated.

use vesta_model::{AlignedBytes, Memory, Status, strings_byte_len};

use crate::budget::{Budget, Permit};

/// Strings, back to back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Texts {
    ends: Vec<usize>,
    payload: Vec<u8>,
}

/// Memory of our own, with what it holds of the budget.
pub(crate) struct Expanded {
    bytes: AlignedBytes,
    _permit: Permit,
}

impl Expanded {
    /// `len` zero bytes.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` when they are not to be had.
    pub(crate) fn zeroed(len: usize, budget: &Budget) -> Result<Expanded, Status> {
        let permit = budget.take(len.saturating_add(AlignedBytes::ALIGNMENT))?;
        Ok(Expanded { bytes: AlignedBytes::zeroed(len), _permit: permit })
    }

    /// The bytes, for writing.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        self.bytes.bytes_mut()
    }
}

impl Memory for Expanded {
    fn bytes(&self) -> &[u8] {
        self.bytes.bytes()
    }
}

impl Texts {
    /// Appends one string.
    pub(crate) fn push(&mut self, text: &[u8]) {
        self.payload.extend_from_slice(text);
        self.ends.push(self.payload.len());
    }

    /// Number of strings.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The strings in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| &self.payload[start..end])
    }

    /// The layout of a tensor of `count` strings: surplus ones are dropped, the last is repeated
    /// for those that are missing, and without any all are empty.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` when the bytes are not to be had.
    pub(crate) fn expanded(&self, count: usize, budget: &Budget) -> Result<Expanded, Status> {
        let last = self.iter().last().unwrap_or_default();
        let kept = self.len().min(count);
        let kept_bytes = kept.checked_sub(1).map_or(0, |index| self.ends[index]);
        let bytes = last
            .len()
            .checked_mul(count - kept)
            .and_then(|repeated| repeated.checked_add(kept_bytes))
            .and_then(|payload| strings_byte_len(count, payload))
            .unwrap_or(usize::MAX);
        let texts = self.iter().chain(std::iter::repeat(last)).take(count);
        write_layout(texts, count, bytes, budget)
    }

    /// The layout of a tensor of all strings, each with `before` in front of it.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` when the bytes are not to be had.
    pub(crate) fn prefixed(&self, before: &[u8], budget: &Budget) -> Result<Expanded, Status> {
        let bytes = before
            .len()
            .checked_mul(self.len())
            .and_then(|repeated| repeated.checked_add(self.payload.len()))
            .and_then(|payload| strings_byte_len(self.len(), payload))
            .unwrap_or(usize::MAX);
        let mut memory = Expanded::zeroed(bytes, budget)?;
        let table = (self.len() + 1) * size_of::<u64>();
        let (offsets, payload) = memory.bytes_mut().split_at_mut(table);
        let mut end = 0;
        for (slot, text) in offsets.chunks_exact_mut(size_of::<u64>()).skip(1).zip(self.iter()) {
            for part in [before, text] {
                payload[end..end + part.len()].copy_from_slice(part);
                end += part.len();
            }
            slot.copy_from_slice(&(end as u64).to_le_bytes());
        }
        Ok(memory)
    }
}

fn write_layout<'a>(
    texts: impl Iterator<Item = &'a [u8]>,
    count: usize,
    bytes: usize,
    budget: &Budget,
) -> Result<Expanded, Status> {
    let mut memory = Expanded::zeroed(bytes, budget)?;
    let table = (count + 1) * size_of::<u64>();
    let (offsets, payload) = memory.bytes_mut().split_at_mut(table);
    let mut end = 0;
    for (slot, text) in offsets.chunks_exact_mut(size_of::<u64>()).skip(1).zip(texts) {
        payload[end..end + text.len()].copy_from_slice(text);
        end += text.len();
        slot.copy_from_slice(&(end as u64).to_le_bytes());
    }
    Ok(memory)
}

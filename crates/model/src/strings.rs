//! The layout of string tensors: `n + 1` little-endian `u64` offsets, then the bytes back to back.
//!
//! The first offset is 0 and the last is the number of bytes. The layout may come out of memory
//! that another process wrote, so a view copies the offsets before it checks them.

use crate::{AlignedBytes, Status};

const OFFSET_BYTES: usize = size_of::<u64>();

/// Bytes that `count` strings with `payload` bytes in all take, or `None` when that overflows.
pub fn strings_byte_len(count: usize, payload: usize) -> Option<usize> {
    count
        .checked_add(1)?
        .checked_mul(OFFSET_BYTES)?
        .checked_add(payload)
        .filter(|&n| n <= isize::MAX as usize)
}

/// Reads a string tensor.
#[derive(Clone, Debug)]
pub struct StringsView<'a> {
    offsets: Vec<usize>,
    payload: &'a [u8],
}

impl<'a> StringsView<'a> {
    /// Reads `count` strings out of `bytes`.
    ///
    /// # Errors
    /// `INTERNAL` when the offsets do not fit the bytes.
    pub fn new(bytes: &'a [u8], count: usize) -> Result<StringsView<'a>, Status> {
        let broken = || Status::internal("the offsets of a string tensor do not fit its bytes");
        let table =
            count.checked_add(1).and_then(|n| n.checked_mul(OFFSET_BYTES)).ok_or_else(broken)?;
        let (table, payload) = bytes.split_at_checked(table).ok_or_else(broken)?;
        let offsets: Vec<usize> = table
            .chunks_exact(OFFSET_BYTES)
            .map(|chunk| {
                let mut word = [0u8; OFFSET_BYTES];
                word.copy_from_slice(chunk);
                usize::try_from(u64::from_le_bytes(word)).map_err(|_| broken())
            })
            .collect::<Result<_, _>>()?;
        let ordered = offsets.windows(2).all(|pair| pair[0] <= pair[1]);
        let fits =
            offsets.first() == Some(&0) && offsets.last().is_some_and(|&end| end <= payload.len());
        if ordered && fits { Ok(StringsView { offsets, payload }) } else { Err(broken()) }
    }

    /// Number of strings.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The string at `index`; `None` past the end.
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        let end = *self.offsets.get(index.checked_add(1)?)?;
        self.payload.get(self.offsets[index]..end)
    }

    /// All strings in order.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + '_ {
        self.offsets.windows(2).map(|pair| &self.payload[pair[0]..pair[1]])
    }
}

/// Writes a string tensor, one string after the other.
#[derive(Clone, Debug, Default)]
pub struct StringsBuilder {
    ends: Vec<u64>,
    payload: Vec<u8>,
}

impl StringsBuilder {
    /// An empty builder.
    pub fn new() -> StringsBuilder {
        StringsBuilder::default()
    }

    /// Appends one string.
    pub fn push(&mut self, text: &[u8]) {
        self.payload.extend_from_slice(text);
        self.ends.push(self.payload.len() as u64);
    }

    /// Strings so far.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none so far.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes that all strings so far take, offsets left out.
    pub fn payload_bytes(&self) -> usize {
        self.payload.len()
    }

    /// The finished layout.
    pub fn finish(&self) -> AlignedBytes {
        let table = (self.ends.len() + 1) * OFFSET_BYTES;
        let mut memory = AlignedBytes::zeroed(table + self.payload.len());
        let (offsets, payload) = memory.bytes_mut().split_at_mut(table);
        for (slot, end) in offsets.chunks_exact_mut(OFFSET_BYTES).skip(1).zip(&self.ends) {
            slot.copy_from_slice(&end.to_le_bytes());
        }
        payload.copy_from_slice(&self.payload);
        memory
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Memory;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn strings_round_trip(texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..20)) {
            let mut builder = StringsBuilder::new();
            texts.iter().for_each(|text| builder.push(text));
            let memory = builder.finish();
            let payload: usize = texts.iter().map(Vec::len).sum();
            prop_assert_eq!(strings_byte_len(texts.len(), payload), Some(memory.bytes().len()));
            let view = StringsView::new(memory.bytes(), texts.len()).unwrap();
            prop_assert!(view.iter().eq(texts.iter().map(Vec::as_slice)));
            prop_assert_eq!(view.get(texts.len()), None);
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..64), count in 0usize..12) {
            if let Ok(view) = StringsView::new(&bytes, count) {
                prop_assert_eq!(view.iter().count(), count);
            }
        }
    }

    #[test]
    fn absurd_counts_are_refused() {
        assert!(StringsView::new(&[0; 8], usize::MAX).is_err());
        assert_eq!(strings_byte_len(usize::MAX, 1), None);
    }
}

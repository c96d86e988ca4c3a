//! Bytes that tensors live in. Owns alignment; knows nothing of what the bytes mean.

use std::fmt;

/// Bytes that a tensor may point into: heap, a received message, a mapped file, shared memory.
pub trait Memory: Send + Sync {
    /// All bytes of this memory. Repeated calls return the same bytes.
    fn bytes(&self) -> &[u8];
}

/// Heap bytes whose first byte is aligned to 64 (a cache line, and what every engine accepts).
pub struct AlignedBytes {
    // Over-allocated by up to one alignment; the heap block never moves, so `start` stays right.
    buffer: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBytes {
    /// Alignment of the first byte.
    pub const ALIGNMENT: usize = 64;

    /// `len` zero bytes.
    pub fn zeroed(len: usize) -> AlignedBytes {
        let buffer = vec![0u8; len + AlignedBytes::ALIGNMENT];
        let start = buffer.as_ptr().align_offset(AlignedBytes::ALIGNMENT);
        // `align_offset` may give up in theory (usize::MAX); an unaligned start is then still valid.
        let start = if start <= AlignedBytes::ALIGNMENT { start } else { 0 };
        AlignedBytes { buffer, start, len }
    }

    /// A copy of `bytes`.
    pub fn copy_of(bytes: &[u8]) -> AlignedBytes {
        let mut memory = AlignedBytes::zeroed(bytes.len());
        memory.bytes_mut().copy_from_slice(bytes);
        memory
    }

    /// The bytes, for writing.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[self.start..self.start + self.len]
    }
}

impl Memory for AlignedBytes {
    fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.start + self.len]
    }
}

impl fmt::Debug for AlignedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBytes({} bytes)", self.len)
    }
}

impl Memory for Vec<u8> {
    fn bytes(&self) -> &[u8] {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_aligned_and_zero() {
        for len in [0, 1, 63, 64, 65, 4096] {
            let memory = AlignedBytes::zeroed(len);
            assert_eq!(memory.bytes().len(), len);
            assert_eq!(memory.bytes().as_ptr() as usize % AlignedBytes::ALIGNMENT, 0);
            assert!(memory.bytes().iter().all(|&b| b == 0));
        }
    }
}

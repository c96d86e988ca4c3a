//! Records in a file of TensorFlow's (TFRecord): lengths, checksums, bytes; read and written.
//!
//! Owns: the form and the original's texts for what breaks it. May not know: what a record says.
//! Invariant: memory grows with the bytes that are there, not with what a length promises.

use std::io::{ErrorKind, Read};

use vesta_model::Status;

/// Length and its checksum.
const HEADER_BYTES: usize = 12;
const CHECKSUM_BYTES: usize = 4;

/// Reads records one after the other.
pub(crate) struct Records<R> {
    file: R,
    offset: u64,
    record_bytes_max: u64,
}

impl<R: Read> Records<R> {
    /// The records of `file`; one that is longer than `record_bytes_max` is an error.
    pub(crate) fn new(file: R, record_bytes_max: u64) -> Records<R> {
        Records { file, offset: 0, record_bytes_max }
    }

    /// The next record; `None` at the end.
    ///
    /// # Errors
    /// `DATA_LOSS` for bytes that are no record, `RESOURCE_EXHAUSTED` for one that is too long,
    /// `UNKNOWN` when the file cannot be read.
    pub(crate) fn next(&mut self) -> Result<Option<Vec<u8>>, Status> {
        let header = self.take(HEADER_BYTES as u64)?;
        if header.is_empty() {
            return Ok(None);
        }
        let (length, rest) = header.split_first_chunk().ok_or_else(|| self.truncated())?;
        let length_bytes: &[u8] = length;
        if rest.len() < CHECKSUM_BYTES {
            return Err(self.truncated());
        }
        if masked_checksum(length_bytes) != rest {
            return Err(self.corrupted(0));
        }
        let length = u64::from_le_bytes(*length);
        if length > self.record_bytes_max {
            return Err(Status::resource_exhausted(format!(
                "the record at {} has {length} bytes, more than the {} that one may have",
                self.offset, self.record_bytes_max
            )));
        }
        let mut record = self.take(length.saturating_add(CHECKSUM_BYTES as u64))?;
        if record.len() as u64 != length + CHECKSUM_BYTES as u64 {
            return Err(self.truncated());
        }
        let checksum = record.split_off(record.len() - CHECKSUM_BYTES);
        if masked_checksum(&record) != checksum.as_slice() {
            return Err(self.corrupted(HEADER_BYTES as u64));
        }
        self.offset += HEADER_BYTES as u64 + length + CHECKSUM_BYTES as u64;
        Ok(Some(record))
    }

    /// Up to `count` bytes; fewer at the end of the file.
    fn take(&mut self, count: u64) -> Result<Vec<u8>, Status> {
        let mut bytes = Vec::new();
        match self.file.by_ref().take(count).read_to_end(&mut bytes) {
            Ok(_) => Ok(bytes),
            Err(error) if error.kind() == ErrorKind::OutOfMemory => {
                Err(Status::resource_exhausted("no memory for a record").with_cause(error))
            }
            Err(error) => Err(Status::unknown(format!("a record cannot be read: {error}"))),
        }
    }

    fn truncated(&self) -> Status {
        Status::data_loss(format!("truncated record at {}", self.offset))
    }

    fn corrupted(&self, into: u64) -> Status {
        Status::data_loss(format!("corrupted record at {}", self.offset + into))
    }
}

/// The checksum as it stands in the file: changed so that one of bytes that hold checksums differs.
fn masked_checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let checksum = crc32c::crc32c(bytes);
    checksum.rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

/// One record as it stands in a file.
pub(crate) fn framed(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    [&length[..], &masked_checksum(&length), bytes, &masked_checksum(bytes)].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use vesta_model::Code;

    fn all(file: &[u8]) -> Result<Vec<Vec<u8>>, Status> {
        let mut records = Records::new(file, 1000);
        std::iter::from_fn(|| records.next().transpose()).collect()
    }

    #[test]
    fn what_is_no_record_has_the_originals_texts() {
        let good = [framed(b"one"), framed(b"")].concat();
        assert_eq!(all(&good).unwrap(), [b"one".to_vec(), Vec::new()]);
        assert_eq!(all(b"").unwrap(), Vec::<Vec<u8>>::new());
        let text = |file: &[u8]| all(file).unwrap_err().message().to_owned();
        assert_eq!(text(b"no record at all"), "corrupted record at 0");
        assert_eq!(text(b"short"), "truncated record at 0");
        assert_eq!(text(&good[..good.len() - 1]), "truncated record at 19");
        let mut flipped = good.clone();
        flipped[13] ^= 1;
        assert_eq!(text(&flipped), "corrupted record at 12");
        let long = all(&framed(&[0; 1001])).unwrap_err();
        assert_eq!(long.code(), Code::ResourceExhausted);
        // A length that is only claimed takes no memory.
        let mut claims = u64::MAX.to_le_bytes().to_vec();
        claims.extend(masked_checksum(&claims));
        assert_eq!(all(&claims).unwrap_err().code(), Code::ResourceExhausted);
    }

    proptest! {
        #[test]
        fn records_come_back_and_garbage_is_an_error(
            bytes in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..5),
            garbage in prop::collection::vec(any::<u8>(), 1..100),
        ) {
            let file: Vec<u8> = bytes.iter().flat_map(|bytes| framed(bytes)).collect();
            prop_assert_eq!(all(&file).unwrap(), bytes);
            prop_assert!(all(&[file, garbage].concat()).is_err());
        }
    }
}

//! The sorted string table that a bundle's index is: blocks of prefix-compressed keys, each with a
//! type byte and a masked CRC-32C, found through an index block named by the footer.
//!
//! Knows nothing of what keys and values mean. Invariant: reading takes time and memory in
//! proportion to the file and to [`KEY_BYTES_MAX`], for any bytes.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;

use crate::tensor::take_varint;

/// The last bytes of every table.
const MAGIC: u64 = 0xdb47_7524_8b80_fb57;
/// Two block handles, padded, and the magic number.
const FOOTER_BYTES: usize = 48;
/// Type byte and checksum behind each block.
const TRAILER_BYTES: usize = 5;
/// The longest key that is taken for one; prefix compression would let a small file claim more.
const KEY_BYTES_MAX: usize = 16 * 1024;
/// All keys together; the largest real models have some ten thousand of a hundred bytes.
const ALL_KEYS_BYTES_MAX: usize = 256 * 1024 * 1024;
/// A block once it is decompressed; writers make blocks of a few hundred kilobytes.
const BLOCK_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Every key of the table with its value.
pub(super) type Entries = BTreeMap<Vec<u8>, Bytes>;

/// Reads all entries, or says what is wrong with the bytes.
pub(super) fn read(file: &[u8]) -> Result<Entries, String> {
    let footer = file
        .len()
        .checked_sub(FOOTER_BYTES)
        .and_then(|start| file.get(start..))
        .ok_or("too short to be a table")?;
    let (mut handles, magic) = footer.split_at(FOOTER_BYTES - 8);
    if magic != MAGIC.to_le_bytes() {
        return Err("not a table: its last bytes are wrong, the file may be truncated".to_owned());
    }
    // The first handle is of the metaindex, which bundles do not use.
    let _metaindex = Handle::take(&mut handles).ok_or("the footer is damaged")?;
    let index = Handle::take(&mut handles).ok_or("the footer is damaged")?;

    let mut entries = Entries::new();
    let mut key_bytes = 0usize;
    let index = read_block(file, index)?;
    for_each(&index, |_, mut value| {
        let handle = Handle::take(&mut value).ok_or("the index block is damaged")?;
        let block = read_block(file, handle)?;
        for_each(&block, |key, value| {
            key_bytes += key.len();
            if key_bytes > ALL_KEYS_BYTES_MAX {
                return Err("its keys take too much memory".to_owned());
            }
            if entries.insert(key.to_vec(), Bytes::copy_from_slice(value)).is_some() {
                return Err("a key occurs twice".to_owned());
            }
            Ok(())
        })
    })?;
    Ok(entries)
}

/// Undoes the rotation and offset that stored checksums carry.
pub(super) fn unmask(masked: u32) -> u32 {
    masked.wrapping_sub(0xa282_ead8).rotate_left(15)
}

/// The form in which checksums are stored.
pub(super) fn mask(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Where a block lies, its trailer left out.
#[derive(Clone, Copy)]
struct Handle {
    offset: usize,
    size: usize,
}

impl Handle {
    fn take(bytes: &mut &[u8]) -> Option<Handle> {
        let offset = usize::try_from(take_varint(bytes)?).ok()?;
        let size = usize::try_from(take_varint(bytes)?).ok()?;
        Some(Handle { offset, size })
    }
}

fn read_block(file: &[u8], handle: Handle) -> Result<Cow<'_, [u8]>, String> {
    let outside = "a block lies outside the file, which may be truncated";
    let end = handle.offset.checked_add(handle.size).ok_or(outside)?;
    let stop = end.checked_add(TRAILER_BYTES).ok_or(outside)?;
    let checked = file.get(handle.offset..stop).ok_or(outside)?;
    // The checksum covers the type byte too.
    let (covered, stored) = checked.split_at(handle.size + 1);
    if crc32c::crc32c(covered) != unmask(le_u32(stored)) {
        return Err("the checksum of a block is wrong".to_owned());
    }
    let contents = &covered[..handle.size];
    match covered[handle.size] {
        0 => Ok(Cow::Borrowed(contents)),
        1 => decompress(contents).map(Cow::Owned),
        other => Err(format!("a block is compressed by the unknown method {other}")),
    }
}

fn decompress(contents: &[u8]) -> Result<Vec<u8>, String> {
    let damaged = |error| format!("a compressed block is damaged: {error}");
    if snap::raw::decompress_len(contents).map_err(damaged)? > BLOCK_BYTES_MAX {
        return Err("a compressed block is too large".to_owned());
    }
    snap::raw::Decoder::new().decompress_vec(contents).map_err(damaged)
}

/// Calls `visit` with each key and value of a block, in order.
fn for_each(
    block: &[u8],
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), String>,
) -> Result<(), String> {
    let broken = "an entry of a block is damaged";
    // Behind the entries: offsets of restarts, then their number. They only speed up a search.
    let count_at = block.len().checked_sub(4).ok_or("a block is too short")?;
    let restarts = (le_u32(&block[count_at..]) as usize).checked_mul(4).ok_or(broken)?;
    let entries_end =
        count_at.checked_sub(restarts).ok_or("the restarts of a block are damaged")?;

    let mut rest = &block[..entries_end];
    let mut key = Vec::new();
    while !rest.is_empty() {
        let mut number = || take_varint(&mut rest).and_then(|n| usize::try_from(n).ok());
        let (Some(shared), Some(unshared), Some(value)) = (number(), number(), number()) else {
            return Err(broken.to_owned());
        };
        if shared > key.len() || unshared > KEY_BYTES_MAX - shared.min(KEY_BYTES_MAX) {
            return Err(broken.to_owned());
        }
        let (suffix, tail) = rest.split_at_checked(unshared).ok_or(broken)?;
        let (value, tail) = tail.split_at_checked(value).ok_or(broken)?;
        rest = tail;
        key.truncate(shared);
        key.extend_from_slice(suffix);
        visit(&key, value)?;
    }
    Ok(())
}

fn le_u32(bytes: &[u8]) -> u32 {
    let mut word = [0u8; 4];
    word.copy_from_slice(&bytes[..4]);
    u32::from_le_bytes(word)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn put_varint(out: &mut Vec<u8>, mut value: u64) {
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    }

    fn block(entries: &[(Vec<u8>, Vec<u8>)], restart_every: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let mut restarts = Vec::new();
        let mut last: &[u8] = &[];
        for (i, (key, value)) in entries.iter().enumerate() {
            let mut shared = last.iter().zip(key).take_while(|(a, b)| a == b).count();
            if i % restart_every == 0 {
                restarts.push(out.len() as u32);
                shared = 0;
            }
            put_varint(&mut out, shared as u64);
            put_varint(&mut out, (key.len() - shared) as u64);
            put_varint(&mut out, value.len() as u64);
            out.extend_from_slice(&key[shared..]);
            out.extend_from_slice(value);
            last = key;
        }
        if restarts.is_empty() {
            restarts.push(0);
        }
        restarts.iter().for_each(|r| out.extend_from_slice(&r.to_le_bytes()));
        out.extend_from_slice(&(restarts.len() as u32).to_le_bytes());
        out
    }

    fn append_block(file: &mut Vec<u8>, contents: &[u8], snappy: bool) -> Vec<u8> {
        let offset = file.len();
        let mut bytes = if snappy {
            snap::raw::Encoder::new().compress_vec(contents).unwrap()
        } else {
            contents.to_vec()
        };
        let mut handle = Vec::new();
        put_varint(&mut handle, offset as u64);
        put_varint(&mut handle, bytes.len() as u64);
        bytes.push(u8::from(snappy));
        let crc = mask(crc32c::crc32c(&bytes));
        bytes.extend_from_slice(&crc.to_le_bytes());
        file.extend_from_slice(&bytes);
        handle
    }

    /// A table of these entries, `per_block` of them to a block.
    pub(in crate::bundle) fn write(entries: &Entries, per_block: usize, snappy: bool) -> Vec<u8> {
        let all: Vec<(Vec<u8>, Vec<u8>)> =
            entries.iter().map(|(k, v)| (k.clone(), v.to_vec())).collect();
        let mut file = Vec::new();
        let mut index = Vec::new();
        for chunk in all.chunks(per_block) {
            let handle = append_block(&mut file, &block(chunk, 3), snappy);
            index.push((chunk.last().unwrap().0.clone(), handle));
        }
        let mut footer = append_block(&mut file, &block(&[], 1), false);
        footer.extend(append_block(&mut file, &block(&index, 1), snappy));
        footer.resize(FOOTER_BYTES - 8, 0);
        footer.extend_from_slice(&MAGIC.to_le_bytes());
        file.extend_from_slice(&footer);
        file
    }

    fn some_entries() -> impl Strategy<Value = Entries> {
        let key = prop::collection::vec(0u8..3, 0..12);
        let value = prop::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from);
        prop::collection::btree_map(key, value, 0..40)
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            entries in some_entries(), per_block in 1usize..9, snappy in any::<bool>(),
        ) {
            prop_assert_eq!(read(&write(&entries, per_block, snappy)), Ok(entries));
        }

        #[test]
        fn every_truncation_is_an_error(entries in some_entries(), cut in any::<prop::sample::Index>()) {
            let file = write(&entries, 4, false);
            prop_assert!(read(&file[..cut.index(file.len())]).is_err());
        }

        #[test]
        fn a_flipped_bit_in_a_block_is_an_error(
            entries in some_entries(), at in any::<prop::sample::Index>(), bit in 0u8..8,
        ) {
            let mut file = write(&entries, 4, false);
            // The metaindex block and the padding of the footer are not looked at.
            let at = at.index(file.len());
            file[at] ^= 1 << bit;
            if let Ok(read) = read(&file) {
                prop_assert_eq!(read, entries);
            }
        }

        #[test]
        fn garbage_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
            bytes.extend_from_slice(&MAGIC.to_le_bytes());
            let _ = read(&bytes);
            let _ = for_each(&bytes, |_, _| Ok(()));
        }

        #[test]
        fn garbage_with_right_checksums_never_panics(
            index in prop::collection::vec(any::<u8>(), 0..60), snappy in any::<bool>(),
        ) {
            let mut file = Vec::new();
            let mut footer = append_block(&mut file, &index, snappy);
            footer.extend(footer.clone());
            footer.resize(FOOTER_BYTES - 8, 0);
            footer.extend_from_slice(&MAGIC.to_le_bytes());
            file.extend_from_slice(&footer);
            let _ = read(&file);
        }
    }

    #[test]
    fn masking_is_undone() {
        for crc in [0, 1, 0xffff_ffff, 0x1234_5678] {
            assert_eq!(unmask(mask(crc)), crc);
        }
    }

    #[test]
    fn long_keys_are_refused() {
        let entries = Entries::from([(vec![1; KEY_BYTES_MAX + 1], Bytes::new())]);
        assert!(read(&write(&entries, 1, false)).is_err());
    }
}

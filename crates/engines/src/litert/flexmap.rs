//! A flexbuffer that is a map from text to bytes: how TensorFlow keeps signatures in a model's
//! metadata.
//!
//! The values are serialized messages that are declared to be text and are not UTF-8, which the
//! published crate refuses to read. Invariant: no read leaves the bytes.

const MAP: u8 = 9;
const TEXT: u8 = 5;
const BLOB: u8 = 25;

/// The entries, in the order of the keys; `None` when it is no such map.
pub(super) fn entries(bytes: &[u8]) -> Option<Vec<(String, &[u8])>> {
    let (body, tail) = bytes.split_at_checked(bytes.len().checked_sub(2)?)?;
    let (kind, root_width) = (tail[0], usize::from(tail[1]));
    if kind >> 2 != MAP {
        return None;
    }
    let width = width_of(kind);
    let values = follow(body, body.len().checked_sub(root_width)?, root_width)?;
    let before = |count: usize| values.checked_sub(count * width);
    let count = number(body, before(1)?, width)?;
    let keys = follow(body, before(3)?, width)?;
    let key_width = number(body, before(2)?, width)?;
    // Each entry takes at least a byte of types.
    let kinds = body.get(values.checked_add(count.checked_mul(width)?)?..)?.get(..count)?;
    let entry = |(index, &kind): (usize, &u8)| {
        if !matches!(kind >> 2, TEXT | BLOB) {
            return None;
        }
        let key = follow(body, keys.checked_add(index.checked_mul(key_width)?)?, key_width)?;
        let key = body.get(key..)?.split(|&byte| byte == 0).next()?;
        let value = follow(body, values + index * width, width)?;
        let length = number(body, value.checked_sub(width_of(kind))?, width_of(kind))?;
        let value = body.get(value..value.checked_add(length)?)?;
        Some((String::from_utf8(key.to_vec()).ok()?, value))
    };
    kinds.iter().enumerate().map(entry).collect()
}

/// Bytes of the numbers of a value of this packed kind.
fn width_of(kind: u8) -> usize {
    1 << (kind & 3)
}

fn number(bytes: &[u8], at: usize, width: usize) -> Option<usize> {
    let found = bytes.get(at..at.checked_add(width)?)?;
    let mut word = [0; 8];
    if width == 0 || width > word.len() {
        return None;
    }
    word[..width].copy_from_slice(found);
    usize::try_from(u64::from_le_bytes(word)).ok()
}

/// Where the offset at `at` leads: backwards.
fn follow(bytes: &[u8], at: usize, width: usize) -> Option<usize> {
    at.checked_sub(number(bytes, at, width)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Two entries as TensorFlow's writer lays them out.
    fn two() -> Vec<u8> {
        let mut bytes = b"a\0b\0\x02\xff\xfe\0\x00\0".to_vec();
        // Keys at 0 and 2, values at 5 (two bytes) and 9 (none); then the vector of keys.
        bytes.push(2);
        let keys = bytes.len();
        bytes.extend([u8::try_from(keys).unwrap(), u8::try_from(keys + 1 - 2).unwrap()]);
        // The map: offset of the keys, their width, the count, two values, their kinds.
        let at = bytes.len();
        bytes.extend([u8::try_from(at - keys).unwrap(), 1, 2]);
        let values = bytes.len();
        bytes.extend([u8::try_from(values - 5).unwrap(), u8::try_from(values + 1 - 9).unwrap()]);
        bytes.extend([TEXT << 2, TEXT << 2]);
        let root = bytes.len();
        bytes.extend([u8::try_from(root - values).unwrap(), MAP << 2, 1]);
        bytes
    }

    #[test]
    fn a_map_is_read() {
        let bytes = two();
        let read = entries(&bytes).unwrap();
        assert_eq!(read, [("a".to_owned(), &b"\xff\xfe"[..]), ("b".to_owned(), &b""[..])]);
        assert_eq!(entries(b""), None);
        assert_eq!(entries(&[0, 5 << 2, 1]), None);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(noise in prop::collection::vec(any::<u8>(), 0..64)) {
            entries(&noise);
        }

        #[test]
        fn damage_never_panics(at in 0usize..30, byte: u8) {
            let mut bytes = two();
            let len = bytes.len();
            bytes[at % len] = byte;
            entries(&bytes);
        }
    }
}

//! Strings in JSON: from their escaped form to bytes, and base64. Knows no tensors.

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::cursor::{Text, hex4};

/// Reads base64 as the original does: padded or not, whatever the unused bits are.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl<'a> Text<'a> {
    /// The bytes that the string stands for. Half of a surrogate pair becomes three bytes that are
    /// not UTF-8, since strings are bytes here.
    pub(crate) fn unescaped(&self) -> Cow<'a, [u8]> {
        if !self.escaped {
            return Cow::Borrowed(self.raw);
        }
        let mut bytes = Vec::with_capacity(self.raw.len());
        let mut rest = self.raw;
        while let Some(at) = memchr::memchr(b'\\', rest) {
            bytes.extend_from_slice(&rest[..at]);
            rest = push_escape(&mut bytes, &rest[at + 1..]);
        }
        bytes.extend_from_slice(rest);
        Cow::Owned(bytes)
    }
}

/// Appends what an escape stands for; `rest` follows its backslash. Returns what follows it.
fn push_escape<'a>(bytes: &mut Vec<u8>, rest: &'a [u8]) -> &'a [u8] {
    let Some((&letter, rest)) = rest.split_first() else { return rest };
    let byte = match letter {
        b'b' => 0x08,
        b'f' => 0x0C,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'u' => return push_code_point(bytes, rest),
        other => other,
    };
    bytes.push(byte);
    rest
}

fn push_code_point<'a>(bytes: &mut Vec<u8>, rest: &'a [u8]) -> &'a [u8] {
    let Some(first) = hex4(rest) else { return rest };
    let rest = &rest[4..];
    if (0xD800..0xDC00).contains(&first)
        && let Some(low) = rest.strip_prefix(b"\\u").and_then(hex4)
        && (0xDC00..0xE000).contains(&low)
    {
        push_utf8(bytes, ((first - 0xD800) << 10 | (low - 0xDC00)) + 0x1_0000);
        return &rest[6..];
    }
    push_utf8(bytes, first);
    rest
}

fn push_utf8(bytes: &mut Vec<u8>, code: u32) {
    if let Some(letter) = char::from_u32(code) {
        bytes.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
    } else {
        let low_bits = |shift: u32| 0x80 | (code >> shift & 0x3F) as u8;
        bytes.extend_from_slice(&[0xE0 | (code >> 12) as u8, low_bits(6), low_bits(0)]);
    }
}

/// The bytes that base64 stands for; `None` when it is none. White space is skipped.
pub(crate) fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t'..=b'\r');
    if text.iter().any(is_space) {
        let dense: Vec<u8> = text.iter().copied().filter(|byte| !is_space(byte)).collect();
        return decode_dense(&dense);
    }
    decode_dense(text)
}

fn decode_dense(text: &[u8]) -> Option<Vec<u8>> {
    // Padding may be left out, but not in part.
    if text.ends_with(b"=") && !text.len().is_multiple_of(4) {
        return None;
    }
    LENIENT.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tfs::json::cursor::Cursor;
    use proptest::prelude::*;

    fn text(json: &str) -> Vec<u8> {
        Cursor::new(json.as_bytes()).string().unwrap().unescaped().into_owned()
    }

    #[test]
    fn escapes_are_undone() {
        assert_eq!(text(r#""a\"b\\c\/\b\f\n\r\t""#), b"a\"b\\c/\x08\x0c\n\r\t");
        assert_eq!(text(r#""\u20ac\ud83d\ude00\u0000""#), "€😀\0".as_bytes());
        assert_eq!(text(r#""\udc00x""#), b"\xED\xB0\x80x");
    }

    #[test]
    fn base64_is_lenient_as_the_original() {
        let decode = |text: &str| decode_base64(text.as_bytes());
        assert_eq!(decode("aGVsbG8="), Some(b"hello".to_vec()));
        assert_eq!(decode("aGVsbG8"), Some(b"hello".to_vec()));
        assert_eq!(decode(" aGVs\nbG8 = "), Some(b"hello".to_vec()));
        assert_eq!(decode(""), Some(Vec::new()));
        assert_eq!(decode("YWJ"), Some(b"ab".to_vec()));
        assert_eq!(decode("***"), None);
        assert_eq!(decode("YQ="), None);
        assert_eq!(decode("Y"), None);
        assert_eq!(decode("_-_-"), None);
    }

    proptest! {
        #[test]
        fn library_strings_round_trip(plain in any::<String>()) {
            let json = serde_json::to_string(&plain).unwrap();
            prop_assert_eq!(text(&json), plain.as_bytes());
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut quoted = vec![b'"'];
            quoted.extend(bytes);
            if let Ok(text) = Cursor::new(&quoted).string() {
                text.unescaped();
                decode_base64(text.raw);
            }
        }
    }
}

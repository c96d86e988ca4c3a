//! JSON with the white space of the original: four spaces a level, arrays on one line or on many.
//!
//! Owns: the layout of RapidJSON's PrettyWriter, its escapes, and the quoting of values in error
//! texts, cut as the original cuts them. Strings are bytes and pass unchecked.

use std::io::Write as _;

use super::cursor::Cursor;
use super::float;
use super::scan::{Kind, Value};

/// Writes one document. Calls must be balanced and, in objects, keys and values alternate.
#[derive(Debug)]
pub(crate) struct Pretty {
    out: Vec<u8>,
    levels: Vec<Level>,
    single_line: bool,
}

#[derive(Debug)]
struct Level {
    in_array: bool,
    count: usize,
}

const INDENT: usize = 4;
/// Error texts stop quoting a value once they hold this many bytes of it.
const QUOTED_BYTES_MAX: usize = 256;
/// A single string is quoted whole by the original, however long; here up to this many bytes.
const QUOTED_STRING_BYTES_MAX: usize = 1 << 20;

impl Pretty {
    pub(crate) fn new() -> Pretty {
        Pretty { out: Vec::new(), levels: Vec::new(), single_line: false }
    }

    /// Whether arrays are written on one line from now on.
    pub(crate) fn single_line(&mut self, on: bool) {
        self.single_line = on;
    }

    /// The bytes written so far, for appending to a value that [`Pretty::value`] announced.
    pub(crate) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.out
    }

    /// Writes what comes before a value or a key.
    pub(crate) fn value(&mut self) {
        let depth = self.levels.len();
        let Some(level) = self.levels.last_mut() else { return };
        let first = level.count == 0;
        let is_key = level.count.is_multiple_of(2);
        level.count += 1;
        if level.in_array {
            match (first, self.single_line) {
                (true, true) => {}
                (false, true) => self.out.extend_from_slice(b", "),
                (true, false) => self.line(depth),
                (false, false) => {
                    self.out.push(b',');
                    self.line(depth);
                }
            }
        } else if is_key {
            if !first {
                self.out.push(b',');
            }
            self.line(depth);
        } else {
            self.out.extend_from_slice(b": ");
        }
    }

    /// What [`Pretty::value`] writes before each element but the first of the innermost array, for
    /// loops that write many; they report how many with [`Pretty::counted`].
    pub(crate) fn separator(&self) -> Vec<u8> {
        if self.single_line {
            return b", ".to_vec();
        }
        let mut separator = b",\n".to_vec();
        separator.resize(2 + self.levels.len() * INDENT, b' ');
        separator
    }

    /// Counts elements that were written without [`Pretty::value`].
    pub(crate) fn counted(&mut self, elements: usize) {
        if let Some(level) = self.levels.last_mut() {
            level.count += elements;
        }
    }

    fn line(&mut self, depth: usize) {
        self.out.push(b'\n');
        self.out.resize(self.out.len() + depth * INDENT, b' ');
    }

    pub(crate) fn start_object(&mut self) {
        self.start(false, b'{');
    }

    pub(crate) fn end_object(&mut self) {
        self.end(b'}', false);
    }

    pub(crate) fn start_array(&mut self) {
        self.start(true, b'[');
    }

    pub(crate) fn end_array(&mut self) {
        self.end(b']', self.single_line);
    }

    fn start(&mut self, in_array: bool, bracket: u8) {
        self.value();
        self.levels.push(Level { in_array, count: 0 });
        self.out.push(bracket);
    }

    fn end(&mut self, bracket: u8, same_line: bool) {
        let empty = self.levels.pop().is_none_or(|level| level.count == 0);
        if !empty && !same_line {
            self.line(self.levels.len());
        }
        self.out.push(bracket);
    }

    pub(crate) fn key(&mut self, name: &[u8]) {
        self.string(name);
    }

    pub(crate) fn string(&mut self, text: &[u8]) {
        self.value();
        push_string(&mut self.out, text);
    }

    fn raw(&mut self, text: &[u8]) {
        self.value();
        self.out.extend_from_slice(text);
    }

    fn is_full(&self) -> bool {
        self.out.len() >= QUOTED_BYTES_MAX
    }
}

/// Appends `text` in quotation marks with RapidJSON's escapes.
pub(crate) fn push_string(out: &mut Vec<u8>, text: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.push(b'"');
    let mut start = 0;
    for (i, &byte) in text.iter().enumerate() {
        let letter = match byte {
            b'"' | b'\\' => byte,
            0x08 => b'b',
            b'\t' => b't',
            b'\n' => b'n',
            0x0C => b'f',
            b'\r' => b'r',
            0..0x20 => b'u',
            _ => continue,
        };
        out.extend_from_slice(&text[start..i]);
        out.extend_from_slice(&[b'\\', letter]);
        if letter == b'u' {
            let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
            out.extend_from_slice(&[b'0', b'0', high, low]);
        }
        start = i + 1;
    }
    out.extend_from_slice(&text[start..]);
    out.push(b'"');
}

/// `value` as error texts quote it: pretty, arrays on one line, and nothing more once 256 bytes are
/// there, so that the text may be cut anywhere between tokens. It also stops at NaN and Infinity.
pub(crate) fn quote(value: Value<'_>) -> Vec<u8> {
    let mut writer = Pretty::new();
    writer.single_line(true);
    // `None` is a text that was cut.
    let _ = quote_into(&mut writer, &mut Cursor::new(value.text));
    writer.finish()
}

fn quote_into(writer: &mut Pretty, cursor: &mut Cursor<'_>) -> Option<()> {
    // Each level has written a bracket, so the limit on bytes is one on levels.
    let mut open: Vec<bool> = Vec::new();
    loop {
        let room = (!writer.is_full()).then_some(());
        room?;
        match cursor.peek() {
            bracket @ (b'[' | b'{') => {
                let is_object = bracket == b'{';
                if is_object {
                    writer.start_object()
                } else {
                    writer.start_array()
                }
                cursor.skip(1);
                cursor.skip_space();
                open.push(is_object);
                if !matches!(cursor.peek(), b']' | b'}') {
                    if is_object {
                        quote_key(writer, cursor)?;
                    }
                    continue;
                }
            }
            _ => quote_leaf(writer, cursor)?,
        }
        loop {
            let &is_object = open.last()?;
            cursor.skip_space();
            if cursor.eat(b',') {
                cursor.skip_space();
                if is_object {
                    quote_key(writer, cursor)?;
                }
                break;
            }
            cursor.skip(1);
            open.pop();
            if writer.is_full() {
                return None;
            }
            if is_object { writer.end_object() } else { writer.end_array() }
        }
    }
}

fn quote_key(writer: &mut Pretty, cursor: &mut Cursor<'_>) -> Option<()> {
    if writer.is_full() {
        return None;
    }
    let name = cursor.string().ok()?.unescaped();
    writer.key(&name[..name.len().min(QUOTED_STRING_BYTES_MAX)]);
    cursor.skip_space();
    cursor.eat(b':');
    cursor.skip_space();
    Some(())
}

fn quote_leaf(writer: &mut Pretty, cursor: &mut Cursor<'_>) -> Option<()> {
    let start = cursor.at();
    let mut rest = cursor.clone();
    super::scan::skip_value(&mut rest).ok()?;
    let value = Value { text: rest.since(start) };
    match value.kind() {
        Kind::Null => writer.raw(b"null"),
        Kind::True => writer.raw(b"true"),
        Kind::False => writer.raw(b"false"),
        Kind::String => {
            let text = value.as_text()?.unescaped();
            writer.string(&text[..text.len().min(QUOTED_STRING_BYTES_MAX)]);
        }
        Kind::Number | Kind::Array | Kind::Object => {
            let number = cursor.clone().number().ok()?;
            writer.value();
            if let Some(integer) = number.integer() {
                // Writing to memory does not fail.
                let _ = write!(writer.out, "{integer}");
            } else {
                let double = number.to_f64();
                if !double.is_finite() {
                    return None;
                }
                float::push_quoted(&mut writer.out, double);
            }
        }
    }
    *cursor = rest;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn quoted(json: &str) -> String {
        String::from_utf8(quote(Value { text: json.as_bytes() })).unwrap()
    }

    #[test]
    fn values_are_quoted_as_the_original_does() {
        assert_eq!(quoted("[1,2]"), "[1, 2]");
        assert_eq!(quoted("[]"), "[]");
        assert_eq!(quoted("{\"a\":{},\"b\":[ ]}"), "{\n    \"a\": {},\n    \"b\": []\n}");
        assert_eq!(
            quoted("{\"instances\":{\"x\": 1.0}}"),
            "{\n    \"instances\": {\n        \"x\": 1.0\n    }\n}"
        );
        assert_eq!(quoted("[1E2,-0,-0.0,1e39]"), "[100.0, 0, -0.0, 1e39]");
        assert_eq!(quoted("\"a\\u0001\\\"\""), "\"a\\u0001\\\"\"");
        assert_eq!(quoted("[1, NaN, 2]"), "[1, ");
        assert_eq!(quoted("[{\"a\":1},2]"), "[{\n        \"a\": 1\n    }, 2]");
    }

    #[test]
    fn long_values_are_cut() {
        let long = format!("[{}]", vec!["1.0"; 1000].join(","));
        let text = quoted(&long);
        assert!(text.starts_with("[1.0, 1.0, "));
        assert_eq!(text.len(), 259);
        assert!(quoted(&"[".repeat(300)).len() == 256);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(prop::sample::select(b"{}[],:\"\\u0019eNnulItrfas -.\xff\0".to_vec()), 0..64)) {
            quote(Value { text: &bytes });
        }
    }
}

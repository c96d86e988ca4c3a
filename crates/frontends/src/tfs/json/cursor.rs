//! The grammar of the JSON that the original accepts, one token at a time.
//!
//! Owns: where each token ends, and which fault is reported at which offset when it is malformed.
//! The grammar is that of RapidJSON 1.1 with its iterative parser and NaN and Infinity allowed:
//! strings are bytes (their encoding is not checked), and a zero byte ends the text.
//! May not know: what tokens mean to a request.
//! Invariant: no method reads past the end or moves backwards.

use super::number::{self, Number};

/// Why a text is not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    DocumentEmpty,
    ValueInvalid,
    MemberWithoutName,
    MemberWithoutColon,
    MemberWithoutEnd,
    ElementWithoutEnd,
    EscapeNotHex,
    SurrogateInvalid,
    EscapeInvalid,
    StringWithoutEnd,
    NumberTooBig,
    NumberWithoutFraction,
    NumberWithoutExponent,
    /// Ours: the original's memory is the limit.
    TooDeep,
}

impl Fault {
    /// The words that clients know.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Fault::DocumentEmpty => "The document is empty.",
            Fault::ValueInvalid => "Invalid value.",
            Fault::MemberWithoutName => "Missing a name for object member.",
            Fault::MemberWithoutColon => "Missing a colon after a name of object member.",
            Fault::MemberWithoutEnd => "Missing a comma or '}' after an object member.",
            Fault::ElementWithoutEnd => "Missing a comma or ']' after an array element.",
            Fault::EscapeNotHex => "Incorrect hex digit after \\u escape in string.",
            Fault::SurrogateInvalid => "The surrogate pair in string is invalid.",
            Fault::EscapeInvalid => "Invalid escape character in string.",
            Fault::StringWithoutEnd => "Missing a closing quotation mark in string.",
            Fault::NumberTooBig => "Number too big to be stored in double.",
            Fault::NumberWithoutFraction => "Miss fraction part in number.",
            Fault::NumberWithoutExponent => "Miss exponent in number.",
            Fault::TooDeep => "More than 512 levels of brackets.",
        }
    }
}

/// A fault and the offset in bytes that it is reported at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    pub(crate) fault: Fault,
    pub(crate) offset: usize,
}

/// A string token without its quotation marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Text<'a> {
    pub(crate) raw: &'a [u8],
    /// Whether `raw` holds escapes.
    pub(crate) escaped: bool,
}

/// A position in a text.
#[derive(Clone, Debug)]
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// Whether any of eight bytes is a quotation mark, a backslash or a control character.
fn ends_plain_text(word: u64) -> bool {
    let zero_in = |x: u64| x.wrapping_sub(ONES) & !x & HIGHS;
    let control = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
    control | zero_in(word ^ (ONES * u64::from(b'"'))) | zero_in(word ^ (ONES * u64::from(b'\\')))
        != 0
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { bytes, at: 0 }
    }

    /// Bytes before the position.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// The text from `start` to the position.
    pub(crate) fn since(&self, start: usize) -> &'a [u8] {
        &self.bytes[start..self.at]
    }

    /// The next byte; zero at the end.
    #[inline(always)]
    pub(crate) fn peek(&self) -> u8 {
        if self.at < self.bytes.len() { self.bytes[self.at] } else { 0 }
    }

    /// The next eight bytes as a little-endian word, if there are as many.
    #[inline(always)]
    pub(crate) fn peek_word(&self) -> Option<u64> {
        let chunk = self.bytes.get(self.at..)?.first_chunk::<8>()?;
        Some(u64::from_le_bytes(*chunk))
    }

    /// Steps over `n` bytes that were looked at.
    #[inline(always)]
    pub(crate) fn skip(&mut self, n: usize) {
        self.at += n;
    }

    /// Steps over `byte` if it is next.
    #[inline(always)]
    pub(crate) fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == byte && byte != 0;
        self.at += usize::from(found);
        found
    }

    /// Steps over white space.
    #[inline(always)]
    pub(crate) fn skip_space(&mut self) {
        while matches!(self.peek(), b' ' | b'\n' | b'\r' | b'\t') {
            self.at += 1;
        }
    }

    /// Steps over the bytes of a byte order mark, each on its own as the original does.
    pub(crate) fn skip_byte_order_mark(&mut self) {
        for byte in [0xEF, 0xBB, 0xBF] {
            self.eat(byte);
        }
    }

    /// An error here.
    pub(crate) fn fault(&self, fault: Fault) -> SyntaxError {
        SyntaxError { fault, offset: self.at }
    }

    /// Steps over `null`, `true` or `false`, whose first letter was seen.
    pub(crate) fn literal(&mut self, word: &[u8]) -> Result<(), SyntaxError> {
        for &letter in word {
            if !self.eat(letter) {
                return Err(self.fault(Fault::ValueInvalid));
            }
        }
        Ok(())
    }

    /// Steps over a number.
    #[inline(always)]
    pub(crate) fn number(&mut self) -> Result<Number<'a>, SyntaxError> {
        number::read(self)
    }

    /// Steps over a string, whose opening quotation mark was seen.
    pub(crate) fn string(&mut self) -> Result<Text<'a>, SyntaxError> {
        self.at += 1;
        let start = self.at;
        let mut escaped = false;
        loop {
            while self.peek_word().is_some_and(|word| !ends_plain_text(word)) {
                self.at += 8;
            }
            match self.peek() {
                b'"' => {
                    let raw = self.since(start);
                    self.at += 1;
                    return Ok(Text { raw, escaped });
                }
                b'\\' => {
                    escaped = true;
                    self.escape()?;
                }
                0 => return Err(self.fault(Fault::StringWithoutEnd)),
                1..0x20 => return Err(self.fault(Fault::EscapeInvalid)),
                _ => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Result<(), SyntaxError> {
        // Faults are reported at the backslash.
        let at_escape = |fault| Err(SyntaxError { fault, offset: self.at });
        let rest = &self.bytes[self.at..];
        match rest.get(1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 2;
                Ok(())
            }
            Some(b'u') => {
                let Some(first) = hex4(&rest[2..]) else {
                    return at_escape(Fault::EscapeNotHex);
                };
                if !(0xD800..0xDC00).contains(&first) {
                    self.at += 6;
                    return Ok(());
                }
                if rest.get(6..8) != Some(b"\\u") {
                    return at_escape(Fault::SurrogateInvalid);
                }
                match hex4(&rest[8..]) {
                    None => at_escape(Fault::EscapeNotHex),
                    Some(0xDC00..0xE000) => {
                        self.at += 12;
                        Ok(())
                    }
                    Some(_) => at_escape(Fault::SurrogateInvalid),
                }
            }
            _ => at_escape(Fault::EscapeInvalid),
        }
    }
}

/// The value of four leading hexadecimal digits.
pub(crate) fn hex4(bytes: &[u8]) -> Option<u32> {
    let digits = bytes.first_chunk::<4>()?;
    digits.iter().try_fold(0, |sum, &digit| Some(sum * 16 + char::from(digit).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn words_end_plain_text_when_one_of_their_bytes_does(bytes in any::<[u8; 8]>()) {
            let want = bytes.iter().any(|&b| b < 0x20 || b == b'"' || b == b'\\');
            prop_assert_eq!(ends_plain_text(u64::from_le_bytes(bytes)), want);
        }
    }
}

//! Walks an HPACK header block byte by byte and makes its `:authority` free of percent signs.
//!
//! Owns: the representations of RFC 7541 as far as they must be told apart, and the walk through
//! its string code. May not know: frames, sockets, the dynamic table.
//! Invariant: bytes are changed in place and never in number; whatever comes in, the walk needs a
//! few words of state, never panics and, once it has met something malformed, changes nothing more.

/// What stands in the place of a percent sign: a byte that every reader of an authority takes.
const HARMLESS: u8 = b'.';

/// The name whose value is rewritten, plainly.
const NAME: &[u8] = b":authority";

/// The same name in the string code of RFC 7541, padded with ones.
const NAME_CODED: [u8; 8] = [0xb8, 0x3b, 0x53, 0x39, 0xec, 0x32, 0x7d, 0x7f];

/// Position of `:authority` in the static table.
const NAME_INDEX: u32 = 1;

/// The longest integer is cut off here, far above any header list that is accepted.
const INTEGER_MAX: u32 = 1 << 28;

/// The state of the walk between two bytes of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Walk {
    step: Step,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// The next byte begins a representation.
    Representation,
    /// More bytes of an integer follow.
    Integer { value: u32, shift: u32, then: Then },
    /// The next byte begins the string that is the name.
    NameHead,
    /// The next byte begins the string that is the value.
    ValueHead { authority: bool },
    /// Inside the name.
    Name { position: u32, left: u32, coded: bool, equal: bool },
    /// Inside a value that stays as it is.
    Skip { left: u32 },
    /// Inside the value of `:authority`, one byte a character.
    Plain { left: u32 },
    /// Inside the value of `:authority`, in the string code.
    Coded { left: u32, symbol: Symbol },
    /// Malformed: the reader behind will say so.
    Lost,
}

/// What an integer was the length or the number of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// A whole representation: nothing follows.
    Nothing,
    /// The index of a name that is not looked up: a value follows.
    Value,
    /// Bytes of the name.
    Name { coded: bool },
    /// Bytes of the value.
    Text { authority: bool, coded: bool },
}

/// A symbol of the string code that has begun: its bits so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Symbol {
    bits: u32,
    len: u8,
}

/// How many symbols have a code of each length from 0 to 30 bits. The code is canonical, so this is
/// all that is needed to find where symbols end.
const SYMBOLS_OF_LEN: [u32; 31] = [
    0, 0, 0, 0, 0, 10, 26, 32, 6, 0, 5, 3, 2, 6, 2, 3, 0, 0, 0, 3, 8, 13, 26, 29, 12, 4, 15, 19,
    29, 0, 4,
];

/// The first code of each length.
const FIRST_OF_LEN: [u32; 31] = {
    let mut first = [0u32; 31];
    let mut len = 1;
    while len < 31 {
        first[len] = (first[len - 1] + SYMBOLS_OF_LEN[len - 1]) << 1;
        len += 1;
    }
    first
};

impl Walk {
    /// At the start of a block.
    pub(super) fn new() -> Walk {
        Walk { step: Step::Representation }
    }

    /// Whether something malformed was met.
    pub(super) fn is_lost(&self) -> bool {
        self.step == Step::Lost
    }

    /// Goes over the next bytes of the block and changes those that must be.
    pub(super) fn rewrite(&mut self, bytes: &mut [u8]) {
        let mut rest = bytes;
        while let Some(byte) = rest.first_mut() {
            // Values of no interest can be long; they are passed in one go.
            if let Step::Skip { left } = &mut self.step {
                let passed = rest.len().min(*left as usize);
                *left -= passed as u32;
                if *left == 0 {
                    self.step = Step::Representation;
                }
                rest = &mut rest[passed..];
                continue;
            }
            if self.is_lost() {
                return;
            }
            self.advance(byte);
            rest = &mut rest[1..];
        }
    }

    fn advance(&mut self, byte: &mut u8) {
        let step = std::mem::replace(&mut self.step, Step::Lost);
        self.step = match step {
            Step::Representation => representation(*byte),
            Step::Integer { value, shift, then } => integer(*byte, value, shift, then),
            Step::NameHead => string_head(*byte, |coded| Then::Name { coded }),
            Step::ValueHead { authority } => {
                string_head(*byte, |coded| Then::Text { authority, coded })
            }
            Step::Name { position, left, coded, equal } => {
                let want = if coded { &NAME_CODED[..] } else { NAME };
                let equal = equal && want.get(position as usize) == Some(byte);
                name(position + 1, left - 1, coded, equal)
            }
            Step::Skip { left } => skip(left - 1),
            Step::Plain { left } => {
                if *byte == b'%' {
                    *byte = HARMLESS;
                }
                if left == 1 { Step::Representation } else { Step::Plain { left: left - 1 } }
            }
            Step::Coded { left, mut symbol } => {
                *byte = symbol.rewrite(*byte);
                if left == 1 {
                    Step::Representation
                } else {
                    Step::Coded { left: left - 1, symbol }
                }
            }
            Step::Lost => Step::Lost,
        };
    }
}

impl Symbol {
    /// Goes over eight bits of coded text.
    ///
    /// `%` is 010101 and `.` is 010111, so one bit makes the difference, the fifth. That the first
    /// four are 0101 and the fifth is 0 is enough to set it: the only other symbol that begins so
    /// is a space, which no authority has, and it becomes a hyphen. Hence no bit of a byte that was
    /// already given on is ever needed again.
    fn rewrite(&mut self, byte: u8) -> u8 {
        let mut out = byte;
        for place in (0..8).rev() {
            let mut bit = u32::from(byte >> place) & 1;
            if self.len == 4 && self.bits == 0b0101 && bit == 0 {
                bit = 1;
                out |= 1 << place;
            }
            self.push(bit);
        }
        out
    }

    fn push(&mut self, bit: u32) {
        self.bits = self.bits << 1 | bit;
        self.len += 1;
        let len = usize::from(self.len);
        let ends = match (SYMBOLS_OF_LEN.get(len), FIRST_OF_LEN.get(len)) {
            (Some(&count), Some(&first)) => {
                self.bits.checked_sub(first).is_some_and(|place| place < count)
            }
            // Longer than any code: padding that is too long, which the reader behind refuses.
            _ => true,
        };
        if ends {
            *self = Symbol::default();
        }
    }
}

/// What a representation's first byte says.
fn representation(byte: u8) -> Step {
    if byte & 0x80 != 0 {
        // Indexed: name and value out of a table.
        prefixed(byte, 0x7f, |_| Then::Nothing)
    } else if byte & 0xe0 == 0x20 {
        // A new size of the dynamic table.
        prefixed(byte, 0x1f, |_| Then::Nothing)
    } else {
        let mask = if byte & 0x40 != 0 { 0x3f } else { 0x0f };
        match u32::from(byte & mask) {
            0 => Step::NameHead,
            NAME_INDEX => Step::ValueHead { authority: true },
            _ => prefixed(byte, mask, |_| Then::Value),
        }
    }
}

/// An integer that begins in the low bits of `byte`.
fn prefixed(byte: u8, mask: u8, then: impl FnOnce(u8) -> Then) -> Step {
    let then = then(byte);
    if byte & mask == mask {
        Step::Integer { value: u32::from(mask), shift: 0, then }
    } else {
        finished(u32::from(byte & mask), then)
    }
}

fn string_head(byte: u8, then: impl FnOnce(bool) -> Then) -> Step {
    prefixed(byte, 0x7f, |byte| then(byte & 0x80 != 0))
}

/// A further byte of an integer.
fn integer(byte: u8, value: u32, shift: u32, then: Then) -> Step {
    if shift > 21 {
        return Step::Lost;
    }
    let value = value + (u32::from(byte & 0x7f) << shift);
    if value > INTEGER_MAX {
        Step::Lost
    } else if byte & 0x80 != 0 {
        Step::Integer { value, shift: shift + 7, then }
    } else {
        finished(value, then)
    }
}

/// What follows an integer.
fn finished(value: u32, then: Then) -> Step {
    match then {
        Then::Nothing => Step::Representation,
        Then::Value => Step::ValueHead { authority: false },
        Then::Name { coded } => name(0, value, coded, true),
        Then::Text { authority: false, .. } => skip(value),
        Then::Text { authority: true, .. } if value == 0 => Step::Representation,
        Then::Text { authority: true, coded: false } => Step::Plain { left: value },
        Then::Text { authority: true, coded: true } => {
            Step::Coded { left: value, symbol: Symbol::default() }
        }
    }
}

fn name(position: u32, left: u32, coded: bool, equal: bool) -> Step {
    if left > 0 {
        return Step::Name { position, left, coded, equal };
    }
    let len = if coded { NAME_CODED.len() } else { NAME.len() };
    Step::ValueHead { authority: equal && position as usize == len }
}

fn skip(left: u32) -> Step {
    if left == 0 { Step::Representation } else { Step::Skip { left } }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Codes of the symbols that authorities are made of, from RFC 7541, appendix B.
    pub(in crate::grpc) fn code(byte: u8) -> (u32, u8) {
        match byte {
            b'0'..=b'2' => (u32::from(byte - b'0'), 5),
            b'a' => (0x3, 5),
            b'c' => (0x4, 5),
            b'e' => (0x5, 5),
            b'i' => (0x6, 5),
            b'o' => (0x7, 5),
            b's' => (0x8, 5),
            b't' => (0x9, 5),
            b' ' => (0x14, 6),
            b'%' => (0x15, 6),
            b'-' => (0x16, 6),
            b'.' => (0x17, 6),
            b'/' => (0x18, 6),
            b'3'..=b'9' => (0x19 + u32::from(byte - b'3'), 6),
            b'F' => (0x62, 7),
            b'h' => (0x27, 6),
            b'k' => (0x75, 7),
            b'm' => (0x29, 6),
            b'p' => (0x2b, 6),
            b'r' => (0x2c, 6),
            b'u' => (0x2d, 6),
            b':' => (0x5c, 7),
            b'x' => (0x79, 7),
            b'y' => (0x7a, 7),
            b'\\' => (0x7fff0, 19),
            other => panic!("no code for {other}"),
        }
    }

    pub(in crate::grpc) fn coded(text: &str) -> Vec<u8> {
        let mut bits: Vec<u32> = Vec::new();
        for &byte in text.as_bytes() {
            let (value, len) = code(byte);
            bits.extend((0..len).rev().map(|place| value >> place & 1));
        }
        while !bits.len().is_multiple_of(8) {
            bits.push(1);
        }
        bits.chunks(8).map(|byte| byte.iter().fold(0u8, |sum, &bit| sum << 1 | bit as u8)).collect()
    }

    fn rewritten(block: &[u8]) -> Vec<u8> {
        let mut out = block.to_vec();
        Walk::new().rewrite(&mut out);
        out
    }

    fn text(flag: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![flag | bytes.len() as u8];
        out.extend_from_slice(bytes);
        out
    }

    #[test]
    fn the_coded_name_is_right() {
        assert_eq!(coded(":authority"), NAME_CODED);
    }

    #[test]
    fn the_counts_make_a_complete_code() {
        // Kraft's sum over 30 bits, and the first seven-bit code of the standard.
        let sum: u64 = (1..31).map(|len| u64::from(SYMBOLS_OF_LEN[len]) << (30 - len)).sum();
        assert_eq!(sum, 1 << 30);
        assert_eq!(SYMBOLS_OF_LEN.iter().sum::<u32>(), 257);
        assert_eq!(FIRST_OF_LEN[7], 0x5c);
        assert_eq!(FIRST_OF_LEN[19], 0x7fff0);
    }

    #[test]
    fn plain_values_lose_their_percent_signs() {
        for head in [0x41, 0x01, 0x11] {
            let mut block = vec![0x83, 0x86, head];
            block.extend(text(0, b"tmp%2Fx%2Fy"));
            block.extend([0x40]);
            block.extend(text(0, b"other"));
            block.extend(text(0, b"a%b"));
            let want: Vec<u8> =
                [&[0x83, 0x86, head, 11][..], b"tmp.2Fx.2Fy", &[0x40, 5], b"other", &[3], b"a%b"]
                    .concat();
            assert_eq!(rewritten(&block), want);
        }
    }

    #[test]
    fn a_literal_name_is_recognised() {
        for (flag, name) in [(0, NAME.to_vec()), (0x80, NAME_CODED.to_vec())] {
            let mut block = vec![0x40];
            block.extend(text(flag, &name));
            let at = block.len() + 1;
            block.extend(text(0, b"%41"));
            assert_eq!(&rewritten(&block)[at..], b".41");
        }
        for name in [&b":authoritx"[..], b":authorit", b":authority2", b""] {
            let mut block = vec![0x40];
            block.extend(text(0, name));
            block.extend(text(0, b"%41"));
            assert_eq!(rewritten(&block), block);
        }
    }

    #[test]
    fn coded_values_are_changed_at_every_offset_of_bits() {
        for before in ["", "0", "x", "a", "tm", "tmpx", "\\", "ykx", "ee", "eee", "eeee"] {
            let value = format!("{before}%2Fx%2F.9");
            let mut block = vec![0x41];
            block.extend(text(0x80, &coded(&value)));
            let mut want = vec![0x41];
            want.extend(text(0x80, &coded(&value.replace('%', "."))));
            assert_eq!(rewritten(&block), want, "{value}");
        }
    }

    #[test]
    fn endless_integers_are_given_up() {
        let mut block = vec![0x7f];
        block.extend([0xff; 20]);
        let mut walk = Walk::new();
        walk.rewrite(&mut block);
        assert!(walk.is_lost());
    }

    proptest! {
        #[test]
        fn garbage_keeps_its_length_and_chunks_do_not_matter(
            block in prop::collection::vec(any::<u8>(), 0..300),
            cuts in prop::collection::vec(1usize..9, 0..60),
        ) {
            let whole = rewritten(&block);
            prop_assert_eq!(whole.len(), block.len());
            let mut pieces = block.clone();
            let mut walk = Walk::new();
            let mut rest = &mut pieces[..];
            for cut in cuts {
                let (head, tail) = rest.split_at_mut(cut.min(rest.len()));
                walk.rewrite(head);
                rest = tail;
            }
            walk.rewrite(rest);
            prop_assert_eq!(pieces, whole);
        }
    }
}

//! Follows the frames that an HTTP/2 client sends and rewrites their header blocks in place.
//!
//! Python and C++ clients of a Unix socket name its path, percent-encoded, as the `:authority`;
//! HTTP libraries refuse such an authority, so the percent signs are taken out before one sees
//! them. Owns: the boundaries of frames. May not know: sockets, what a request wants.
//! Invariant: no byte is added, dropped or held back; the result does not depend on how the bytes
//! were cut up.

use super::hpack::Walk;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD_BYTES: usize = 9;
const TYPE_HEADERS: u8 = 1;
const TYPE_CONTINUATION: u8 = 9;
const FLAG_END_HEADERS: u8 = 0x4;
const FLAG_PADDED: u8 = 0x8;
const FLAG_PRIORITY: u8 = 0x20;
const PRIORITY_BYTES: usize = 5;

/// The state of one connection between two reads.
#[derive(Clone, Debug)]
pub(super) struct Frames {
    step: Step,
    /// The header block that is not finished yet.
    block: Option<Walk>,
}

#[derive(Clone, Debug)]
enum Step {
    /// So many bytes of the preface were right.
    Preface(usize),
    /// Collecting a frame's head.
    Head { bytes: [u8; HEAD_BYTES], len: usize },
    /// The length of a header frame's padding comes next.
    PadLength { left: usize, flags: u8 },
    /// Bytes that nobody looks at here, then perhaps a part of a block.
    Skip { left: usize, then: Fragment },
    /// Inside a part of a header block.
    Block(Fragment),
    /// Not HTTP/2, or broken: all else goes through untouched.
    Opaque,
}

/// A part of a header block within one frame.
#[derive(Clone, Copy, Debug, Default)]
struct Fragment {
    left: usize,
    padding: usize,
    ends_block: bool,
}

impl Frames {
    /// At the start of a connection.
    pub(super) fn new() -> Frames {
        Frames { step: Step::Preface(0), block: None }
    }

    /// Goes over the next bytes received and changes those that must be.
    pub(super) fn rewrite(&mut self, bytes: &mut [u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let passed = match &mut self.step {
                Step::Opaque => return,
                Step::Preface(right) => {
                    if PREFACE.get(*right) == rest.first() {
                        *right += 1;
                        if *right == PREFACE.len() {
                            self.step = next_head();
                        }
                    } else {
                        self.step = Step::Opaque;
                    }
                    1
                }
                Step::Head { bytes, len } => {
                    bytes[*len] = rest[0];
                    *len += 1;
                    if *len == HEAD_BYTES {
                        let head = *bytes;
                        self.step = self.begin(head);
                    }
                    1
                }
                Step::PadLength { left, flags } => {
                    self.step = fragment(*left - 1, usize::from(rest[0]), *flags);
                    1
                }
                Step::Skip { left, then } => {
                    let passed = rest.len().min(*left);
                    *left -= passed;
                    if *left == 0 {
                        self.step = in_block(*then);
                    }
                    passed
                }
                Step::Block(fragment) => {
                    let passed = rest.len().min(fragment.left);
                    fragment.left -= passed;
                    if let Some(walk) = &mut self.block {
                        walk.rewrite(&mut rest[..passed]);
                    }
                    passed
                }
            };
            self.settle();
            rest = &mut rest[passed..];
        }
    }

    /// What a frame's head announces.
    fn begin(&mut self, head: [u8; HEAD_BYTES]) -> Step {
        let [high, middle, low, kind, flags, ..] = head;
        let left = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        match kind {
            TYPE_HEADERS => {
                self.block = Some(Walk::new());
                match (flags & FLAG_PADDED != 0, left) {
                    (true, 0) => Step::Opaque,
                    (true, _) => Step::PadLength { left, flags },
                    (false, _) => fragment(left, 0, flags),
                }
            }
            TYPE_CONTINUATION if self.block.is_some() => {
                fragment(left, 0, flags & FLAG_END_HEADERS)
            }
            _ => skip(left, Fragment::default()),
        }
    }

    /// Leaves parts that are used up.
    fn settle(&mut self) {
        if self.block.as_ref().is_some_and(Walk::is_lost) {
            self.step = Step::Opaque;
        }
        if let Step::Block(fragment @ Fragment { left: 0, .. }) = self.step {
            if fragment.ends_block {
                self.block = None;
            }
            self.step = skip(fragment.padding, Fragment::default());
        }
    }
}

fn next_head() -> Step {
    Step::Head { bytes: [0; HEAD_BYTES], len: 0 }
}

/// A header frame of which `left` bytes remain after its pad length.
fn fragment(left: usize, padding: usize, flags: u8) -> Step {
    let priority = if flags & FLAG_PRIORITY != 0 { PRIORITY_BYTES } else { 0 };
    match left.checked_sub(priority + padding) {
        None => Step::Opaque,
        Some(left) => {
            let ends_block = flags & FLAG_END_HEADERS != 0;
            skip(priority, Fragment { left, padding, ends_block })
        }
    }
}

fn skip(left: usize, then: Fragment) -> Step {
    if left == 0 { in_block(then) } else { Step::Skip { left, then } }
}

fn in_block(fragment: Fragment) -> Step {
    // An empty fragment that ends a block is settled by the caller.
    if fragment.left == 0 && !fragment.ends_block {
        if fragment.padding == 0 {
            next_head()
        } else {
            Step::Skip { left: fragment.padding, then: Fragment::default() }
        }
    } else {
        Step::Block(fragment)
    }
}

#[cfg(test)]
mod tests {
    use super::super::hpack::tests::coded;
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        out.extend([kind, flags, 0, 0, 0, 1]);
        out.extend_from_slice(payload);
        out
    }

    fn block(value: &[u8], flag: u8) -> Vec<u8> {
        let mut out = vec![0x83, 0x41, flag | value.len() as u8];
        out.extend_from_slice(value);
        out
    }

    /// A connection with every kind of header frame, and what shall come of it.
    fn connection() -> (Vec<u8>, Vec<u8>) {
        let mut pairs = Vec::new();
        for percent in ['%', '.'] {
            let value = format!("tmp{percent}2Fx");
            let plain = block(value.as_bytes(), 0);
            let coded = block(&coded(&value), 0x80);
            let padded = [&[3][..], &plain, &[b'%'; 3]].concat();
            let weighed = [&[b'%'; 5][..], &coded].concat();
            let both = [&[2][..], &[b'%'; 5], &plain, &[0, 0]].concat();
            let mut out = PREFACE.to_vec();
            out.extend(frame(4, 0, &[0, 3, 0, 0, 0, b'%']));
            out.extend(frame(1, FLAG_END_HEADERS, &plain));
            out.extend(frame(0, 0, &[0x41, 3, b'%', b'%', b'%']));
            out.extend(frame(1, FLAG_END_HEADERS | FLAG_PADDED, &padded));
            out.extend(frame(1, FLAG_END_HEADERS | FLAG_PRIORITY, &weighed));
            out.extend(frame(1, FLAG_END_HEADERS | FLAG_PRIORITY | FLAG_PADDED, &both));
            out.extend(frame(1, 1, &plain[..6]));
            out.extend(frame(9, 0, &[]));
            out.extend(frame(9, 0, &plain[6..7]));
            out.extend(frame(9, FLAG_END_HEADERS, &plain[7..]));
            out.extend(frame(1, 1, &coded[..5]));
            out.extend(frame(9, 0, &coded[5..]));
            out.extend(frame(9, FLAG_END_HEADERS, &[]));
            out.extend(frame(0, 1, b"%%%%"));
            out.extend(frame(1, FLAG_END_HEADERS, &plain));
            pairs.push(out);
        }
        let want = pairs.pop().unwrap();
        // What is not an authority keeps its percent signs, so the wanted bytes are the rewritten
        // ones only where the two differ.
        (pairs.pop().unwrap(), want)
    }

    #[test]
    fn authorities_of_all_header_frames_are_rewritten() {
        let (mut bytes, want) = connection();
        assert_ne!(bytes, want);
        Frames::new().rewrite(&mut bytes);
        assert_eq!(bytes, want);
    }

    #[test]
    fn what_is_not_http2_goes_through() {
        let mut bytes = b"GET /%41 HTTP/1.1\r\n\r\n".to_vec();
        let want = bytes.clone();
        Frames::new().rewrite(&mut bytes);
        assert_eq!(bytes, want);
    }

    #[test]
    fn padding_longer_than_its_frame_is_given_up() {
        let mut bytes = PREFACE.to_vec();
        bytes.extend(frame(1, FLAG_END_HEADERS | FLAG_PADDED, &[200, 0x41, 1, b'%']));
        let want = bytes.clone();
        Frames::new().rewrite(&mut bytes);
        assert_eq!(bytes, want);
    }

    fn in_pieces(bytes: &[u8], cuts: &[usize]) -> Vec<u8> {
        let mut out = bytes.to_vec();
        let mut frames = Frames::new();
        let mut rest = &mut out[..];
        for &cut in cuts {
            let (head, tail) = rest.split_at_mut(cut.min(rest.len()));
            frames.rewrite(head);
            rest = tail;
        }
        frames.rewrite(rest);
        out
    }

    #[test]
    fn one_byte_at_a_time_is_the_same() {
        let (bytes, want) = connection();
        assert_eq!(in_pieces(&bytes, &vec![1; bytes.len()]), want);
    }

    proptest! {
        #[test]
        fn chunks_do_not_matter(cuts in prop::collection::vec(1usize..40, 0..60)) {
            let (bytes, want) = connection();
            prop_assert_eq!(in_pieces(&bytes, &cuts), want);
        }

        #[test]
        fn garbage_never_panics(
            start in 0usize..3,
            garbage in prop::collection::vec(any::<u8>(), 0..400),
            cuts in prop::collection::vec(1usize..40, 0..40),
        ) {
            // From nowhere, after the preface, or after a head that makes the garbage a block.
            let mut bytes = if start == 0 { Vec::new() } else { PREFACE.to_vec() };
            if start == 2 {
                bytes.extend([0, 1, 0, 1, 0x2c, 0, 0, 0, 1]);
            }
            bytes.extend(garbage);
            let whole = in_pieces(&bytes, &[]);
            prop_assert_eq!(whole.len(), bytes.len());
            prop_assert_eq!(in_pieces(&bytes, &cuts), whole);
        }
    }
}

//! Puts one request message together out of the pieces that arrive.
//!
//! Owns: the five-byte prefix, the limit of a message, inflating. May not know: what a message
//! says.
//! Invariant: memory grows by what has arrived, never by what a prefix claims, and every byte of it
//! is taken out of the [`Budget`] first; the bytes go back when the last view of the message is
//! dropped.

use std::io::Read;
use std::pin::pin;

use bytes::{Buf, Bytes};
use flate2::read::{GzDecoder, ZlibDecoder};
use http_body::Body;
use http_body_util::BodyExt as _;
use vesta_model::Status;

use crate::budget::{Budget, Permit};

/// Bytes before a message: whether it is compressed, and its length.
pub(super) const PREFIX_BYTES: usize = 5;

/// A buffer that must grow grows at least to this.
const GROWTH_MIN: usize = 64 * 1024;

/// Bytes that are inflated between two looks at the budget.
const INFLATE_STEP: usize = 64 * 1024;

/// How a compressed message was compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// Not at all.
    Identity,
    /// gzip.
    Gzip,
    /// zlib, under the name that HTTP gave it.
    Deflate,
}

impl Encoding {
    /// What a `grpc-encoding` header says; `None` for an unknown one.
    pub(super) fn from_header(value: Option<&[u8]>) -> Option<Encoding> {
        match value {
            None | Some(b"identity") => Some(Encoding::Identity),
            Some(b"gzip") => Some(Encoding::Gzip),
            Some(b"deflate") => Some(Encoding::Deflate),
            Some(_) => None,
        }
    }

    /// The word for it in headers.
    pub(super) fn name(self) -> &'static str {
        match self {
            Encoding::Identity => "identity",
            Encoding::Gzip => "gzip",
            Encoding::Deflate => "deflate",
        }
    }
}

/// A whole message as it was sent.
#[derive(Debug)]
pub(super) struct Received {
    /// Its bytes, still compressed if they were.
    pub(super) bytes: Bytes,
    /// Whether they are.
    pub(super) compressed: bool,
}

/// Bytes with what they hold of the budget.
struct Held<B> {
    bytes: B,
    _permit: Permit,
}

impl<B: AsRef<[u8]>> AsRef<[u8]> for Held<B> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

/// The bytes, which give their permit back when the last view of them is dropped.
fn held<B: AsRef<[u8]> + Send + 'static>(bytes: B, permit: Permit) -> Bytes {
    Bytes::from_owner(Held { bytes, _permit: permit })
}

/// The error for a message that is cut off, followed by more, or unreadable. The original says
/// nothing more either.
pub(super) fn malformed() -> Status {
    Status::internal("")
}

fn too_large(len: u64, bytes_max: usize) -> Status {
    Status::resource_exhausted(format!(
        "SERVER: Received message larger than max ({len} vs. {bytes_max})"
    ))
}

/// Reads the one message of a unary call.
///
/// # Errors
/// `RESOURCE_EXHAUSTED` above `bytes_max` or out of budget; `INTERNAL` for anything but one whole
/// message; `CANCELLED` when the client went away.
pub(super) async fn receive<B>(
    body: B,
    budget: &Budget,
    bytes_max: usize,
) -> Result<Received, Status>
where
    B: Body<Data = Bytes>,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    let mut body = pin!(body);
    let mut assembly = Assembly::new(budget, bytes_max);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Status::cancelled("the request was cut off before its end").with_cause(error)
        })?;
        if let Ok(piece) = frame.into_data() {
            assembly.push(piece)?;
        }
    }
    assembly.finish()
}

/// A message of which a part may have arrived.
struct Assembly {
    permit: Permit,
    bytes_max: usize,
    prefix: [u8; PREFIX_BYTES],
    prefix_len: usize,
    /// The whole message when it came in one piece: then nothing is copied.
    single: Option<Bytes>,
    buffer: Vec<u8>,
}

impl Assembly {
    fn new(budget: &Budget, bytes_max: usize) -> Assembly {
        Assembly {
            permit: budget.permit(),
            bytes_max,
            prefix: [0; PREFIX_BYTES],
            prefix_len: 0,
            single: None,
            buffer: Vec::new(),
        }
    }

    /// The length that the prefix claims.
    fn claimed(&self) -> usize {
        let [_, a, b, c, d] = self.prefix;
        u32::from_be_bytes([a, b, c, d]) as usize
    }

    fn len(&self) -> usize {
        self.single.as_ref().map_or(self.buffer.len(), Bytes::len)
    }

    fn push(&mut self, mut piece: Bytes) -> Result<(), Status> {
        if self.prefix_len < PREFIX_BYTES {
            let taken = piece.len().min(PREFIX_BYTES - self.prefix_len);
            self.prefix[self.prefix_len..self.prefix_len + taken].copy_from_slice(&piece[..taken]);
            piece.advance(taken);
            self.prefix_len += taken;
            if self.prefix_len < PREFIX_BYTES {
                return Ok(());
            }
            if self.claimed() > self.bytes_max {
                return Err(too_large(self.claimed() as u64, self.bytes_max));
            }
        }
        if piece.is_empty() {
            return Ok(());
        }
        let missing = self.claimed() - self.len();
        if piece.len() > missing {
            return Err(malformed());
        }
        if piece.len() == self.claimed() {
            self.permit.grow(piece.len())?;
            self.single = Some(piece);
            return Ok(());
        }
        self.reserve(piece.len())?;
        self.buffer.extend_from_slice(&piece);
        Ok(())
    }

    /// Makes room for `more` bytes: doubles, but never beyond what was claimed, and asks first.
    fn reserve(&mut self, more: usize) -> Result<(), Status> {
        let need = self.buffer.len() + more;
        if need <= self.buffer.capacity() {
            return Ok(());
        }
        let capacity = need.max(self.buffer.capacity() * 2).max(GROWTH_MIN).min(self.claimed());
        self.permit.grow(capacity - self.permit.bytes())?;
        self.buffer.reserve_exact(capacity - self.buffer.len());
        Ok(())
    }

    fn finish(self) -> Result<Received, Status> {
        if self.prefix_len < PREFIX_BYTES || self.len() < self.claimed() || self.prefix[0] > 1 {
            return Err(malformed());
        }
        let compressed = self.prefix[0] == 1;
        let bytes = match self.single {
            Some(single) => held(single, self.permit),
            None if self.buffer.is_empty() => Bytes::new(),
            None => held(self.buffer, self.permit),
        };
        Ok(Received { bytes, compressed })
    }
}

/// Undoes the compression of a message.
///
/// # Errors
/// `RESOURCE_EXHAUSTED` when it grows above `bytes_max` or out of budget; `INTERNAL` when it is
/// not what `encoding` says.
pub(super) fn inflate(
    message: &[u8],
    encoding: Encoding,
    budget: &Budget,
    bytes_max: usize,
) -> Result<Bytes, Status> {
    match encoding {
        Encoding::Identity => Err(malformed()),
        Encoding::Gzip => read_all(GzDecoder::new(message), budget, bytes_max),
        Encoding::Deflate => read_all(ZlibDecoder::new(message), budget, bytes_max),
    }
}

fn read_all(reader: impl Read, budget: &Budget, bytes_max: usize) -> Result<Bytes, Status> {
    let mut permit = budget.permit();
    let mut out: Vec<u8> = Vec::new();
    // One byte past the limit tells a message at the limit from one above it.
    let mut reader = reader.take(bytes_max as u64 + 1);
    loop {
        if out.len() == out.capacity() {
            let capacity = (out.capacity() * 2).max(INFLATE_STEP);
            permit.grow(capacity - permit.bytes())?;
            out.reserve_exact(capacity - out.len());
        }
        let step = (out.capacity() - out.len()).min(INFLATE_STEP);
        let start = out.len();
        out.resize(start + step, 0);
        let read = reader.read(&mut out[start..]).map_err(|error| malformed().with_cause(error))?;
        out.truncate(start + read);
        if out.len() > bytes_max {
            return Err(too_large(out.len() as u64, bytes_max));
        }
        if read == 0 {
            return Ok(held(out, permit));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use std::io::Write;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use flate2::write::{GzEncoder, ZlibEncoder};
    use http_body::Frame;
    use proptest::prelude::*;
    use vesta_model::Code;

    struct Pieces(std::vec::IntoIter<Bytes>);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.next().map(|piece| Ok(Frame::data(piece))))
        }
    }

    fn receive_all(pieces: Vec<Bytes>, budget: &Budget) -> Result<Received, Status> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(receive(Pieces(pieces.into_iter()), budget, i32::MAX as usize))
    }

    fn framed(message: &[u8]) -> Vec<u8> {
        let mut out = vec![0];
        out.extend((message.len() as u32).to_be_bytes());
        out.extend_from_slice(message);
        out
    }

    #[test]
    fn a_message_in_one_piece_is_not_copied() {
        let budget = Budget::new(1000);
        let piece = Bytes::from(framed(b"hello"));
        let received = receive_all(vec![piece.clone()], &budget).unwrap();
        assert_eq!(received.bytes, &b"hello"[..]);
        assert_eq!(received.bytes.as_ptr(), piece[5..].as_ptr());
        assert_eq!(budget.bytes_taken(), 5);
        let view = received.bytes.slice(1..2);
        drop(received);
        assert_eq!(budget.bytes_taken(), 5);
        drop(view);
        assert_eq!(budget.bytes_taken(), 0);
    }

    #[test]
    fn a_prefix_reserves_nothing() {
        let budget = Budget::new(usize::MAX);
        let mut assembly = Assembly::new(&budget, i32::MAX as usize);
        assembly.push(Bytes::from_static(&[0, 0x7f, 0xff, 0xff, 0xff, 1, 2])).unwrap();
        assert!(assembly.buffer.capacity() <= GROWTH_MIN);
        assert!(budget.bytes_taken() <= GROWTH_MIN);
    }

    #[test]
    fn limits_and_budget_are_kept() {
        let budget = Budget::new(10);
        let refused = receive_all(vec![Bytes::from(framed(&[7; 11]))], &budget).unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert_eq!(budget.bytes_taken(), 0);
        let two_gib = Bytes::from_static(&[0, 0x80, 0, 0, 0]);
        let refused = receive_all(vec![two_gib], &budget).unwrap_err();
        assert_eq!(
            refused,
            Status::resource_exhausted(
                "SERVER: Received message larger than max (2147483648 vs. 2147483647)"
            )
        );
    }

    #[test]
    fn anything_but_one_message_is_refused() {
        let budget = Budget::new(1 << 20);
        let cases: [&[u8]; 6] = [
            b"",
            &[0, 0, 0],
            &[0, 0, 0, 0, 2, 1],
            &[0, 0, 0, 0, 1, 1, 1],
            &[0, 0, 0, 0, 0, 0],
            &[2, 0, 0, 0, 1, 1],
        ];
        for case in cases {
            for pieces in [vec![case.to_vec()], case.iter().map(|&byte| vec![byte]).collect()] {
                let pieces = pieces.into_iter().map(Bytes::from).collect();
                assert_eq!(receive_all(pieces, &budget).unwrap_err(), malformed(), "{case:?}");
            }
        }
        assert_eq!(receive_all(vec![Bytes::from_static(&[0; 5])], &budget).unwrap().bytes, "");
    }

    #[test]
    fn inflates_within_limits() {
        let text = vec![b'a'; 300_000];
        let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(&text).unwrap();
        let gzip = gzip.finish().unwrap();
        let mut zlib = ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        zlib.write_all(&text).unwrap();
        let zlib = zlib.finish().unwrap();
        let budget = Budget::new(1 << 20);
        let max = text.len();
        assert_eq!(inflate(&gzip, Encoding::Gzip, &budget, max).unwrap(), text);
        assert_eq!(inflate(&zlib, Encoding::Deflate, &budget, max).unwrap(), text);
        assert_eq!(budget.bytes_taken(), 0);
        for (budget, max) in [(&budget, max - 1), (&Budget::new(200_000), max)] {
            let refused = inflate(&gzip, Encoding::Gzip, budget, max).unwrap_err();
            assert_eq!(refused.code(), Code::ResourceExhausted);
            assert_eq!(budget.bytes_taken(), 0);
        }
        for wrong in [&zlib[..], &gzip[..gzip.len() / 2], b"", b"text"] {
            let refused = inflate(wrong, Encoding::Gzip, &budget, max).unwrap_err();
            assert_eq!(refused, malformed());
        }
        assert_eq!(inflate(&zlib, Encoding::Identity, &budget, max).unwrap_err(), malformed());
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            message in prop::collection::vec(any::<u8>(), 0..400),
            cuts in prop::collection::vec(1usize..50, 0..40),
        ) {
            let budget = Budget::new(1 << 20);
            let mut rest = Bytes::from(framed(&message));
            let mut pieces = Vec::new();
            for cut in cuts {
                pieces.push(rest.split_to(cut.min(rest.len())));
            }
            pieces.push(rest);
            let received = receive_all(pieces, &budget).unwrap();
            prop_assert_eq!(&received.bytes[..], &message[..]);
            drop(received);
            prop_assert_eq!(budget.bytes_taken(), 0);
        }
    }
}

//! Answers on the wire: a message with trailers, or trailers alone.
//!
//! Owns: `grpc-status`, `grpc-message`, the prefix before an answer's message. May not know: what a
//! message says.
//! Invariant: a call that failed is answered by headers alone; one that went well by exactly one
//! message.

use std::convert::Infallible;
use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::{Body, Frame};
use prost::Message;
use tonic::body::Body as TonicBody;
use vesta_model::Status;

use super::message::{Encoding, PREFIX_BYTES};
use crate::budget::Permit;

pub(super) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
pub(super) const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
pub(super) const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// A longer message is cut here.
const MESSAGE_BYTES_MAX: usize = 1024;
/// What then follows.
const TRUNCATED: &str = "...TRUNCATED";

/// An encoded answer, with room for its prefix in front.
#[derive(Debug)]
pub(crate) struct Reply {
    bytes: BytesMut,
    permit: Option<Permit>,
}

impl Reply {
    /// An empty message, for which `len` bytes are set aside.
    pub(crate) fn with_capacity(len: usize) -> Reply {
        let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + len);
        bytes.put_bytes(0, PREFIX_BYTES);
        Reply { bytes, permit: None }
    }

    /// `message`, encoded.
    pub(crate) fn of(message: &impl Message) -> Reply {
        let mut reply = Reply::with_capacity(message.encoded_len());
        // A buffer that grows always has room.
        let _ = message.encode(&mut reply.bytes);
        reply
    }

    /// Where the message is to be written.
    pub(crate) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.bytes
    }

    /// Keeps `permit` until the answer was sent.
    pub(crate) fn hold(&mut self, permit: Permit) {
        self.permit = Some(permit);
    }

    /// The message.
    pub(crate) fn message(&self) -> &[u8] {
        &self.bytes[PREFIX_BYTES..]
    }

    /// Length of the message.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - PREFIX_BYTES
    }

    /// The message, compressed.
    pub(super) fn compressed(self, encoding: Encoding) -> Reply {
        let message = &self.bytes[PREFIX_BYTES..];
        let mut out = Vec::with_capacity(PREFIX_BYTES + message.len() / 2);
        out.extend_from_slice(&[1, 0, 0, 0, 0]);
        // Writing to memory does not fail.
        let written = match encoding {
            Encoding::Identity => return self,
            Encoding::Gzip => {
                let mut encoder = GzEncoder::new(out, Compression::fast());
                encoder.write_all(message).and_then(|()| encoder.finish())
            }
            Encoding::Deflate => {
                let mut encoder = ZlibEncoder::new(out, Compression::fast());
                encoder.write_all(message).and_then(|()| encoder.finish())
            }
        };
        match written {
            Ok(out) => Reply { bytes: Bytes::from(out).into(), permit: self.permit },
            Err(_) => self,
        }
    }

    /// The prefix and the message.
    pub(crate) fn framed(mut self) -> (Bytes, Option<Permit>) {
        // A message above 4 GiB has no prefix; the length of what an engine gives is bounded far
        // below by the budget and by protobuf itself.
        let len = u32::try_from(self.len()).unwrap_or(u32::MAX);
        self.bytes[1..PREFIX_BYTES].copy_from_slice(&len.to_be_bytes());
        (self.bytes.freeze(), self.permit)
    }
}

/// One message, then the trailers.
struct Unary {
    message: Option<Bytes>,
    trailers: Option<HeaderMap>,
    _permit: Option<Permit>,
}

impl Body for Unary {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = match self.message.take() {
            Some(message) => Some(Frame::data(message)),
            None => self.trailers.take().map(Frame::trailers),
        };
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.message.is_none() && self.trailers.is_none()
    }
}

/// Headers of every answer to a gRPC call, with this body.
pub(super) fn respond(body: TonicBody) -> Response<TonicBody> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response
}

/// The answer to a call that went well.
pub(super) fn success(reply: Reply, encoding: Encoding) -> Response<TonicBody> {
    let (message, permit) = reply.framed();
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
    let body = Unary { message: Some(message), trailers: Some(trailers), _permit: permit };
    let mut response = respond(TonicBody::new(body));
    if encoding != Encoding::Identity {
        let name = HeaderValue::from_static(encoding.name());
        response.headers_mut().insert(GRPC_ENCODING, name);
    }
    response
}

/// The answer to a call that failed.
pub(super) fn failure(status: &Status) -> Response<TonicBody> {
    let mut response = respond(TonicBody::empty());
    response.headers_mut().extend(trailers(status));
    response
}

/// The end of a call that failed.
pub(super) fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    trailers.insert(GRPC_STATUS, HeaderValue::from(status.code().number()));
    if let Some(message) = message_header(status.message()) {
        trailers.insert(GRPC_MESSAGE, message);
    }
    trailers
}

/// The answer to something that is no gRPC call at all.
pub(super) fn refused(code: StatusCode) -> Response<TonicBody> {
    let mut response = Response::new(TonicBody::empty());
    *response.status_mut() = code;
    response
}

/// A status message as a header: cut to size and percent-encoded. An empty one has none.
fn message_header(message: &str) -> Option<HeaderValue> {
    if message.is_empty() {
        return None;
    }
    let cut = message.floor_char_boundary(MESSAGE_BYTES_MAX.min(message.len()));
    let (kept, mark) =
        if cut < message.len() { (&message[..cut], TRUNCATED) } else { (message, "") };
    let mut out = BytesMut::with_capacity(kept.len() + mark.len() + 16);
    for &byte in kept.as_bytes().iter().chain(mark.as_bytes()) {
        match byte {
            b' '..=b'~' if byte != b'%' => out.put_u8(byte),
            _ => {
                let digit = |half: u8| b"0123456789ABCDEF"[usize::from(half & 0xf)];
                out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte)]);
            }
        }
    }
    HeaderValue::from_maybe_shared(out.freeze()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_encoded_and_cut() {
        let header =
            |text: &str| message_header(text).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(header(""), None);
        assert_eq!(header("a b~!").as_deref(), Some("a b~!"));
        assert_eq!(header("50%\n\té").as_deref(), Some("50%25%0A%09%C3%A9"));
        assert_eq!(header(&"x".repeat(1024)), Some("x".repeat(1024)));
        assert_eq!(header(&"x".repeat(1025)), Some("x".repeat(1024) + "...TRUNCATED"));
        let cut_inside = format!("{}é", "x".repeat(1023));
        assert_eq!(header(&cut_inside), Some("x".repeat(1023) + "...TRUNCATED"));
    }

    #[test]
    fn failures_are_headers_alone() {
        let response = failure(&Status::not_found("no é"));
        assert_eq!(response.headers()["grpc-status"], "5");
        assert_eq!(response.headers()["grpc-message"], "no %C3%A9");
        assert_eq!(response.headers()["content-type"], "application/grpc");
        assert!(response.body().is_end_stream());
        assert!(!failure(&Status::internal("")).headers().contains_key("grpc-message"));
    }

    #[test]
    fn a_reply_is_prefixed() {
        let mut reply = Reply::with_capacity(3);
        reply.buffer().extend_from_slice(b"abc");
        assert_eq!(reply.framed().0, &b"\0\0\0\0\x03abc"[..]);
        let mut reply = Reply::with_capacity(3);
        reply.buffer().extend_from_slice(&[7; 1000]);
        let (bytes, _) = reply.compressed(Encoding::Gzip).framed();
        assert!(bytes.len() < 100);
        assert_eq!(bytes[0], 1);
        assert_eq!(usize::from(bytes[4]), bytes.len() - PREFIX_BYTES);
    }
}

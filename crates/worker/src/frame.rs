//! Frames on a Unix stream socket: a fixed header, a body, at most one descriptor.
//!
//! Owns lengths, limits and descriptor passing. Knows nothing of what a body says.
//! Invariant: nothing received is believed: lengths are bounded before memory is taken, a
//! descriptor that no frame announced is an error, and a reader keeps its place when time runs out
//! in the middle of a frame.
//!
//! Header, little-endian: `u16` mark 0x7356, `u16` descriptors with the frame (0 or 1), `u32` bytes
//! of the body.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

const MARK: u16 = 0x7356;
const HEADER_BYTES: usize = 8;
/// More descriptors than frames can have announced by then are garbage.
const DESCRIPTORS_WAITING_MAX: usize = 8;
const READ_BYTES: usize = 64 * 1024;

/// The longest body, in bytes. Tensors do not travel in frames, so only descriptions are large.
pub(crate) const BODY_BYTES_MAX: usize = 64 << 20;

/// One received frame.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) body: Vec<u8>,
    pub(crate) fd: Option<OwnedFd>,
}

/// What came of waiting for a frame.
#[derive(Debug)]
pub(crate) enum Received {
    Frame(Frame),
    /// The time given is over; nothing is lost.
    TimedOut,
    /// The other side has gone, between two frames.
    Closed,
}

/// The sending half.
pub(crate) struct FrameWriter {
    socket: Arc<OwnedFd>,
}

impl FrameWriter {
    pub(crate) fn new(socket: Arc<OwnedFd>) -> FrameWriter {
        FrameWriter { socket }
    }

    /// Sends one frame whole, waiting for room until `until` (for ever when `None`).
    ///
    /// After an error part of the frame may be out: the connection is then useless.
    pub(crate) fn send(
        &mut self,
        body: &[u8],
        fd: Option<BorrowedFd<'_>>,
        until: Option<Instant>,
    ) -> io::Result<()> {
        if body.len() > BODY_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a frame of {} bytes is over the limit of {BODY_BYTES_MAX}", body.len()),
            ));
        }
        let mut header = [0u8; HEADER_BYTES];
        header[..2].copy_from_slice(&MARK.to_le_bytes());
        header[2..4].copy_from_slice(&u16::from(fd.is_some()).to_le_bytes());
        header[4..].copy_from_slice(&(body.len() as u32).to_le_bytes());
        let total = HEADER_BYTES + body.len();
        let mut sent = 0;
        let mut fd = fd;
        while sent < total {
            match self.send_some(&header, body, sent, fd) {
                // The descriptor goes with the first byte.
                Ok(n) => {
                    sent += n;
                    fd = None;
                }
                Err(Errno::AGAIN) => {
                    if !wait(self.socket.as_fd(), PollFlags::OUT, until)? {
                        return Err(io::Error::new(
                            io::ErrorKind::TimedOut,
                            "the other side does not take the frames sent to it",
                        ));
                    }
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn send_some(
        &self,
        header: &[u8],
        body: &[u8],
        sent: usize,
        fd: Option<BorrowedFd<'_>>,
    ) -> Result<usize, Errno> {
        let header = header.get(sent..).unwrap_or_default();
        let body = body.get(sent.saturating_sub(HEADER_BYTES)..).unwrap_or_default();
        let parts = [IoSlice::new(header), IoSlice::new(body)];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&fds));
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        rustix::net::sendmsg(&*self.socket, &parts, &mut control, flags)
    }
}

/// The receiving half.
pub(crate) struct FrameReader {
    socket: Arc<OwnedFd>,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that were received; the rest is room.
    filled: usize,
    fds: VecDeque<OwnedFd>,
    closed: bool,
}

impl FrameReader {
    pub(crate) fn new(socket: Arc<OwnedFd>) -> FrameReader {
        FrameReader {
            socket,
            buffer: vec![0; READ_BYTES],
            filled: 0,
            fds: VecDeque::new(),
            closed: false,
        }
    }

    /// The next frame, waiting until `until` (for ever when `None`).
    ///
    /// # Errors
    /// `InvalidData` for bytes that are no frame, `UnexpectedEof` when the other side went away in
    /// the middle of one. The connection is then useless.
    pub(crate) fn receive(&mut self, until: Option<Instant>) -> io::Result<Received> {
        loop {
            if let Some(frame) = self.take_frame()? {
                return Ok(Received::Frame(frame));
            }
            if self.closed {
                return if self.filled == 0 {
                    Ok(Received::Closed)
                } else {
                    Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the other side went away in the middle of a frame",
                    ))
                };
            }
            match self.receive_some() {
                Ok(()) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    if !wait(self.socket.as_fd(), PollFlags::IN, until)? {
                        return Ok(Received::TimedOut);
                    }
                }
                Err(Errno::CONNRESET) => self.closed = true,
                Err(Errno::BADMSG) => return Err(garbage("descriptors that no frame announced")),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// A frame out of the bytes at hand, or `None` when more are needed, for which there is then
    /// room in the buffer.
    fn take_frame(&mut self) -> io::Result<Option<Frame>> {
        let Some(header) = self.buffer[..self.filled].first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let [m0, m1, n0, n1, l0, l1, l2, l3] = *header;
        let fds = u16::from_le_bytes([n0, n1]);
        let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if u16::from_le_bytes([m0, m1]) != MARK || fds > 1 {
            return Err(garbage("bytes that are no frame"));
        }
        if len > BODY_BYTES_MAX {
            return Err(garbage("a frame that is too long"));
        }
        let total = HEADER_BYTES + len;
        if self.filled < total {
            // Room grows with the bytes that arrive, not with what a header claims.
            if self.filled == self.buffer.len() {
                self.buffer.resize(total.min(self.filled * 2), 0);
            }
            return Ok(None);
        }
        let fd = if fds == 1 {
            Some(self.fds.pop_front().ok_or_else(|| garbage("a frame without its descriptor"))?)
        } else {
            None
        };
        let body = self.buffer[HEADER_BYTES..total].to_vec();
        self.buffer.copy_within(total..self.filled, 0);
        self.filled -= total;
        if self.filled == 0 && self.buffer.len() > READ_BYTES {
            self.buffer = vec![0; READ_BYTES];
        }
        Ok(Some(Frame { body, fd }))
    }

    fn receive_some(&mut self) -> Result<(), Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let message = {
            let mut parts = [IoSliceMut::new(&mut self.buffer[self.filled..])];
            let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
            rustix::net::recvmsg(&*self.socket, &mut parts, &mut control, flags)?
        };
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = part {
                self.fds.extend(fds);
            }
        }
        let lost = message.flags.contains(ReturnFlags::CTRUNC);
        if lost || self.fds.len() > DESCRIPTORS_WAITING_MAX {
            return Err(Errno::BADMSG);
        }
        self.filled += message.bytes;
        self.closed = message.bytes == 0;
        Ok(())
    }
}

fn garbage(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the other side sent {what}"))
}

/// Whether `fd` became ready (or broke) before `until`.
fn wait(fd: BorrowedFd<'_>, flags: PollFlags, until: Option<Instant>) -> io::Result<bool> {
    let mut fds = [PollFd::from_borrowed_fd(fd, flags)];
    poll(&mut fds, until)?;
    Ok(!fds[0].revents().is_empty())
}

/// Waits for any of `fds` until `until`; who is ready is told by `revents`.
pub(crate) fn poll(fds: &mut [PollFd<'_>], until: Option<Instant>) -> io::Result<()> {
    loop {
        let timeout = until.map(|until| {
            let left = until.saturating_duration_since(Instant::now());
            Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        match rustix::event::poll(fds, timeout.as_ref()) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Both ends of a new connection.
pub(crate) fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::STREAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn pair() -> (FrameWriter, FrameReader, Arc<OwnedFd>) {
        let (a, b) = socket_pair().unwrap();
        let a = Arc::new(a);
        (FrameWriter::new(Arc::clone(&a)), FrameReader::new(Arc::new(b)), a)
    }

    fn frame(reader: &mut FrameReader) -> Frame {
        match reader.receive(Some(Instant::now() + Duration::from_secs(10))).unwrap() {
            Received::Frame(frame) => frame,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn frames_and_descriptors_stay_together() {
        let (mut writer, mut reader, _raw) = pair();
        let memory = vesta_ffi::SharedMemory::create(4096).unwrap();
        writer.send(b"one", None, None).unwrap();
        writer.send(b"two", Some(memory.fd()), None).unwrap();
        writer.send(b"", Some(memory.fd()), None).unwrap();
        writer.send(b"four", None, None).unwrap();
        let got: Vec<(Vec<u8>, bool)> =
            (0..4).map(|_| frame(&mut reader)).map(|f| (f.body, f.fd.is_some())).collect();
        let want: Vec<(Vec<u8>, bool)> = vec![
            (b"one".to_vec(), false),
            (b"two".to_vec(), true),
            (b"".to_vec(), true),
            (b"four".to_vec(), false),
        ];
        assert_eq!(got, want);
        let soon = Some(Instant::now() + Duration::from_millis(5));
        assert!(matches!(reader.receive(soon).unwrap(), Received::TimedOut));
    }

    #[test]
    fn a_large_frame_passes_and_a_larger_one_is_refused() {
        let (mut writer, mut reader, _raw) = pair();
        let body: Vec<u8> = (0..3_000_000u32).map(|i| i as u8).collect();
        std::thread::scope(|scope| {
            let body = &body;
            scope.spawn(move || writer.send(body, None, None).unwrap());
            assert_eq!(&frame(&mut reader).body, body);
        });
        let (mut writer, _reader, _raw) = pair();
        assert!(writer.send(&vec![0; BODY_BYTES_MAX + 1], None, None).is_err());
    }

    #[test]
    fn a_reader_that_does_not_read_times_the_writer_out() {
        let (mut writer, _reader, _raw) = pair();
        let until = Some(Instant::now() + Duration::from_millis(20));
        let error = writer.send(&vec![0; 8 << 20], None, until).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn an_end_is_told_apart_from_an_end_in_the_middle() {
        let (writer, mut reader, raw) = pair();
        drop((writer, raw));
        assert!(matches!(reader.receive(None).unwrap(), Received::Closed));

        let (writer, mut reader, raw) = pair();
        rustix::io::write(&*raw, &MARK.to_le_bytes()).unwrap();
        drop((writer, raw));
        let error = reader.receive(None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn announced_descriptors_must_come_and_others_must_not_pile_up() {
        let (_writer, mut reader, raw) = pair();
        rustix::io::write(&*raw, &[0x56, 0x73, 1, 0, 0, 0, 0, 0]).unwrap();
        assert!(reader.receive(None).is_err());
    }

    proptest! {
        #[test]
        fn garbage_is_an_error_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), marked: bool) {
            let (writer, mut reader, raw) = pair();
            if marked {
                rustix::io::write(&*raw, &MARK.to_le_bytes()).unwrap();
                rustix::io::write(&*raw, &[0, 0]).unwrap();
            }
            rustix::io::write(&*raw, &bytes).unwrap();
            drop((writer, raw));
            for _ in 0..200 {
                match reader.receive(None) {
                    Ok(Received::Frame(_)) => {}
                    Ok(Received::Closed) | Err(_) => return Ok(()),
                    Ok(Received::TimedOut) => prop_assert!(false, "no time was given"),
                }
            }
            prop_assert!(false, "more frames than bytes");
        }
    }
}

//! Connections as they come in.
//!
//! Owns: accepting, and the reading side of Unix sockets. May not know: what is said on a
//! connection, but for its authority.
//! Invariant: an error of one accept never ends the listening, nor makes it spin.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{self, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tonic::transport::server::Connected;
use vesta_model::Status;

use super::frames::Frames;

/// How long to wait after an accept that failed: mostly, no file descriptor is left.
const PAUSE: Duration = Duration::from_millis(100);

/// The connections of a TCP socket.
///
/// # Errors
/// `INTERNAL` when the socket cannot be used.
pub(super) fn tcp(
    listener: std::net::TcpListener,
) -> Result<impl Stream<Item = io::Result<TcpStream>>, Status> {
    listener.set_nonblocking(true).map_err(unusable)?;
    let listener = TcpListener::from_std(listener).map_err(unusable)?;
    Ok(stream::unfold(listener, |listener| async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    // Without it the answer may wait for the client's acknowledgement.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "a gRPC connection keeps its send delay");
                    }
                    return Some((Ok(stream), listener));
                }
                Err(error) => pause(&error).await,
            }
        }
    }))
}

/// The connections of a Unix socket, as they come.
///
/// # Errors
/// `INTERNAL` when the socket cannot be used.
pub(super) fn unix(
    listener: std::os::unix::net::UnixListener,
) -> Result<impl Stream<Item = io::Result<UnixStream>>, Status> {
    listener.set_nonblocking(true).map_err(unusable)?;
    let listener = UnixListener::from_std(listener).map_err(unusable)?;
    Ok(stream::unfold(listener, |listener| async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return Some((Ok(stream), listener)),
                Err(error) => pause(&error).await,
            }
        }
    }))
}

fn unusable(error: io::Error) -> Status {
    Status::internal(format!("a gRPC socket cannot be listened on: {error}")).with_cause(error)
}

async fn pause(error: &io::Error) {
    tracing::warn!(%error, "a gRPC connection could not be accepted");
    tokio::time::sleep(PAUSE).await;
}

/// A connection of a Unix socket, private or not, whose client may give the socket's path for its
/// authority.
#[derive(Debug)]
pub(super) struct LocalStream<S> {
    stream: S,
    frames: Frames,
}

impl<S> LocalStream<S> {
    /// Over a connection on which nothing was read yet.
    pub(super) fn new(stream: S) -> LocalStream<S> {
        LocalStream { stream, frames: Frames::new() }
    }
}

impl<S> Connected for LocalStream<S> {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl<S: AsyncRead + Unpin> AsyncRead for LocalStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        if let Poll::Ready(Ok(())) = polled {
            this.frames.rewrite(&mut buf.filled_mut()[before..]);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for LocalStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

//! Sockets that the server listens on.
//!
//! Owns the original's rules: every interface on IPv4 and IPv6, gRPC shares its port by
//! `SO_REUSEPORT`, a socket file is replaced and a plain file is not.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// Whether other processes may listen on the same port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// They may, when they ask for it, too.
    Shared,
    /// They may not.
    Exclusive,
}

/// Listens on `address`; where the machine has no IPv6, on the same port of IPv4.
pub(crate) fn tcp(address: SocketAddr, sharing: Sharing) -> io::Result<TcpListener> {
    bind(address, sharing).or_else(|error| match error.kind() {
        io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied => Err(error),
        _ => bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port()), sharing),
    })
}

fn bind(address: SocketAddr, sharing: Sharing) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    if sharing == Sharing::Shared {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Listens on a Unix socket at `path`, in the place of an older socket.
pub(crate) fn unix(path: &Path) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path)?,
        Ok(_) => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("{} exists and is no socket", path.display()),
            ));
        }
        Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;

    fn any_port() -> SocketAddr {
        SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0)
    }

    #[test]
    fn a_shared_port_is_shared_and_an_exclusive_one_is_not() {
        let first = tcp(any_port(), Sharing::Shared).unwrap();
        let address = SocketAddr::new(any_port().ip(), first.local_addr().unwrap().port());
        assert!(tcp(address, Sharing::Shared).is_ok());
        assert!(tcp(address, Sharing::Exclusive).is_err());
        let first = tcp(any_port(), Sharing::Exclusive).unwrap();
        let address = SocketAddr::new(any_port().ip(), first.local_addr().unwrap().port());
        assert_eq!(tcp(address, Sharing::Shared).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_socket_file_is_replaced_and_a_plain_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let _live = unix(&path).unwrap();
        assert!(unix(&path).is_ok());
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "x").unwrap();
        assert!(unix(&path).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"x");
    }
}

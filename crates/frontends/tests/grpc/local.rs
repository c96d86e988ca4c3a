//! A Unix socket, for clients that give its path, percent-encoded, as the authority.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use vesta_frontends::GrpcOptions;

use crate::client::{PREDICT, Server, framed, predict};

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend([kind, flags, 0, 0, 0, stream]);
    out.extend_from_slice(payload);
    out
}

fn literal(index: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![0x40 | index, value.len() as u8];
    out.extend_from_slice(value);
    out
}

/// A Predict as HTTP/2 bytes, its headers as gRPC's C core sends them: names and values plain.
fn request(authority: &[u8]) -> Vec<u8> {
    let mut block = vec![0x83, 0x86];
    block.extend(literal(4, PREDICT.as_bytes()));
    block.extend(literal(0, b":authority"));
    block.push(authority.len() as u8);
    block.extend_from_slice(authority);
    block.extend(literal(31, b"application/grpc"));
    block.extend(literal(0, b"te"));
    block.push(8);
    block.extend_from_slice(b"trailers");
    let message = framed(&predict("half_plus_two", &[1.0]));
    let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    out.extend(frame(4, 0, 0, &[]));
    out.extend(frame(1, 4, 1, &block));
    out.extend(frame(0, 1, 1, &message));
    // A second call, its headers out of the table that the first one filled.
    out.extend(frame(1, 4, 3, &[0x83, 0x86, 0xc1, 0xc0, 0xbf, 0xbe]));
    out.extend(frame(0, 1, 3, &message));
    out
}

/// Frames that come back until both calls have ended or `until` is over.
fn frames(stream: &mut (impl Read + Write), bytes: &[u8], piece: usize) -> Vec<(u8, u8, Vec<u8>)> {
    for part in bytes.chunks(piece) {
        stream.write_all(part).unwrap();
    }
    let mut out = Vec::new();
    let mut ended = 0;
    while ended < 2 {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).is_err() {
            break;
        }
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; len];
        stream.read_exact(&mut payload).unwrap();
        let (kind, flags) = (head[3], head[4]);
        ended += usize::from(kind == 1 && flags & 1 != 0);
        out.push((kind, flags, payload));
        if kind == 7 {
            break;
        }
    }
    out
}

fn answers(frames: &[(u8, u8, Vec<u8>)]) -> usize {
    // 2.5 as a float, in a list of one.
    let y = [0x2a, 4, 0, 0, 0x20, 0x40];
    let holds = |payload: &[u8]| payload.windows(y.len()).any(|window| window == y);
    frames.iter().filter(|(kind, _, payload)| *kind == 0 && holds(payload)).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_encoded_path_is_taken_for_an_authority() {
    let server = Server::usual(GrpcOptions::default()).await;
    for authority in [&b"tmp%2Fx.sock"[..], b"%2Ftmp%2Fx", b"localhost"] {
        for piece in [1, 7, 10_000] {
            let mut stream = UnixStream::connect(&server.socket).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let frames = frames(&mut stream, &request(authority), piece);
            assert_eq!(answers(&frames), 2, "{authority:?} {frames:?}");
        }
    }
    server.settle().await;
}

/// If this fails, the rewriting has become needless.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tcp_such_an_authority_still_is_refused() {
    let server = Server::usual(GrpcOptions::default()).await;
    for (authority, want) in [(&b"tmp%2Fx"[..], 0), (b"localhost", 2)] {
        let mut stream = std::net::TcpStream::connect(server.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        assert_eq!(answers(&frames(&mut stream, &request(authority), 10_000)), want);
    }
}

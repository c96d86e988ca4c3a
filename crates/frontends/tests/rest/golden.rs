//! The answers that were recorded from a real TensorFlow Serving, byte for byte, over a socket.
//!
//! Left out: what only TensorFlow's own kernels say, the metrics page, the dtypes that the
//! original's JSON lacks and ours has, and a version beyond 64 bits, which ours answers by a text. Where the order of an object's members is not fixed, lines
//! are compared in any order.

use std::io::Write as _;
use std::path::PathBuf;

use serde_json::Value;

use crate::rig::{Server, read_response};

fn shared() -> Option<PathBuf> {
    let default = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let folder = std::env::var_os("VESTA_SHARED").map_or(default, PathBuf::from);
    if folder.join("golden/tfs-rest.jsonl").exists() {
        return Some(folder);
    }
    assert!(std::env::var_os("CI").is_none(), "no recorded answers at {}", folder.display());
    eprintln!("skipped: no recorded answers at {}; set VESTA_SHARED", folder.display());
    None
}

/// Texts that come out of TensorFlow's graph, and dtypes that ours can write.
fn is_beyond(body: &str) -> bool {
    body.contains("{{node ParseExample")
        || body.contains("Failed to write JSON value for tensor type: half")
        || body.contains(" to type: half")
        || body.contains(" to type: bfloat16")
}

/// The body of a request; bytes were written down as Latin-1.
fn body_bytes(line: &Value) -> Vec<u8> {
    let Some(text) = line["req_body"].as_str() else { return Vec::new() };
    let raw = ["raw", "bad utf8", "gzip request"].contains(&line["note"].as_str().unwrap_or(""));
    if raw {
        text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect()
    } else {
        text.as_bytes().to_vec()
    }
}

fn sorted_lines(body: &[u8]) -> Vec<&[u8]> {
    let mut lines: Vec<&[u8]> = body
        .split(|&byte| byte == b'\n')
        .map(|line| line.strip_suffix(b",").unwrap_or(line))
        .collect();
    lines.sort_unstable();
    lines
}

fn agrees(line: &Value, server: &Server) -> Result<(), String> {
    let method = line["method"].as_str().unwrap();
    let path = line["path"].as_str().unwrap();
    let body = body_bytes(line);
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n");
    for (name, value) in line["req_headers"].as_object().unwrap() {
        head += &format!("{name}: {}\r\n", value.as_str().unwrap());
    }
    if line["req_body"].is_string() {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    let mut stream = server.connect();
    stream.write_all(&[head.as_bytes(), b"\r\n", &body].concat()).unwrap();
    let mut got = read_response(&mut stream, method != "HEAD");
    if got.status == 100 {
        got = read_response(&mut stream, true);
    }
    if u64::from(got.status) != line["status"].as_u64().unwrap() {
        return Err(format!("{}: {}", got.status, String::from_utf8_lossy(&got.body)));
    }
    for pair in line["headers"].as_array().unwrap() {
        let (name, want) = (pair[0].as_str().unwrap(), pair[1].as_str());
        let have = got.header(&name.to_ascii_lowercase()).or_else(|| got.header(name));
        if have != want {
            return Err(format!("{name} is {have:?}, not {want:?}"));
        }
    }
    let want = match line["body_b64"].as_str() {
        Some(text) => {
            use base64::Engine as _;
            base64::engine::general_purpose::STANDARD.decode(text).unwrap()
        }
        None => line["body"].as_str().unwrap().as_bytes().to_vec(),
    };
    if got.body != want && sorted_lines(&got.body) != sorted_lines(&want) {
        return Err(String::from_utf8_lossy(&got.body).into_owned());
    }
    Ok(())
}

#[test]
fn recorded_answers_are_given() {
    let Some(shared) = shared() else { return };
    let server = Server::usual();
    let text = std::fs::read_to_string(shared.join("golden/tfs-rest.jsonl")).unwrap();
    let (mut agreed, mut left_out, mut wrong) = (0, 0, Vec::new());
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let path = line["path"].as_str().unwrap();
        if path == "/monitoring/prometheus/metrics"
            || is_beyond(line["body"].as_str().unwrap_or(""))
            || path.contains("/versions/99999999999999999999")
        {
            left_out += 1;
            continue;
        }
        match agrees(&line, &server) {
            Ok(()) => agreed += 1,
            Err(why) => wrong.push(format!(
                "#{} {} {path} {}\n  got {why}\n  want {}",
                line["id"], line["method"], line["req_body"], line["body"]
            )),
        }
    }
    assert!(wrong.is_empty(), "{agreed} agree, {} do not:\n{}", wrong.len(), wrong.join("\n"));
    assert!(agreed > 200 && left_out < 25, "{agreed} agree, {left_out} are left out");
    assert!(server.gives_all_back());
}

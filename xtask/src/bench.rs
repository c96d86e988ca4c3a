//! Measurements that a person asks for. They print figures and judge nothing.
//!
//! Compared settings take turns in one run on one machine, since machines are noisy; what to quote
//! are the ratios.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::run::{say, show};

/// Requests of one turn.
const REQUESTS: usize = 400;
/// Turns of each setting.
const TURNS: usize = 5;

/// Runs the benchmark called `name`.
///
/// # Errors
/// When there is none of that name or it fails.
pub(crate) fn run(root: &Path, name: &str) -> Result<()> {
    match name {
        "demo" => demo(root),
        _ => bail!("no benchmark is called {name}; choose demo"),
    }
}

/// The demo over REST, inline and in a worker: start, latency, memory.
fn demo(root: &Path) -> Result<()> {
    show(root, Command::new("cargo").args(["build", "--release", "--locked", "-p", "vesta"]))?;
    let body = std::fs::read(root.join("demo/cat.json")).context("demo/cat.json")?;
    let mut servers = Vec::new();
    for isolation in ["inline", "worker"] {
        servers.push((isolation, Served::start(root, isolation)?, Vec::new()));
    }
    for turn in 1..=TURNS {
        say(&format!("turn {turn} of {TURNS}"));
        for (_, server, times) in &mut servers {
            times.extend(server.measure(&body)?);
        }
    }
    say("\nsetting   start ms   median µs   p99 µs   memory MB (private)");
    let mut medians = Vec::new();
    for (isolation, server, times) in &mut servers {
        times.sort_unstable();
        let at = |share: usize| times[(times.len() - 1) * share / 100].as_micros();
        medians.push(at(50));
        say(&format!(
            "{isolation:8} {:9} {:11} {:8} {:10.1}",
            server.start.as_millis(),
            at(50),
            at(99),
            server.private_mb()?,
        ));
    }
    if let [inline, worker] = medians[..] {
        say(&format!("\nmedian, worker to inline: {:.2}", worker as f64 / inline.max(1) as f64));
    }
    Ok(())
}

/// A running demo server.
struct Served {
    child: Child,
    port: u16,
    start: Duration,
}

impl Served {
    fn start(root: &Path, isolation: &str) -> Result<Served> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let started = Instant::now();
        let mut child = Command::new(root.join("target/release/vesta"))
            .args(["demo", "--port=0", "--grpc_socket_path=target/bench.sock"])
            .args([format!("--rest_api_port={port}"), format!("--isolation={isolation}")])
            .current_dir(root)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let out = child.stdout.take().context("the demo prints")?;
        let greeted = BufReader::new(out)
            .lines()
            .map_while(Result::ok)
            .any(|line| line.contains("AVAILABLE"));
        let server = Served { child, port, start: started.elapsed() };
        if !greeted {
            bail!("the demo did not start with --isolation={isolation}");
        }
        Ok(server)
    }

    /// Sends requests one after the other over one connection.
    fn measure(&self, body: &[u8]) -> Result<Vec<Duration>> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_nodelay(true)?;
        let mut request = format!(
            "POST /v1/models/resnet8:predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut times = Vec::with_capacity(REQUESTS);
        for _ in 0..REQUESTS {
            let sent = Instant::now();
            stream.write_all(&request)?;
            read_answer(&mut reader)?;
            times.push(sent.elapsed());
        }
        Ok(times)
    }

    /// Private megabytes of the server and its workers.
    fn private_mb(&self) -> Result<f64> {
        let pid = self.child.id();
        let mut kilobytes = private_kb(pid)?;
        // Workers are children of the threads that started them.
        for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let children = std::fs::read_to_string(task?.path().join("children"))?;
            for child in children.split_whitespace() {
                kilobytes += private_kb(child.parse()?)?;
            }
        }
        Ok(kilobytes as f64 / 1024.0)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn private_kb(pid: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let fields = text.lines().filter(|line| line.starts_with("Private_"));
    Ok(fields.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum())
}

fn read_answer(reader: &mut impl std::io::BufRead) -> Result<()> {
    let mut length = 0usize;
    let mut head = String::new();
    reader.read_line(&mut head)?;
    if !head.contains(" 200 ") {
        bail!("the server answered {head}");
    }
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
    }
    reader.take(length as u64).read_to_end(&mut Vec::with_capacity(length))?;
    Ok(())
}

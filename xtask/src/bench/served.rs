//! A running server, requests to it, and what they and it cost.

use std::io::{BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::run::say;

/// A model must be there within this time.
const START_LIMIT: Duration = Duration::from_secs(120);

/// A running server of one model.
pub(super) struct Served {
    child: Child,
    port: u16,
    model: String,
    /// From the start of the process to the first version that serves.
    pub(super) start: Duration,
}

/// Times and processor time of requests.
#[derive(Default)]
pub(super) struct Figures {
    /// Sorted by [`take_turns`].
    times: Vec<Duration>,
    cpu: Duration,
}

/// Memory of a server and its workers.
pub(super) struct Footprint {
    /// Megabytes that nobody shares.
    pub(super) private_mb: f64,
    /// Megabytes that others map, too: files, and what is handed over in shared memory.
    pub(super) shared_mb: f64,
    /// Of those, the private ones of the workers alone.
    pub(super) worker_private_mb: f64,
}

impl Figures {
    /// Microseconds that this share of the requests (in per cent) took at most.
    pub(super) fn at(&self, share: usize) -> u128 {
        let last = self.times.len().saturating_sub(1);
        self.times.get(last * share / 100).map_or(0, Duration::as_micros)
    }

    /// Microseconds of processor time per request, of server and workers together.
    pub(super) fn cpu_us(&self) -> u128 {
        self.cpu.as_micros() / self.times.len().max(1) as u128
    }
}

/// The median, in microseconds.
pub(super) fn median_us(figures: &Figures) -> u128 {
    figures.at(50)
}

/// The gRPC socket of a server, in the project's folder.
fn socket(rest_port: u16) -> String {
    format!("target/bench-{rest_port}.sock")
}

/// Sends `requests` of the same request to each setting in turn, `turns` times, after a turn that
/// does not count.
pub(super) fn take_turns(
    settings: &mut [(String, Served)],
    body: &[u8],
    turns: usize,
    requests: usize,
) -> Result<Vec<Figures>> {
    let mut measured: Vec<Figures> = settings.iter().map(|_| Figures::default()).collect();
    for turn in 0..=turns {
        if turn > 0 {
            say(&format!("turn {turn} of {turns}"));
        }
        for ((_, server), figures) in settings.iter().zip(&mut measured) {
            let before = server.cpu()?;
            let times = server.measure(body, requests)?;
            if turn > 0 {
                figures.cpu += server.cpu()?.saturating_sub(before);
                figures.times.extend(times);
            }
        }
    }
    for figures in &mut measured {
        figures.times.sort_unstable();
    }
    Ok(measured)
}

impl Served {
    /// Starts a server of the model in `base` and waits until a version serves.
    pub(super) fn start(root: &Path, model: &str, base: &Path, flags: &[String]) -> Result<Served> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let started = Instant::now();
        let child = Command::new(super::program(root))
            .args(["serve", "--port=0", "--max_num_load_retries=0"])
            .arg(format!("--grpc_socket_path={}", socket(port)))
            .arg(format!("--rest_api_port={port}"))
            .arg(format!("--model_name={model}"))
            .arg(format!("--model_base_path={}", base.display()))
            .args(flags)
            .current_dir(root)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut server = Served { child, port, model: model.to_owned(), start: Duration::ZERO };
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            if server.child.try_wait()?.is_some() || started.elapsed() > START_LIMIT {
                bail!("the server did not start with {}", flags.join(" "));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        server.start = started.elapsed();
        Ok(server)
    }

    /// Where it listens for gRPC.
    pub(super) fn grpc_socket(&self, root: &Path) -> PathBuf {
        root.join(socket(self.port))
    }

    /// The engine that serves, as the list of models names it.
    pub(super) fn engine(&self) -> Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.write_all(
            b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").context("the list of models has a body")?;
        let list: serde_json::Value = serde_json::from_str(body)?;
        let engine = list.pointer("/models/0/loaded_versions/0/engine");
        Ok(engine.and_then(|name| name.as_str()).context("a version is loaded")?.to_owned())
    }

    /// Sends requests one after the other over one connection.
    fn measure(&self, body: &[u8], requests: usize) -> Result<Vec<Duration>> {
        let mut connection = self.connect(body)?;
        let mut times = Vec::with_capacity(requests);
        for _ in 0..requests {
            let sent = Instant::now();
            connection.ask()?;
            times.push(sent.elapsed());
        }
        Ok(times)
    }

    /// A connection that asks the model the same again and again.
    pub(super) fn connect(&self, body: &[u8]) -> Result<Connection> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_nodelay(true)?;
        let mut request = format!(
            "POST /v1/models/{}:predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
            self.model,
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        let reader = BufReader::new(stream.try_clone()?);
        Ok(Connection { stream, reader, request })
    }

    /// Processor time that server and workers have used.
    pub(super) fn cpu(&self) -> Result<Duration> {
        let mut ticks = 0;
        for pid in self.processes()? {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
            let fields = stat.rsplit(") ").next().context("a stat line has a name")?;
            let numbers = fields.split_whitespace().skip(11).take(2);
            ticks += numbers.filter_map(|word| word.parse::<u64>().ok()).sum::<u64>();
        }
        // The kernel counts in hundredths of a second, whatever its own tick is.
        Ok(Duration::from_millis(ticks * 10))
    }

    pub(super) fn memory(&self) -> Result<Footprint> {
        let mut footprint = Footprint { private_mb: 0.0, shared_mb: 0.0, worker_private_mb: 0.0 };
        for pid in self.processes()? {
            let private = rollup_mb(pid, "Private_")?;
            footprint.private_mb += private;
            footprint.shared_mb += rollup_mb(pid, "Shared_")?;
            if pid != self.child.id() {
                footprint.worker_private_mb += private;
            }
        }
        Ok(footprint)
    }

    /// The server's process and those of its workers.
    fn processes(&self) -> Result<Vec<u32>> {
        let pid = self.child.id();
        let mut pids = vec![pid];
        // Workers are children of the threads that started them.
        for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let children = std::fs::read_to_string(task?.path().join("children"))?;
            for child in children.split_whitespace() {
                pids.push(child.parse()?);
            }
        }
        Ok(pids)
    }
}

/// One connection and the request that it sends.
pub(super) struct Connection {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
    request: Vec<u8>,
}

impl Connection {
    /// Sends the request and reads the answer.
    pub(super) fn ask(&mut self) -> Result<()> {
        self.stream.write_all(&self.request)?;
        read_answer(&mut self.reader)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Megabytes of all fields of `/proc/PID/smaps_rollup` that begin with `prefix`.
fn rollup_mb(pid: u32, prefix: &str) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let fields = text.lines().filter(|line| line.starts_with(prefix));
    let kilobytes: u64 =
        fields.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum();
    Ok(kilobytes as f64 / 1024.0)
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

//! What a request for the same SavedModel costs on each engine that translates or runs it: processor
//! time of server and workers together, one thread.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::served::Served;
use crate::python::Python;
use crate::run::{say, take};

/// Engines, the one that others are held against first; the last is whichever is chosen.
const ENGINES: [&str; 5] = ["tensorflow", "onnxruntime", "openvino", "embedded", "auto"];

/// Turns of each engine, after one that does not count.
const TURNS: usize = 5;

/// Networks: name, requests of one turn. `engines.py` makes them, with weights that nobody trained.
const NETS: [(&str, usize); 6] = [
    ("mobilenet_v2", 60),
    ("efficientnet_b0", 40),
    ("resnet50", 15),
    ("inception_v3", 15),
    ("slim_inception_v3", 15),
    ("bert_like", 60),
];

/// Makes a network, or asks a server for it.
const SCRIPT: &str = "xtask/src/bench/engines.py";

/// A served network and what it has cost.
struct Setting {
    /// As it is shown.
    engine: String,
    server: Served,
    cpu: Duration,
    requests: usize,
}

pub(super) fn run(root: &Path, only: &[String]) -> Result<()> {
    if let Some(unknown) = only.iter().find(|name| NETS.iter().all(|(net, _)| net != name)) {
        bail!("no network is called {unknown}; choose among {NETS:?}");
    }
    let python = Python::set_up(root)?;
    say(&format!("{:<18} {:<20} {:>10} {:>10}", "network", "engine", "CPU ms", "ratio"));
    let wanted = |net: &str| only.is_empty() || only.iter().any(|name| name == net);
    for (net, requests) in NETS.into_iter().filter(|(net, _)| wanted(net)) {
        let base = made(root, &python, net)?;
        let mut settings = Vec::new();
        for engine in ENGINES {
            let flags = [format!("--engine={engine}"), "--isolation=worker".to_owned()];
            match Served::start(root, net, &base, &flags) {
                Ok(server) => {
                    let engine = match engine {
                        "auto" => format!("auto: {}", server.engine()?),
                        named => named.to_owned(),
                    };
                    settings.push(Setting { engine, server, cpu: Duration::ZERO, requests: 0 });
                }
                Err(problem) => say(&format!("{net:<18} {engine:<20} {problem}")),
            }
        }
        take_turns(root, &python, net, requests, &mut settings)?;
        report(net, &settings)?;
    }
    say(
        "\nprocessor time of server and worker per request of one row over gRPC, one thread; the ratio is \
         to TensorFlow's in the same run",
    );
    Ok(())
}

/// The folder of a network, made once.
fn made(root: &Path, python: &Python, net: &str) -> Result<PathBuf> {
    let base = root.join("target/bench/engines").join(net);
    if !base.join("1/saved_model.pb").is_file() {
        say(&format!("making {net}"));
        take(root, python.command().arg(SCRIPT).args(["make", net]).arg(base.join("1")))?;
    }
    Ok(base)
}

fn take_turns(
    root: &Path,
    python: &Python,
    net: &str,
    requests: usize,
    settings: &mut [Setting],
) -> Result<()> {
    let mut asker = Asker::start(root, python, net)?;
    for turn in 0..=TURNS {
        for setting in &mut *settings {
            let before = setting.server.cpu()?;
            asker.ask(&setting.server.grpc_socket(root), requests)?;
            if turn > 0 {
                setting.cpu += setting.server.cpu()?.saturating_sub(before);
                setting.requests += requests;
            }
        }
    }
    Ok(())
}

/// A Python that asks for one network. It takes longer to start than a turn, so there is one for all.
struct Asker {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl Asker {
    fn start(root: &Path, python: &Python, net: &str) -> Result<Asker> {
        let mut child = python
            .command()
            .arg(SCRIPT)
            .args(["ask", net])
            .current_dir(root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let answers = child.stdout.take().context("the asker's answers are read")?;
        Ok(Asker { child, answers: BufReader::new(answers) })
    }

    /// Sends so many requests to the server that listens there.
    fn ask(&mut self, socket: &Path, requests: usize) -> Result<()> {
        let orders = self.child.stdin.as_mut().context("the asker takes orders")?;
        writeln!(orders, "{requests} {}", socket.display())?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        if answer.trim() != "done" {
            bail!("{SCRIPT} ask ended with {}", self.child.wait()?);
        }
        Ok(())
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn report(net: &str, settings: &[Setting]) -> Result<()> {
    let per_request =
        |setting: &Setting| setting.cpu.as_secs_f64() * 1e3 / setting.requests.max(1) as f64;
    let first = settings.first().context("no engine serves the network")?;
    if first.engine != ENGINES[0] {
        bail!("{} does not serve {net}, so there is nothing to compare with", ENGINES[0]);
    }
    for setting in settings {
        let (cost, reference) = (per_request(setting), per_request(first));
        let ratio = cost / reference;
        say(&format!("{net:<18} {:<20} {cost:>10.2} {ratio:>10.2}", setting.engine));
    }
    Ok(())
}

//! What a process of its own costs a version: the same model on the same engine, inline and in a
//! worker.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::served::{Served, median_us, take_turns};
use crate::python::Python;
use crate::run::{say, take};

/// Requests of one turn.
const REQUESTS: usize = 300;
/// Turns of each setting.
const TURNS: usize = 5;

/// Writes a SavedModel `y = x / 2 + 2` with TensorFlow.
const HALF_PLUS_TWO: &str = "
import sys, tensorflow as tf
class Half(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name='x')])
    def __call__(self, x):
        return {'y': x / 2.0 + 2.0}
half = Half()
tf.saved_model.save(half, sys.argv[1], signatures=half.__call__)
";

/// A model and a request to it.
struct Subject {
    name: &'static str,
    base: PathBuf,
    body: Vec<u8>,
}

pub(super) fn run(root: &Path) -> Result<()> {
    let python = Python::set_up(root)?;
    let small = root.join("target/bench/half_plus_two");
    if !small.join("1/saved_model.pb").is_file() {
        take(root, python.command().args(["-c", HALF_PLUS_TWO]).arg(small.join("1")))?;
    }
    let subjects = [
        Subject {
            name: "half_plus_two",
            base: small,
            body: br#"{"instances": [1.0, 2.0, 5.0]}"#.to_vec(),
        },
        Subject {
            name: "resnet8",
            base: root.join("demo/models/resnet8"),
            body: std::fs::read(root.join("demo/cat.json")).context("demo/cat.json")?,
        },
    ];
    for subject in &subjects {
        for engine in ["tensorflow", "embedded"] {
            compare(root, subject, engine)?;
        }
    }
    say("\nmedian and p99 of one request at a time over REST; CPU of server and worker together; \
         memory after the requests");
    Ok(())
}

fn compare(root: &Path, subject: &Subject, engine: &str) -> Result<()> {
    say(&format!("\n{} on {engine}", subject.name));
    let mut settings = Vec::new();
    for isolation in ["inline", "worker"] {
        let flags = [
            format!("--engine={engine}"),
            format!("--isolation={isolation}"),
            "--allow_native_inline=true".to_owned(),
        ];
        let server = Served::start(root, subject.name, &subject.base, &flags)
            .context("an engine may have to be installed: vesta engine install tensorflow")?;
        settings.push((isolation.to_owned(), server));
    }
    let measured = take_turns(&mut settings, &subject.body, TURNS, REQUESTS)?;
    say("setting   load ms   median µs   p99 µs   CPU µs   private MB   (of workers)   shared MB");
    for ((name, server), figures) in settings.iter().zip(&measured) {
        let memory = server.memory()?;
        say(&format!(
            "{name:8} {:8} {:11} {:8} {:8} {:12.1} {:14.1} {:11.1}",
            server.start.as_millis(),
            median_us(figures),
            figures.at(99),
            figures.cpu_us(),
            memory.private_mb,
            memory.worker_private_mb,
            memory.shared_mb,
        ));
    }
    if let [inline, worker] = &measured[..] {
        let ratio = |a: u128, b: u128| a as f64 / b.max(1) as f64;
        say(&format!(
            "worker to inline: median {:.2}, p99 {:.2}, CPU {:.2}",
            ratio(median_us(worker), median_us(inline)),
            ratio(worker.at(99), inline.at(99)),
            ratio(worker.cpu_us(), inline.cpu_us()),
        ));
    }
    Ok(())
}

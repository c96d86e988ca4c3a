//! What batching brings: answers a second with many clients at once, alone and batched, on each engine.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::served::Served;
use crate::python::Python;
use crate::run::{say, take};

/// Clients at once, each with one call in flight.
const CLIENTS: usize = 16;
/// How long each setting is asked in one turn.
const TURN: Duration = Duration::from_secs(2);
/// Turns of each setting, after one that does not count.
const TURNS: usize = 4;

/// Writes a SavedModel of three dense layers, whose weights take longer to read than to multiply by one
/// row.
const DENSE: &str = "
import sys, numpy as np, tensorflow as tf
dice = np.random.default_rng(1)
class Dense(tf.Module):
    def __init__(self):
        sizes = [64, 2048, 2048, 10]
        self.layers = [tf.Variable(dice.normal(0, 0.05, pair).astype(np.float32))
                       for pair in zip(sizes, sizes[1:])]
    @tf.function(input_signature=[tf.TensorSpec([None, 64], tf.float32, name='x')])
    def __call__(self, x):
        for layer in self.layers:
            x = tf.nn.relu(tf.matmul(x, layer))
        return {'y': x}
dense = Dense()
tf.saved_model.save(dense, sys.argv[1], signatures=dense.__call__)
";

pub(super) fn run(root: &Path) -> Result<()> {
    let python = Python::set_up(root)?;
    let folder = root.join("target/bench");
    let dense = folder.join("dense");
    if !dense.join("1/saved_model.pb").is_file() {
        take(root, python.command().args(["-c", DENSE]).arg(dense.join("1")))?;
    }
    let file = folder.join("batching.config");
    std::fs::write(
        &file,
        format!("max_batch_size {{ value: {CLIENTS} }} max_enqueued_batches {{ value: 100 }}"),
    )?;
    let numbers: Vec<String> = (0..64).map(|n| format!("{}.5", n % 7)).collect();
    let row = format!("{{\"instances\": [[{}]]}}", numbers.join(","));
    let image = std::fs::read(root.join("demo/cat.json")).context("demo/cat.json")?;
    let subjects =
        [("dense", dense, row.into_bytes()), ("resnet8", root.join("demo/models/resnet8"), image)];
    say(&format!("{CLIENTS} clients over REST, answers a second\n"));
    for (model, base, body) in &subjects {
        for engine in ["embedded", "tensorflow"] {
            compare(root, model, base, body, engine, &file)?;
        }
    }
    Ok(())
}

fn compare(
    root: &Path,
    model: &str,
    base: &Path,
    body: &[u8],
    engine: &str,
    file: &Path,
) -> Result<()> {
    let engine_flag = format!("--engine={engine}");
    let batched = format!("--batching_parameters_file={}", file.display());
    let alone = Served::start(root, model, base, std::slice::from_ref(&engine_flag))?;
    let together =
        Served::start(root, model, base, &[engine_flag, "--enable_batching".to_owned(), batched])?;
    let mut answers = [0usize; 2];
    for turn in 0..=TURNS {
        for (server, count) in [&alone, &together].into_iter().zip(&mut answers) {
            let got = ask_at_once(server, body)?;
            *count += if turn > 0 { got } else { 0 };
        }
    }
    let seconds = TURN.as_secs_f64() * TURNS as f64;
    let [alone, together] = answers.map(|count| count as f64 / seconds);
    if alone == 0.0 {
        bail!("{model} on {engine} gave no answer");
    }
    say(&format!(
        "{model:8} {engine:10} alone {alone:8.0}   batched {together:8.0}   batched to alone {:.2}",
        together / alone
    ));
    Ok(())
}

/// How many answers all clients together get in one turn.
fn ask_at_once(server: &Served, body: &[u8]) -> Result<usize> {
    let end = Instant::now() + TURN;
    let connections = (0..CLIENTS).map(|_| server.connect(body)).collect::<Result<Vec<_>>>()?;
    std::thread::scope(|scope| {
        let clients: Vec<_> = connections
            .into_iter()
            .map(|mut connection| {
                scope.spawn(move || {
                    let mut answers = 0;
                    while Instant::now() < end {
                        connection.ask()?;
                        answers += 1;
                    }
                    Ok(answers)
                })
            })
            .collect();
        let counts = clients.into_iter().map(|client| match client.join() {
            Ok(answers) => answers,
            Err(_) => bail!("a client panicked"),
        });
        counts.sum::<Result<usize>>()
    })
}

//! The demo over REST, inline and in a worker: start, latency, memory.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::served::{Served, median_us, take_turns};
use crate::run::say;

/// Requests of one turn.
const REQUESTS: usize = 400;
/// Turns of each setting.
const TURNS: usize = 5;

pub(super) fn run(root: &Path) -> Result<()> {
    let body = std::fs::read(root.join("demo/cat.json")).context("demo/cat.json")?;
    let base = root.join("demo/models/resnet8");
    let mut settings = Vec::new();
    for isolation in ["inline", "worker"] {
        let flags = ["--engine=embedded".to_owned(), format!("--isolation={isolation}")];
        settings.push((isolation.to_owned(), Served::start(root, "resnet8", &base, &flags)?));
    }
    let measured = take_turns(&mut settings, &body, TURNS, REQUESTS)?;
    say("\nsetting   start ms   median µs   p99 µs   memory MB (private)");
    for ((name, server), figures) in settings.iter().zip(&measured) {
        say(&format!(
            "{name:8} {:9} {:11} {:8} {:10.1}",
            server.start.as_millis(),
            median_us(figures),
            figures.at(99),
            server.memory()?.private_mb,
        ));
    }
    let [inline, worker] = &measured[..] else { return Ok(()) };
    say(&format!(
        "\nmedian, worker to inline: {:.2}",
        median_us(worker) as f64 / median_us(inline).max(1) as f64
    ));
    Ok(())
}

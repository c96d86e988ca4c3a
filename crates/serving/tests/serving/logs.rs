//! The log lines that operators look for, word by word.

use std::io::Write;
use std::sync::{Mutex, PoisonError};

use vesta_model::Status;
use vesta_serving::Phase;

use crate::world::{World, eventually};

/// Lines of every test of this program, since the threads that log belong to none of them.
static LINES: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Lines;

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LINES.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Whether this was logged at this level.
fn logged(level: &str, text: &str) -> bool {
    let lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    let lines = String::from_utf8_lossy(&lines);
    lines.lines().any(|line| line.trim_start().starts_with(level) && line.ends_with(text))
}

#[test]
fn loads_failures_and_unloads_are_logged() {
    tracing_subscriber::fmt().without_time().with_ansi(false).with_writer(|| Lines).init();
    let world = World::new();
    let failures = vec![Status::not_found("no such thing")];
    *world.engine.script("logged:2").failures.lock().unwrap() = failures;
    world.want("logged", &[1, 2]);
    world.await_phase("logged", 1, Phase::Available);
    world.await_phase("logged", 2, Phase::End);
    world.want("logged", &[]);
    world.await_phase("logged", 1, Phase::End);
    for (level, text) in [
        ("INFO", "Loading servable version {name: logged version: 1}"),
        ("INFO", "Successfully loaded servable version {name: logged version: 1}"),
        ("ERROR", "Loading servable: {name: logged version: 2} failed: NOT_FOUND: no such thing"),
        ("INFO", "Unloading servable version {name: logged version: 1}"),
    ] {
        eventually(|| logged(level, text));
    }
}

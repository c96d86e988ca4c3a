//! The log lines that operators look for, word by word.

use std::io::Write;
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

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

fn take_lines() {
    static BEGUN: Once = Once::new();
    BEGUN.call_once(|| {
        tracing_subscriber::fmt().without_time().with_ansi(false).with_writer(|| Lines).init();
    });
}

#[test]
fn loads_failures_and_unloads_are_logged() {
    take_lines();
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

#[test]
fn an_idle_server_ends_without_complaints() {
    take_lines();
    let world = World::new();
    for model in ["ends:a", "ends:b"] {
        world.want(model, &[1, 2]);
        for version in [1, 2] {
            world.await_phase(model, version, Phase::Available);
        }
    }
    // No time at all for runs in flight, of which there are none.
    world.serving.shutdown(Duration::ZERO);
    assert_eq!(world.engine.count("unloaded ends:"), 4);
    assert!(logged("INFO", "Done unloading servable version {name: ends:b version: 2}"));
    let lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    let lines = String::from_utf8_lossy(&lines);
    let complaints: Vec<&str> = lines
        .lines()
        .filter(|line| line.contains("name: ends:") && !line.trim_start().starts_with("INFO"))
        .collect();
    assert_eq!(complaints, [""; 0]);
}

//! Progress of long commands on standard error: a bar on a terminal, a line now and then elsewhere.
//!
//! May not know: what is progressing.

use std::io::IsTerminal as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use vesta_engines::Progress;

use crate::commands::complain;

/// How often a line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// How often the bar moves while nothing is told.
const TICK: Duration = Duration::from_millis(120);

/// Shows steps on standard error.
pub(crate) struct Shown {
    on_terminal: bool,
    step: Mutex<Option<Step>>,
}

struct Step {
    name: String,
    bar: Option<ProgressBar>,
    last_line: Instant,
    done_bytes: u64,
}

impl Shown {
    pub(crate) fn new() -> Shown {
        Shown { on_terminal: std::io::stderr().is_terminal(), step: Mutex::new(None) }
    }

    fn with_step(&self, act: impl FnOnce(&mut Option<Step>)) {
        act(&mut self.step.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Progress for Shown {
    fn say(&self, text: &str) {
        self.with_step(|step| match step.as_ref().and_then(|step| step.bar.as_ref()) {
            Some(bar) => bar.suspend(|| complain(&format!("{text}\n"))),
            None => complain(&format!("{text}\n")),
        });
    }

    fn begin(&self, name: &str) {
        let bar = self.on_terminal.then(|| {
            let bar = ProgressBar::new_spinner().with_message(name.to_owned());
            bar.enable_steady_tick(TICK);
            bar
        });
        if bar.is_none() {
            complain(&format!("{name}\n"));
        }
        let name = name.to_owned();
        self.with_step(|step| {
            *step = Some(Step { name, bar, last_line: Instant::now(), done_bytes: 0 });
        });
    }

    fn reach(&self, done_bytes: u64, total_bytes: u64) {
        self.with_step(|step| {
            let Some(step) = step else { return };
            step.done_bytes = done_bytes;
            match &step.bar {
                Some(bar) => draw(bar, done_bytes, total_bytes),
                None if step.last_line.elapsed() >= LINE_EVERY && done_bytes > 0 => {
                    step.last_line = Instant::now();
                    complain(&format!("{}: {}\n", step.name, amount(done_bytes, total_bytes)));
                }
                None => {}
            }
        });
    }

    fn end(&self) {
        self.with_step(|step| {
            if let Some(Step { bar: Some(bar), .. }) = step.take() {
                bar.finish_and_clear();
            }
        });
    }
}

fn draw(bar: &ProgressBar, done_bytes: u64, total_bytes: u64) {
    let template = match total_bytes {
        0 if done_bytes == 0 => "{spinner} {wide_msg}",
        0 => "{spinner} {wide_msg} {bytes} {bytes_per_sec}",
        _ => "{msg} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} {eta}",
    };
    // The templates are constants; one that cannot be read would only leave the default look.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    if total_bytes > 0 {
        bar.set_length(total_bytes.max(done_bytes));
    }
    bar.set_position(done_bytes);
}

/// `120 MiB of 261 MiB, 46 %`.
fn amount(done_bytes: u64, total_bytes: u64) -> String {
    if total_bytes == 0 {
        return HumanBytes(done_bytes).to_string();
    }
    let percent = done_bytes.saturating_mul(100) / total_bytes;
    format!("{} of {}, {} %", HumanBytes(done_bytes), HumanBytes(total_bytes), percent.min(100))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_told_with_and_without_a_total() {
        assert_eq!(amount(1 << 20, 0), "1.00 MiB");
        assert_eq!(amount(1 << 20, 4 << 20), "1.00 MiB of 4.00 MiB, 25 %");
        // pip rounds the size that it announces.
        assert_eq!(amount(5, 4), "5 B of 4 B, 100 %");
    }
}

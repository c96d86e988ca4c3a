//! `vesta tune`: what each installed engine makes of a model, as a table, JSON, and a picture.
//!
//! Owns the command line and the order of measurements. May not know: how an engine is tried
//! (`measure`), what the outcome looks like (`table`, `picture`).

mod measure;
mod picture;
mod table;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use vesta_model::Status;

use self::measure::{Bench, Plan, Row};
use crate::artifact;
use crate::commands::{complain, parse, print};

/// Measure a model on every engine that is installed.
///
/// Each engine loads the model in a process of its own and runs drawn inputs, at several numbers of
/// rows and of threads. Times are medians on the clock, so let the machine do nothing else.
#[derive(Debug, Parser)]
#[command(name = "vesta tune", bin_name = "vesta tune")]
struct Arguments {
    /// The folder of a version, or of a model, of which the newest version is taken.
    model_dir: String,
    /// The signature to run; without it serving_default, else the first by name.
    #[arg(long, value_name = "NAME")]
    signature: Option<String>,
    /// The tags of the graph.
    #[arg(long, value_name = "A,B", value_delimiter = ',', default_value = "serve")]
    tags: Vec<String>,
    /// Rows of a run.
    #[arg(long, value_name = "A,B", value_delimiter = ',', default_values_t = [1usize, 8, 32])]
    batches: Vec<usize>,
    /// Threads of a run; without it 1 and as many as there are cores.
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    threads: Vec<usize>,
    /// Milliseconds that one figure may take.
    #[arg(long, value_name = "MS", default_value_t = 1000)]
    time_ms: u64,
    /// As JSON.
    #[arg(long)]
    json: bool,
    /// Draw throughput against latency into this file, by its ending as SVG or HTML.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// More rows or threads than anybody has.
const COUNT_MAX: usize = 65_536;

/// Runs the command; `arguments` leave both words out.
pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let arguments: Arguments = match parse("vesta tune", arguments) {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    match tune(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(status) => {
            complain(&format!("vesta tune: {}\n", status.message()));
            ExitCode::FAILURE
        }
    }
}

fn tune(arguments: &Arguments) -> Result<(), Status> {
    let plan = plan(arguments)?;
    // What cannot be written is better told before minutes of measuring than after.
    let form = arguments.out.as_deref().map(|file| Ok((file, form_of(file)?))).transpose()?;
    let bench = Bench::new(plan)?;
    let progress = Steps::new(bench.steps());
    let rows = bench.measure(&|text| progress.step(text));
    progress.end();
    let plan = bench.plan();
    if let Some((file, form)) = form {
        let text = match form {
            Form::Svg => picture::svg(plan, &rows),
            Form::Html => picture::html(plan, &rows),
        };
        std::fs::write(file, text).map_err(|error| {
            Status::failed_precondition(format!("{} cannot be written: {error}", file.display()))
        })?;
    }
    let text = if arguments.json {
        format!("{:#}\n", table::as_json(plan, &rows))
    } else {
        table::as_text(plan, &rows)
    };
    print(&text);
    let is_measured = |row: &Row| row.outcome.is_ok();
    if rows.iter().any(is_measured) {
        return Ok(());
    }
    Err(Status::failed_precondition("no engine that is installed runs the model"))
}

fn plan(arguments: &Arguments) -> Result<Plan, Status> {
    let counts = |what: &str, given: &[usize]| {
        if let Some(bad) = given.iter().find(|&&count| count == 0 || count > COUNT_MAX) {
            return Err(Status::invalid_argument(format!(
                "--{what} of {bad}: give numbers from 1 to {COUNT_MAX}"
            )));
        }
        let mut counts = given.to_vec();
        counts.sort_unstable();
        counts.dedup();
        Ok(counts)
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if arguments.threads.is_empty() { &[1, cores][..] } else { &arguments.threads };
    Ok(Plan {
        artifact: artifact::find(&arguments.model_dir)?,
        tags: arguments.tags.clone(),
        signature: arguments.signature.clone(),
        batches: counts("batches", &arguments.batches)?,
        threads: counts("threads", threads)?,
        time: Duration::from_millis(arguments.time_ms),
    })
}

/// What a picture is written as.
enum Form {
    Svg,
    Html,
}

fn form_of(file: &Path) -> Result<Form, Status> {
    match file.extension().and_then(|ending| ending.to_str()) {
        Some("svg") => Ok(Form::Svg),
        Some("html" | "htm") => Ok(Form::Html),
        _ => Err(Status::invalid_argument(format!(
            "--out={}: the name must end in .svg or .html",
            file.display()
        ))),
    }
}

/// How far the command is: a bar on a terminal, else a line for each step.
struct Steps {
    bar: Option<ProgressBar>,
    count: usize,
    done: std::cell::Cell<usize>,
}

impl Steps {
    fn new(count: usize) -> Steps {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(count as u64);
            // The template is a constant; one that cannot be read would only leave the default look.
            if let Ok(style) = ProgressStyle::with_template("{msg} [{wide_bar}] {pos}/{len} {eta}")
            {
                bar.set_style(style.progress_chars("=> "));
            }
            bar
        });
        Steps { bar, count, done: std::cell::Cell::new(0) }
    }

    /// Says what comes next.
    fn step(&self, text: &str) {
        let done = self.done.replace(self.done.get() + 1);
        match &self.bar {
            Some(bar) => {
                bar.set_position(done as u64);
                bar.set_message(text.to_owned());
            }
            None => complain(&format!("{} of {}: {text}\n", done + 1, self.count)),
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

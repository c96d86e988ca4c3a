//! The files that requests are recorded in.
//!
//! Owns: the one thread that writes them, their names, when one ends and the next begins, how many
//! stay. May not know: which requests are recorded, what a record says.
//! Invariant: at any moment a file holds whole records alone, and nothing that goes wrong with one
//! is more than a warning and a number on the metrics page.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use tracing::{info, warn};
use vesta_frontends::{Metrics, Next, Recorded, Recordings, Route};
use vesta_model::{Code, ModelName, RequestLogForm, Status};

/// How long records may wait in memory for others.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes of them that may.
const BUFFER_BYTES_MAX: usize = 256 << 10;
/// How long a path that could not be written is left alone.
const PAUSE: Duration = Duration::from_secs(10);
/// Files that one second may begin.
const FILES_PER_SECOND_MAX: u32 = 1000;
const FILE_TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year][month][day]T[hour][minute][second]");

/// When a file ends, and how many stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileLimits {
    /// Bytes after which the next file begins.
    pub(crate) bytes_max: u64,
    /// Records after which the next file begins.
    pub(crate) records_max: u64,
    /// Files of one model that stay; older ones are removed.
    pub(crate) files_max: usize,
}

/// Starts the thread; it ends when nothing can come any more.
///
/// # Errors
/// `INTERNAL` when it cannot be started.
pub(crate) fn start(
    recordings: Recordings,
    limits: FileLimits,
    metrics: Metrics,
) -> Result<(), Status> {
    let mut writer = Writer { limits, metrics, open: HashMap::new() };
    std::thread::Builder::new()
        .name("vesta-reqlog".to_owned())
        .spawn(move || writer.run(&recordings))
        .map(drop)
        .map_err(|e| {
            Status::internal("the thread that records requests did not start").with_cause(e)
        })
}

struct Writer {
    limits: FileLimits,
    metrics: Metrics,
    open: HashMap<ModelName, Log>,
}

/// The records of one model.
struct Log {
    route: Arc<Route>,
    file: Option<Open>,
    /// Whole records that are not in the file yet.
    buffer: Vec<u8>,
    buffered: u64,
    /// Nothing is tried before.
    paused_until: Option<Instant>,
}

/// A file that is written.
struct Open {
    file: File,
    path: PathBuf,
    bytes: u64,
    records: u64,
}

impl Writer {
    fn run(&mut self, recordings: &Recordings) {
        let mut flush_at = Instant::now() + FLUSH_INTERVAL;
        loop {
            match recordings.next(flush_at) {
                Next::Record(recorded) => self.take(&recorded),
                Next::Idle => {}
                Next::Routes(routes) => self.keep(&routes),
                Next::Flush(done) => {
                    self.flush();
                    // Whoever waited may have given up.
                    let _ = done.send(());
                }
                Next::End => return self.flush(),
            }
            if Instant::now() >= flush_at {
                self.flush();
                flush_at = Instant::now() + FLUSH_INTERVAL;
            }
        }
    }

    fn take(&mut self, recorded: &Recorded) {
        let route = recorded.route();
        let model = route.model.as_str();
        let bytes = match route.logging.form {
            RequestLogForm::TfRecord => recorded.tf_record(),
            RequestLogForm::JsonLines => match recorded.json_line() {
                Ok(line) => line,
                Err(problem) => {
                    return self.metrics.recorded(model, Some(problem.code()), 1);
                }
            },
        };
        // One that came after its route was taken back goes where it was meant to go.
        let log = match self.open.get_mut(model).filter(|log| Arc::ptr_eq(&log.route, route)) {
            Some(log) => log,
            None => {
                let mut log = Log::new(Arc::clone(route));
                if let Some(mut former) = self.open.remove(model) {
                    former.flush(&self.limits, &self.metrics);
                    // Another place may do better at once.
                    let same = former.route.logging.path_prefix == route.logging.path_prefix;
                    log.paused_until = former.paused_until.filter(|_| same);
                }
                self.open.entry(route.model.clone()).or_insert(log)
            }
        };
        log.buffer.extend_from_slice(&bytes);
        log.buffered += 1;
        if log.buffer.len() >= BUFFER_BYTES_MAX || log.is_full(&self.limits) {
            log.flush(&self.limits, &self.metrics);
        }
    }

    fn flush(&mut self) {
        for log in self.open.values_mut() {
            log.flush(&self.limits, &self.metrics);
        }
    }

    /// Ends the files of all other routes.
    fn keep(&mut self, routes: &[Arc<Route>]) {
        self.flush();
        self.open.retain(|_, log| routes.iter().any(|route| Arc::ptr_eq(route, &log.route)));
    }
}

impl Log {
    fn new(route: Arc<Route>) -> Log {
        Log { route, file: None, buffer: Vec::new(), buffered: 0, paused_until: None }
    }

    /// Whether what is written and what waits fill a file.
    fn is_full(&self, limits: &FileLimits) -> bool {
        let (bytes, records) = self.file.as_ref().map_or((0, 0), |file| (file.bytes, file.records));
        bytes + self.buffer.len() as u64 >= limits.bytes_max
            || records + self.buffered >= limits.records_max
    }

    /// Writes what waits.
    fn flush(&mut self, limits: &FileLimits, metrics: &Metrics) {
        if self.buffered == 0 {
            return;
        }
        let model = self.route.model.clone();
        let model = model.as_str();
        let (buffer, count) =
            (std::mem::take(&mut self.buffer), std::mem::take(&mut self.buffered));
        if self.paused_until.is_some_and(|until| Instant::now() < until) {
            return metrics.recorded(model, Some(Code::Unavailable), count);
        }
        self.paused_until = None;
        match self.write(&buffer, count, limits) {
            Ok(()) => metrics.recorded(model, None, count),
            Err(problem) => {
                warn!(
                    "requests of model {model} cannot be recorded at {}: {problem}; it is tried \
                     again in {PAUSE:?}",
                    self.route.logging.path_prefix.display()
                );
                self.file = None;
                self.paused_until = Instant::now().checked_add(PAUSE);
                metrics.recorded(model, Some(Code::Unavailable), count);
            }
        }
    }

    fn write(&mut self, bytes: &[u8], count: u64, limits: &FileLimits) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let opened = Open::create(&self.route, limits)?;
                info!(
                    "Recording requests of model {} to {}",
                    self.route.model,
                    opened.path.display()
                );
                self.file.insert(opened)
            }
        };
        if let Err(problem) = file.file.write_all(bytes) {
            // What is there half-way would make the whole file unreadable.
            let _ = file.file.set_len(file.bytes);
            return Err(problem);
        }
        file.bytes += bytes.len() as u64;
        file.records += count;
        if file.bytes >= limits.bytes_max || file.records >= limits.records_max {
            self.file = None;
        }
        Ok(())
    }
}

impl Open {
    /// The next file of a route; older ones than are to stay are removed.
    fn create(route: &Route, limits: &FileLimits) -> io::Result<Open> {
        let now = OffsetDateTime::now_utc().format(FILE_TIME).map_err(io::Error::other)?;
        let stem = stem(route);
        if let Some(folder) = stem.parent() {
            std::fs::create_dir_all(folder)?;
        }
        for number in 0..FILES_PER_SECOND_MAX {
            let path = with_suffix(&stem, &format!("{now}-{number:03}{}", extension(route)));
            // Others may write beside us; nobody's file is written over.
            match OpenOptions::new().append(true).create_new(true).open(&path) {
                Ok(file) => {
                    remove_older(&stem, route, limits.files_max);
                    return Ok(Open { file, path, bytes: 0, records: 0 });
                }
                Err(taken) if taken.kind() == io::ErrorKind::AlreadyExists => {}
                Err(problem) => return Err(problem),
            }
        }
        Err(io::Error::other(format!("a second has seen {FILES_PER_SECOND_MAX} files already")))
    }
}

/// What the paths of a route's files begin with: the prefix and the model's name.
fn stem(route: &Route) -> PathBuf {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let model: String =
        route.model.as_str().chars().map(|c| if plain(c) { c } else { '_' }).collect();
    // A prefix that is a folder stands for the files in it.
    let prefix = route.logging.path_prefix.as_os_str();
    let joint = if prefix.as_encoded_bytes().ends_with(b"/") { "" } else { "-" };
    with_suffix(Path::new(prefix), &format!("{joint}{model}-"))
}

fn extension(route: &Route) -> &'static str {
    match route.logging.form {
        RequestLogForm::TfRecord => ".tfrecord",
        RequestLogForm::JsonLines => ".jsonl",
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// Removes the oldest files of a route beyond `files_max`. What cannot be removed stays.
fn remove_older(stem: &Path, route: &Route, files_max: usize) {
    let (Some(folder), Some(start)) = (stem.parent(), stem.file_name().and_then(|s| s.to_str()))
    else {
        return;
    };
    let is_ours = |name: &str| {
        // The time and the number, such as 20260131T120000-000.
        let middle = name.strip_prefix(start).and_then(|rest| rest.strip_suffix(extension(route)));
        middle.is_some_and(|middle| {
            middle.len() == 19 && middle.bytes().all(|b| b.is_ascii_digit() || b"T-".contains(&b))
        })
    };
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_ours(name))
        .collect();
    names.sort_unstable();
    names.truncate(names.len().saturating_sub(files_max.max(1)));
    for name in names {
        if let Err(problem) = std::fs::remove_file(folder.join(&name)) {
            warn!("the old request log {name} cannot be removed: {problem}");
        }
    }
}

#[cfg(test)]
mod tests;

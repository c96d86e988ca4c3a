//! Fetching a wheel with `python3 -m pip`, the ordinary client, so that a user's index, proxy and
//! certificate settings hold.
//!
//! May not know: engines, the store's layout.
//! Invariant: pip is told which sum the wheel must have before it fetches it to keep; wheels are
//! chosen for a fixed list of Pythons, never for the user's own.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde::Deserialize;
use vesta_model::Status;

use super::progress::{Progress, Step};
use super::version::Version;
use super::wheel::WheelName;

/// The Pythons that wheels are looked for, in this order: a release has wheels for some of them, and
/// the libraries inside are the same.
const PYTHONS: &[&str] = &["3.12", "3.11", "3.10", "3.13", "3.9", "3.14", "3.8", "3.7"];

/// The newest and oldest glibc that manylinux wheels are taken for.
const GLIBC_MINORS: std::ops::RangeInclusive<u32> = 5..=40;

/// More of pip's words than this are not kept for an error.
const STDERR_BYTES_MAX: u64 = 64 << 10;

/// How often the growing file is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// What the index offers.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) name: WheelName,
    /// In hexadecimal, as pip reports it: the index's own, or else computed by pip.
    pub(super) sha256: Option<String>,
}

/// A wheel that was fetched.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) path: PathBuf,
    /// Whether the index itself gave the sum that the wheel has.
    pub(super) index_vouches: bool,
}

/// pip, and the folder that it may fill.
pub(super) struct Pip<'a> {
    pub(super) folder: &'a Path,
    pub(super) arch: &'a str,
    pub(super) progress: &'a dyn Progress,
}

/// What a run of pip left.
struct Finished {
    stdout: String,
    stderr: String,
    succeeded: bool,
}

impl Pip<'_> {
    /// Asks the index for the newest wheel of one of `packages` that meets `wanted`, such as
    /// `==2.15.*` or nothing.
    ///
    /// # Errors
    /// `NOT_FOUND` when there is none for this processor; what pip says.
    pub(super) fn look_up(&self, packages: &[&str], wanted: &str) -> Result<Offer, Status> {
        let report = self.folder.join("report.json");
        let target = self.folder.join("target");
        for package in packages {
            for python in PYTHONS {
                let requirement = format!("{package}{wanted}");
                let mut command = self.command("install", python);
                command.args(["--dry-run", "--ignore-installed", "--target"]).arg(&target);
                command.arg("--report").arg(&report).arg(&requirement);
                let done = self.run(
                    command,
                    &format!("asking the index for {requirement} (cp{})", python.replace('.', "")),
                )?;
                if done.succeeded {
                    return read_report(&report);
                }
                if !done.stderr.contains("No matching distribution found") {
                    return Err(failed(&done.stderr));
                }
            }
        }
        Err(Status::not_found(format!(
            "the package index has no wheel of {}{wanted} for Linux on {}; ask for another version, \
             or bring the wheel with --from-wheel",
            packages.join(" or "),
            self.arch
        )))
    }

    /// Fetches the wheel of `package` in `version` that has one of the sums, for the first of the
    /// Pythons that `tags` (such as `cp312`) has.
    ///
    /// # Errors
    /// `NOT_FOUND` when the index has none of them; what pip says.
    pub(super) fn fetch(
        &self,
        package: &str,
        version: &Version,
        tags: &[&str],
        sums: &[&str],
    ) -> Result<Fetched, Status> {
        let into = self.folder.join("wheel");
        fs::create_dir_all(&into).map_err(|p| super::wheel::unwritable(&into, &p))?;
        let list = self.folder.join("requirements.txt");
        let hashes: String = sums.iter().map(|sum| format!(" --hash=sha256:{sum}")).collect();
        fs::write(&list, format!("{package}=={version}{hashes}\n"))
            .map_err(|p| super::wheel::unwritable(&list, &p))?;
        let mut last = String::new();
        for python in PYTHONS.iter().filter(|python| fits(python, tags)) {
            // The verbose log tells whether the index itself gave the sum.
            let mut command = self.command("download", python);
            command.args(["-vv", "--require-hashes", "--dest"]).arg(&into).arg("-r").arg(&list);
            let done = self.run(command, &format!("downloading {package}=={version}"))?;
            if done.succeeded {
                let index_vouches = done.stdout.lines().any(says_that_the_index_vouches);
                return Ok(Fetched { path: only_file(&into)?, index_vouches });
            }
            if !done.stderr.contains("No matching distribution found") {
                return Err(failed(&done.stderr));
            }
            last = done.stderr;
        }
        Err(Status::not_found(format!(
            "the package index has no wheel of {package}=={version} for Linux on {} with the sum \
             wanted; bring the wheel with --from-wheel\n{last}",
            self.arch
        )))
    }

    fn command(&self, verb: &str, python: &str) -> Command {
        let mut command = Command::new("python3");
        command.args(["-m", "pip", verb, "--no-input", "--disable-pip-version-check", "--no-deps"]);
        command.args(["--only-binary=:all:", "--implementation", "cp", "--python-version", python]);
        for platform in platforms(self.arch) {
            command.args(["--platform", &platform]);
        }
        command
            .args(["--progress-bar", "off"])
            // Partial files lie where they are swept, on the disk that they are meant for.
            .env("TMPDIR", self.folder)
            .env("PYTHONUNBUFFERED", "1")
            // Words that would be understood in another language's terms.
            .env("LC_ALL", "C.UTF-8")
            // Settings that are about installing into a Python, which this does not.
            .env("PIP_REQUIRE_VIRTUALENV", "0")
            .env("PIP_USER", "0")
            .env_remove("PIP_QUIET")
            .env_remove("PIP_TARGET")
            .env_remove("PIP_NO_BINARY");
        command
    }

    /// Runs pip and shows how the file grows meanwhile.
    fn run(&self, mut command: Command, step: &str) -> Result<Finished, Status> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(no_python)?;
        let step = Step::begin(self.progress, step);
        let (over, total) = (AtomicBool::new(false), AtomicU64::new(0));
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let finished = std::thread::scope(|scope| {
            let errors = scope.spawn(move || {
                let mut text = Vec::new();
                if let Some(mut err) = err {
                    let _ = err.by_ref().take(STDERR_BYTES_MAX).read_to_end(&mut text);
                    let _ = std::io::copy(&mut err, &mut std::io::sink());
                }
                String::from_utf8_lossy(&text).into_owned()
            });
            let watched = scope.spawn(|| {
                while !over.load(Ordering::Acquire) {
                    step.reach(wheel_bytes(self.folder), total.load(Ordering::Relaxed));
                    std::thread::park_timeout(LOOK);
                }
            });
            let mut stdout = String::new();
            for line in out.map(BufReader::new).into_iter().flat_map(|out| out.split(b'\n')) {
                let Ok(line) = line else { break };
                let line = String::from_utf8_lossy(&line);
                if let Some(bytes) = announced_bytes(&line) {
                    total.store(bytes, Ordering::Relaxed);
                }
                if says_that_the_index_vouches(&line) {
                    stdout.push_str(&line);
                    stdout.push('\n');
                }
            }
            let status = child.wait();
            over.store(true, Ordering::Release);
            watched.thread().unpark();
            let stderr = errors.join().unwrap_or_default();
            status.map(|status| Finished { stdout, stderr, succeeded: status.success() })
        });
        finished.map_err(|problem| Status::internal(format!("pip was lost: {problem}")))
    }
}

/// Whether the tags of the wheels wanted have one for this Python, or for any.
fn fits(python: &str, tags: &[&str]) -> bool {
    let tag = format!("cp{}", python.replace('.', ""));
    tags.iter().any(|&known| known == tag || !known.starts_with("cp"))
}

/// The platform tags of a processor, from the newest glibc to the oldest.
fn platforms(arch: &str) -> Vec<String> {
    let mut platforms: Vec<String> =
        GLIBC_MINORS.rev().map(|minor| format!("manylinux_2_{minor}_{arch}")).collect();
    platforms.extend(["2014", "2010", "1"].map(|name| format!("manylinux{name}_{arch}")));
    platforms.push(format!("linux_{arch}"));
    platforms
}

/// pip's log line on the candidates of a package that is fetched by its sums: those whose sum the
/// index gave and that match are counted first.
fn says_that_the_index_vouches(line: &str) -> bool {
    let counts =
        line.trim_start().strip_prefix("Checked ").and_then(|rest| rest.split_once(" hashes ("));
    counts
        .and_then(|(_, counts)| counts.split_once(" matches"))
        .and_then(|(matches, _)| matches.parse::<u64>().ok())
        .is_some_and(|matches| matches > 0)
}

/// The size in pip's line `Downloading NAME.whl (274.0 MB)`.
fn announced_bytes(line: &str) -> Option<u64> {
    let line = line.trim();
    if !(line.starts_with("Downloading ") || line.starts_with("Using cached ")) {
        return None;
    }
    let (name, size) = line.strip_suffix(')')?.rsplit_once(" (")?;
    let (number, unit) = size.split_once(' ')?;
    let unit = match unit {
        "bytes" => 1.0,
        "kB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        _ => return None,
    };
    let bytes = number.parse::<f64>().ok()? * unit;
    (name.ends_with(".whl") && bytes.is_finite() && bytes >= 0.0).then_some(bytes as u64)
}

/// Bytes of the wheels that pip is writing.
fn wheel_bytes(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let of = |entry: fs::DirEntry| {
        let path = entry.path();
        // pip makes a folder of its own for what it unpacks.
        if path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("pip-unpack-")) {
            wheel_bytes(&path)
        } else if path.extension().is_some_and(|extension| extension == "whl") {
            entry.metadata().map_or(0, |found| found.len())
        } else {
            0
        }
    };
    entries.flatten().map(of).sum()
}

fn only_file(folder: &Path) -> Result<PathBuf, Status> {
    let mut files = fs::read_dir(folder)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect::<Vec<_>>())
        .unwrap_or_default();
    match (files.pop(), files.is_empty()) {
        (Some(file), true) => Ok(file),
        _ => Err(Status::internal("pip said that it downloaded the wheel, but it is not there")),
    }
}

#[derive(Deserialize)]
struct Report {
    install: Vec<ReportEntry>,
}

#[derive(Deserialize)]
struct ReportEntry {
    download_info: DownloadInfo,
}

#[derive(Deserialize)]
struct DownloadInfo {
    url: String,
    #[serde(default)]
    archive_info: ArchiveInfo,
}

#[derive(Default, Deserialize)]
struct ArchiveInfo {
    #[serde(default)]
    hash: Option<String>,
    #[serde(default)]
    hashes: std::collections::HashMap<String, String>,
}

fn read_report(path: &Path) -> Result<Offer, Status> {
    let unreadable = |problem: String| {
        Status::internal(format!(
            "pip's report cannot be read: {problem}; a newer pip may help (python3 -m pip install \
             --upgrade pip), or bring the wheel with --from-wheel"
        ))
    };
    let text = fs::read(path).map_err(|problem| unreadable(problem.to_string()))?;
    let report: Report =
        serde_json::from_slice(&text).map_err(|problem| unreadable(problem.to_string()))?;
    let [entry] = &report.install[..] else {
        return Err(unreadable(format!("it names {} packages", report.install.len())));
    };
    let DownloadInfo { url, archive_info } = &entry.download_info;
    let file = url.split(['#', '?']).next().and_then(|url| url.rsplit('/').next());
    // A local version (`+cpu`) is quoted in an address.
    let name = WheelName::parse(&file.unwrap_or_default().replace("%2B", "+"))?;
    let older = archive_info.hash.as_deref().and_then(|hash| hash.strip_prefix("sha256="));
    let sha256 = archive_info.hashes.get("sha256").map(String::as_str).or(older);
    Ok(Offer { name, sha256: sha256.map(str::to_ascii_lowercase) })
}

fn no_python(problem: std::io::Error) -> Status {
    Status::failed_precondition(format!(
        "python3 cannot be started: {problem}; install python3 with pip, or bring the wheel with \
         --from-wheel"
    ))
}

/// What pip's failure means for the user, with pip's own words.
fn failed(stderr: &str) -> Status {
    let advice = if stderr.contains("No module named pip") {
        "python3 has no pip; install it (python3-pip in most distributions), or bring the wheel with \
         --from-wheel"
    } else if stderr.contains("no such option") {
        "this pip is too old: 22.2 or later is needed (python3 -m pip install --upgrade pip), or \
         bring the wheel with --from-wheel"
    } else if stderr.contains("DO NOT MATCH THE HASHES") {
        "the index gave a wheel with another sum than the one wanted; it is refused"
    } else {
        "pip could not fetch the wheel; see its own words, or bring the wheel with --from-wheel"
    };
    Status::unavailable(format!("{advice}\n{}", stderr.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_indexs_word_is_read_from_pips_log() {
        let line = |matches, none| {
            format!(
                "  Checked 1 links for project 'tensorflow-cpu' against 1 hashes ({matches} \
                 matches, {none} no digest): discarding no candidates"
            )
        };
        assert!(says_that_the_index_vouches(&line(1, 0)));
        assert!(!says_that_the_index_vouches(&line(0, 1)));
        assert!(!says_that_the_index_vouches("Checked by 3 matches"));
        assert!(!says_that_the_index_vouches("Given no hashes to check 1 links for project 'x'"));
    }

    #[test]
    fn sizes_are_read_from_pips_lines() {
        assert_eq!(
            announced_bytes("Downloading a-1-py3-none-any.whl (274.0 MB)"),
            Some(274_000_000)
        );
        assert_eq!(announced_bytes("  Using cached a.whl (1.5 kB)"), Some(1500));
        assert_eq!(announced_bytes("Downloading a.whl.metadata (3.4 kB)"), None);
        assert_eq!(announced_bytes("Downloading a.whl (lots)"), None);
    }

    #[test]
    fn pythons_follow_the_tags() {
        assert!(fits("3.12", &["cp311", "cp312"]));
        assert!(!fits("3.10", &["cp311", "cp312"]));
        assert!(fits("3.9", &["py3"]));
    }

    #[test]
    fn failures_say_what_to_do() {
        for (words, advice) in [
            ("/usr/bin/python3: No module named pip", "install it"),
            ("no such option: --report", "22.2 or later"),
            ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES", "another sum"),
            ("ERROR: connection refused", "see its own words"),
        ] {
            let status = failed(words);
            assert!(status.message().contains(advice) && status.message().contains(words));
        }
    }
}

//! A wheel at rest: its file name, its RECORD, and the few files that are taken out of it.
//!
//! May not know: where it came from, the store's layout.
//! Invariant: nothing is written outside the folder given, nothing that RECORD does not vouch for
//! stays, and no more than the limits is read, whatever the wheel claims.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write as _};
use std::path::{Component, Path};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use vesta_model::Status;
use zip::ZipArchive;

use super::entry;
use super::packages::Package;
use super::version::Version;

/// More entries than this are not read; TensorFlow's wheel has about 13,000.
const ENTRIES_MAX: usize = 200_000;
/// A RECORD of more bytes is refused; TensorFlow's has about 1.3 MB.
const RECORD_BYTES_MAX: u64 = 64 << 20;
/// More than this is not taken out of a wheel.
const EXTRACTED_BYTES_MAX: u64 = 8 << 30;
/// Read and written at once.
const CHUNK_BYTES: usize = 1 << 20;

/// What a wheel's file name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WheelName {
    /// The whole file name.
    pub(super) file: String,
    /// The package, normalised as indexes do: `tensorflow-cpu`.
    pub(super) package: String,
    pub(super) version: Version,
    /// The Python tag, such as `cp312`.
    pub(super) python: String,
    /// The platform tags, such as `manylinux_2_27_x86_64`.
    pub(super) platforms: Vec<String>,
}

impl WheelName {
    /// Reads `package-version(-build)?-python-abi-platform.whl`.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`.
    pub(super) fn parse(file: &str) -> Result<WheelName, Status> {
        let read = || {
            let parts: Vec<&str> = file.strip_suffix(".whl")?.split('-').collect();
            if !matches!(parts.len(), 5 | 6) || parts.iter().any(|part| part.is_empty()) {
                return None;
            }
            let tags = &parts[parts.len() - 3..];
            Some(WheelName {
                file: file.to_owned(),
                package: parts[0].to_ascii_lowercase().replace(['_', '.'], "-"),
                version: Version::parse(parts[1])?,
                python: tags[0].to_owned(),
                platforms: tags[2].split('.').map(str::to_owned).collect(),
            })
        };
        read().ok_or_else(|| {
            Status::invalid_argument(format!(
                "{file} is not the file name of a wheel (package-version-python-abi-platform.whl); \
                 keep the name that the package index gave it"
            ))
        })
    }

    /// Whether its libraries run on Linux on this processor.
    pub(super) fn runs_on(&self, arch: &str) -> bool {
        self.platforms.iter().any(|tag| {
            tag.strip_suffix(arch)
                .and_then(|system| system.strip_suffix('_'))
                .is_some_and(|system| system.starts_with("manylinux") || system == "linux")
        })
    }
}

/// The sha256 of a file, in hexadecimal.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn sha256_of(path: &Path, mut at: impl FnMut(u64)) -> io::Result<String> {
    let mut file = File::open(path)?;
    let (mut sum, mut chunk, mut done) = (Sha256::new(), vec![0; CHUNK_BYTES], 0);
    loop {
        let bytes = file.read(&mut chunk)?;
        if bytes == 0 {
            return Ok(hex(&sum.finalize()));
        }
        sum.update(&chunk[..bytes]);
        done += bytes as u64;
        at(done);
    }
}

/// Bytes in lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What RECORD says of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Recorded {
    sha256: Vec<u8>,
    bytes: u64,
}

/// A wheel that is open.
pub(super) struct Wheel {
    archive: ZipArchive<BufReader<File>>,
    /// By path inside the wheel.
    record: HashMap<String, Recorded>,
}

/// One file to take out.
struct Taken {
    index: usize,
    /// Path inside the wheel.
    path: String,
    /// Path inside the entry.
    target: String,
    recorded: Recorded,
}

impl Wheel {
    /// Opens a wheel and reads its table of contents and RECORD.
    ///
    /// # Errors
    /// `DATA_LOSS` for what is truncated or no wheel, `INVALID_ARGUMENT` for what is hostile.
    pub(super) fn open(path: &Path) -> Result<Wheel, Status> {
        let file = File::open(path).map_err(|problem| {
            Status::not_found(format!("{} cannot be opened: {problem}", path.display()))
        })?;
        let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|p| unreadable(&p))?;
        if archive.len() > ENTRIES_MAX {
            return Err(hostile(&format!("it has {} entries", archive.len())));
        }
        let mut records = Vec::new();
        for index in 0..archive.len() {
            let entry = archive.by_index_raw(index).map_err(|p| unreadable(&p))?;
            let name = entry.name().map_err(|p| unreadable(&p))?;
            if !is_plain(name.trim_end_matches('/')) {
                return Err(hostile(&format!("an entry is called {name:?}")));
            }
            if entry.is_symlink() {
                return Err(hostile(&format!("{name} is a symbolic link")));
            }
            let in_dist_info = name.split_once('/').map(|(top, rest)| (dist_info(top), rest));
            if in_dist_info == Some((true, "RECORD")) {
                records.push(index);
            }
        }
        let [record] = records[..] else {
            return Err(Status::data_loss(format!(
                "the wheel has {} RECORD files, not one; is it a wheel?",
                records.len()
            )));
        };
        let record = read_record(&mut archive, record)?;
        Ok(Wheel { archive, record })
    }

    /// Takes the libraries and licences of `package` out, into `folder`, which exists; `at` is told
    /// bytes done and bytes in all.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` when a needed library is not there, `DATA_LOSS` when a file is not
    /// what RECORD says, and what the file system says.
    pub(super) fn extract(
        &mut self,
        package: &Package,
        folder: &Path,
        mut at: impl FnMut(u64, u64),
    ) -> Result<Vec<entry::File>, Status> {
        let taken = self.choose(package)?;
        let total: u64 = taken.iter().map(|file| file.recorded.bytes).sum();
        let mut done = 0;
        let mut files = Vec::new();
        for file in &taken {
            self.extract_one(file, folder, |bytes| {
                done += bytes;
                at(done, total);
            })?;
            files.push(entry::File {
                path: file.target.clone(),
                bytes: file.recorded.bytes,
                sha256: hex(&file.recorded.sha256),
            });
        }
        Ok(files)
    }

    fn choose(&mut self, package: &Package) -> Result<Vec<Taken>, Status> {
        let mut taken: Vec<Taken> = Vec::new();
        let mut total = 0_u64;
        for index in 0..self.archive.len() {
            let entry = self.archive.by_index_raw(index).map_err(|p| unreadable(&p))?;
            let path = entry.name().map_err(|p| unreadable(&p))?.into_owned();
            let (false, Some(target)) = (entry.is_dir(), target(package, &path)) else { continue };
            let Some(recorded) = self.record.get(&path).cloned() else {
                return Err(Status::data_loss(format!("{path} has no sum in the wheel's RECORD")));
            };
            if entry.size() != recorded.bytes {
                return Err(Status::data_loss(format!(
                    "{path} has {} bytes, not {} as RECORD says",
                    entry.size(),
                    recorded.bytes
                )));
            }
            total = total.saturating_add(recorded.bytes);
            if taken.iter().any(|other| other.target == target) {
                return Err(hostile(&format!("two entries would become {target}")));
            }
            taken.push(Taken { index, path, target, recorded });
        }
        if total > EXTRACTED_BYTES_MAX {
            return Err(hostile(&format!("it would become {total} bytes")));
        }
        for library in package.libraries.iter().filter(|library| library.needed) {
            if !taken.iter().any(|file| library.holds(&file.path)) {
                return Err(Status::failed_precondition(format!(
                    "the wheel has no {}{}*; this release does not bring the engine as a library, \
                     choose another",
                    library.folder, library.begins
                )));
            }
        }
        Ok(taken)
    }

    fn extract_one(
        &mut self,
        file: &Taken,
        folder: &Path,
        mut progressed: impl FnMut(u64),
    ) -> Result<(), Status> {
        let target = folder.join(&file.target);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(|p| unwritable(parent, &p))?;
        }
        let mut out = File::create_new(&target).map_err(|p| unwritable(&target, &p))?;
        let entry = self.archive.by_index(file.index).map_err(|p| unreadable(&p))?;
        // One byte more than promised shows a file that is longer; a bomb gets no further.
        let mut entry = entry.take(file.recorded.bytes.saturating_add(1));
        let (mut sum, mut chunk, mut size) = (Sha256::new(), vec![0; CHUNK_BYTES], 0_u64);
        loop {
            let bytes = entry
                .read(&mut chunk)
                .map_err(|p| Status::data_loss(format!("{} cannot be unpacked: {p}", file.path)))?;
            if bytes == 0 {
                break;
            }
            size += bytes as u64;
            if size > file.recorded.bytes {
                break;
            }
            sum.update(&chunk[..bytes]);
            out.write_all(&chunk[..bytes]).map_err(|p| unwritable(&target, &p))?;
            progressed(bytes as u64);
        }
        if size != file.recorded.bytes || sum.finalize().as_slice() != file.recorded.sha256 {
            return Err(Status::data_loss(format!(
                "{} is not what the wheel's RECORD says; the wheel is damaged, fetch it again",
                file.path
            )));
        }
        out.sync_all().map_err(|p| unwritable(&target, &p))
    }
}

impl super::packages::Library {
    fn holds(&self, path: &str) -> bool {
        let name = path.strip_prefix(self.folder);
        name.is_some_and(|name| !name.contains('/') && name.starts_with(self.begins))
    }
}

/// Where a file of the wheel goes inside the entry; `None` when it is not taken.
fn target(package: &Package, path: &str) -> Option<String> {
    if package.libraries.iter().any(|library| library.holds(path)) {
        return path.rsplit('/').next().map(str::to_owned);
    }
    let (top, rest) = path.split_once('/')?;
    let kept = if dist_info(top) {
        rest.starts_with("licenses/") || is_license(rest)
    } else {
        path.strip_prefix(package.top).is_some_and(is_license)
    };
    kept.then(|| format!("licenses/{path}"))
}

fn dist_info(folder: &str) -> bool {
    folder.ends_with(".dist-info")
}

/// Whether a file, by its name, says under which terms the package may be used.
fn is_license(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace(['_', '-'], "");
    let begins = ["license", "licence", "copying", "notice", "thirdparty", "authors"];
    !name.contains('/') && !name.ends_with(".py") && begins.iter().any(|b| name.starts_with(b))
}

/// Whether a path has nothing but names in it.
fn is_plain(path: &str) -> bool {
    let names = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    names && !path.is_empty() && !path.contains(['\\', '\0'])
}

fn read_record(
    archive: &mut ZipArchive<BufReader<File>>,
    index: usize,
) -> Result<HashMap<String, Recorded>, Status> {
    let entry = archive.by_index(index).map_err(|p| unreadable(&p))?;
    let mut text = String::new();
    entry
        .take(RECORD_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|p| Status::data_loss(format!("RECORD cannot be read: {p}")))?;
    if text.len() as u64 > RECORD_BYTES_MAX {
        return Err(hostile("its RECORD is larger than 64 MiB"));
    }
    Ok(parse_record(&text))
}

/// Reads the lines `path,sha256=...,bytes`; lines without a sum vouch for nothing and are left out.
fn parse_record(text: &str) -> HashMap<String, Recorded> {
    let line = |line: &str| {
        // Sums and sizes hold no comma; a path that does is quoted.
        let mut parts = line.rsplitn(3, ',');
        let bytes = parts.next()?.trim().parse().ok()?;
        let sha256 = parts.next()?.strip_prefix("sha256=")?;
        let sha256 = URL_SAFE_NO_PAD.decode(sha256.trim_end_matches('=')).ok()?;
        let path = parts.next()?;
        let path = match path.strip_prefix('"').and_then(|path| path.strip_suffix('"')) {
            Some(quoted) => quoted.replace("\"\"", "\""),
            None => path.to_owned(),
        };
        (sha256.len() == 32).then_some((path, Recorded { sha256, bytes }))
    };
    text.lines().filter_map(line).collect()
}

fn unreadable(problem: &zip::result::ZipError) -> Status {
    Status::data_loss(format!(
        "the wheel cannot be read: {problem}; it is damaged or truncated, fetch it again"
    ))
}

fn hostile(problem: &str) -> Status {
    Status::invalid_argument(format!("the wheel is refused: {problem}, as no good wheel has"))
}

/// What could not be written, and what to do.
pub(super) fn unwritable(path: &Path, problem: &io::Error) -> Status {
    let (code, advice) = match problem.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => (
            vesta_model::Code::ResourceExhausted,
            "free some space or set VESTA_HOME to another disk",
        ),
        _ => (
            vesta_model::Code::PermissionDenied,
            "set VESTA_HOME to a folder that you can write, or run as a user who can",
        ),
    };
    Status::new(code, format!("{} cannot be written: {problem}; {advice}", path.display()))
}

#[cfg(test)]
pub(super) mod tests;

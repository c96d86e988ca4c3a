//! Copies of versions on the local disk.
//!
//! Owns: where a copy lies, what is known of its files, who uses it, and when it goes. May not know:
//! where copies come from.
//!
//! Below the root each base path has a folder. In it, a version in one state of its files has a name
//! of its own, and under that name: a folder that is whole or not there, a `.partial` folder while it
//! is being fetched, a `.json` manifest, and a `.lock` file. Whoever fetches or removes holds the lock
//! alone, whoever uses holds it with others; locks end with their process, so servers may share a
//! root and none leaves anything locked.
//! Invariants: a folder without `.partial` holds exactly what its manifest says; nothing is removed
//! that is in use or wanted by this process.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tracing::{info, warn};
use vesta_model::{Status, Version};

/// How often one looks whether others are done with a copy.
const LOCK_INTERVAL: Duration = Duration::from_millis(100);

/// A damaged copy that is held for so long is used, and not just looked at.
const DAMAGED_FOR: Duration = Duration::from_secs(5);

/// What is known of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileRecord {
    /// Its path within the version.
    pub(crate) path: String,
    pub(crate) bytes: u64,
    /// How the store names its state.
    pub(crate) e_tag: Option<String>,
    pub(crate) sha256: String,
}

/// What is known of one copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// Where it was fetched from.
    pub(crate) url: String,
    pub(crate) files: Vec<FileRecord>,
}

/// All copies.
pub(crate) struct Cache {
    root: Result<PathBuf, Status>,
    /// By base path, the versions that are wanted; a base path that was never heard of is left alone.
    wanted: Mutex<BTreeMap<String, BTreeSet<Version>>>,
}

/// One copy, whether it is there or not.
pub(crate) struct Slot {
    pub(crate) directory: PathBuf,
    pub(crate) partial: PathBuf,
    manifest: PathBuf,
    lock: PathBuf,
}

/// What may be done with a copy while this is held.
pub(crate) enum Grip {
    /// It is whole, and stays.
    Use(File),
    /// It is not whole, and nobody else has it.
    Fetch(File),
}

impl Cache {
    pub(crate) fn new(root: Result<PathBuf, Status>) -> Cache {
        Cache { root, wanted: Mutex::default() }
    }

    /// Makes the root.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION`, naming the flag, when it cannot be written to.
    pub(crate) fn prepare(&self) -> Result<&Path, Status> {
        let root = self.root.as_ref().map_err(Clone::clone)?;
        let unusable = |e: io::Error| {
            Status::failed_precondition(format!(
                "models cannot be copied to {}: {e}; give a directory that can be written to with \
                 --model_cache_path",
                root.display()
            ))
            .with_cause(e)
        };
        fs::create_dir_all(root).map_err(unusable)?;
        let probe = root.join(format!(".probe-{}", std::process::id()));
        File::create(&probe).map_err(unusable)?;
        let _ = fs::remove_file(&probe);
        Ok(root)
    }

    /// The copy of a version in a state of its files.
    ///
    /// # Errors
    /// See [`prepare`](Self::prepare).
    pub(crate) fn slot(
        &self,
        base: &str,
        version: Version,
        fingerprint: &str,
    ) -> Result<Slot, Status> {
        let folder = folder(self.prepare()?, base);
        let name = format!("{version}-{fingerprint}");
        fs::create_dir_all(&folder).map_err(|e| unwritable(&folder, e))?;
        Ok(Slot {
            directory: folder.join(&name),
            partial: folder.join(format!("{name}.partial")),
            manifest: folder.join(format!("{name}.json")),
            lock: folder.join(format!("{name}.lock")),
        })
    }

    /// Says which versions are wanted; copies of others go as soon as nobody uses them.
    pub(crate) fn keep(&self, base: &str, wanted: &[Version]) {
        let wanted: BTreeSet<Version> = wanted.iter().copied().collect();
        let before = self.wanted().insert(base.to_owned(), wanted.clone());
        if before.as_ref() != Some(&wanted) {
            self.prune(base, None);
        }
    }

    /// Removes what is not wanted of a base path, and of `version` all but the copy called `current`.
    pub(crate) fn prune(&self, base: &str, current: Option<(Version, &Path)>) {
        let Ok(root) = &self.root else { return };
        let Some(wanted) = self.wanted().get(base).cloned() else { return };
        let folder = folder(root, base);
        let Ok(entries) = fs::read_dir(&folder) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(stem) = name.to_str().and_then(|name| name.strip_suffix(".lock")) else {
                continue;
            };
            let Some(version) = stem.rsplit_once('-').and_then(|(v, _)| v.parse().ok()) else {
                continue;
            };
            let version = Version(version);
            let is_former =
                current.is_some_and(|(of, directory)| of == version && !directory.ends_with(stem));
            if is_former || !wanted.contains(&version) {
                remove(&folder, stem);
            }
        }
    }

    fn wanted(&self) -> MutexGuard<'_, BTreeMap<String, BTreeSet<Version>>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// Takes hold of the copy: to use it when it is whole, else to fetch it. Waits for others that
    /// fetch it.
    ///
    /// # Errors
    /// `UNAVAILABLE` when it is damaged and others use it, so that it cannot be replaced.
    pub(crate) fn grip(&self) -> Result<Grip, Status> {
        let failed = |e| unwritable(&self.lock, e);
        let mut damaged_until = Instant::now() + DAMAGED_FOR;
        loop {
            let file = File::options().create(true).truncate(false).write(true).open(&self.lock);
            let file = file.map_err(failed)?;
            let shared = taken(file.try_lock_shared()).map_err(failed)?;
            if shared && self.is_current(&file) && self.is_whole() {
                return Ok(Grip::Use(file));
            }
            if shared {
                file.unlock().map_err(failed)?;
            }
            if taken(file.try_lock()).map_err(failed)? {
                if self.is_current(&file) {
                    return Ok(Grip::Fetch(file));
                }
            } else if shared && Instant::now() >= damaged_until && self.directory.is_dir() {
                return Err(Status::unavailable(format!(
                    "the copy {} is damaged and cannot be fetched anew while it is used; unload \
                     the version first",
                    self.directory.display()
                )));
            } else {
                if !shared {
                    // Somebody fetches.
                    damaged_until = Instant::now() + DAMAGED_FOR;
                }
                thread::sleep(LOCK_INTERVAL);
            }
        }
    }

    /// Whether a lock's file is still the one of that name: the copy may have been removed before the
    /// lock was had.
    fn is_current(&self, file: &File) -> bool {
        fs::metadata(&self.lock)
            .and_then(|there| Ok(there.ino() == file.metadata()?.ino()))
            .unwrap_or(false)
    }

    /// Whether the copy is there and its files are what they were.
    fn is_whole(&self) -> bool {
        if !self.directory.is_dir() {
            return false;
        }
        let outcome = read_manifest(&self.manifest).and_then(|manifest| {
            for file in &manifest.files {
                let (bytes, sha256) = digest(&self.directory.join(&file.path))?;
                if bytes != file.bytes || sha256 != file.sha256 {
                    return Err(io::Error::other(format!("{} was changed", file.path)));
                }
            }
            Ok(())
        });
        if let Err(problem) = &outcome {
            warn!("{} is fetched anew: {problem}", self.directory.display());
        }
        outcome.is_ok()
    }

    /// Removes what is there, but for what is partly fetched.
    pub(crate) fn clear(&self) -> Result<(), Status> {
        for gone in [remove_tree(&self.directory), remove_file(&self.manifest)] {
            gone.map_err(|e| unwritable(&self.directory, e))?;
        }
        Ok(())
    }

    /// Makes what was fetched the copy.
    pub(crate) fn publish(&self, manifest: &Manifest) -> Result<(), Status> {
        let publish = || -> io::Result<()> {
            let text = serde_json::to_vec_pretty(manifest)?;
            let mut file = File::create(&self.manifest)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&self.partial, &self.directory)?;
            match self.directory.parent() {
                Some(folder) => File::open(folder)?.sync_all(),
                None => Ok(()),
            }
        };
        publish().map_err(|e| unwritable(&self.directory, e))
    }
}

/// The folder of a base path: its name for people, and a digest, since names may be long and odd.
fn folder(root: &Path, base: &str) -> PathBuf {
    let name: String = base
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '.' || c == '-' { c } else { '_' })
        .take(80)
        .collect();
    root.join(format!("{name}-{}", &hex(&Sha256::digest(base))[..16]))
}

/// Whether a lock was to be had at once.
fn taken(outcome: Result<(), TryLockError>) -> io::Result<bool> {
    match outcome {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(problem)) => Err(problem),
    }
}

/// Removes a copy unless somebody uses it.
fn remove(folder: &Path, stem: &str) {
    let path = |suffix: &str| folder.join(format!("{stem}{suffix}"));
    let outcome = File::open(path(".lock")).and_then(|lock| {
        if !taken(lock.try_lock())? {
            return Ok(false);
        }
        remove_tree(&path(""))?;
        remove_tree(&path(".partial"))?;
        remove_file(&path(".json"))?;
        remove_file(&path(".lock"))?;
        Ok(true)
    });
    match outcome {
        Ok(true) => info!("removed the copy {}", path("").display()),
        Ok(false) => {}
        Err(problem) => warn!("the copy {} cannot be removed: {problem}", path("").display()),
    }
}

fn remove_tree(path: &Path) -> io::Result<()> {
    absent_is_fine(fs::remove_dir_all(path))
}

fn remove_file(path: &Path) -> io::Result<()> {
    absent_is_fine(fs::remove_file(path))
}

fn absent_is_fine(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(problem) if problem.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn read_manifest(path: &Path) -> io::Result<Manifest> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// Length and SHA-256 of a file.
fn digest(path: &Path) -> io::Result<(u64, String)> {
    let mut hasher = Sha256::new();
    let bytes = read_through(path, |part| hasher.update(part))?;
    Ok((bytes, hex(&hasher.finalize())))
}

/// Reads a file part by part; gives its length.
pub(crate) fn read_through(path: &Path, mut take: impl FnMut(&[u8])) -> io::Result<u64> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(bytes);
        }
        take(&buffer[..count]);
        bytes += count as u64;
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn unwritable(path: &Path, error: io::Error) -> Status {
    Status::failed_precondition(format!("{} cannot be written: {error}", path.display()))
        .with_cause(error)
}

/// What to do once a copy is no longer used.
pub(crate) fn let_go(cache: &Arc<Cache>, base: &str) -> Box<dyn Fn() + Send + Sync> {
    let (cache, base) = (Arc::clone(cache), base.to_owned());
    Box::new(move || cache.prune(&base, None))
}

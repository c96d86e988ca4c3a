//! Changes to the store: installing and removing.
//!
//! May not know: terminals. Invariant: an entry appears whole, by one rename, or not at all; one
//! process changes a store at a time; what an interrupted one left is swept by the next.

use std::fs::{self, File, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use vesta_model::Status;

use super::entry::{self, Installed, MANIFEST, Manifest};
use super::packages::{self, Package, Pin};
use super::pip::{Offer, Pip};
use super::progress::{Progress, Step};
use super::version::Version;
use super::wheel::{self, Wheel, WheelName, unwritable};
use super::{ENGINES, EngineStore};
use crate::EngineName;

/// Held by whoever changes the store.
const LOCK: &str = ".lock";
/// How the name of an unfinished folder begins.
const UNFINISHED: &str = ".unfinished-";

/// What is to be installed.
#[derive(Clone, Debug)]
pub struct InstallRequest {
    /// Which engine.
    pub name: EngineName,
    /// Which release or series (`2.15`); without one the newest that is pinned.
    pub version: Option<String>,
    /// The sha256 that the wheel must have, in hexadecimal; it replaces the pins and the index's.
    pub sha256: Option<String>,
    /// A wheel that is here already; nothing is fetched.
    pub wheel: Option<PathBuf>,
}

/// The engine that a wheel brings, by its file name.
///
/// # Errors
/// `INVALID_ARGUMENT` when it is no wheel's name, or that of another package.
pub fn engine_of_wheel(path: &Path) -> Result<EngineName, Status> {
    let file = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let name = WheelName::parse(&file)?;
    let brings = |engine: &&EngineName| {
        let package = packages::package(**engine);
        package.is_some_and(|p| p.names(std::env::consts::ARCH).contains(&name.package.as_str()))
    };
    super::NATIVE.iter().find(brings).copied().ok_or_else(|| {
        Status::invalid_argument(format!(
            "{file} is a wheel of {}, which is no engine",
            name.package
        ))
    })
}

/// Who vouched for the wheel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Voucher {
    /// This project: the sum is in its table.
    Pin,
    /// The caller, who gave the sum.
    Caller,
    /// The package index.
    Index,
    /// Nobody from outside: only the sums inside the wheel were compared.
    WheelItself,
}

/// How an installation ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The engine.
    pub installed: Installed,
    /// Who vouched for it; `None` when it was installed before.
    pub voucher: Option<Voucher>,
}

impl EngineStore {
    /// Brings an engine into the store. What is there already, sound, is left as it is; a damaged
    /// entry is replaced.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for requests that cannot be met, `FAILED_PRECONDITION` when nobody vouches
    /// for the wheel, `DATA_LOSS` for a wheel that is not what it should be, `PERMISSION_DENIED` and
    /// `RESOURCE_EXHAUSTED` for a store that cannot be written, and what pip says. All say what to
    /// do.
    pub fn install(
        &self,
        request: &InstallRequest,
        progress: &dyn Progress,
    ) -> Result<Outcome, Status> {
        let Some(package) = packages::package(request.name) else {
            return Err(Status::invalid_argument(
                "the embedded engine is part of the program; there is nothing to install",
            ));
        };
        let wanted =
            request.version.as_deref().map(|text| super::parse(request.name, text)).transpose()?;
        let sum = request.sha256.as_deref().map(checked_sum).transpose()?;
        let arch = std::env::consts::ARCH;
        let job = Job {
            store: self,
            name: request.name,
            package,
            arch,
            pins: packages::pins(request.name, arch),
            sum,
            progress,
        };
        match &request.wheel {
            Some(wheel) => job.take_wheel(wheel, wanted.as_ref()),
            None => job.take_offered(wanted),
        }
    }

    /// Takes an engine out of the store: the release that `version` names, or without one the only
    /// one there. Gives the entry's version.
    ///
    /// # Errors
    /// `NOT_FOUND` when it is not there, `FAILED_PRECONDITION` when several are and none was named,
    /// both with what there is; `PERMISSION_DENIED` when it lies in a place that cannot be written.
    pub fn remove(
        &self,
        name: EngineName,
        version: Option<&str>,
        progress: &dyn Progress,
    ) -> Result<String, Status> {
        let wanted = version.map(|text| super::parse(name, text)).transpose()?;
        let entries = self.entries(name);
        let all: Vec<String> = entries.iter().map(|(v, _)| format!("{name}=={v}")).collect();
        // Nothing is removed by the name of a series alone.
        let fits = |found: &Version| wanted.as_ref().is_none_or(|wanted| wanted == found);
        let found: Vec<_> = entries.into_iter().filter(|(version, _)| fits(version)).collect();
        let asked =
            version.map_or_else(|| name.to_string(), |version| format!("{name}=={version}"));
        let there = if all.is_empty() { "nothing".to_owned() } else { all.join(", ") };
        let own: Vec<_> = found.iter().filter(|(_, at)| at.starts_with(&self.home)).collect();
        let (version, folder) = match (&own[..], &found[..]) {
            ([only], _) => only,
            ([], [(_, elsewhere), ..]) => {
                return Err(Status::new(
                    vesta_model::Code::PermissionDenied,
                    format!(
                        "{asked} lies in {}, which is never written; remove it with what put it \
                         there",
                        elsewhere.display()
                    ),
                ));
            }
            ([], []) => {
                return Err(Status::not_found(format!(
                    "engine {asked} is not installed; there is {there}"
                )));
            }
            _ => {
                return Err(Status::failed_precondition(format!(
                    "several releases of {name} are installed; name one: {there}"
                )));
            }
        };
        let _lock = self.lock(progress)?;
        let engines = self.home.join(ENGINES);
        sweep(&engines, progress);
        let unfinished = unfinished(&engines)?;
        // Renamed first: nobody finds half an engine, and an interruption leaves what is swept.
        fs::rename(folder, unfinished.path().join("removed"))
            .map_err(|p| unwritable(folder, &p))?;
        unfinished.close().map_err(|p| unwritable(&engines, &p))?;
        // The engine's own folder goes with its last release; that it is not empty is no failure.
        let _ = fs::remove_dir(engines.join(name.as_str()));
        Ok(version.to_string())
    }

    fn lock(&self, progress: &dyn Progress) -> Result<File, Status> {
        let engines = self.home.join(ENGINES);
        fs::create_dir_all(&engines).map_err(|p| unwritable(&engines, &p))?;
        let path = engines.join(LOCK);
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|p| unwritable(&path, &p))?;
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::WouldBlock) => {
                progress.say("another vesta is changing the engine store; waiting for it");
            }
            Err(TryLockError::Error(problem)) => return Err(unwritable(&path, &problem)),
        }
        lock.lock().map_err(|p| unwritable(&path, &p))?;
        Ok(lock)
    }
}

/// One installation.
struct Job<'a> {
    store: &'a EngineStore,
    name: EngineName,
    package: &'static Package,
    arch: &'static str,
    pins: Vec<Pin>,
    /// What the caller says that the wheel's sum is.
    sum: Option<String>,
    progress: &'a dyn Progress,
}

impl Job<'_> {
    fn take_wheel(&self, path: &Path, wanted: Option<&Version>) -> Result<Outcome, Status> {
        let file = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        let name = WheelName::parse(&file)?;
        self.check_name(&name, wanted)?;
        if !path.is_file() {
            return Err(Status::not_found(format!("there is no file {}", path.display())));
        }
        if let Some(there) = self.there(&name.version)? {
            return Ok(there);
        }
        let _lock = self.store.lock(self.progress)?;
        if let Some(there) = self.there(&name.version)? {
            return Ok(there);
        }
        sweep(&self.engines(), self.progress);
        let unfinished = unfinished(&self.engines())?;
        let found = self.sum_of(path)?;
        let voucher = match (&self.sum, self.pins.iter().find(|pin| pin.name.file == name.file)) {
            (Some(sum), _) => {
                same(&name.file, sum, &found, "--sha256").map(|()| Voucher::Caller)?
            }
            (None, Some(pin)) => {
                same(&name.file, pin.sha256, &found, "this program").map(|()| Voucher::Pin)?
            }
            (None, None) => Voucher::WheelItself,
        };
        self.put(&name, path, found, unfinished, voucher)
    }

    fn take_offered(&self, wanted: Option<Version>) -> Result<Outcome, Status> {
        if std::env::consts::OS != "linux" {
            return Err(Status::unimplemented("engines can be installed on Linux alone"));
        }
        let mut wanted = wanted;
        if let Some(pinned) = packages::newest_pinned(&self.pins, wanted.as_ref()) {
            if wanted.as_ref() != Some(&pinned) {
                self.progress.say(&format!(
                    "taking {}=={pinned}, the newest release that this vesta has a pinned sum for",
                    self.name
                ));
            }
            wanted = Some(pinned);
        }
        // A release that is named in full can be there; of a series, the index knows the newest.
        let there = |version: &Version| self.there(version).transpose();
        if let Some(there) = wanted.as_ref().and_then(there) {
            return there;
        }
        let _lock = self.store.lock(self.progress)?;
        if let Some(there) = wanted.as_ref().and_then(there) {
            return there;
        }
        sweep(&self.engines(), self.progress);
        let unfinished = unfinished(&self.engines())?;
        let pip = Pip { folder: unfinished.path(), arch: self.arch, progress: self.progress };
        let pins: Vec<&Pin> =
            self.pins.iter().filter(|pin| wanted.as_ref() == Some(&pin.name.version)).collect();
        let (path, voucher) = match (&self.sum, pins.first()) {
            (None, Some(first)) => {
                let tags: Vec<&str> = pins.iter().map(|pin| pin.name.python.as_str()).collect();
                let sums: Vec<&str> = pins.iter().map(|pin| pin.sha256).collect();
                let name = &first.name;
                (pip.fetch(&name.package, &name.version, &tags, &sums)?.path, Voucher::Pin)
            }
            _ => {
                let offer = pip.look_up(
                    &self.package.names(self.arch),
                    &wanted.as_ref().map(requirement).unwrap_or_default(),
                )?;
                self.check_name(&offer.name, wanted.as_ref())?;
                if let Some(there) = self.there(&offer.name.version)? {
                    return Ok(there);
                }
                self.fetch_offered(&pip, &offer)?
            }
        };
        let file = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        let name = WheelName::parse(&file)?;
        let found = self.sum_of(&path)?;
        // pip compared already; the store does not take its word.
        let expected = match voucher {
            Voucher::Pin => pins.iter().find(|pin| pin.name.file == name.file).map(|p| p.sha256),
            _ => self.sum.as_deref(),
        };
        if voucher == Voucher::Pin && expected.is_none() {
            return Err(Status::data_loss(format!("{} is none of the pinned wheels", name.file)));
        }
        if let Some(expected) = expected {
            same(&name.file, expected, &found, "this program or --sha256")?;
        }
        self.put(&name, &path, found, unfinished, voucher)
    }

    /// Fetches a wheel that is not pinned: by the caller's sum, or by the index's.
    fn fetch_offered(&self, pip: &Pip<'_>, offer: &Offer) -> Result<(PathBuf, Voucher), Status> {
        let name = &offer.name;
        let tags = [name.python.as_str()];
        if let Some(sum) = &self.sum {
            let fetched = pip.fetch(&name.package, &name.version, &tags, &[sum])?;
            return Ok((fetched.path, Voucher::Caller));
        }
        let refused = || {
            Status::failed_precondition(format!(
                "neither this vesta nor the package index vouches for {}; take the sha256 from a \
                 place that you trust and give it as --sha256 HEX",
                name.file
            ))
        };
        let sum = offer.sha256.as_deref().ok_or_else(refused)?;
        let fetched = pip.fetch(&name.package, &name.version, &tags, &[sum])?;
        // Where the index gives no sum, pip reports the one of what it downloaded.
        if !fetched.index_vouches {
            return Err(refused());
        }
        Ok((fetched.path, Voucher::Index))
    }

    fn check_name(&self, name: &WheelName, wanted: Option<&Version>) -> Result<(), Status> {
        let packages = self.package.names(self.arch);
        if !packages.contains(&name.package.as_str()) {
            return Err(Status::invalid_argument(format!(
                "{} is a wheel of {}; {} comes in {}",
                name.file,
                name.package,
                self.name,
                packages.join(" or ")
            )));
        }
        if !name.runs_on(self.arch) {
            return Err(Status::invalid_argument(format!(
                "{} does not run on Linux on {}; take the wheel for this processor",
                name.file, self.arch
            )));
        }
        if let Some(wanted) = wanted.filter(|wanted| !wanted.is_met_by(&name.version)) {
            return Err(Status::invalid_argument(format!(
                "{} has version {}, not {wanted}",
                name.file, name.version
            )));
        }
        Ok(())
    }

    fn engines(&self) -> PathBuf {
        self.store.home.join(ENGINES)
    }

    /// The entry of this release, when it is there and sound.
    fn there(&self, version: &Version) -> Result<Option<Outcome>, Status> {
        let entries = self.store.entries(self.name);
        let mut same = entries.into_iter().filter(|(found, _)| found == version);
        let sound = same.find_map(|(version, at)| entry::read(self.name, &version, &at).ok());
        let Some(installed) = sound else { return Ok(None) };
        match &self.sum {
            Some(sum) if *sum != installed.sha256 => Err(Status::failed_precondition(format!(
                "{}=={} is installed in {} out of a wheel with sha256 {}, not {sum}; remove it first",
                self.name,
                installed.version,
                installed.folder.display(),
                installed.sha256
            ))),
            _ => Ok(Some(Outcome { installed, voucher: None })),
        }
    }

    fn sum_of(&self, path: &Path) -> Result<String, Status> {
        let total = fs::metadata(path).map_or(0, |found| found.len());
        let step = Step::begin(self.progress, "checking the wheel");
        wheel::sha256_of(path, |done| step.reach(done, total)).map_err(|problem| {
            Status::unavailable(format!("{} cannot be read: {problem}", path.display()))
        })
    }

    /// Unpacks a checked wheel into the unfinished folder and renames it into its place.
    fn put(
        &self,
        name: &WheelName,
        path: &Path,
        sha256: String,
        unfinished: TempDir,
        voucher: Voucher,
    ) -> Result<Outcome, Status> {
        // The temporary folder is closed to others; the entry in it is not.
        let entry = unfinished.path().join("entry");
        fs::create_dir(&entry).map_err(|p| unwritable(&entry, &p))?;
        let files = {
            let step = Step::begin(self.progress, "extracting the libraries");
            let at = |done, total| step.reach(done, total);
            Wheel::open(path)?.extract(self.package, &entry, at)?
        };
        let version = name.version.to_string();
        let manifest = Manifest {
            name: self.name.to_string(),
            version: version.clone(),
            package: name.package.clone(),
            wheel: name.file.clone(),
            sha256,
            installed_bytes: files.iter().map(|file| file.bytes).sum(),
            arch: self.arch.to_owned(),
            files,
        };
        write_manifest(&entry.join(MANIFEST), &manifest)?;
        let parent = self.engines().join(self.name.as_str());
        fs::create_dir_all(&parent).map_err(|p| unwritable(&parent, &p))?;
        let place = parent.join(version);
        if place.exists() {
            self.progress.say(&format!("replacing the damaged entry {}", place.display()));
            fs::rename(&place, unfinished.path().join("damaged"))
                .map_err(|p| unwritable(&place, &p))?;
        }
        sync_folders(&entry).map_err(|p| unwritable(&entry, &p))?;
        fs::rename(&entry, &place).map_err(|p| unwritable(&place, &p))?;
        sync(&parent).map_err(|p| unwritable(&parent, &p))?;
        let installed = entry::read(self.name, &name.version, &place)
            .map_err(|problem| super::damaged_engine(self.name, &name.version, &place, &problem))?;
        Ok(Outcome { installed, voucher: Some(voucher) })
    }
}

/// What pip is asked for: exactly a release, or the newest of a series.
fn requirement(version: &Version) -> String {
    if version.is_series() { format!("=={version}.*") } else { format!("=={version}") }
}

fn checked_sum(text: &str) -> Result<String, Status> {
    if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(text.to_ascii_lowercase());
    }
    Err(Status::invalid_argument(format!("--sha256 {text}: expected 64 hexadecimal digits")))
}

fn same(file: &str, expected: &str, found: &str, by: &str) -> Result<(), Status> {
    if expected == found {
        return Ok(());
    }
    Err(Status::data_loss(format!(
        "{file} has sha256 {found}, but {by} expects {expected}; it is damaged or not the wheel that \
         was published, fetch it again"
    )))
}

/// A folder in the store for what is not finished; it goes when it is dropped.
fn unfinished(engines: &Path) -> Result<TempDir, Status> {
    tempfile::Builder::new()
        .prefix(UNFINISHED)
        .tempdir_in(engines)
        .map_err(|p| unwritable(engines, &p))
}

/// Removes what interrupted installations left. Only under the lock.
fn sweep(engines: &Path, progress: &dyn Progress) {
    for entry in fs::read_dir(engines).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            let path = entry.path();
            match fs::remove_dir_all(&path) {
                Ok(()) => progress.say("removed what an interrupted installation left"),
                Err(problem) => {
                    progress.say(&format!("{} cannot be removed: {problem}", path.display()));
                }
            }
        }
    }
}

fn write_manifest(path: &Path, manifest: &Manifest) -> Result<(), Status> {
    let mut text = serde_json::to_vec_pretty(manifest).map_err(|p| {
        Status::internal("the engine's description cannot be written").with_cause(p)
    })?;
    text.push(b'\n');
    File::create_new(path)
        .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()))
        .map_err(|p| unwritable(path, &p))
}

/// Makes the names in a folder and those below outlast a loss of power.
fn sync_folders(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_folders(&entry.path())?;
        }
    }
    sync(folder)
}

fn sync(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
#[path = "install_tests.rs"]
mod tests;

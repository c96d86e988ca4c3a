//! Bringing one version from an object store to the local disk.
//!
//! Owns: what is fetched in which order and pieces, what is taken up where it was left, and the
//! checks. May not know: which store it is.
//! Invariant: all bytes of a copy are of one state of the version: the copy is named by the states of
//! its files, and each piece is asked for by the state that it must be of.

use std::fs::{self, File};
use std::io;
use std::path::{Component, Path};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use md5::Md5;
use object_store::path::Path as ObjectPath;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore};
use sha2::{Digest as _, Sha256};
use tokio::runtime::Runtime;
use tracing::{info, warn};
use vesta_model::{Status, Version};

use crate::cache::{
    Cache, FileRecord, Grip, Manifest, Slot, hex, let_go, read_through, unwritable,
};
use crate::objects::{Place, status_of};
use crate::store::Kept;
use crate::{Fetched, Hold};

/// Bytes asked for at once. A request must be over within the client's time limit.
const PIECE_BYTES: u64 = 8 << 20;
/// Files that are fetched at the same time.
const FILES_AT_ONCE: usize = 4;
/// Files that one version may have.
const FILES_MAX: usize = 100_000;
/// How often the log says how far a long transfer is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// One file to be fetched.
struct Remote {
    location: ObjectPath,
    /// Its path within the version.
    path: String,
    bytes: u64,
    e_tag: Option<String>,
}

/// Fetches the version at `url`, unless its copy is there.
pub(crate) fn fetch(
    runtime: &Runtime,
    place: &Place,
    cache: &Arc<Cache>,
    url: &str,
    base: &str,
    version: Version,
) -> Result<Fetched, Status> {
    loop {
        let (fingerprint, files) = runtime.block_on(list(place, url))?;
        let slot = cache.slot(base, version, &fingerprint)?;
        match slot.grip()? {
            Grip::Use(lock) => {
                cache.prune(base, Some((version, &slot.directory)));
                let kept = Kept { lock: Some(lock), let_go: let_go(cache, base) };
                let hold = Hold { _kept: Some(kept) };
                return Ok(Fetched { directory: slot.directory, hold });
            }
            Grip::Fetch(_lock) => {
                slot.clear()?;
                let manifest = transfer(runtime, &*place.client, &slot, url, &files)?;
                slot.publish(&manifest)?;
            }
        }
    }
}

/// The files of a version, the smallest first, and a name for the state that they are in.
async fn list(place: &Place, url: &str) -> Result<(String, Vec<Remote>), Status> {
    let mut objects: Vec<ObjectMeta> = Vec::new();
    let mut listed = place.client.list(Some(&place.prefix));
    while let Some(object) = listed.try_next().await.map_err(|e| status_of(url, &e))? {
        objects.push(object);
        if objects.len() > FILES_MAX {
            return Err(Status::resource_exhausted(format!(
                "{url} has more than {FILES_MAX} files; is it one version of a model?"
            )));
        }
    }
    objects.sort_by(|a, b| a.location.cmp(&b.location));
    let mut state = Sha256::new();
    let mut files = Vec::new();
    for object in objects {
        // An object of the prefix's own name stands for the folder.
        let Some(path) = path_within(&place.prefix, &object.location)? else { continue };
        let e_tag = object.e_tag.clone();
        let mark = e_tag.clone().unwrap_or_else(|| object.last_modified.to_rfc3339());
        state.update(format!("{path}\0{}\0{mark}\0", object.size));
        files.push(Remote { location: object.location, path, bytes: object.size, e_tag });
    }
    if files.is_empty() {
        return Err(Status::not_found(format!("{url} not found")));
    }
    files.sort_by_key(|file| file.bytes);
    Ok((hex(&state.finalize())[..16].to_owned(), files))
}

/// Where a file lies within its version; `None` for the version itself.
fn path_within(prefix: &ObjectPath, location: &ObjectPath) -> Result<Option<String>, Status> {
    let Some(parts) = location.prefix_match(prefix) else { return Ok(None) };
    let path: Vec<String> = parts.map(|part| part.as_ref().to_owned()).collect();
    if path.is_empty() {
        return Ok(None);
    }
    let path = path.join("/");
    // A name in a store can be anything; on the disk it must stay within its folder.
    if Path::new(&path).components().all(|part| matches!(part, Component::Normal(_))) {
        Ok(Some(path))
    } else {
        Err(Status::invalid_argument(format!("{location} cannot be the name of a file")))
    }
}

/// Fetches all files of a version into the slot's partial folder, and checks them.
fn transfer(
    runtime: &Runtime,
    client: &dyn ObjectStore,
    slot: &Slot,
    url: &str,
    files: &[Remote],
) -> Result<Manifest, Status> {
    let total: u64 = files.iter().map(|file| file.bytes).sum();
    info!("fetching {url} ({} files, {total} bytes)", files.len());
    let since = Instant::now();
    fs::create_dir_all(&slot.partial).map_err(|e| unwritable(&slot.partial, e))?;
    let done = AtomicU64::new(0);
    runtime.block_on(async {
        let all = stream::iter(files)
            .map(|file| fetch_file(client, file, &slot.partial, &done))
            .buffer_unordered(FILES_AT_ONCE)
            .try_collect::<()>();
        let report = async {
            loop {
                tokio::time::sleep(PROGRESS_INTERVAL).await;
                let bytes = done.load(Ordering::Relaxed);
                info!("fetching {url}: {bytes} of {total} bytes");
            }
        };
        tokio::select! {
            done = all => done,
            () = report => Ok(()),
        }
    })?;
    let mut checks = Checks::default();
    let mut records = Vec::new();
    for file in files {
        let sha256 = checks.check(file, &slot.partial, || {
            runtime.block_on(fetch_file(client, file, &slot.partial, &done))
        })?;
        let (path, e_tag) = (file.path.clone(), file.e_tag.clone());
        records.push(FileRecord { path, bytes: file.bytes, e_tag, sha256 });
    }
    info!("fetched {url} in {} ms", since.elapsed().as_millis());
    Ok(Manifest { url: url.to_owned(), files: records })
}

/// Fetches what is missing of one file.
async fn fetch_file(
    client: &dyn ObjectStore,
    file: &Remote,
    folder: &Path,
    done: &AtomicU64,
) -> Result<(), Status> {
    let target = folder.join(&file.path);
    let (mut out, mut have) = open(&target, file.bytes).map_err(|e| unwritable(&target, e))?;
    done.fetch_add(have, Ordering::Relaxed);
    while have < file.bytes {
        let end = file.bytes.min(have + PIECE_BYTES);
        let options = GetOptions {
            range: Some(GetRange::Bounded(have..end)),
            if_match: file.e_tag.clone(),
            ..GetOptions::default()
        };
        let what = file.location.as_ref();
        let got =
            client.get_opts(&file.location, options).await.map_err(|e| status_of(what, &e))?;
        let mut parts = got.into_stream();
        while let Some(part) = parts.try_next().await.map_err(|e| status_of(what, &e))? {
            have += part.len() as u64;
            if have > end {
                return Err(Status::data_loss(format!("{what} gave more bytes than asked for")));
            }
            io::Write::write_all(&mut out, &part).map_err(|e| unwritable(&target, e))?;
            done.fetch_add(part.len() as u64, Ordering::Relaxed);
        }
        if have < end {
            return Err(Status::unavailable(format!("{what} ended {} bytes early", end - have)));
        }
    }
    out.sync_all().map_err(|e| unwritable(&target, e))
}

/// Opens a file where an earlier transfer left it; gives how much is there.
fn open(target: &Path, bytes: u64) -> io::Result<(File, u64)> {
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder)?;
    }
    let file = File::options().create(true).append(true).open(target)?;
    let have = file.metadata()?.len();
    if have <= bytes {
        return Ok((file, have));
    }
    file.set_len(0)?;
    Ok((file, 0))
}

/// Checks files against what the store says of them.
///
/// A tag of 32 hexadecimal digits is, with most stores and settings, the MD5 of the content. With some
/// it is not, and looks the same: so a file that disagrees is fetched a second time, and when both
/// transfers agree with each other the tags are taken for what they are called, opaque.
#[derive(Default)]
struct Checks {
    /// Whether tags are MD5, as far as it is known.
    tags_are_md5: Option<bool>,
}

impl Checks {
    /// Gives the SHA-256 of a file once it is known to be good.
    fn check(
        &mut self,
        file: &Remote,
        folder: &Path,
        fetch_again: impl Fn() -> Result<(), Status>,
    ) -> Result<String, Status> {
        let target = folder.join(&file.path);
        let tag = file.e_tag.as_deref().map(|tag| tag.trim_matches('"').to_ascii_lowercase());
        let tag = tag.filter(|tag| tag.len() == 32 && tag.bytes().all(|b| b.is_ascii_hexdigit()));
        let (sha256, md5) = digests(&target, file)?;
        let Some(tag) = tag.filter(|_| self.tags_are_md5 != Some(false)) else {
            return Ok(sha256);
        };
        if md5 == tag {
            self.tags_are_md5 = Some(true);
            return Ok(sha256);
        }
        warn!("{} is not what its tag says, so it is fetched again", file.location);
        fs::remove_file(&target).map_err(|e| unwritable(&target, e))?;
        fetch_again()?;
        let (second_sha256, second_md5) = digests(&target, file)?;
        if second_md5 == tag {
            self.tags_are_md5 = Some(true);
            return Ok(second_sha256);
        }
        if self.tags_are_md5.is_none() && second_sha256 == sha256 {
            self.tags_are_md5 = Some(false);
            return Ok(sha256);
        }
        // The next try begins with nothing.
        fs::remove_file(&target).map_err(|e| unwritable(&target, e))?;
        Err(Status::data_loss(format!("{} arrived damaged twice", file.location)))
    }
}

/// SHA-256 and MD5 of a file that must be as long as the store says.
fn digests(target: &Path, file: &Remote) -> Result<(String, String), Status> {
    let (mut sha256, mut md5) = (Sha256::new(), Md5::new());
    let bytes = read_through(target, |part| {
        sha256.update(part);
        md5.update(part);
    })
    .map_err(|e| unwritable(target, e))?;
    if bytes != file.bytes {
        return Err(Status::data_loss(format!(
            "{} has {bytes} bytes here and {} in its store",
            file.location, file.bytes
        )));
    }
    Ok((hex(&sha256.finalize()), hex(&md5.finalize())))
}

#[cfg(test)]
#[path = "fetch_tests.rs"]
mod tests;

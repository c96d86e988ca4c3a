//! Which state the files of a version are in, told by one number.
//!
//! Owns: what counts (names, sizes, times of change; not contents, which may be gigabytes) and the
//! bounds of the walk. May not know: who compares, and how often.
//! Invariant: files that nobody touched give the same number for as long as the process lives; the
//! cost is bounded by [`ENTRIES_MAX`].

use std::collections::hash_map::DefaultHasher;
use std::fs::Metadata;
use std::hash::{Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Files and folders that are looked at; what is beyond does not count.
const ENTRIES_MAX: usize = 10_000;

/// Folders in folders that are looked into, so that a circle of links ends.
const DEPTH_MAX: usize = 16;

/// A number for the state that the files at `path` are in; `None` when there is nothing.
pub fn fingerprint(path: &Path) -> Option<u64> {
    let metadata = std::fs::metadata(path).ok()?;
    let mut walk = Walk { hasher: DefaultHasher::new(), entries_left: ENTRIES_MAX };
    walk.add(path, &metadata, 0);
    Some(walk.hasher.finish())
}

struct Walk {
    hasher: DefaultHasher,
    entries_left: usize,
}

impl Walk {
    fn add(&mut self, path: &Path, metadata: &Metadata, depth: usize) {
        // The size of a folder says nothing; its time changes with the names in it.
        let size = if metadata.is_dir() { 0 } else { metadata.len() };
        (metadata.is_dir(), size, metadata.mtime(), metadata.mtime_nsec()).hash(&mut self.hasher);
        if !metadata.is_dir() || depth >= DEPTH_MAX {
            return;
        }
        let entries = match std::fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) => return error.kind().hash(&mut self.hasher),
        };
        let mut names: Vec<_> = entries
            .take(self.entries_left)
            .filter_map(|entry| Some(entry.ok()?.file_name()))
            .collect();
        names.sort();
        for name in names {
            let Some(left) = self.entries_left.checked_sub(1) else { return };
            self.entries_left = left;
            name.hash(&mut self.hasher);
            let path = path.join(name);
            match std::fs::metadata(&path) {
                Ok(metadata) => self.add(&path, &metadata, depth + 1),
                // A link to nothing, or a file that has just gone.
                Err(error) => error.kind().hash(&mut self.hasher),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::time::{Duration, SystemTime};

    #[test]
    fn whatever_changes_changes_the_number() {
        let base = tempfile::tempdir().unwrap();
        let version = base.path().join("1");
        assert_eq!(fingerprint(&version), None);
        fs::create_dir_all(version.join("variables")).unwrap();
        let file = version.join("variables").join("data");
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let write = |text: &str, at: SystemTime| {
            fs::write(&file, text).unwrap();
            fs::File::options().append(true).open(&file).unwrap().set_modified(at).unwrap();
        };
        write("one", at);
        let first = fingerprint(&version);
        assert_eq!(fingerprint(&version), first);
        write("three", at);
        let longer = fingerprint(&version);
        assert_ne!(longer, first);
        write("three", at + Duration::from_nanos(1_000));
        let later = fingerprint(&version);
        assert_ne!(later, longer);
        fs::rename(&file, version.join("variables").join("index")).unwrap();
        assert_ne!(fingerprint(&version), later);
        std::os::unix::fs::symlink("nowhere", version.join("link")).unwrap();
        assert!(fingerprint(&version).is_some());
    }

    #[test]
    fn circles_and_crowds_end() {
        let base = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(base.path(), base.path().join("again")).unwrap();
        for index in 0..50 {
            fs::write(base.path().join(format!("f{index}")), "x").unwrap();
        }
        assert!(fingerprint(base.path()).is_some());
    }
}

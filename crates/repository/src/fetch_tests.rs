//! Copies of versions, from a bucket in memory. Owns the cases of listing, fetching, keeping and
//! checking; what goes over a wire is in `tests/clients/test_stores.py`.

use super::*;
use crate::{Listing, Store, Stores};
use object_store::memory::InMemory;
use object_store::{ObjectStoreExt as _, PutPayload};
use std::path::PathBuf;
use vesta_model::{BasePath, Code, ModelName};

/// A bucket in memory, and stores that copy from it.
struct Bucket {
    objects: Arc<InMemory>,
    stores: Stores,
    cache: tempfile::TempDir,
}

const BASE: &str = "s3://bucket/models/m";

impl Bucket {
    fn new(files: &[(&str, &[u8])]) -> Bucket {
        let cache = tempfile::tempdir().unwrap();
        let objects = Arc::new(InMemory::new());
        let stores = Stores::new(Ok(cache.path().join("copies")))
            .with_client("s3://bucket", Arc::clone(&objects) as _);
        let bucket = Bucket { objects, stores, cache };
        for (path, bytes) in files {
            bucket.put(path, bytes);
        }
        bucket
    }

    fn put(&self, path: &str, bytes: &[u8]) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let payload = PutPayload::from(bytes.to_vec());
        let location = ObjectPath::from(format!("models/{path}"));
        runtime.block_on(self.objects.put(&location, payload)).unwrap();
    }

    fn list(&self) -> Result<Listing, Status> {
        self.stores.list(&ModelName::from("m"), &BasePath::Store(BASE.to_owned()))
    }

    fn fetch(&self, version: &str) -> Result<Fetched, Status> {
        self.stores.fetch(Path::new(&format!("{BASE}/{version}")))
    }

    fn keep(&self, wanted: &[i64]) {
        let wanted: Vec<Version> = wanted.iter().copied().map(Version).collect();
        self.stores.keep(&BasePath::Store(BASE.to_owned()), &wanted);
    }

    /// Names below the one base path's folder of copies.
    fn copies(&self) -> Vec<String> {
        let Ok(mut folders) = fs::read_dir(self.cache.path().join("copies")) else {
            return Vec::new();
        };
        let Some(folder) = folders.next() else { return Vec::new() };
        let entries = fs::read_dir(folder.unwrap().path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn read(fetched: &Fetched, path: &str) -> Vec<u8> {
    fs::read(fetched.directory.join(path)).unwrap()
}

#[test]
fn versions_of_a_store_are_listed_as_those_of_a_disk() {
    let bucket = Bucket::new(&[
        ("m/1/saved_model.pb", b"one"),
        ("m/0003/variables/data", b"three"),
        ("m/2.tmp/saved_model.pb", b"no version"),
        ("m/11", b"a plain file"),
        ("mm/4/saved_model.pb", b"another model"),
    ]);
    let listing = bucket.list().unwrap();
    let versions: Vec<i64> = listing.versions.iter().map(|found| found.version.0).collect();
    assert_eq!(versions, [1, 3, 11]);
    assert_eq!(listing.versions[1].artifact, Ok(PathBuf::from(format!("{BASE}/0003"))));
    let plain = listing.versions[2].artifact.clone().unwrap_err();
    assert_eq!(
        plain.to_string(),
        format!(
            "FAILED_PRECONDITION: Error while attempting to reserve resources to load servable \
             {{name: m version: 11}}: {BASE}/11; Not a directory"
        )
    );
}

#[test]
fn a_prefix_without_objects_is_a_missing_base_path() {
    let missing = Bucket::new(&[]).list().unwrap_err();
    assert_eq!(
        missing.to_string(),
        format!(
            "NOT_FOUND: Could not find base path {BASE} for servable m with error NOT_FOUND: {BASE} \
             not found"
        )
    );
    assert_eq!(Bucket::new(&[]).fetch("1").unwrap_err().code(), Code::NotFound);
}

#[test]
fn a_version_is_fetched_once_whole() {
    let large: Vec<u8> = (0..PIECE_BYTES + 12_345).map(|i| (i % 251) as u8).collect();
    let bucket = Bucket::new(&[
        ("m/1/saved_model.pb", b"graph"),
        ("m/1/variables/variables.data", &large),
        ("m/1/empty", b""),
        ("m/10/saved_model.pb", b"another"),
    ]);
    let fetched = bucket.fetch("1").unwrap();
    assert_eq!(read(&fetched, "saved_model.pb"), b"graph");
    assert_eq!(read(&fetched, "variables/variables.data"), large);
    assert_eq!(read(&fetched, "empty"), b"");
    assert_eq!(fs::read_dir(&fetched.directory).unwrap().count(), 3);
    assert_eq!(bucket.copies().len(), 3, "{:?}", bucket.copies());
    // What is whole is not fetched again: it keeps its time.
    let written = |fetched: &Fetched| {
        fs::metadata(fetched.directory.join("saved_model.pb")).unwrap().modified().unwrap()
    };
    let again = bucket.fetch("1").unwrap();
    assert_eq!(
        (again.directory.clone(), written(&again)),
        (fetched.directory.clone(), written(&fetched))
    );
}

#[test]
fn a_copy_that_was_damaged_is_fetched_anew() {
    let bucket = Bucket::new(&[("m/1/saved_model.pb", b"graph"), ("m/1/assets/a", b"asset")]);
    for damage in [b"grabh".as_slice(), b"gra"] {
        let fetched = bucket.fetch("1").unwrap();
        let file = fetched.directory.join("saved_model.pb");
        drop(fetched);
        fs::write(&file, damage).unwrap();
        assert_eq!(read(&bucket.fetch("1").unwrap(), "saved_model.pb"), b"graph");
    }
    let fetched = bucket.fetch("1").unwrap();
    fs::remove_file(fetched.directory.join("assets/a")).unwrap();
    drop(fetched);
    assert_eq!(read(&bucket.fetch("1").unwrap(), "assets/a"), b"asset");
}

#[test]
fn a_damaged_copy_that_is_used_is_not_touched() {
    let bucket = Bucket::new(&[("m/1/saved_model.pb", b"graph")]);
    let used = bucket.fetch("1").unwrap();
    fs::write(used.directory.join("saved_model.pb"), b"grabh").unwrap();
    let problem = bucket.fetch("1").unwrap_err();
    assert_eq!(problem.code(), Code::Unavailable);
    assert!(problem.message().contains("unload the version first"), "{problem}");
    assert_eq!(read(&used, "saved_model.pb"), b"grabh");
    drop(used);
    assert_eq!(read(&bucket.fetch("1").unwrap(), "saved_model.pb"), b"graph");
}

#[test]
fn several_loads_of_one_version_share_one_transfer() {
    let bucket = Bucket::new(&[("m/1/saved_model.pb", b"graph")]);
    std::thread::scope(|scope| {
        let loads: Vec<_> = (0..4).map(|_| scope.spawn(|| bucket.fetch("1"))).collect();
        for load in loads {
            assert_eq!(read(&load.join().unwrap().unwrap(), "saved_model.pb"), b"graph");
        }
    });
    assert_eq!(bucket.copies().len(), 3, "{:?}", bucket.copies());
}

#[test]
fn an_interrupted_transfer_is_taken_up_where_it_ended() {
    let bucket = Bucket::new(&[("m/1/saved_model.pb", b"0123456789")]);
    let fetched = bucket.fetch("1").unwrap();
    let partial = fetched.directory.with_extension("partial");
    let manifest = fetched.directory.with_extension("json");
    let directory = fetched.directory.clone();
    drop(fetched);
    fs::remove_file(manifest).unwrap();
    fs::remove_dir_all(directory).unwrap();
    fs::create_dir(&partial).unwrap();
    // Marked, to be known again: the store's tags here are no digests.
    fs::write(partial.join("saved_model.pb"), b"abc").unwrap();
    assert_eq!(read(&bucket.fetch("1").unwrap(), "saved_model.pb"), b"abc3456789");
}

#[test]
fn files_that_change_in_the_store_are_another_copy() {
    let bucket = Bucket::new(&[("m/1/saved_model.pb", b"old")]);
    bucket.keep(&[1]);
    let old = bucket.fetch("1").unwrap();
    bucket.put("m/1/saved_model.pb", b"new");
    let new = bucket.fetch("1").unwrap();
    assert_eq!(
        (read(&old, "saved_model.pb"), read(&new, "saved_model.pb")),
        (b"old".to_vec(), b"new".to_vec())
    );
    drop((old, new));
    // The former one goes as soon as there is a reason to look.
    drop(bucket.fetch("1").unwrap());
    assert_eq!(bucket.copies().len(), 3, "{:?}", bucket.copies());
}

#[test]
fn copies_go_when_they_are_neither_wanted_nor_used() {
    let bucket = Bucket::new(&[("m/1/saved_model.pb", b"one"), ("m/2/saved_model.pb", b"two")]);
    bucket.keep(&[1, 2]);
    let (one, two) = (bucket.fetch("1").unwrap(), bucket.fetch("2").unwrap());
    bucket.keep(&[2]);
    assert_eq!(bucket.copies().len(), 6, "what is used stays");
    drop(one);
    assert_eq!(bucket.copies().len(), 3, "{:?}", bucket.copies());
    drop(two);
    assert_eq!(bucket.copies().len(), 3, "what is wanted stays");
    bucket.keep(&[]);
    assert_eq!(bucket.copies(), Vec::<String>::new());
}

#[test]
fn a_cache_that_cannot_be_written_names_the_flag() {
    let cache = tempfile::tempdir().unwrap();
    let file = cache.path().join("file");
    fs::write(&file, "").unwrap();
    let problem = Stores::new(Ok(file.join("copies"))).check_cache().unwrap_err();
    assert_eq!(problem.code(), Code::FailedPrecondition);
    assert!(problem.message().contains("--model_cache_path"), "{problem}");
    let none = Stores::new(Err(Status::failed_precondition("nowhere")));
    assert_eq!(none.check_cache().unwrap_err().message(), "nowhere");
}

#[test]
fn places_that_are_no_store_are_refused() {
    let stores = Stores::new(Err(Status::failed_precondition("nowhere")));
    assert!(stores.fetch(Path::new("s3://bucket/m/latest")).is_err());
    assert!(stores.fetch(Path::new("ftp://bucket/m/1")).is_err());
    let local = stores.fetch(Path::new("/models/m/1")).unwrap();
    assert_eq!(local.directory, Path::new("/models/m/1"));
}

/// A file of these bytes whose tag says `tag`.
fn tagged(folder: &Path, name: &str, bytes: &[u8], tag: &str) -> Remote {
    fs::write(folder.join(name), bytes).unwrap();
    Remote {
        location: ObjectPath::from(name),
        path: name.to_owned(),
        bytes: bytes.len() as u64,
        e_tag: Some(tag.to_owned()),
    }
}

fn md5_tag(bytes: &[u8]) -> String {
    format!("\"{}\"", hex(&Md5::digest(bytes)))
}

#[test]
fn tags_that_are_digests_are_held_to() {
    let folder = tempfile::tempdir().unwrap();
    let mut checks = Checks::default();
    let good = tagged(folder.path(), "good", b"good", &md5_tag(b"good"));
    checks.check(&good, folder.path(), || panic!("nothing is fetched again")).unwrap();
    // Damaged on the way once: the second transfer counts.
    let once = tagged(folder.path(), "once", b"gooe", &md5_tag(b"good"));
    let again = || {
        fs::write(folder.path().join("once"), b"good").unwrap();
        Ok(())
    };
    let sha256 = checks.check(&once, folder.path(), again).unwrap();
    assert_eq!(sha256, hex(&Sha256::digest(b"good")));
    let twice = tagged(folder.path(), "twice", b"bad!", &md5_tag(b"good"));
    let again = || {
        fs::write(folder.path().join("twice"), b"bad!").unwrap();
        Ok(())
    };
    assert_eq!(checks.check(&twice, folder.path(), again).unwrap_err().code(), Code::DataLoss);
    assert!(!folder.path().join("twice").exists(), "the next try begins with nothing");
}

#[test]
fn tags_that_only_look_like_digests_are_found_out() {
    let folder = tempfile::tempdir().unwrap();
    let mut checks = Checks::default();
    let tag = "0123456789abcdef0123456789abcdef";
    let opaque = tagged(folder.path(), "opaque", b"content", tag);
    let again = || {
        fs::write(folder.path().join("opaque"), b"content").unwrap();
        Ok(())
    };
    assert!(checks.check(&opaque, folder.path(), again).is_ok());
    let next = tagged(folder.path(), "next", b"content", tag);
    checks.check(&next, folder.path(), || panic!("one such file is enough")).unwrap();
    // A multipart upload's tag is no digest either.
    let multipart = tagged(folder.path(), "multipart", b"x", &format!("{tag}-2"));
    let mut checks = Checks::default();
    checks.check(&multipart, folder.path(), || panic!("it is not even tried")).unwrap();
}

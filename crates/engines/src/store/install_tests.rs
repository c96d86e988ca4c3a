//! Installing from wheels that the tests make, and removing.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tempfile::TempDir;
use vesta_model::Code;

use super::super::wheel::tests::{FILES, write};
use super::*;

const TF: EngineName = EngineName::TensorFlow;

/// Keeps what was said.
#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Progress for Heard {
    fn say(&self, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
    fn begin(&self, _: &str) {}
    fn reach(&self, _: u64, _: u64) {}
    fn end(&self) {}
}

fn wheel_named(folder: &Path, version: &str) -> PathBuf {
    let arch = std::env::consts::ARCH;
    let name = format!("tensorflow_cpu-{version}-cp312-cp312-manylinux_2_27_{arch}.whl");
    folder.join(name)
}

struct Rig {
    folder: TempDir,
    store: EngineStore,
    heard: Heard,
}

impl Rig {
    fn new() -> Rig {
        let folder = TempDir::new().unwrap();
        let store = EngineStore::at(folder.path().join("home"));
        Rig { folder, store, heard: Heard::default() }
    }

    fn wheel(&self, version: &str) -> PathBuf {
        let path = wheel_named(self.folder.path(), version);
        write(&path, FILES, |_| {});
        path
    }

    fn install(&self, wheel: &Path, sha256: Option<&str>) -> Result<Outcome, Status> {
        let request = InstallRequest {
            name: TF,
            version: None,
            sha256: sha256.map(str::to_owned),
            wheel: Some(wheel.to_owned()),
        };
        self.store.install(&request, &self.heard)
    }

    /// Names in the folder of engines, without the lock.
    fn left(&self) -> Vec<String> {
        let entries = fs::read_dir(self.store.home().join(ENGINES)).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.retain(|name| name != LOCK);
        names
    }
}

#[test]
fn releases_lie_side_by_side_and_go_one_by_one() {
    let rig = Rig::new();
    for version in ["2.0.9", "2.0.10"] {
        let outcome = rig.install(&rig.wheel(version), None).unwrap();
        assert_eq!(outcome.voucher, Some(Voucher::WheelItself));
        assert_eq!(outcome.installed.version, version);
        assert_eq!(outcome.installed.installed_bytes, 42);
    }
    assert_eq!(rig.store.find(TF, None).unwrap().version, "2.0.10");
    let again = rig.install(&rig.wheel("2.0.9"), None).unwrap();
    assert_eq!(again.voucher, None);

    let error = rig.store.remove(TF, None, &rig.heard).unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(error.message().ends_with("tensorflow==2.0.10, tensorflow==2.0.9"), "{error}");
    let error = rig.store.remove(TF, Some("2.0.8"), &rig.heard).unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    assert_eq!(rig.store.remove(TF, Some("2.0.10"), &rig.heard).unwrap(), "2.0.10");
    assert_eq!(rig.store.remove(TF, None, &rig.heard).unwrap(), "2.0.9");
    assert_eq!(rig.left(), Vec::<String>::new());
    assert_eq!(rig.store.remove(TF, None, &rig.heard).unwrap_err().code(), Code::NotFound);
}

#[test]
fn a_wheel_is_compared_with_the_sum_given_and_the_sum_pinned() {
    let rig = Rig::new();
    let wheel = rig.wheel("2.0.9");
    let sum = wheel::sha256_of(&wheel, |_| {}).unwrap();
    let error = rig.install(&wheel, Some(&"0".repeat(64))).unwrap_err();
    assert_eq!(error.code(), Code::DataLoss);
    assert!(error.message().contains(&format!("has sha256 {sum}, but --sha256 expects 0000")));
    assert_eq!(rig.install(&wheel, Some("12")).unwrap_err().code(), Code::InvalidArgument);
    let outcome = rig.install(&wheel, Some(&sum.to_uppercase())).unwrap();
    assert_eq!(outcome.voucher, Some(Voucher::Caller));
    assert_eq!(outcome.installed.sha256, sum);
    let error = rig.install(&wheel, Some(&"0".repeat(64))).unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);

    // A file with the name of a pinned wheel has to be that wheel.
    let pins = packages::pins(TF, std::env::consts::ARCH);
    if let Some(pin) = pins.first() {
        let forged = rig.folder.path().join(&pin.name.file);
        write(&forged, FILES, |_| {});
        let error = rig.install(&forged, None).unwrap_err();
        assert!(error.message().contains("but this program expects"), "{error}");
    }
    assert_eq!(rig.left(), ["tensorflow"]);
}

#[test]
fn a_failure_leaves_nothing_behind() {
    let rig = Rig::new();
    let wheel = rig.wheel("2.0.9");
    let whole = fs::read(&wheel).unwrap();
    fs::write(&wheel, &whole[..whole.len() / 2]).unwrap();
    assert_eq!(rig.install(&wheel, None).unwrap_err().code(), Code::DataLoss);
    write(&wheel, &FILES[1..], |_| {});
    assert_eq!(rig.install(&wheel, None).unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(rig.left(), Vec::<String>::new());
    assert_eq!(rig.store.installed(), []);
}

#[test]
fn what_an_interruption_left_is_swept() {
    let rig = Rig::new();
    let left = rig.store.home().join(ENGINES).join(".unfinished-abc");
    fs::create_dir_all(left.join("entry")).unwrap();
    fs::write(left.join("entry/half.so"), "half").unwrap();
    rig.install(&rig.wheel("2.0.9"), None).unwrap();
    assert!(!left.exists());
    assert!(rig.heard.0.lock().unwrap()[0].contains("interrupted"));
}

#[test]
fn a_damaged_entry_is_replaced() {
    let rig = Rig::new();
    let wheel = rig.wheel("2.0.9");
    let folder = rig.install(&wheel, None).unwrap().installed.folder;
    fs::remove_file(folder.join("libtensorflow_cc.so.2")).unwrap();
    assert_eq!(rig.store.find(TF, None).unwrap_err().code(), Code::DataLoss);
    assert!(rig.install(&wheel, None).unwrap().voucher.is_some());
    assert!(rig.store.find(TF, None).is_ok());
    assert_eq!(rig.left(), ["tensorflow"]);
}

#[test]
fn wheels_of_others_are_refused() {
    let rig = Rig::new();
    let arch = std::env::consts::ARCH;
    for (name, text) in [
        (format!("numpy-2.0.0-cp312-cp312-manylinux_2_27_{arch}.whl"), "is a wheel of numpy"),
        ("tensorflow_cpu-2.0.9-cp312-cp312-win_amd64.whl".to_owned(), "does not run on Linux"),
        ("tensorflow.zip".to_owned(), "is not the file name of a wheel"),
    ] {
        let path = rig.folder.path().join(name);
        write(&path, FILES, |_| {});
        let error = rig.install(&path, None).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.message().contains(text), "{error}");
    }
    let missing = wheel_named(rig.folder.path(), "2.0.1");
    assert_eq!(rig.install(&missing, None).unwrap_err().code(), Code::NotFound);
    let request = InstallRequest {
        name: TF,
        version: Some("2.1.0".to_owned()),
        sha256: None,
        wheel: Some(rig.wheel("2.0.9")),
    };
    let error = rig.store.install(&request, &rig.heard).unwrap_err();
    assert!(error.message().contains("has version 2.0.9, not 2.1.0"), "{error}");
}

#[test]
fn two_at_once_install_one() {
    let rig = Rig::new();
    let wheel = rig.wheel("2.0.9");
    let fresh = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| rig.install(&wheel, None))).collect();
        let outcomes = threads.into_iter().map(|thread| thread.join().unwrap().unwrap());
        outcomes.filter(|outcome| outcome.voucher.is_some()).count()
    });
    assert_eq!(fresh, 1);
    assert_eq!(rig.left(), ["tensorflow"]);
}

#[test]
fn a_place_that_is_never_written_keeps_its_engines() {
    let image = Rig::new();
    image.install(&image.wheel("2.0.9"), None).unwrap();
    let home = TempDir::new().unwrap();
    let store = EngineStore::at(home.path()).with_read_only(image.store.home());
    let error = store.remove(TF, None, &image.heard).unwrap_err();
    assert_eq!(error.code(), Code::PermissionDenied);
    // Nothing is written to find that it is there.
    let request =
        InstallRequest { name: TF, version: None, sha256: None, wheel: Some(image.wheel("2.0.9")) };
    assert_eq!(store.install(&request, &image.heard).unwrap().voucher, None);
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
}

#[test]
fn a_home_that_cannot_be_made_says_what_to_do() {
    let rig = Rig::new();
    let file = rig.folder.path().join("file");
    fs::write(&file, "").unwrap();
    let store = EngineStore::at(file.join("home"));
    let request =
        InstallRequest { name: TF, version: None, sha256: None, wheel: Some(rig.wheel("2.0.9")) };
    let error = store.install(&request, &rig.heard).unwrap_err();
    assert!(error.message().contains("set VESTA_HOME to a folder that you can write"), "{error}");
}

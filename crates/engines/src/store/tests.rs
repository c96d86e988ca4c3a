//! Look-up in stores that are sound, damaged, absent and read-only.

use std::fs;

use tempfile::TempDir;
use vesta_model::Code;

use super::*;

/// Puts an engine of one small library into `home`.
fn put(home: &Path, name: EngineName, version: &str) -> PathBuf {
    let folder = home.join(ENGINES).join(name.as_str()).join(version);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("lib.so"), "library").unwrap();
    let manifest = entry::Manifest {
        name: name.to_string(),
        version: version.to_owned(),
        package: "package".to_owned(),
        wheel: "package.whl".to_owned(),
        sha256: "00".to_owned(),
        installed_bytes: 7,
        arch: std::env::consts::ARCH.to_owned(),
        files: vec![entry::File { path: "lib.so".to_owned(), bytes: 7, sha256: "00".to_owned() }],
    };
    fs::write(folder.join(entry::MANIFEST), serde_json::to_vec(&manifest).unwrap()).unwrap();
    folder
}

const TF: EngineName = EngineName::TensorFlow;

#[test]
fn the_home_follows_the_environment() {
    let with = |pairs: &[(&str, &str)]| {
        home(|name| pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into()))
    };
    let all = [("VESTA_HOME", "/v"), ("XDG_DATA_HOME", "/x"), ("HOME", "/h")];
    assert_eq!(with(&all), Path::new("/v"));
    assert_eq!(with(&all[1..]), Path::new("/x/vesta"));
    assert_eq!(with(&all[2..]), Path::new("/h/.local/share/vesta"));
    assert_eq!(with(&[]), Path::new("/var/lib/vesta"));
    assert_eq!(with(&[("VESTA_HOME", ""), ("HOME", "")]), Path::new("/var/lib/vesta"));
    assert_eq!(with(&[("XDG_DATA_HOME", "x"), ("HOME", "/h")]), Path::new("/h/.local/share/vesta"));
    assert!(with(&[("VESTA_HOME", "v")]).is_absolute());
}

#[test]
fn the_newest_is_found_by_number() {
    let home = TempDir::new().unwrap();
    for version in ["2.9.1", "2.21.0", "2.15.0", "2.15.1"] {
        put(home.path(), TF, version);
    }
    let store = EngineStore::at(home.path());
    let versions: Vec<String> = store.installed().into_iter().map(|i| i.version).collect();
    assert_eq!(versions, ["2.21.0", "2.15.1", "2.15.0", "2.9.1"]);
    let found = |version| store.find(TF, version).unwrap().version;
    assert_eq!(found(None), "2.21.0");
    assert_eq!(found(Some("2.15.1")), "2.15.1");
    assert_eq!(found(Some("2.15.0")), "2.15.0");
    assert_eq!(found(Some("2")), "2.21.0");
    // `2.15` is also a spelling of 2.15.0, which is there.
    assert_eq!(found(Some("2.15")), "2.15.0");
    let library = store.find(TF, None).unwrap().library("lib.so");
    assert_eq!(fs::read(library).unwrap(), b"library");
}

#[test]
fn a_missing_engine_names_the_command() {
    let store = EngineStore::at("/nonexistent/store");
    assert_eq!(store.installed(), []);
    let error = store.find(TF, Some("2.15.1")).unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    assert_eq!(
        error.message(),
        "engine tensorflow==2.15.1 is not installed; run `vesta engine install tensorflow==2.15.1`"
    );
    let error = store.find(EngineName::OpenVino, None).unwrap_err();
    assert!(error.message().ends_with("run `vesta engine install openvino`"), "{error}");
    assert_eq!(store.find(TF, Some("../2")).unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(store.find(EngineName::Embedded, None).unwrap_err().code(), Code::InvalidArgument);
}

#[test]
fn damage_is_named_and_hides_nothing() {
    let home = TempDir::new().unwrap();
    put(home.path(), TF, "2.15.1");
    let broken = put(home.path(), TF, "2.16.0");
    fs::write(broken.join("engine.json"), "{").unwrap();
    fs::remove_file(put(home.path(), TF, "2.17.0").join("lib.so")).unwrap();
    fs::write(put(home.path(), TF, "2.18.0").join("lib.so"), "short").unwrap();
    fs::create_dir_all(home.path().join("engines/tensorflow/2.19.0")).unwrap();
    fs::create_dir_all(home.path().join("engines/tensorflow/not a version")).unwrap();
    let foreign = put(home.path(), TF, "2.20.0");
    let text = fs::read_to_string(foreign.join("engine.json")).unwrap();
    let other = text.replace(std::env::consts::ARCH, "pdp11");
    fs::write(foreign.join("engine.json"), other).unwrap();

    let store = EngineStore::at(home.path());
    assert_eq!(store.find(TF, None).unwrap().version, "2.15.1");
    let survey = store.survey();
    assert_eq!(survey.installed.len(), 1);
    let problems: Vec<&str> = survey.damaged.iter().map(|d| d.problem.as_str()).collect();
    assert_eq!(problems.len(), 5);
    assert!(problems[0].contains("arch \"pdp11\""), "{problems:?}");
    assert_eq!(problems[1], "engine.json is missing");
    assert_eq!(problems[2], "lib.so has 5 bytes, not 7");
    assert_eq!(problems[3], "lib.so is missing");
    assert!(problems[4].starts_with("engine.json is not valid: "), "{problems:?}");

    let error = store.find(TF, Some("2.17.0")).unwrap_err();
    assert_eq!(error.code(), Code::DataLoss);
    assert!(error.message().contains("is damaged: lib.so is missing"), "{error}");
    assert!(error.message().contains("`vesta engine remove tensorflow==2.17.0`"), "{error}");
}

#[test]
fn read_only_places_come_after_the_home() {
    let (home, image) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    put(home.path(), TF, "2.15.1");
    put(image.path(), TF, "2.15.1");
    put(image.path(), TF, "2.21.0");
    let store = EngineStore::at(home.path()).with_read_only(image.path());
    assert_eq!(store.installed().len(), 2);
    assert!(store.find(TF, None).unwrap().folder.starts_with(image.path()));
    assert!(store.find(TF, Some("2.15.1")).unwrap().folder.starts_with(home.path()));
}

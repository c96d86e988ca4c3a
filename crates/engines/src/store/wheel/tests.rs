//! Wheels, good and hostile, made with the same library that reads them.

use proptest::prelude::*;
use tempfile::TempDir;
use vesta_model::Code;
use zip::write::{SimpleFileOptions, ZipWriter};

use super::super::packages::package;
use super::*;
use crate::EngineName;

/// Contents of a good wheel of TensorFlow, in small.
pub(in crate::store) const FILES: &[(&str, &[u8])] = &[
    ("tensorflow/libtensorflow_cc.so.2", b"the library"),
    ("tensorflow/libtensorflow_framework.so.2", b"the other library"),
    ("tensorflow/__init__.py", b"import os"),
    ("tensorflow/THIRD_PARTY_NOTICES.txt", b"notices"),
    ("tensorflow/include/external/x/LICENSE", b"of a header"),
    ("tensorflow_cpu-2.0.9.dist-info/LICENSE", b"licence"),
    ("tensorflow_cpu-2.0.9.dist-info/METADATA", b"Name: tensorflow-cpu"),
];

/// Writes the files and a RECORD that vouches for them, then whatever `more` adds.
pub(in crate::store) fn write(
    path: &Path,
    files: &[(&str, &[u8])],
    more: impl FnOnce(&mut ZipWriter<File>),
) {
    let mut record = String::new();
    let mut zip = ZipWriter::new(File::create(path).unwrap());
    for (name, bytes) in files {
        zip.start_file(*name, SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
        let sum = URL_SAFE_NO_PAD.encode(Sha256::digest(bytes));
        record.push_str(&format!("{name},sha256={sum},{}\n", bytes.len()));
    }
    record.push_str("tensorflow_cpu-2.0.9.dist-info/RECORD,,\n");
    more(&mut zip);
    zip.start_file("tensorflow_cpu-2.0.9.dist-info/RECORD", SimpleFileOptions::default()).unwrap();
    zip.write_all(record.as_bytes()).unwrap();
    zip.finish().unwrap();
}

/// What taking the engine out of a wheel gives, and what is in the folder afterwards.
fn extracted(path: &Path) -> (Result<Vec<entry::File>, Status>, TempDir) {
    let folder = TempDir::new().unwrap();
    let tensorflow = package(EngineName::TensorFlow).unwrap();
    let files =
        Wheel::open(path).and_then(|mut wheel| wheel.extract(tensorflow, folder.path(), |_, _| {}));
    (files, folder)
}

fn refused(files: &[(&str, &[u8])], more: impl FnOnce(&mut ZipWriter<File>)) -> (Code, String) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("x.whl");
    write(&path, files, more);
    let (result, _) = extracted(&path);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "something was written outside");
    let status = result.unwrap_err();
    (status.code(), status.message().to_owned())
}

#[test]
fn only_libraries_and_licences_are_taken() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("x.whl");
    write(&path, FILES, |_| {});
    let (files, into) = extracted(&path);
    let mut paths: Vec<String> = files.unwrap().into_iter().map(|file| file.path).collect();
    paths.sort();
    assert_eq!(
        paths,
        [
            "libtensorflow_cc.so.2",
            "libtensorflow_framework.so.2",
            "licenses/tensorflow/THIRD_PARTY_NOTICES.txt",
            "licenses/tensorflow_cpu-2.0.9.dist-info/LICENSE",
        ]
    );
    assert_eq!(fs::read(into.path().join("libtensorflow_cc.so.2")).unwrap(), b"the library");
}

#[test]
fn paths_that_lead_out_are_refused() {
    for name in ["../evil", "/etc/evil", "a/../../evil", "a\\..\\evil", "./evil"] {
        let (code, text) = refused(FILES, |zip| {
            zip.start_file(name, SimpleFileOptions::default()).unwrap();
            zip.write_all(b"evil").unwrap();
        });
        assert_eq!(code, Code::InvalidArgument, "{name}");
        assert!(text.starts_with("the wheel is refused: an entry is called"), "{text}");
    }
}

#[test]
fn symbolic_links_are_refused() {
    let (code, text) = refused(&FILES[1..], |zip| {
        let options = SimpleFileOptions::default();
        zip.add_symlink("tensorflow/libtensorflow_cc.so.2", "/etc/passwd", options).unwrap();
    });
    assert_eq!(code, Code::InvalidArgument);
    assert!(text.contains("libtensorflow_cc.so.2 is a symbolic link"), "{text}");
}

#[test]
fn what_record_does_not_vouch_for_is_refused() {
    let add = |bytes: &'static [u8]| {
        move |zip: &mut ZipWriter<File>| {
            zip.start_file("tensorflow/libtensorflow_cc.so.3", SimpleFileOptions::default())
                .unwrap();
            zip.write_all(bytes).unwrap();
        }
    };
    let (code, text) = refused(FILES, add(b"x"));
    assert_eq!(code, Code::DataLoss);
    assert!(text.contains("libtensorflow_cc.so.3 has no sum in the wheel's RECORD"), "{text}");
}

/// A wheel whose library is `bytes`, where RECORD vouches for `recorded`.
fn forged(path: &Path, bytes: &[u8], recorded: &[u8]) {
    let mut zip = ZipWriter::new(File::create(path).unwrap());
    let mut put = |name: &str, bytes: &[u8]| {
        zip.start_file(name, SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    };
    put("tensorflow/libtensorflow_cc.so.2", bytes);
    put("tensorflow/libtensorflow_framework.so.2", b"f");
    let line = |name: &str, bytes: &[u8]| {
        let sum = URL_SAFE_NO_PAD.encode(Sha256::digest(bytes));
        format!("tensorflow/{name},sha256={sum},{}\n", bytes.len())
    };
    let record =
        line("libtensorflow_cc.so.2", recorded) + &line("libtensorflow_framework.so.2", b"f");
    put("tensorflow-2.0.dist-info/RECORD", record.as_bytes());
    zip.finish().unwrap();
}

#[test]
fn contents_other_than_recorded_are_refused() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("x.whl");
    forged(&path, b"evil", b"good");
    let text = extracted(&path).0.unwrap_err();
    assert!(text.message().contains("is not what the wheel's RECORD says"), "{text}");
    forged(&path, b"longer", b"long");
    let text = extracted(&path).0.unwrap_err();
    assert!(text.message().contains("has 6 bytes, not 4 as RECORD says"), "{text}");
}

#[test]
fn a_bomb_that_hides_its_size_writes_no_more_than_it_claimed() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("x.whl");
    let bomb = vec![0; 1 << 20];
    forged(&path, &bomb, b"1234567");
    // The central directory claims what RECORD claims.
    let mut bytes = fs::read(&path).unwrap();
    let size = (bomb.len() as u32).to_le_bytes();
    while let Some(at) = bytes.windows(4).position(|window| window == size) {
        bytes[at..at + 4].copy_from_slice(&7_u32.to_le_bytes());
    }
    fs::write(&path, bytes).unwrap();
    let (result, into) = extracted(&path);
    assert_eq!(result.unwrap_err().code(), Code::DataLoss);
    let written = fs::metadata(into.path().join("libtensorflow_cc.so.2")).map_or(0, |f| f.len());
    assert!(written <= 7, "{written}");
}

#[test]
fn a_wheel_without_the_library_is_refused() {
    let (code, text) = refused(&FILES[1..], |_| {});
    assert_eq!(code, Code::FailedPrecondition);
    assert!(text.starts_with("the wheel has no tensorflow/libtensorflow_cc.so.*;"), "{text}");
}

#[test]
fn what_is_no_wheel_is_refused() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("x.whl");
    fs::write(&path, "not a zip").unwrap();
    assert_eq!(extracted(&path).0.unwrap_err().code(), Code::DataLoss);
    let mut zip = ZipWriter::new(File::create(&path).unwrap());
    zip.start_file("readme", SimpleFileOptions::default()).unwrap();
    zip.finish().unwrap();
    let text = extracted(&path).0.unwrap_err();
    assert!(text.message().contains("has 0 RECORD files"), "{text}");
    assert_eq!(extracted(&folder.path().join("no.whl")).0.unwrap_err().code(), Code::NotFound);
}

#[test]
fn file_names_are_read() {
    let name =
        WheelName::parse("tensorflow_cpu-2.21.0-cp312-cp312-manylinux_2_27_x86_64.whl").unwrap();
    assert_eq!((name.package.as_str(), name.python.as_str()), ("tensorflow-cpu", "cp312"));
    assert_eq!(name.version.to_string(), "2.21.0");
    assert!(name.runs_on("x86_64") && !name.runs_on("aarch64"));
    let name =
        WheelName::parse("openvino-2026.4.0-22959-cp312-cp312-manylinux_2_28_x86_64.whl").unwrap();
    assert_eq!(name.version.to_string(), "2026.4.0");
    let two = "a-1-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl";
    assert!(WheelName::parse(two).unwrap().runs_on("x86_64"));
    assert!(!WheelName::parse("a-1-cp312-cp312-win_amd64.whl").unwrap().runs_on("x86_64"));
    assert!(!WheelName::parse("a-1-cp312-cp312-macosx_11_0_x86_64.whl").unwrap().runs_on("x86_64"));
    for wrong in
        ["", "a.whl", "a-1-cp312-cp312-linux_x86_64.zip", "a--c-c-linux.whl", "a-x-c-c-l.whl"]
    {
        assert!(WheelName::parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn record_lines_are_read() {
    let sum = URL_SAFE_NO_PAD.encode([7; 32]);
    let text = format!(
        "a/b.so,sha256={sum},12\n\"with, comma\",sha256={sum}=,3\r\nnone,,\nshort,sha256=AAAA,1\n\
         other,md5={sum},1\nnegative,sha256={sum},-1\n"
    );
    let record = parse_record(&text);
    assert_eq!(record.len(), 2);
    assert_eq!(record["a/b.so"], Recorded { sha256: vec![7; 32], bytes: 12 });
    assert_eq!(record["with, comma"].bytes, 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn record_and_names_never_panic(text in ".{0,200}") {
        parse_record(&text);
        let _ = WheelName::parse(&text);
    }

    #[test]
    fn a_recorded_path_is_read_back(path in "[a-z ,\"./]{1,40}", bytes in any::<u64>()) {
        let sum = URL_SAFE_NO_PAD.encode([1; 32]);
        let quoted = path.replace('"', "\"\"");
        let record = parse_record(&format!("\"{quoted}\",sha256={sum},{bytes}\n"));
        prop_assert_eq!(record.get(&path).map(|r| r.bytes), Some(bytes));
    }

    /// Whatever is cut off or changed: an error, or exactly the right files.
    #[test]
    fn a_damaged_wheel_is_refused_or_right(cut in 0_usize..1200, at in 0_usize..1200, value: u8) {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("x.whl");
        write(&path, FILES, |_| {});
        let mut bytes = fs::read(&path).unwrap();
        let at = at % bytes.len();
        bytes[at] = value;
        bytes.truncate(bytes.len() - cut.saturating_sub(900));
        fs::write(&path, bytes).unwrap();
        let (result, into) = extracted(&path);
        if result.is_ok() {
            for name in ["libtensorflow_cc.so.2", "libtensorflow_framework.so.2"] {
                let wanted = FILES.iter().find(|(path, _)| path.ends_with(name)).unwrap().1;
                prop_assert_eq!(fs::read(into.path().join(name)).unwrap(), wanted);
            }
        }
    }
}

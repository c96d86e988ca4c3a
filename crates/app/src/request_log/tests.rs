//! The files of recorded requests: names, ends, what cannot be written.

use super::*;
use vesta_model::RequestLogging;

const LIMITS: FileLimits = FileLimits { bytes_max: 1 << 20, records_max: u64::MAX, files_max: 100 };

fn route(prefix: &Path, model: &str, form: RequestLogForm) -> Arc<Route> {
    let path_prefix = prefix.to_path_buf();
    let logging = RequestLogging { form, path_prefix, requests_per_billion: 1 };
    Arc::new(Route { model: model.into(), logging })
}

/// Appends a record of `bytes` and writes it.
fn put(log: &mut Log, bytes: &[u8], limits: &FileLimits, metrics: &Metrics) {
    log.buffer.extend_from_slice(bytes);
    log.buffered += 1;
    log.flush(limits, metrics);
}

fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
        })
        .collect();
    found.sort();
    found
}

fn counted(metrics: &Metrics, code: &str) -> u64 {
    let page = String::from_utf8(metrics.page()).unwrap();
    let label = format!("request_log_count{{model_name=\"m\",status_code=\"{code}\"}} ");
    page.split_once(&label).map_or(0, |(_, rest)| rest.lines().next().unwrap().parse().unwrap())
}

#[test]
fn names_say_model_and_time() {
    let folder = tempfile::tempdir().unwrap();
    let metrics = Metrics::new().unwrap();
    for (prefix, model, form) in [
        ("sub/requests", "a/b", RequestLogForm::TfRecord),
        ("other/", "m", RequestLogForm::JsonLines),
    ] {
        let mut prefix_path = folder.path().join(prefix.trim_end_matches('/'));
        if prefix.ends_with('/') {
            prefix_path.push("");
        }
        put(&mut Log::new(route(&prefix_path, model, form)), b"one", &LIMITS, &metrics);
    }
    let [(first, bytes)] = &files(&folder.path().join("sub"))[..] else { panic!() };
    assert!(first.starts_with("requests-a_b-2") && first.ends_with("-000.tfrecord"), "{first}");
    assert_eq!(bytes, b"one");
    let [(second, _)] = &files(&folder.path().join("other"))[..] else { panic!() };
    assert!(second.starts_with("m-2") && second.ends_with("-000.jsonl"), "{second}");
}

#[test]
fn a_full_file_is_followed_by_the_next_and_the_oldest_go() {
    let folder = tempfile::tempdir().unwrap();
    let prefix = folder.path().join("r");
    std::fs::write(folder.path().join("r-m-notes.tfrecord"), "mine").unwrap();
    std::fs::write(folder.path().join("r-m-20200101T000000-000.tfrecord"), "old").unwrap();
    let metrics = Metrics::new().unwrap();
    let limits = FileLimits { bytes_max: 10, records_max: 3, files_max: 3 };
    let mut log = Log::new(route(&prefix, "m", RequestLogForm::TfRecord));
    for text in ["1234567", "123", "a", "b", "c", "d"] {
        put(&mut log, text.as_bytes(), &limits, &metrics);
    }
    let contents: Vec<Vec<u8>> = files(folder.path()).into_iter().map(|(_, bytes)| bytes).collect();
    assert_eq!(contents, [&b"1234567123"[..], b"abc", b"d", b"mine"]);
    assert_eq!(counted(&metrics, "OK"), 6);
    // Another process writes its own files.
    let mut beside = Log::new(route(&prefix, "m", RequestLogForm::TfRecord));
    put(&mut beside, b"x", &limits, &metrics);
    put(&mut log, b"e", &limits, &metrics);
    let contents: Vec<Vec<u8>> = files(folder.path()).into_iter().map(|(_, bytes)| bytes).collect();
    assert_eq!(contents, [&b"abc"[..], b"de", b"x", b"mine"]);
}

#[test]
fn what_cannot_be_written_is_counted_and_left_alone_for_a_while() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let metrics = Metrics::new().unwrap();
    let mut log = Log::new(route(&file.join("below"), "m", RequestLogForm::TfRecord));
    put(&mut log, b"one", &LIMITS, &metrics);
    assert_eq!(counted(&metrics, "UNAVAILABLE"), 1);
    std::fs::remove_file(&file).unwrap();
    put(&mut log, b"two", &LIMITS, &metrics);
    assert_eq!((counted(&metrics, "UNAVAILABLE"), counted(&metrics, "OK")), (2, 0));
    assert!(log.buffer.is_empty(), "nothing piles up");
    log.paused_until = Some(Instant::now());
    put(&mut log, b"three", &LIMITS, &metrics);
    assert_eq!(counted(&metrics, "OK"), 1);
    assert_eq!(files(&file)[0].1, b"three");
}

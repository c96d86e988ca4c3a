//! Bundles as TensorFlow writes them, and as nobody should.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use tempfile::TempDir;
use vesta_model::Code;
use vesta_protos::tensorflow::tensor_slice_proto::{Extent, extent::HasLengthHack};

use super::*;

const SHARD: &str = "variables.data-00000-of-00001";

/// A bundle of one shard in a directory of its own.
struct Written {
    dir: TempDir,
    entries: table::Entries,
    data: Vec<u8>,
}

impl Written {
    fn new() -> Written {
        let header = BundleHeaderProto { num_shards: 1, ..BundleHeaderProto::default() };
        let entries = table::Entries::from([(Vec::new(), header.encode_to_vec().into())]);
        Written { dir: tempfile::tempdir().unwrap(), entries, data: Vec::new() }
    }

    fn entry(&mut self, dtype: DType, dims: &[usize], bytes: &[u8], crc: u32) -> BundleEntryProto {
        let entry = BundleEntryProto {
            dtype: dtype.number(),
            shape: Some(shape_to_proto(dims)),
            offset: self.data.len() as i64,
            size: bytes.len() as i64,
            crc32c: table::mask(crc),
            ..BundleEntryProto::default()
        };
        self.data.extend_from_slice(bytes);
        entry
    }

    fn put(&mut self, key: &[u8], entry: &BundleEntryProto) {
        self.entries.insert(key.to_vec(), entry.encode_to_vec().into());
    }

    fn numbers(&mut self, key: &[u8], dims: &[usize], values: &[i32]) -> BundleEntryProto {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let entry = self.entry(DType::I32, dims, &bytes, crc32c::crc32c(&bytes));
        self.put(key, &entry);
        entry
    }

    fn strings(&mut self, key: &str, texts: &[&str]) {
        let mut bytes: Vec<u8> = texts.iter().map(|text| text.len() as u8).collect();
        let mut crc = 0;
        for text in texts {
            crc = crc32c::crc32c_append(crc, &(text.len() as u32).to_le_bytes());
        }
        let lengths = table::mask(crc).to_le_bytes();
        bytes.extend_from_slice(&lengths);
        let payload = texts.concat();
        bytes.extend_from_slice(payload.as_bytes());
        crc = crc32c::crc32c_append(crc32c::crc32c_append(crc, &lengths), payload.as_bytes());
        let entry = self.entry(DType::String, &[texts.len()], &bytes, crc);
        self.put(key.as_bytes(), &entry);
    }

    fn open(&self) -> Result<Bundle, Status> {
        fs::write(self.dir.path().join(SHARD), &self.data).unwrap();
        let index = table::tests::write(&self.entries, 2, false);
        fs::write(self.dir.path().join("variables.index"), index).unwrap();
        open_in(self.dir.path())
    }
}

fn open_in(dir: &Path) -> Result<Bundle, Status> {
    Bundle::open(&dir.join("variables")).map(|bundle| bundle.expect("there is an index"))
}

fn ints(tensor: &TensorProto) -> Vec<i32> {
    let chunks = tensor.tensor_content.chunks_exact(4);
    chunks.map(|chunk| i32::from_le_bytes(chunk.try_into().unwrap())).collect()
}

fn rows(start: i64, len: i64) -> TensorSliceProto {
    let all = Extent::default();
    let part = Extent { start, has_length_hack: Some(HasLengthHack::Length(len)) };
    TensorSliceProto { extent: vec![part, all] }
}

#[test]
fn numbers_and_strings_are_read_once() {
    let mut written = Written::new();
    written.numbers(b"n", &[2, 2], &[1, 2, 3, 4]);
    written.strings("s", &["a", "", "bcd"]);
    let bundle = written.open().unwrap();
    let first = bundle.tensor("n", "").unwrap();
    assert_eq!(ints(&first), [1, 2, 3, 4]);
    let second = bundle.tensor("n", "").unwrap();
    assert_eq!(first.tensor_content.as_ptr(), second.tensor_content.as_ptr());
    assert_eq!(first.tensor_content.as_ptr() as usize % AlignedBytes::ALIGNMENT, 0);
    assert_eq!(bundle.tensor("s", "").unwrap().string_val, ["a", "", "bcd"]);
    assert_eq!(bundle.tensor("x", "").unwrap_err().code(), Code::NotFound);
    assert!(bundle.entry("").unwrap().is_none());
}

#[test]
fn no_index_is_no_bundle() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Bundle::open(&dir.path().join("variables")).unwrap().is_none());
}

#[test]
fn wrong_checksums_are_data_loss_and_name_the_file() {
    let mut written = Written::new();
    written.numbers(b"n", &[1], &[1]);
    written.strings("s", &["abc"]);
    written.data[1] ^= 1;
    *written.data.last_mut().unwrap() ^= 1;
    let bundle = written.open().unwrap();
    for name in ["n", "s"] {
        let error = bundle.tensor(name, "").unwrap_err();
        assert_eq!(error.code(), Code::DataLoss);
        assert!(error.message().contains(SHARD) && error.message().contains(name), "{error}");
    }
}

#[test]
fn truncated_and_missing_data_are_told_before_memory_is_taken() {
    let mut written = Written::new();
    let mut entry = written.numbers(b"n", &[2], &[1, 2]);
    entry.shape = Some(shape_to_proto(&[1 << 38]));
    entry.size = 1 << 40;
    written.put(b"huge", &entry);
    written.data.pop();
    let bundle = written.open().unwrap();
    for name in ["n", "huge"] {
        let error = bundle.tensor(name, "").unwrap_err();
        assert_eq!(error.code(), Code::DataLoss, "{error}");
        assert!(error.message().contains("truncated"), "{error}");
    }
    let bundle = written.open().unwrap();
    fs::remove_file(written.dir.path().join(SHARD)).unwrap();
    let error = bundle.tensor("n", "").unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    assert!(error.message().ends_with("; No such file or directory"), "{error}");
}

#[test]
fn entries_that_contradict_themselves_are_refused() {
    let mut written = Written::new();
    let good = written.numbers(b"n", &[2], &[1, 2]);
    let change = |written: &mut Written, key: &[u8], f: &dyn Fn(&mut BundleEntryProto)| {
        let mut entry = good.clone();
        f(&mut entry);
        written.put(key, &entry);
    };
    change(&mut written, b"shape", &|entry| entry.shape = Some(shape_to_proto(&[3])));
    change(&mut written, b"shard", &|entry| entry.shard_id = 7);
    change(&mut written, b"offset", &|entry| entry.offset = -1);
    change(&mut written, b"size", &|entry| entry.size = -8);
    change(&mut written, b"dtype", &|entry| entry.dtype = 99);
    written.entries.insert(b"bytes".to_vec(), Bytes::from_static(&[0xff; 3]));
    let bundle = written.open().unwrap();
    for name in ["shape", "shard", "offset", "size", "dtype", "bytes"] {
        assert_eq!(bundle.tensor(name, "").unwrap_err().code(), Code::DataLoss, "{name}");
    }
    assert!(bundle.tensor("n", "").is_ok());
}

#[test]
fn entries_that_share_bytes_cannot_claim_without_end() {
    let mut written = Written::new();
    let entry = written.numbers(b"n", &[1 << 18], &vec![0; 1 << 18]);
    for i in 0..10 {
        written.put(format!("copy{i}").as_bytes(), &entry);
    }
    let bundle = written.open().unwrap();
    let failed = (0..10).filter(|i| bundle.tensor(&format!("copy{i}"), "").is_err()).count();
    assert_eq!(failed, 5, "five times the file may be read");
}

#[test]
fn big_endian_and_newer_formats_are_refused() {
    let header = |header: BundleHeaderProto| {
        let mut written = Written::new();
        written.entries.insert(Vec::new(), header.encode_to_vec().into());
        written.open().unwrap_err().code()
    };
    let big = BundleHeaderProto { num_shards: 1, endianness: 1, ..BundleHeaderProto::default() };
    assert_eq!(header(big), Code::Unimplemented);
    let version = vesta_protos::tensorflow::VersionDef { min_consumer: 2, ..Default::default() };
    let newer = BundleHeaderProto { version: Some(version), ..BundleHeaderProto::default() };
    assert_eq!(header(newer), Code::Unimplemented);
}

/// A tensor `w` of shape [5, 2] in parts of these rows.
fn partitioned(parts: &[(i64, i64)]) -> Written {
    let mut written = Written::new();
    let all: Vec<i32> = (0..10).collect();
    let mut whole = written.entry(DType::I32, &[5, 2], &[], 0);
    for &(start, len) in parts {
        let slice = rows(start, len);
        let values = &all[start as usize * 2..][..len as usize * 2];
        written.numbers(&Region::stored_key(&slice, "w"), &[len as usize, 2], values);
        whole.slices.push(slice);
    }
    written.put(b"w", &whole);
    written
}

#[test]
fn parts_are_put_together_and_cut_again() {
    let written = partitioned(&[(0, 3), (3, 2)]);
    let bundle = written.open().unwrap();
    assert_eq!(ints(&bundle.tensor("w", "").unwrap()), (0..10).collect::<Vec<_>>());
    assert_eq!(ints(&bundle.tensor("w", "5 2 2,2:-").unwrap()), [4, 5, 6, 7]);
    assert_eq!(ints(&bundle.tensor("w", "5 2 1,3:1,1").unwrap()), [3, 5, 7]);
    assert_eq!(bundle.tensor("w", "6 2 2,2:-").unwrap_err().code(), Code::DataLoss);
}

#[test]
fn a_part_of_a_whole_tensor_is_cut_out() {
    let mut written = Written::new();
    written.numbers(b"w", &[3, 2], &[1, 2, 3, 4, 5, 6]);
    let bundle = written.open().unwrap();
    assert_eq!(ints(&bundle.tensor("w", "3 2 1,2:1,1").unwrap()), [4, 6]);
}

#[test]
fn missing_and_overlapping_parts_are_refused() {
    for parts in [&[(0, 3)][..], &[(0, 3), (2, 3)], &[(0, 5), (0, 5)]] {
        let error = partitioned(parts).open().unwrap().tensor("w", "").unwrap_err();
        assert_eq!(error.code(), Code::DataLoss, "{parts:?}: {error}");
    }
    let mut written = partitioned(&[(0, 3), (3, 2)]);
    written.entries.remove(&Region::stored_key(&rows(3, 2), "w"));
    assert_eq!(written.open().unwrap().tensor("w", "").unwrap_err().code(), Code::DataLoss);
}

#[test]
fn parts_that_tensorflow_wrote_are_read() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/partitioned");
    let bundle = open_in(&dir).unwrap();
    let floats = |name: &str, slice: &str| -> Vec<f32> {
        let tensor = bundle.tensor(name, slice).unwrap();
        ints(&tensor).into_iter().map(|bits| f32::from_bits(bits as u32)).collect()
    };
    let p = floats("p/w", "");
    assert_eq!([p[0], p[1], p[5], p[39]], [-0.811_318_2, 1.484_598_8, 0.591_224_3, -0.264_324_07]);
    let sum = |values: &[f32]| values.iter().map(|v| u64::from(v.to_bits())).sum::<u64>();
    assert_eq!(sum(&p), 85_202_719_623);
    let r = floats("r/w", "");
    assert_eq!([r[0], r[39]], [-0.858_110_85, 0.417_726_13]);
    assert_eq!(sum(&r), 80_987_335_608);
    // The second of three parts, as the restore operator of its variable asks for it.
    assert_eq!(floats("p/w", "10 4 4,3:0,4"), p[16..28]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn damaged_entries_never_panic(
        entry in prop::collection::vec(any::<u8>(), 0..40),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let mut written = partitioned(&[(0, 3), (3, 2)]);
        written.entries.insert(b"garbage".to_vec(), entry.into());
        let mut whole = written.entries[&b"w"[..]].to_vec();
        for (at, byte) in flips {
            let at = at.index(whole.len());
            whole[at] = byte;
        }
        written.entries.insert(b"w".to_vec(), whole.into());
        let bundle = written.open().unwrap();
        let _ = bundle.tensor("garbage", "");
        let _ = bundle.tensor("w", "");
        let _ = bundle.tensor("w", "5 2 1,3:1,1");
    }
}

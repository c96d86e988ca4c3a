//! The tensor bundle: `variables.index` names each tensor's dtype, shape and place, the data files
//! hold the bytes.
//!
//! Knows nothing of graphs. Invariant: a tensor is read when it is asked for, each at most once
//! while anybody holds it, and nothing is allocated before the files were seen to be long enough.

mod region;
mod table;

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use prost::Message as _;
use vesta_model::{AlignedBytes, DType, Memory, Shape, Status};
use vesta_protos::tensorflow::{
    BundleEntryProto, BundleHeaderProto, TensorProto, TensorSliceProto, bundle_header_proto,
};

use crate::disk::{damaged, io_status, open, read};
use crate::tensor::{shape_from_proto, shape_to_proto, take_varint};
pub(crate) use region::Region;

/// The largest index file that is read: a million variables.
const INDEX_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// The most parts of one partitioned tensor.
const SLICES_MAX: usize = 4096;
/// How often each byte of the data files may be read: once for a tensor, and some more for parts.
const REREAD_MAX: u64 = 4;
/// The newest version of the format whose rules are known here.
const FORMAT_VERSION: i32 = 1;

/// An opened bundle.
#[derive(Debug)]
pub(crate) struct Bundle {
    /// `.../variables/variables`.
    prefix: PathBuf,
    index: PathBuf,
    shards: i32,
    entries: table::Entries,
    files: Mutex<HashMap<i32, Arc<(File, u64)>>>,
    /// Bytes read so far, to bound what entries that overlap could claim.
    bytes_read: AtomicU64,
    /// Signatures share variables; their bytes exist once.
    tensors: Mutex<HashMap<(String, Option<String>), TensorProto>>,
}

/// What the index says of one tensor.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) dtype: DType,
    pub(crate) shape: Shape,
    shard: i32,
    offset: u64,
    size: usize,
    crc: u32,
    slices: Vec<TensorSliceProto>,
}

/// Heap bytes that a message may share.
struct Aligned(AlignedBytes);

impl AsRef<[u8]> for Aligned {
    fn as_ref(&self) -> &[u8] {
        self.0.bytes()
    }
}

impl Bundle {
    /// Opens the bundle of this prefix; `None` when it has no index, as models without variables.
    pub(crate) fn open(prefix: &Path) -> Result<Option<Bundle>, Status> {
        let index = PathBuf::from(format!("{}.index", prefix.display()));
        let bytes = match read(&index, INDEX_BYTES_MAX) {
            Err(error) if error.code() == vesta_model::Code::NotFound => return Ok(None),
            bytes => bytes?,
        };
        let entries = table::read(&bytes).map_err(|what| damaged(&index, what))?;
        let header = entries
            .get(&b""[..])
            .ok_or_else(|| damaged(&index, "the header is missing"))
            .and_then(|bytes| {
                BundleHeaderProto::decode(&bytes[..])
                    .map_err(|error| damaged(&index, "the header is damaged").with_cause(error))
            })?;
        if header.endianness() == bundle_header_proto::Endianness::Big {
            return Err(Status::unimplemented(format!(
                "{}: written on a big-endian machine, which is not supported; save the model again \
                 on a little-endian one",
                index.display()
            )));
        }
        if header.version.as_ref().is_some_and(|version| version.min_consumer > FORMAT_VERSION) {
            return Err(Status::unimplemented(format!(
                "{}: its format is newer than version {FORMAT_VERSION}, the newest known",
                index.display()
            )));
        }
        Ok(Some(Bundle {
            prefix: prefix.to_owned(),
            index,
            shards: header.num_shards,
            entries,
            files: Mutex::default(),
            bytes_read: AtomicU64::new(0),
            tensors: Mutex::default(),
        }))
    }

    /// What the index says of the tensor `name`; `None` when it has none of that name.
    pub(crate) fn entry(&self, name: &str) -> Result<Option<Entry>, Status> {
        // The empty key is the header's.
        if name.is_empty() {
            return Ok(None);
        }
        self.entry_of(name.as_bytes(), name)
    }

    fn entry_of(&self, key: &[u8], name: &str) -> Result<Option<Entry>, Status> {
        let Some(bytes) = self.entries.get(key) else { return Ok(None) };
        let wrong = |what: &str| damaged(&self.index, format!("the entry of `{name}` {what}"));
        let proto = BundleEntryProto::decode(&bytes[..])
            .map_err(|error| wrong("is damaged").with_cause(error))?;
        let dtype = DType::from_number(proto.dtype).ok_or_else(|| wrong("has an unknown dtype"))?;
        let shape = shape_from_proto(proto.shape.as_ref())
            .map_err(|error| wrong("has an impossible shape").with_cause(error))?;
        Ok(Some(Entry {
            dtype,
            shape,
            shard: proto.shard_id,
            offset: u64::try_from(proto.offset).map_err(|_| wrong("has a negative offset"))?,
            size: usize::try_from(proto.size).map_err(|_| wrong("has a negative size"))?,
            crc: table::unmask(proto.crc32c),
            slices: proto.slices,
        }))
    }

    /// The tensor `name`, or the part of it that `slice` names (`10 4 0,5:-`; empty for all).
    ///
    /// Numbers come as `tensor_content`, strings as `string_val`.
    pub(crate) fn tensor(&self, name: &str, slice: &str) -> Result<TensorProto, Status> {
        let key = (name.to_owned(), (!slice.is_empty()).then(|| slice.to_owned()));
        if let Some(tensor) = lock(&self.tensors).get(&key) {
            return Ok(tensor.clone());
        }
        let entry = self.entry(name)?.ok_or_else(|| {
            Status::not_found(format!("{}: no tensor of name `{name}`", self.index.display()))
        })?;
        let tensor = if slice.is_empty() && entry.slices.is_empty() {
            self.whole(name, &entry)?
        } else {
            let region = self.wanted(name, &entry, slice)?;
            self.part(name, &entry, &region)?
        };
        lock(&self.tensors).insert(key, tensor.clone());
        Ok(tensor)
    }

    /// The region that `slice` means, checked against the stored shape.
    fn wanted(&self, name: &str, entry: &Entry, slice: &str) -> Result<Region, Status> {
        if slice.is_empty() {
            return Ok(Region::whole(&entry.shape));
        }
        match Region::parse(slice) {
            Some((shape, region)) if shape == entry.shape => Ok(region),
            _ => Err(damaged(
                &self.index,
                format!("the model wants `{slice}` of `{name}`, whose shape is {}", entry.shape),
            )),
        }
    }

    fn whole(&self, name: &str, entry: &Entry) -> Result<TensorProto, Status> {
        let mut proto = TensorProto {
            dtype: entry.dtype.number(),
            tensor_shape: Some(shape_to_proto(entry.shape.dims())),
            ..TensorProto::default()
        };
        if entry.dtype == DType::String {
            proto.string_val = self.strings(name, entry)?;
            return Ok(proto);
        }
        let width = self.width(name, entry)?;
        if entry.shape.bytes(width)? != entry.size {
            return Err(damaged(
                &self.index,
                format!("`{name}` is {} {} but has {} bytes", entry.dtype, entry.shape, entry.size),
            ));
        }
        let bytes = self.bytes(entry)?;
        if crc32c::crc32c(&bytes) != entry.crc {
            return Err(self.wrong_checksum(name, entry));
        }
        proto.tensor_content = bytes;
        Ok(proto)
    }

    fn width(&self, name: &str, entry: &Entry) -> Result<usize, Status> {
        entry.dtype.width().ok_or_else(|| {
            Status::unimplemented(format!(
                "{}: `{name}` is of dtype {}, which has no known form on disk",
                self.index.display(),
                entry.dtype
            ))
        })
    }

    /// Strings: lengths as varints, a checksum of the lengths, then all bytes.
    fn strings(&self, name: &str, entry: &Entry) -> Result<Vec<Bytes>, Status> {
        let wrong = || damaged(&self.shard_path(entry.shard), format!("`{name}` is damaged"));
        let count = entry.shape.elements();
        // A length takes a byte at least.
        if count > entry.size {
            return Err(wrong());
        }
        let bytes = self.bytes(entry)?;
        let mut rest = &bytes[..];
        let mut lengths = Vec::with_capacity(count);
        let mut crc = 0;
        for _ in 0..count {
            let length = take_varint(&mut rest).ok_or_else(wrong)?;
            // The checksum is of the numbers, as wide as they need, not of the varints.
            crc = match u32::try_from(length) {
                Ok(short) => crc32c::crc32c_append(crc, &short.to_le_bytes()),
                Err(_) => crc32c::crc32c_append(crc, &length.to_le_bytes()),
            };
            lengths.push(usize::try_from(length).map_err(|_| wrong())?);
        }
        let (stored, payload) = rest.split_at_checked(4).ok_or_else(wrong)?;
        if table::mask(crc).to_le_bytes() != stored {
            return Err(self.wrong_checksum(name, entry));
        }
        crc = crc32c::crc32c_append(crc, stored);
        if crc32c::crc32c_append(crc, payload) != entry.crc {
            return Err(self.wrong_checksum(name, entry));
        }
        let mut at = bytes.len() - payload.len();
        let mut texts = Vec::with_capacity(count);
        for length in lengths {
            let end = at.checked_add(length).filter(|&end| end <= bytes.len()).ok_or_else(wrong)?;
            texts.push(bytes.slice(at..end));
            at = end;
        }
        if at == bytes.len() { Ok(texts) } else { Err(wrong()) }
    }

    /// A part of a tensor, out of one that is stored whole or in parts.
    fn part(&self, name: &str, entry: &Entry, wanted: &Region) -> Result<TensorProto, Status> {
        let width = self.width(name, entry)?;
        let pieces = self.pieces(name, entry, width)?;
        let found: Vec<_> = pieces
            .into_iter()
            .filter_map(|(piece, region)| Some((wanted.intersection(&region)?, piece, region)))
            .collect();
        let shape = wanted.shape();
        let covered: usize = found.iter().map(|(part, ..)| part.shape().elements()).sum();
        if covered != shape.elements() {
            return Err(damaged(
                &self.index,
                format!("the parts of `{name}` do not make up the whole"),
            ));
        }
        // The files are long enough for all pieces, and the pieces cover what is allocated here.
        let mut target = AlignedBytes::zeroed(shape.bytes(width)?);
        for (part, piece, region) in found {
            let source = self.whole(name, &piece)?.tensor_content;
            let to = (target.bytes_mut(), wanted);
            region::copy(&part, (&source[..], &region), to, width);
        }
        Ok(TensorProto {
            dtype: entry.dtype.number(),
            tensor_shape: Some(shape_to_proto(shape.dims())),
            tensor_content: Bytes::from_owner(Aligned(target)),
            ..TensorProto::default()
        })
    }

    /// The stored pieces of a tensor with their regions: disjoint, and each in its file.
    fn pieces(
        &self,
        name: &str,
        entry: &Entry,
        width: usize,
    ) -> Result<Vec<(Entry, Region)>, Status> {
        let wrong = |what: &str| damaged(&self.index, format!("the parts of `{name}` {what}"));
        if entry.slices.is_empty() {
            let whole = self.entry(name)?.ok_or_else(|| wrong("are missing"))?;
            self.file_for(&whole)?;
            if whole.shape.bytes(width)? != whole.size {
                return Err(wrong("are not as long as their shapes say"));
            }
            return Ok(vec![(whole, Region::whole(&entry.shape))]);
        }
        if entry.slices.len() > SLICES_MAX {
            return Err(wrong("are too many"));
        }
        let mut pieces: Vec<(Entry, Region)> = Vec::with_capacity(entry.slices.len());
        for slice in &entry.slices {
            let region = Region::from_proto(slice, &entry.shape)
                .ok_or_else(|| wrong("lie outside of it"))?;
            let piece = self
                .entry_of(&Region::stored_key(slice, name), name)?
                .ok_or_else(|| wrong("are not all in the bundle"))?;
            if piece.shape != region.shape() || piece.dtype != entry.dtype {
                return Err(wrong("do not fit it"));
            }
            if pieces.iter().any(|(_, other)| other.intersection(&region).is_some()) {
                return Err(wrong("overlap"));
            }
            self.file_for(&piece)?;
            if piece.shape.bytes(width)? != piece.size {
                return Err(wrong("are not as long as their shapes say"));
            }
            pieces.push((piece, region));
        }
        Ok(pieces)
    }

    /// The bytes of an entry. The file is seen to hold them before memory is taken.
    fn bytes(&self, entry: &Entry) -> Result<Bytes, Status> {
        let file = self.file_for(entry)?;
        let allowed = lock(&self.files).values().map(|file| file.1).sum::<u64>();
        let allowed = allowed.saturating_mul(REREAD_MAX).saturating_add(1 << 20);
        let before = self.bytes_read.fetch_add(entry.size as u64, Ordering::Relaxed);
        if before.saturating_add(entry.size as u64) > allowed {
            return Err(damaged(&self.index, "its entries claim more bytes than the files have"));
        }
        let mut memory = AlignedBytes::zeroed(entry.size);
        file.0
            .read_exact_at(memory.bytes_mut(), entry.offset)
            .map_err(|error| io_status(&self.shard_path(entry.shard), error))?;
        Ok(Bytes::from_owner(Aligned(memory)))
    }

    /// The data file of an entry, which is long enough for it.
    fn file_for(&self, entry: &Entry) -> Result<Arc<(File, u64)>, Status> {
        if !(0..self.shards).contains(&entry.shard) {
            return Err(damaged(
                &self.index,
                format!("names data file {} of {}", entry.shard, self.shards),
            ));
        }
        let path = self.shard_path(entry.shard);
        let file = {
            let mut files = lock(&self.files);
            match files.get(&entry.shard) {
                Some(file) => Arc::clone(file),
                None => {
                    let file = Arc::new(open(&path)?);
                    files.insert(entry.shard, Arc::clone(&file));
                    file
                }
            }
        };
        let end = entry.offset.checked_add(entry.size as u64);
        if end.is_none_or(|end| end > file.1) {
            return Err(damaged(
                &path,
                format!(
                    "truncated: {} bytes where a tensor ends at {}",
                    file.1,
                    entry.offset.saturating_add(entry.size as u64)
                ),
            ));
        }
        Ok(file)
    }

    fn wrong_checksum(&self, name: &str, entry: &Entry) -> Status {
        damaged(&self.shard_path(entry.shard), format!("the checksum of `{name}` is wrong"))
    }

    fn shard_path(&self, shard: i32) -> PathBuf {
        PathBuf::from(format!("{}.data-{shard:05}-of-{:05}", self.prefix.display(), self.shards))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The maps are only ever inserted into, so a panic elsewhere leaves them whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;

//! Memory that two processes see: a sealed memfd, mapped whole.
//!
//! Owns creating, checking, mapping and dividing it. Knows nothing of who may write when: that is a
//! protocol between the two processes, and nothing here relies on the other side keeping it.
//! Invariant: within this process the ranges of all living values of one mapping are disjoint, so a
//! `&mut` to one never overlaps another view.

#![expect(unsafe_code, reason = "views of mapped memory are made here and nowhere else")]

use std::fmt;
use std::io::{Error, ErrorKind, Result};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{MemfdFlags, SealFlags};

/// One mapping of one memfd, unmapped when its last range is dropped.
struct Mapping {
    map: MmapRaw,
    fd: OwnedFd,
}

/// Sole owner, in this process, of a range of a shared mapping.
///
/// Made by [`SharedMemory::create`] (the whole mapping) or received by [`SharedMemory::from_fd`];
/// divided by [`SharedMemory::split_at`] and put together again by [`SharedMemory::rejoin`]. The
/// bytes are plain bytes: any value is valid, and a peer that breaks its protocol can change them
/// at any moment, so copy what must not change between a check and its use.
pub struct SharedMemory {
    mapping: Arc<Mapping>,
    range: Range<usize>,
}

impl SharedMemory {
    /// `len` zero bytes in a new memfd, sealed so that nobody can resize it.
    ///
    /// Pages are taken from the system when they are first touched.
    ///
    /// # Errors
    /// `InvalidInput` for a length of 0 or over `isize::MAX`; what the system says when descriptors
    /// or memory are used up.
    pub fn create(len: usize) -> Result<SharedMemory> {
        let size = checked_len(len)?;
        let fd = memfd()?;
        rustix::fs::ftruncate(&fd, size)?;
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        SharedMemory::map(fd, len)
    }

    /// Maps a memfd that another process made.
    ///
    /// Its size and seals are checked before it is mapped: a file that could shrink under its
    /// mapping would kill this process with SIGBUS at the next read.
    ///
    /// # Errors
    /// `InvalidData` when it is not a sealed memfd of `expected_len` bytes.
    pub fn from_fd(fd: OwnedFd, expected_len: usize) -> Result<SharedMemory> {
        let size = checked_len(expected_len)?;
        let wrong = |what: &str| Error::new(ErrorKind::InvalidData, what.to_owned());
        let seals = rustix::fs::fcntl_get_seals(&fd)
            .map_err(|_| wrong("the descriptor received is no memfd"))?;
        if !seals.contains(SealFlags::SHRINK) {
            return Err(wrong("the memfd received is not sealed against shrinking"));
        }
        let stat = rustix::fs::fstat(&fd)?;
        if u64::try_from(stat.st_size).ok() != Some(size) {
            return Err(Error::new(
                ErrorKind::InvalidData,
                format!("the memfd received has {} bytes, not {size}", stat.st_size),
            ));
        }
        SharedMemory::map(fd, expected_len)
    }

    fn map(fd: OwnedFd, len: usize) -> Result<SharedMemory> {
        let map = MmapOptions::new().len(len).map_raw(&fd)?;
        Ok(SharedMemory { mapping: Arc::new(Mapping { map, fd }), range: 0..len })
    }

    /// The memfd behind the mapping, to be passed to another process.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.mapping.fd.as_fd()
    }

    /// Bytes in this range.
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Whether the range is empty, as one side of a split may be.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// The bytes of this range.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the range lies inside the mapping (checked when it was made or split), which is
        // readable and stays mapped while `self.mapping` lives, hence while the borrow does. Sealed
        // against shrinking, each page stays backed by the file. Within this process ranges are
        // disjoint and a `&mut` needs `&mut self`, so nobody here writes during the borrow. Should
        // the other process write now, against the protocol, the values read are arbitrary; as
        // plain `u8` every value is valid, and callers copy what they check. This is the same
        // residual risk as in every mapping of a file.
        unsafe {
            std::slice::from_raw_parts(
                self.mapping.map.as_ptr().add(self.range.start),
                self.range.len(),
            )
        }
    }

    /// The bytes of this range, for writing.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; the mapping is writable, `&mut self` is the only access to this
        // range in this process, and the pointer is derived from a mutable one. A write by the
        // other process during the borrow changes plain bytes only.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.mapping.map.as_mut_ptr().add(self.range.start),
                self.range.len(),
            )
        }
    }

    /// Two owners: of the bytes before `at` and of those from it. `None` when `at` is past the end.
    pub fn split_at(self, at: usize) -> Option<(SharedMemory, SharedMemory)> {
        let middle = self.range.start.checked_add(at).filter(|&m| m <= self.range.end)?;
        let front =
            SharedMemory { mapping: Arc::clone(&self.mapping), range: self.range.start..middle };
        Some((front, SharedMemory { mapping: self.mapping, range: middle..self.range.end }))
    }

    /// Undoes [`SharedMemory::split_at`]; `None` (both are dropped) when `back` does not follow
    /// `self` in the same mapping.
    pub fn rejoin(self, back: SharedMemory) -> Option<SharedMemory> {
        let adjacent =
            Arc::ptr_eq(&self.mapping, &back.mapping) && self.range.end == back.range.start;
        adjacent.then(|| SharedMemory {
            mapping: self.mapping,
            range: self.range.start..back.range.end,
        })
    }
}

impl fmt::Debug for SharedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedMemory({:?})", self.range)
    }
}

fn checked_len(len: usize) -> Result<u64> {
    if len == 0 || len > isize::MAX as usize {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!("shared memory cannot have {len} bytes"),
        ));
    }
    Ok(len as u64)
}

fn memfd() -> Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels from 6.3 on may be told to refuse memfds that could be executed; older ones do not
    // know the flag.
    match rustix::fs::memfd_create("vesta", flags | MemfdFlags::NOEXEC_SEAL) {
        Err(rustix::io::Errno::INVAL) => Ok(rustix::fs::memfd_create("vesta", flags)?),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_mappings_see_the_same_bytes() {
        let mut ours = SharedMemory::create(5000).unwrap();
        assert!(ours.bytes().iter().all(|&b| b == 0));
        ours.bytes_mut()[4999] = 7;
        let theirs = SharedMemory::from_fd(ours.fd().try_clone_to_owned().unwrap(), 5000).unwrap();
        assert_eq!(theirs.bytes()[4999], 7);
        drop(ours);
        assert_eq!(theirs.bytes()[4999], 7);
    }

    #[test]
    fn nobody_can_resize_it() {
        let memory = SharedMemory::create(4096).unwrap();
        assert!(rustix::fs::ftruncate(memory.fd(), 1).is_err());
        assert!(rustix::fs::ftruncate(memory.fd(), 8192).is_err());
    }

    #[test]
    fn what_is_not_sealed_or_of_another_size_is_refused() {
        let open = memfd().unwrap();
        rustix::fs::ftruncate(&open, 4096).unwrap();
        let error = SharedMemory::from_fd(open, 4096).unwrap_err();
        assert!(error.to_string().contains("sealed"), "{error}");

        let memory = SharedMemory::create(4096).unwrap();
        for len in [0, 1, 4095, 4097, usize::MAX] {
            let fd = memory.fd().try_clone_to_owned().unwrap();
            assert!(SharedMemory::from_fd(fd, len).is_err(), "{len}");
        }
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let error = SharedMemory::from_fd(OwnedFd::from(file), 4096).unwrap_err();
        assert!(error.to_string().contains("no memfd"), "{error}");
        assert!(SharedMemory::create(0).is_err());
        assert!(SharedMemory::create(usize::MAX).is_err());
    }

    #[test]
    fn parts_are_disjoint_and_rejoin() {
        let memory = SharedMemory::create(100).unwrap();
        let (mut front, mut back) = memory.split_at(60).unwrap();
        assert_eq!((front.len(), back.len()), (60, 40));
        front.bytes_mut().fill(1);
        back.bytes_mut().fill(2);
        let memory = front.rejoin(back).unwrap();
        assert!(memory.bytes()[..60].iter().all(|&b| b == 1));
        assert!(memory.bytes()[60..].iter().all(|&b| b == 2));

        let (front, back) = memory.split_at(100).unwrap();
        assert!(back.is_empty());
        assert!(back.rejoin(front).is_none());
        assert!(SharedMemory::create(8).unwrap().split_at(9).is_none());
    }
}

//! Memory that was freed in this process and that the C library still holds.
//!
//! Owns giving it back to the system, and how much of it is kept. May not know who used it.

#![expect(unsafe_code, reason = "the C library's heap is reached by a function of C")]

/// Gives freed memory of the C library's heap back to the system. What C++ libraries use while they read a
/// model lies between what they keep, where the library would hold it until the process ends. Other threads may
/// wait for memory meanwhile.
pub fn return_freed_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes a number and no pointer, and the heap has a lock of its own.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Keeps what is freed at the ends of the C library's heaps, up to 8 MiB of each, for what comes next: else
/// each request of some hundred kilobytes has its pages given by the system anew, and cleared. Settings of
/// glibc's in the environment go before it.
///
/// Call it before threads are started.
pub fn keep_freed_memory() {
    #[cfg(target_env = "gnu")]
    {
        const KEPT: libc::c_int = 8 << 20;
        /// Blocks from this size come from the system, and go back to it at once.
        const APART: libc::c_int = 4 << 20;
        let settings = ["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"];
        if settings.iter().any(|name| std::env::var_os(name).is_some()) {
            return;
        }
        // SAFETY: it takes two numbers and no pointer; where it refuses one, all stays as it was.
        unsafe {
            libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
            libc::mallopt(libc::M_MMAP_THRESHOLD, APART);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Resident bytes of this process.
    fn resident() -> usize {
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    }

    /// Pages that this thread was given by the system so far.
    fn faults() -> u64 {
        let text = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let fields = text.rsplit(") ").next().unwrap();
        fields.split(' ').nth(7).unwrap().parse().unwrap()
    }

    #[test]
    #[cfg_attr(not(target_env = "gnu"), ignore = "no such function there")]
    fn what_was_freed_is_there_for_the_next_request() {
        keep_freed_memory();
        // What a request of some hundred kilobytes takes on its way.
        let request = || std::hint::black_box([(); 4].map(|()| vec![1u8; 600 * 1024]));
        drop(request());
        let before = faults();
        for _ in 0..20 {
            drop(request());
        }
        // Anew each time, it would be 600 pages.
        assert!(faults() - before < 20 * 60, "{}", faults() - before);
    }

    #[test]
    #[cfg_attr(not(target_env = "gnu"), ignore = "no such function there")]
    fn what_lies_between_is_given_back() {
        // Blocks of the heap, each too small for a mapping of its own.
        let blocks: Vec<Vec<u8>> = (0..2000).map(|_| vec![1; 64 * 1024]).collect();
        let all = resident();
        let kept: Vec<Vec<u8>> = blocks.into_iter().step_by(20).collect();
        return_freed_memory();
        assert!(resident() + (80 << 20) < all, "{} of {all}", resident());
        assert!(kept.iter().all(|block| block[100] == 1));
    }
}

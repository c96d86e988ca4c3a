//! Environment variables of this process, set while that is sound.
//!
//! Some libraries read their settings from the environment alone. Knows none of them.

#![expect(
    unsafe_code,
    reason = "changing the environment is sound in a process of one thread alone"
)]

use std::ffi::OsStr;

/// Sets a variable of this process, unless another thread runs already. Says whether it was set.
///
/// Call it first in `main`: the environment may be read without a lock by any other thread.
pub fn set_before_threads(name: &str, value: impl AsRef<OsStr>) -> bool {
    let is_alone = std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() == 1);
    if is_alone {
        // SAFETY: no other thread exists, so none reads the environment while it changes; and only
        // this thread could start one, which it does not before the call returns.
        unsafe { std::env::set_var(name, value) };
    }
    is_alone
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beside_other_threads_nothing_is_set() {
        // The test runner itself is another thread.
        let (release, held) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || held.recv());
        assert!(!set_before_threads("VESTA_FFI_TEST", "1"));
        assert!(std::env::var_os("VESTA_FFI_TEST").is_none());
        drop(release);
        let _ = other.join();
    }
}

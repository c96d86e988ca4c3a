//! What this process does with the signals of a crash.
//!
//! Owns the way back to the system's own action. May not know who sends them.

#![expect(unsafe_code, reason = "the C library's `signal` is unsafe to call in general")]

/// From now on SIGSEGV and SIGBUS end this process, whoever sends them.
///
/// Rust's own handler only reports an overflow of a stack and takes the system's action for the next
/// time; so the first such signal that comes from another process, or from a library that raises it,
/// would have no effect at all.
pub fn die_of_faults() {
    for signal in [libc::SIGSEGV, libc::SIGBUS] {
        // SAFETY: the system's own action runs no code of this process, so nothing that a handler
        // must heed is at stake; the call itself takes two numbers and touches no memory of ours.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

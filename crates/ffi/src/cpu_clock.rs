//! How much processor time a process has used.
//!
//! Owns the clock of another process. May not know whose it is, or why somebody asks.

#![expect(unsafe_code, reason = "the C library's clocks are filled in through pointers")]

use std::io;
use std::time::Duration;

/// Processor time that all threads of process `pid`, living and ended, have used since it began.
///
/// # Errors
/// What the system says: that there is no such process, or that its clock may not be read.
pub fn process_cpu_time(pid: u32) -> io::Result<Duration> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::Error::from(io::ErrorKind::NotFound))?;
    let mut clock: libc::clockid_t = 0;
    // SAFETY: `clock` is a place for one clock's number that outlives the call, which writes no more
    // than that.
    let problem = unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) };
    if problem != 0 {
        return Err(io::Error::from_raw_os_error(problem));
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a place for one `timespec` that outlives the call; a clock whose process has
    // ended is an error, not a fault.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Ok(Duration::new(seconds, nanos))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn time_passes_while_there_is_work() {
        let own = std::process::id();
        let before = process_cpu_time(own).unwrap();
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(5) {
            std::hint::spin_loop();
        }
        assert!(process_cpu_time(own).unwrap() > before);
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        assert!(process_cpu_time(u32::MAX).is_err());
        // Above what the kernel gives out.
        assert!(process_cpu_time(0x7fff_fff0).is_err());
    }
}

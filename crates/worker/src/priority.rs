//! Loading behind others: a worker starts, loads and tries its version with less claim to the
//! processors than those that serve, and takes its place among them when it is ready; one that its
//! parent tries out steps back once more.
//!
//! Invariant: nothing is lowered that this process may not raise again (that takes a right, which
//! root and few others have), so no version ever serves with less than its share.

use rustix::process::{Pid, getpriority_process, setpriority_process};

/// How much nicer a loading worker is: it gets about a quarter of a processor that another wants, and
/// all of one that nobody wants.
const STEP: i32 = 5;

/// Set for a worker that takes the place of one that served: its version is missed, so it does not
/// wait behind others.
pub(crate) const RESTARTED: &str = "VESTA_WORKER_RESTARTED";

/// The nicest that there is.
const NICEST: i32 = 19;

/// A process whose priority was lowered, and what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lowered {
    original: i32,
}

impl Lowered {
    /// As [`Lowered::now`], unless this worker takes the place of one that served.
    pub fn for_load() -> Option<Lowered> {
        if std::env::var_os(RESTARTED).is_some() { None } else { Lowered::now() }
    }

    /// Lowers the priority of the calling thread, and so of all threads that come of it. Call it
    /// before there are others. `None`, with nothing changed, where it could not be raised again.
    pub fn now() -> Option<Lowered> {
        let original = getpriority_process(None).ok()?;
        let lowered = (original + STEP).min(NICEST);
        if !can_raise(lowered, original) {
            return None;
        }
        setpriority_process(None, lowered).ok()?;
        Some(Lowered { original })
    }

    /// Gives every thread of this process the priority that it had.
    pub fn restore(&self) {
        set_for_all("self", self.original);
    }
}

/// Another process whose priority is lowered for as long as this lives: a worker that is being tried
/// out waits behind those that serve.
#[derive(Debug)]
pub struct LoweredProcess {
    pid: u32,
    original: i32,
}

impl LoweredProcess {
    /// Lowers every thread of `pid`. `None`, with nothing changed, where that could not be undone.
    pub fn new(pid: u32) -> Option<LoweredProcess> {
        let process = Pid::from_raw(i32::try_from(pid).ok()?)?;
        let original = getpriority_process(Some(process)).ok()?;
        let lowered = (original + STEP).min(NICEST);
        if !can_raise(lowered, original) {
            return None;
        }
        set_for_all(&pid.to_string(), lowered);
        Some(LoweredProcess { pid, original })
    }
}

impl Drop for LoweredProcess {
    fn drop(&mut self) {
        set_for_all(&self.pid.to_string(), self.original);
    }
}

/// Whether the priority `original` can be had again after `lowered`. Tried on a thread of its own,
/// which is gone afterwards whatever came of it.
fn can_raise(lowered: i32, original: i32) -> bool {
    let trial = std::thread::spawn(move || {
        setpriority_process(None, lowered).is_ok() && setpriority_process(None, original).is_ok()
    });
    trial.join().unwrap_or(false)
}

/// Gives every thread of a process, by its name under `/proc`, a priority.
fn set_for_all(process: &str, priority: i32) {
    // A thread may start another while the first pass runs; that one is found by the second.
    for _ in 0..2 {
        let Ok(threads) = std::fs::read_dir(format!("/proc/{process}/task")) else { return };
        for thread in threads.flatten() {
            let number = thread.file_name().to_str().and_then(|name| name.parse().ok());
            if let Some(thread) = number.and_then(Pid::from_raw) {
                // A thread that has ended meanwhile needs nothing.
                let _ = setpriority_process(Some(thread), priority);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_process_is_lowered_for_a_while() {
        let mut child = std::process::Command::new("/bin/sleep").arg("1000").spawn().unwrap();
        let pid = Pid::from_child(&child);
        let before = getpriority_process(Some(pid)).unwrap();
        if let Some(lowered) = LoweredProcess::new(child.id()) {
            assert_eq!(getpriority_process(Some(pid)).unwrap(), (before + STEP).min(NICEST));
            drop(lowered);
        }
        assert_eq!(getpriority_process(Some(pid)).unwrap(), before);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(LoweredProcess::new(u32::MAX).is_none());
    }

    /// On a thread of its own, so that the other tests keep their priority.
    #[test]
    fn what_is_lowered_is_raised_again_with_all_that_came_of_it() {
        let test = std::thread::spawn(|| {
            let before = getpriority_process(None).unwrap();
            let Some(lowered) = Lowered::now() else {
                assert_eq!(getpriority_process(None).unwrap(), before);
                return;
            };
            assert_eq!(getpriority_process(None).unwrap(), (before + STEP).min(NICEST));
            let (ask, asked) = std::sync::mpsc::channel::<()>();
            let child = std::thread::spawn(move || {
                let _ = asked.recv();
                getpriority_process(None).unwrap()
            });
            lowered.restore();
            drop(ask);
            assert_eq!(child.join().unwrap(), before);
            assert_eq!(getpriority_process(None).unwrap(), before);
        });
        test.join().unwrap();
    }
}

//! Whether a run is short enough to stay on the thread that asks for it.
//!
//! TensorFlow hands a run to a pool of its own, which costs two wake-ups, a tenth of a millisecond
//! and more; a small model takes less than that. But only what runs in the pool is stopped at its
//! deadline. So a run stays on its thread when runs of its signature, with inputs of such a size,
//! have been far shorter than its deadline lately. Knows no TensorFlow.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Longer runs gain nothing: a wake-up is small beside them.
const SHORT: Duration = Duration::from_millis(2);

/// A run with less time left than this can be stopped.
const TIME_LEFT_MIN: Duration = Duration::from_millis(200);

/// Inputs so many times larger than any before may take as many times longer.
const GROWTH_MAX: u64 = 8;

/// Operators that may run for any time on a few bytes.
const LOOPS: &[&str] = &["While", "StatelessWhile", "LoopCond", "Enter", "RefEnter", "For"];

/// How long the runs of one signature take.
#[derive(Debug)]
pub(super) struct Pace {
    /// Whether a run's time is bounded by the size of its inputs, and nothing is lost when it must be
    /// ended from outside.
    is_steady: bool,
    /// The longest of late, in nanoseconds; 0 before the first.
    longest_ns: AtomicU64,
    /// The most bytes that the inputs of a run had.
    bytes_max: AtomicU64,
}

impl Pace {
    /// Nothing is known yet. `operators` are those of the signature's graph.
    pub(super) fn new<'o>(stateful: bool, mut operators: impl Iterator<Item = &'o str>) -> Pace {
        Pace {
            is_steady: !stateful && !operators.any(|operator| LOOPS.contains(&operator)),
            longest_ns: AtomicU64::new(0),
            bytes_max: AtomicU64::new(0),
        }
    }

    /// Whether a run with inputs of so many bytes, and so much time left, may stay on its thread.
    pub(super) fn is_short(&self, bytes: u64, left: Option<Duration>) -> bool {
        let longest = self.longest_ns.load(Ordering::Relaxed);
        let known = self.bytes_max.load(Ordering::Relaxed);
        self.is_steady
            && longest > 0
            && Duration::from_nanos(longest) <= SHORT
            && bytes <= known.saturating_mul(GROWTH_MAX)
            && left.is_none_or(|left| left >= TIME_LEFT_MIN)
    }

    /// A run took so long. The first ones, in which TensorFlow prepares itself, are soon forgotten.
    pub(super) fn learn(&self, bytes: u64, took: Duration) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).max(1);
        // Concurrent runs may overwrite each other's: this is an estimate.
        let longest = self.longest_ns.load(Ordering::Relaxed);
        self.longest_ns.store(took.max(longest - longest / 8), Ordering::Relaxed);
        self.bytes_max.fetch_max(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace() -> Pace {
        Pace::new(false, ["AddV2", "Mul"].into_iter())
    }

    #[test]
    fn nothing_is_short_before_it_was_seen() {
        let pace = pace();
        assert!(!pace.is_short(0, None));
        pace.learn(100, Duration::from_micros(20));
        assert!(pace.is_short(100, None));
        assert!(pace.is_short(800, Some(Duration::from_secs(1))));
        assert!(!pace.is_short(801, None));
        assert!(!pace.is_short(100, Some(Duration::from_millis(199))));
    }

    #[test]
    fn a_slow_first_run_is_forgotten_and_a_slow_late_one_counts() {
        let pace = pace();
        pace.learn(4, Duration::from_millis(900));
        let runs = (0..).take_while(|_| {
            pace.learn(4, Duration::from_micros(30));
            !pace.is_short(4, None)
        });
        assert!(runs.count() < 60);
        pace.learn(4, Duration::from_millis(3));
        assert!(!pace.is_short(4, None));
    }

    #[test]
    fn loops_and_state_never_stay() {
        for pace in [Pace::new(true, [].into_iter()), Pace::new(false, ["While"].into_iter())] {
            pace.learn(4, Duration::from_micros(30));
            assert!(!pace.is_short(4, None));
        }
    }
}

//! When to start a worker again that ended: a pure machine over events and times.
//!
//! Owns the delays and the decision to give up. Knows no clock, process or thread: times come in as
//! durations since any fixed moment and must not go back.
//! Invariant: delays of ends that follow each other grow up to the bound; nobody restarts more than
//! `ends_max` times within `window`.

use std::collections::VecDeque;
use std::time::Duration;

/// How eagerly workers that ended are started again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestartPolicy {
    /// Delay after the second end in a row, doubled by each further one. The first restart is
    /// immediate, for the sake of requests that wait for it.
    pub delay_first: Duration,
    /// The longest delay.
    pub delay_max: Duration,
    /// A worker that served for so long is sound: the next delay starts over.
    pub stable_after: Duration,
    /// Ends within `window` that are answered by a restart; one more and nobody tries again. 0
    /// never restarts.
    pub ends_max: usize,
    /// The period in which ends are counted.
    pub window: Duration,
}

impl Default for RestartPolicy {
    fn default() -> RestartPolicy {
        RestartPolicy {
            delay_first: Duration::from_millis(100),
            delay_max: Duration::from_secs(30),
            stable_after: Duration::from_secs(60),
            ends_max: 20,
            window: Duration::from_secs(600),
        }
    }
}

impl RestartPolicy {
    /// Never restart: for throw-away workers.
    pub fn never() -> RestartPolicy {
        RestartPolicy { ends_max: 0, ..RestartPolicy::default() }
    }
}

/// What to do after a worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Start another after this delay.
    After(Duration),
    /// Do not start another: this many ended within the window.
    GiveUp {
        /// Ends within the window.
        ends: usize,
    },
}

/// The state of one session's restarts.
#[derive(Clone, Debug)]
pub struct Restarts {
    policy: RestartPolicy,
    ready_since: Option<Duration>,
    in_a_row: u32,
    ends: VecDeque<Duration>,
}

impl Restarts {
    /// No worker so far.
    pub fn new(policy: RestartPolicy) -> Restarts {
        Restarts { policy, ready_since: None, in_a_row: 0, ends: VecDeque::new() }
    }

    /// A worker began to serve at `now`.
    pub fn ready(&mut self, now: Duration) {
        self.ready_since = Some(now);
    }

    /// A worker ended, or could not be started, at `now`.
    pub fn ended(&mut self, now: Duration) -> Verdict {
        let served = self.ready_since.take().map(|since| now.saturating_sub(since));
        if served.is_some_and(|served| served >= self.policy.stable_after) {
            self.in_a_row = 0;
        }
        let window = self.policy.window;
        while self.ends.front().is_some_and(|&end| now.saturating_sub(end) > window) {
            self.ends.pop_front();
        }
        self.ends.push_back(now);
        if self.ends.len() > self.policy.ends_max {
            return Verdict::GiveUp { ends: self.ends.len() };
        }
        let delay = self.delay();
        self.in_a_row = self.in_a_row.saturating_add(1);
        Verdict::After(delay)
    }

    fn delay(&self) -> Duration {
        if self.in_a_row == 0 {
            return Duration::ZERO;
        }
        // 2^31 times any delay is past every sensible bound.
        let factor = 1u32 << (self.in_a_row - 1).min(31);
        self.policy.delay_first.saturating_mul(factor).min(self.policy.delay_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn policy() -> impl Strategy<Value = RestartPolicy> {
        (1u64..1000, 1u64..100_000, 1u64..100_000, 0usize..12, 1u64..1_000_000).prop_map(
            |(first, max, stable, ends_max, window)| RestartPolicy {
                delay_first: Duration::from_millis(first),
                delay_max: Duration::from_millis(max),
                stable_after: Duration::from_millis(stable),
                ends_max,
                window: Duration::from_millis(window),
            },
        )
    }

    #[test]
    fn a_script_of_ends() {
        let mut restarts = Restarts::new(RestartPolicy::default());
        let s = Duration::from_secs;
        restarts.ready(s(0));
        assert_eq!(restarts.ended(s(1)), Verdict::After(Duration::ZERO));
        assert_eq!(restarts.ended(s(1)), Verdict::After(Duration::from_millis(100)));
        restarts.ready(s(2));
        assert_eq!(restarts.ended(s(3)), Verdict::After(Duration::from_millis(200)));
        restarts.ready(s(4));
        assert_eq!(restarts.ended(s(64)), Verdict::After(Duration::ZERO));
    }

    #[test]
    fn a_crash_loop_is_given_up_and_an_old_end_is_forgotten() {
        let policy = RestartPolicy { ends_max: 2, ..RestartPolicy::default() };
        let mut restarts = Restarts::new(policy.clone());
        let s = Duration::from_secs;
        assert!(matches!(restarts.ended(s(0)), Verdict::After(_)));
        assert!(matches!(restarts.ended(s(1)), Verdict::After(_)));
        assert_eq!(restarts.clone().ended(s(2)), Verdict::GiveUp { ends: 3 });
        assert!(matches!(restarts.ended(s(601)), Verdict::After(_)));
        assert_eq!(Restarts::new(RestartPolicy::never()).ended(s(0)), Verdict::GiveUp { ends: 1 });
    }

    proptest! {
        #[test]
        fn delays_grow_to_the_bound_and_restarts_are_bounded(
            policy in policy(),
            steps in prop::collection::vec((0u64..50_000, any::<bool>(), 0u64..200_000), 1..60),
        ) {
            let mut restarts = Restarts::new(policy.clone());
            let mut now = Duration::ZERO;
            let mut granted: Vec<Duration> = Vec::new();
            let mut last = None;
            for (pause, ready, served) in steps {
                now += Duration::from_millis(pause);
                let mut stable = false;
                if ready {
                    restarts.ready(now);
                    now += Duration::from_millis(served);
                    stable = Duration::from_millis(served) >= policy.stable_after;
                }
                match restarts.ended(now) {
                    Verdict::GiveUp { ends } => {
                        prop_assert!(ends > policy.ends_max);
                        break;
                    }
                    Verdict::After(delay) => {
                        prop_assert!(delay <= policy.delay_max);
                        if stable {
                            prop_assert_eq!(delay, Duration::ZERO);
                        } else if let Some(last) = last {
                            prop_assert!(delay >= last, "{:?} after {:?}", delay, last);
                        }
                        last = Some(delay);
                        granted.push(now);
                        let recent = granted.iter().filter(|&&t| now - t <= policy.window).count();
                        prop_assert!(recent <= policy.ends_max);
                    }
                }
            }
        }
    }
}

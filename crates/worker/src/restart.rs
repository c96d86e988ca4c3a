//! When to start a worker again that ended: a pure machine over events and times.
//!
//! Owns the delays and the decision to give up. Knows no clock, process or thread: times come in as
//! durations since any fixed moment and must not go back.
//!
//! A worker that answers runs and then dies is not the worker's fault, or that of one bad request: it
//! is replaced at once, again and again. One that dies before it has done anything will do so again:
//! it is replaced ever more slowly, and in the end not at all.
//! Invariant: delays of ends in a row without proof grow up to the bound; nobody restarts more than
//! `unproven_max` times in a row without proof, nor more than `ends_max` times within `window`.

use std::collections::VecDeque;
use std::time::Duration;

/// How eagerly workers that ended are started again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestartPolicy {
    /// Delay after the second end in a row without proof, doubled by each further one. The first
    /// restart is immediate, for the sake of requests that wait for it.
    pub delay_first: Duration,
    /// The longest delay.
    pub delay_max: Duration,
    /// A worker that had nothing to do and lived for so long is as good as proven.
    pub idle_proof: Duration,
    /// Ends in a row without proof that are answered by a restart; one more and nobody tries again.
    pub unproven_max: usize,
    /// Ends within `window` that are answered by a restart at once, if the workers were proven; from
    /// then on each waits longer, too.
    pub ends_free: usize,
    /// Ends within `window`, whatever the workers did, that are answered by a restart; one more and
    /// nobody tries again. 0 never restarts.
    pub ends_max: usize,
    /// The period in which ends are counted.
    pub window: Duration,
}

impl Default for RestartPolicy {
    fn default() -> RestartPolicy {
        RestartPolicy {
            delay_first: Duration::from_millis(100),
            delay_max: Duration::from_secs(30),
            idle_proof: Duration::from_secs(1),
            unproven_max: 10,
            ends_free: 60,
            ends_max: 100,
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

/// What a worker had done by the time it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It had answered a run.
    Proven,
    /// It served, and was asked for nothing.
    Idle,
    /// It never served, or died over its first runs.
    Unproven,
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
    /// Ends in a row without proof.
    unproven: usize,
    ends: VecDeque<Duration>,
}

impl Restarts {
    /// No worker so far.
    pub fn new(policy: RestartPolicy) -> Restarts {
        Restarts { policy, ready_since: None, unproven: 0, ends: VecDeque::new() }
    }

    /// A worker began to serve at `now`.
    pub fn ready(&mut self, now: Duration) {
        self.ready_since = Some(now);
    }

    /// A worker ended, or could not be started, at `now`.
    pub fn ended(&mut self, now: Duration, life: Life) -> Verdict {
        let served = self.ready_since.take().map(|since| now.saturating_sub(since));
        let proven = match life {
            Life::Proven => true,
            Life::Idle => served.is_some_and(|served| served >= self.policy.idle_proof),
            Life::Unproven => false,
        };
        self.unproven = if proven { 0 } else { self.unproven.saturating_add(1) };
        let window = self.policy.window;
        while self.ends.front().is_some_and(|&end| now.saturating_sub(end) > window) {
            self.ends.pop_front();
        }
        self.ends.push_back(now);
        let ends = self.ends.len();
        if ends > self.policy.ends_max || self.unproven > self.policy.unproven_max {
            return Verdict::GiveUp { ends };
        }
        let crowded = ends.saturating_sub(self.policy.ends_free);
        Verdict::After(self.delay(self.unproven.saturating_sub(1).max(crowded)))
    }

    /// The delay of the end number `step` of those that wait; none for 0.
    fn delay(&self, step: usize) -> Duration {
        let Some(doublings) = step.checked_sub(1) else { return Duration::ZERO };
        // 2^31 times any delay is past every sensible bound.
        let factor = 1u32 << doublings.min(31);
        self.policy.delay_first.saturating_mul(factor).min(self.policy.delay_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn policy() -> impl Strategy<Value = RestartPolicy> {
        let times = (1u64..1000, 1u64..100_000, 1u64..100_000, 1u64..1_000_000);
        (times, 0usize..12, 0usize..12, 0usize..12).prop_map(
            |((first, max, idle, window), unproven_max, ends_free, ends_max)| RestartPolicy {
                delay_first: Duration::from_millis(first),
                delay_max: Duration::from_millis(max),
                idle_proof: Duration::from_millis(idle),
                unproven_max,
                ends_free,
                ends_max,
                window: Duration::from_millis(window),
            },
        )
    }

    fn life() -> impl Strategy<Value = Life> {
        prop_oneof![Just(Life::Proven), Just(Life::Idle), Just(Life::Unproven)]
    }

    const AT_ONCE: Verdict = Verdict::After(Duration::ZERO);

    #[test]
    fn a_script_of_ends() {
        let mut restarts = Restarts::new(RestartPolicy::default());
        let s = Duration::from_secs;
        restarts.ready(s(0));
        assert_eq!(restarts.ended(s(1), Life::Unproven), AT_ONCE);
        let after = |ms| Verdict::After(Duration::from_millis(ms));
        assert_eq!(restarts.ended(s(1), Life::Unproven), after(100));
        restarts.ready(s(2));
        assert_eq!(restarts.ended(s(2), Life::Idle), after(200));
        restarts.ready(s(3));
        assert_eq!(restarts.ended(s(4), Life::Idle), AT_ONCE);
        assert_eq!(restarts.ended(s(5), Life::Unproven), AT_ONCE);
        assert_eq!(restarts.ended(s(6), Life::Unproven), after(100));
        restarts.ready(s(7));
        assert_eq!(restarts.ended(s(7), Life::Proven), AT_ONCE);
    }

    #[test]
    fn workers_that_work_are_replaced_at_once_each_time() {
        let mut restarts = Restarts::new(RestartPolicy::default());
        for second in 0..60 {
            restarts.ready(Duration::from_secs(second));
            assert_eq!(restarts.ended(Duration::from_secs(second), Life::Proven), AT_ONCE);
        }
        let verdict = restarts.ended(Duration::from_secs(60), Life::Proven);
        assert_eq!(verdict, Verdict::After(Duration::from_millis(100)));
    }

    #[test]
    fn a_crash_loop_is_given_up_and_an_old_end_is_forgotten() {
        let policy = RestartPolicy { ends_max: 2, ..RestartPolicy::default() };
        let mut restarts = Restarts::new(policy.clone());
        let s = Duration::from_secs;
        assert!(matches!(restarts.ended(s(0), Life::Proven), Verdict::After(_)));
        assert!(matches!(restarts.ended(s(1), Life::Proven), Verdict::After(_)));
        let third = restarts.clone().ended(s(2), Life::Proven);
        assert_eq!(third, Verdict::GiveUp { ends: 3 });
        assert!(matches!(restarts.ended(s(601), Life::Proven), Verdict::After(_)));
        let first = Restarts::new(RestartPolicy::never()).ended(s(0), Life::Proven);
        assert_eq!(first, Verdict::GiveUp { ends: 1 });

        let mut restarts = Restarts::new(RestartPolicy::default());
        let mut now = Duration::ZERO;
        let mut tries = 0;
        while let Verdict::After(delay) = restarts.ended(now, Life::Unproven) {
            now += delay;
            tries += 1;
        }
        assert_eq!(tries, 10);
        assert_eq!(now, Duration::from_millis(51_100), "100 ms times 2^9 - 1");
    }

    proptest! {
        #[test]
        fn delays_grow_to_the_bound_and_restarts_are_bounded(
            policy in policy(),
            steps in prop::collection::vec((0u64..50_000, life(), any::<bool>(), 0u64..200_000), 1..60),
        ) {
            let mut restarts = Restarts::new(policy.clone());
            let mut now = Duration::ZERO;
            let mut granted: Vec<Duration> = Vec::new();
            let mut last = Duration::ZERO;
            let mut in_a_row = 0;
            for (pause, life, ready, served) in steps {
                now += Duration::from_millis(pause);
                let mut proven = life == Life::Proven;
                if ready {
                    restarts.ready(now);
                    now += Duration::from_millis(served);
                    let long = Duration::from_millis(served) >= policy.idle_proof;
                    proven |= life == Life::Idle && long;
                }
                in_a_row = if proven { 0 } else { in_a_row + 1 };
                let recent = granted.iter().filter(|&&t| now - t <= policy.window).count();
                match restarts.ended(now, life) {
                    Verdict::GiveUp { ends } => {
                        prop_assert!(ends > policy.ends_max || in_a_row > policy.unproven_max);
                        break;
                    }
                    Verdict::After(delay) => {
                        prop_assert!(delay <= policy.delay_max);
                        prop_assert!(in_a_row <= policy.unproven_max);
                        prop_assert!(recent < policy.ends_max);
                        let crowded = recent >= policy.ends_free;
                        if in_a_row <= 1 && !crowded {
                            prop_assert_eq!(delay, Duration::ZERO);
                        } else if in_a_row > 1 && !crowded {
                            prop_assert!(delay >= last, "{:?} after {:?}", delay, last);
                        }
                        last = if crowded { Duration::ZERO } else { delay };
                        granted.push(now);
                    }
                }
            }
        }
    }
}

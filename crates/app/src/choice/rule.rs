//! Which of the engines that agree serves.
//!
//! Owns: the margins. Pure: figures in, a position out. May not know: how the figures came about.
//! Invariant: of two engines within the margin the simpler one wins, whichever was measured faster.

use std::time::Duration;

/// An engine is faster than a simpler one only when it takes less than this part of its time: noise must not
/// decide.
const FASTER_PART: f64 = 0.96;

/// As [`FASTER_PART`], of the embedded engine: a library and a process more must be worth it.
const FASTER_PART_EMBEDDED: f64 = 0.9;

/// An engine that agrees with the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Agreeing {
    /// How little it needs besides; less is simpler, and 0 is the embedded engine.
    pub(super) simplicity: u8,
    /// Processor time of its runs.
    pub(super) cpu: Duration,
}

impl Agreeing {
    /// What another engine has to take less than.
    fn faster_part(&self) -> f64 {
        if self.simplicity == 0 { FASTER_PART_EMBEDDED } else { FASTER_PART }
    }
}

/// The position of the engine that serves; `None` when there is none.
pub(super) fn choose(agreeing: &[Agreeing]) -> Option<usize> {
    let least = agreeing.iter().map(|engine| engine.cpu).min()?;
    let is_near = |engine: &Agreeing| engine.cpu.mul_f64(engine.faster_part()) <= least;
    let near = agreeing.iter().enumerate().filter(|(_, engine)| is_near(engine));
    near.min_by_key(|(_, engine)| (engine.simplicity, engine.cpu)).map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn engines(figures: &[(u8, u64)]) -> Vec<Agreeing> {
        let engine = |&(simplicity, ms)| Agreeing { simplicity, cpu: Duration::from_millis(ms) };
        figures.iter().map(engine).collect()
    }

    #[test]
    fn the_fastest_serves_unless_a_simpler_one_is_near() {
        for (figures, want) in [
            (&[(0, 100), (4, 50)][..], Some(1)),
            (&[(0, 100), (4, 91)], Some(0)),
            (&[(0, 100), (4, 89)], Some(1)),
            (&[(4, 89), (0, 100)], Some(0)),
            (&[(0, 1000), (2, 93), (4, 90)], Some(1)),
            (&[(0, 1000), (2, 95), (4, 90)], Some(2)),
            (&[(0, 30), (4, 50)], Some(0)),
            (&[], None),
        ] {
            assert_eq!(choose(&engines(figures)), want, "{figures:?}");
        }
    }

    proptest! {
        #[test]
        fn whoever_serves_is_about_as_fast_as_any(
            figures in prop::collection::vec((0u8..5, 1u64..1000), 1..6)
        ) {
            let engines = engines(&figures);
            let chosen = engines[choose(&engines).unwrap()];
            for other in &engines {
                prop_assert!(chosen.cpu.mul_f64(chosen.faster_part()) <= other.cpu);
                let is_better = other.simplicity < chosen.simplicity && other.cpu <= chosen.cpu;
                prop_assert!(!is_better);
            }
        }
    }
}

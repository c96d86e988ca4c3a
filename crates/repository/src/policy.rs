//! Which of the versions found are wanted. Pure.

use vesta_model::VersionPolicy;

use crate::Found;

/// Keeps of `found` (oldest first) what `policy` wants, in the same order.
pub fn select(policy: &VersionPolicy, mut found: Vec<Found>) -> Vec<Found> {
    match policy {
        VersionPolicy::All => {}
        VersionPolicy::Latest(count) => {
            let surplus = found.len().saturating_sub((*count).max(1));
            found.drain(..surplus);
        }
        VersionPolicy::Specific(wanted) => {
            found.retain(|f| wanted.contains(&f.version));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use vesta_model::Version;

    fn versions(numbers: &BTreeSet<i64>) -> Vec<Found> {
        numbers
            .iter()
            .map(|&n| Found {
                version: Version(n),
                artifact: Ok(n.to_string().into()),
                edition: None,
            })
            .collect()
    }

    fn kept(policy: &VersionPolicy, numbers: &BTreeSet<i64>) -> Vec<i64> {
        select(policy, versions(numbers)).iter().map(|f| f.version.0).collect()
    }

    proptest! {
        #[test]
        fn latest_keeps_the_highest(numbers in prop::collection::btree_set(any::<i64>(), 0..8), n in 0usize..10) {
            let got = kept(&VersionPolicy::Latest(n), &numbers);
            let mut want: Vec<i64> = numbers.iter().rev().take(n.max(1)).copied().collect();
            want.reverse();
            prop_assert_eq!(got, want);
        }

        #[test]
        fn specific_keeps_what_is_there(numbers in prop::collection::btree_set(0i64..6, 0..6), wanted in prop::collection::vec(0i64..6, 0..6)) {
            let policy = VersionPolicy::Specific(wanted.iter().copied().map(Version).collect());
            let want: Vec<i64> = numbers.iter().copied().filter(|n| wanted.contains(n)).collect();
            prop_assert_eq!(kept(&policy, &numbers), want);
        }
    }

    #[test]
    fn all_keeps_all() {
        let numbers = BTreeSet::from([-3, 0, 9]);
        assert_eq!(kept(&VersionPolicy::All, &numbers), [-3, 0, 9]);
    }
}

//! Releases of engines, ordered as PEP 440 orders them: `2.9` before `2.21`.
//!
//! Invariant: a [`Version`] prints as a text that is safe as the name of a folder.

use std::fmt;

/// More of a version's text than this is refused.
const TEXT_BYTES_MAX: usize = 64;

/// A release of an engine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Version(pep440_rs::Version);

impl Version {
    /// Reads a version in any spelling of PEP 440; printed, it is normalised.
    pub(super) fn parse(text: &str) -> Option<Version> {
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        text.parse().ok().map(Version)
    }

    /// Whether a request for `self` is met by `other`: the same release, or for a request with fewer
    /// than three numbers (`2.15`) one whose numbers begin with them (`2.15.1`).
    pub(super) fn is_met_by(&self, other: &Version) -> bool {
        self == other || self.is_series_of(other)
    }

    /// Whether this is a series (`2.15`) that `other` (`2.15.1`) belongs to.
    pub(super) fn is_series_of(&self, other: &Version) -> bool {
        self.is_series()
            && self.0.epoch() == other.0.epoch()
            && other.0.release().starts_with(self.0.release())
    }

    /// Whether this can be read as a series of releases.
    pub(super) fn is_series(&self) -> bool {
        self.0.release().len() < 3
            && !self.0.any_prerelease()
            && !self.0.is_post()
            && !self.0.is_local()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn version(text: &str) -> Version {
        Version::parse(text).unwrap()
    }

    #[test]
    fn releases_are_ordered_by_number() {
        let texts = ["2.9", "2.9.1", "2.15.0", "2.15.0.post1", "2.21.0rc1", "2.21.0", "2026.4"];
        for pair in texts.windows(2) {
            assert!(version(pair[0]) < version(pair[1]), "{pair:?}");
        }
        assert_eq!(version("2.21"), version("2.21.0"));
        assert_eq!(version("v2.21.0-RC1").to_string(), "2.21.0rc1");
    }

    #[test]
    fn a_series_is_met_by_its_releases() {
        assert!(version("2.15").is_met_by(&version("2.15.1")));
        assert!(version("2.15").is_met_by(&version("2.15.0")));
        assert!(version("2").is_met_by(&version("2.15.1")));
        assert!(!version("2.1").is_met_by(&version("2.15.1")));
        assert!(!version("2.15.0").is_met_by(&version("2.15.1")));
        assert!(version("2.15.0").is_met_by(&version("2.15")));
    }

    #[test]
    fn what_is_no_version_is_refused() {
        let long = "9".repeat(65);
        for text in ["", ".", "..", "../2.0", "2.0/", "two", "2.0 ", "99999999999999999999", &long]
        {
            if let Some(version) = Version::parse(text) {
                assert!(!version.to_string().contains(['/', ' ']), "{text:?}");
            }
        }
        assert_eq!(Version::parse("../2.0"), None);
        assert_eq!(Version::parse(&long), None);
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_safe_as_a_folder(text in "[0-9a-z.!+/_\\- ]{0,70}") {
            if let Some(version) = Version::parse(&text) {
                let printed = version.to_string();
                prop_assert!(!printed.contains(['/', '\\', '\0']) && !printed.starts_with('.'));
                prop_assert_eq!(Version::parse(&printed), Some(version));
            }
        }
    }
}

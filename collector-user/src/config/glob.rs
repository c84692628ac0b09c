//! Patterns for the names of interfaces.

use std::{fmt, str::FromStr};

use crate::pu::pattern::Pattern;

/// A pattern for the names of interfaces: `*`, `?`, `[a-z]`, `{a,b}`; or a plain name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IfaceGlob(Pattern);

/// Text that is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GlobError {
    /// It is empty.
    #[error(
        "an empty pattern matches no interface: expected a name such as eth0, or a pattern such as veth*"
    )]
    Empty,
    /// It has no meaning.
    #[error("{pattern:?} is no pattern: {}; expected a name such as eth0, or a pattern such as veth*", source.kind())]
    Meaningless {
        /// What was given.
        pattern: String,
        /// Why not.
        source: globset::Error,
    },
}

impl IfaceGlob {
    /// Whether it is a plain name: only such a one names `lo`, and the interface must exist.
    pub fn is_literal(&self) -> bool {
        self.0.literal().is_some()
    }

    /// Whether an interface of this name is meant. Wildcards never mean `lo`.
    pub fn matches(&self, name: &str) -> bool {
        (name != "lo" || self.is_literal()) && self.0.matches(name)
    }

    /// The text of the pattern.
    pub fn as_str(&self) -> &str {
        self.0.text()
    }
}

impl FromStr for IfaceGlob {
    type Err = GlobError;

    fn from_str(pattern: &str) -> Result<Self, GlobError> {
        if pattern.is_empty() {
            return Err(GlobError::Empty);
        }
        let meaningless = |source| GlobError::Meaningless { pattern: pattern.to_owned(), source };
        Pattern::of_name(pattern).map(Self).map_err(meaningless)
    }
}

impl fmt::Display for IfaceGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::{GlobError, IfaceGlob};

    fn glob(pattern: &str) -> IfaceGlob {
        pattern.parse().unwrap()
    }

    #[test]
    fn wildcards_never_mean_lo() {
        for pattern in ["*", "l*", "?o", "l[o]", "{lo,eth0}"] {
            assert!(!glob(pattern).matches("lo"), "{pattern}");
            assert!(!glob(pattern).is_literal(), "{pattern}");
        }
        assert!(glob("lo").matches("lo") && glob("lo").is_literal());
    }

    #[test]
    fn patterns_and_names() {
        assert!(glob("*").matches("eth0") && glob("*").matches("wg.1"));
        assert!(glob("veth*").matches("veth12ab") && !glob("veth*").matches("eth0"));
        assert!(glob("{eth,en}[0-9]").matches("en3"));
        assert!(glob("eth0").matches("eth0") && !glob("eth0").matches("eth01"));
        assert!(glob("eth0.100").is_literal() && !glob("eth0.100").matches("eth0x100"));
        assert_eq!(glob("veth*").to_string(), "veth*");
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        assert_eq!("".parse::<IfaceGlob>(), Err(GlobError::Empty));
        let error = "eth[".parse::<IfaceGlob>().unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with(r#""eth[" is no pattern: "#) && text.contains("expected a name"), "{text}");
    }
}

//! Patterns for the ids of processing units.

use std::{fmt, str::FromStr};

use super::pattern::Pattern;

/// A pattern for the ids of processing units: `*`, `?`, `[a-z]`, `{a,b}`; or a plain id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitGlob(Pattern);

/// Text that is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{pattern:?} is no pattern: {}; expected an id such as nginx.service, or a pattern such as *.scope", source.kind())]
pub struct UnitGlobError {
    /// What was given.
    pattern: String,
    /// Why not.
    source: globset::Error,
}

impl UnitGlob {
    /// The id, where it is a plain one.
    pub fn literal(&self) -> Option<&str> {
        self.0.literal()
    }

    /// Whether a unit of this id is meant.
    pub fn matches(&self, id: &str) -> bool {
        self.0.matches(id)
    }
}

impl FromStr for UnitGlob {
    type Err = UnitGlobError;

    fn from_str(pattern: &str) -> Result<Self, UnitGlobError> {
        let meaningless = |source| UnitGlobError { pattern: pattern.to_owned(), source };
        Pattern::of_name(pattern).map(Self).map_err(meaningless)
    }
}

impl fmt::Display for UnitGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::UnitGlob;

    #[test]
    fn patterns_and_ids() {
        let matches = |pattern: &str, id: &str| pattern.parse::<UnitGlob>().unwrap().matches(id);
        assert!(matches("session-*.scope", "session-3.scope") && !matches("session-*", "nginx.service"));
        assert!(matches("nginx.service", "nginx.service") && !matches("nginx.service", "nginx-service"));
        assert!(matches("a{b,c}-?", "ac-1") && !matches("a{b,c}-?", "ad-1") && matches(r"a\*b", "a*b"));
        let literal = |pattern: &str| pattern.parse::<UnitGlob>().unwrap().literal().map(str::to_owned);
        assert_eq!((literal("nginx.service").as_deref(), literal("web-*")), (Some("nginx.service"), None));
        let error = "a[".parse::<UnitGlob>().unwrap_err().to_string();
        assert!(error.starts_with(r#""a[" is no pattern: "#) && error.contains("expected an id"), "{error}");
    }
}

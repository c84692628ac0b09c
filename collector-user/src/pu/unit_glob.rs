//! Patterns for the ids of processing units.

use std::{fmt, str::FromStr};

use globset::{Glob, GlobMatcher};

/// A pattern for the ids of processing units: `*`, `?`, `[a-z]`, `{a,b}`; or a plain id.
#[derive(Clone, Debug)]
pub struct UnitGlob {
    pattern: String,
    /// So many octets of it are what every id begins with that is meant.
    beginning: usize,
    matcher: GlobMatcher,
}

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
        (self.beginning == self.pattern.len()).then_some(&self.pattern)
    }

    /// Whether a unit of this id is meant.
    pub fn matches(&self, id: &str) -> bool {
        let beginning = self.pattern.get(..self.beginning).unwrap_or_default();
        match self.literal() {
            Some(plain) => id == plain,
            None if self.pattern == "*" => true,
            // Of thousands of patterns, few get further.
            None => id.starts_with(beginning) && self.matcher.is_match(id),
        }
    }
}

impl FromStr for UnitGlob {
    type Err = UnitGlobError;

    fn from_str(pattern: &str) -> Result<Self, UnitGlobError> {
        let glob =
            Glob::new(pattern).map_err(|source| UnitGlobError { pattern: pattern.to_owned(), source })?;
        let beginning = pattern.find(['*', '?', '[', ']', '{', '}', '\\']).unwrap_or(pattern.len());
        Ok(Self { pattern: pattern.to_owned(), beginning, matcher: glob.compile_matcher() })
    }
}

impl PartialEq for UnitGlob {
    fn eq(&self, other: &Self) -> bool {
        self.pattern == other.pattern
    }
}

impl Eq for UnitGlob {}

impl fmt::Display for UnitGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.pattern)
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

//! Patterns for the paths of cgroups.

use std::{fmt, str::FromStr};

use super::pattern::Pattern;

/// A pattern for the path of a cgroup from the root of the hierarchy: `*`, `?`, `[a-z]`, `{a,b}` stand for parts of one name,
/// `**` for any number of names; or a plain path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupGlob(Pattern);

/// Text that is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CgroupGlobError {
    /// It is no path below the root.
    #[error(
        "{pattern:?} is no cgroup: expected a path from the root of the hierarchy, such as /system.slice/nginx.service"
    )]
    NoPath {
        /// What was given.
        pattern: String,
    },
    /// It has no meaning.
    #[error("{pattern:?} is no pattern: {}; expected a path such as /system.slice/*.service", source.kind())]
    Meaningless {
        /// What was given.
        pattern: String,
        /// Why not.
        source: globset::Error,
    },
}

impl CgroupGlob {
    /// Whether the cgroup at this path is meant.
    pub fn matches(&self, path: &str) -> bool {
        self.0.matches(path)
    }

    /// The path, where it is no pattern.
    pub(super) fn path(&self) -> Option<&str> {
        self.0.literal()
    }

    /// The greater of two is the more specific.
    pub(super) fn weight(&self) -> (bool, usize) {
        (self.path().is_some(), self.0.text().len())
    }
}

impl FromStr for CgroupGlob {
    type Err = CgroupGlobError;

    fn from_str(given: &str) -> Result<Self, CgroupGlobError> {
        let pattern = given.trim_end_matches('/');
        if !pattern.starts_with('/') {
            return Err(CgroupGlobError::NoPath { pattern: given.to_owned() });
        }
        let meaningless = |source| CgroupGlobError::Meaningless { pattern: given.to_owned(), source };
        Pattern::of_path(pattern).map(Self).map_err(meaningless)
    }
}

impl fmt::Display for CgroupGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::{CgroupGlob, CgroupGlobError};

    fn glob(pattern: &str) -> CgroupGlob {
        pattern.parse().unwrap()
    }

    #[test]
    fn a_star_is_part_of_one_name() {
        assert!(glob("/system.slice/*.service").matches("/system.slice/nginx.service"));
        assert!(!glob("/system.slice/*.service").matches("/system.slice/a.slice/nginx.service"));
        assert!(glob("/**/nginx.service").matches("/system.slice/a.slice/nginx.service"));
        assert!(glob(r"/a/web\x2dfront.service/").matches(r"/a/web\x2dfront.service"));
        assert!(
            glob("/a").weight() > glob("/a/*").weight() && glob("/a/b*").weight() > glob("/a/*").weight()
        );
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for given in ["", "nginx.service", "/", "*"] {
            let error = given.parse::<CgroupGlob>().unwrap_err();
            assert_eq!(error, CgroupGlobError::NoPath { pattern: given.to_owned() });
        }
        let said = "/a[".parse::<CgroupGlob>().unwrap_err().to_string();
        assert!(said.starts_with(r#""/a[" is no pattern: "#), "{said}");
    }
}

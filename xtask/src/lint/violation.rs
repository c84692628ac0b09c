//! A broken rule, with its place.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use super::order;

/// One place that breaks a rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Violation {
    pub(super) file: PathBuf,
    /// Counted from 1.
    pub(super) line: usize,
    pub(super) fault: Fault,
}

/// What is wrong there.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// A module uses one that comes after it.
    Forward { module: String, used: String },
    /// The crate root declares a module that the order does not hold.
    UnknownModule { name: String },
    /// A path leads to something at the crate root that is no module of the order.
    NotAModule { name: String },
    /// `use x::*`.
    Glob { path: String },
    /// `pub use` at the crate root.
    Reexport,
    /// The crate root gets a second name, under which uses would go unseen.
    RootAlias,
    /// `#[path = "..."]` hides which module a file is.
    PathAttribute { name: String },
    /// `super` leads out of the crate.
    BeyondRoot,
    /// A module whose file is not there.
    NoFile { name: String },
    /// A file that no `mod` item declares, so that nothing checks it.
    Undeclared,
    /// The part of the eBPF crate that user space shares uses something only the kernel has.
    Impure { name: String },
}

impl Violation {
    /// Shortens the path for display.
    pub(super) fn relative_to(&mut self, root: &Path) {
        if let Ok(short) = self.file.strip_prefix(root) {
            self.file = short.to_path_buf();
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.fault)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forward { module, used } => write!(
                f,
                "`{module}` uses `crate::{used}`, which comes after it: it may use only {}",
                order::before(module)
            ),
            Self::UnknownModule { name } => {
                write!(f, "module `{name}` has no place in the order of modules: {}", order::all())
            }
            Self::NotAModule { name } => {
                write!(f, "uses `crate::{name}`, which is no module of the order: items live in modules")
            }
            Self::Glob { path } => {
                write!(f, "uses `{path}::*`: a glob hides what is used (in tests, `use super::*` is allowed)")
            }
            Self::Reexport => write!(f, "re-exports at the crate root: an item has one path, its module's"),
            Self::RootAlias => {
                write!(f, "gives the crate root a second name: write `crate::<module>` instead")
            }
            Self::PathAttribute { name } => {
                write!(f, "module `{name}` has a `path` attribute: a module lies in the file of its name")
            }
            Self::BeyondRoot => write!(f, "a chain of `super` leads out of the crate"),
            Self::NoFile { name } => write!(f, "the file of module `{name}` is missing"),
            Self::Undeclared => write!(f, "no `mod` item declares this file: declare or remove it"),
            Self::Impure { name } => {
                write!(f, "uses `{name}` outside `src/bin`: the shared part must run on the host, too")
            }
        }
    }
}

//! Patterns, as what all kinds of them have in common: the text that one was written as, and what it stands for.

use std::fmt;

use globset::{GlobBuilder, GlobMatcher};

/// Whether a name is meant; equal and shown by its text.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    text: String,
    /// So many octets of it are what every name begins with that is meant.
    beginning: usize,
    matcher: GlobMatcher,
}

impl Pattern {
    /// `*`, `?`, `[a-z]`, `{a,b}` stand for parts of a name, and `\` takes that from what follows it.
    ///
    /// # Errors
    ///
    /// Why it has no meaning.
    pub(crate) fn of_name(text: &str) -> Result<Self, globset::Error> {
        Self::new(text, &GlobBuilder::new(text), &['*', '?', '[', ']', '{', '}', '\\'])
    }

    /// The same for a path: none of them stands for a `/`, but for `**`, and `\` is a letter like any other.
    ///
    /// # Errors
    ///
    /// Why it has no meaning.
    pub(crate) fn of_path(text: &str) -> Result<Self, globset::Error> {
        let mut glob = GlobBuilder::new(text);
        // systemd writes `\x2d` into names, which is no escape here.
        glob.literal_separator(true).backslash_escape(false);
        Self::new(text, &glob, &['*', '?', '[', '{'])
    }

    fn new(text: &str, glob: &GlobBuilder<'_>, special: &[char]) -> Result<Self, globset::Error> {
        let matcher = glob.build()?.compile_matcher();
        let beginning = text.find(special).unwrap_or(text.len());
        Ok(Self { text: text.to_owned(), beginning, matcher })
    }

    /// What it was written as.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The name, where it is a plain one.
    pub(crate) fn literal(&self) -> Option<&str> {
        (self.beginning == self.text.len()).then_some(&self.text)
    }

    /// Whether this name is meant.
    pub(crate) fn matches(&self, name: &str) -> bool {
        match self.literal() {
            Some(plain) => name == plain,
            None if self.text == "*" => true,
            // Of thousands of patterns, few get further.
            None => {
                let beginning = self.text.get(..self.beginning).unwrap_or_default();
                name.starts_with(beginning) && self.matcher.is_match(name)
            }
        }
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

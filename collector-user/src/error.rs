//! An error and what caused it, in words.

use std::error::Error;

/// What happened, and why, and why that: each part behind a colon.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}

/// What it all began with, for where what happened is said already.
pub fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::{root_cause, with_causes};

    #[derive(Debug, thiserror::Error)]
    #[error("cannot {what}")]
    struct Outer {
        what: &'static str,
        source: Box<dyn std::error::Error>,
    }

    #[test]
    fn causes_stand_in_their_order() {
        let inner = Outer { what: "open", source: io::Error::other("no such thing").into() };
        let outer = Outer { what: "start", source: inner.into() };
        assert_eq!(with_causes(&outer), "cannot start: cannot open: no such thing");
        assert_eq!(root_cause(&outer), "no such thing");
        let alone = io::Error::other("alone");
        assert_eq!((with_causes(&alone), root_cause(&alone)), ("alone".to_owned(), "alone".to_owned()));
    }
}

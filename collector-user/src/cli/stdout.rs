//! Texts that a verb prints, whole.

use std::io::{self, Write as _};

use crate::sink::waiting::Waiting;

/// Prints a text on standard output. A reader that has gone has had enough.
pub(super) fn print(text: &str) -> io::Result<()> {
    let mut out = Waiting(io::stdout());
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

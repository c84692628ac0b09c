//! `collector schema`: what the lines of `--output json` look like.

use std::io::{self, Write as _};

use crate::sink::json;

/// Why the schema was not printed.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the schema to standard output")]
pub(super) struct SchemaError(#[from] io::Error);

/// Prints the schema. A reader that has enough is no error.
pub(super) fn schema() -> Result<(), SchemaError> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{:#}", json::schema()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

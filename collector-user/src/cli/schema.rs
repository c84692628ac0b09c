//! `collector schema`: what the lines of `--output json` look like.

use std::{io, process::ExitCode};

use super::{say::Voice, stdout};
use crate::{config::LogFormat, sink::json};

/// Why the schema was not printed.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the schema to standard output")]
struct SchemaError(#[from] io::Error);

/// Prints the schema; the exit code is the process's.
pub(super) fn run() -> ExitCode {
    match stdout::print(&format!("{:#}\n", json::schema())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            Voice::new(LogFormat::Text).error(&SchemaError(error));
            ExitCode::FAILURE
        }
    }
}

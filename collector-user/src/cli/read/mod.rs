//! `collector read`: captures instead of interfaces.

mod flows;
mod frames;
mod input;
mod odd;
mod progress;

use std::{io, path::PathBuf, process::ExitCode};

use super::{args::ReadArgs, outputs::OutputError, say::Voice};
use crate::{config::ConfigError, pu::registry::TooMany, read::container::ContainerError, sink::SinkError};

/// Why a capture is not read, or not to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
enum ReadError {
    /// It cannot be opened.
    #[error("cannot read {}", input::name(path))]
    Open {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// What is in it.
    #[error("{}", input::name(path))]
    Container {
        path: PathBuf,
        #[source]
        source: ContainerError,
    },
    /// Standard input is read once.
    #[error("- is named more than once, and standard input has one end")]
    Twice,
    /// Standard output takes nothing.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
    /// Packets that are older than others before them.
    #[error(
        "{}: at byte {offset}: time runs backwards: this packet is more than a second older than one before it ({count} such in \
         this file); all are read",
        input::name(path)
    )]
    Backwards { path: PathBuf, offset: u64, count: u64 },
    /// Frames without an octet.
    #[error("{}: at byte {offset}: a frame without an octet ({count} in this file)", input::name(path))]
    Empty { path: PathBuf, offset: u64, count: u64 },
    /// A signal.
    #[error("interrupted: what was read so far is told")]
    Interrupted,
    /// The configuration file is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It declares too much.
    #[error(transparent)]
    TooMany(#[from] TooMany),
    /// An output cannot be opened.
    #[error(transparent)]
    Outputs(#[from] OutputError),
    /// An output failed.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// No runtime, or no signals.
    #[error("cannot set up the event loop")]
    Runtime(#[source] io::Error),
}

impl ReadError {
    /// 2 for bad usage, 1 for a failure.
    fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Twice
            | Self::Config(_)
            | Self::TooMany(_)
            | Self::Outputs(OutputError::SharedPlace { .. } | OutputError::SharedWithLog { .. }) => 2,
            _ => 1,
        })
    }
}

/// Reads captures as the arguments say.
pub(super) fn run(args: &ReadArgs) -> ExitCode {
    let voice = Voice::new(args.log_format.unwrap_or_default());
    let fail = |error: &ReadError| {
        voice.error(error);
        error.exit_code()
    };
    if args.files.iter().filter(|path| input::is_standard(path)).count() > 1 {
        return fail(&ReadError::Twice);
    }
    if !args.frames {
        return flows::run(args);
    }
    match frames::print(args, &voice) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail(&error),
    }
}

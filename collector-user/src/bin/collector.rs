//! Arguments in, exit code out; everything else is in the library.

use std::process::ExitCode;

use clap::Parser as _;
use collector_user::cli::{self, args::Cli};

fn main() -> ExitCode {
    cli::main(&Cli::parse())
}

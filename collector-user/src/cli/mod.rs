//! The command line, one verb a file.

pub mod args;
mod run;
mod say;

use std::process::ExitCode;

use args::{Cli, Command};

/// Does what the arguments ask for; the exit code is the process's.
pub fn main(cli: &Cli) -> ExitCode {
    say::logs();
    let Command::Run(args) = &cli.command;
    match run::run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say::error(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}

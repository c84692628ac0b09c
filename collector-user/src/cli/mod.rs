//! The command line, one verb a file.

pub mod args;
mod run;
mod say;
mod schema;

use std::process::ExitCode;

use args::{Cli, Command};

/// Does what the arguments ask for; the exit code is the process's.
pub fn main(cli: &Cli) -> ExitCode {
    say::logs();
    match &cli.command {
        Command::Run(args) => run::run(args).map_or_else(
            |failure| {
                say::error(&failure);
                ExitCode::from(failure.exit_code())
            },
            |()| ExitCode::SUCCESS,
        ),
        Command::Schema => schema::schema().map_or_else(
            |failure| {
                say::error(&failure);
                ExitCode::FAILURE
            },
            |()| ExitCode::SUCCESS,
        ),
    }
}

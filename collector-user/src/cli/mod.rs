//! The command line, one verb a file.

pub mod args;
mod ask;
mod books;
mod capture;
mod config;
mod door;
mod ending;
mod outputs;
mod pu;
mod read;
mod reload;
mod run;
mod say;
mod schema;
mod selftest;
mod status;
mod stderr;
mod stdout;

use std::process::ExitCode;

use args::{Cli, Command};
pub use stdout::look_at_stdout;

/// Does what the arguments ask for; the exit code is the process's.
pub fn main(cli: &Cli) -> ExitCode {
    match &cli.command {
        Command::Run(args) => run::run(args),
        Command::Capture(args) => capture::run(args),
        Command::Config(command) => config::run(command),
        Command::Pu(command) => pu::run(command),
        Command::Read(args) => read::run(args),
        Command::Status(ask) => status::run(ask),
        Command::Schema => schema::run(),
        Command::Selftest(args) => selftest::run(args),
    }
}

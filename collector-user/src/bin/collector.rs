//! Arguments in, exit code out; everything else is in the library.

use std::process::ExitCode;

use clap::Parser as _;
use collector_user::cli::{self, args::Cli};

// SAFETY: the C library calls what stands there once, before `main`, with arguments that may be left unread. It reads a
// descriptor's flags and stores one: it needs nothing that is not there yet.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = cli::look_at_stdout;

fn main() -> ExitCode {
    cli::main(&Cli::parse())
}

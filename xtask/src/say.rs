//! Everything that xtask itself prints, and the time its steps take.
//!
//! All of it goes to stderr: stdout belongs to the programs that xtask starts.

#![expect(clippy::print_stderr, reason = "the one place that prints; a verb is for a terminal")]
#![expect(clippy::disallowed_types, reason = "how long a step took is measured where it is printed")]

use std::{
    io::{self, IsTerminal as _},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::error::Error;

/// Prints one line.
pub(crate) fn line(text: &str) {
    eprintln!("{text}");
}

/// Prints why the verb failed.
pub(crate) fn error(error: &Error) {
    eprintln!("error: {error}");
}

/// Runs a step of a verb between a line with its name and one with its outcome and seconds.
pub(crate) fn step<T>(name: &str, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    eprintln!("== {name}");
    let start = Instant::now();
    let outcome = work();
    let result = if outcome.is_ok() { "ok" } else { "failed" };
    eprintln!("== {name}: {result}, {:.1} s", start.elapsed().as_secs_f64());
    outcome
}

/// Shows that a quiet step is at work: a spinner with its elapsed time on a terminal, otherwise one line.
pub(crate) fn waiting<T>(what: &str, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    if !io::stderr().is_terminal() {
        eprintln!("setup: {what}");
        return work();
    }
    let spinner = ProgressBar::new_spinner().with_message(what.to_owned());
    // A template that does not parse would only cost the elapsed time.
    if let Ok(style) = ProgressStyle::with_template("{spinner} setup: {msg} ({elapsed})") {
        spinner.set_style(style);
    }
    spinner.enable_steady_tick(Duration::from_millis(120));
    let outcome = work();
    let result = if outcome.is_ok() { "done" } else { "failed" };
    let seconds = spinner.elapsed().as_secs_f64();
    spinner.finish_and_clear();
    eprintln!("setup: {what}: {result}, {seconds:.1} s");
    outcome
}

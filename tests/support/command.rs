//! The tools of iproute2, and others.

use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::Result;

/// Runs a program in the namespaces of the calling thread and returns what it printed.
pub fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("{program} does not start: kernel tests need it"))?;
    ensure!(
        output.status.success(),
        "`{program} {}` failed: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command line without quotes or spaces in its words.
pub fn line(command: &str) -> Result<String> {
    let words: Vec<_> = command.split_whitespace().collect();
    let (program, arguments) = words.split_first().context("an empty command")?;
    run(program, arguments)
}

//! The kernel tests: built as the caller, run as root, one at a time.

use std::{
    io::{self, Read as _, Write as _},
    process::{Command, ExitStatus, Stdio},
};

use super::{report::Report, tools};
use crate::{
    artifact,
    error::{Error, Tail},
    privilege, process, say,
    workspace::Workspace,
};

const WHAT: &str = "the kernel tests";

/// Fails where they cannot run, before anything is built for them.
pub(super) fn ready() -> Result<(), Error> {
    privilege::check(WHAT)?;
    tools::ensure()
}

/// What to build for them alone.
pub(super) const ALONE: [&str; 8] =
    ["--package", "collector-tests", "--package", "collector-user", "--test", "kernel", "--test", "cli"];
/// What to build after the other tests: the same selection has the same features of dependencies, so that
/// nothing is compiled a second time.
pub(super) const AFTER_OTHERS: [&str; 1] = ["--workspace"];

/// Runs them all, the ignored ones being the point. A skipped test is counted and named, never passed.
pub(super) fn run(workspace: &Workspace, selection: &[&str], args: &[String]) -> Result<(), Error> {
    let mut build = workspace.cargo();
    build.args(["test", "--no-run"]).args(selection);
    // Two programs: one uses the library, the other starts the collector as a person would.
    let binaries = artifact::executables(&mut build, ["kernel", "cli"])?;
    let mut outputs = String::new();
    let mut failed = None;
    for binary in binaries {
        let mut command = privilege::as_root(&binary, WHAT)?;
        // `--show-output`: libtest swallows what a passing test printed, and a skip is such a line.
        command
            .args(["--include-ignored", "--test-threads=1", "--show-output"])
            .args(args)
            .current_dir(workspace.root().join("tests"));
        let (status, output) = relay(&mut command)?;
        outputs.push_str(&output);
        if !status.success() {
            let error = Error::Command { command: process::line(&command), status, tail: Tail::default() };
            failed.get_or_insert(error);
        }
    }
    say::line(&Report::of(&outputs).to_string());
    failed.map_or(Ok(()), Err)
}

/// Runs a command whose standard output is shown as it comes, byte by byte, and kept.
fn relay(command: &mut Command) -> Result<(ExitStatus, String), Error> {
    let mut child =
        command.stdout(Stdio::piped()).spawn().map_err(|cause| process::unstarted(command, cause))?;
    let mut kept = Vec::new();
    let mut copy = || -> io::Result<()> {
        let Some(mut pipe) = child.stdout.take() else { return Ok(()) };
        let mut buffer = [0; 4096];
        loop {
            let length = pipe.read(&mut buffer)?;
            let Some(new) = buffer.get(..length).filter(|new| !new.is_empty()) else { return Ok(()) };
            kept.extend_from_slice(new);
            // A closed terminal is no reason to stop the tests half way.
            let _ = io::stdout().write_all(new).and_then(|()| io::stdout().flush());
        }
    };
    let copied = copy();
    let status = copied.and_then(|()| child.wait()).map_err(|cause| process::unstarted(command, cause))?;
    Ok((status, String::from_utf8_lossy(&kept).into_owned()))
}

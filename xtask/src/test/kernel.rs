//! The kernel tests: built as the caller, run as root, one at a time.

use super::{engines, report::Report};
use crate::{
    artifact,
    error::{Error, Tail},
    privilege, process, say,
    tools::{self, Tool},
    workspace::Workspace,
};

const WHAT: &str = "the kernel tests";

/// What they compare against.
const TOOLS: [Tool; 11] = [
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("tcpdump", "tcpdump"),
    ("tshark", "tshark"),
    ("ethtool", "ethtool"),
    ("ping", "iputils-ping"),
    ("bpftool", "bpftool"),
    ("python3", "python3"),
    tools::LIBPCAP,
];

/// Fails where they cannot run, before anything is built for them.
pub(super) fn ready() -> Result<(), Error> {
    privilege::check(WHAT)?;
    tools::ensure(WHAT, &TOOLS)
}

/// What to build for them alone.
pub(crate) const ALONE: [&str; 8] =
    ["--package", "collector-tests", "--package", "collector-user", "--test", "kernel", "--test", "cli"];
/// What to build after the other tests: the same selection has the same features of dependencies, so that
/// nothing is compiled a second time.
pub(super) const AFTER_OTHERS: [&str; 1] = ["--workspace"];

/// `--show-output`: libtest swallows what a passing test printed, and a skip is such a line.
pub(crate) const FLAGS: [&str; 3] = ["--include-ignored", "--test-threads=1", "--show-output"];

/// Runs them all, the ignored ones being the point. A skipped test is counted and named, never passed.
pub(super) fn run(workspace: &Workspace, selection: &[&str], args: &[String]) -> Result<(), Error> {
    let mut build = workspace.cargo();
    build.args(["test", "--no-run"]).args(selection);
    // Two programs: one uses the library, the other starts the collector as a person would.
    let binaries = artifact::executables(&mut build, ["kernel", "cli"])?;
    let engines = engines::ensure(workspace)?;
    let mut outputs = String::new();
    let mut failed = None;
    for binary in binaries {
        let mut command =
            privilege::as_root_with(&[(engines::VARIABLE, engines.as_os_str())], &binary, WHAT)?;
        command.args(FLAGS).args(args).current_dir(workspace.root().join("tests"));
        let (status, output) = process::relay(&mut command)?;
        outputs.push_str(&output);
        if !status.success() {
            let error = Error::Command { command: process::line(&command), status, tail: Tail::default() };
            failed.get_or_insert(error);
        }
    }
    say::line(&Report::of(&outputs).to_string());
    failed.map_or(Ok(()), Err)
}

//! What runs in a guest: the kernel tests and the collector, static, since a guest has hardly any library.

use std::path::PathBuf;

use crate::{artifact, error::Error, test::kernel, workspace::Workspace};

/// Programs for guests.
pub(super) struct Payload {
    /// Test programs, by the names of their targets.
    pub(super) tests: [(&'static str, PathBuf); 3],
    /// Tests start it at this very path.
    pub(super) collector: PathBuf,
}

/// Builds them. The target is named although it is the host's: without that the flags would reach proc macros, which
/// cannot be static.
pub(super) fn build(workspace: &Workspace) -> Result<Payload, Error> {
    const NAMES: [&str; 4] = ["kernel", "devices", "cli", "collector"];
    let mut command = workspace.cargo();
    command
        .args(["test", "--no-run", "--profile", "guest", "--target", "x86_64-unknown-linux-gnu"])
        .args(kernel::ALONE)
        .args(["--test", "devices"])
        .env("CARGO_ENCODED_RUSTFLAGS", "-C\u{1f}target-feature=+crt-static");
    let [kernel, devices, cli, collector] = artifact::executables(&mut command, NAMES)?;
    Ok(Payload { tests: [("kernel", kernel), ("devices", devices), ("cli", cli)], collector })
}

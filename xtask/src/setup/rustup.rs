//! The workspace's own compiler, with the sources that `-Z build-std` compiles.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::{error::Error, process, say, workspace::Workspace};

/// The folder of the toolchain that `rust-toolchain.toml` names.
pub(crate) fn sysroot(workspace: &Workspace) -> Result<PathBuf, Error> {
    let mut command = Command::new("rustc");
    command.args(["--print", "sysroot"]).current_dir(workspace.root());
    // Cargo's proxy hands its own choice down, which `cargo +nightly xtask` would make nightly.
    command.env_remove("RUSTUP_TOOLCHAIN");
    process::silent(&mut command).map(|sysroot| PathBuf::from(sysroot.trim_end()))
}

/// Whether the toolchain has the sources of the standard library.
pub(crate) fn is_there(sysroot: &Path) -> bool {
    sources(sysroot).join("core/src/lib.rs").is_file()
}

/// Adds the sources where they are missing.
pub(crate) fn ensure(workspace: &Workspace, sysroot: &Path) -> Result<(), Error> {
    if is_there(sysroot) {
        return Ok(());
    }
    let channel = workspace.channel()?;
    add(workspace, "rust-src").map_err(|cause| Error::NoSources { channel, cause: Box::new(cause) })?;
    if is_there(sysroot) { Ok(()) } else { Err(Error::SourcesAbsent { path: sources(sysroot) }) }
}

/// Adds a component to the workspace's toolchain.
pub(crate) fn add(workspace: &Workspace, component: &str) -> Result<(), Error> {
    let channel = workspace.channel()?;
    let mut command = Command::new("rustup");
    command.args(["component", "add", component, "--toolchain", &channel]).current_dir(workspace.root());
    let what = format!("adding {component} to toolchain {channel}");
    say::waiting(&what, || process::silent(&mut command).map(drop))
}

/// Where a compiler looks for the sources of its standard library.
pub(super) fn sources(sysroot: &Path) -> PathBuf {
    sysroot.join("lib/rustlib/src/rust/library")
}

//! bpf-linker: turns the bitcode of either compiler into one object with BTF.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::{error::Error, object, process, say, workspace::Workspace};

/// The newest that loads the LLVM of a Rust toolchain; later ones want one of the system.
const VERSION: &str = "0.10.4";

/// Builds the linker where it is missing, and returns its path.
pub(super) fn ensure(workspace: &Workspace, sysroot: &Path) -> Result<PathBuf, Error> {
    let linker = workspace.tools().join("bin/bpf-linker");
    if version(&linker, sysroot).is_some_and(|version| version == VERSION) {
        return Ok(linker);
    }
    let mut install = Command::new(sysroot.join("bin/cargo"));
    object::strip_environment(&mut install);
    install
        .args(["install", "bpf-linker", "--version", VERSION, "--locked", "--force", "--root"])
        .arg(workspace.tools())
        .env("RUSTC", sysroot.join("bin/rustc"))
        .current_dir(workspace.root());
    say::waiting(&format!("building bpf-linker {VERSION} (about a minute, once)"), || {
        process::silent(&mut install).map(drop)
    })
    .map_err(|cause| Error::NoLinker { version: VERSION, cause: Box::new(cause) })?;
    Ok(linker)
}

fn version(linker: &Path, sysroot: &Path) -> Option<String> {
    let mut command = Command::new(linker);
    command.arg("--version").env("LD_LIBRARY_PATH", sysroot.join("lib"));
    let answer = process::silent(&mut command).ok()?;
    answer.split_whitespace().last().map(str::to_owned)
}

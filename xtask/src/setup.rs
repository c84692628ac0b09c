//! `cargo xtask setup`: a compiler and a linker for the BPF target.
//!
//! The compiler is the workspace's own with `rust-src` ([`rustup`]), or, where that cannot be added,
//! Debian's, unpacked and not installed ([`debian`]). The linker is built from source ([`linker`]). Silent
//! when all is there, since every verb that builds the object comes through here.

use std::{
    env, fmt,
    path::{Path, PathBuf},
};

use crate::{error::Error, workspace::Workspace};

pub(crate) mod debian;
mod linker;
pub(crate) mod rustup;

/// Forces one of the two compilers: `rustup` or `debian`.
const FORCE: &str = "COLLECTOR_BPF_TOOLCHAIN";

/// Which compiler builds the eBPF programs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// The toolchain of `rust-toolchain.toml`.
    Rustup,
    /// Debian's packages, unpacked below the target folder.
    Debian,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rustup => "rustup",
            Self::Debian => "debian",
        })
    }
}

/// All that a build for the BPF target is started with.
pub(crate) struct Toolchain {
    pub(crate) way: Way,
    /// Cargo is always that of the workspace's toolchain: Debian's packages are used without theirs.
    pub(crate) cargo: PathBuf,
    pub(crate) rustc: PathBuf,
    pub(crate) linker: PathBuf,
    /// Where the compiler and the linker find their shared libraries, in this order.
    pub(crate) libraries: Vec<PathBuf>,
}

/// Makes the eBPF build possible and says with what.
pub(crate) fn ensure(workspace: &Workspace) -> Result<Toolchain, Error> {
    let sysroot = rustup::sysroot(workspace)?;
    let way = match forced()? {
        Some(way) => way,
        None => choose(workspace, &sysroot)?,
    };
    with(workspace, way)
}

/// The same with a given compiler.
pub(crate) fn with(workspace: &Workspace, way: Way) -> Result<Toolchain, Error> {
    let sysroot = rustup::sysroot(workspace)?;
    // The linker loads the LLVM that the toolchain ships, whichever compiler wrote the bitcode.
    let mut libraries = vec![sysroot.join("lib")];
    let rustc = match way {
        Way::Rustup => {
            rustup::ensure(workspace, &sysroot)?;
            sysroot.join("bin/rustc")
        }
        Way::Debian => {
            let unpacked = debian::ensure(workspace)?;
            libraries.push(unpacked.libraries);
            unpacked.rustc
        }
    };
    let linker = linker::ensure(workspace, &sysroot)?;
    Ok(Toolchain { way, cargo: sysroot.join("bin/cargo"), rustc, linker, libraries })
}

/// What is there comes before what must be fetched: a refused download is not tried again by every verb.
fn choose(workspace: &Workspace, sysroot: &Path) -> Result<Way, Error> {
    if rustup::is_there(sysroot) {
        return Ok(Way::Rustup);
    }
    if debian::is_there(workspace) {
        return Ok(Way::Debian);
    }
    let Err(rustup) = rustup::ensure(workspace, sysroot) else { return Ok(Way::Rustup) };
    match debian::ensure(workspace) {
        Ok(_) => Ok(Way::Debian),
        Err(debian) => Err(Error::NoCompiler { rustup: Box::new(rustup), debian: Box::new(debian) }),
    }
}

fn forced() -> Result<Option<Way>, Error> {
    let Some(value) = env::var_os(FORCE).filter(|value| !value.is_empty()) else { return Ok(None) };
    match value.to_str() {
        Some("rustup") => Ok(Some(Way::Rustup)),
        Some("debian") => Ok(Some(Way::Debian)),
        _ => Err(Error::UnknownWay { variable: FORCE, value: value.to_string_lossy().into_owned() }),
    }
}

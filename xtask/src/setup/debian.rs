//! Debian's compiler and sources, for machines where rustup may add nothing.
//!
//! Unpacked and never installed ([`packages`]): the packages conflict with Debian's own rustc and with rustup's.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use super::rustup;
use crate::{
    error::Error,
    packages::{self, absent_is_fine, entries, file},
    say,
    workspace::Workspace,
};

/// The compiler, and the sources it compiles `core` from.
const WANTED: [&str; 2] = [COMPILER, "rust-web-src"];
const COMPILER: &str = "rustc-web";
/// Dependencies with these prefixes are followed; the rest (libc, binutils) any machine with rustup has.
/// Their names carry versions, so they are asked for and not written down.
const FOLLOWED: [&str; 2] = ["libstd-rust-web", "libllvm"];

/// Debian's compiler as it lies below the target folder.
pub(crate) struct Unpacked {
    pub(crate) rustc: PathBuf,
    /// Holds `librustc_driver` and LLVM, which the compiler expects in the system's folder.
    pub(crate) libraries: PathBuf,
}

/// Whether the packages lie unpacked.
pub(crate) fn is_there(workspace: &Workspace) -> bool {
    locate(&root(workspace)).is_ok()
}

/// Fetches and unpacks the packages where they are missing.
pub(crate) fn ensure(workspace: &Workspace) -> Result<Unpacked, Error> {
    if let Ok(unpacked) = locate(&root(workspace)) {
        return Ok(unpacked);
    }
    packages::with_fresh_lists(
        "Debian's compiler",
        "use a machine with Debian's apt-get and dpkg-deb, or rustup's rust-src",
        || fetch(workspace),
    )?;
    locate(&root(workspace))
}

/// Where the packages end up: their `usr` is a sysroot.
fn root(workspace: &Workspace) -> PathBuf {
    workspace.tools().join("debian/root")
}

fn locate(root: &Path) -> Result<Unpacked, Error> {
    let incomplete = |part| Error::Incomplete { part, root: root.to_path_buf() };
    let usr = root.join("usr");
    let rustc = usr.join("bin/rustc");
    if !rustc.is_file() {
        return Err(incomplete("bin/rustc"));
    }
    if !rustup::is_there(&usr) {
        return Err(incomplete("library/core"));
    }
    let libraries = folder(&usr.join("lib"), |path| {
        folder(path, |file| name(file).starts_with("librustc_driver-")).is_some()
    });
    Ok(Unpacked { rustc, libraries: libraries.ok_or_else(|| incomplete("librustc_driver"))? })
}

fn fetch(workspace: &Workspace) -> Result<(), Error> {
    let candidate = packages::candidate(COMPILER)?.ok_or(Error::NoCandidate { package: COMPILER })?;
    let wanted = workspace.channel()?;
    if release(&candidate) < release(&wanted) {
        return Err(Error::TooOld { package: COMPILER, found: candidate, wanted });
    }
    say::waiting(&format!("unpacking Debian's compiler {candidate} (137 MB, once)"), || {
        packages::fill(&workspace.tools().join("debian"), unpack)
    })
}

fn unpack(part: &Path) -> Result<(), Error> {
    let root = packages::fetch(part, &packages::closure(&WANTED, is_followed)?)?;
    let usr = root.join("usr");
    let sources = folder(&usr.join("src"), |path| name(path).starts_with("rustc-"))
        .ok_or_else(|| Error::Incomplete { part: "src/rustc-*", root: root.clone() })?;
    // Nine tenths of the sources are the compiler and its tools; `core` needs neither.
    for rest in ["compiler", "src"].map(|rest| sources.join(rest)) {
        packages::remove(&rest)?;
    }
    if !rustup::is_there(&usr) {
        // An absolute link would point into the machine's own /usr/src.
        let link = usr.join("lib/rustlib/src/rust");
        file("remove", &link, absent_is_fine(fs::remove_file(&link)))?;
        file("link", &link, symlink(Path::new("../../../src").join(name(&sources)), &link))?;
    }
    locate(&root).map(drop)
}

/// Whether a dependency holds a part of the compiler itself.
fn is_followed(package: &str) -> bool {
    FOLLOWED.iter().any(|prefix| package.starts_with(prefix))
}

/// `1.96` of `1.96.0+dfsg1-1`, as numbers.
fn release(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

fn folder(parent: &Path, is_wanted: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    entries(parent).into_iter().find(|path| is_wanted(path))
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::{is_followed, release};

    #[test]
    fn only_the_parts_of_the_compiler_are_followed() {
        let needed = ["libc6", "libstd-rust-web-dev", "gcc", "libllvm22"];
        let followed: Vec<_> = needed.into_iter().filter(|package| is_followed(package)).collect();
        assert_eq!(followed, ["libstd-rust-web-dev", "libllvm22"]);
    }

    #[test]
    fn releases_compare_as_numbers() {
        assert_eq!(release("1.96.0+dfsg1-1~deb12u2"), Some((1, 96)));
        assert!(release("1.85.0+dfsg3-1") < release("1.95.0"));
        assert!(release("1.100.0") > release("1.95.0"));
    }
}

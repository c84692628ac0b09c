//! Debian's compiler and sources, for machines where rustup may add nothing.
//!
//! Unpacked below the target folder and never installed: the packages conflict with Debian's own rustc and
//! with rustup's. `apt-get download` and `dpkg-deb -x` need no root.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{self as std_process, Command},
};

use super::rustup;
use crate::{error::Error, privilege, process, say, workspace::Workspace};

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
    // Missing, outdated and vanished packages have one cure: fresh lists.
    let fetched = fetch(workspace).or_else(|cause| {
        if matches!(cause, Error::Spawn { .. }) {
            return Err(no_debian(
                cause,
                "use a machine with Debian's apt-get and dpkg-deb, or rustup's rust-src",
            ));
        }
        if !privilege::is_root() {
            return Err(no_debian(cause, "run `sudo apt-get update`, which needs root, and try again"));
        }
        say::waiting("refreshing the package lists", || {
            process::silent(Command::new("apt-get").args(["-qq", "update"])).map(drop)
        })
        .and_then(|()| fetch(workspace))
        .map_err(|cause| no_debian(cause, "see that the package archive can be reached, and try again"))
    });
    fetched.and_then(|()| locate(&root(workspace)))
}

fn no_debian(cause: Error, next: &'static str) -> Error {
    Error::NoDebian { cause: Box::new(cause), next }
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
    let candidate = candidate(&policy()?).ok_or(Error::NoCandidate { package: COMPILER })?;
    let wanted = workspace.channel()?;
    if release(&candidate) < release(&wanted) {
        return Err(Error::TooOld { package: COMPILER, found: candidate, wanted });
    }
    // Complete or not there at all: filled under another name and moved at the end.
    let finished = workspace.tools().join("debian");
    let part = workspace.tools().join(format!("debian.part-{}", std_process::id()));
    let outcome = say::waiting(&format!("unpacking Debian's compiler {candidate} (137 MB, once)"), || {
        unpack(&part)?;
        file("remove", &finished, absent_is_fine(fs::remove_dir_all(&finished)))?;
        file("move the packages to", &finished, fs::rename(&part, &finished))
    });
    if outcome.is_err() {
        // The first failure is the one worth telling.
        let _ = fs::remove_dir_all(&part);
    }
    outcome
}

fn unpack(part: &Path) -> Result<(), Error> {
    let root = part.join("root");
    file("create", &root, fs::create_dir_all(&root))?;
    process::silent(Command::new("apt-get").args(["-qq", "download"]).args(closure()?).current_dir(part))?;
    for package in entries(part).into_iter().filter(|path| path.extension().is_some_and(|e| e == "deb")) {
        process::silent(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&root))?;
        file("remove", &package, fs::remove_file(&package))?;
    }
    let usr = root.join("usr");
    let sources = folder(&usr.join("src"), |path| name(path).starts_with("rustc-"))
        .ok_or_else(|| Error::Incomplete { part: "src/rustc-*", root: root.clone() })?;
    // Nine tenths of the sources are the compiler and its tools; `core` needs neither.
    for rest in ["compiler", "src"].map(|rest| sources.join(rest)) {
        file("remove", &rest, absent_is_fine(fs::remove_dir_all(&rest)))?;
    }
    if !rustup::is_there(&usr) {
        // An absolute link would point into the machine's own /usr/src.
        let link = usr.join("lib/rustlib/src/rust");
        file("remove", &link, absent_is_fine(fs::remove_file(&link)))?;
        file("link", &link, symlink(Path::new("../../../src").join(name(&sources)), &link))?;
    }
    locate(&root).map(drop)
}

/// The wanted packages and those of their dependencies that hold the compiler itself.
fn closure() -> Result<Vec<String>, Error> {
    let mut packages: Vec<String> = WANTED.map(str::to_owned).to_vec();
    let mut next = 0;
    while let Some(package) = packages.get(next) {
        let listing = process::silent(Command::new("apt-cache").arg("depends").arg(package))?;
        for found in followed(&listing) {
            if !packages.iter().any(|known| known == found) {
                packages.push(found.to_owned());
            }
        }
        next += 1;
    }
    Ok(packages)
}

fn followed(listing: &str) -> impl Iterator<Item = &str> {
    listing
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .filter(|package| FOLLOWED.iter().any(|prefix| package.starts_with(prefix)))
}

fn policy() -> Result<String, Error> {
    process::silent(Command::new("apt-cache").args(["policy", COMPILER]).env("LC_ALL", "C"))
}

fn candidate(policy: &str) -> Option<String> {
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    (version != "(none)").then(|| version.to_owned())
}

/// `1.96` of `1.96.0+dfsg1-1`, as numbers.
fn release(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn folder(parent: &Path, is_wanted: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    entries(parent).into_iter().find(|path| is_wanted(path))
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn file(act: &'static str, path: &Path, outcome: io::Result<()>) -> Result<(), Error> {
    outcome.map_err(|cause| Error::File { act, path: path.to_path_buf(), cause })
}

fn absent_is_fine(outcome: io::Result<()>) -> io::Result<()> {
    outcome.or_else(|cause| if cause.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(cause) })
}

#[cfg(test)]
mod tests {
    use super::{candidate, followed, release};

    #[test]
    fn only_the_parts_of_the_compiler_are_followed() {
        let listing = "rustc-web\n  Depends: libc6\n  Depends: libstd-rust-web-dev\n  Depends: gcc\n  \
                       Conflicts: libstd-rust-dev\n  Depends: libllvm22\n";
        assert_eq!(followed(listing).collect::<Vec<_>>(), ["libstd-rust-web-dev", "libllvm22"]);
    }

    #[test]
    fn a_package_without_a_candidate_is_none() {
        let known = "rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1\n";
        assert_eq!(candidate(known).as_deref(), Some("1.96.0+dfsg1-1"));
        assert_eq!(candidate("rustc-web:\n  Installed: (none)\n  Candidate: (none)\n"), None);
        assert_eq!(candidate(""), None);
    }

    #[test]
    fn releases_compare_as_numbers() {
        assert_eq!(release("1.96.0+dfsg1-1~deb12u2"), Some((1, 96)));
        assert!(release("1.85.0+dfsg3-1") < release("1.95.0"));
        assert!(release("1.100.0") > release("1.95.0"));
    }
}

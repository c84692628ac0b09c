//! Debian's packages, fetched and unpacked below the target folder, and never installed: `apt-get download` and
//! `dpkg-deb -x` need no root, start no service, and replace nothing.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{self as std_process, Command},
};

use crate::{error::Error, privilege, process, say};

/// Fills a folder, complete or not at all: under another name, and moved at the end.
pub(crate) fn fill(finished: &Path, work: impl FnOnce(&Path) -> Result<(), Error>) -> Result<(), Error> {
    let mut name = finished.file_name().unwrap_or_default().to_owned();
    name.push(format!(".part-{}", std_process::id()));
    let part = finished.with_file_name(name);
    let outcome = work(&part)
        .and_then(|()| remove(finished))
        .and_then(|()| file("move the packages to", finished, fs::rename(&part, finished)));
    if outcome.is_err() {
        // The first failure is the one worth telling.
        let _ = fs::remove_dir_all(&part);
    }
    outcome
}

/// Tries again with fresh lists what has failed: missing, outdated and vanished packages have this one cure.
pub(crate) fn with_fresh_lists(
    what: &'static str,
    instead: &'static str,
    fetch: impl Fn() -> Result<(), Error>,
) -> Result<(), Error> {
    let fail = |cause, next| Error::NoDebian { what, cause: Box::new(cause), next };
    fetch().or_else(|cause| {
        if matches!(cause, Error::Spawn { .. }) {
            return Err(fail(cause, instead));
        }
        if !privilege::is_root() {
            return Err(fail(cause, "run `sudo apt-get update`, which needs root, and try again"));
        }
        say::waiting("refreshing the package lists", || {
            process::silent(Command::new("apt-get").args(["-qq", "update"])).map(drop)
        })
        .and_then(|()| fetch())
        .map_err(|cause| fail(cause, "see that the package archive can be reached, and try again"))
    })
}

/// Downloads packages into a folder, which is made, and unpacks them into `root` in it, which is returned.
pub(crate) fn fetch(folder: &Path, packages: &[String]) -> Result<PathBuf, Error> {
    let root = folder.join("root");
    file("create", &root, fs::create_dir_all(&root))?;
    process::silent(Command::new("apt-get").args(["-qq", "download"]).args(packages).current_dir(folder))?;
    unpack(folder, &root)?;
    Ok(root)
}

/// Unpacks the packages that lie in a folder, and removes them.
pub(crate) fn unpack(folder: &Path, root: &Path) -> Result<(), Error> {
    for package in entries(folder).iter().filter(|path| path.extension().is_some_and(|e| e == "deb")) {
        process::silent(Command::new("dpkg-deb").arg("-x").arg(package).arg(root))?;
        file("remove", package, fs::remove_file(package))?;
    }
    Ok(())
}

/// The wanted packages, and those of their dependencies, and of theirs, that are to be followed.
pub(crate) fn closure(wanted: &[&str], is_followed: impl Fn(&str) -> bool) -> Result<Vec<String>, Error> {
    let mut packages: Vec<String> = wanted.iter().map(|package| (*package).to_owned()).collect();
    let mut next = 0;
    while let Some(package) = packages.get(next) {
        let listing = process::silent(Command::new("apt-cache").arg("depends").arg(package))?;
        for found in depends(&listing).filter(|package| is_followed(package)) {
            if !packages.iter().any(|known| known == found) {
                packages.push(found.to_owned());
            }
        }
        next += 1;
    }
    Ok(packages)
}

/// Libraries of the system's own, of which there must not be two in one process.
const EVERYWHERE: [&str; 3] = ["libc6", "libgcc-s1", "libcrypt1"];

/// Whether a dependency is needed that a minimal system lacks. Which those are depends on what else is installed and may be
/// removed again; so all libraries are.
pub(crate) fn is_library(package: &str) -> bool {
    package.starts_with("lib") && !EVERYWHERE.contains(&package)
}

/// The packages that a listing of `apt-cache depends` names as needed; of several that would do, the last. What no package
/// is called itself (`<name>`) is left out.
pub(crate) fn depends(listing: &str) -> impl Iterator<Item = &str> {
    let needed = listing.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    needed.filter(|package| !package.starts_with('<'))
}

/// The version of a package that the lists of this machine would have installed.
pub(crate) fn candidate(package: &str) -> Result<Option<String>, Error> {
    let policy = process::silent(Command::new("apt-cache").args(["policy", package]).env("LC_ALL", "C"))?;
    Ok(candidate_in(&policy))
}

fn candidate_in(policy: &str) -> Option<String> {
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    (version != "(none)").then(|| version.to_owned())
}

/// What is in a folder; nothing where there is none.
pub(crate) fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Removes a folder with all in it, where there is one.
pub(crate) fn remove(folder: &Path) -> Result<(), Error> {
    file("remove", folder, absent_is_fine(fs::remove_dir_all(folder)))
}

/// The error of a file operation, in words.
pub(crate) fn file(act: &'static str, path: &Path, outcome: io::Result<()>) -> Result<(), Error> {
    outcome.map_err(|cause| Error::File { act, path: path.to_path_buf(), cause })
}

/// What is to be removed may be gone.
pub(crate) fn absent_is_fine(outcome: io::Result<()>) -> io::Result<()> {
    outcome.or_else(|cause| if cause.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(cause) })
}

#[cfg(test)]
mod tests {
    use super::{candidate_in, depends, is_library};

    #[test]
    fn what_is_needed_is_followed_and_no_name_without_a_package() {
        let listing = "podman\n  PreDepends: init\n |Depends: crun\n  Depends: runc\n  Depends: <virtual>\n  \
                       Conflicts: libold\n  Depends: libgpgme11\n";
        assert_eq!(depends(listing).collect::<Vec<_>>(), ["runc", "libgpgme11"]);
    }

    #[test]
    fn a_package_without_a_candidate_is_none() {
        let known = "rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1\n";
        assert_eq!(candidate_in(known).as_deref(), Some("1.96.0+dfsg1-1"));
        assert_eq!(candidate_in("rustc-web:\n  Installed: (none)\n  Candidate: (none)\n"), None);
        assert_eq!(candidate_in(""), None);
    }

    #[test]
    fn libraries_are_followed_but_those_that_every_process_has() {
        let needed = ["libc6", "libgpgme11", "adduser", "libseccomp2", "libgcc-s1"];
        let followed: Vec<_> = needed.into_iter().filter(|package| is_library(package)).collect();
        assert_eq!(followed, ["libgpgme11", "libseccomp2"]);
    }
}

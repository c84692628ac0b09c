//! Flow meters of others for the benchmark: Debian's softflowd and pmacct, unpacked and not installed, for installing them starts
//! services.

use std::path::{Path, PathBuf};

use crate::{
    error::Error,
    packages::{self, absent_is_fine},
    say,
    workspace::Workspace,
};

/// Tells the benchmark where the packages lie; empty where they cannot be had.
pub(crate) const VARIABLE: &str = "COLLECTOR_METERS";

const WANTED: [&str; 2] = ["softflowd", "pmacct"];

/// Programs that the benchmark starts.
const PARTS: [&str; 2] = ["usr/sbin/softflowd", "usr/sbin/pmacctd"];

/// Fetches and unpacks the packages where they are missing; the root that they are unpacked below.
pub(crate) fn ensure(workspace: &Workspace) -> Result<PathBuf, Error> {
    let finished = workspace.tools().join("meters");
    let root = finished.join("root");
    if locate(&root).is_err() {
        packages::with_fresh_lists(
            "softflowd and pmacct for the benchmark",
            "use a machine with Debian's apt-get and dpkg-deb",
            || {
                say::waiting("unpacking Debian's softflowd and pmacct (once)", || {
                    packages::fill(&finished, unpack)
                })
            },
        )?;
        locate(&root)?;
    }
    Ok(root)
}

fn unpack(part: &Path) -> Result<(), Error> {
    let root = packages::fetch(part, &packages::closure(&WANTED, packages::is_library)?)?;
    // A service that somebody could start by its file is none of the benchmark's.
    for services in ["etc", "lib/systemd"].map(|place| root.join(place)) {
        packages::file("remove", &services, absent_is_fine(std::fs::remove_dir_all(&services)))?;
    }
    locate(&root)
}

fn locate(root: &Path) -> Result<(), Error> {
    let missing = PARTS.into_iter().find(|part| !root.join(part).is_file());
    missing.map_or(Ok(()), |part| Err(Error::Incomplete { part, root: root.to_path_buf() }))
}

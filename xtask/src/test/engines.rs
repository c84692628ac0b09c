//! Container engines for the kernel tests: Debian's Docker and Podman, unpacked and not installed, for installing them
//! starts services and changes the rules of the machine's packet filter.

use std::{
    env,
    path::{Path, PathBuf},
};

use crate::{
    error::Error,
    packages::{self, absent_is_fine},
    say,
    workspace::Workspace,
};

/// Tells the tests where the packages lie, or that they are left out (`none`). Who sets it is not overruled.
pub(crate) const VARIABLE: &str = "COLLECTOR_ENGINES";

/// Engines, what runs containers for them, and what makes Podman's networks.
const WANTED: [&str; 6] =
    ["docker.io", "containerd", "runc", "podman", "conmon", "containernetworking-plugins"];
/// Docker's command, where a release has it in a package of its own.
const CLIENT: &str = "docker-cli";

/// Parts that tests start, or that engines look for.
const PARTS: [&str; 8] = [
    "usr/sbin/dockerd",
    "usr/bin/docker",
    "usr/bin/containerd",
    "usr/bin/containerd-shim-runc-v2",
    "usr/sbin/runc",
    "usr/bin/podman",
    "usr/bin/conmon",
    "usr/lib/cni/bridge",
];

/// Fetches and unpacks the packages where they are missing; the root that they are unpacked below.
pub(super) fn ensure(workspace: &Workspace) -> Result<PathBuf, Error> {
    if let Some(said) = env::var_os(VARIABLE).filter(|said| !said.is_empty()) {
        return Ok(said.into());
    }
    let finished = workspace.tools().join("engines");
    let root = finished.join("root");
    if locate(&root).is_err() {
        packages::with_fresh_lists(
            "Docker and Podman for the kernel tests",
            "use a machine with Debian's apt-get and dpkg-deb, or set COLLECTOR_ENGINES to a root that they are unpacked \
             below, or to `none`, which leaves their tests out",
            || {
                say::waiting("unpacking Debian's Docker and Podman (90 MB, once)", || {
                    packages::fill(&finished, unpack)
                })
            },
        )?;
        locate(&root)?;
    }
    Ok(root)
}

fn unpack(part: &Path) -> Result<(), Error> {
    let mut wanted = WANTED.to_vec();
    if packages::candidate(CLIENT)?.is_some() {
        wanted.push(CLIENT);
    }
    let root = packages::fetch(part, &packages::closure(&wanted, packages::is_library)?)?;
    // A service that somebody could start by its file is none of the tests'.
    for services in ["etc", "lib/systemd"].map(|place| root.join(place)) {
        packages::file("remove", &services, absent_is_fine(std::fs::remove_dir_all(&services)))?;
    }
    locate(&root)
}

fn locate(root: &Path) -> Result<(), Error> {
    let missing = PARTS.into_iter().find(|part| !root.join(part).is_file());
    missing.map_or(Ok(()), |part| Err(Error::Incomplete { part, root: root.to_path_buf() }))
}

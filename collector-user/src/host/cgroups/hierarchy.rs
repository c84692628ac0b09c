//! Finds the hierarchy of cgroups, whose root is then held open.
//!
//! It need not be visible: `ip netns exec` mounts a new `/sys` over it. Then the mount of the host's first process is taken,
//! which is reached by `/proc/1/root` (`PTRACE_MODE_READ`), or the file system is mounted once more, in no place at all.

use std::{
    fmt, io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags, fstat, fstatfs, open},
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsmount, fsopen},
};

use super::{
    CgroupError,
    mounts::{self, Mount, Version},
};

/// `CGROUP2_SUPER_MAGIC` (include/uapi/linux/magic.h).
const MAGIC: u64 = 0x6367_7270;
/// The inode number of the root of all cgroups (`kernfs_create_root` allocates it first).
const ROOT: u64 = 1;
/// The inode number of the first cgroup namespace (`PROC_CGROUP_INIT_INO`, `include/linux/proc_ns.h`).
const FIRST_NAMESPACE: u64 = 0xEFFF_FFFB;

/// The hierarchy.
#[derive(Debug)]
pub struct Hierarchy {
    root: OwnedFd,
    id: u64,
    /// Where the mounted part begins; empty where it is all.
    prefix: Vec<u8>,
    place: Place,
}

/// How the hierarchy was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Where it is mounted.
    Mounted(PathBuf),
    /// By a mount that nobody else sees.
    Aside,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mounted(path) => write!(f, "{}", path.to_string_lossy().escape_debug()),
            Self::Aside => f.write_str("a mount of the collector's own"),
        }
    }
}

impl Hierarchy {
    /// Finds it: the first that is whole among this process's mounts, those of the host's first process, and a mount of our
    /// own (Linux 5.2, `CAP_SYS_ADMIN`); else the first that shows a part.
    ///
    /// # Errors
    ///
    /// [`CgroupError::NotFound`], [`CgroupError::OptionsUnknown`].
    pub fn find() -> Result<Self, CgroupError> {
        let own = mounts::of("thread-self").unwrap_or_default();
        let first = mounts::of("1");
        let candidates =
            candidates(&own, "/").chain(candidates(first.as_deref().unwrap_or_default(), "/proc/1/root"));
        let mut part = None;
        for (place, mount) in candidates {
            match Self::open(&place, &mount.root) {
                Ok(found) if found.is_whole() => return Ok(found),
                Ok(found) => part = part.or(Some(found)),
                // Covered by another mount, or not to be reached: the next.
                Err(_) => {}
            }
        }
        let is_first_namespace = is_first_namespace();
        match part {
            Some(part) if !is_first_namespace => Ok(part),
            part => aside(&own, first, is_first_namespace).or_else(|error| part.ok_or(error)),
        }
    }

    /// The hierarchy that is mounted in this place, of which `shown` is mounted: `/` for all of it.
    fn open(place: &Path, shown: &[u8]) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Self::of(open(place, flags, Mode::empty())?, shown, Place::Mounted(place.to_owned()))
    }

    fn of(root: OwnedFd, shown: &[u8], place: Place) -> io::Result<Self> {
        // The type is of another width on some targets.
        if fstatfs(&root)?.f_type as u64 != MAGIC {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let id = fstat(&root)?.st_ino;
        let is_inside = id != ROOT && shown != b"/" && !shown.starts_with(b"/..");
        let prefix = if is_inside { shown.to_vec() } else { Vec::new() };
        Ok(Self { root, id, prefix, place })
    }

    /// Whether all cgroups of the host are in it, not only those below a container's.
    pub const fn is_whole(&self) -> bool {
        self.id == ROOT
    }

    /// How it was found.
    pub const fn place(&self) -> &Place {
        &self.place
    }

    pub(super) const fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// A path below the root as it is told.
    pub(super) fn told(&self, below: &[u8]) -> String {
        let prefix = String::from_utf8_lossy(&self.prefix);
        let below = String::from_utf8_lossy(below);
        if below.is_empty() && !prefix.is_empty() { prefix.into_owned() } else { format!("{prefix}/{below}") }
    }
}

/// Where to look, what shows all before what shows a part.
fn candidates<'a>(mounts: &'a [Mount], root: &'a str) -> impl Iterator<Item = (PathBuf, &'a Mount)> {
    let of = move |all: bool| {
        let mounts = mounts.iter().filter(|mount| mount.version == Version::Two);
        // A path that is absolute would take the root's place.
        let place =
            move |mount: &Mount| Path::new(root).join(mount.point.strip_prefix("/").unwrap_or(&mount.point));
        mounts.filter(move |mount| (mount.root == b"/") == all).map(move |mount| (place(mount), mount))
    };
    of(true).chain(of(false))
}

fn is_first_namespace() -> bool {
    rustix::fs::stat("/proc/thread-self/ns/cgroup").is_ok_and(|namespace| namespace.st_ino == FIRST_NAMESPACE)
}

/// A mount of our own. Its options become those of the host's own mounts when it is made in the first cgroup namespace
/// (`apply_cgroup_root_flags`, measured: without `nsdelegate` it takes that away), so they must be known.
fn aside(
    own: &[Mount],
    first: io::Result<Vec<Mount>>,
    is_first_namespace: bool,
) -> Result<Hierarchy, CgroupError> {
    let is_second = |mount: &&Mount| mount.version == Version::Two;
    let options = match (own.iter().find(is_second), first) {
        (Some(mount), _) => mount.options.clone(),
        (None, Ok(first)) => {
            first.iter().find(is_second).map(|mount| mount.options.clone()).unwrap_or_default()
        }
        (None, Err(_)) if !is_first_namespace => Vec::new(),
        (None, Err(source)) => return Err(CgroupError::OptionsUnknown { source }),
    };
    let mount = || {
        let context = fsopen("cgroup2", FsOpenFlags::FSOPEN_CLOEXEC)?;
        // These are of the file system's kind or of a security module, and no options of cgroups.
        for option in options.iter().filter(|option| !["rw", "ro", "seclabel"].contains(&option.as_str())) {
            fsconfig_set_flag(&context, option.as_str())?;
        }
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    };
    let found =
        mount().map_err(io::Error::from).and_then(|root| Hierarchy::of(reopened(&root)?, b"/", Place::Aside));
    found.map_err(|source| CgroupError::NotFound { source })
}

/// A mount's descriptor is one that names only (`O_PATH`): this one can be read.
fn reopened(root: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(root, ".", flags, Mode::empty())?)
}

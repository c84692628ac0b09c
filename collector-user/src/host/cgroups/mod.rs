//! The host's cgroups of version 2: which there are, which come and go, and who is in them.
//!
//! [`hierarchy`]: finds where they are; [`tree`]: lists them, and follows them. What a cgroup *is*, a container or a
//! service, is not known here.
//!
//! A cgroup's id is the inode number of its directory, which is what `bpf_skb_cgroup_id` answers (`cgroup_id`,
//! include/linux/cgroup.h; Linux 5.5 and newer, 64 bits wide). The kernel never gives one to two cgroups (`kernfs_new_node`
//! puts a generation above the number).

use std::io;

mod directory;
pub mod hierarchy;
mod mounts;
mod nodes;
mod rescan;
pub mod sockets;
pub mod tree;
mod watches;

/// A cgroup, as it was when it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// The inode number of its directory. The root of the host's hierarchy has 1.
    pub id: u64,
    /// Where it is, from the hierarchy's root, which is `/`. A name that is no UTF-8 has replacement characters here, and
    /// is followed like any other. Whoever may make cgroups chooses their names: control characters may be in them.
    pub path: String,
    /// Whether a process is in it or below it. True of the root.
    pub populated: bool,
}

/// What became of a cgroup. Each is told once, and of one cgroup in the order in which they stand here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is new. Its parent was told before.
    Made(Cgroup),
    /// The first process came, or the last one went. The kernel tells so at most once in 10 ms
    /// (`CGROUP_FILE_NOTIFY_MIN_INTV`), and what it tells is what is then: of a process that ended sooner nothing is told.
    Populated {
        /// Whose.
        id: u64,
        /// Whether processes are there now.
        populated: bool,
    },
    /// It was removed; whether its last process was told to have gone or not, it has. What was below it was told before.
    Gone {
        /// Which.
        id: u64,
        /// Where it was.
        path: String,
    },
}

/// Why cgroups cannot be told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CgroupError {
    /// There is no hierarchy of version 2, or none can be reached.
    #[error(
        "the host's cgroups cannot be seen: no cgroup2 file system is mounted here and one cannot be mounted aside. \
         `ip netns exec` hides them: use `nsenter --net=/run/netns/NAME`; else mount one: `mount -t cgroup2 none DIR`"
    )]
    NotFound {
        /// What the kernel said when one was to be mounted.
        source: io::Error,
    },
    /// To mount one aside would change the options of the host's own.
    #[error(
        "the host's cgroups cannot be seen: no cgroup2 file system is mounted here, and how the host mounted its own cannot \
         be read in /proc/1/mountinfo, so that another mount could change its options. `ip netns exec` hides them: use \
         `nsenter --net=/run/netns/NAME`; else run with CAP_SYS_PTRACE, or mount one here: `mount -t cgroup2 none DIR`"
    )]
    OptionsUnknown {
        /// What the kernel said of the file.
        source: io::Error,
    },
    /// There is no more room for an instance of inotify.
    #[error(
        "cgroups cannot be followed: raise fs.inotify.max_user_instances if there are too many instances of inotify"
    )]
    Instance {
        /// What the kernel said.
        source: io::Error,
    },
    /// The hierarchy's root cannot be read.
    #[error("the root of the cgroups at {place} cannot be read")]
    Root {
        /// Where it is.
        place: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel tells no more of what changes.
    #[error("changes of cgroups cannot be read any more: only what is listed anew will be known")]
    Events {
        /// What it said.
        source: io::Error,
    },
}

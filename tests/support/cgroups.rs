//! Cgroups of a test's own, and what is told of them.
#![expect(
    unsafe_code,
    reason = "a thread leaves the namespaces of its process, which the library leaves to the caller"
)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, ensure};
use collector_user::host::cgroups::{
    Change,
    hierarchy::{Hierarchy, Place},
    tree::Tree,
};
use rustix::{
    mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount},
    thread::UnshareFlags,
};
use tokio::{runtime::Runtime, time::timeout};

use crate::{PATIENCE, Result, netns::unique, privilege};

/// A cgroup of the test's own below the root; removed with all in it when this is dropped.
#[derive(Debug)]
pub struct Ground {
    directory: PathBuf,
    told: String,
}

impl Ground {
    /// A new one.
    pub fn new() -> Result<Self> {
        privilege::check()?;
        let Place::Mounted(root) = Hierarchy::find()?.place().clone() else {
            anyhow::bail!("kernel tests want a mount of cgroup2")
        };
        let name = unique("t");
        let directory = root.join(&name);
        fs::create_dir(&directory).with_context(|| format!("making {}", directory.display()))?;
        Ok(Self { directory, told: format!("/{name}") })
    }

    /// Where its directory is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes a cgroup in it, with those that it is in.
    pub fn make(&self, below: &str) -> Result<PathBuf> {
        let directory = self.directory.join(below);
        fs::create_dir_all(&directory)?;
        Ok(directory)
    }

    /// Removes an empty one in it.
    pub fn remove(&self, below: &str) -> Result<()> {
        Ok(fs::remove_dir(self.directory.join(below))?)
    }

    /// How a path in it is told.
    pub fn told(&self, below: &str) -> String {
        format!("{}/{below}", self.told)
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        remove(&self.directory);
    }
}

fn remove(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let _gone = fs::remove_dir(directory);
}

/// A process that waits in a cgroup; it ends when this is dropped.
#[derive(Debug)]
pub struct Guest {
    child: Child,
}

impl Guest {
    /// Puts one into the cgroup of this directory.
    pub fn enter(directory: &Path) -> Result<Self> {
        Self::enter_by(directory, "cgroup.procs")
    }

    /// The same, by the file for threads.
    pub fn enter_by(directory: &Path, file: &str) -> Result<Self> {
        let child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        let guest = Self { child };
        fs::write(directory.join(file), guest.id().to_string())?;
        Ok(guest)
    }

    /// The number of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// What was told of one cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Story {
    /// Where it is.
    pub path: String,
    /// Whether processes were there: when it was told, and each time that this changed.
    pub populated: Vec<bool>,
    /// It has gone.
    pub gone: bool,
}

/// Follows cgroups, and watches that each is told once and in order.
pub struct Follower {
    runtime: Runtime,
    /// The tree.
    pub tree: Tree,
    /// What was told, by id.
    pub stories: BTreeMap<u64, Story>,
}

impl Follower {
    /// Begins to follow; what is there already is told.
    pub fn new() -> Result<Self> {
        Self::of(Hierarchy::find()?)
    }

    /// The same, of a hierarchy that was found.
    pub fn of(hierarchy: Hierarchy) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let tree = runtime.block_on(async { Tree::follow(hierarchy) })?;
        let story = |populated, path| Story { path, populated: vec![populated], gone: false };
        let stories = tree.all().into_iter().map(|found| (found.id, story(found.populated, found.path)));
        Ok(Self { stories: stories.collect(), runtime, tree })
    }

    /// Follows until what was told is as wanted.
    pub fn until(&mut self, wanted: impl Fn(&Self) -> bool) -> Result<()> {
        while !wanted(self) {
            let next = async { timeout(PATIENCE, self.tree.next()).await };
            let told = self.runtime.block_on(next).context("nothing more is told of cgroups")??;
            ensure!(!told.is_empty(), "nothing was told");
            self.write(told)?;
        }
        Ok(())
    }

    /// Looks at everything, without reading a notice before.
    pub fn rescan(&mut self) -> Result<()> {
        let told = self.tree.rescan()?;
        self.write(told)
    }

    fn write(&mut self, told: Vec<Change>) -> Result<()> {
        for change in told {
            match change {
                Change::Made(made) => {
                    let parent = made.path.rsplit_once('/').map_or("", |(parent, _)| parent);
                    let has_parent = parent.is_empty()
                        || self.stories.values().any(|story| story.path == parent && !story.gone);
                    ensure!(has_parent, "{made:?} is told before its parent");
                    let story =
                        Story { path: made.path.clone(), populated: vec![made.populated], gone: false };
                    ensure!(self.stories.insert(made.id, story).is_none(), "{made:?} is told twice");
                }
                Change::Populated { id, populated } => {
                    let story = self.living(id)?;
                    ensure!(story.populated.last() != Some(&populated), "{id} is told the same twice");
                    story.populated.push(populated);
                }
                Change::Gone { id, path } => {
                    let story = self.living(id)?;
                    story.gone = true;
                    ensure!(story.path == path, "{id} is gone from {path}, and was at {}", story.path);
                    let is_left = |other: &Story| !other.gone && other.path.starts_with(&format!("{path}/"));
                    ensure!(!self.stories.values().any(is_left), "{path} is gone before what is in it");
                }
            }
        }
        Ok(())
    }

    fn living(&mut self, id: u64) -> Result<&mut Story> {
        let story = self.stories.get_mut(&id).filter(|story| !story.gone);
        story.with_context(|| format!("{id} is not there, and something is told of it"))
    }

    /// What was told of those at a path, the oldest first.
    pub fn at(&self, path: &str) -> Vec<&Story> {
        self.stories.values().filter(|story| story.path == path).collect()
    }

    /// How many were told below a path, and how many of these to have gone.
    pub fn below(&self, path: &str) -> (usize, usize) {
        let below = self.stories.values().filter(|story| story.path.starts_with(path));
        below.fold((0, 0), |(told, gone), story| (told + 1, gone + usize::from(story.gone)))
    }
}

/// What is hidden from a thread that has a mount namespace of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hidden {
    /// `/sys`, as under `ip netns exec`.
    Sysfs,
    /// The host's first process besides.
    First,
    /// The same, in a cgroup namespace of its own.
    Host,
}

/// Runs something in such a thread.
pub fn hiding<T: Send>(hidden: Hidden, run: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let leave = || -> Result<()> {
        let of_cgroups = if hidden == Hidden::Host { UnshareFlags::NEWCGROUP } else { UnshareFlags::empty() };
        // SAFETY: no descriptors are unshared, and nothing else runs in this thread.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS | of_cgroups) }?;
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        unmount("/sys", UnmountFlags::DETACH)?;
        if hidden >= Hidden::First {
            mount("none", "/proc/1", "tmpfs", MountFlags::empty(), None)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| leave().and_then(|()| run()));
        thread.join().map_err(|_panic| anyhow::anyhow!("the thread with its own mounts has panicked"))?
    })
}

/// Takes `/proc` away from such a thread.
pub fn hide_proc() -> Result<()> {
    Ok(unmount("/proc", UnmountFlags::DETACH)?)
}

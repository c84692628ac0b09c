//! What is told of cgroups, watched: each once and in order; and threads that cgroups are hidden from.
#![expect(
    unsafe_code,
    reason = "a thread leaves the namespaces of its process, which the library leaves to the caller"
)]

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use collector_user::host::cgroups::{Change, hierarchy::Hierarchy, tree::Tree};
use rustix::{
    mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount},
    thread::UnshareFlags,
};
use tokio::{runtime::Runtime, time::timeout};

use crate::{PATIENCE, Result};

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

//! Lists the cgroups, and follows them as they come and go.
//!
//! What the kernel tells is a reason to look, not what is believed: by the time it is read, a cgroup may have gone, and
//! another may have its name. So each notice leads to a look at that name, and what is told is the difference to what was
//! told before; it does not matter how often a name is looked at. A new directory is watched first and read then: what was
//! made before the watch is read, what is made later is told.

use std::{collections::BTreeMap, io, sync::Arc};

use rustix::io::Errno;

use super::{
    Cgroup, CgroupError, Change,
    directory::{Directory, LONGEST_PATH, is_populated},
    hierarchy::Hierarchy,
    nodes::{Node, Nodes},
    watches::{Notice, Subject, Watches, Watching},
};

/// How many cgroups are known at most.
pub const MOST: usize = 65_536;

/// The cgroups of a hierarchy.
pub struct Tree {
    pub(super) hierarchy: Hierarchy,
    pub(super) nodes: Nodes,
    pub(super) watches: Watches,
    /// Notices were lost: everything has to be looked at.
    pub(super) is_torn: bool,
    pub(super) losses: Losses,
    /// How many were told to have gone whose own notice of that is still to come.
    pub(super) early: u64,
}

/// What was not told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// How often the kernel had no room for more notices (`fs.inotify.max_queued_events`). What they would have told is found
    /// out by looking at everything.
    pub overflows: u64,
    /// Cgroups that had gone before they could be looked at, and were never told; those that the kernel told of, at least.
    pub missed: u64,
    /// Cgroups that are there and are not told, since everything was looked at last: beyond [`MOST`], or at a path of more
    /// than 4,000 octets. Those in them come on top.
    pub left_out: u64,
    /// How often a cgroup could not be looked at, for another reason than that it had gone.
    pub unread: u64,
}

/// What became of the cgroup that was told at a name, if one was.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// It was told to have gone.
    Went,
    /// It is there, or none was told.
    Stays,
    /// That cannot be said.
    Unread,
}

impl Tree {
    /// Begins to follow all cgroups. Two watches each are taken of those that the user has (`fs.inotify.max_user_watches`).
    ///
    /// # Errors
    ///
    /// [`CgroupError::Instance`], [`CgroupError::Root`].
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O.
    pub fn follow(hierarchy: Hierarchy) -> Result<Self, CgroupError> {
        let mut watches = Watches::new()?;
        let root = hierarchy.id();
        let directory = watches.add(root, Subject::Directory, hierarchy.root());
        let nodes = Nodes::new(root, Watching { directory, events: None });
        let mut tree =
            Self { hierarchy, nodes, watches, is_torn: false, losses: Losses::default(), early: 0 };
        let unread = |source| CgroupError::Root { place: tree.hierarchy.place().to_string(), source };
        let opened =
            tree.open(root).map_err(unread)?.ok_or(io::ErrorKind::NotFound.into()).map_err(unread)?;
        let mut waiting = Vec::new();
        children(&opened, root, &mut waiting).map_err(unread)?;
        tree.admit(waiting, &mut Vec::new());
        Ok(tree)
    }

    /// Waits until something changes, and tells what; never nothing. Cancel safe. Where the kernel lost notices, everything
    /// is looked at, which takes some 25 us for each cgroup.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Events`]; it will come again.
    pub async fn next(&mut self) -> Result<Vec<Change>, CgroupError> {
        loop {
            let told = if self.is_torn { self.rescan()? } else { self.wait().await? };
            if !told.is_empty() {
                return Ok(told);
            }
        }
    }

    async fn wait(&mut self) -> Result<Vec<Change>, CgroupError> {
        let notices = self.watches.wait().await?;
        let mut told = Vec::new();
        self.take(notices, &mut told);
        Ok(told)
    }

    /// All cgroups that were told and not told to have gone, a parent before its children.
    pub fn all(&self) -> Vec<Cgroup> {
        let ids = self.nodes.below(self.nodes.root());
        ids.into_iter().filter_map(|id| self.get(id)).collect()
    }

    /// One of them.
    pub fn get(&self, id: u64) -> Option<Cgroup> {
        let populated = self.nodes.get(id)?.populated;
        Some(Cgroup { id, path: self.hierarchy.told(&self.nodes.path(id)?), populated })
    }

    /// Which hierarchy it is.
    pub const fn hierarchy(&self) -> &Hierarchy {
        &self.hierarchy
    }

    /// What was not told.
    pub const fn losses(&self) -> Losses {
        self.losses
    }

    /// Processes in a cgroup and in those below it, at most so many, each once; none where it has gone. What a cgroup in the
    /// threaded mode tells are threads. Processes of PID namespaces that are not below ours have no number here.
    pub fn processes(&self, id: u64, most: usize) -> Vec<u32> {
        let mut found = Vec::new();
        for id in self.nodes.below(id) {
            if found.len() >= most {
                break;
            }
            // What cannot be read, or has gone meanwhile, adds nothing.
            if let Ok(Some(directory)) = self.open(id) {
                let _unread = directory.processes(most, &mut found);
            }
        }
        found
    }

    /// Opens the directory of a known cgroup; none where it has gone, even if another has its place.
    pub(super) fn open(&self, id: u64) -> io::Result<Option<Directory>> {
        let Some(path) = self.nodes.path(id) else { return Ok(None) };
        let opened = Directory::open(self.hierarchy.root(), &path)?;
        Ok(opened.filter(|directory| directory.id == id))
    }

    /// What notices lead to.
    pub(super) fn take(&mut self, notices: Vec<Notice>, told: &mut Vec<Change>) {
        for notice in notices {
            match notice {
                Notice::Came { parent, name } => {
                    if self.settle(parent, name.into(), told) == Known::Went {
                        self.early += 1;
                    }
                }
                Notice::Left { parent, name } => {
                    let known = self.settle(parent, name.into(), told);
                    if known == Known::Stays && self.nodes.get(parent).is_some() {
                        self.left_another();
                    }
                }
                Notice::Events(id) => {
                    if let Ok(Some(directory)) = self.open(id) {
                        self.read_populated(id, &directory, told);
                    }
                }
                Notice::Unwatched(id, subject) => self.unwatched(id, subject),
                Notice::Overflow => {
                    self.losses.overflows += 1;
                    self.is_torn = true;
                }
            }
        }
    }

    /// One left that nothing is told of by its notice: it was told to have gone before, or was never told.
    const fn left_another(&mut self) {
        if self.early > 0 {
            self.early -= 1;
        } else {
            self.losses.missed += 1;
        }
    }

    /// Looks at a name in a known cgroup, and tells the difference to what was told.
    pub(super) fn settle(&mut self, parent: u64, name: Arc<[u8]>, told: &mut Vec<Change>) -> Known {
        let known = self.nodes.child(parent, &name);
        let Ok(child) = self.open_child(parent, &name) else {
            self.losses.unread += 1;
            return Known::Unread;
        };
        if child.as_ref().map(|child| child.id) == known {
            return Known::Stays;
        }
        if let Some(known) = known {
            self.forget(known, told);
        }
        if let Some(child) = child
            && self.has_room(parent, &name)
        {
            let mut waiting = Vec::new();
            self.insert(parent, name, &child, &mut waiting, told);
            self.admit(waiting, told);
        }
        if known.is_some() { Known::Went } else { Known::Stays }
    }

    fn open_child(&self, parent: u64, name: &[u8]) -> io::Result<Option<Directory>> {
        let Some(mut path) = self.nodes.path(parent) else { return Ok(None) };
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        let Some(child) = Directory::open(self.hierarchy.root(), &path)? else { return Ok(None) };
        // Another may have the parent's place.
        Ok((child.parent()? == Some(parent)).then_some(child))
    }

    /// Takes in what is new, with all that is below it.
    pub(super) fn admit(&mut self, mut waiting: Vec<(u64, Arc<[u8]>)>, told: &mut Vec<Change>) {
        while let Some((parent, name)) = waiting.pop() {
            if !self.has_room(parent, &name) {
                continue;
            }
            match self.open_child(parent, &name) {
                Ok(Some(child)) => self.insert(parent, name, &child, &mut waiting, told),
                // It has gone: who removed it is told by the parent's watch.
                Ok(None) => {}
                Err(_) => self.losses.unread += 1,
            }
        }
    }

    /// Whether one more may be known, in this place; else it is counted as left out.
    fn has_room(&mut self, parent: u64, name: &[u8]) -> bool {
        let length = self.nodes.path(parent).map_or(0, |path| path.len()) + 1 + name.len();
        let has_room = self.nodes.len() < MOST && length <= LONGEST_PATH;
        self.losses.left_out += u64::from(!has_room);
        has_room
    }

    fn insert(
        &mut self,
        parent: u64,
        name: Arc<[u8]>,
        child: &Directory,
        waiting: &mut Vec<(u64, Arc<[u8]>)>,
        told: &mut Vec<Change>,
    ) {
        let id = child.id;
        // Told in another place: directories that were moved, which only version 1 allows.
        self.forget(id, told);
        let directory = self.watches.add(id, Subject::Directory, child);
        let events = child.events().ok().flatten();
        let mut watching = Watching { directory, events: None };
        // Watched first and read then, as the directory is.
        watching.events = events.as_ref().and_then(|events| self.watches.add(id, Subject::Events, events));
        let populated = events.and_then(|events| is_populated(&events).ok().flatten()).unwrap_or(false);
        let node = Node { parent, name, children: BTreeMap::new(), populated, watching };
        if let Err(orphan) = self.nodes.insert(id, node) {
            self.watches.remove(orphan.watching);
            return;
        }
        told.extend(self.get(id).map(Change::Made));
        if children(child, id, waiting).is_err() {
            self.losses.unread += 1;
        }
    }

    /// Tells that one has gone, and all below it before.
    fn forget(&mut self, id: u64, told: &mut Vec<Change>) {
        for id in self.nodes.below(id).into_iter().rev() {
            let path = self.nodes.path(id).map(|path| self.hierarchy.told(&path)).unwrap_or_default();
            let Some(node) = self.nodes.remove(id) else { continue };
            self.watches.remove(node.watching);
            told.push(Change::Gone { id, path });
        }
    }

    /// Reads `cgroup.events` anew, and tells what has changed. The root has none.
    pub(super) fn read_populated(&mut self, id: u64, directory: &Directory, told: &mut Vec<Change>) {
        let read =
            directory.events().and_then(|events| events.map_or(Ok(None), |events| is_populated(&events)));
        match (read, self.nodes.get_mut(id)) {
            (Ok(Some(populated)), Some(node)) if node.populated != populated => {
                node.populated = populated;
                told.push(Change::Populated { id, populated });
            }
            (Err(_), _) => self.losses.unread += 1,
            _ => {}
        }
    }

    fn unwatched(&mut self, id: u64, subject: Subject) {
        let Some(node) = self.nodes.get_mut(id) else { return };
        let watch = match subject {
            Subject::Directory => node.watching.directory.take().map(|watch| (Some(watch), None)),
            Subject::Events => node.watching.events.take().map(|watch| (None, Some(watch))),
        };
        if let Some((directory, events)) = watch {
            self.watches.remove(Watching { directory, events });
        }
    }

    /// What is not as one would expect it, in words; the same words as long as it is the same.
    pub fn missing(&self) -> Vec<String> {
        let root = self.nodes.root();
        let is_watched = |id: u64, watching: Watching| {
            watching.directory.is_some() && (watching.events.is_some() || id == root)
        };
        let unwatched = self.nodes.ids().filter(|(id, node)| !is_watched(*id, node.watching)).count();
        let why = match self.watches.refused {
            Some(Errno::NOSPC) | None => {
                "too few watches are allowed: raise fs.inotify.max_user_watches to twice the number of cgroups and more".to_owned()
            }
            Some(error) => format!("the kernel refuses to watch them: {}", io::Error::from(error)),
        };
        let late = (unwatched > 0).then(|| {
            format!("what becomes of {unwatched} of {} cgroups is found late, for {why}", self.nodes.len())
        });
        let left_out = self.losses.left_out;
        let left_out = (left_out > 0).then(|| {
            format!(
                "{left_out} cgroups and those in them: at most {MOST} are known, and none whose path has more than \
                 {LONGEST_PATH} octets"
            )
        });
        let part = (!self.hierarchy.is_whole()).then(|| {
            format!("cgroups outside of {}, which is all that can be seen from here", self.hierarchy.place())
        });
        [late, left_out, part].into_iter().flatten().collect()
    }
}

/// Adds the names of what is directly in a cgroup. There may be more than are wanted: what is beyond them is counted by one.
fn children(directory: &Directory, id: u64, waiting: &mut Vec<(u64, Arc<[u8]>)>) -> io::Result<()> {
    directory.children(|name, _| {
        waiting.push((id, name.into()));
        waiting.len() <= MOST
    })
}

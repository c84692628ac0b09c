//! Looks at everything anew: what was told late, or not at all, is told now.

use std::{collections::HashSet, sync::Arc};

use super::{
    CgroupError, Change,
    directory::Directory,
    tree::Tree,
    watches::{Subject, Watching},
};

/// How often notices are read at once; beyond that many they wait for their turn.
const READS: usize = 1024;

impl Tree {
    /// Compares all that was told with what is there, and tells the difference: after the kernel lost notices, which
    /// [`next`](Self::next) does by itself, and now and then, where not everything can be watched.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Events`].
    pub fn rescan(&mut self) -> Result<Vec<Change>, CgroupError> {
        let mut told = Vec::new();
        if let Err(error) = self.drain(&mut told) {
            self.is_torn = true;
            return if told.is_empty() { Err(error) } else { Ok(told) };
        }
        self.is_torn = false;
        self.losses.left_out = 0;
        // All notices were read, or lost.
        self.early = 0;
        let mut doubtful = Vec::new();
        let mut waiting = vec![self.nodes.root()];
        while let Some(id) = waiting.pop() {
            match self.open(id) {
                Ok(Some(directory)) => self.compare(id, &directory, &mut waiting, &mut doubtful, &mut told),
                Ok(None) => {
                    doubtful.extend(self.nodes.get(id).map(|node| (node.parent, Arc::clone(&node.name))));
                }
                Err(_) => self.losses.unread += 1,
            }
        }
        // What went while this looked was told by its watch, and is to be counted as told. The rest was not.
        // An error comes again.
        self.is_torn |= self.drain(&mut told).is_err();
        for (parent, name) in doubtful {
            self.settle(parent, name, &mut told);
        }
        Ok(told)
    }

    /// Compares one cgroup: the known ones in it wait to be compared, those that seem to have gone are doubtful.
    fn compare(
        &mut self,
        id: u64,
        directory: &Directory,
        waiting: &mut Vec<u64>,
        doubtful: &mut Vec<(u64, Arc<[u8]>)>,
        told: &mut Vec<Change>,
    ) {
        self.watch_again(id, directory);
        self.read_populated(id, directory, told);
        let mut there = HashSet::new();
        let mut unknown: Vec<Arc<[u8]>> = Vec::new();
        let listed = directory.children(|name, child| {
            match self.nodes.child(id, name) {
                Some(known) if known == child => {
                    there.insert(known);
                }
                Some(_) => {}
                None => unknown.push(name.into()),
            }
            there.len() + unknown.len() <= super::tree::MOST
        });
        if listed.is_err() {
            self.losses.unread += 1;
            return;
        }
        for (name, child) in self.nodes.get(id).into_iter().flat_map(|node| &node.children) {
            if there.contains(child) {
                waiting.push(*child);
            } else {
                doubtful.push((id, Arc::clone(name)));
            }
        }
        for name in unknown {
            self.settle(id, name, told);
        }
    }

    /// Watches what could not be watched before.
    fn watch_again(&mut self, id: u64, directory: &Directory) {
        let Some(Watching { directory: watch, events }) = self.nodes.get(id).map(|node| node.watching) else {
            return;
        };
        let watch = watch.or_else(|| self.watches.add(id, Subject::Directory, directory));
        let events = events.or_else(|| {
            let events = directory.events().ok().flatten()?;
            self.watches.add(id, Subject::Events, &events)
        });
        if let Some(node) = self.nodes.get_mut(id) {
            node.watching = Watching { directory: watch, events };
        }
    }

    fn drain(&mut self, told: &mut Vec<Change>) -> Result<(), CgroupError> {
        for _ in 0..READS {
            let Some(notices) = self.watches.now()? else { break };
            self.take(notices, told);
        }
        Ok(())
    }
}

//! The cgroups that are known, by their ids and by their places.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::watches::Watching;

/// A known cgroup.
#[derive(Debug)]
pub(super) struct Node {
    /// The cgroup that it is in; its own id is the root's.
    pub parent: u64,
    /// Its name in there.
    pub name: Arc<[u8]>,
    /// Those in it.
    pub children: BTreeMap<Arc<[u8]>, u64>,
    /// What was told of it last.
    pub populated: bool,
    /// What the kernel tells of it.
    pub watching: Watching,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Nodes {
    root: u64,
    all: HashMap<u64, Node>,
}

impl Nodes {
    /// The root alone.
    pub(super) fn new(root: u64, watching: Watching) -> Self {
        let name = Arc::from([]);
        let node = Node { parent: root, name, children: BTreeMap::new(), populated: true, watching };
        Self { root, all: HashMap::from([(root, node)]) }
    }

    pub(super) const fn root(&self) -> u64 {
        self.root
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = (u64, &Node)> {
        self.all.iter().map(|(id, node)| (*id, node))
    }

    pub(super) fn get(&self, id: u64) -> Option<&Node> {
        self.all.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut Node> {
        self.all.get_mut(&id)
    }

    pub(super) fn child(&self, parent: u64, name: &[u8]) -> Option<u64> {
        self.get(parent)?.children.get(name).copied()
    }

    /// A new one in a parent that is known; else it is handed back.
    pub(super) fn insert(&mut self, id: u64, node: Node) -> Result<(), Node> {
        let Some(parent) = self.all.get_mut(&node.parent) else { return Err(node) };
        parent.children.insert(Arc::clone(&node.name), id);
        self.all.insert(id, node);
        Ok(())
    }

    /// The ids of one and of all below it, a parent before its children.
    pub(super) fn below(&self, id: u64) -> Vec<u64> {
        let mut ids = Vec::from_iter(self.all.contains_key(&id).then_some(id));
        let mut looked = 0;
        while let Some(node) = ids.get(looked).and_then(|id| self.get(*id)) {
            ids.extend(node.children.values());
            looked += 1;
        }
        ids
    }

    /// Forgets one that has no children.
    pub(super) fn remove(&mut self, id: u64) -> Option<Node> {
        let node = self.all.remove(&id)?;
        if let Some(parent) = self.all.get_mut(&node.parent)
            && parent.children.get(&node.name) == Some(&id)
        {
            parent.children.remove(&node.name);
        }
        Some(node)
    }

    /// Where one is below the root, without a slash before it; the root is at nothing.
    pub(super) fn path(&self, id: u64) -> Option<Vec<u8>> {
        let mut names: Vec<&[u8]> = Vec::new();
        let mut at = id;
        while at != self.root {
            let node = self.get(at)?;
            names.push(&node.name);
            at = node.parent;
        }
        names.reverse();
        Some(names.join(&b'/'))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Node, Nodes, Watching};

    fn node(parent: u64, name: &str) -> Node {
        Node {
            parent,
            name: name.as_bytes().into(),
            children: BTreeMap::new(),
            populated: false,
            watching: Watching::default(),
        }
    }

    #[test]
    fn places_and_ids() {
        let mut nodes = Nodes::new(1, Watching::default());
        for (id, parent, name) in [(2, 1, "a"), (3, 2, "b"), (4, 2, "c"), (5, 3, "d")] {
            nodes.insert(id, node(parent, name)).unwrap();
        }
        nodes.insert(6, node(7, "orphan")).unwrap_err();
        assert_eq!(nodes.path(5).as_deref(), Some(b"a/b/d".as_slice()));
        assert_eq!(nodes.path(1).as_deref(), Some(b"".as_slice()));
        assert_eq!(nodes.path(6), None);
        assert_eq!((nodes.child(2, b"c"), nodes.child(2, b"d"), nodes.child(9, b"c")), (Some(4), None, None));
        assert_eq!(nodes.below(2), [2, 3, 4, 5]);
        assert!(nodes.below(9).is_empty());
    }

    #[test]
    fn a_name_that_is_another_cgroups_stays_its() {
        let mut nodes = Nodes::new(1, Watching::default());
        nodes.insert(2, node(1, "a")).unwrap();
        nodes.insert(3, node(1, "a")).unwrap();
        assert!(nodes.remove(2).is_some());
        assert_eq!((nodes.child(1, b"a"), nodes.len()), (Some(3), 2));
        assert!(nodes.remove(3).is_some() && nodes.remove(3).is_none());
        assert_eq!((nodes.child(1, b"a"), nodes.root()), (None, 1));
    }
}

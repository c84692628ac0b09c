//! Whose the cgroups that are there are, once units are declared otherwise than before, or others are left out.
//!
//! What is declared goes before what is found, as at the start: a unit that was found ends where one declares its cgroup, and
//! is found again once none does. What lives in them is the other unit's from the new generation on.

use std::collections::{BTreeSet, HashSet};

use collector_ebpf::abi::pu::index;

use super::{
    Daemon,
    workloads::{Gone, Groups, Looked, News, Workloads},
};
use crate::{
    host::cgroups::Cgroup,
    kernel::error::KernelError,
    pu::{
        registry::{Kind, Unit},
        workload,
    },
};

/// What has become of cgroups and of units that were found.
#[derive(Debug, Default)]
pub(super) struct Regrouped {
    /// Units that were found and are no more, by their indexes.
    pub(super) ended: BTreeSet<u16>,
    /// What is to be told of what is found now.
    pub(super) news: Vec<News>,
    /// Cgroups that are another unit's than before.
    moved: Vec<Moved>,
}

#[derive(Clone, Copy, Debug)]
struct Moved {
    cgroup: u64,
    from: u16,
    to: u16,
}

impl Regrouped {
    /// Whether all is as it was.
    pub(super) fn is_nothing(&self) -> bool {
        self.ended.is_empty() && self.news.is_empty() && self.moved.is_empty()
    }
}

impl Daemon<'_> {
    /// Finds out whose each cgroup is by the units and what is left out now, where `before` says whose it was.
    ///
    /// # Errors
    ///
    /// [`KernelError`] where there is no room to count what is found.
    pub(super) fn regroup(&mut self, before: &Groups) -> Result<Regrouped, KernelError> {
        let mut done = Regrouped::default();
        let Some(tree) = &self.workloads.tree else {
            self.workloads.groups = before.clone();
            return Ok(done);
        };
        let cgroups = tree.all();
        self.keep(before, &mut done);
        for cgroup in &cgroups {
            let Looked { whose: known, news } = self.workload_of(cgroup)?;
            // What was nobody's before was told to be.
            let was = before.of_cgroup.get(&cgroup.id).map(|(unit, _)| *unit);
            done.news.extend(news.filter(|news| was.is_some() || matches!(news, News::Found(_))));
            if let Some((unit, root)) = known {
                self.put(cgroup, unit, root, before);
            }
            done.note(cgroup.id, was, known.map(|(unit, _)| unit));
        }
        self.regroup_gone(before, &cgroups, &mut done);
        Ok(done)
    }

    /// The same of cgroups that have gone: their sockets may live on.
    fn regroup_gone(&mut self, before: &Groups, there: &[Cgroup], done: &mut Regrouped) {
        let Workloads { gone, groups, .. } = &mut self.workloads;
        for Gone { cgroup, path, .. } in gone.iter() {
            let now = if let Some((unit, root)) = self.units.of_cgroup(path) {
                Some((unit.index, groups.of_root.get(&root).copied().unwrap_or(*cgroup)))
            } else {
                let of_living = workload::of(path).and_then(|found| {
                    let root = groups.of_root.get(&found.root)?;
                    Some((groups.alive.get(root)?.unit, *root))
                });
                // What was found and has ended by itself keeps what is left of it.
                of_living.or_else(|| {
                    let (unit, root) = *before.of_cgroup.get(cgroup)?;
                    let is_found = self.units.get(unit).is_some_and(|unit| unit.kind != Kind::Declared);
                    (is_found && !done.ended.contains(&unit)).then_some((unit, root))
                })
            };
            if let Some(now) = now {
                groups.of_cgroup.insert(*cgroup, now);
            }
            let was = before.of_cgroup.get(cgroup).map(|(unit, _)| *unit);
            done.note(*cgroup, was, now.map(|(unit, _)| unit));
        }
        // The rest is of units that have ended by themselves.
        let known = there.iter().map(|cgroup| cgroup.id).chain(gone.iter().map(|gone| gone.cgroup));
        let known: HashSet<u64> = known.collect();
        let rest = before.of_cgroup.iter().filter(|(cgroup, _)| !known.contains(cgroup));
        groups.of_cgroup.extend(rest.map(|(cgroup, whose)| (*cgroup, *whose)));
    }

    /// Keeps what is whose it was, and ends the units that were found of the rest.
    fn keep(&mut self, before: &Groups, done: &mut Regrouped) {
        for (root, alive) in &before.alive {
            if self.stays(alive.unit, &alive.root) {
                let kept = alive.without_cgroups();
                self.workloads.groups.of_root.insert(alive.root.clone(), *root);
                self.workloads.groups.alive.insert(*root, kept);
            } else if !alive.is_declared {
                self.units.end(alive.unit, crate::clock::boot());
                done.ended.insert(alive.unit);
            }
        }
    }

    /// Whether all that begins at a path is a unit's as before.
    fn stays(&self, unit: u16, root: &str) -> bool {
        if let Some((declared, path)) = self.units.of_cgroup(root) {
            return declared.index == unit && path == root;
        }
        let Some(found) = workload::of(root).filter(|found| found.root == root) else { return false };
        if self.options.is_ignored(&found.id) {
            return false;
        }
        let declared = self.units.of_id(&found.id).filter(|unit| unit.kind == Kind::Declared);
        // Found before, it is so still, unless its id is declared by now.
        let is_living = |unit: &Unit| unit.kind != Kind::Declared && unit.ended.is_none();
        declared
            .map_or_else(|| self.units.get(unit).is_some_and(is_living), |declared| declared.index == unit)
    }

    /// Puts a cgroup to its unit. Whoever runs there does so since before.
    fn put(&mut self, cgroup: &Cgroup, unit: u16, root: u64, before: &Groups) {
        let groups = &mut self.workloads.groups;
        groups.of_cgroup.insert(cgroup.id, (unit, root));
        let Some(alive) = groups.alive.get_mut(&root) else { return };
        alive.cgroups.insert(cgroup.id);
        if root == cgroup.id && alive.populated.is_none() {
            match before.alive.get(&root) {
                Some(was) => alive.runs_as(was),
                None if cgroup.populated => alive.runs_since(crate::clock::boot()),
                None => {}
            }
        }
    }

    /// Tells the programs whose those cgroups are that are another unit's; where `back` is so, whose they were: all of them then,
    /// whatever becomes of one.
    ///
    /// # Errors
    ///
    /// The first [`KernelError::Map`]; some may have been told.
    pub(super) fn tell_moved(&mut self, regrouped: &Regrouped, back: bool) -> Result<(), KernelError> {
        let mut all = Ok(());
        for Moved { cgroup, from, to } in regrouped.moved.iter().copied() {
            all = all.and(self.tell_cgroup(cgroup, if back { from } else { to }));
            if all.is_err() && !back {
                break;
            }
        }
        all
    }
}

impl Regrouped {
    /// Whoever has cgroups no more that it had.
    pub(super) fn losers(&self) -> impl Iterator<Item = u16> {
        self.moved.iter().map(|moved| moved.from).chain(self.ended.iter().copied())
    }

    fn note(&mut self, cgroup: u64, was: Option<u16>, now: Option<u16>) {
        let [from, to] = [was, now].map(|unit| unit.unwrap_or(index::HOST));
        if from != to {
            self.moved.push(Moved { cgroup, from, to });
        }
    }
}

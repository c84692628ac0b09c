//! Units that are found by themselves: the containers, services and scopes that have a cgroup on this host.
//!
//! A cgroup comes first, then its processes, then, of a container, its network namespace and the interface that leads there.
//! Each may be missed by a moment, so each step looks at what there is, not at what a message says.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use collector_ebpf::abi::pu::index;

use super::{
    Daemon, DaemonError, Options,
    alive::{Alive, Whose},
    reserved::Refused,
};
use crate::{
    config::Discover,
    error::with_causes,
    event::{ExtendedMap, reason},
    host::{
        cgroups::{Cgroup, Change, hierarchy::Hierarchy, sockets::may_lose_their_cgroup, tree::Tree},
        namespaces::{self, Namespace, Namespaces},
    },
    kernel::{error::KernelError, requirements::kernel_version},
    pu::{
        life,
        registry::{Found, Kind},
        workload::{self, Workload},
    },
};

/// The units that were found and have not ended.
pub(super) struct Workloads {
    pub(super) tree: Option<Tree>,
    pub(super) namespaces: Namespaces,
    pub(super) groups: Groups,
    /// Cgroups of units that have ended: by the unit's index, until it is forgotten.
    pub(super) over: BTreeMap<u16, BTreeSet<u64>>,
    /// Cgroups that have gone, of units that have not.
    pub(super) gone: VecDeque<Gone>,
    /// Indexes that the programs have given to cgroups which nobody has seen yet, and since when.
    pub(super) early: HashMap<u64, (u16, u64)>,
    /// A flow began at an end that nobody has named: there is somebody to be found.
    pub(super) is_called: bool,
    /// Addresses in some network namespace are others than before.
    pub(super) are_readdressed: bool,
    /// How often that was answered since the last tick.
    pub(super) answered: u8,
    /// Cgroups that the programs have met and that went before anybody saw them.
    pub(super) unseen: u64,
    /// Flows that wait for an index.
    pub(super) refused: Refused,
    /// Why the programs do not know of some cgroups.
    pub(super) are_too_many: Option<String>,
}

/// Whose cgroups are.
#[derive(Clone, Debug, Default)]
pub(super) struct Groups {
    /// By the number of the cgroup that is all of it: the first is the oldest.
    pub(super) alive: BTreeMap<u64, Alive>,
    pub(super) of_root: HashMap<String, u64>,
    /// The unit of each cgroup, and the cgroup that is all of it.
    pub(super) of_cgroup: HashMap<u64, (u16, u64)>,
}

/// A cgroup that has gone, and whose sockets may live on.
#[derive(Debug)]
pub(super) struct Gone {
    pub(super) cgroup: u64,
    /// Where it was.
    pub(super) path: String,
}

/// What a look at a cgroup came to.
#[derive(Debug, Default)]
pub(super) struct Looked {
    /// The unit that it is of, and the cgroup that is all of it.
    pub(super) whose: Option<(u16, u64)>,
    /// What is to be told of that.
    pub(super) news: Option<News>,
}

impl Looked {
    const fn of(whose: (u16, u64)) -> Self {
        Self { whose: Some(whose), news: None }
    }
}

/// What is to be told of a cgroup that was looked at.
#[derive(Debug)]
pub(super) enum News {
    /// A unit was found, which has this index.
    Found(u16),
    /// A workload is no unit, for this reason.
    NoUnit(Workload, &'static str),
}

/// What is missing where addresses in other network namespaces are not followed.
const ADDRESSES_LATE: &str = "addresses that containers get while they run, at once: that takes CAP_NET_BROADCAST; they are \
                              looked for once a minute";

/// What is missing where the processes of others have no numbers.
const PIDS_HIDDEN: &str = "the network namespaces of containers: this is another PID namespace than the host's, where their \
                           processes have no numbers; run in that of the host (docker run --pid=host)";

/// The host's cgroups, or why they cannot be seen.
pub(super) struct Cgroups {
    pub(super) tree: Option<Tree>,
    pub(super) missing: Option<String>,
}

impl Cgroups {
    /// Those that are to be looked at.
    pub(super) fn of(options: &Options) -> Self {
        if options.discover == Discover::Off {
            return Self { tree: None, missing: None };
        }
        match Hierarchy::find().and_then(Tree::follow) {
            Ok(tree) => Self { tree: Some(tree), missing: None },
            Err(error) => Self {
                tree: None,
                missing: Some(format!("containers and services by themselves: {}", with_causes(&error))),
            },
        }
    }

    /// Whether one of them is of a unit with this id.
    pub(super) fn have(&self, id: &str) -> bool {
        let cgroups = self.tree.as_ref().map(Tree::all).unwrap_or_default();
        cgroups.iter().any(|cgroup| workload::of(&cgroup.path).is_some_and(|it| it.id == id))
    }
}

impl Workloads {
    pub(super) fn new(namespaces: Namespaces) -> Self {
        Self {
            tree: None,
            namespaces,
            groups: Groups::default(),
            over: BTreeMap::new(),
            gone: VecDeque::new(),
            early: HashMap::new(),
            is_called: false,
            are_readdressed: false,
            answered: 0,
            unseen: 0,
            refused: Refused::default(),
            are_too_many: None,
        }
    }

    /// The unit that has a network namespace, by its number: the one that was found first where several share it.
    pub(super) fn in_namespace(&self, id: i32) -> Option<u16> {
        let first = self.roots_in_namespace(id).first().copied()?;
        self.groups.alive.get(&first).map(|alive| alive.unit)
    }

    /// The cgroups of those that are in it, that which has it first. A service or a login may have a process in a container's
    /// namespace, which is the container's.
    pub(super) fn roots_in_namespace(&self, id: i32) -> Vec<u64> {
        let there = self.groups.alive.iter().filter(|(_, alive)| alive.namespace == Namespace::Numbered(id));
        let (containers, others): (Vec<_>, Vec<_>) =
            there.partition(|(_, alive)| alive.kind == Kind::Container);
        containers.into_iter().chain(others).map(|(root, _)| *root).collect()
    }

    /// Whether a unit has something of which the network namespace is not known.
    pub(super) fn is_unasked(&self, unit: u16) -> bool {
        let mut of_unit = self.groups.alive.values().filter(|alive| alive.unit == unit);
        of_unit.any(|alive| alive.namespace == Namespace::Unknown)
    }

    /// Whether every cgroup of the host is seen that lives for long enough.
    pub(super) fn sees_all(&self) -> bool {
        self.tree.as_ref().is_some_and(|tree| tree.hierarchy().is_whole())
    }

    /// Cgroups that the programs have met and nobody has seen.
    pub(super) fn unseen(&self) -> u64 {
        self.unseen + if self.sees_all() { self.early.len() as u64 } else { 0 }
    }

    /// Whether a cgroup is there that was seen.
    pub(super) fn knows(&self, cgroup: u64) -> bool {
        self.tree.as_ref().is_some_and(|tree| tree.get(cgroup).is_some())
    }

    /// The paths of the cgroups that there are of units, by the units' indexes.
    pub(super) fn roots(&self) -> BTreeMap<u16, Vec<String>> {
        let mut roots: BTreeMap<u16, Vec<String>> = BTreeMap::new();
        for alive in self.groups.alive.values() {
            roots.entry(alive.unit).or_default().push(alive.root.clone());
        }
        roots
    }

    /// Whether there is one whose network namespace is not known.
    pub(super) fn is_open(&self) -> bool {
        self.groups.alive.values().any(Alive::is_open)
    }

    /// Changes of cgroups, none where it was something else that changed; for ever pending where none are followed.
    pub(super) async fn next(&mut self) -> Vec<Change> {
        let Some(tree) = &mut self.tree else { return std::future::pending().await };
        let told = tokio::select! {
            // Who has ended is heard of before the number of its namespace is looked up, which may be another's by then.
            biased;
            told = tree.next() => told,
            () = self.namespaces.changed() => {
                self.are_readdressed = true;
                return Vec::new();
            }
        };
        match told {
            Ok(changes) => changes,
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "cgroups are not followed any more: containers and services that come from now on are not found. \
                     Start the collector anew"
                );
                self.tree = None;
                Vec::new()
            }
        }
    }
}

impl Daemon<'_> {
    /// Takes in what cgroups there are, and follows them from here on; what is missing, in sentences.
    pub(super) fn begin_workloads(&mut self, tree: Option<Tree>) -> Result<Vec<String>, DaemonError> {
        let mut missing = Vec::new();
        if let Some(tree) = tree {
            missing.extend((!self.workloads.namespaces.are_followed()).then(|| ADDRESSES_LATE.to_owned()));
            missing.extend(may_lose_their_cgroup(kernel_version()));
            missing.extend((!namespaces::is_first_of_pids()).then(|| PIDS_HIDDEN.to_owned()));
            let cgroups = tree.all();
            self.workloads.tree = Some(tree);
            self.tell_declared(cgroups.iter().map(|cgroup| cgroup.path.as_str()));
            for cgroup in &cgroups {
                self.cgroup_made(cgroup)?;
            }
        }
        let of_what_comes = self.cgroups.as_ref().and_then(|cgroups| cgroups.missing.as_ref());
        missing.extend(self.without_cgroups.as_ref().map(|error| with_causes(error)));
        missing.extend(of_what_comes.map(|error| with_causes(error)));
        self.refill_units()?;
        Ok(missing)
    }

    /// Does what changes of cgroups ask for.
    pub(super) async fn follow_cgroups(&mut self, changes: Vec<Change>) -> Result<(), DaemonError> {
        if changes.is_empty() {
            // It was something else: the next tick sees to it.
            return Ok(());
        }
        self.book_cgroups(changes)?;
        self.refill_units()?;
        if self.watched.ends.are_open(&self.units) {
            self.answer_call(Whose::New).await;
        }
        self.start_workloads().await;
        Ok(())
    }

    /// Takes in what has changed.
    pub(super) fn book_cgroups(&mut self, changes: Vec<Change>) -> Result<(), DaemonError> {
        let made = changes.iter().filter_map(|change| match change {
            Change::Made(cgroup) => Some(cgroup.id),
            _ => None,
        });
        // Whom the programs have met before is found by the index that they have given.
        self.refill_units_before(&made.collect())?;
        for change in changes {
            match change {
                Change::Made(cgroup) => self.cgroup_made(&cgroup)?,
                Change::Populated { id, populated } => self.cgroup_populated(id, populated),
                Change::Gone { id, path } => self.cgroup_gone(id, path),
            }
        }
        Ok(())
    }

    /// Looks at all cgroups, where some can be watched by no message.
    pub(super) async fn rescan_cgroups(&mut self) -> Result<(), DaemonError> {
        let Some(tree) = self.workloads.tree.as_mut().filter(|tree| !tree.missing().is_empty()) else {
            return Ok(());
        };
        match tree.rescan() {
            Ok(changes) => self.follow_cgroups(changes).await,
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "cgroups are not looked at");
                Ok(())
            }
        }
    }

    fn cgroup_made(&mut self, cgroup: &Cgroup) -> Result<(), DaemonError> {
        let Looked { whose: known, news } = self.workload_of(cgroup)?;
        if let Some(news) = news {
            self.tell_found(&news)?;
        }
        let unit = known.map_or(index::HOST, |(unit, _)| unit);
        if let Some((early, _)) = self.workloads.early.remove(&cgroup.id) {
            self.join(early, unit)?;
        }
        self.tell_programs(cgroup.id, unit);
        if let Some((_, root)) = known {
            self.workloads.groups.of_cgroup.insert(cgroup.id, (unit, root));
            if let Some(alive) = self.workloads.groups.alive.get_mut(&root) {
                alive.cgroups.insert(cgroup.id);
            }
            if cgroup.populated {
                self.cgroup_populated(cgroup.id, true);
            }
        }
        Ok(())
    }

    /// The unit that a cgroup is of, and the cgroup that is all of it, with what is to be told of that. It is made where it was
    /// not there yet; none where it is not to be, or there is no index left.
    pub(super) fn workload_of(&mut self, cgroup: &Cgroup) -> Result<Looked, KernelError> {
        if let Some((unit, root)) = self.units.of_cgroup(&cgroup.path).map(|(unit, root)| (unit.index, root))
        {
            let kind = workload::of(&cgroup.path).map_or(Kind::Declared, |found| kind(found.kind));
            return Ok(Looked::of(self.begin(cgroup, unit, root, kind)));
        }
        let Some(found) = workload::of(&cgroup.path) else { return Ok(Looked::default()) };
        if let Some(root) = self.workloads.groups.of_root.get(&found.root).copied() {
            let whose = self.workloads.groups.alive.get(&root).map(|alive| (alive.unit, root));
            return Ok(Looked { whose, news: None });
        }
        // Told at its own cgroup.
        let no_unit = |found: Workload, event| {
            let news = (found.root == cgroup.path).then_some(News::NoUnit(found, event));
            Ok(Looked { whose: None, news })
        };
        if self.options.is_ignored(&found.id) {
            return no_unit(found, reason::CONTAINER_IGNORED);
        }
        let kind = kind(found.kind);
        let index = match self.units.of_id(&found.id) {
            // It is declared, and lives as that.
            Some(unit) if unit.kind == Kind::Declared => Some(unit.index),
            taken => {
                // Two engines may have containers of one name.
                let id = if taken.is_some() { &found.root } else { &found.id };
                let found = Found { id: id.clone(), kind, tags: found.tags.clone() };
                let now = crate::clock::boot();
                // So that what it has sent so far, and goes on to send, has its mark.
                let early = self.workloads.early.get(&cgroup.id).map(|(index, _)| *index);
                let early = early.and_then(|index| self.units.add_early(&found, index, now));
                early.or_else(|| self.units.add(&found, now))
            }
        };
        let Some(index) = index else { return no_unit(found, reason::CONTAINER_FAILED) };
        self.counters.ensure(index)?;
        let begun = self.begin(cgroup, index, found.root, kind);
        let is_declared = self.units.get(index).is_none_or(|unit| unit.kind == Kind::Declared);
        Ok(Looked { whose: Some(begun), news: (!is_declared).then_some(News::Found(index)) })
    }

    /// Tells of what was found.
    pub(super) fn tell_found(&mut self, news: &News) -> Result<(), DaemonError> {
        match news {
            News::Found(index) => {
                let created = self.units.get(*index).map(|unit| self.lives.create(unit));
                self.tell_lives(created.as_slice());
                self.trace_again(*index)
            }
            News::NoUnit(found, event) => {
                let told = life::of_no_unit(&found.id, &found.tags, ExtendedMap::default(), event);
                self.tell_lives(&[told]);
                Ok(())
            }
        }
    }

    /// A workload is there whose cgroups begin at the path `root`, of which `cgroup` is the first that was seen.
    fn begin(&mut self, cgroup: &Cgroup, unit: u16, root: String, kind: Kind) -> (u16, u64) {
        let is_declared = self.units.get(unit).is_some_and(|unit| unit.kind == Kind::Declared);
        let id = *self.workloads.groups.of_root.entry(root.clone()).or_insert(cgroup.id);
        self.workloads.groups.alive.entry(id).or_insert_with(|| Alive::new(unit, is_declared, kind, root));
        (unit, id)
    }

    fn cgroup_populated(&mut self, id: u64, populated: bool) {
        let now = crate::clock::boot();
        let Some(alive) = self.workloads.groups.alive.get_mut(&id) else { return };
        let before = alive.populated;
        alive.populated = populated.then(|| before.unwrap_or(now));
        alive.has_run |= populated;
        if before.is_none() {
            alive.is_new_again();
        }
        if before.is_some() && !populated {
            alive.namespace = Namespace::Unknown;
            let unit = self.units.get(alive.unit).filter(|_| !alive.is_declared);
            let stopped = unit.map(|unit| self.lives.stop(unit)).unwrap_or_default();
            self.tell_lives(&stopped);
        }
    }

    fn cgroup_gone(&mut self, id: u64, path: String) {
        let Some((_, root)) = self.workloads.groups.of_cgroup.get(&id).copied() else {
            // Its sockets go on being the host's.
            return self.forget_later(id, path);
        };
        if root != id {
            // Its sockets may live on for a while.
            if let Some(alive) = self.workloads.groups.alive.get_mut(&root) {
                alive.cgroups.remove(&id);
            }
            return self.forget_later(id, path);
        }
        self.cgroup_populated(id, false);
        let Some(alive) = self.workloads.groups.alive.remove(&id) else { return };
        self.workloads.groups.of_root.remove(&alive.root);
        if alive.is_declared {
            // The unit stays.
            return alive.cgroups.into_iter().for_each(|cgroup| self.forget_later(cgroup, path.clone()));
        }
        if alive.kind == Kind::Container && alive.populated.is_none() && !alive.has_run {
            // A container that lives for a moment may have gone before it was seen to run.
            let stopped = self.units.get(alive.unit).map(|unit| self.lives.stop(unit)).unwrap_or_default();
            self.tell_lives(&stopped);
        }
        let Workloads { gone, groups, over, .. } = &mut self.workloads;
        let mut cgroups = alive.cgroups;
        gone.retain(|Gone { cgroup, .. }| {
            let is_its = groups.of_cgroup.get(cgroup).is_some_and(|(_, root)| *root == id);
            if is_its {
                cgroups.insert(*cgroup);
            }
            !is_its
        });
        over.insert(alive.unit, cgroups);
        let deleted = self.units.get(alive.unit).map(|unit| self.lives.delete(unit)).unwrap_or_default();
        self.tell_lives(&deleted);
        self.units.end(alive.unit, crate::clock::boot());
    }
}

const fn kind(kind: workload::Kind) -> Kind {
    match kind {
        workload::Kind::Container => Kind::Container,
        workload::Kind::Service => Kind::Service,
        workload::Kind::Scope => Kind::Scope,
    }
}

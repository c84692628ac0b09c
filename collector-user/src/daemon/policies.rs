//! Which policies hold for what the programs count by, as units are found and forgotten, and as policies are loaded.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use collector_ebpf::abi::{
    policy::UnitPolicy,
    pu::{index, role},
};

use super::{Daemon, DaemonError, Options};
use crate::{
    error::with_causes,
    host::ssh,
    kernel::{error::KernelError, policies::Entries},
    policy::{
        explosion::Explosion,
        lockout::{self, Connection, Enforcement, LockOut},
        rule::{Policy, Subject},
        sets::{Set, Sets},
    },
    pu::{port, registry::Registry, workload},
};

/// Of what SSH goes by.
const IPPROTO_TCP: u8 = 6;

/// The policies, and what the programs were told of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Policies {
    pub(super) sets: Sets,
    /// What each index has that the programs may count by, where it is not all zero.
    told: BTreeMap<u16, UnitPolicy>,
    /// Sets that were made, or that nobody has any more, since orders were given.
    new: BTreeMap<u32, Arc<Set>>,
    old: BTreeMap<u32, Arc<Set>>,
    /// Units for which there was no room, until policies are loaded anew.
    without: BTreeSet<u16>,
    /// Why.
    are_too_many: Option<Explosion>,
    /// Sets that nobody has any more, and that a program may still look at.
    retired: Vec<Arc<Set>>,
    /// From when on the first packet of a flow is believed to be its first, on the boot clock in nanoseconds.
    known_from: u64,
    /// What they reject is dropped.
    is_enforced: bool,
    /// The kernel has refused what it was told last, and that was said.
    is_refused: bool,
}

/// What the programs are to be told, in this order: sets to be written, what indexes have, and then, once no program runs that
/// began before, sets to be removed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Orders {
    pub(super) new: Vec<Arc<Set>>,
    pub(super) entries: Vec<(u16, UnitPolicy)>,
    pub(super) old: Vec<Arc<Set>>,
}

impl Orders {
    /// There is nothing to be told.
    pub(super) const fn is_empty(&self) -> bool {
        self.new.is_empty() && self.entries.is_empty() && self.old.is_empty()
    }
}

impl Policies {
    /// Takes other policies than before.
    ///
    /// # Errors
    ///
    /// [`Explosion`]; those from before hold.
    pub(super) fn load(
        &mut self,
        policies: &[Policy],
        is_enforced: bool,
        units: &Registry,
        now: u64,
    ) -> Result<(), Explosion> {
        // All at once: units that have no room one by one go without.
        self.know(units, now);
        let change = self.sets.load(policies, is_enforced, now)?;
        self.is_enforced = is_enforced;
        self.note(change.new, change.old);
        self.without.clear();
        self.are_too_many = None;
        Ok(())
    }

    /// Brings what holds to the units that there are, and says what the programs are to be told.
    ///
    /// An index that stands for a unit, because nobody knows yet whose it is or because it turned out to be the unit's,
    /// has the unit's policies: a cgroup that is new is the host's until it has a name.
    pub(super) fn follow(&mut self, units: &Registry, now: u64) -> Orders {
        if self.are_idle() {
            return Orders::default();
        }
        self.know(units, now);
        let mut told = BTreeMap::new();
        for counted in units.indexes() {
            let Some(unit) = units.get(counted) else { continue };
            let policy = self.sets.of(unit.index);
            if policy != UnitPolicy::default() {
                told.insert(counted, policy);
            }
        }
        let changed = |(index, policy): (&u16, &UnitPolicy)| {
            (self.told.get(index) != Some(policy)).then_some((*index, *policy))
        };
        let mut entries: Vec<_> = told.iter().filter_map(changed).collect();
        let gone = self.told.keys().filter(|index| !told.contains_key(index));
        entries.extend(gone.map(|index| (*index, UnitPolicy::default())));
        self.told = told;
        let take = |sets: &mut BTreeMap<u32, Arc<Set>>| std::mem::take(sets).into_values().collect();
        Orders { new: take(&mut self.new), entries, old: take(&mut self.old) }
    }

    /// There are none, and the programs know of none.
    fn are_idle(&self) -> bool {
        self.sets.is_idle() && self.told.is_empty() && self.old.is_empty()
    }

    /// Takes in units that are new, and forgets those that are forgotten.
    fn know(&mut self, units: &Registry, now: u64) {
        let known: BTreeSet<u16> = self.sets.units().map(|(unit, _)| unit.index).collect();
        let there: BTreeSet<u16> = units.iter().map(|unit| unit.index).collect();
        for unit in known.difference(&there) {
            let change = self.sets.remove(*unit, now);
            self.note(change.new, change.old);
        }
        self.without.retain(|unit| there.contains(unit));
        // An index may be another unit's by now, or the unit may be declared otherwise.
        let is_other = |unit: &Subject| !self.sets.knows(unit);
        let others: Vec<Subject> = units.iter().map(Subject::from).filter(is_other).collect();
        for unit in others {
            let index = unit.index;
            let change = self.sets.remove(index, now);
            self.note(change.new, change.old);
            match self.sets.put(unit, now) {
                Ok(change) => self.note(change.new, change.old),
                Err(explosion) => {
                    self.without.insert(index);
                    self.are_too_many = Some(explosion);
                }
            }
        }
    }

    /// Why some units have no policies, in a sentence.
    pub(super) fn beyond_room(&self) -> Option<String> {
        let explosion = self.are_too_many.as_ref().filter(|_| !self.without.is_empty())?;
        let count = self.without.len();
        Some(format!(
            "policies of {count} processing units, which may do everything: {}",
            with_causes(explosion)
        ))
    }

    /// What comes and goes between two orders is never told.
    fn note(&mut self, new: Vec<Arc<Set>>, old: Vec<Arc<Set>>) {
        self.new.extend(new.into_iter().map(|set| (set.number, set)));
        for set in old {
            if self.new.remove(&set.number).is_some() {
                self.sets.removed(set.number);
            } else {
                self.old.insert(set.number, set);
            }
        }
    }
}

impl Daemon<'_> {
    /// Takes the policies that the options say, unless that would cut off whoever says it; what cannot be had is returned in
    /// words. From here on the programs look at every packet.
    pub(super) fn begin_policies(&mut self) -> Result<Vec<String>, DaemonError> {
        let Options { policies, enforcement, guess_time, .. } = self.options.clone();
        self.policies.known_from = crate::clock::boot().saturating_add(super::moment::nanos(guess_time));
        let mut missing: Vec<_> = self.load_policies(&policies, enforcement)?.into_iter().collect();
        missing.extend(self.policies.beyond_room());
        Ok(missing)
    }

    /// Has policies hold in the place of those from before, and says in a sentence what cannot be known of them. Where this
    /// fails, those from before hold.
    pub(super) fn load_policies(
        &mut self,
        policies: &[Policy],
        enforcement: Enforcement,
    ) -> Result<Option<String>, DaemonError> {
        let unknown = self.check_lockout(policies, enforcement)?;
        let is_enforced = enforcement != Enforcement::Off;
        let before = self.policies.clone();
        let now = crate::clock::boot();
        let done = self.policies.load(policies, is_enforced, &self.units, now).map_err(DaemonError::from);
        let done = done.and_then(|()| {
            let orders = self.policies.follow(&self.units, now);
            Ok(self.obey(orders)?)
        });
        if done.is_err() {
            self.policies = before;
        }
        done.map(|()| unknown)
    }

    /// Refuses policies that would cut off who is logged in, if that is asked for; a sentence where that cannot be known.
    pub(super) fn check_lockout(
        &self,
        policies: &[Policy],
        enforcement: Enforcement,
    ) -> Result<Option<String>, DaemonError> {
        let is_asked = enforcement == Enforcement::On && !policies.is_empty();
        Ok(if is_asked { self.would_cut_off(policies)? } else { None })
    }

    /// Whether policies, once enforced, would cut off who is logged in; a sentence where that cannot be known.
    pub(super) fn would_cut_off(&self, policies: &[Policy]) -> Result<Option<String>, LockOut> {
        let sessions = match ssh::sessions() {
            Ok(sessions) => sessions,
            Err(error) => {
                return Ok(Some(format!(
                    "whether the policies cut off somebody who is logged in by SSH: {}",
                    with_causes(&error)
                )));
            }
        };
        let connection = |session: &ssh::Session| Connection {
            local: session.local,
            remote: session.remote,
            units: self.units_of(session),
        };
        let connections: Vec<Connection> = sessions.iter().map(connection).collect();
        lockout::check(policies, &connections).map(|()| None)
    }

    /// The units whose policies a session may be subject to: that of its address, that of its port, those of uplinks that are a
    /// unit's alone, that of the server's cgroup, or else the host.
    fn units_of(&self, session: &ssh::Session) -> Vec<Subject> {
        let mut indexes: BTreeSet<u16> =
            self.units.of_address(session.local.ip()).map(|unit| unit.index).into_iter().collect();
        let roles = self.watched.interfaces.values().filter_map(|interface| interface.role.as_ref());
        let own = roles.filter(|it| it.flags & role::OWN != 0 && it.flags & role::FAR == 0);
        indexes.extend(own.map(|it| it.pu));
        indexes.extend(port::owners(&self.units).get(&(IPPROTO_TCP, session.local.port())).copied());
        let by_cgroup = session.cgroups.iter().filter_map(|path| {
            let declared = self.units.of_cgroup(path).map(|(unit, _)| unit.index);
            declared.or_else(|| {
                let root = self.workloads.of_root.get(&workload::of(path)?.root)?;
                self.workloads.alive.get(root).map(|alive| alive.unit)
            })
        });
        let by_cgroup: BTreeSet<u16> = by_cgroup.collect();
        if by_cgroup.is_empty() {
            indexes.insert(index::HOST);
        }
        indexes.extend(by_cgroup);
        indexes.into_iter().filter_map(|index| self.units.get(index)).map(Subject::from).collect()
    }

    /// Tells the programs what has changed for the units that there are; what the kernel refuses is tried again.
    pub(super) fn follow_policies(&mut self) {
        if self.policies.are_idle() {
            return;
        }
        let before = self.policies.clone();
        let orders = self.policies.follow(&self.units, crate::clock::boot());
        if orders.is_empty() {
            return;
        }
        match self.obey(orders) {
            Ok(()) => self.policies.is_refused = false,
            Err(error) => {
                if !before.is_refused {
                    tracing::error!(
                        "units have the policies that they had before, and new ones have none: {}",
                        with_causes(&error)
                    );
                }
                self.policies = before;
                self.policies.is_refused = true;
            }
        }
    }

    /// Tells the programs: all of it, or nothing.
    fn obey(&mut self, orders: Orders) -> Result<(), KernelError> {
        let Orders { new, entries, old } = orders;
        tracing::debug!(sets = new.len(), units = entries.len(), removed = old.len(), "policies");
        for (at, set) in new.iter().enumerate() {
            if let Err(error) = self.controller.policies().write(&written(set)) {
                for set in new.iter().take(at) {
                    // What fails here takes room under a number that comes again with other entries at most.
                    let _ = self.controller.policies().remove(&written(set));
                }
                return Err(error);
            }
        }
        for (index, policy) in entries {
            self.controller.policies().give(index, policy)?;
        }
        if self.policies.told.is_empty() {
            self.controller.lift_policies();
        } else {
            self.controller.hold_policies(self.policies.known_from);
            self.controller.enforce_policies(self.policies.is_enforced);
        }
        self.policies.retired.extend(old);
        Ok(())
    }

    /// Removes sets that nobody has any more: no program runs any more that has seen what was retired.
    pub(super) fn remove_retired(&mut self) {
        for set in std::mem::take(&mut self.policies.retired) {
            match self.controller.policies().remove(&written(&set)) {
                Ok(()) => self.policies.sets.removed(set.number),
                // Its room is not counted on again.
                Err(error) => tracing::warn!("a set of policies is not removed: {}", with_causes(&error)),
            }
        }
    }

    /// Forgets verdicts that no set has, nor any flow that is remembered, and of which nothing was heard since `before`.
    pub(super) fn forget_verdicts(&mut self, before: u64) {
        let now = crate::clock::boot();
        for number in self.flows.verdicts() {
            self.policies.sets.verdicts.is_heard_of(number, now);
        }
        self.policies.sets.verdicts.forget(before);
    }
}

/// A set as the programs have it.
fn written(set: &Set) -> Entries {
    Entries {
        remotes: set.remotes().collect(),
        services: set.services().collect(),
        verdicts: set.verdicts().collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use collector_ebpf::abi::{policy::UnitPolicy, pu::index};

    use super::{Orders, Policies};
    use crate::{
        policy::{
            rule::{Action, Observe, Policy, Remote, Rule, Selector, Service},
            sets::Set,
        },
        pu::{
            registry::{Declared, Found, Kind, Registry},
            trace::Directions,
        },
    };

    fn policy(id: &str, unit: &str) -> Policy {
        Policy {
            selector: Selector { units: vec![unit.parse().unwrap()], ..Selector::default() },
            directions: Directions::In,
            rule: Arc::new(Rule {
                id: id.into(),
                remote: Remote::default(),
                service: Service { protocol: Some(6), ports: Vec::new() },
                action: Action::Reject,
                log: false,
                observe: Observe::None,
            }),
        }
    }

    fn registry() -> Registry {
        let web = Declared { id: "web".into(), ..Declared::default() };
        Registry::new(&[web]).unwrap()
    }

    fn numbers(sets: &[Arc<Set>]) -> Vec<u32> {
        sets.iter().map(|set| set.number).collect()
    }

    fn having(orders: &Orders) -> Vec<(u16, u32)> {
        orders.entries.iter().map(|(index, policy)| (*index, policy.sets[0])).collect()
    }

    #[test]
    fn an_index_has_what_the_unit_has_that_it_stands_for() {
        let mut units = registry();
        let mut policies = Policies::default();
        policies.load(&[policy("host", "host"), policy("containers", "c*")], true, &units, 0).unwrap();
        let orders = policies.follow(&units, 1);
        assert_eq!((numbers(&orders.new), having(&orders)), (vec![1], vec![(index::HOST, 1)]));
        let reserved = units.reserve(index::HOST).unwrap();
        let orders = policies.follow(&units, 2);
        assert_eq!((numbers(&orders.new), having(&orders)), (vec![], vec![(reserved, 1)]));
        let found = Found { id: "c1".into(), kind: Kind::Container, tags: vec![] };
        let unit = units.add(&found, 3).unwrap();
        units.join(reserved, unit);
        let orders = policies.follow(&units, 3);
        assert_eq!((numbers(&orders.new), having(&orders)), (vec![2], vec![(reserved, 2), (unit, 2)]));
        assert!(policies.follow(&units, 4).is_empty());
        units.end(unit, 5);
        assert!(policies.follow(&units, 5).is_empty(), "what is late is judged all the same");
        units.forget(100);
        let orders = policies.follow(&units, 100);
        assert_eq!(
            (orders.entries, numbers(&orders.old)),
            (vec![(reserved, UnitPolicy::default()), (unit, UnitPolicy::default())], vec![2])
        );
    }

    #[test]
    fn a_reload_reaches_every_index_and_what_was_never_told_is_not_taken_back() {
        let mut units = registry();
        let reserved = units.reserve(index::HOST).unwrap();
        let mut policies = Policies::default();
        policies.follow(&units, 0);
        policies.load(&[policy("a", "host")], true, &units, 1).unwrap();
        policies.load(&[policy("b", "host")], true, &units, 2).unwrap();
        let orders = policies.follow(&units, 3);
        assert_eq!(
            (numbers(&orders.new), having(&orders), numbers(&orders.old)),
            (vec![2], vec![(index::HOST, 2), (reserved, 2)], vec![])
        );
        policies.load(&[policy("b", "host")], false, &units, 4).unwrap();
        let orders = policies.follow(&units, 5);
        assert_eq!(
            (numbers(&orders.new), having(&orders), numbers(&orders.old)),
            (vec![3], vec![(index::HOST, 3), (reserved, 3)], vec![2])
        );
        policies.load(&[], false, &units, 6).unwrap();
        let orders = policies.follow(&units, 7);
        assert_eq!((having(&orders), numbers(&orders.old)), (vec![(index::HOST, 0), (reserved, 0)], vec![3]));
    }

    #[test]
    fn who_has_no_room_has_no_policy_and_that_is_said_until_the_next_load() {
        let mut units = registry();
        let mut policies = Policies::default();
        let cidr = (0..200_000_u32).map(|at| std::net::IpAddr::V4((at * 2).into()).into());
        let wide = |id: &str, unit: &str| {
            let mut wide = policy(id, unit);
            let rule = Arc::make_mut(&mut wide.rule);
            rule.remote.cidr = cidr.clone().collect();
            wide
        };
        policies.load(&[wide("a", "web"), wide("b", "c1")], true, &units, 0).unwrap();
        assert_eq!(policies.follow(&units, 1).entries.len(), 1);
        let found = Found { id: "c1".into(), kind: Kind::Container, tags: vec![] };
        units.add(&found, 2).unwrap();
        assert!(policies.follow(&units, 2).is_empty() && policies.follow(&units, 3).is_empty());
        let said = policies.beyond_room().unwrap();
        assert!(
            said.starts_with("policies of 1 processing units, which may do everything: the policies make"),
            "{said}"
        );
        let both = [wide("a", "web"), wide("b", "c1")];
        assert!(policies.load(&both, true, &units, 4).is_err(), "at once they are refused");
        assert!(policies.follow(&units, 4).is_empty());
        policies.load(&[wide("a", "web"), policy("b", "c1")], true, &units, 4).unwrap();
        assert_eq!(policies.follow(&units, 5).entries.len(), 1);
        assert_eq!(policies.beyond_room(), None);
    }
}

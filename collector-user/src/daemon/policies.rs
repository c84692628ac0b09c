//! Which policies hold for what the programs count by, as units are found and forgotten, and as policies are loaded.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use collector_ebpf::abi::{
    policy::{INCOMING, UnitPolicy, WHOEVER},
    pu::index,
};

use super::{Daemon, DaemonError, Options};
use crate::{
    error::with_causes,
    kernel::{error::KernelError, policies::Entries},
    policy::{
        explosion::Explosion,
        lockout::{Enforcement, LockOut},
        rule::{Policy, Subject},
        sets::{Set, Sets},
    },
    pu::registry::{Kind, Registry, Unit},
};

/// Why policies do not hold.
#[derive(Debug, thiserror::Error)]
pub(super) enum PolicyError {
    /// They are too many.
    #[error(transparent)]
    TooMany(#[from] Explosion),
    /// They would cut off who is logged in.
    #[error(transparent)]
    LockOut(#[from] LockOut),
    /// The kernel refuses them.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

impl From<PolicyError> for DaemonError {
    fn from(error: PolicyError) -> Self {
        match error {
            PolicyError::TooMany(explosion) => Self::Policies(explosion),
            PolicyError::LockOut(lockout) => Self::LockOut(lockout),
            PolicyError::Kernel(error) => Self::Kernel(error),
        }
    }
}

/// The policies, and what the programs were told of them. A clone is kept at each drain for the case that the kernel refuses
/// what comes then: it shares what does not change.
#[derive(Clone, Debug, Default)]
pub(super) struct Policies {
    pub(super) sets: Arc<Sets>,
    /// What each index has that the programs may count by, where it is not all zero.
    told: Arc<BTreeMap<u16, UnitPolicy>>,
    /// What [`WHOEVER`] has.
    whoever: UnitPolicy,
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
    /// What [`WHOEVER`] has from now on.
    pub(super) whoever: Option<UnitPolicy>,
    pub(super) old: Vec<Arc<Set>>,
}

impl Orders {
    /// There is nothing to be told.
    pub(super) const fn is_empty(&self) -> bool {
        self.new.is_empty() && self.entries.is_empty() && self.whoever.is_none() && self.old.is_empty()
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
        let change = Arc::make_mut(&mut self.sets).load(policies, is_enforced, now)?;
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
        if *self.told != told {
            self.told = Arc::new(told);
        }
        let whoever = self.of_whoever(units);
        let is_other = whoever != self.whoever;
        self.whoever = whoever;
        let whoever = is_other.then_some(whoever);
        let take = |sets: &mut BTreeMap<u32, Arc<Set>>| std::mem::take(sets).into_values().collect();
        Orders { new: take(&mut self.new), entries, whoever, old: take(&mut self.old) }
    }

    /// Makes it as it was `before`, and says what the programs are to be told for that. What was told since then has not been
    /// followed by a drain, so that the sets of before are still there.
    pub(super) fn put_back(&mut self, before: Self, now: u64) -> Orders {
        let since = std::mem::replace(self, before);
        let sets = std::mem::replace(&mut self.sets, since.sets);
        let old = Arc::make_mut(&mut self.sets).put_back(Arc::unwrap_or_clone(sets), now);
        let gone = since.told.keys().filter(|index| !self.told.contains_key(index));
        let gone = gone.map(|index| (*index, UnitPolicy::default()));
        let others = self.told.iter().filter(|(index, policy)| since.told.get(index) != Some(policy));
        let entries = others.map(|(index, policy)| (*index, *policy)).chain(gone).collect();
        let whoever = (self.whoever != since.whoever).then_some(self.whoever);
        Orders { new: Vec::new(), entries, whoever, old }
    }

    /// What holds for packets that come for this host and show no ports: what the host has, or where that lets all of them pass,
    /// the first unit that may have sockets here and does not.
    fn of_whoever(&self, units: &Registry) -> UnitPolicy {
        let has_sockets = |unit: &&Unit| match unit.kind {
            Kind::Service | Kind::Scope => true,
            // On the host's network.
            Kind::Container => unit.addresses.is_empty() && unit.ended.is_none(),
            Kind::Declared => !(unit.cgroups.is_empty() && unit.ports.is_empty() && unit.users.is_empty()),
            Kind::Fixed => false,
        };
        let host = units.get(index::HOST).into_iter();
        let of_each = host.chain(units.iter().filter(has_sockets)).map(|unit| self.sets.of(unit.index));
        let rejects = |policy: &UnitPolicy| {
            let [incoming, _] = policy.sets;
            self.sets.get(incoming).is_some_and(|set| set.may_reject_unread())
        };
        let mut whoever = UnitPolicy::default();
        if let Some(policy) = of_each.into_iter().find(rejects) {
            whoever.sets[INCOMING] = policy.sets[INCOMING];
            whoever.otherwise[INCOMING] = policy.otherwise[INCOMING];
        }
        whoever
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
            let change = Arc::make_mut(&mut self.sets).remove(*unit, now);
            self.note(change.new, change.old);
        }
        self.without.retain(|unit| there.contains(unit));
        // An index may be another unit's by now, or the unit may be declared otherwise.
        let is_other = |unit: &Subject| !self.sets.knows(unit);
        let others: Vec<Subject> = units.iter().map(Subject::from).filter(is_other).collect();
        for unit in others {
            let index = unit.index;
            let change = Arc::make_mut(&mut self.sets).remove(index, now);
            self.note(change.new, change.old);
            match Arc::make_mut(&mut self.sets).put(unit, now) {
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
                Arc::make_mut(&mut self.sets).removed(set.number);
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
    ) -> Result<Option<String>, PolicyError> {
        let unknown = self.check_lockout(policies, enforcement)?;
        let is_enforced = enforcement != Enforcement::Off;
        let before = self.policies.clone();
        let now = crate::clock::boot();
        let done = self.policies.load(policies, is_enforced, &self.units, now).map_err(PolicyError::from);
        let done = done.and_then(|()| {
            let orders = self.policies.follow(&self.units, now);
            Ok(self.obey(orders)?)
        });
        if done.is_err() {
            self.policies = before;
        }
        done.map(|()| unknown)
    }

    /// Tells the programs what has changed for the units that there are; what the kernel refuses is tried again.
    pub(super) fn follow_policies(&mut self) {
        if self.policies.are_idle() {
            return;
        }
        let was_refused = self.policies.is_refused;
        let Err(error) = self.bring_policies(false) else { return };
        if !was_refused {
            tracing::error!(
                "units have the policies that they had before, and new ones have none: {}",
                with_causes(&error)
            );
        }
        self.policies.is_refused = true;
    }

    /// The same before a reload is taken over: no unit may lose the policies that it had, or have none for want of room where it
    /// would have some. What the kernel has refused before, and refuses still, is no fault of the reload.
    pub(super) fn fit_policies(&mut self) -> Result<(), PolicyError> {
        let was_refused = self.policies.is_refused;
        match self.bring_policies(true) {
            Err(PolicyError::Kernel(_)) if was_refused => Ok(()),
            done => done,
        }
    }

    /// Has those hold again that held `before` a reload that came to nothing.
    pub(super) fn restore_policies(&mut self, before: Policies) -> Result<(), KernelError> {
        let orders = self.policies.put_back(before, crate::clock::boot());
        if orders.is_empty() { Ok(()) } else { self.obey(orders) }
    }

    /// Brings what holds to the units that there are: to all of them or to none, where that is asked for. Where it fails, all
    /// is as it was.
    fn bring_policies(&mut self, to_all: bool) -> Result<(), PolicyError> {
        let before = self.policies.clone();
        let orders = self.policies.follow(&self.units, crate::clock::boot());
        let is_left_out = to_all && !self.policies.without.is_subset(&before.without);
        let done = match &self.policies.are_too_many {
            Some(explosion) if is_left_out => Err(explosion.clone().into()),
            _ if orders.is_empty() => return Ok(()),
            _ => self.obey(orders).map_err(PolicyError::from),
        };
        if done.is_ok() {
            self.policies.is_refused = false;
        } else {
            self.policies = before;
        }
        done
    }

    /// Tells the programs: all of it, or nothing.
    fn obey(&mut self, orders: Orders) -> Result<(), KernelError> {
        let Orders { new, entries, whoever, old } = orders;
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
        for (index, policy) in entries.into_iter().chain(whoever.map(|policy| (WHOEVER, policy))) {
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
                Ok(()) => Arc::make_mut(&mut self.policies.sets).removed(set.number),
                // Its room is not counted on again.
                Err(error) => tracing::warn!("a set of policies is not removed: {}", with_causes(&error)),
            }
        }
    }

    /// Forgets verdicts that no set has, nor any flow that is remembered, and of which nothing was heard since `before`.
    pub(super) fn forget_verdicts(&mut self, before: u64) {
        let now = crate::clock::boot();
        let verdicts = &mut Arc::make_mut(&mut self.policies.sets).verdicts;
        for number in self.flows.verdicts() {
            verdicts.is_heard_of(number, now);
        }
        verdicts.forget(before);
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
mod tests;

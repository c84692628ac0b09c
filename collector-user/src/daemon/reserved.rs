//! Indexes that the programs count by before anybody knows whose they are, and units that nobody counts for any more.

use std::collections::BTreeSet;

use collector_ebpf::abi::pu::index;

use super::{Daemon, DaemonError, workloads::Gone};
use crate::{
    error::with_causes,
    host::cgroups::tree::Tree,
    kernel::error::KernelError,
    pu::registry::{Kind, is_named},
};

/// For so long a unit that has ended keeps its name after the last that was heard of it.
const MEMORY_NS: u64 = 60_000_000_000;

/// Cgroups that are remembered after they have gone, at most: the programs have room for 16,384 in all.
const MOST_GONE: usize = 4096;

/// Flows for which no index was left: they are the host's until they are asked for anew.
#[derive(Debug, Default)]
pub(super) struct Refused {
    /// How often there was none.
    times: u64,
    /// Some were, and have not been asked for anew since.
    are_there: bool,
    /// There may be an answer that there was not: an index is free again, or the programs were told of a cgroup.
    can_be_answered: bool,
}

impl Refused {
    /// Whether they are, by now that it came to that so many `times`.
    const fn are_asked_anew(&mut self, times: u64) -> bool {
        self.are_there |= self.times != times;
        self.times = times;
        let are_asked = self.are_there && self.can_be_answered;
        self.are_there &= !are_asked;
        self.can_be_answered = false;
        are_asked
    }
}

impl Daemon<'_> {
    /// From here on what was counted by an index of the programs' list is a unit's.
    pub(super) fn join(&mut self, reserved: u16, unit: u16) -> Result<(), DaemonError> {
        self.units.join(reserved, unit, crate::clock::boot());
        if is_named(unit) && reserved != unit { self.trace_also(unit, reserved) } else { Ok(()) }
    }

    /// Learns which cgroups the programs have given an index to, and gives them others.
    pub(super) fn refill_units(&mut self) -> Result<(), DaemonError> {
        self.refill_units_before(&BTreeSet::new())
    }

    /// The same before anybody has looked at cgroups that are `new`: whose these are is still to be found.
    pub(super) fn refill_units_before(&mut self, new: &BTreeSet<u64>) -> Result<(), DaemonError> {
        let Self { cgroups: Some(cgroups), units, counters, .. } = self else {
            self.follow_policies();
            return Ok(());
        };
        let next = || {
            let index = units.reserve(index::HOST)?;
            counters.ensure(index).ok().map(|()| index)
        };
        let now = crate::clock::boot();
        let given = cgroups.refill(next)?;
        let has_given = !given.is_empty();
        for (cgroup, reserved) in given {
            let unit = self.workloads.groups.of_cgroup.get(&cgroup).map(|(unit, _)| *unit);
            if unit.is_none() && (new.contains(&cgroup) || !self.workloads.knows(cgroup)) {
                self.workloads.early.insert(cgroup, (reserved, now));
                continue;
            }
            let unit = unit.unwrap_or(index::HOST);
            self.join(reserved, unit)?;
            self.tell_programs(cgroup, unit);
        }
        self.workloads.refused.can_be_answered |= has_given;
        let are_asked_anew = self.workloads.refused.are_asked_anew(self.ledgers.sum().units_exhausted);
        if self.units.take_stale() || are_asked_anew {
            self.controller.next_generation();
        }
        self.follow_policies();
        Ok(())
    }

    /// What there is no room to count by itself, in sentences.
    pub(super) fn beyond_room(&self) -> Vec<String> {
        let ends = self.watched.ends.are_too_many.then(|| {
            format!(
                "some interfaces that lead to what nobody has named, which count as unknown: there are {} numbers to count by",
                self.units.last_index()
            )
        });
        let cgroups = self.workloads.are_too_many.clone();
        let late = self.workloads.tree.as_ref().map(Tree::missing).unwrap_or_default();
        ends.into_iter().chain(cgroups).chain(self.policies.beyond_room()).chain(late).collect()
    }

    /// Tells the programs whose a cgroup is.
    pub(super) fn tell_programs(&mut self, cgroup: u64, unit: u16) {
        self.workloads.refused.can_be_answered = true;
        if let Err(error) = self.tell_cgroup(cgroup, unit) {
            self.workloads.are_too_many.get_or_insert_with(|| {
                format!("some services, which count as the host's: {}", with_causes(&error))
            });
        }
    }

    /// The same where it matters whether they take it.
    ///
    /// # Errors
    ///
    /// [`KernelError::Map`].
    pub(super) fn tell_cgroup(&mut self, cgroup: u64, unit: u16) -> Result<(), KernelError> {
        let Some(cgroups) = &mut self.cgroups else { return Ok(()) };
        let is_declared = self.units.get(unit).is_some_and(|unit| unit.kind == Kind::Declared);
        if is_declared { cgroups.declare(cgroup, unit) } else { cgroups.set(cgroup, unit) }
    }

    /// Forgets a cgroup that is gone once its unit is forgotten, or there are too many such: its sockets live on for as long as
    /// somebody has them, and those that a listening one accepts are of its cgroup, too.
    pub(super) fn forget_later(&mut self, cgroup: u64, path: String) {
        self.workloads.gone.push_back(Gone { cgroup, path });
        if self.workloads.gone.len() > MOST_GONE
            && let Some(oldest) = self.workloads.gone.pop_front()
        {
            self.workloads.groups.of_cgroup.remove(&oldest.cgroup);
            self.forget_cgroup(oldest.cgroup);
        }
    }

    pub(super) fn forget_cgroup(&mut self, id: u64) {
        // What fails here leaves an entry that nobody asks for.
        if let Some(Err(error)) = self.cgroups.as_mut().map(|cgroups| cgroups.remove(id)) {
            tracing::debug!(error = &error as &dyn std::error::Error, "a cgroup is not forgotten");
        }
    }

    /// Forgets units that ended long ago and of which no flow is remembered.
    pub(super) fn forget_workloads(&mut self) -> Result<(), DaemonError> {
        let now = self.moment.boot_ns;
        // An interface that still leads to where it was keeps its name, too.
        let ends = self.watched.ends.named().map(|(unit, _)| unit);
        for index in self.flows.indexes().into_iter().chain(ends) {
            self.units.is_heard_of(index, now);
        }
        // What was counted of them is kept under their names.
        let forgettable = self.units.forgettable(now.saturating_sub(MEMORY_NS));
        self.end_drops(&forgettable)?;
        self.end_losses(&forgettable);
        for index in self.units.forget(now.saturating_sub(MEMORY_NS)) {
            self.differences.forget(index);
            self.trace_no_more(index)?;
            for cgroup in self.workloads.over.remove(&index).into_iter().flatten() {
                self.workloads.groups.of_cgroup.remove(&cgroup);
                self.forget_cgroup(cgroup);
            }
        }
        let before = now.saturating_sub(MEMORY_NS);
        // Cgroups that went before anybody saw them.
        let gone: Vec<_> = self.workloads.early.extract_if(|_, (_, since)| *since < before).collect();
        if self.workloads.sees_all() {
            self.workloads.unseen += gone.len() as u64;
        }
        for (cgroup, (reserved, _)) in gone {
            self.units.release(reserved, now);
            self.forget_cgroup(cgroup);
        }
        self.follow_policies();
        self.forget_verdicts(before);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Refused;

    #[test]
    fn who_was_refused_is_asked_once_there_may_be_an_answer_and_not_before() {
        let mut refused = Refused { can_be_answered: true, ..Refused::default() };
        assert!(!refused.are_asked_anew(0), "nobody was");
        assert!(!refused.are_asked_anew(3), "nothing has changed");
        assert!(!refused.are_asked_anew(5));
        refused.can_be_answered = true;
        assert!(refused.are_asked_anew(5));
        refused.can_be_answered = true;
        assert!(!refused.are_asked_anew(5), "they were");
    }
}

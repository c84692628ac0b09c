//! Indexes that the programs count by before anybody knows whose they are, and units that nobody counts for any more.

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

impl Daemon<'_> {
    /// From here on what was counted by an index of the programs' list is a unit's.
    pub(super) fn join(&mut self, reserved: u16, unit: u16) -> Result<(), DaemonError> {
        if !is_named(unit) {
            self.units.release(reserved, crate::clock::boot());
            return Ok(());
        }
        self.units.join(reserved, unit);
        self.trace_also(unit, reserved)
    }

    /// Learns which cgroups the programs have given an index to, and gives them others.
    pub(super) fn refill_units(&mut self) -> Result<(), DaemonError> {
        let Self { cgroups: Some(cgroups), units, counters, .. } = self else {
            self.follow_policies();
            return Ok(());
        };
        let next = || {
            let index = units.reserve(index::HOST)?;
            counters.ensure(index).ok().map(|()| index)
        };
        let now = crate::clock::boot();
        for (cgroup, reserved) in cgroups.refill(next)? {
            let unit = self.workloads.groups.of_cgroup.get(&cgroup).map(|(unit, _)| *unit);
            if unit.is_none() && !self.workloads.knows(cgroup) {
                self.workloads.early.insert(cgroup, (reserved, now));
                continue;
            }
            let unit = unit.unwrap_or(index::HOST);
            self.join(reserved, unit)?;
            self.tell_programs(cgroup, unit);
        }
        if self.units.take_reused() {
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

    /// Forgets a cgroup that is gone once nothing more can be expected of it.
    pub(super) fn forget_later(&mut self, cgroup: u64, path: String) {
        self.workloads.gone.push_back(Gone { cgroup, path, since: crate::clock::boot() });
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
        self.end_drops(&self.units.forgettable(now.saturating_sub(MEMORY_NS)))?;
        for index in self.units.forget(now.saturating_sub(MEMORY_NS)) {
            self.differences.forget(index);
            self.trace_no_more(index)?;
            for cgroup in self.workloads.over.remove(&index).into_iter().flatten() {
                self.workloads.groups.of_cgroup.remove(&cgroup);
                self.forget_cgroup(cgroup);
            }
        }
        let before = now.saturating_sub(MEMORY_NS);
        while let Some(Gone { cgroup, .. }) = self.workloads.gone.pop_front_if(|gone| gone.since < before) {
            self.workloads.groups.of_cgroup.remove(&cgroup);
            self.forget_cgroup(cgroup);
        }
        // Cgroups that went before anybody saw them.
        let gone: Vec<_> = self.workloads.early.extract_if(|_, (_, since)| *since < before).collect();
        for (cgroup, (reserved, _)) in gone {
            self.units.release(reserved, now);
            self.forget_cgroup(cgroup);
        }
        self.follow_policies();
        self.forget_verdicts(before);
        Ok(())
    }
}

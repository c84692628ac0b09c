//! Whose a socket is by its control group (cgroup v2): what the programs know of groups, and the indexes that they give to
//! those which nobody knows.

use std::sync::atomic::{AtomicU64, Ordering};

use aya::{
    Ebpf, EbpfLoader,
    maps::{HashMap, MapData, MapError},
};
use collector_ebpf::abi::pu::{DECLARED, FREE_UNITS, FreeUnit};

use super::{
    btf::{Btf, BtfError},
    control::absent_is_fine,
    error::KernelError,
    maps::{shared, typed},
    memory::SharedArray,
    requirements::is_preempt_rt,
    settings::Settings,
};

/// What the programs are told before they are loaded.
pub(super) struct Told {
    wanted: u32,
    free: u32,
    places: [(&'static str, u32); 3],
    missing: Option<KernelError>,
}

impl Told {
    /// On this kernel, with so many CPUs that there can be.
    pub(super) fn new(settings: &Settings, possible: u32) -> Self {
        let told = |wanted, places, missing| Self {
            wanted,
            free: possible.saturating_mul(FREE_UNITS),
            places,
            missing,
        };
        if !settings.cgroups {
            return told(0, NOWHERE, None);
        }
        let btf = Btf::of_kernel();
        // Where a socket has no group, there is no helper either that asks for it, and a program that would is refused.
        if let Ok(Err(BtfError::Missing { .. })) =
            btf.as_ref().map(|btf| btf.field("sock", &["sk_cgrp_data"]))
        {
            return told(0, NOWHERE, Some(KernelError::NoSocketGroups));
        }
        match btf.and_then(|btf| places(&btf)) {
            Ok(places) => told(1, places, None),
            Err(error) => told(1, NOWHERE, Some(KernelError::Sockets(error))),
        }
    }

    /// Whether groups are asked for.
    pub(super) const fn are_wanted(&self) -> bool {
        self.wanted != 0
    }

    /// Puts it where the programs look for it.
    pub(super) fn tell<'a>(&'a self, loader: &mut EbpfLoader<'a>) {
        for (global, place) in &self.places {
            loader.override_global(global, place, true);
        }
        loader.override_global("BY_CGROUP", &self.wanted, true);
        // Without groups the maps stay as small as they can be.
        if self.wanted == 0 {
            loader.map_max_entries("CGROUPS", 1);
        } else {
            loader.map_max_entries("FREE_UNITS", self.free);
        }
    }

    /// Takes the maps out of what was loaded, if groups were asked for; or why there is nothing to know of groups.
    pub(super) fn take(
        self,
        ebpf: &mut Ebpf,
        possible: u32,
    ) -> Result<Option<Result<Cgroups, KernelError>>, KernelError> {
        if self.wanted == 0 {
            return Ok(self.missing.map(Err));
        }
        let free = shared(ebpf, "FREE_UNITS", self.free)?;
        // Two programs could take one index where softirqs are preempted.
        let lists = if is_preempt_rt() { 0 } else { possible as usize };
        let each = (FREE / possible.max(1)).clamp(1, FREE_UNITS);
        let lists = (0..lists).map(|cpu| List::new(cpu, each)).collect();
        Ok(Some(Ok(Cgroups { known: typed(ebpf, "CGROUPS")?, free, lists, missing: self.missing })))
    }
}

/// Free indexes that all CPUs together hold, at most, where each has its share: an eighth of all that there are.
const FREE: u32 = 2048;

/// Where the programs find a socket's group, where that is not known.
const NOWHERE: [(&str, u32); 3] = [("SOCK_CGROUP", 0), ("CGROUP_KN", 0), ("KN_ID", 0)];

/// Where they find it here.
fn places(btf: &Btf) -> Result<[(&'static str, u32); 3], BtfError> {
    // Before Linux 5.15 it is a number with flags in it.
    let group = btf.place("sock", &["sk_cgrp_data", "cgroup"], 8);
    let group = group.or_else(|_| btf.place("sock", &["sk_cgrp_data", "val"], 8))?;
    Ok([
        ("SOCK_CGROUP", group),
        ("CGROUP_KN", btf.place("cgroup", &["kn"], 8)?),
        ("KN_ID", btf.place("kernfs_node", &["id"], 8)?),
    ])
}

/// What the programs know of control groups. The only writer in user space.
///
/// A group that is in none of the entries has a unit at the first packet of its first flow: an index of the list that
/// [`refill`](Self::refill) keeps full. Where the list is empty, its flows are the host's, and
/// [`units_exhausted`](collector_ebpf::abi::counter::Ledger::units_exhausted) counts them; so it is for good on a kernel with
/// `PREEMPT_RT`.
pub struct Cgroups {
    known: HashMap<MapData, u64, u32>,
    free: SharedArray<FreeUnit>,
    lists: Vec<List>,
    /// Why what comes in is not asked for the group of the socket that takes it, if it is not: then its flow is the host's
    /// until a packet leaves.
    pub missing: Option<KernelError>,
}

impl Cgroups {
    /// Makes the group with the id `id` (the inode of its directory) known as processing unit `pu`, whatever it was before.
    /// Flows that are known already belong to it from the [next generation](super::control::Controller::next_generation) on.
    ///
    /// # Errors
    ///
    /// [`KernelError::Map`]: 16,384 groups are known already, for one.
    pub fn set(&mut self, id: u64, pu: u16) -> Result<(), KernelError> {
        self.known.insert(id, u32::from(pu), 0).map_err(failed("written"))
    }

    /// The same of a unit that is declared, and so goes before the one that declares the [user](super::users) of a socket.
    ///
    /// # Errors
    ///
    /// As [`set`](Self::set).
    pub fn declare(&mut self, id: u64, pu: u16) -> Result<(), KernelError> {
        self.known.insert(id, u32::from(pu) | DECLARED, 0).map_err(failed("written"))
    }

    /// Forgets a group. Should a socket of its send or receive once more in a new flow, the group is as good as new: so a
    /// group that is gone is better forgotten after its last flow.
    ///
    /// # Errors
    ///
    /// [`KernelError::Map`].
    pub fn remove(&mut self, id: u64) -> Result<(), KernelError> {
        absent_is_fine(self.known.remove(&id)).map_err(failed("written"))
    }

    /// The groups that programs have met since the last call and that nobody knew, with the index that each has been given;
    /// fills the list up again. `next` gives an index that is nobody's and whose
    /// [counters](super::object::CounterMaps::ensure) are there, or `None` where there is none to spare: then the list stays
    /// shorter. Costs no system call, so that it may be called at each drain.
    ///
    /// # Errors
    ///
    /// [`KernelError::Missing`] where the list is shorter than it was made.
    pub fn refill(&mut self, mut next: impl FnMut() -> Option<u16>) -> Result<Vec<(u64, u16)>, KernelError> {
        let mut given = Vec::new();
        for list in &mut self.lists {
            list.collect(&self.free, &mut given)?;
            list.fill(&self.free, &mut next)?;
        }
        Ok(given)
    }
}

/// A CPU's part of the list: a ring, whose entries user space fills in the order in which the programs use them up.
struct List {
    /// The number of its first entry.
    first: usize,
    /// Free indexes that it shall hold.
    length: u32,
    /// Entries that were ever filled.
    filled: u32,
    /// Of these, those that were used up, as far as is known here.
    used: u32,
    /// What was put into each entry.
    units: [u16; FREE_UNITS as usize],
}

impl List {
    const fn new(cpu: usize, length: u32) -> Self {
        Self { first: cpu * FREE_UNITS as usize, length, filled: 0, used: 0, units: [0; FREE_UNITS as usize] }
    }

    /// Adds what was used up to `given`.
    fn collect(
        &mut self,
        free: &SharedArray<FreeUnit>,
        given: &mut Vec<(u64, u16)>,
    ) -> Result<(), KernelError> {
        while self.used != self.filled {
            let (place, [cgroup, unit]) = self.entry(free, self.used)?;
            // The group stands there before the index is gone, but a processor may show both in another order.
            let is_used = unit.load(Ordering::Acquire) == 0;
            let cgroup = cgroup.load(Ordering::Acquire);
            if !is_used || cgroup == 0 {
                break;
            }
            given.push((cgroup, self.units.get(place).copied().unwrap_or_default()));
            self.used = self.used.wrapping_add(1);
        }
        Ok(())
    }

    /// Puts indexes where others were.
    fn fill(
        &mut self,
        free: &SharedArray<FreeUnit>,
        next: &mut impl FnMut() -> Option<u16>,
    ) -> Result<(), KernelError> {
        while self.filled.wrapping_sub(self.used) < self.length {
            let (place, [cgroup, unit]) = self.entry(free, self.filled)?;
            let Some(index) = next() else { break };
            if let Some(known) = self.units.get_mut(place) {
                *known = index;
            }
            cgroup.store(0, Ordering::Relaxed);
            unit.store(index.into(), Ordering::Release);
            self.filled = self.filled.wrapping_add(1);
        }
        Ok(())
    }

    /// The entry for the index with this number, ever: its place in this part of the list, the group's word, the unit's.
    fn entry<'a>(
        &self,
        free: &'a SharedArray<FreeUnit>,
        number: u32,
    ) -> Result<(usize, [&'a AtomicU64; 2]), KernelError> {
        const SHORT: KernelError = KernelError::Missing { what: "entry of the map", name: "FREE_UNITS" };
        let place = (number % FREE_UNITS) as usize;
        let word = |offset| free.word(self.first + place, offset).ok_or(SHORT);
        Ok((
            place,
            [word(std::mem::offset_of!(FreeUnit, cgroup))?, word(std::mem::offset_of!(FreeUnit, unit))?],
        ))
    }
}

fn failed(action: &'static str) -> impl FnOnce(MapError) -> KernelError {
    move |source| KernelError::Map { map: "CGROUPS", action, source }
}

#[cfg(test)]
mod tests {
    use std::{
        mem::offset_of,
        sync::atomic::{AtomicU64, Ordering},
    };

    use collector_ebpf::abi::pu::{FREE_UNITS, FreeUnit};
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    use super::List;
    use crate::kernel::memory::SharedArray;

    const CPUS: usize = 2;

    fn memory() -> SharedArray<FreeUnit> {
        let entries = CPUS as u32 * FREE_UNITS;
        let file = memfd_create("list", MemfdFlags::empty()).unwrap();
        ftruncate(&file, 1 << 16).unwrap();
        SharedArray::map(file, entries).unwrap()
    }

    fn word(memory: &SharedArray<FreeUnit>, entry: usize, offset: usize) -> &AtomicU64 {
        memory.word(entry, offset).unwrap()
    }

    /// What a program does: gives the group the next index of the CPU, if there is one.
    fn give(memory: &SharedArray<FreeUnit>, cpu: usize, taken: &mut usize, group: u64) -> Option<u64> {
        let entry = cpu * FREE_UNITS as usize + *taken % FREE_UNITS as usize;
        let unit = word(memory, entry, offset_of!(FreeUnit, unit));
        let index = unit.load(Ordering::Relaxed);
        (index != 0).then(|| {
            word(memory, entry, offset_of!(FreeUnit, cgroup)).store(group, Ordering::Relaxed);
            unit.store(0, Ordering::Release);
            *taken += 1;
            index
        })
    }

    fn refill(
        list: &mut List,
        memory: &SharedArray<FreeUnit>,
        mut next: impl FnMut() -> Option<u16>,
    ) -> Vec<(u64, u16)> {
        let mut given = Vec::new();
        list.collect(memory, &mut given).unwrap();
        list.fill(memory, &mut next).unwrap();
        given
    }

    #[test]
    fn every_index_is_given_once_and_told_once() {
        let memory = memory();
        let mut list = List::new(1, 8);
        let mut numbers = 101..;
        let mut next = || numbers.next();
        assert!(refill(&mut list, &memory, &mut next).is_empty());
        let (mut taken, mut group, mut all) = (0, 1_000, Vec::new());
        // Far round the ring, by more and less than there is.
        for round in 0..100 {
            let mut gave = Vec::new();
            for _ in 0..round % 11 {
                group += 1;
                gave.extend(give(&memory, 1, &mut taken, group).map(|unit| (group, unit as u16)));
            }
            assert_eq!(gave.len(), (round % 11).min(8), "as many as there are");
            assert_eq!(refill(&mut list, &memory, &mut next), gave, "what was given is what is told");
            all.extend(gave.into_iter().map(|(_, unit)| unit));
        }
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count, "no index twice");
    }

    #[test]
    fn what_cannot_be_filled_now_is_filled_later() {
        let memory = memory();
        let mut list = List::new(0, 4);
        let mut few = [101, 102].into_iter();
        refill(&mut list, &memory, || few.next());
        let mut taken = 0;
        for group in [7, 8] {
            assert!(give(&memory, 0, &mut taken, group).is_some());
        }
        assert_eq!(give(&memory, 0, &mut taken, 9), None, "the list is empty");
        assert_eq!(refill(&mut list, &memory, || None), [(7, 101), (8, 102)]);
        assert_eq!(give(&memory, 0, &mut taken, 9), None, "nothing was put into it");
        assert_eq!(refill(&mut list, &memory, || Some(103)), []);
        assert_eq!(give(&memory, 0, &mut taken, 9), Some(103));
    }

    #[test]
    fn an_index_that_is_gone_before_its_group_shows_waits() {
        let memory = memory();
        let mut list = List::new(0, 4);
        refill(&mut list, &memory, || Some(101));
        word(&memory, 0, offset_of!(FreeUnit, unit)).store(0, Ordering::Release);
        assert_eq!(refill(&mut list, &memory, || None), []);
        word(&memory, 0, offset_of!(FreeUnit, cgroup)).store(7, Ordering::Release);
        assert_eq!(refill(&mut list, &memory, || None), [(7, 101)]);
    }
}

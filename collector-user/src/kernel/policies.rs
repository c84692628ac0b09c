//! The only writer of policies: sets of rules as classes, and which sets each unit has.
//!
//! A set is written as a whole before any unit has it, under a number that nothing has had before; then each unit's word is
//! exchanged by one store. Programs that run meanwhile see the one or the other. What a unit has no more may be removed once
//! none of them runs any more that has seen it: after a [swap](super::control::Controller::swap).

use std::{io, sync::atomic::Ordering};

use aya::{
    Ebpf, Pod,
    maps::{MapData, lpm_trie::Key as Prefix},
};
use collector_ebpf::abi::policy::{
    ClassesKey, INCOMING, OUTGOING, PolicyEntry, RemoteKey, ServiceKey, UNITS, UnitPolicy,
};

use super::{
    batch,
    error::KernelError,
    maps::{data, shared},
    memory::SharedArray,
};

/// Bits of a trie's key before those of an address or a service: the set's number.
pub const SET_BITS: u32 = u32::BITS;

/// A set of rules as the programs look it up. All its entries are of one set.
#[derive(Clone, Debug, Default)]
pub struct Entries {
    /// Prefixes of remote addresses, their bits counted with [`SET_BITS`], and their classes.
    pub remotes: Vec<(u32, RemoteKey, u32)>,
    /// Prefixes of services, counted likewise, and their classes.
    pub services: Vec<(u32, ServiceKey, u32)>,
    /// What is said of both classes.
    pub verdicts: Vec<(ClassesKey, u32)>,
}

/// Writes the maps of policies.
pub struct Policies {
    units: SharedArray<PolicyEntry>,
    remotes: MapData,
    services: MapData,
    verdicts: MapData,
}

impl Policies {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(Self {
            units: shared(ebpf, "POLICIES", UNITS)?,
            remotes: data(ebpf, "REMOTES")?,
            services: data(ebpf, "SERVICES")?,
            verdicts: data(ebpf, "VERDICTS")?,
        })
    }

    /// Writes a set that no unit has yet.
    ///
    /// # Errors
    ///
    /// [`KernelError::Policy`]: no room, for one. Nothing of the set is left then, as far as the kernel removes it.
    pub fn write(&mut self, entries: &Entries) -> Result<(), KernelError> {
        let written = fill("REMOTES", &self.remotes, &prefixes(&entries.remotes))
            .and_then(|()| fill("SERVICES", &self.services, &prefixes(&entries.services)))
            .and_then(|()| fill("VERDICTS", &self.verdicts, &entries.verdicts));
        if written.is_err() {
            // Whatever fails here, what failed first is what there is to tell.
            let _ = self.remove(entries);
        }
        written
    }

    /// Removes a set that no unit has any more. Entries that are not there are passed over.
    ///
    /// # Errors
    ///
    /// [`KernelError::Call`]; whatever can be removed is removed all the same.
    pub fn remove(&mut self, entries: &Entries) -> Result<(), KernelError> {
        let failed =
            |map| move |source: io::Error| KernelError::Call { map, action: "emptied of a set", source };
        let verdicts: Vec<_> = entries.verdicts.iter().map(|(key, _)| *key).collect();
        let verdicts = batch::remove(self.verdicts.fd(), &verdicts).map_err(failed("VERDICTS"));
        let services =
            batch::remove(self.services.fd(), &keys(&entries.services)).map_err(failed("SERVICES"));
        let remotes = batch::remove(self.remotes.fd(), &keys(&entries.remotes)).map_err(failed("REMOTES"));
        verdicts.and(services).and(remotes)
    }

    /// Gives a unit its sets: those of what the other end opens, and of what it opens itself, each with what is done where
    /// none of its rules matches; set 0 is none. Flows that live meet them at their next miss.
    ///
    /// # Errors
    ///
    /// [`KernelError::Missing`]: there is no unit with such an index.
    pub fn give(&mut self, unit: u16, policy: UnitPolicy) -> Result<(), KernelError> {
        let PolicyEntry { directions: [incoming, outgoing] } = policy.entry();
        for (direction, word) in [(INCOMING, incoming), (OUTGOING, outgoing)] {
            let place = self.units.word(unit.into(), direction * size_of::<u64>());
            let missing = KernelError::Missing { what: "entry of the map", name: "POLICIES" };
            // After the set that it names.
            place.ok_or(missing)?.store(word, Ordering::Release);
        }
        Ok(())
    }
}

fn prefixes<K: Pod>(entries: &[(u32, K, u32)]) -> Vec<(Prefix<K>, u32)> {
    entries.iter().map(|(bits, key, class)| (Prefix::new(*bits, *key), *class)).collect()
}

fn keys<K: Pod>(entries: &[(u32, K, u32)]) -> Vec<Prefix<K>> {
    entries.iter().map(|(bits, key, _)| Prefix::new(*bits, *key)).collect()
}

fn fill<K: Pod>(map: &'static str, into: &MapData, entries: &[(K, u32)]) -> Result<(), KernelError> {
    batch::insert(into.fd(), entries).map_err(|(written, source)| KernelError::Policy {
        map,
        written,
        entries: entries.len(),
        source,
    })
}

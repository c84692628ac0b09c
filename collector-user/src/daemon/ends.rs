//! Host-side ends: the interfaces that lead into other network namespaces, and whose those are.
//!
//! An end counts from its first packet on, before anybody knows whose it is: by an index of its own, which stands for
//! `unknown` until a unit is found behind it. A pair counts so before its other end is moved away, too: a bridge may flood to
//! it what the collector reads of that only later.

use std::collections::{BTreeMap, BTreeSet};

use collector_ebpf::abi::pu::index;

use super::{Daemon, DaemonError, alive::Whose};
use crate::{
    host::{links::Link, namespaces::Namespace},
    pu::registry::Registry,
};

/// The host-side ends that there are, by interface index.
#[derive(Default)]
pub(super) struct Ends {
    ends: BTreeMap<u32, End>,
    /// There are more than there are indexes to count by.
    pub(super) are_too_many: bool,
}

#[derive(Default)]
struct End {
    /// The number of the network namespace that it leads into; none while its other end is still in ours.
    namespace: Option<i32>,
    /// The unit that was found there.
    unit: Option<u16>,
    /// What was counted by before, or is.
    reserved: Option<u16>,
    /// The index of its other end, in that namespace.
    other: Option<u32>,
    /// The network that it belongs to: the bridge that it is a port of, or itself.
    network: String,
    /// Packets can cross it.
    running: bool,
    /// Its name.
    name: String,
    /// Since when it is there, on the boot clock in nanoseconds.
    since: u64,
    /// It was told that nobody knows whose it is.
    told: bool,
}

impl End {
    /// It may be what an interface is: the end of a pair that leads where it has led, or whose other end was moved since.
    fn is_of(&self, link: &Link) -> bool {
        link.is_pair() && (self.namespace.is_none() || self.namespace == link.leads_into())
    }

    /// It may be somebody else's than is known: nobody has named it, or who had it has ended, and a namespace may outlive a
    /// container.
    fn is_open(&self, units: &Registry) -> bool {
        let unit = self.unit.and_then(|unit| units.get(unit));
        self.namespace.is_some() && unit.is_none_or(|unit| unit.ended.is_some())
    }
}

impl Ends {
    /// The unit that was found behind an interface.
    pub(super) fn unit(&self, ifindex: u32) -> Option<u16> {
        self.ends.get(&ifindex)?.unit
    }

    /// The units that were found behind interfaces, with the index of each interface.
    pub(super) fn named(&self) -> impl Iterator<Item = (u16, u32)> {
        self.ends.iter().filter_map(|(ifindex, end)| Some((end.unit?, *ifindex)))
    }

    /// Whether one of these leads into such a namespace.
    pub(super) fn any_open_is_in(&self, units: &Registry, is_such: impl Fn(i32) -> bool) -> bool {
        self.ends.values().any(|end| end.is_open(units) && end.namespace.is_some_and(&is_such))
    }

    /// Those of such interfaces that nobody has named since before a time, each once: its name, and the namespace.
    pub(super) fn still_unnamed(&mut self, before: u64, is_such: impl Fn(u32) -> bool) -> Vec<(String, i32)> {
        let late = self.ends.iter_mut().filter(|(ifindex, end)| {
            end.unit.is_none() && end.since < before && !end.told && is_such(**ifindex)
        });
        let told = late.filter_map(|(_, end)| {
            let namespace = end.namespace?;
            end.told = true;
            Some((end.name.clone(), namespace))
        });
        told.collect()
    }

    /// Whether packets can cross an end that leads into a namespace.
    pub(super) fn are_running(&self, namespace: i32) -> bool {
        self.ends.values().any(|end| end.namespace == Some(namespace) && end.running)
    }

    /// The network of an interface in a namespace: that of the end which leads to it.
    pub(super) fn network(&self, namespace: i32, ifindex: u32) -> Option<&str> {
        let mut ends = self.ends.values().filter(|end| end.namespace == Some(namespace));
        ends.find(|end| end.other == Some(ifindex)).map(|end| end.network.as_str())
    }

    /// Whether there is one of which nobody knows whose it is, or is any more.
    pub(super) fn are_open(&self, units: &Registry) -> bool {
        self.ends.values().any(|end| end.is_open(units))
    }
}

impl Daemon<'_> {
    /// Brings what is known of ends to what there is now, and looks for whose those are that nobody has named.
    pub(super) async fn follow_ends(&mut self, links: &BTreeMap<u32, Link>) -> Result<(), DaemonError> {
        let ends = &mut self.watched.ends.ends;
        let (units, now) = (&mut self.units, self.moment.boot_ns);
        ends.retain(|ifindex, end| {
            let is_there = links.get(ifindex).is_some_and(|link| end.is_of(link));
            if !is_there && let Some(reserved) = end.reserved {
                units.release(reserved, now);
            }
            is_there
        });
        let mut is_new = false;
        for link in links.values() {
            if link.is_pair() && self.units.of_interface(&link.name).is_none() {
                let new = End { since: now, ..End::default() };
                let end = self.watched.ends.ends.entry(link.index).or_insert(new);
                let network = link.master.and_then(|master| links.get(&master)).unwrap_or(link);
                network.name.clone_into(&mut end.network);
                link.name.clone_into(&mut end.name);
                is_new |= end.namespace != link.leads_into();
                (end.namespace, end.other, end.running) = (link.leads_into(), link.lower, link.running);
            }
        }
        if self.watched.ends.are_open(&self.units) {
            self.find_namespaces(if is_new { Whose::All } else { Whose::New }).await;
        }
        let is_open = self.watched.ends.are_open(&self.units);
        let declared = if is_open { self.declared_namespaces().await } else { BTreeMap::new() };
        let open = self.watched.ends.ends.iter().filter(|(_, end)| end.is_open(&self.units));
        let open: Vec<_> = open.filter_map(|(ifindex, end)| Some((*ifindex, end.namespace?))).collect();
        for (ifindex, namespace) in open {
            let by_name = declared.get(&namespace).copied();
            let unit = match by_name {
                Some(unit) => unit,
                None => match self.owner_of(namespace).await {
                    Some(unit) => unit,
                    None => continue,
                },
            };
            let Some(end) = self.watched.ends.ends.get_mut(&ifindex) else { continue };
            // What was counted before somebody had it is theirs; what somebody counted who has ended is not.
            let before = end.unit.replace(unit);
            if let Some(reserved) = end.reserved.take().filter(|_| before.is_none()) {
                self.join(reserved, unit)?;
            }
            // It may have run for long, and have had no address that anybody knew of.
            self.workloads.are_readdressed = true;
        }
        // Before its interface counts for it, and not at the next drain.
        self.follow_policies();
        Ok(())
    }

    /// The unit of each network namespace that one declares and that is there, by its number.
    async fn declared_namespaces(&self) -> BTreeMap<i32, u16> {
        let mut declared = BTreeMap::new();
        for (name, unit) in self.units.namespaces() {
            if let Namespace::Numbered(id) = self.workloads.namespaces.of_name(name).await {
                declared.entry(id).or_insert(unit);
            }
        }
        declared
    }

    /// Has those ends looked at anew that are another's once units are declared otherwise; of these units the `ended` ones
    /// have ended by that. What such an end counted so far stays whose it was.
    pub(super) async fn reopen_ends(&mut self, ended: &BTreeSet<u16>) {
        // Whoever is found anew.
        self.find_namespaces(Whose::New).await;
        let declared = self.declared_namespaces().await;
        let now = self.moment.boot_ns;
        let Self { watched, workloads, units, .. } = self;
        for end in watched.ends.ends.values_mut() {
            let Some(namespace) = end.namespace else { continue };
            let whose = declared.get(&namespace).copied().or_else(|| workloads.in_namespace(namespace));
            // Who had ended before keeps its name there.
            let is_past =
                |unit: u16| !ended.contains(&unit) && units.get(unit).is_none_or(|unit| unit.ended.is_some());
            // Nobody runs there at the moment who could be asked.
            let is_unasked = |unit: u16| whose.is_none() && workloads.is_unasked(unit);
            if end.unit == whose || end.unit.is_some_and(|unit| is_past(unit) || is_unasked(unit)) {
                continue;
            }
            (end.unit, end.since, end.told) = (None, now, false);
            if let Some(reserved) = end.reserved.take() {
                units.release(reserved, now);
            }
        }
    }

    /// The index to count by of what crosses an interface that no unit declares: that of the unit that was found behind it,
    /// else one of its own.
    pub(super) fn index_behind(&mut self, ifindex: u32) -> Result<u16, DaemonError> {
        let Some(end) = self.watched.ends.ends.get_mut(&ifindex) else { return Ok(index::UNKNOWN) };
        if let Some(known) = end.unit.or(end.reserved) {
            return Ok(known);
        }
        end.reserved = self.units.reserve(index::UNKNOWN);
        let Some(reserved) = end.reserved else {
            self.watched.ends.are_too_many = true;
            return Ok(index::UNKNOWN);
        };
        self.counters.ensure(reserved)?;
        Ok(reserved)
    }
}

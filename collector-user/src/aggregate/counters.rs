//! Counter reports: what has been counted since the report before, all names in a fixed order, zeros included.

use std::collections::BTreeMap;

use collector_ebpf::abi::counter::{DirectionCounters, Ledger, PuCounters, Unparsed};

use crate::{
    aggregate::{booking::Credit, drops::OfUnit},
    event::{CounterReport, Counters, Text},
    pu::registry::Unit,
};

/// The names of a unit's counters, in the order of its reports.
///
/// What crossed the unit's boundary comes first; `local` is what its sockets exchanged on this host, with a container or
/// by loopback, without crossing an uplink. What the kernel dropped is among what it crossed before, or it never came so far;
/// its packets are divided by class.
const UNIT: [&str; 29] = [
    "rx_packets",
    "rx_bytes",
    "tx_packets",
    "tx_bytes",
    "rx_skbs",
    "tx_skbs",
    "rx_flowless_packets",
    "rx_flowless_bytes",
    "tx_flowless_packets",
    "tx_flowless_bytes",
    "flows",
    "rate_limited",
    "reserve_failed",
    "local_rx_packets",
    "local_rx_bytes",
    "local_tx_packets",
    "local_tx_bytes",
    "local_rx_skbs",
    "local_tx_skbs",
    "dropped_packets",
    "dropped_bytes",
    "dropped_unknown",
    "dropped_policy",
    "dropped_no_socket",
    "dropped_malformed",
    "dropped_resource",
    "dropped_route",
    "dropped_not_for_us",
    "dropped_end_of_life",
];

/// The names of the datapath's own counters that come before the unparsed frames by reason.
const DATAPATH: [&str; 10] = [
    "seen",
    "looped",
    "second_pass",
    "table_full",
    "rate_limited",
    "reserve_failed",
    "reported",
    "identity_full",
    "no_role",
    "orphan_fragments",
];

/// Remembers what was reported last.
#[derive(Debug)]
pub struct Differences {
    unit_names: Vec<Text>,
    datapath_names: Vec<Text>,
    units: BTreeMap<u16, [u64; UNIT.len()]>,
    datapath: Vec<u64>,
}

impl Default for Differences {
    fn default() -> Self {
        let reasons = Unparsed::ALL.iter().map(|reason| format!("unparsed_{}", reason.name()).into());
        Self {
            unit_names: UNIT.iter().map(|name| (*name).into()).collect(),
            datapath_names: DATAPATH.iter().map(|name| (*name).into()).chain(reasons).collect(),
            units: BTreeMap::new(),
            datapath: Vec::new(),
        }
    }
}

impl Differences {
    /// The report of a unit whose flows have counted `credit` in all, and which has `now` beside them.
    pub fn unit(
        &mut self,
        unit: &Unit,
        now: &PuCounters,
        credit: &Credit,
        dropped: &OfUnit,
    ) -> CounterReport {
        let [rx, tx] = sum(&now.flowless, &credit.boundary);
        let [rx_flowless, tx_flowless] = now.flowless;
        let [unknown, policy, no_socket, malformed, resource, route, not_for_us, end_of_life] =
            dropped.classes;
        let [local_rx, local_tx] = sum(&now.local, &credit.local);
        let now = [
            rx.packets,
            rx.bytes,
            tx.packets,
            tx.bytes,
            rx.skbs,
            tx.skbs,
            rx_flowless.packets,
            rx_flowless.bytes,
            tx_flowless.packets,
            tx_flowless.bytes,
            now.flows,
            now.rate_limited,
            now.reserve_failed,
            local_rx.packets,
            local_rx.bytes,
            local_tx.packets,
            local_tx.bytes,
            local_rx.skbs,
            local_tx.skbs,
            dropped.packets,
            dropped.bytes,
            unknown,
            policy,
            no_socket,
            malformed,
            resource,
            route,
            not_for_us,
            end_of_life,
        ];
        let before = self.units.insert(unit.index, now).unwrap_or_default();
        CounterReport {
            namespace: unit.namespace.clone(),
            context_id: unit.id.clone(),
            counters: differences(&self.unit_names, &before, &now),
        }
    }

    /// The report of the datapath itself, which has empty ids.
    pub fn datapath(&mut self, now: &Ledger) -> CounterReport {
        let rows = [
            now.seen,
            now.looped,
            now.second_pass,
            now.table_full,
            now.rate_limited,
            now.reserve_failed,
            now.reported,
            now.identity_full,
            now.no_role,
            now.orphan_fragments,
        ];
        let now: Vec<u64> = rows.into_iter().chain(now.unparsed).collect();
        let before = std::mem::replace(&mut self.datapath, now);
        CounterReport {
            namespace: "".into(),
            context_id: "".into(),
            counters: differences(&self.datapath_names, &before, &self.datapath),
        }
    }
}

fn sum(one: &[DirectionCounters; 2], other: &[DirectionCounters; 2]) -> [DirectionCounters; 2] {
    let mut sum = *one;
    for (into, from) in sum.iter_mut().zip(other) {
        into.packets += from.packets;
        into.bytes += from.bytes;
        into.skbs += from.skbs;
    }
    sum
}

fn differences(names: &[Text], before: &[u64], now: &[u64]) -> Vec<Counters> {
    let before = before.iter().copied().chain(std::iter::repeat(0));
    let values = now.iter().zip(before).map(|(now, before)| now.wrapping_sub(before));
    names.iter().zip(values).map(|(name, value)| Counters { name: name.clone(), value }).collect()
}

#[cfg(test)]
mod tests {
    use collector_ebpf::abi::counter::{Ledger, PuCounters, UNPARSED_REASONS};

    use super::Differences;
    use crate::aggregate::drops::OfUnit;
    use crate::{aggregate::booking::Credit, pu::registry::Registry};

    #[test]
    fn reports_are_differences_in_a_fixed_order() {
        let registry = Registry::new(&[]).unwrap();
        let host = registry.get(1).unwrap();
        let mut differences = Differences::default();
        let mut counters = PuCounters::default();
        counters.flowless[0].packets = 5;
        let report = differences.unit(host, &counters, &Credit::default(), &OfUnit::default());
        let names: Vec<_> = report.counters.iter().map(|counter| &*counter.name).collect();
        assert_eq!(names[..4], ["rx_packets", "rx_bytes", "tx_packets", "tx_bytes"]);
        assert_eq!((report.counters[0].value, report.counters[1].value), (5, 0));
        counters.flowless[0].packets = 7;
        assert_eq!(
            differences.unit(host, &counters, &Credit::default(), &OfUnit::default()).counters[0].value,
            2
        );
        assert_eq!(
            differences.unit(host, &counters, &Credit::default(), &OfUnit::default()).counters[0].value,
            0
        );
    }

    #[test]
    fn a_units_total_is_what_its_flows_hold_and_what_none_does() {
        let registry = Registry::new(&[]).unwrap();
        let host = registry.get(1).unwrap();
        let (mut counters, mut credit) = (PuCounters::default(), Credit::default());
        counters.flowless[0].packets = 5;
        counters.local[1].bytes = 100;
        credit.boundary[0].packets = 2;
        credit.local[1].bytes = 11;
        let report = Differences::default().unit(host, &counters, &credit, &OfUnit::default());
        let value = |name: &str| report.counters.iter().find(|it| &*it.name == name).map(|it| it.value);
        assert_eq!((value("rx_packets"), value("local_tx_bytes")), (Some(7), Some(111)));
    }

    #[test]
    fn the_difference_is_right_across_a_wrap() {
        let registry = Registry::new(&[]).unwrap();
        let host = registry.get(1).unwrap();
        let mut differences = Differences::default();
        let mut counters = PuCounters::default();
        counters.flowless[1].bytes = u64::MAX - 9;
        differences.unit(host, &counters, &Credit::default(), &OfUnit::default());
        counters.flowless[1].bytes = 90;
        assert_eq!(
            differences.unit(host, &counters, &Credit::default(), &OfUnit::default()).counters[3].value,
            100
        );
    }

    #[test]
    fn the_datapath_reports_every_reason() {
        let mut differences = Differences::default();
        let report =
            differences.datapath(&Ledger { seen: 3, unparsed: [1; UNPARSED_REASONS], ..Ledger::default() });
        assert_eq!((report.counters.len(), &*report.context_id), (10 + UNPARSED_REASONS, ""));
        assert_eq!((&*report.counters[12].name, report.counters[12].value), ("unparsed_arp", 1));
    }
}

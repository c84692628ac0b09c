//! Counter reports: what has been counted since the report before, all names in a fixed order, zeros included.

use std::collections::BTreeMap;

use collector_ebpf::abi::counter::{Ledger, PuCounters, Unparsed};

use crate::{
    event::{CounterReport, Counters, Text},
    pu::registry::Unit,
};

/// The names of a unit's counters, in the order of its reports.
const UNIT: [&str; 12] = [
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
];

/// The names of the datapath's own counters that come before the unparsed frames by reason.
const DATAPATH: [&str; 8] = [
    "seen",
    "looped",
    "table_full",
    "rate_limited",
    "reserve_failed",
    "reported",
    "identity_full",
    "no_role",
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
    /// The report of a unit that has counted `now` in all.
    pub fn unit(&mut self, unit: &Unit, now: &PuCounters) -> CounterReport {
        let [rx, tx] = now.direction;
        let now = [
            rx.packets,
            rx.bytes,
            tx.packets,
            tx.bytes,
            rx.skbs,
            tx.skbs,
            rx.flowless_packets,
            rx.flowless_bytes,
            tx.flowless_packets,
            tx.flowless_bytes,
            now.flows,
            now.rate_limited,
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
            now.table_full,
            now.rate_limited,
            now.reserve_failed,
            now.reported,
            now.identity_full,
            now.no_role,
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

fn differences(names: &[Text], before: &[u64], now: &[u64]) -> Vec<Counters> {
    let before = before.iter().copied().chain(std::iter::repeat(0));
    let values = now.iter().zip(before).map(|(now, before)| now.wrapping_sub(before));
    names.iter().zip(values).map(|(name, value)| Counters { name: name.clone(), value }).collect()
}

#[cfg(test)]
mod tests {
    use collector_ebpf::abi::counter::{Ledger, PuCounters};

    use super::Differences;
    use crate::pu::registry::Registry;

    #[test]
    fn reports_are_differences_in_a_fixed_order() {
        let registry = Registry::new(&[]).unwrap();
        let host = registry.get(1).unwrap();
        let mut differences = Differences::default();
        let mut counters = PuCounters::default();
        counters.direction[0].packets = 5;
        let report = differences.unit(host, &counters);
        let names: Vec<_> = report.counters.iter().map(|counter| &*counter.name).collect();
        assert_eq!(names[..4], ["rx_packets", "rx_bytes", "tx_packets", "tx_bytes"]);
        assert_eq!((report.counters[0].value, report.counters[1].value), (5, 0));
        counters.direction[0].packets = 7;
        assert_eq!(differences.unit(host, &counters).counters[0].value, 2);
        assert_eq!(differences.unit(host, &counters).counters[0].value, 0);
    }

    #[test]
    fn the_difference_is_right_across_a_wrap() {
        let registry = Registry::new(&[]).unwrap();
        let host = registry.get(1).unwrap();
        let mut differences = Differences::default();
        let mut counters = PuCounters::default();
        counters.direction[1].bytes = u64::MAX - 9;
        differences.unit(host, &counters);
        counters.direction[1].bytes = 90;
        assert_eq!(differences.unit(host, &counters).counters[3].value, 100);
    }

    #[test]
    fn the_datapath_reports_every_reason() {
        let mut differences = Differences::default();
        let report = differences.datapath(&Ledger { seen: 3, unparsed: [1; 11], ..Ledger::default() });
        assert_eq!((report.counters.len(), &*report.context_id), (19, ""));
        assert_eq!((&*report.counters[10].name, report.counters[10].value), ("unparsed_arp", 1));
    }
}

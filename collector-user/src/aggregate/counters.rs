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
/// its packets are divided by class. `rejected` are those that the unit's own policies rejected and that were dropped for it.
const UNIT: [&str; 33] = [
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
    "rejected_rx_packets",
    "rejected_tx_packets",
    "table_full",
    "output_failed",
];

/// The names of the datapath's own counters that come before the unparsed frames by reason.
const DATAPATH: [&str; 11] = [
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
    "rejected",
];

/// What has been counted by an index up to now.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted {
    /// What no flow holds.
    pub flowless: PuCounters,
    /// What its flows have counted.
    pub credit: Credit,
    /// What the kernel dropped of it.
    pub dropped: OfUnit,
}

/// A unit's counters, in the order of [`UNIT`].
type Row = [u64; UNIT.len()];

/// Remembers what was reported last.
#[derive(Debug)]
pub struct Differences {
    unit_names: Vec<Text>,
    datapath_names: Vec<Text>,
    indexes: BTreeMap<u16, Row>,
    /// What was reported of each unit in all, by its own index.
    units: BTreeMap<u16, Row>,
    datapath: Vec<u64>,
}

impl Default for Differences {
    fn default() -> Self {
        let reasons = Unparsed::ALL.iter().map(|reason| format!("unparsed_{}", reason.name()).into());
        Self {
            unit_names: UNIT.iter().map(|name| (*name).into()).collect(),
            datapath_names: DATAPATH.iter().map(|name| (*name).into()).chain(reasons).collect(),
            indexes: BTreeMap::new(),
            units: BTreeMap::new(),
            datapath: Vec::new(),
        }
    }
}

impl Differences {
    /// Takes in what was counted by an index, for the unit that it is of now; whether that is more than before.
    pub fn count(&mut self, index: u16, unit: u16, counted: &Counted, period: &mut Period) -> bool {
        let now = row(counted);
        let difference = self.since_reported(index, &now);
        self.indexes.insert(index, now);
        add(&mut period.units, unit, &difference);
        add(&mut self.units, unit, &difference);
        difference != [0; UNIT.len()]
    }

    /// Looks at what was counted by an index, for the unit that it is of now, and leaves it to the next report.
    pub fn look(&self, index: u16, unit: u16, counted: &Counted, period: &mut Period) {
        add(&mut period.units, unit, &self.since_reported(index, &row(counted)));
    }

    /// What was counted by an index since that was [taken in](Self::count).
    fn since_reported(&self, index: u16, now: &Row) -> Row {
        let before = self.indexes.get(&index).unwrap_or(&[0; UNIT.len()]);
        std::array::from_fn(|at| {
            let of = |row: &Row| row.get(at).copied().unwrap_or_default();
            of(now).wrapping_sub(of(before))
        })
    }

    /// The report of a unit for a period in which all its indexes were [counted](Self::count).
    pub fn unit(&self, unit: &Unit, period: &Period) -> CounterReport {
        let values = period.units.get(&unit.index).copied().unwrap_or([0; UNIT.len()]);
        CounterReport {
            namespace: unit.namespace.clone(),
            context_id: unit.id.clone(),
            counters: named(&self.unit_names, values),
        }
    }

    /// What was counted of the unit with this index in all, where a period has what was only [looked](Self::look) at.
    pub fn total(&self, unit: u16, unreported: &Period) -> Vec<Counters> {
        let of = |rows: &BTreeMap<u16, Row>| rows.get(&unit).copied().unwrap_or([0; UNIT.len()]);
        let (reported, more) = (of(&self.units), of(&unreported.units));
        named(&self.unit_names, reported.into_iter().zip(more).map(|(one, other)| one.wrapping_add(other)))
    }

    /// The unit is no more: its index may be another's.
    pub fn forget(&mut self, unit: u16) {
        self.units.remove(&unit);
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
            now.rejected,
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

/// What was counted for each unit since the report before.
#[derive(Debug, Default)]
pub struct Period {
    units: BTreeMap<u16, Row>,
}

impl Period {
    /// Whether nothing was counted for a unit.
    pub fn is_silent(&self, unit: u16) -> bool {
        self.units.get(&unit).is_none_or(|row| *row == [0; UNIT.len()])
    }
}

fn row(counted: &Counted) -> Row {
    let Counted { flowless: now, credit, dropped } = counted;
    let [rx, tx] = sum(&now.flowless, &credit.boundary);
    let [rx_flowless, tx_flowless] = now.flowless;
    let [unknown, policy, no_socket, malformed, resource, route, not_for_us, end_of_life] = dropped.classes;
    let [local_rx, local_tx] = sum(&now.local, &credit.local);
    let [rejected_rx, rejected_tx] = now.rejected;
    [
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
        rejected_rx,
        rejected_tx,
        now.table_full,
        now.output_failed,
    ]
}

/// Adds to a unit's row.
fn add(rows: &mut BTreeMap<u16, Row>, unit: u16, difference: &Row) {
    for (into, from) in rows.entry(unit).or_insert([0; UNIT.len()]).iter_mut().zip(difference) {
        *into = into.wrapping_add(*from);
    }
}

fn named(names: &[Text], values: impl IntoIterator<Item = u64>) -> Vec<Counters> {
    names.iter().zip(values).map(|(name, value)| Counters { name: name.clone(), value }).collect()
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
    named(names, now.iter().zip(before).map(|(now, before)| now.wrapping_sub(before)))
}

#[cfg(test)]
mod tests {
    use collector_ebpf::abi::counter::{Ledger, UNPARSED_REASONS};

    use super::{Counted, Differences, Period};
    use crate::pu::registry::Registry;

    /// What is reported of a unit that has counted by one index.
    fn report(differences: &mut Differences, counted: &Counted) -> Vec<(String, u64)> {
        let registry = Registry::new(&[]).unwrap();
        let mut period = Period::default();
        differences.count(1, 1, counted, &mut period);
        let report = differences.unit(registry.get(1).unwrap(), &period);
        report.counters.iter().map(|counter| (counter.name.to_string(), counter.value)).collect()
    }

    fn value(report: &[(String, u64)], name: &str) -> u64 {
        report.iter().find(|(it, _)| it == name).unwrap().1
    }

    #[test]
    fn reports_are_differences_in_a_fixed_order() {
        let mut differences = Differences::default();
        let mut counted = Counted::default();
        counted.flowless.flowless[0].packets = 5;
        let first = report(&mut differences, &counted);
        let names: Vec<_> = first.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names[..4], ["rx_packets", "rx_bytes", "tx_packets", "tx_bytes"]);
        assert_eq!((first[0].1, first[1].1), (5, 0));
        counted.flowless.flowless[0].packets = 7;
        assert_eq!(report(&mut differences, &counted)[0].1, 2);
        assert_eq!(report(&mut differences, &counted)[0].1, 0);
        assert_eq!(differences.total(1, &Period::default())[0].value, 7);
    }

    #[test]
    fn a_units_total_is_what_its_flows_hold_and_what_none_does() {
        let mut counted = Counted::default();
        counted.flowless.flowless[0].packets = 5;
        counted.flowless.local[1].bytes = 100;
        counted.credit.boundary[0].packets = 2;
        counted.credit.local[1].bytes = 11;
        let report = report(&mut Differences::default(), &counted);
        assert_eq!((value(&report, "rx_packets"), value(&report, "local_tx_bytes")), (7, 111));
    }

    #[test]
    fn the_difference_is_right_across_a_wrap() {
        let mut differences = Differences::default();
        let mut counted = Counted::default();
        counted.flowless.flowless[1].bytes = u64::MAX - 9;
        report(&mut differences, &counted);
        counted.flowless.flowless[1].bytes = 90;
        assert_eq!(report(&mut differences, &counted)[3].1, 100);
    }

    #[test]
    fn what_an_index_has_counted_is_reported_once_whosever_it_is() {
        let mut differences = Differences::default();
        let mut counted = Counted::default();
        counted.flowless.flowless[0].packets = 5;
        let mut period = Period::default();
        // First it stood for `unknown`, then it was found to be of the unit 102, which has an index of its own.
        assert!(differences.count(101, 3, &counted, &mut period));
        assert_eq!((period.is_silent(3), period.is_silent(102)), (false, true));
        counted.flowless.flowless[0].packets = 7;
        let mut period = Period::default();
        assert!(differences.count(101, 102, &counted, &mut period));
        assert!(differences.count(102, 102, &counted, &mut period));
        assert!(period.is_silent(3));
        assert_eq!([3, 102].map(|unit| differences.total(unit, &Period::default())[0].value), [5, 9]);
        assert!(!differences.count(101, 102, &counted, &mut period));
    }

    #[test]
    fn what_is_looked_at_is_in_the_total_and_in_the_next_report_all_the_same() {
        let mut differences = Differences::default();
        let mut counted = Counted::default();
        let total = |differences: &Differences, counted: &Counted| {
            let mut unreported = Period::default();
            differences.look(1, 1, counted, &mut unreported);
            differences.total(1, &unreported)[0].value
        };
        counted.flowless.flowless[0].packets = 5;
        assert_eq!(
            [total(&differences, &counted), total(&differences, &counted)],
            [5, 5],
            "each look is the same"
        );
        assert_eq!((report(&mut differences, &counted)[0].1, total(&differences, &counted)), (5, 5));
        counted.flowless.flowless[0].packets = 12;
        assert_eq!(
            (total(&differences, &counted), differences.total(1, &Period::default())[0].value),
            (12, 5)
        );
        assert_eq!((report(&mut differences, &counted)[0].1, total(&differences, &counted)), (7, 12));
        assert_eq!(differences.total(1, &Period::default()).len(), super::UNIT.len());
        assert_eq!(differences.total(2, &Period::default())[0].value, 0, "of whom nothing was counted");
    }

    #[test]
    fn the_datapath_reports_every_reason() {
        let mut differences = Differences::default();
        let report =
            differences.datapath(&Ledger { seen: 3, unparsed: [1; UNPARSED_REASONS], ..Ledger::default() });
        assert_eq!((report.counters.len(), &*report.context_id), (11 + UNPARSED_REASONS, ""));
        assert_eq!((&*report.counters[13].name, report.counters[13].value), ("unparsed_arp", 1));
    }
}

//! Sums over what a collector was told.

use std::net::IpAddr;

use collector_user::event::{EndPoint, Event, FlowRecord};

/// Sums over records of flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// From source to destination.
    pub packets: u64,
    /// From source to destination.
    pub bytes: u64,
    /// From destination to source.
    pub reply_packets: u64,
    /// From destination to source.
    pub reply_bytes: u64,
    /// Connections begun.
    pub count: u64,
}

/// All flow records of what was counted, in their order.
pub fn flows(events: &[Event]) -> impl Iterator<Item = &FlowRecord> {
    all_flows(events).filter(|flow| flow.dropped_packets == 0)
}

/// The records of packets that the kernel dropped.
pub fn rejected(events: &[Event]) -> impl Iterator<Item = &FlowRecord> {
    all_flows(events).filter(|flow| flow.dropped_packets > 0)
}

fn all_flows(events: &[Event]) -> impl Iterator<Item = &FlowRecord> {
    events.iter().filter_map(|event| match event {
        Event::Flow(record) => Some(record),
        _ => None,
    })
}

/// The sums over those flow records that `wanted` says yes to.
pub fn total(events: &[Event], wanted: impl Fn(&FlowRecord) -> bool) -> Totals {
    flows(events).filter(|record| wanted(record)).fold(Totals::default(), |sum, record| Totals {
        packets: sum.packets + record.packets,
        bytes: sum.bytes + record.bytes,
        reply_packets: sum.reply_packets + record.reply_packets,
        reply_bytes: sum.reply_bytes + record.reply_bytes,
        count: sum.count + record.count,
    })
}

/// Whether a record is of a flow of `protocol` to `port`.
pub fn is_to(record: &FlowRecord, protocol: u8, port: u16) -> bool {
    record.l4_protocol == protocol && port_of(record.destination.as_ref()) == port
}

/// The address of an end.
pub fn ip_of(end: Option<&EndPoint>) -> Option<IpAddr> {
    end.and_then(|end| end.ip)
}

/// The port of an end.
pub fn port_of(end: Option<&EndPoint>) -> u16 {
    end.map_or(0, |end| end.port)
}

/// By how much a counter of a unit grew in all.
pub fn counter(events: &[Event], unit: &str, name: &str) -> u64 {
    let of_unit = events.iter().filter_map(|event| match event {
        Event::Counter(report) if &*report.context_id == unit => Some(report),
        _ => None,
    });
    of_unit
        .flat_map(|report| &report.counters)
        .filter(|counter| &*counter.name == name)
        .map(|it| it.value)
        .sum()
}

/// The same over all units: what their common boundary has counted.
pub fn counter_of_all(events: &[Event], name: &str) -> u64 {
    let of_units = events.iter().filter_map(|event| match event {
        Event::Counter(report) if !report.context_id.is_empty() => Some(report),
        _ => None,
    });
    of_units
        .flat_map(|report| &report.counters)
        .filter(|counter| &*counter.name == name)
        .map(|it| it.value)
        .sum()
}

/// What a unit received and sent: packets and octets received, then sent.
pub fn unit(events: &[Event], unit: &str) -> [u64; 4] {
    ["rx_packets", "rx_bytes", "tx_packets", "tx_bytes"].map(|name| counter(events, unit, name))
}

/// The same of what a unit's sockets exchanged on this host.
pub fn local(events: &[Event], unit: &str) -> [u64; 4] {
    ["local_rx_packets", "local_rx_bytes", "local_tx_packets", "local_tx_bytes"]
        .map(|name| counter(events, unit, name))
}

/// The same over all units.
pub fn all_units(events: &[Event]) -> [u64; 4] {
    ["rx_packets", "rx_bytes", "tx_packets", "tx_bytes"].map(|name| counter_of_all(events, name))
}

//! All that a collector has to report of what a test did: its flows, and the counters of every unit.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use collector_user::event::{Event, FlowRecord, Unseen};

use crate::{
    collector::Finished,
    events::{self, Totals},
    lab::LinkCounters,
    talk::Talk,
};

/// Packets and octets received, then sent.
type Counts = [u64; 4];

/// A flow, by unit, protocol, VLAN, source and destination.
type Flow = (String, u8, u16, Option<SocketAddr>, Option<SocketAddr>);

/// What is to be reported. What no line says is nothing: a unit without one counts nothing.
#[derive(Clone, Debug, Default)]
pub struct Books {
    flows: BTreeMap<Flow, Totals>,
    /// At boundaries, and in the class `local`.
    counters: BTreeMap<String, [Counts; 2]>,
}

const BOUNDARY: usize = 0;
const LOCAL: usize = 1;

impl Books {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// A unit asked: its flow, and its counters.
    pub fn asked(&mut self, unit: &str, talk: &Talk) -> &mut Self {
        self.flow(unit, talk).count(unit, BOUNDARY, talk.of_source())
    }

    /// A unit was asked: its flow, and its counters.
    pub fn was_asked(&mut self, unit: &str, talk: &Talk) -> &mut Self {
        self.flow(unit, talk).count(unit, BOUNDARY, talk.of_destination())
    }

    /// A unit's socket on this host asked what is another unit's flow.
    pub fn asked_here(&mut self, unit: &str, talk: &Talk) -> &mut Self {
        self.count(unit, LOCAL, talk.of_source())
    }

    /// A unit's socket on this host was asked by what is another unit's flow.
    pub fn was_asked_here(&mut self, unit: &str, talk: &Talk) -> &mut Self {
        self.count(unit, LOCAL, talk.of_destination())
    }

    /// A flow of a unit's.
    ///
    /// # Panics
    ///
    /// It stands there already.
    pub fn flow(&mut self, unit: &str, talk: &Talk) -> &mut Self {
        let Talk { protocol, vlan, source, destination, forth, back, begun } = *talk;
        let flow = (unit.to_owned(), protocol, vlan, Some(source), Some(destination));
        let totals = Totals {
            packets: forth.packets,
            bytes: forth.bytes,
            reply_packets: back.packets,
            reply_bytes: back.bytes,
            count: begun,
        };
        assert_eq!(self.flows.insert(flow, totals), None, "two flows of the same ends: {talk:?}");
        self
    }

    /// Counters at a unit's boundary alone.
    pub fn counts(&mut self, unit: &str, counts: Counts) -> &mut Self {
        self.count(unit, BOUNDARY, counts)
    }

    fn count(&mut self, unit: &str, class: usize, counts: Counts) -> &mut Self {
        let all = self.counters.entry(unit.to_owned()).or_default();
        for (sum, count) in all[class].iter_mut().zip(counts) {
            *sum += count;
        }
        self
    }

    /// Without the flows of a unit.
    #[must_use]
    pub fn without_flows_of(mut self, unit: &str) -> Self {
        self.flows.retain(|(of, ..), _| of != unit);
        self
    }

    /// Says where the events are others, if they are: each flow and each unit's counters, and none besides.
    ///
    /// # Panics
    ///
    /// They are.
    pub fn assert_kept(&self, finished: &Finished) {
        // By whose name and in what order a flow was told says where a packet went that is missing.
        let records: Vec<_> = finished.events.iter().filter(|it| matches!(it, Event::Flow(_))).collect();
        assert_eq!(
            flows(&finished.events),
            self.flows,
            "flows: reported, expected; records {records:#?} {:?}",
            finished.status.ledger
        );
        let reported = finished.events.iter().filter_map(|event| match event {
            Event::Counter(report) if !report.context_id.is_empty() => Some(report.context_id.to_string()),
            _ => None,
        });
        let mut reported: BTreeMap<String, [Counts; 2]> = reported
            .map(|unit| {
                let counts = [events::unit(&finished.events, &unit), events::local(&finished.events, &unit)];
                (unit, counts)
            })
            .collect();
        reported.retain(|_, counts| *counts != <[Counts; 2]>::default());
        assert_eq!(
            reported, self.counters,
            "counters at boundaries and in the class `local`: reported, expected"
        );
    }
}

fn flows(events: &[Event]) -> BTreeMap<Flow, Totals> {
    let mut flows: BTreeMap<_, Totals> = BTreeMap::new();
    for record in events::flows(events) {
        let of = |end| events::ip_of(end).map(|ip: IpAddr| SocketAddr::new(ip, events::port_of(end)));
        let FlowRecord { context_id, l4_protocol, vlan, source, destination, .. } = record;
        let flow =
            (context_id.to_string(), *l4_protocol, *vlan, of(source.as_ref()), of(destination.as_ref()));
        let sum = flows.entry(flow).or_default();
        sum.packets += record.packets;
        sum.bytes += record.bytes;
        sum.reply_packets += record.reply_packets;
        sum.reply_bytes += record.reply_bytes;
        sum.count += record.count;
    }
    flows
}

/// The ledger explains every buffer, and nothing was lost, nor passed unseen.
///
/// # Panics
///
/// It does not, or something was.
pub fn assert_balanced(finished: &Finished) {
    assert_explained(finished);
    for interface in &finished.status.interfaces {
        assert_eq!(interface.unseen.unwrap_or_default(), Unseen::default(), "{interface:?}");
    }
}

/// The ledger explains every buffer and every drop, and nothing was lost.
///
/// # Panics
///
/// It does not, or something was.
pub fn assert_explained(finished: &Finished) {
    let ledger = &finished.status.ledger;
    assert_eq!(ledger.seen, ledger.explained(), "{ledger:?}");
    assert_eq!(
        ledger.drops_seen,
        ledger.drops_counted + ledger.drops_no_packet + ledger.drops_table_full,
        "{ledger:?}"
    );
    assert_eq!(ledger.drops_of_units, ledger.drops_explained(), "{ledger:?}");
    let told = finished.status.drops.iter().filter(|row| !row.puid.is_empty());
    assert_eq!(ledger.drops_of_units, told.map(|row| row.skbs).sum::<u64>(), "{ledger:?}");
    // Other hosts on this kernel drop as well, and where one of them interrupts another, nobody is told whose that was.
    let losses: Vec<_> = ledger.losses().into_iter().filter(|(name, _)| name != "drops_skipped").collect();
    assert!(losses.is_empty(), "{losses:?}");
}

/// What the units that are counted at uplinks have counted is what crossed those.
///
/// # Panics
///
/// It is not.
pub fn assert_sum_at_uplinks(finished: &Finished, units: &[&str], links: &[LinkCounters]) {
    let mut sum = [0; 4];
    for unit in units {
        for (sum, count) in sum.iter_mut().zip(events::unit(&finished.events, unit)) {
            *sum += count;
        }
    }
    let mut crossed = [0; 4];
    for link in links {
        let counts = [link.rx_packets, link.rx_bytes, link.tx_packets, link.tx_bytes];
        for (sum, count) in crossed.iter_mut().zip(counts) {
            *sum += count;
        }
    }
    assert_eq!(sum, crossed, "packets and octets received, then sent: all units at uplinks, the interfaces");
}

//! What the kernel had dropped, where a capture says so: reports, records of flows and rows, as a live run tells them.

use std::collections::BTreeMap;

use bytes::Bytes;
use collector_ebpf::abi::{
    packet::{PacketRecord, end, event, link},
    pu::index,
};

use super::{Replay, packet};
use crate::{
    aggregate::{
        drops::{
            OfUnit,
            meaning::{self, Meaning},
            rejected::Rejected,
        },
        packets::report,
    },
    drain::decode::Packet,
    event::{DropClass, Dropped, Ledger, Text},
    pu::{registry::Registry, trace::DEFAULT_SNAPLEN},
    read::container::{DropNote, Record, links},
};

/// Rows at most, as many as a live run has: a capture may say what it likes.
const MOST_ROWS: usize = 16_384;

/// What the place of a drop by this collector's own program at XDP is called.
const OWN: &str = "xdp_ingress";

/// Whose, why and where.
type Key = (u16, Text, Text);

/// Drops, until they are told.
#[derive(Debug, Default)]
pub(super) struct Drops {
    rows: BTreeMap<Key, Row>,
    rejected: Rejected,
    seen: u64,
    /// Those for which there was no row.
    uncounted: u64,
    reports: u64,
    /// Those that nobody misses: they have no report.
    folded: u64,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    meaning: Meaning,
    packets: u64,
    skbs: u64,
    bytes: u64,
}

impl Drops {
    /// One more of a row.
    fn count(&mut self, key: Key, meaning: Meaning, record: &Record<'_>) {
        if self.rows.len() >= MOST_ROWS && !self.rows.contains_key(&key) {
            self.uncounted += 1;
            return;
        }
        let row = self.rows.entry(key).or_insert(Row { meaning, packets: 0, skbs: 0, bytes: 0 });
        row.packets += u64::from(record.marks.packets);
        row.skbs += 1;
        row.bytes += u64::from(record.length);
    }

    /// All that was dropped of a unit.
    pub(super) fn of_unit(&self, pu: u16) -> OfUnit {
        let mut sum = OfUnit::default();
        for (_, row) in self.rows.iter().filter(|((unit, ..), _)| *unit == pu) {
            sum.packets += row.packets;
            sum.bytes += row.bytes;
            for (class, packets) in DropClass::ALL.iter().zip(&mut sum.classes) {
                *packets += if *class == row.meaning.class { row.packets } else { 0 };
            }
        }
        sum
    }

    /// The rows in words, those with the most drops first.
    pub(super) fn rows(&self, units: &Registry) -> Vec<Dropped> {
        let told = self.rows.iter().map(|((pu, reason, place), row)| {
            let unit = units.get(*pu);
            Dropped {
                puid: unit.map(|unit| unit.id.clone()).unwrap_or_default(),
                namespace: unit.map(|unit| unit.namespace.clone()).unwrap_or_default(),
                kernel_reason: reason.clone(),
                place: place.clone(),
                class: row.meaning.class,
                drop_reason: row.meaning.word.into(),
                advice: row.meaning.advice.into(),
                packets: row.packets,
                skbs: row.skbs,
                bytes: row.bytes,
            }
        });
        let mut told: Vec<_> = told.collect();
        told.sort_by_key(|row| std::cmp::Reverse(row.packets));
        told
    }

    /// What became of them.
    pub(super) fn ledger(&self) -> Ledger {
        let counted = self.seen - self.uncounted;
        Ledger {
            captured_drops: self.seen,
            drops_seen: self.seen,
            drops_counted: counted,
            drops_table_full: self.uncounted,
            // Each is somebody's, be it `unknown`'s.
            drops_of_units: counted,
            drop_reports: self.reports,
            drop_reports_folded: self.folded,
            drop_flows_lost: self.rejected.lost,
            ..Ledger::default()
        }
    }
}

impl Replay<'_> {
    /// Takes a frame in that the kernel had dropped.
    pub(super) fn drop(&mut self, record: &Record<'_>, note: &DropNote<'_>) {
        self.drops.seen += 1;
        let [reason, place] = [note.reason, note.place].map(DropNote::plain);
        // The word of a kernel that gives no reasons is of the capture, not of the kernel.
        let reason = if reason == "unknown" { "" } else { &*reason };
        let function = place.split_once('+').map_or(&*place, |(function, _)| function);
        let meaning = if function == OWN { meaning::BY_OWN_POLICY } else { meaning::of(reason, function) };
        let (pu, end) = self.whose_drop(record, note);
        let before = self.drops.uncounted;
        self.drops.count((pu, reason.into(), place.as_str().into()), meaning, record);
        if self.drops.uncounted != before {
            return;
        }
        if meaning.class.is_benign() {
            self.drops.folded += 1;
            return;
        }
        self.drops.reports += 1;
        let packet = as_reported(record, pu, end, self.now);
        let mut report = report(&packet, DEFAULT_SNAPLEN.into(), "".into(), &self.units, &self.moment);
        report.kernel_reason = reason.into();
        report.drop_place = place.as_str().into();
        report.drop_class = meaning.class;
        report.drop_reason = meaning.word.into();
        report.advice = meaning.advice.into();
        self.drops.rejected.add(&packet.record, &report);
        self.collector.collect_packet_event(&report);
    }

    /// Whose a drop is: the unit's that the capture names, where there is one of that name; otherwise by its addresses. And which
    /// end of it that is.
    fn whose_drop(&self, record: &Record<'_>, note: &DropNote<'_>) -> (u16, u8) {
        let named = self.units.of_id(&DropNote::plain(note.unit)).map(|unit| unit.index);
        let (_, read) = packet::read(record);
        let Ok(packet) = read else {
            return (named.unwrap_or(index::UNKNOWN), end::NEITHER);
        };
        let whose = self.locals.of(&packet.key, record.direction, 0);
        let end = match named.unwrap_or(whose.pu) {
            index::FORWARDED => end::NEITHER,
            _ if whose.sent => end::SOURCE,
            _ => end::DESTINATION,
        };
        (named.unwrap_or(whose.pu), end)
    }

    /// Hands over the flow records of what was dropped.
    pub(super) fn tell_rejected(&mut self) {
        let Self { drops, flows, scribe, units, moment, collector, .. } = self;
        for (key, row) in drops.rejected.take() {
            let known = flows.opened(&key.flow());
            collector.collect_flow_event(&scribe.rejected(&key, &row, known, units, moment));
        }
    }
}

/// A frame as the drop program would have told it.
fn as_reported(record: &Record<'_>, pu: u16, end: u8, boot_ns: u64) -> Packet {
    let link = match record.link {
        links::ETHERNET => link::ETHERNET,
        links::RAW => link::RAW_IP,
        _ => link::NONE,
    };
    let octets = if link == link::NONE { &[] } else { record.octets };
    Packet {
        record: PacketRecord {
            boot_ns,
            length: record.length,
            captured: octets.len() as u32,
            packets: record.marks.packets,
            pu,
            event: event::DROPPED,
            link,
            end,
            ..PacketRecord::default()
        },
        octets: Bytes::copy_from_slice(octets),
    }
}

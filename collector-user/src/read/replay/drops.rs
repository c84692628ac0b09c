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

/// Rows at most: a capture may say what it likes.
const MOST_ROWS: usize = 16_384;

/// Whose, why and where.
type Key = (u16, Text, Text);

/// Drops, until they are told.
#[derive(Debug, Default)]
pub(super) struct Drops {
    rows: BTreeMap<Key, Row>,
    units: BTreeMap<u16, OfUnit>,
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
    /// One more of a row; `false` where there is no room for that.
    fn count(&mut self, key: Key, meaning: Meaning, record: &Record<'_>) -> bool {
        if self.rows.len() >= MOST_ROWS && !self.rows.contains_key(&key) {
            self.uncounted += 1;
            return false;
        }
        let (packets, bytes) = (u64::from(record.marks.packets), u64::from(record.length));
        let unit = self.units.entry(key.0).or_default();
        unit.packets += packets;
        unit.bytes += bytes;
        for (class, sum) in DropClass::ALL.iter().zip(&mut unit.classes) {
            *sum += if *class == meaning.class { packets } else { 0 };
        }
        let row = self.rows.entry(key).or_insert(Row { meaning, packets: 0, skbs: 0, bytes: 0 });
        row.packets += packets;
        row.skbs += 1;
        row.bytes += bytes;
        true
    }

    /// All that was dropped of a unit.
    pub(super) fn of_unit(&self, pu: u16) -> OfUnit {
        self.units.get(&pu).copied().unwrap_or_default()
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
            drop_flows_lost: self.rejected.lost(),
            ..Ledger::default()
        }
    }
}

impl Replay<'_> {
    /// Takes a frame in that the kernel had dropped.
    pub(super) fn take_dropped(&mut self, record: &Record<'_>, note: &DropNote<'_>) {
        self.drops.seen += 1;
        // `unknown` is the capture's word for a kernel that gives no reasons.
        let reason = DropNote::plain(if note.reason == "unknown" { "" } else { note.reason });
        let place = DropNote::plain(note.place);
        let function = place.split_once('+').map_or(&*place, |(function, _)| function);
        let meaning = meaning::of(&reason, function);
        let (reason, place): (Text, Text) = (reason.as_str().into(), place.as_str().into());
        let (pu, end) = self.whose_drop(record, note);
        if !self.drops.count((pu, reason.clone(), place.clone()), meaning, record) {
            return;
        }
        if meaning.class.is_benign() {
            self.drops.folded += 1;
            return;
        }
        self.drops.reports += 1;
        let time = record.time.map_or(self.now, |time| self.clock(time));
        let packet = as_reported(record, note, (pu, end), time);
        let mut report = report(&packet, DEFAULT_SNAPLEN.into(), "".into(), &self.units, &self.moment);
        report.kernel_reason = reason;
        report.drop_place = place;
        report.drop_class = meaning.class;
        report.drop_reason = meaning.word.into();
        report.advice = meaning.advice.into();
        // Nobody bounds what a capture has of one unit, and nothing has to wait.
        if self.drops.rejected.should_be_taken() {
            self.tell_rejected();
        }
        self.drops.rejected.add(&packet.record, &report);
        self.collector.collect_packet_event(&report);
    }

    /// Whose a drop is, and which end of it that is: the declared unit's that the capture names; otherwise whose an address is; and
    /// where that is nobody's, whose the capture says. A dropped packet has no direction.
    fn whose_drop(&self, record: &Record<'_>, note: &DropNote<'_>) -> (u16, u8) {
        let named = self.units.of_id(&DropNote::plain(note.unit)).map(|unit| unit.index);
        let (_, read) = packet::read(record);
        let ends = read.map_or([None, None], |packet| self.locals.of_ends(&packet.key));
        let sides = [(ends[1], end::DESTINATION), (ends[0], end::SOURCE)];
        let end_of = |pu| sides.iter().find(|(of, _)| *of == Some(pu)).map_or(end::NEITHER, |(_, end)| *end);
        if let Some(declared) = named.filter(|pu| *pu >= index::FIRST) {
            return (declared, end_of(declared));
        }
        let by_address = sides.iter().find_map(|(of, end)| of.map(|pu| (pu, *end)));
        by_address.unwrap_or((named.unwrap_or(index::UNKNOWN), end::NEITHER))
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

/// A frame as the drop program would have told it of a unit, which is that end of it; its beginning, for all that is looked at.
fn as_reported(record: &Record<'_>, note: &DropNote<'_>, (pu, end): (u16, u8), boot_ns: u64) -> Packet {
    /// Beside what is told: headers in front, and those that are read behind them.
    const HEADERS: usize = 256;
    let link = match record.link {
        links::ETHERNET => link::ETHERNET,
        links::RAW => link::RAW_IP,
        _ => link::NONE,
    };
    let octets = if link == link::NONE { &[] } else { record.octets };
    let octets = octets.get(..HEADERS + usize::from(DEFAULT_SNAPLEN)).unwrap_or(octets);
    Packet {
        record: PacketRecord {
            boot_ns,
            mark: note.mark,
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

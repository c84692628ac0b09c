//! Captures as flows: what the programs and the daemon do with packets that pass, done with packets that passed.
//!
//! The parser, what a packet says of its flow ([`collector_ebpf::flow`]), flows over their life ([`aggregate`](crate::aggregate)),
//! units and records are those of a live run; here stand the table that the programs have in the kernel, and who calls whom.
//! Time is the packets' own: the boot clock of all that is shared goes on as they do. A capture that begins before the one before
//! it ended is another run in the same ledger: no flow goes on from there.
//!
//! A capture is taken for an uplink's: the local end is the one whose address is declared to be local, or a unit's; where that
//! is both or neither, the one that the capture's direction says; without one, either, the same for both directions.

mod book;
mod drops;
mod fragments;
mod inside;
mod locals;
mod packet;
mod table;
mod time;
mod waiting;

use std::{sync::Arc, time::Duration};

use collector_ebpf::abi::{
    counter::{DirectionCounters, Ledger as Counted, PuCounters, Unparsed},
    pu::index,
};

use super::{
    backwards::Behind,
    container::Record,
    link::{self, Begin},
};
use crate::{
    aggregate::{
        booking::HostEnd,
        counters::{Counted as OfUnit, Differences, Period},
        flow::Flow,
        flows::Flows,
        lives::Lives,
        record::Scribe,
    },
    clock::Moment,
    collector::EventCollector,
    drain::{
        decode::FlowNews,
        flow::{FlowDelta, FlowId},
    },
    event::{Ledger, Status},
    policy::{
        networks::{ExternalNetwork, Networks},
        verdicts::Verdicts,
    },
    pu::registry::{Declared, Registry, TooMany},
};
use drops::Drops;
use fragments::Fragments;
use inside::Inside;
pub use locals::LocalNetworks;
use locals::Locals;
use table::Table;
use waiting::Sought;

/// What is to be known before the first packet.
#[derive(Clone, Debug)]
pub struct Options {
    /// Declared processing units: what of them is addresses.
    pub units: Vec<Declared>,
    /// Networks that have a name.
    pub networks: Vec<Arc<ExternalNetwork>>,
    /// Addresses of the host that captured.
    pub local: LocalNetworks,
    /// Look inside of tunnels: what they carry is a flow as well.
    pub inner: bool,
    /// Between two records of a flow that lives.
    pub flow_interval: Duration,
    /// Between two counter reports.
    pub counter_interval: Duration,
    /// Flows remembered at most.
    pub most_flows: usize,
}

/// What is odd about a frame, though it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oddity {
    /// It is more than a second older than a frame before it.
    Backwards,
    /// It has no octets.
    Empty,
}

/// Captures that are read as one run.
pub struct Replay<'a> {
    collector: &'a dyn EventCollector,
    units: Registry,
    scribe: Scribe,
    verdicts: Verdicts,
    locals: Locals,
    flows: Flows,
    table: Table,
    waiting: Vec<Sought>,
    fragments: Fragments,
    looks_inside: bool,
    networks: Inside,
    differences: Differences,
    counters: Vec<(u16, PuCounters)>,
    counter_interval: u64,
    /// The time of the latest packet on the clock that only goes forward, in nanoseconds, and when what falls due next.
    now: u64,
    drain_due: u64,
    report_due: u64,
    ledger: Counted,
    cut: u64,
    drops: Drops,
    others: u64,
    backwards: u64,
    /// Packets since the newest that are much older.
    behind: Behind,
    /// Of the latest packet, on both clocks.
    moment: Moment,
    /// The next packet is the first of a capture.
    is_first: bool,
}

impl<'a> Replay<'a> {
    /// Begins; events go to `collector`.
    ///
    /// # Errors
    ///
    /// [`TooMany`].
    pub fn new(options: &Options, collector: &'a dyn EventCollector) -> Result<Self, TooMany> {
        let units = Registry::new(&options.units)?;
        let lives = Lives { report: nanos(options.flow_interval), ..Lives::default() };
        Ok(Self {
            collector,
            locals: Locals::new(&options.local, &units),
            units,
            scribe: Scribe::new(Networks::new(&options.networks)),
            verdicts: Verdicts::default(),
            flows: Flows::new(lives, options.most_flows),
            table: Table::new(options.most_flows),
            waiting: Vec::new(),
            fragments: Fragments::default(),
            looks_inside: options.inner,
            networks: Inside::default(),
            differences: Differences::default(),
            counters: Vec::new(),
            counter_interval: nanos(options.counter_interval),
            now: 0,
            drain_due: 0,
            report_due: 0,
            ledger: Counted::default(),
            cut: 0,
            drops: Drops::default(),
            others: 0,
            backwards: 0,
            behind: Behind::default(),
            moment: Moment { jiffies: 0, boot_ns: 0, wall_ns: 0, hz: 1 },
            is_first: true,
        })
    }

    /// The time of the latest packet, in nanoseconds: since 1970, and on a clock that only goes forward.
    pub const fn now(&self) -> (i64, u64) {
        (self.moment.wall_ns, self.now)
    }

    /// What comes next is the first frame of another capture.
    pub const fn begin_capture(&mut self) {
        self.is_first = true;
    }

    /// Takes a frame in; what is odd about it.
    pub fn take(&mut self, record: &Record<'_>) -> Option<Oddity> {
        let odd = self.pass_time(record);
        self.ledger.seen += 1;
        self.cut += u64::from(record.octets.len() < record.length as usize);
        if let Some(note) = &record.marks.dropped {
            // It stands in the capture for itself as well, if it got so far that it was seen.
            self.take_dropped(record, note);
            return odd.or_else(|| is_empty(record));
        }
        if !link::is_read(record.link) {
            self.others += 1;
            return odd;
        }
        let (begin, read) = packet::read(record);
        match read {
            Ok(packet) => self.count(record, begin, &packet),
            Err(reason) => self.unparsed(record, begin, reason),
        }
        odd.or_else(|| is_empty(record))
    }

    fn unparsed(&mut self, record: &Record<'_>, begin: Begin, reason: Unparsed) {
        if let Some(count) = self.ledger.unparsed.get_mut(reason as usize) {
            *count += 1;
        }
        let (pu, direction) = Locals::of_nobody(record.direction.or(begin.direction));
        let packets = u64::from(record.marks.packets);
        let wire = DirectionCounters { packets, bytes: begin.on_wire(record.length).into(), skbs: 1 };
        self.count_flowless(pu, direction, wire);
    }

    fn count_flowless(&mut self, pu: u16, direction: usize, wire: DirectionCounters) {
        let at = self.counters.iter().position(|(unit, _)| *unit == pu).unwrap_or_else(|| {
            self.counters.push((pu, PuCounters::default()));
            self.counters.len() - 1
        });
        if let Some(into) = self.counters.get_mut(at).and_then(|(_, it)| it.flowless.get_mut(direction)) {
            into.packets += wire.packets;
            into.bytes += wire.bytes;
            into.skbs += wire.skbs;
        }
    }

    /// Hands over what was counted.
    fn drain(&mut self) {
        /// What is known of flows lies far apart in memory, too: so many are asked for at once.
        const AT_ONCE: usize = 32;
        self.count_waiting();
        let touched = self.table.touched();
        let mut deltas = Vec::with_capacity(AT_ONCE);
        for numbers in touched.chunks(AT_ONCE) {
            self.table.fetch(numbers.iter().copied());
            deltas.extend(numbers.iter().filter_map(|number| self.table.take(*number)));
            self.flows.fetch(deltas.iter().map(|(delta, ..)| &delta.id));
            for (delta, first, last) in deltas.drain(..) {
                self.add(&delta, first, last);
            }
        }
        self.tell_rejected();
    }

    fn add(&mut self, delta: &FlowDelta, first: u64, last: u64) {
        let Self { flows, scribe, units, verdicts, moment, collector, .. } = self;
        let teller = Teller { scribe, units, verdicts, moment, collector: *collector };
        flows.add(delta, first, last, &nobody, |id, flow| teller.tell(id, flow));
    }

    fn learn(&mut self, news: &FlowNews) {
        let Self { flows, scribe, units, verdicts, moment, collector, .. } = self;
        let teller = Teller { scribe, units, verdicts, moment, collector: *collector };
        flows.learn(news, &nobody, |id, flow| teller.tell(id, flow));
    }

    /// Tells what has fallen due, and forgets what is over.
    fn settle(&mut self, now: u64) {
        let Self { flows, scribe, units, verdicts, moment, collector, .. } = self;
        let teller = Teller { scribe, units, verdicts, moment, collector: *collector };
        let over = flows.settle(now, now, &nobody, |id, flow| teller.tell(id, flow));
        self.table.forget(&over);
    }

    /// A report of each unit's counters, and the datapath's own.
    fn report(&mut self) {
        let mut period = Period::default();
        for pu in self.units.indexes() {
            let flowless =
                self.counters.iter().find(|(unit, _)| *unit == pu).map(|(_, it)| *it).unwrap_or_default();
            let credit = self.flows.credits().of(pu);
            let counted = OfUnit { flowless, credit, dropped: self.drops.of_unit(pu) };
            self.differences.count(pu, pu, &counted, &mut period);
        }
        for unit in self.units.iter() {
            self.collector.collect_counter_event(&self.differences.unit(unit, &period));
        }
        self.collector.collect_counter_event(&self.differences.datapath(&self.ledger));
    }

    /// Tells all of flows that no record holds yet.
    fn tell_all(&mut self) {
        self.drain();
        self.settle(self.now);
        let Self { flows, scribe, units, verdicts, moment, collector, .. } = self;
        let teller = Teller { scribe, units, verdicts, moment, collector: *collector };
        flows.cut_off(&nobody, |id, flow| teller.tell(id, flow));
    }

    /// Hands over all that is left; what became of every frame.
    pub fn finish(mut self) -> Status {
        self.tell_all();
        self.report();
        let unparsed = Unparsed::ALL.iter().zip(self.ledger.unparsed).filter(|(_, count)| *count != 0);
        let unparsed = unparsed.map(|(reason, count)| (reason.name().to_owned(), count));
        let others = (self.others != 0).then(|| ("link_type".to_owned(), self.others));
        let ledger = Ledger {
            seen: self.ledger.seen,
            flows: self.flows.tally().skbs,
            unparsed: unparsed.chain(others).collect(),
            table_full: self.ledger.table_full,
            orphan_fragments: self.ledger.orphan_fragments,
            inner_seen: self.ledger.inner_seen,
            inner_flows: self.flows.tally().inside,
            inner_unparsed: self.ledger.inner_unparsed,
            inner_lost: self.ledger.inner_lost,
            cut: self.cut,
            backwards: self.backwards,
            ..self.drops.ledger()
        };
        Status { ledger, drops: self.drops.rows(&self.units), ..Status::default() }
    }
}

/// Whether a frame is odd in that it has no octets.
pub fn is_empty(record: &Record<'_>) -> Option<Oddity> {
    (record.length == 0).then_some(Oddity::Empty)
}

/// No flow of an uplink has another end on this host.
fn nobody(_: &FlowId, _: u16) -> HostEnd {
    HostEnd { pu: index::HOST, is_remote: false }
}

/// Tells the collector of flows.
struct Teller<'a> {
    scribe: &'a Scribe,
    units: &'a Registry,
    verdicts: &'a Verdicts,
    moment: &'a Moment,
    collector: &'a dyn EventCollector,
}

impl Teller<'_> {
    fn tell(&self, id: &FlowId, flow: &Flow) {
        let record = self.scribe.flow(id, flow, None, self.verdicts, self.units, self.moment);
        self.collector.collect_flow_event(&record);
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

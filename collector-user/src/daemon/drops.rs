//! What the kernel drops: the program on its tracepoint, and what that has counted.

use std::collections::BTreeMap;

use collector_ebpf::{
    abi::{
        drop::{DropBudget, DropCounts, DropKey, DropLedger, ELSEWHERE},
        filter::{Machine, Program},
        packet::{PacketRecord, link},
    },
    filter,
};

use super::{Daemon, DaemonError, Options, interfaces::Interface};
use crate::{
    aggregate::{
        drops::{self, Cause, Names, OfUnit, ended::Ended, meaning, met::Met, queues, rejected::Rejected},
        packets,
    },
    drain::decode::Packet,
    error::with_causes,
    event::{Dropped, InterfaceStatus, Ledger, PacketReport, QueueSum, Text},
    host::{modules::Modules, pcap::Filter, symbols::Symbols},
    kernel::{
        drops::{self as kernel_drops, DropMaps, Drops},
        error::KernelError,
        folding::Folding,
        programs::Programs,
        settings::Settings,
    },
    pu::{
        role::Chosen,
        trace::{Whose, Wish},
    },
};

/// Octets that may lie before what is asked for, which begins at the IP header: Ethernet with up to four tags.
const LINK_LAYER: u32 = 30;

/// The settings of the programs: how much of a drop is reported, and which are not, which is a matter of what they mean.
pub(super) fn reporting(options: &Options) -> Settings {
    let mut settings = options.settings.clone();
    if let Some(limits) = &mut settings.drops {
        limits.snap = limits.snap.max(u32::from(options.snaplen) + LINK_LAYER);
    }
    if let Some(limits) = settings.drops.as_mut().filter(|_| !options.benign_drops) {
        limits.folding = Some(Folding {
            reasons: meaning::is_benign,
            by_place: &meaning::BY_PLACE,
            places: meaning::is_benign_at,
        });
    }
    settings
}

/// A kernel that has this reason tells those of queueing disciplines (Linux 5.18).
const QUEUE_REASON: &str = "QDISC_DROP";

/// What counts drops, and what its numbers mean.
pub(super) struct Dropping {
    maps: DropMaps,
    names: Names,
    met: Met,
    /// What was counted by indexes that were given back since.
    ended: Ended,
    namespace: u32,
    rejected: Rejected,
    filter: Option<DropFilter>,
    /// Reports that the filter left out, or that are of interfaces or of units that a capture does not name.
    filtered: u64,
    /// Reports that nobody wants.
    folded: u64,
    /// How many reports of each unit had been held back at its last report; low 32 bits.
    held_back: BTreeMap<u16, u32>,
    /// Drops of which nothing was told; kept, for they go with the program.
    skipped: u64,
    /// Drops for which there was no row, when that was said last.
    uncounted: u64,
}

impl Dropping {
    /// Hangs the program on its tracepoint. What could not be had is added to `missing`, in words.
    pub(super) fn start(
        loaded: Option<Result<Drops, KernelError>>,
        programs: &mut Programs,
        filter: Option<&Filter>,
        missing: &mut Vec<String>,
    ) -> Option<Self> {
        let attached = loaded?.and_then(|drops| programs.attach_drops().map(|()| drops));
        let Drops { maps, reasons, has_reasons, namespace, symbols, modules } = match attached {
            Ok(drops) => drops,
            Err(error) => {
                missing.push(format!("drops: {}", with_causes(&error)));
                return None;
            }
        };
        if !has_reasons {
            missing.push("the reasons of drops: Linux gives none before 5.17, only their places".to_owned());
        }
        let symbols = symbols.unwrap_or_else(|error| {
            missing.push(format!("the places of drops by name: {}", with_causes(&error)));
            Symbols::default()
        });
        Some(Self {
            maps,
            names: Names::new(reasons, has_reasons, symbols),
            met: Met::new(modules),
            ended: Ended::default(),
            namespace,
            rejected: Rejected::default(),
            filter: filter.map(DropFilter::new),
            filtered: 0,
            folded: 0,
            held_back: BTreeMap::new(),
            skipped: 0,
            uncounted: 0,
        })
    }

    /// From here on this filter is asked, where the program does not ask its own.
    pub(super) fn ask(&mut self, filter: &Filter) {
        self.filter = Some(DropFilter::new(filter));
    }

    /// Takes the program off its tracepoint: nothing is counted any more.
    pub(super) fn stop(&mut self, programs: &mut Programs) {
        self.skipped = programs.skipped_drops();
        programs.detach_drops();
    }

    /// What was counted until now, with names for where that was.
    fn rows(&mut self) -> Result<BTreeMap<DropKey, DropCounts>, KernelError> {
        let rows = self.maps.rows()?;
        for key in rows.keys() {
            self.meet(key.place);
        }
        Ok(rows)
    }

    /// Sees to it that a place has its name: where it is new, and modules were loaded since the names were read, they are
    /// read again.
    fn meet(&mut self, place: u64) {
        if self.met.is_new(place)
            && self.met.are_others(Modules::read())
            && let Some((reasons, symbols)) = kernel_drops::names(self.met.modules())
        {
            self.names.renew(reasons, symbols);
        }
    }

    /// Takes out what was counted by an index, which was a unit's of this id and namespace, and will be another's.
    fn end(&mut self, index: u16, unit: (&Text, &Text)) -> Result<(), KernelError> {
        let rows = self.maps.take_out(|pu| pu == index)?;
        for key in rows.keys() {
            self.meet(key.place);
        }
        if !rows.is_empty() {
            self.ended.take_in(unit, &rows, &self.names);
        }
        // Whatever was held back and never told is in the sum of all, and no news of who comes.
        let held_back = self.maps.budget(index)?.held_back as u32;
        if held_back != 0 {
            self.held_back.insert(index, held_back);
        }
        Ok(())
    }

    /// What was lost by an index since the programs were loaded, in the kernel and of flows here; nothing where that cannot be
    /// read.
    pub(super) fn lost_by(&self, index: u16) -> (DropBudget, u64) {
        (self.maps.budget(index).unwrap_or_default(), self.rejected.lost_of(index))
    }

    /// Reports of the unit that were held back since its report before. Those of two CPUs may come in another order than
    /// they were written: what the later one says is known then.
    fn held_back_since(&mut self, record: &PacketRecord) -> u64 {
        let before = self.held_back.entry(record.pu).or_default();
        let since = record.suppressed.wrapping_sub(*before);
        if since > u32::MAX / 2 {
            return 0;
        }
        *before = record.suppressed;
        since.into()
    }
}

impl Daemon<'_> {
    /// Counts drops from now on; what could not be had is added to `missing`, in words.
    pub(super) fn start_drops(&mut self, missing: &mut Vec<String>) -> Result<(), DaemonError> {
        if matches!(self.drops, Some(Ok(_))) {
            let cpus = self.options.settings.with_buffers()?;
            self.tracing.dropped.open(&cpus)?;
        }
        self.dropping = Dropping::start(
            self.drops.take(),
            &mut self.programs,
            self.options.settings.filter.as_ref(),
            missing,
        );
        Ok(())
    }

    /// Whether a record's interface is one of the namespace that is watched: numbers of interfaces are each namespace's own.
    pub(super) fn is_of_here(&self, record: &PacketRecord) -> bool {
        record.namespace == 0
            || self.dropping.as_ref().is_none_or(|dropping| dropping.namespace == record.namespace)
    }

    /// Whether the packet filter wants a drop. It is asked here where the program could not: it runs in the midst of itself
    /// at times, and no two runs may share a machine.
    ///
    /// A capture that names interfaces, or a unit, wants no drop of others.
    pub(super) fn wants_drop(&mut self, packet: &Packet) -> bool {
        let is_elsewhere = self.is_of_others(&packet.record) || !self.is_captured(packet.record.pu);
        let Some(dropping) = &mut self.dropping else { return true };
        let asked = packet.record.filtered != 0;
        let is_wanted =
            !is_elsewhere && (asked || dropping.filter.as_mut().is_none_or(|filter| filter.wants(packet)));
        dropping.filtered += u64::from(!is_wanted);
        is_wanted
    }

    /// Whether a packet was dropped on an interface that a capture does not name, though it names some. One that had come to
    /// none yet, since this host sent it, may have been for any.
    fn is_of_others(&self, record: &PacketRecord) -> bool {
        if self.options.capture.is_none() || self.options.ifaces.is_empty() || record.ifindex == 0 {
            return false;
        }
        let interface = self.watched.interfaces.get(&record.ifindex);
        let is_other = |interface: &Interface| self.chosen(&interface.name) == Chosen::Others;
        !self.is_of_here(record) || interface.is_some_and(is_other)
    }

    /// Whether a capture wants what is a unit's, by the index that it was counted by; whoever captures nothing wants all.
    fn is_captured(&self, index: u16) -> bool {
        let id = self.units.get(index).map(|unit| &unit.id);
        let is_wanted = |wish: &Wish| match &wish.whose {
            Whose::All => true,
            Whose::Unit(wanted) => id == Some(wanted),
        };
        self.options.capture.is_none() || self.options.traces.iter().any(is_wanted)
    }

    /// Adds to the report of a drop why and where it was, and keeps it for its flow's record. `false` where nobody wants it:
    /// the programs know the functions only of the modules that there were when they were loaded.
    pub(super) fn describe_drop(&mut self, record: &PacketRecord, report: &mut PacketReport) -> bool {
        let Some(dropping) = &mut self.dropping else { return true };
        dropping.meet(record.place);
        let Cause { reason, place, meaning } =
            dropping.names.cause(record.reason, record.place, record.policy != 0);
        if meaning.class.is_benign() && !self.options.benign_drops {
            dropping.folded += 1;
            return false;
        }
        report.kernel_reason = reason;
        report.drop_place = place;
        report.drop_class = meaning.class;
        report.drop_reason = meaning.word.into();
        report.advice = meaning.advice.into();
        report.suppressed = dropping.held_back_since(record);
        if record.policy == 0 {
            // Of what a policy rejects, the flow's own record tells.
            dropping.rejected.add(record, report);
        }
        true
    }

    /// Hands over the flow records of what was dropped and reported.
    pub(super) fn tell_rejected(&mut self) {
        let Self { dropping, flows, scribe, units, moment, collector, options, .. } = self;
        let Some(dropping) = dropping else { return };
        for (key, row) in dropping.rejected.take() {
            if options.forwarded || !key.is_forwarded() {
                let known = flows.opened(&key.flow());
                collector.collect_flow_event(&scribe.rejected(&key, &row, known, units, moment));
            }
        }
    }

    /// Takes in what was dropped of units whose indexes will be given back. The programs find none of these any more, nor
    /// have they for long.
    pub(super) fn end_drops(&mut self, indexes: &[u16]) -> Result<(), DaemonError> {
        let Self { dropping: Some(dropping), units, .. } = self else { return Ok(()) };
        for index in indexes {
            if let Some(unit) = units.get(*index) {
                dropping.end(*index, (&unit.id, &unit.namespace))?;
            }
        }
        Ok(())
    }

    /// What was dropped of each unit until now, by index.
    pub(super) fn dropped_by_unit(&mut self) -> Result<BTreeMap<u16, OfUnit>, DaemonError> {
        let Some(dropping) = &mut self.dropping else { return Ok(BTreeMap::new()) };
        let rows = dropping.rows()?;
        Ok(drops::by_unit(&rows, &dropping.names, &dropping.ended))
    }

    /// What was dropped until now, in words.
    pub(super) fn dropped(&mut self) -> Vec<Dropped> {
        let Some(dropping) = &mut self.dropping else { return Vec::new() };
        let Ok(rows) = dropping.rows() else { return Vec::new() };
        drops::rows(&rows, &dropping.names, &self.units, &dropping.ended)
    }

    /// Says that there are drops for which the table had no room, when it begins and whenever they have become ten times as
    /// many.
    pub(super) fn warn_of_drops(&mut self) {
        let Some(dropping) = &mut self.dropping else { return };
        let table_full = dropping.maps.ledger().map_or(0, |ledger| ledger.table_full);
        if table_full > dropping.uncounted.saturating_mul(10) {
            dropping.uncounted = table_full;
            tracing::warn!(
                "the table of drops is full: {table_full} are not counted by unit, reason and place (drops_table_full); it \
                 has room again when units of old are forgotten"
            );
        }
    }

    /// What queueing disciplines dropped, beside the rows that say so.
    pub(super) fn queues_told(&self, interfaces: &[InterfaceStatus], rows: &[Dropped]) -> QueueSum {
        let is_told = |dropping: &Dropping| dropping.names.has_reason(QUEUE_REASON);
        let is_told = self.dropping.as_ref().is_some_and(is_told);
        queues::sum(interfaces, rows, is_told, self.watched.queues.have_gone())
    }

    /// Adds what became of drops.
    pub(super) fn book_drops(&mut self, ledger: &mut Ledger) {
        let Some(dropping) = &mut self.dropping else { return };
        // What runs meanwhile is in the numbers that are read later.
        let (kernel, rows) =
            (dropping.maps.ledger().unwrap_or_default(), dropping.maps.rows().unwrap_or_default());
        dropping.skipped = dropping.skipped.max(self.programs.skipped_drops());
        let DropLedger { seen, no_packet, table_full, reported, folded, filtered, output_failed } = kernel;
        ledger.drops_seen = seen;
        let ended = dropping.ended.skbs();
        ledger.drops_counted = ended + rows.values().map(|counts| counts.skbs).sum::<u64>();
        let of_units = rows.iter().filter(|(key, _)| key.pu != ELSEWHERE);
        ledger.drops_of_units = ended + of_units.map(|(_, counts)| counts.skbs).sum::<u64>();
        ledger.drops_no_packet = no_packet;
        ledger.drops_table_full = table_full;
        ledger.drops_skipped = dropping.skipped;
        ledger.drop_reports = reported.saturating_sub(dropping.folded + dropping.filtered);
        ledger.drop_reports_filtered = filtered + dropping.filtered;
        ledger.drop_reports_lost = reported.saturating_sub(self.tracing.drops_read());
        ledger.drop_flows_lost = dropping.rejected.lost();
        ledger.drop_reports_folded = folded + dropping.folded;
        ledger.drop_reports_held_back = dropping.maps.held_back(self.units.last_index()).unwrap_or_default();
        ledger.drop_reports_failed = output_failed;
    }
}

/// The packet filter, for drops.
struct DropFilter {
    /// By the kind of link.
    programs: [Box<Program>; 2],
    machine: Box<Machine>,
}

impl DropFilter {
    fn new(filter: &Filter) -> Self {
        let programs = [link::ETHERNET, link::RAW_IP].map(|link| Box::new(filter.program(link)));
        Self { programs, machine: Box::default() }
    }

    fn wants(&mut self, packet: &Packet) -> bool {
        let Some(program) = self.programs.get(usize::from(packet.record.link)) else { return false };
        let (octets, length) = packets::whole(packet);
        self.machine.show(&octets, length);
        filter::run(program, &mut self.machine) != filter::NO_MATCH
    }
}

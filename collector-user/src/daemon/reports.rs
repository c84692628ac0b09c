//! The drain, the counter reports, the ledger.

use std::collections::BTreeMap;

use collector_ebpf::abi::{counter::Unparsed, pu::index};

use super::{Daemon, DaemonError, Options, interfaces::Watched};
use crate::{
    aggregate::{booking::HostEnd, flows::Flow, record::Scribe},
    clock::Moment,
    collector::EventCollector,
    drain::decode::FlowId,
    event::Ledger,
    pu::registry::{Registry, Unit},
};

impl Daemon<'_> {
    /// Renews the lease, swaps the epoch, adds what the retired one counted, and reports what has fallen due.
    pub(super) fn drain(&mut self) -> Result<(), DaemonError> {
        self.renew()?;
        self.drain_packets();
        self.end_traces()?;
        let retired = self.controller.swap(&self.flow_maps)?;
        let drained = self.moment.boot_ns;
        // Whatever the retired epoch counted inside of tunnels has its network numbered by now.
        if let Some(numbers) = self.networks.news()? {
            self.scribe.networks = numbers;
        }
        // What began before the swap is known before its counts are added; what began after it has its counts in the
        // epoch that runs now.
        let until = self.read_news();
        let (later, before): (Vec<_>, Vec<_>) =
            self.order.until(until).into_iter().partition(|news| news.boot_ns > drained);
        for news in &before {
            self.learn(news);
        }
        let Self { flow_maps, flows, scribe, units, moment, collector, options, watched, .. } = self;
        let teller = Teller { scribe, units, moment, collector: *collector, options, watched };
        let (host_end, emit) = (|id: &_| teller.host_end(id), |id: &_, flow: &_| teller.tell(id, flow));
        let result = flow_maps.drain(retired, |delta| {
            flows.add(
                delta,
                moment.boot_of_tick(delta.first),
                moment.boot_of_tick(delta.last),
                host_end,
                emit,
            );
        });
        let over = flows.settle(moment.boot_ns, drained, host_end, emit);
        result?;
        for news in &later {
            self.learn(news);
        }
        self.flow_maps.forget(&over)?;
        self.tell_rejected();
        Ok(())
    }

    /// Forgets identities that nobody ages: those of flows which user space never heard of or had no room for, of an
    /// age at which it would have heard.
    pub(super) fn sweep_identities(&mut self) -> Result<(), DaemonError> {
        let heard_by = self.moment.boot_ns.saturating_sub(super::nanos(super::SWEEP_INTERVAL));
        let mut orphans = Vec::new();
        let flows = &self.flows;
        self.flow_maps.lived(|id, first| {
            if first < heard_by && !flows.knows(&id) {
                orphans.push(id);
            }
        })?;
        Ok(self.flow_maps.forget(&orphans)?)
    }

    /// One report for each processing unit, and one with empty ids for the datapath itself, of all that was drained.
    pub(super) fn report_counters(&mut self) -> Result<(), DaemonError> {
        let dropped = self.dropped_by_unit()?;
        for unit in self.units.iter() {
            if let Some(counters) = self.counters.unit(unit.index)? {
                let credit = self.flows.credits().of(unit.index);
                let dropped = dropped.get(&unit.index).copied().unwrap_or_default();
                let report = self.differences.unit(unit, &counters, &credit, &dropped);
                self.collector.collect_counter_event(&report);
            }
        }
        let ledger = self.ledgers.sum();
        self.collector.collect_counter_event(&self.differences.datapath(&ledger));
        Ok(())
    }

    /// The records of a unit's flows that found no room, if there were any.
    fn unheard(&self, unit: &Unit) -> Option<(String, u64)> {
        let counters = self.counters.unit(unit.index).ok()??;
        (counters.reserve_failed != 0).then(|| (unit.id.to_string(), counters.reserve_failed))
    }

    /// What became of every packet and record. The sinks add what became of the events.
    pub(super) fn ledger(&mut self) -> Ledger {
        let kernel = self.ledgers.sum();
        let [read, undecodable] = self.records;
        let traced = self.tracing.tally(&kernel);
        let xdp = self.ledgers.xdp();
        let malformed = Unparsed::ALL.iter().zip(xdp.malformed).filter(|(_, count)| *count != 0);
        let unparsed = Unparsed::ALL.iter().zip(kernel.unparsed).filter(|(_, count)| *count != 0);
        let mut ledger = Ledger {
            seen: kernel.seen,
            flows: self.flows.tally().skbs,
            inner_seen: kernel.inner_seen,
            inner_flows: self.flows.tally().inside,
            inner_unparsed: kernel.inner_unparsed,
            inner_lost: kernel.inner_lost,
            unparsed: unparsed.map(|(reason, count)| (reason.name().to_owned(), count)).collect(),
            looped: kernel.looped,
            second_pass: kernel.second_pass,
            table_full: kernel.table_full,
            rate_limited: kernel.rate_limited,
            reserve_failed: kernel.reserve_failed,
            identity_full: kernel.identity_full,
            no_role: kernel.no_role,
            orphan_fragments: kernel.orphan_fragments,
            units_exhausted: kernel.units_exhausted,
            filter_window: self.ledgers.filter_window().unwrap_or_default(),
            xdp_seen: xdp.seen,
            xdp_passed: xdp.passed,
            xdp_malformed: malformed.map(|(reason, count)| (reason.name().to_owned(), count)).collect(),
            xdp_handed: xdp.handed,
            xdp_unhanded: xdp.unhanded,
            xdp_taken: xdp.taken,
            xdp_headless: xdp.headless,
            gaps: self.gaps,
            taken_off: self.taken_off,
            drained: read,
            lost: kernel.reported.saturating_sub(read),
            undecodable: undecodable + traced.undecodable,
            traced: kernel.traced,
            filtered: kernel.filtered,
            sampled: kernel.sampled,
            output_failed: kernel.output_failed,
            packets: traced.read,
            packets_lost: traced.lost,
            skipped: self.sequences.skipped,
            repeated: self.sequences.repeated,
            reserve_failed_of: self.units.iter().filter_map(|unit| self.unheard(unit)).collect(),
            queue_full: BTreeMap::new(),
            delivered: BTreeMap::new(),
            ..Ledger::default()
        };
        self.book_drops(&mut ledger);
        ledger
    }
}

/// Tells the collector of flows.
pub(super) struct Teller<'a> {
    pub(super) scribe: &'a Scribe,
    pub(super) units: &'a Registry,
    pub(super) moment: &'a Moment,
    pub(super) collector: &'a dyn EventCollector,
    pub(super) options: &'a Options,
    pub(super) watched: &'a Watched,
}

impl Teller<'_> {
    /// The unit at the host's end of a flow that crosses the boundary of another one: whoever declares its address, else
    /// the host itself.
    pub(super) fn host_end(&self, id: &FlowId) -> HostEnd {
        let is_remote = self.watched.numbers.is_far(id.boundary);
        let address = if is_remote { id.remote } else { id.local };
        HostEnd { pu: self.units.of_address(address).map_or(index::HOST, |unit| unit.index), is_remote }
    }

    /// Hands a flow's record over. Flows that only pass through are told when asked for; they are counted all the same.
    pub(super) fn tell(&self, id: &FlowId, flow: &Flow) {
        if self.options.forwarded || flow.pu != index::FORWARDED {
            let host_end = flow.has_host_end().then(|| self.host_end(id));
            self.collector.collect_flow_event(&self.scribe.flow(id, flow, host_end, self.units, self.moment));
        }
    }
}

//! The drain, the counter reports, the ledger.

use std::collections::{BTreeMap, BTreeSet};

use collector_ebpf::abi::{counter::Unparsed, flow::LOOPBACK_BOUNDARY, pu::index};

use super::{Daemon, DaemonError, Options, interfaces::Watched, users::Users};
use crate::{
    aggregate::{
        booking::{HostEnd, Owners},
        counters::{Counted, Period},
        flow::Flow,
        record::Scribe,
    },
    clock::{self, Moment},
    collector::EventCollector,
    drain::flow::FlowId,
    event::Ledger,
    policy::verdicts::Verdicts,
    pu::registry::{Registry, is_named},
};

impl Daemon<'_> {
    /// Renews the lease, swaps the epoch, adds what the retired one counted, and reports what has fallen due.
    pub(super) fn drain(&mut self) -> Result<(), DaemonError> {
        self.renew()?;
        let now = clock::boot();
        self.drain_packets();
        self.end_traces()?;
        let retired = self.controller.swap(&self.flow_maps)?;
        self.complete_packets(now)?;
        self.remove_retired();
        // Whatever the retired epoch counted has its unit by now.
        self.refill_units()?;
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
        let Self {
            flow_maps,
            flows,
            scribe,
            units,
            moment,
            collector,
            options,
            watched,
            policies,
            users,
            ..
        } = self;
        let verdicts = &policies.sets.verdicts;
        let teller =
            Teller { scribe, units, moment, collector: *collector, options, watched, verdicts, users };
        let emit = |id: &_, flow: &_| teller.tell(id, flow);
        let result = flow_maps.drain(retired, |delta| {
            flows.add(
                delta,
                moment.boot_of_tick(delta.first),
                moment.boot_of_tick(delta.last),
                &teller,
                emit,
            );
        });
        // Before it is told, so that it tells who.
        let asked = self.ask_users();
        let Self { flows, scribe, units, moment, collector, options, watched, policies, users, .. } = self;
        let verdicts = &policies.sets.verdicts;
        let teller =
            Teller { scribe, units, moment, collector: *collector, options, watched, verdicts, users };
        let emit = |id: &_, flow: &_| teller.tell(id, flow);
        let over = flows.settle(moment.boot_ns, drained, &teller, emit);
        result?;
        asked?;
        for news in &later {
            self.learn(news);
        }
        self.flow_maps.forget(&over)?;
        self.tell_rejected();
        Ok(())
    }

    /// Tells what was counted of the flows that these units have by their sockets, and lets go of them.
    pub(super) fn let_go(&mut self, losers: &BTreeSet<u16>) {
        let Self { flows, scribe, units, moment, collector, options, watched, policies, users, .. } = self;
        let verdicts = &policies.sets.verdicts;
        let teller =
            Teller { scribe, units, moment, collector: *collector, options, watched, verdicts, users };
        flows.let_go(
            |index| teller.units.get(index).is_some_and(|unit| losers.contains(&unit.index)),
            &teller,
            |id, flow| teller.tell(id, flow),
        );
    }

    /// Forgets identities that nobody ages: those of flows which user space never heard of or had no room for, of an
    /// age at which it would have heard.
    pub(super) fn sweep_identities(&mut self) -> Result<(), DaemonError> {
        let heard_by = self.moment.boot_ns.saturating_sub(super::moment::nanos(super::SWEEP_INTERVAL));
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
        let now = self.moment.boot_ns;
        let mut period = Period::default();
        for (index, unit, counted) in self.counted()? {
            if self.differences.count(index, unit, &counted, &mut period) {
                self.units.is_heard_of(index, now);
            }
        }
        for unit in self.units.iter() {
            // Of who has ended only what is new.
            if unit.ended.is_none() || !period.is_silent(unit.index) {
                self.collector.collect_counter_event(&self.differences.unit(unit, &period));
            }
        }
        let ledger = self.ledgers.sum();
        self.collector.collect_counter_event(&self.differences.datapath(&ledger));
        Ok(())
    }

    /// What was counted by each index and drained, with the unit that the index is of now.
    pub(super) fn counted(&mut self) -> Result<Vec<(u16, u16, Counted)>, DaemonError> {
        let dropped = self.dropped_by_unit()?;
        let mut all = Vec::new();
        for index in self.units.indexes() {
            let Some(flowless) = self.counters.unit(index)? else { continue };
            let Some(unit) = self.units.get(index).map(|unit| unit.index) else { continue };
            let dropped = dropped.get(&index).copied().unwrap_or_default();
            all.push((index, unit, Counted { flowless, credit: self.flows.credits().of(index), dropped }));
        }
        Ok(all)
    }

    /// What became of every packet and record. The sinks add what became of the events.
    pub(super) fn ledger(&mut self) -> Ledger {
        let kernel = self.ledgers.sum();
        let [read, undecodable] = self.records;
        let traced = self.tracing.tally(&kernel);
        let xdp = self.ledgers.xdp();
        let malformed = Unparsed::ALL.iter().zip(xdp.malformed).filter(|(_, count)| *count != 0);
        let unparsed = Unparsed::ALL.iter().zip(kernel.unparsed).filter(|(_, count)| *count != 0);
        let (reloads, reloads_refused) = self.reloads.numbers();
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
            rejected: kernel.rejected,
            table_full: kernel.table_full,
            rate_limited: kernel.rate_limited,
            reserve_failed: kernel.reserve_failed,
            identity_full: kernel.identity_full,
            no_role: kernel.no_role,
            orphan_fragments: kernel.orphan_fragments,
            units_exhausted: kernel.units_exhausted,
            cgroups_unseen: self.workloads.unseen(),
            users_unasked: self.flows.unasked(),
            users_evicted: self.users.evicted(),
            filter_window: self.ledgers.filter_window().unwrap_or_default(),
            xdp_seen: xdp.seen,
            xdp_passed: xdp.passed,
            xdp_dropped: xdp.dropped,
            xdp_malformed: malformed.map(|(reason, count)| (reason.name().to_owned(), count)).collect(),
            xdp_handed: xdp.handed,
            xdp_unhanded: xdp.unhanded,
            xdp_taken: xdp.taken,
            xdp_headless: xdp.headless,
            gaps: self.gaps,
            taken_off: self.taken_off,
            reloads,
            reloads_refused,
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
            queue_full: BTreeMap::new(),
            delivered: BTreeMap::new(),
            ..Ledger::default()
        };
        self.book_whose(&mut ledger);
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
    pub(super) verdicts: &'a Verdicts,
    pub(super) users: &'a Users,
}

impl Owners for Teller<'_> {
    /// The one that the programs `know` by its socket; else whoever declares its address, else the host itself.
    fn host_end(&self, id: &FlowId, known: u16) -> HostEnd {
        let is_remote = self.watched.numbers.is_far(id.boundary);
        let of_address = |address| self.units.of_address(address).map_or(index::HOST, |unit| unit.index);
        let pu = if known == 0 { of_address(if is_remote { id.remote } else { id.local }) } else { known };
        HostEnd { pu, is_remote }
    }

    fn are_one(&self, one: u16, other: u16) -> bool {
        // What stands for one of the units that always are may turn out to be another's.
        let unit = |index| self.units.get(index).filter(|unit| is_named(unit.index)).map(|unit| unit.index);
        one == other || unit(one).is_some_and(|one| unit(other) == Some(one))
    }
}

impl Teller<'_> {
    /// Hands a flow's record over. Flows that only pass through are told when asked for; they are counted all the same.
    pub(super) fn tell(&self, id: &FlowId, flow: &Flow) {
        if self.options.forwarded || flow.pu != index::FORWARDED {
            let host_end = if flow.has_host_end() {
                Some(self.host_end(id, flow.host_pu))
            } else {
                // Both ends of a loopback flow are this host's.
                (id.boundary == LOOPBACK_BOUNDARY && flow.host_pu != 0)
                    .then_some(HostEnd { pu: flow.host_pu, is_remote: true })
            };
            let Self { scribe, units, moment, verdicts, .. } = self;
            let mut record = scribe.flow(id, flow, host_end, verdicts, units, moment);
            self.users.sign(flow, &mut record, moment.boot_ns, self.collector);
            self.collector.collect_flow_event(&record);
        }
    }
}

//! The drain, the counter reports, the ledger.

use std::collections::BTreeMap;

use collector_ebpf::abi::{counter::Unparsed, pu::index};

use super::{Daemon, DaemonError, Options};
use crate::{aggregate::flows::Flow, event::Ledger};

impl Daemon<'_> {
    /// Renews the lease, swaps the epoch, adds what the retired one counted, and reports what has fallen due.
    pub(super) fn drain(&mut self) -> Result<(), DaemonError> {
        self.renew()?;
        let retired = self.controller.swap(&self.flow_maps)?;
        let drained = self.moment.boot_ns;
        // What began before the swap is known before its counts are added; what began after it has its counts in the
        // epoch that runs now.
        let mut news = Vec::new();
        self.events.drain(|record| news.push(record));
        let (later, before): (Vec<_>, Vec<_>) =
            news.into_iter().partition(|record| matches!(record, Ok(Some(news)) if news.boot_ns > drained));
        for record in before {
            self.learn(record);
        }
        let Self { flow_maps, flows, scribe, units, moment, collector, options, .. } = self;
        let emit = |id: &_, flow: &_| {
            if is_wanted(flow, options) {
                collector.collect_flow_event(&scribe.flow(id, flow, units, moment));
            }
        };
        let result = flow_maps.drain(retired, |delta| {
            flows.add(delta, moment.boot_of_tick(delta.first), moment.boot_of_tick(delta.last), emit);
        });
        let over = flows.settle(moment.boot_ns, drained, emit);
        result?;
        for record in later {
            self.learn(record);
        }
        self.flow_maps.forget(&over)?;
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

    /// One report for each processing unit, and one with empty ids for the datapath itself.
    pub(super) fn report_counters(&mut self) -> Result<(), DaemonError> {
        for unit in self.units.iter() {
            if let Some(counters) = self.counters.unit(unit.index)? {
                self.collector.collect_counter_event(&self.differences.unit(unit, &counters));
            }
        }
        let ledger = self.counters.ledger()?;
        self.collector.collect_counter_event(&self.differences.datapath(&ledger));
        Ok(())
    }

    /// What became of every packet and record. The sinks add what became of the events.
    pub(super) fn ledger(&self) -> Result<Ledger, DaemonError> {
        let kernel = self.counters.ledger()?;
        let [read, undecodable] = self.records;
        let unparsed = Unparsed::ALL.iter().zip(kernel.unparsed).filter(|(_, count)| *count != 0);
        Ok(Ledger {
            seen: kernel.seen,
            flows: self.flows.tally().skbs,
            unparsed: unparsed.map(|(reason, count)| (reason.name().to_owned(), count)).collect(),
            looped: kernel.looped,
            table_full: kernel.table_full,
            rate_limited: kernel.rate_limited,
            reserve_failed: kernel.reserve_failed,
            identity_full: kernel.identity_full,
            no_role: kernel.no_role,
            gaps: self.gaps,
            drained: read,
            lost: kernel.reported.saturating_sub(read),
            undecodable,
            queue_full: BTreeMap::new(),
            delivered: BTreeMap::new(),
            ..Ledger::default()
        })
    }
}

/// Flows that only pass through are reported when asked for; they are counted all the same.
pub(super) fn is_wanted(flow: &Flow, options: &Options) -> bool {
    options.forwarded || flow.pu != index::FORWARDED
}

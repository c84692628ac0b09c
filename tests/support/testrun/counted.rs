//! What the programs counted on bytes: by flow, by unit, and in the ledger.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use collector_ebpf::abi::{
    counter::{Ledger, PuCounters},
    flow::FlowKey4,
    pu::index,
    xdp::XdpLedger,
};
use collector_user::{
    drain::flow::{FlowDelta, FlowId},
    kernel::batch,
};

use super::{Datapath, UNIT};
use crate::Result;

/// What a flow counted, from slots and tables together; pairs are indexed by `RX` and `TX`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Wire packets.
    pub packets: [u64; 2],
    /// Wire octets.
    pub bytes: [u64; 2],
    /// Buffers.
    pub skbs: [u64; 2],
    /// Connections begun.
    pub begun: u64,
    /// The unit's index.
    pub pu: u16,
    /// The interface's number.
    pub interface: u16,
    /// TCP flags.
    pub tcp_flags: [u8; 2],
    /// Bits of `how`.
    pub how: u8,
}

impl Datapath {
    /// Ends the epoch and takes out what it counted, by flow.
    pub fn drain(&mut self) -> Result<BTreeMap<FlowId, Counted>> {
        let epoch = self.controller.swap(&self.flows)?;
        let mut all = BTreeMap::<FlowId, Counted>::new();
        self.flows.drain(epoch, |delta| {
            let sum = all.entry(delta.id).or_default();
            for direction in 0..2 {
                sum.packets[direction] += delta.packets[direction];
                sum.bytes[direction] += delta.bytes[direction];
                sum.skbs[direction] += delta.skbs[direction];
                sum.tcp_flags[direction] |= delta.tcp_flags[direction];
            }
            sum.begun += delta.begun;
            (sum.pu, sum.interface, sum.how) = (delta.pu, delta.interface, delta.how);
        })?;
        Ok(all)
    }

    /// Ends the epoch and throws away what it counted, and what the ring tells.
    pub fn discard(&mut self) -> Result<()> {
        let epoch = self.controller.swap(&self.flows)?;
        self.flows.drain(epoch, |_| {})?;
        self.events.drain(|_| {});
        self.renew()
    }

    /// Empties the table of `floor`.
    pub fn forget_floor(&self) -> Result<()> {
        let reference = self.reference.as_ref().context("the programs of the bench were not loaded")?;
        batch::take_all(reference.floor.fd(), |_: &FlowKey4, _: &[u64; 2]| {})?;
        Ok(())
    }

    /// Ends the epoch and takes out what it counted, as it comes: a flow that changed its unit comes more than once.
    pub fn deltas(&mut self) -> Result<Vec<FlowDelta>> {
        let epoch = self.controller.swap(&self.flows)?;
        let mut all = Vec::new();
        self.flows.drain(epoch, |delta| all.push(*delta))?;
        Ok(all)
    }

    /// Takes out what one flow counted; fails where there is another number of flows.
    pub fn drain_one(&mut self) -> Result<(FlowId, Counted)> {
        let all = self.drain()?;
        ensure!(all.len() == 1, "one flow was expected: {all:#?}");
        all.into_iter().next().context("no flow")
    }

    /// Forgets every flow that still counts or has just been drained, and counts from here on: what follows is as after
    /// a fresh load, which the verifier makes slow.
    pub fn begin_anew(&mut self, drained: &BTreeMap<FlowId, Counted>) -> Result<()> {
        let mut flows: Vec<_> = self.drain()?.into_keys().collect();
        flows.extend(drained.keys());
        self.flows.forget(&flows)?;
        self.news()?;
        self.pressed = 0;
        for pu in UNITS {
            self.units_before.insert(pu, self.counters.unit(pu)?.unwrap_or_default());
        }
        self.ledger_before = self.ledgers.sum();
        self.renew()
    }

    /// What a unit has that no flow holds.
    pub fn unit(&self, pu: u16) -> Result<PuCounters> {
        let mut unit = self.counters.unit(pu)?.context("no counters of this unit")?;
        let before = self.units_before.get(&pu).copied().unwrap_or_default();
        let both = unit.flowless.iter_mut().chain(&mut unit.local);
        for (direction, before) in both.zip(before.flowless.iter().chain(&before.local)) {
            direction.packets = direction.packets.wrapping_sub(before.packets);
            direction.bytes = direction.bytes.wrapping_sub(before.bytes);
            direction.skbs = direction.skbs.wrapping_sub(before.skbs);
        }
        for (direction, before) in unit.rejected.iter_mut().zip(before.rejected) {
            *direction -= before;
        }
        unit.flows -= before.flows;
        unit.rate_limited -= before.rate_limited;
        unit.reserve_failed -= before.reserve_failed;
        unit.table_full -= before.table_full;
        unit.output_failed -= before.output_failed;
        unit.inner_lost -= before.inner_lost;
        Ok(unit)
    }

    /// What became of every buffer.
    pub fn ledger(&self) -> Result<Ledger> {
        let mut ledger = self.ledgers.sum();
        // Each by its name: one that is new has to be added here.
        let Ledger {
            seen,
            looped,
            second_pass,
            rejected,
            table_full,
            rate_limited,
            reserve_failed,
            reported,
            identity_full,
            no_role,
            orphan_fragments,
            inner_seen,
            inner_unparsed,
            inner_lost,
            traced,
            filtered,
            sampled,
            output_failed,
            units_exhausted,
            unparsed,
        } = self.ledger_before;
        ledger.seen -= seen;
        ledger.looped -= looped;
        ledger.second_pass -= second_pass;
        ledger.rejected -= rejected;
        ledger.table_full -= table_full;
        ledger.rate_limited -= rate_limited;
        ledger.reserve_failed -= reserve_failed;
        ledger.reported -= reported;
        ledger.identity_full -= identity_full;
        ledger.no_role -= no_role;
        ledger.orphan_fragments -= orphan_fragments;
        ledger.inner_seen -= inner_seen;
        ledger.inner_unparsed -= inner_unparsed;
        ledger.inner_lost -= inner_lost;
        ledger.traced -= traced;
        ledger.filtered -= filtered;
        ledger.sampled -= sampled;
        ledger.output_failed -= output_failed;
        ledger.units_exhausted -= units_exhausted;
        for (reason, before) in ledger.unparsed.iter_mut().zip(unparsed) {
            *reason -= before;
        }
        Ok(ledger)
    }

    /// What became of all frames at XDP since the programs were loaded.
    pub fn xdp_ledger(&self) -> XdpLedger {
        self.ledgers.xdp()
    }

    /// Frames that the filter asked beyond its window for.
    pub fn filter_window(&self) -> Result<u64> {
        Ok(self.ledgers.filter_window()?)
    }
}

/// The units that tests count for.
const UNITS: [u16; 5] = [index::HOST, index::FORWARDED, index::UNKNOWN, index::OVERLAY, UNIT];

/// The buffers in the ledger that no flow has, but that are explained.
pub fn explained_without_flow(ledger: &Ledger) -> u64 {
    ledger.looped
        + ledger.second_pass
        + ledger.rejected
        + ledger.table_full
        + ledger.rate_limited
        + ledger.unparsed.iter().sum::<u64>()
}

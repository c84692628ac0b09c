//! Reads the cumulative counters: sums over all CPUs, never a reset.

use aya::maps::MapError;
use collector_ebpf::abi::{
    control::Control,
    counter::{DirectionCounters, Ledger, PUS_PER_CHUNK, PuCounters},
    flow::{RX, TX},
};

use crate::kernel::{
    error::KernelError,
    object::{CounterMaps, Ledgers},
};

impl CounterMaps {
    /// What a processing unit has sent and received since the programs were loaded and no flow holds, over all CPUs.
    /// `None` where nothing counts for this index.
    ///
    /// # Errors
    ///
    /// [`KernelError::Map`].
    pub fn unit(&self, index: u16) -> Result<Option<PuCounters>, KernelError> {
        let index = u32::from(index);
        let Some(chunk) = self.chunks.get((index / PUS_PER_CHUNK) as usize) else { return Ok(None) };
        let cpus = chunk.get(&(index % PUS_PER_CHUNK), 0).map_err(failed("PUS"))?;
        let mut sum = PuCounters::default();
        for cpu in cpus.iter() {
            for direction in [RX, TX] {
                for (sum, cpu) in [(&mut sum.flowless, &cpu.flowless), (&mut sum.local, &cpu.local)] {
                    if let (Some(into), Some(from)) = (sum.get_mut(direction), cpu.get(direction)) {
                        add(into, from);
                    }
                }
            }
            sum.flows += cpu.flows;
            sum.rate_limited += cpu.rate_limited;
        }
        Ok(Some(sum))
    }
}

impl Ledgers {
    /// What became of every packet and record since the programs were loaded, over all CPUs.
    pub fn sum(&self) -> Ledger {
        let mut sum = Ledger::default();
        for cpu in (0..self.cpus.len()).filter_map(|cpu| self.cpus.read(cpu)) {
            let Control { ledger, .. } = cpu;
            sum.seen += ledger.seen;
            sum.looped += ledger.looped;
            sum.second_pass += ledger.second_pass;
            sum.table_full += ledger.table_full;
            sum.rate_limited += ledger.rate_limited;
            sum.reserve_failed += ledger.reserve_failed;
            sum.reported += ledger.reported;
            sum.identity_full += ledger.identity_full;
            sum.no_role += ledger.no_role;
            sum.orphan_fragments += ledger.orphan_fragments;
            for (into, from) in sum.unparsed.iter_mut().zip(&ledger.unparsed) {
                *into += from;
            }
        }
        sum
    }
}

fn add(into: &mut DirectionCounters, from: &DirectionCounters) {
    into.packets += from.packets;
    into.bytes += from.bytes;
    into.skbs += from.skbs;
}

fn failed(map: &'static str) -> impl FnOnce(MapError) -> KernelError {
    move |source| KernelError::Map { map, action: "read", source }
}

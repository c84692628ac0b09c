//! Reads the cumulative counters: sums over all CPUs, never a reset.

use aya::maps::MapError;
use collector_ebpf::abi::{
    counter::{DirectionCounters, Ledger, PUS_PER_CHUNK, PuCounters},
    flow::{RX, TX},
};

use crate::kernel::{error::KernelError, object::CounterMaps};

impl CounterMaps {
    /// What a processing unit has sent and received since the programs were loaded, over all CPUs. `None` where
    /// nothing counts for this index.
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
                for (sum, cpu) in [(&mut sum.direction, &cpu.direction), (&mut sum.local, &cpu.local)] {
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

    /// What became of every packet and record since the programs were loaded, over all CPUs.
    ///
    /// # Errors
    ///
    /// [`KernelError::Map`].
    pub fn ledger(&self) -> Result<Ledger, KernelError> {
        let cpus = self.ledger.get(&0, 0).map_err(failed("LEDGER"))?;
        let mut sum = Ledger::default();
        for cpu in cpus.iter() {
            sum.seen += cpu.seen;
            sum.looped += cpu.looped;
            sum.second_pass += cpu.second_pass;
            sum.table_full += cpu.table_full;
            sum.rate_limited += cpu.rate_limited;
            sum.reserve_failed += cpu.reserve_failed;
            sum.reported += cpu.reported;
            sum.identity_full += cpu.identity_full;
            sum.no_role += cpu.no_role;
            for (into, from) in sum.unparsed.iter_mut().zip(&cpu.unparsed) {
                *into += from;
            }
        }
        Ok(sum)
    }
}

fn add(into: &mut DirectionCounters, from: &DirectionCounters) {
    into.packets += from.packets;
    into.bytes += from.bytes;
    into.skbs += from.skbs;
    into.flowless_packets += from.flowless_packets;
    into.flowless_bytes += from.flowless_bytes;
}

fn failed(map: &'static str) -> impl FnOnce(MapError) -> KernelError {
    move |source| KernelError::Map { map, action: "read", source }
}

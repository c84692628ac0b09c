//! Reads the cumulative counters: sums over all CPUs, never a reset.

use aya::maps::MapError;
use collector_ebpf::abi::{
    control::Crossed,
    counter::{DirectionCounters, Ledger, PUS_PER_CHUNK, PuCounters},
    filter::{AT_DROPS, AT_TC},
    flow::{RX, TX},
    xdp::XdpLedger,
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
                if let (Some(into), Some(from)) =
                    (sum.rejected.get_mut(direction), cpu.rejected.get(direction))
                {
                    *into += from;
                }
            }
            sum.flows += cpu.flows;
            sum.rate_limited += cpu.rate_limited;
            sum.reserve_failed += cpu.reserve_failed;
            sum.table_full += cpu.table_full;
            sum.output_failed += cpu.output_failed;
            sum.inner_lost += cpu.inner_lost;
        }
        Ok(Some(sum))
    }
}

impl Ledgers {
    /// How many CPUs there may be.
    pub fn cpus(&self) -> usize {
        self.cpus.len()
    }

    /// What crossed the uplink with this place since the programs were loaded, over all CPUs.
    pub fn crossed(&self, place: usize) -> Crossed {
        let mut sum = Crossed::default();
        for cpu in (0..self.cpus.len()).filter_map(|cpu| self.cpus.read(cpu)) {
            let Some(crossed) = cpu.crossed.get(place) else { continue };
            for (into, from) in [(&mut sum.skbs, crossed.skbs), (&mut sum.packets, crossed.packets)] {
                for (into, from) in into.iter_mut().zip(from) {
                    *into += from;
                }
            }
        }
        sum
    }

    /// Packets that the filter may have wanted, and that did not match since it asked for octets beyond its window: over all
    /// CPUs, since the programs were loaded.
    ///
    /// # Errors
    ///
    /// [`KernelError::Map`].
    pub fn filter_window(&self) -> Result<u64, KernelError> {
        let mut sum = 0;
        for machine in [AT_TC, AT_DROPS] {
            let cpus = self.machines.get(&machine, 0).map_err(failed("FILTER_RUNS"))?;
            sum += cpus.iter().map(|cpu| cpu.beyond).sum::<u64>();
        }
        Ok(sum)
    }

    /// What became of frames at XDP since the programs were loaded, over all CPUs.
    pub fn xdp(&self) -> XdpLedger {
        let mut sum = XdpLedger::default();
        for cpu in (0..self.cpus.len()).filter_map(|cpu| self.cpus.read(cpu)) {
            // Each by its name: one that is new has to be added here.
            let XdpLedger { seen, passed, dropped, handed, unhanded, taken, headless, malformed } = cpu.xdp;
            sum.seen += seen;
            sum.passed += passed;
            sum.dropped += dropped;
            sum.handed += handed;
            sum.unhanded += unhanded;
            sum.taken += taken;
            sum.headless += headless;
            for (into, from) in sum.malformed.iter_mut().zip(malformed) {
                *into += from;
            }
        }
        sum
    }

    /// What became of every packet and record since the programs were loaded, over all CPUs.
    pub fn sum(&self) -> Ledger {
        let mut sum = Ledger::default();
        for cpu in (0..self.cpus.len()).filter_map(|cpu| self.cpus.read(cpu)) {
            // Each by its name: one that is new has to be added here.
            let Ledger {
                seen,
                looped,
                second_pass,
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
                rejected,
                unparsed,
            } = cpu.ledger;
            sum.seen += seen;
            sum.looped += looped;
            sum.second_pass += second_pass;
            sum.table_full += table_full;
            sum.rate_limited += rate_limited;
            sum.reserve_failed += reserve_failed;
            sum.reported += reported;
            sum.identity_full += identity_full;
            sum.no_role += no_role;
            sum.orphan_fragments += orphan_fragments;
            sum.inner_seen += inner_seen;
            sum.inner_unparsed += inner_unparsed;
            sum.inner_lost += inner_lost;
            sum.traced += traced;
            sum.filtered += filtered;
            sum.sampled += sampled;
            sum.output_failed += output_failed;
            sum.units_exhausted += units_exhausted;
            sum.rejected += rejected;
            for (into, from) in sum.unparsed.iter_mut().zip(unparsed) {
                *into += from;
            }
        }
        sum
    }
}

fn add(into: &mut DirectionCounters, from: &DirectionCounters) {
    // A counter begins again at 0 behind its last number; who reads it takes differences.
    into.packets = into.packets.wrapping_add(from.packets);
    into.bytes = into.bytes.wrapping_add(from.bytes);
    into.skbs = into.skbs.wrapping_add(from.skbs);
}

fn failed(map: &'static str) -> impl FnOnce(MapError) -> KernelError {
    move |source| KernelError::Map { map, action: "read", source }
}

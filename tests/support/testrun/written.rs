//! Counts as they would be after very long, written where the programs keep them.

use std::{mem::offset_of, sync::atomic::Ordering::Relaxed};

use anyhow::{Context as _, ensure};
use aya::{
    Pod,
    maps::{MapData, PerCpuValues},
};
use collector_ebpf::abi::{
    counter::{DirectionCounters, PUS_PER_CHUNK},
    flow::{
        FlowKey4, FlowKey6, Slot4, Slot6, SlotAmounts, SlotCounts, TX, TableCounts, TableKey4, TableKey6,
    },
};
use collector_user::kernel::{batch, memory::SharedArray};

use super::Datapath;
use crate::Result;

impl Datapath {
    /// Makes each slot that is taken say that its flow has sent so much; how many there are.
    pub fn write_slots(&mut self, sent: SlotAmounts) -> usize {
        fn write<T: Pod>(
            slots: &SharedArray<T>,
            key: usize,
            taken: impl Fn(&T) -> bool,
            sent: SlotAmounts,
        ) -> usize {
            let taken = |at: &usize| slots.read(*at).is_some_and(|slot| taken(&slot));
            let at = key + offset_of!(SlotCounts, amounts) + TX * size_of::<SlotAmounts>();
            let words = [sent.bytes, u64::from(sent.packets) | u64::from(sent.skbs) << 32];
            let taken: Vec<_> = (0..slots.len()).filter(taken).collect();
            for slot in &taken {
                for (octets, word) in [(0, words[0]), (8, words[1])] {
                    if let Some(place) = slots.word(*slot, at + octets) {
                        place.store(word, Relaxed);
                    }
                }
            }
            taken.len()
        }
        write(&self.flows.cache_4, size_of::<FlowKey4>(), |slot: &Slot4| !slot.counts.is_empty(), sent)
            + write(&self.flows.cache_6, size_of::<FlowKey6>(), |slot: &Slot6| !slot.counts.is_empty(), sent)
    }

    /// Makes each entry of the tables say that its flow has sent so many packets and octets; how many there are.
    pub fn write_tables(&mut self, packets: u64, bytes: u64) -> Result<usize> {
        fn write<K: Pod>(tables: &[MapData], packets: u64, bytes: u64) -> Result<usize> {
            let mut all = Vec::new();
            for table in tables {
                batch::each(table.fd(), |key: &K, counts: &TableCounts| all.push((table, *key, *counts)))?;
            }
            for (table, key, counts) in &mut all {
                (counts.packets[TX], counts.bytes[TX]) = (packets, bytes);
                ensure!(batch::replace(table.fd(), key, *counts)?, "an entry has gone");
            }
            Ok(all.len())
        }
        Ok(write::<TableKey4>(&self.flows.tables_4, packets, bytes)?
            + write::<TableKey6>(&self.flows.tables_6, packets, bytes)?)
    }

    /// Makes the counters of a unit say that so much of what it sent is in no flow, on the first CPU.
    pub fn write_unit(&mut self, pu: u16, sent: DirectionCounters) -> Result<()> {
        let pu = u32::from(pu);
        let chunk = self.counters.chunks.get_mut((pu / PUS_PER_CHUNK) as usize).context("no such unit")?;
        let mut cpus = chunk.get(&(pu % PUS_PER_CHUNK), 0)?.to_vec();
        cpus.first_mut().context("no CPU")?.flowless[TX] = sent;
        Ok(chunk.set(pu % PUS_PER_CHUNK, PerCpuValues::try_from(cpus)?, 0)?)
    }
}

//! What the programs told on bytes: news of flows, and single packets.

use anyhow::{Context as _, ensure};
use collector_user::{
    drain::{
        decode::{DecodeError, FlowNews, Packet, Record},
        packets::Packets,
    },
    kernel::cpus,
};
use tokio::runtime::Runtime;

use super::Datapath;
use crate::Result;

impl Datapath {
    /// Takes out what is told of flows.
    pub fn news(&mut self) -> Result<Vec<FlowNews>> {
        let mut records = Vec::new();
        self.events.drain(|record| records.push(record));
        self.follow(records)
    }

    /// Waits until the reader of what is told of flows is woken, and takes it out.
    pub fn wait_for_news(&mut self) -> Result<Vec<FlowNews>> {
        let mut records = Vec::new();
        let woken = self.events.next(|record| records.push(record));
        self.runtime.block_on(woken)?;
        self.follow(records)
    }

    fn follow(&mut self, records: Vec<std::result::Result<Record, DecodeError>>) -> Result<Vec<FlowNews>> {
        let mut all = Vec::new();
        for record in records {
            let Record { cpu, sequence, news } = record?;
            ensure!(self.sequences.follow(cpu, sequence), "CPU {cpu} has told its record {sequence} before");
            match news {
                Some(news) => all.push(news),
                None => self.pressed += 1,
            }
        }
        Ok(all)
    }

    /// Makes the buffers for the packets that are traced, which the settings say the size of. Once.
    pub fn buffers(&mut self) -> Result<Buffers> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let (source, read_counts) = self.packets.take().context("the buffers are somebody else's")?;
        let packets = {
            let _inside = runtime.enter();
            let mut packets = Packets::new(source, Some(read_counts))?;
            packets.open(&cpus::online()?)?;
            packets
        };
        Ok(Buffers { packets, runtime })
    }
}

/// The buffers of single packets, which nobody reads but the test.
pub struct Buffers {
    packets: Packets,
    runtime: Runtime,
}

impl Buffers {
    /// Takes out the packets that are there.
    pub fn take(&mut self) -> Result<Vec<Packet>> {
        let mut all = Vec::new();
        self.packets.drain(|packet| all.push(packet));
        all.into_iter().map(|packet| Ok(packet?)).collect()
    }

    /// Waits until a buffer is half full, and takes out some of it.
    pub fn wait(&mut self) -> Result<Vec<Packet>> {
        let mut all = Vec::new();
        self.runtime.block_on(self.packets.next(|packet| all.push(packet)))?;
        all.into_iter().map(|packet| Ok(packet?)).collect()
    }

    /// How many the kernel says it found no room for in perf buffers.
    pub fn skipped(&mut self) -> u64 {
        self.packets.skipped()
    }
}

//! The thread that puts packets into their order and writes them.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, mpsc::Receiver},
};

use super::{
    End, Item, Options, Shared,
    output::{Blocks, Output},
    weight,
};
use crate::{
    event::{Captured, Time},
    sink::{
        merge::{Bounds, Merge},
        pcapng::{Ending, Section},
    },
};

/// Items taken from the queue at once.
const BATCH: usize = 256;
/// What waits for its order at most.
const BOUNDS: Bounds = Bounds { items: super::MOST_PACKETS, weight: super::MOST_OCTETS };

pub(super) struct Thread<W> {
    shared: Arc<Shared>,
    section: Section,
    merge: Merge<Captured>,
    blocks: Blocks<W>,
    /// Taken from the queue, and not looked at.
    batch: VecDeque<Item>,
    /// Packets that are still wanted; none: all that come.
    wanted: Option<u64>,
    clock: fn() -> Time,
}

/// Why the thread stops taking packets in.
enum Stop {
    /// All that were wanted are made to blocks.
    Complete,
    Failed(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

impl<W: Output> Thread<W> {
    pub(super) fn new(options: Options, shared: Arc<Shared>, blocks: Blocks<W>) -> Self {
        let Options { snap_length, filter, count, clock } = options;
        Self {
            shared,
            section: Section::new(snap_length, filter, clock()),
            merge: Merge::new(BOUNDS),
            blocks,
            batch: VecDeque::new(),
            wanted: count,
            clock,
        }
    }

    /// Writes until the queue is closed and empty, or all that is wanted is written; then, with the last words, the
    /// statistics.
    pub(super) fn run(mut self, last: &Receiver<Vec<(String, u64)>>) -> io::Result<()> {
        let stopped = self.take_in().and_then(|()| self.write_held());
        let settled = match stopped {
            Ok(()) => self.settle(),
            Err(Stop::Complete) => self.settle().inspect(|()| self.end(End::Complete)),
            Err(Stop::Failed(error)) => Err(error),
        };
        settled.inspect_err(|_| self.end(End::Failed))?;
        // Nothing where the capture was dropped.
        let losses = last.recv().unwrap_or_default();
        self.give_back();
        let fates = self.shared.fates().clone();
        let time = (self.clock)();
        let ending = Ending { time, lost: fates.queue_full, surplus: fates.surplus, losses };
        self.section.end(&ending, &mut self.blocks.gathered);
        self.settle()
    }

    /// Takes in until there is no more, or no more is wanted.
    fn take_in(&mut self) -> Result<(), Stop> {
        if self.wanted == Some(0) {
            return Err(Stop::Complete);
        }
        let shared = Arc::clone(&self.shared);
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            if !shared.queue.try_take(&mut batch, BATCH) {
                // Nothing to do at once: show what there is, then wait. What waits for its order is told of.
                self.settle()?;
                if !shared.queue.take(&mut batch, BATCH) {
                    return Ok(());
                }
            }
            self.batch.extend(batch.drain(..));
            while let Some(item) = self.batch.pop_front() {
                self.take(item)?;
            }
        }
    }

    /// Writes what waits for its order: nothing comes any more.
    fn write_held(&mut self) -> Result<(), Stop> {
        while let Some(packet) = self.merge.next() {
            self.write(&packet)?;
        }
        Ok(())
    }

    fn take(&mut self, item: Item) -> Result<(), Stop> {
        match item {
            Item::Interface { index, name, link } => {
                self.section.interface(index, &name, link, &mut self.blocks.gathered);
            }
            Item::Packet(packet) => {
                let weight = weight(&packet);
                self.merge.push(packet.boot_ns, weight, packet);
            }
            Item::Complete(until) => self.merge.complete(until),
        }
        while let Some(packet) = self.merge.due() {
            self.write(&packet)?;
        }
        Ok(())
    }

    fn write(&mut self, packet: &Captured) -> Result<(), Stop> {
        self.section.packet(packet, &mut self.blocks.gathered);
        if let Some(wanted) = &mut self.wanted {
            *wanted -= 1;
            if *wanted == 0 {
                return Err(Stop::Complete);
            }
        }
        if self.blocks.is_full() {
            self.settle()?;
        }
        Ok(())
    }

    fn settle(&mut self) -> io::Result<()> {
        let settled = self.blocks.settle();
        let written = self.blocks.written();
        let mut fates = self.shared.fates();
        (fates.written, fates.octets, fates.late) = (written.packets, written.octets, self.merge.late());
        settled
    }

    /// Tells how it ended by itself: who sees the end sees the counts.
    fn end(&self, end: End) {
        self.shared.ended.send_replace(Some(end));
        self.shared.queue.close();
    }

    /// What was taken in and is not wanted any more.
    fn give_back(&mut self) {
        let held = std::iter::from_fn(|| self.merge.next());
        let mut surplus: Vec<u32> = held.map(|packet| packet.ifindex).collect();
        let mut rest = Vec::from(std::mem::take(&mut self.batch));
        loop {
            surplus.extend(rest.drain(..).filter_map(|item| match item {
                Item::Packet(packet) => Some(packet.ifindex),
                Item::Interface { .. } | Item::Complete(_) => None,
            }));
            if !self.shared.queue.try_take(&mut rest, BATCH) {
                break;
            }
        }
        let mut fates = self.shared.fates();
        for index in surplus {
            *fates.surplus.entry(index).or_default() += 1;
        }
    }
}

impl<W> Drop for Thread<W> {
    fn drop(&mut self) {
        // A panic is an end as well.
        if std::thread::panicking() {
            self.shared.ended.send_replace(Some(End::Failed));
            self.shared.queue.close();
        }
    }
}

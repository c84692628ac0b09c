//! Until when all packets have been handed over, so that those of several CPUs can be put in order.
//!
//! A program takes a packet's time first and writes its record later. But no run of a program outlasts a barrier: whoever had
//! taken a time before the barrier began has written when it returns, and what is there then is read to its end. However long
//! the daemon's task was held up before or in between, nothing older comes any more.

use std::time::Duration;

use collector_ebpf::abi::packet::PacketRecord;

use super::{Daemon, DaemonError};
use crate::{clock, event::Captured};

/// Between two looks at the packets that a capture waits for: perf buffers say that they are half full, not that there is
/// something in them.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// What the clock of the programs, which takes no lock, may be behind the one of everybody else while that is adjusted
/// (`ktime_get_boot_fast_ns` in kernel/time/timekeeping.c). Far less in truth.
const BEHIND_NS: u64 = 1_000_000;

/// Packets that wait to be complete at most, before a look is taken at once.
const MOST_PACKETS: u64 = 16_384;
/// The same of their octets.
const MOST_OCTETS: u64 = 8 << 20;

/// What was handed to a capture and is not complete yet.
#[derive(Debug, Default)]
pub(super) struct Incomplete {
    /// The latest boot time of a packet that was handed over.
    newest: u64,
    /// Until when all are complete.
    until: u64,
    packets: u64,
    octets: u64,
}

impl Incomplete {
    /// A packet was handed over.
    pub(super) fn add(&mut self, packet: &Captured) {
        self.newest = self.newest.max(packet.boot_ns);
        self.packets += 1;
        self.octets += (packet.bytes.len() + size_of::<PacketRecord>()) as u64;
    }

    /// Whether any packet waits.
    const fn is_any(&self) -> bool {
        self.newest > self.until
    }

    /// Whether so much waits that it shall not wait for the next look.
    pub(super) const fn is_pressed(&self) -> bool {
        self.packets >= MOST_PACKETS || self.octets >= MOST_OCTETS
    }

    const fn complete(&mut self, until: u64) {
        self.until = until;
        (self.packets, self.octets) = (0, 0);
    }
}

impl Daemon<'_> {
    /// Hands a capture the packets that are there, and says that all are until now.
    pub(super) fn look_at_packets(&mut self) -> Result<(), DaemonError> {
        let now = clock::boot();
        self.drain_packets();
        if self.tracing.incomplete.is_any() {
            self.controller.barrier(&self.flow_maps)?;
            self.complete_packets(now)?;
        }
        Ok(())
    }

    /// Says that all packets are handed over that were seen until `barred`, on the boot clock: a barrier has been since.
    pub(super) fn complete_packets(&mut self, barred: u64) -> Result<(), DaemonError> {
        if !self.tracing.incomplete.is_any() {
            return Ok(());
        }
        if self.options.settings.transport.packets_by_ring() {
            // A ring is read up to the first record that is still being written. That may be one that was begun while the
            // barrier waited, and lie before others that the barrier waited for. After another barrier it is written.
            self.controller.barrier(&self.flow_maps)?;
        }
        self.drain_packets();
        let until = barred.saturating_sub(BEHIND_NS);
        if let Some(capture) = &self.options.capture {
            capture.complete(until);
        }
        self.tracing.incomplete.complete(until);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Incomplete, MOST_OCTETS, MOST_PACKETS};
    use crate::event::Captured;

    fn seen_at(boot_ns: u64, octets: usize) -> Captured {
        Captured { boot_ns, bytes: vec![0; octets].into(), ..Captured::default() }
    }

    #[test]
    fn what_came_later_than_all_are_there_waits_for_the_next_time() {
        let mut incomplete = Incomplete::default();
        assert!(!incomplete.is_any());
        incomplete.add(&seen_at(7, 1));
        incomplete.add(&seen_at(5, 1));
        incomplete.complete(6);
        assert!(incomplete.is_any());
        incomplete.complete(7);
        assert!(!incomplete.is_any());
    }

    #[test]
    fn many_packets_and_large_ones_do_not_wait() {
        for (octets, want) in [(0, MOST_PACKETS), (60_000, MOST_OCTETS.div_ceil(60_100))] {
            let mut incomplete = Incomplete::default();
            let mut count = 0;
            while !incomplete.is_pressed() {
                incomplete.add(&seen_at(1, octets));
                count += 1;
            }
            assert!((want..want + 10).contains(&count), "{count} of {octets}");
            incomplete.complete(0);
            assert!(!incomplete.is_pressed());
        }
    }
}

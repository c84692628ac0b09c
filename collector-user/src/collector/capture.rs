//! Who keeps packets as they were seen.

use std::fmt;

use crate::event::{Captured, LinkType, Text};

/// Receives every packet that was traced or dropped, as it was seen, before the report of it goes to the
/// [`EventCollector`](super::EventCollector).
///
/// The daemon's task calls, one call at a time and in the order in which the packets are read: those of one CPU that were traced
/// are in the order in which they were seen, and so are those that were dropped, which have buffers of their own; others are not,
/// until they are [complete](Self::complete). As a collector, it must not block, and it counts what it loses. After the last packet
/// it is dropped with the daemon's options.
pub trait PacketCapture: fmt::Debug + Send + Sync {
    /// An interface is watched from now on: packets of it may come. Packets may come of others, too: where it was dropped, a
    /// packet need not have been seen at an interface.
    fn watch(&self, index: u32, interface: &Text, link: LinkType) {
        let _ = (index, interface, link);
    }

    /// A packet was seen. What is lent is cheap to clone.
    fn capture(&self, packet: &Captured);

    /// Every packet that was seen up to this time, on the boot clock in nanoseconds, has been handed over, whatever CPU saw
    /// it: those up to then can be put into [their order](Captured::boot_ns). It is told some times in a second as long as there
    /// are packets of which it was not, and before the end.
    fn complete(&self, boot_ns: u64) {
        let _ = boot_ns;
    }
}

//! What devices have dropped by their own counters: part of it never was a socket buffer, and no program is told.

use std::collections::BTreeMap;

use crate::{event::DeviceDrops, host::links::Link};

/// The counters of the interfaces as they were when each was seen first.
#[derive(Default)]
pub(super) struct Devices {
    before: BTreeMap<u32, DeviceDrops>,
}

impl Devices {
    /// These are the interfaces now.
    pub(super) fn note(&mut self, links: &BTreeMap<u32, Link>) {
        self.before.retain(|index, _| links.contains_key(index));
        for (index, link) in links {
            self.before.entry(*index).or_insert(link.dropped);
        }
    }

    /// What the device has dropped since.
    pub(super) fn since(&self, index: u32, now: DeviceDrops) -> Option<DeviceDrops> {
        let before = self.before.get(&index)?;
        Some(DeviceDrops {
            received: now.received.saturating_sub(before.received),
            missed: now.missed.saturating_sub(before.missed),
            sent: now.sent.saturating_sub(before.sent),
        })
    }
}

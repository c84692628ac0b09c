//! By what the programs' records come: a ring of all CPUs, or a perf buffer of each. Sized before the programs are loaded,
//! which are told.

use std::{mem::offset_of, sync::atomic::Ordering};

use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, RingBuf},
};
use collector_ebpf::abi::control::Control;

use super::{
    error::KernelError,
    maps::{mapped, perf, typed},
    memory::SharedArray,
    perf::PerfMap,
    settings::Settings,
};

/// Parts of a ring of packets; its reader is woken by each that is written.
const PARTS: u32 = 4;

/// Where records of one kind come from.
pub enum Source {
    /// A ring of all CPUs, with room for so many octets.
    Ring(RingBuf<MapData>, u32),
    /// A buffer of so many octets for each CPU, once it is opened.
    Perf(PerfMap, u32),
}

/// What the programs are told of their transports, and how large those are.
pub(super) struct Sizes {
    events_by_perf: u32,
    packets_by_ring: u32,
    /// Octets of the ring of events, or of its place on each CPU.
    events: u32,
    /// Octets of a CPU's buffer of packets that are traced, and of its buffer of those that are dropped.
    packets: [u32; 2],
    /// Octets of a ring of packets.
    reports: u32,
    /// Octets of that of those that are traced, or of a CPU's buffer in its place.
    traced: u32,
    wake_shift: u32,
    /// Entries of the maps, by name.
    entries: [(&'static str, u32); 8],
}

impl Sizes {
    /// For so many CPUs that may be, and that are online. Who may not lock memory (`may_lock`) has smaller buffers of packets:
    /// without a limit of its own (`RLIMIT_MEMLOCK`) a user has 516 KiB of such a CPU (`sysctl_perf_event_mlock`), and each needs
    /// a page beside what it holds.
    pub(super) fn new(settings: &Settings, possible: u32, online: u32, may_lock: bool) -> Self {
        let page = rustix::param::page_size() as u32;
        let transport = settings.transport;
        let (by_perf, by_ring) = (transport.events_by_perf(), transport.packets_by_ring());
        let shared = (settings.ring / online.max(1)).max(page);
        // The power of two below, as perf wants it.
        let events = if by_perf { 1 << shared.ilog2() } else { settings.ring };
        let page_at_least = |octets: u32| octets.max(page);
        let packets = settings.packets;
        let packets = if may_lock { [packets; 2] } else { [packets / 2, packets / 4].map(page_at_least) };
        let all = settings.packets.saturating_mul(online.max(1)).min(1 << 31).next_power_of_two();
        let entries = [
            ("EVENTS", if by_perf { page } else { settings.ring }),
            ("NEWS", if by_perf { possible } else { 1 }),
            ("NEWS_AT_ONCE", if by_perf { possible } else { 1 }),
            ("PACKETS", if by_ring { 1 } else { possible }),
            ("REPORTS", if by_ring { all } else { page }),
            ("DROP_PACKETS", if by_ring { 1 } else { possible }),
            ("DROP_REPORTS", if by_ring && settings.drops.is_some() { all } else { page }),
            ("ROOM", if by_ring { possible } else { 1 }),
        ];
        Self {
            events_by_perf: by_perf.into(),
            packets_by_ring: by_ring.into(),
            events,
            packets,
            reports: all,
            traced: if by_ring { all } else { packets[0] },
            wake_shift: (all / PARTS).ilog2(),
            entries,
        }
    }

    /// Before the object is loaded.
    pub(super) fn tell<'a>(&'a self, loader: &mut EbpfLoader<'a>) {
        loader
            .override_global("RING_SIZE", &self.events, true)
            .override_global("PACKETS_SIZE", &self.traced, true)
            .override_global("EVENTS_BY_PERF", &self.events_by_perf, true)
            .override_global("PACKETS_BY_RING", &self.packets_by_ring, true)
            .override_global("WAKE_SHIFT", &self.wake_shift, true);
        for (map, entries) in self.entries {
            loader.map_max_entries(map, entries);
        }
    }

    /// Takes the maps out: where events come from, where packets that are traced do, and where those that are dropped do.
    pub(super) fn take(&self, ebpf: &mut Ebpf) -> Result<[Source; 3], KernelError> {
        let events = if self.events_by_perf == 0 {
            Source::Ring(typed(ebpf, "EVENTS")?, self.events)
        } else {
            Source::Perf(perf(ebpf, "NEWS", Some("NEWS_AT_ONCE"))?, self.events)
        };
        let [traced, dropped] = self.packets;
        let mut packets = |by_perf, octets, by_ring| -> Result<Source, KernelError> {
            Ok(if self.packets_by_ring == 0 {
                Source::Perf(perf(ebpf, by_perf, None)?, octets)
            } else {
                Source::Ring(typed(ebpf, by_ring)?, self.reports)
            })
        };
        Ok([
            events,
            packets("PACKETS", traced, "REPORTS")?,
            packets("DROP_PACKETS", dropped, "DROP_REPORTS")?,
        ])
    }
}

/// What was read of a buffer, or written to it, ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Records.
    pub records: u64,
    /// Octets that they took in the buffer.
    pub octets: u64,
}

/// Whose buffers are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Events,
    /// Those that are traced.
    Packets,
}

/// Tells the programs how much was read, so that they know what is left in the buffer of a CPU.
pub struct ReadCounts {
    control: SharedArray<Control>,
    kind: Kind,
}

impl ReadCounts {
    /// Of events, and of packets, by the programs' control map, which has an entry for each CPU that is possible.
    pub(super) fn both(control: &MapData, possible: u32) -> Result<[Self; 2], KernelError> {
        let of = |kind| Ok::<_, KernelError>(Self { control: mapped(control, "CONTROL", possible)?, kind });
        Ok([of(Kind::Events)?, of(Kind::Packets)?])
    }

    /// So much of a CPU's has been read, ever.
    pub fn tell(&self, cpu: u32, read: Amount) {
        let (place, number) = match self.kind {
            Kind::Events => (offset_of!(Control, events_read), read.records),
            Kind::Packets => (offset_of!(Control, packets_read), read.octets),
        };
        if let Some(place) = self.control.word(cpu as usize, place) {
            place.store(number, Ordering::Release);
        }
    }

    /// How much a CPU has written, ever: where it gets a new buffer, nothing of that is in it. Of events the records are
    /// known, of packets the octets.
    pub fn written(&self, cpu: u32) -> Amount {
        let Some(control) = self.control.read(cpu as usize) else { return Amount::default() };
        match self.kind {
            Kind::Events => Amount { records: control.ledger.reported, octets: 0 },
            Kind::Packets => Amount { records: 0, octets: control.packets_written },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Sizes;
    use crate::kernel::{
        drops::DropLimits,
        settings::{Settings, Transport},
    };

    fn sizes(transport: Transport, online: u32) -> Sizes {
        let settings = Settings { transport, drops: Some(DropLimits::default()), ..Settings::default() };
        Sizes::new(&settings, 8, online, true)
    }

    #[test]
    fn what_is_not_used_is_as_small_as_can_be() {
        let page = rustix::param::page_size() as u32;
        let entries = |transport| sizes(transport, 2).entries.map(|(_, entries)| entries);
        assert_eq!(entries(Transport::Auto), [1 << 22, 1, 1, 8, page, 8, page, 1]);
        assert_eq!(entries(Transport::Ring), [1 << 22, 1, 1, 1, 1 << 20, 1, 1 << 20, 8]);
        assert_eq!(entries(Transport::Perf), [page, 8, 8, 8, page, 8, page, 1]);
    }

    #[test]
    fn who_may_not_lock_memory_has_what_anybody_may() {
        let page = rustix::param::page_size() as u32;
        let [traced, dropped] = Sizes::new(&Settings::default(), 8, 8, false).packets;
        assert!(traced + page + dropped + page <= 516 << 10, "{traced} {dropped}");
        assert!(traced.is_power_of_two() && dropped.is_power_of_two());
        let least = Settings { packets: page, ..Settings::default() };
        assert_eq!(Sizes::new(&least, 8, 8, false).packets, [page; 2]);
    }

    #[test]
    fn a_ring_for_drops_that_nobody_wants_is_as_small_as_can_be() {
        let settings = Settings { transport: Transport::Ring, drops: None, ..Settings::default() };
        let entries = Sizes::new(&settings, 8, 2, true).entries;
        let page = rustix::param::page_size() as u32;
        assert!(
            entries.contains(&("DROP_REPORTS", page)) && entries.contains(&("REPORTS", 1 << 20)),
            "{entries:?}"
        );
    }

    #[test]
    fn every_buffer_is_a_power_of_two() {
        for online in [0, 1, 3, 7, 100, 5000] {
            let perf = sizes(Transport::Perf, online);
            assert!(perf.events.is_power_of_two() && perf.events >= 4096, "{online}: {}", perf.events);
            let ring = sizes(Transport::Ring, online);
            let [_, _, _, _, (_, reports), _, (_, of_drops), _] = ring.entries;
            assert_eq!(reports, of_drops);
            assert!(reports.is_power_of_two() && reports >= 1 << 19, "{online}: {reports}");
            assert_eq!(1 << ring.wake_shift, reports / 4);
        }
    }
}

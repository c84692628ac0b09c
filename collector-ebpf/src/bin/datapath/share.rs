//! A unit's share of a ring: one whose records flood it shall lose its own, and nobody else's.
//!
//! Where records go by a buffer of each CPU, that is what a ring is here. Of events a unit may have half as much in the ring as
//! there is room left (on each CPU that writes for it), of packets that are traced four times as much. So a flood leaves room
//! behind it, however long nobody reads, and a second flood as large a part of that: dynamic thresholds, as switches share
//! their buffers (Choudhury and Hahne, IEEE/ACM Transactions on Networking 6(2), 1998).

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{BPF_RB_CONS_POS, BPF_RB_PROD_POS},
    helpers::bpf_ringbuf_query,
};
use collector_ebpf::abi::{counter::Waiting, packet::PacketRecord, report::FlowEvent};

use crate::{
    account, count,
    maps::{EVENTS, REPORTS},
    settings::{EVENTS_BY_PERF, PACKETS_BY_RING, PACKETS_SIZE, RING_SIZE},
};

/// What a ring puts before each record.
const RING_HEADER: u64 = 8;
/// What a perf buffer puts before each record: a header of eight, and a length of four.
const PERF_HEADER: u64 = 8 + 4;

/// What a record of so many octets takes in a ring or, where that is said, in a perf buffer: a multiple of 8.
#[inline(always)]
const fn room_of(octets: u64, by_perf: bool) -> u64 {
    let header = if by_perf { PERF_HEADER } else { RING_HEADER };
    (octets + header + 7) & !7
}

/// How far a ring was written and read, in octets ever, and how many it holds.
#[derive(Clone, Copy)]
struct Stand {
    written: u64,
    read: u64,
    size: u64,
}

impl Stand {
    /// That of a ring.
    #[inline(always)]
    fn of_ring<T>(ring: *const T, size: u32) -> Self {
        let ring = ring.cast_mut().cast::<c_void>();
        // SAFETY: the ring is a map of this object.
        let position = |of: u32| unsafe { bpf_ringbuf_query(ring, u64::from(of)) };
        let written = position(BPF_RB_PROD_POS);
        Self { written, read: position(BPF_RB_CONS_POS), size: size.into() }
    }

    /// Octets that are left. Both positions grow meanwhile, on other CPUs.
    #[inline(always)]
    fn free(self) -> u64 {
        self.size.saturating_sub(self.written.saturating_sub(self.read))
    }
}

/// Counts another record of so many octets as written, unless what the unit has waiting already `is_too_much` for what is left:
/// `false` then.
///
/// # Safety
///
/// The entry is this CPU's own.
#[inline(always)]
unsafe fn admit(
    waiting: *mut Waiting,
    at: Stand,
    record: u64,
    is_too_much: impl Fn(u64, u64) -> bool,
) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        if at.read >= (*waiting).last {
            (*waiting).before = 0;
            (*waiting).since = 0;
            (*waiting).from = at.written;
        } else if at.read >= (*waiting).from {
            (*waiting).before = (*waiting).since;
            (*waiting).since = 0;
            (*waiting).from = at.written;
        }
        if is_too_much(u64::from((*waiting).before) + u64::from((*waiting).since), at.free()) {
            return false;
        }
        (*waiting).since += record as u32;
        // Its end, if no other CPU writes before it in this moment: at most a record of each is forgotten too early.
        (*waiting).last = at.written + record;
    }
    true
}

/// There was no room for a record that was counted as written.
///
/// # Safety
///
/// As above.
#[inline(always)]
unsafe fn give_back(waiting: *mut Waiting, record: u64) {
    // SAFETY: the caller's promise.
    unsafe { (*waiting).since = (*waiting).since.saturating_sub(record as u32) };
}

/// What an event takes.
#[inline(always)]
fn event() -> u64 {
    room_of(size_of::<FlowEvent>() as u64, EVENTS_BY_PERF.load() != 0)
}

/// 1 if the unit may write another event, which counts as written then: [`lost`] gives it back.
#[inline(never)]
pub(crate) fn take(pu: u16) -> u32 {
    let Some(unit) = count::unit(pu) else { return 1 };
    let at = if EVENTS_BY_PERF.load() == 0 {
        Stand::of_ring(&raw const EVENTS, RING_SIZE.load())
    } else {
        let Some(control) = account::control() else { return 1 };
        // SAFETY: this CPU's own entry; user space writes what it has read by one aligned store.
        let (written, read) =
            unsafe { ((*control).ledger.reported, (&raw const (*control).events_read).read_volatile()) };
        Stand { written: written * event(), read: read * event(), size: RING_SIZE.load().into() }
    };
    // SAFETY: this CPU's own entry.
    unsafe {
        if admit(&raw mut (*unit).waiting, at, event(), |own, free| 2 * own > free) {
            return 1;
        }
        (*unit).reserve_failed += 1;
    }
    0
}

/// There was no room in the ring for an event that the unit might write.
#[inline(never)]
pub(crate) fn lost(pu: u16) -> u32 {
    if let Some(unit) = count::unit(pu) {
        // SAFETY: this CPU's own entry.
        unsafe {
            give_back(&raw mut (*unit).waiting, event());
            (*unit).reserve_failed += 1;
        }
    }
    0
}

/// What the record of a packet that is traced takes, with so many of its octets.
#[inline(always)]
fn packet(captured: u32) -> u64 {
    room_of(size_of::<PacketRecord>() as u64 + u64::from(captured), PACKETS_BY_RING.load() == 0)
}

/// 1 if the unit may write the record of another packet, with so many of its octets: [`wrote_packet`] says then whether there
/// was room.
#[inline(never)]
pub(crate) fn take_packet(pu: u16, captured: u32) -> u32 {
    let Some(unit) = count::unit(pu) else { return 1 };
    let at = if PACKETS_BY_RING.load() == 0 {
        let Some(control) = account::control() else { return 1 };
        // SAFETY: this CPU's own entry; user space writes what it has read by one aligned store.
        let (written, read) =
            unsafe { ((*control).packets_written, (&raw const (*control).packets_read).read_volatile()) };
        Stand { written, read, size: PACKETS_SIZE.load().into() }
    } else {
        Stand::of_ring(&raw const REPORTS, PACKETS_SIZE.load())
    };
    // SAFETY: this CPU's own entry.
    let admitted =
        unsafe { admit(&raw mut (*unit).waiting_packets, at, packet(captured), |own, free| own > 4 * free) };
    admitted.into()
}

/// Such a record was written, or there was no room for it. 0.
#[inline(never)]
pub(crate) fn wrote_packet(pu: u16, captured: u32, has_failed: bool) -> u32 {
    // SAFETY: this CPU's own entries.
    unsafe {
        if has_failed {
            if let Some(unit) = count::unit(pu) {
                give_back(&raw mut (*unit).waiting_packets, packet(captured));
            }
        } else if let Some(control) = account::control() {
            (*control).packets_written += packet(captured);
        }
    }
    0
}

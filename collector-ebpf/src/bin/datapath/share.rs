//! A unit's share of the ring: one whose events flood it shall lose its own, and nobody else's.
//!
//! A unit may have half as much in the ring as there is room left (on each CPU that writes for it). Where events go by a
//! buffer of each CPU, that is what a ring is here. So a flood leaves room
//! behind it, however long nobody reads, and a second flood half of that: dynamic thresholds, as switches share their
//! buffers (Choudhury and Hahne, IEEE/ACM Transactions on Networking 6(2), 1998).

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{BPF_RB_CONS_POS, BPF_RB_PROD_POS},
    helpers::bpf_ringbuf_query,
};
use collector_ebpf::abi::report::FlowEvent;

use crate::{
    account, count,
    maps::EVENTS,
    settings::{EVENTS_BY_PERF, RING_SIZE},
};

/// Octets of a record in the ring, which puts a header of eight before each.
const IN_RING: u64 = size_of::<FlowEvent>() as u64 + 8;
/// Octets of one in a perf buffer: a header of eight, the length of four, and padding to eight.
const IN_PERF: u64 = (size_of::<FlowEvent>() as u64 + 8 + 4).next_multiple_of(8);

/// 1 if the unit may write another record, which counts as written then: [`lost`] gives it back.
#[inline(never)]
pub(crate) fn take(pu: u16) -> u32 {
    let Some(unit) = count::unit(pu) else { return 1 };
    let (written, read, record) = if EVENTS_BY_PERF.load() == 0 {
        (position(BPF_RB_PROD_POS), position(BPF_RB_CONS_POS), IN_RING)
    } else {
        let Some(control) = account::control() else { return 1 };
        // SAFETY: this CPU's own entry; user space writes what it has read by one aligned store.
        let (written, read) =
            unsafe { ((*control).ledger.reported, (&raw const (*control).events_read).read_volatile()) };
        (written * IN_PERF, read * IN_PERF, IN_PERF)
    };
    // SAFETY: this CPU's own entry.
    unsafe {
        let waiting = &raw mut (*unit).waiting;
        if read >= (*waiting).last {
            (*waiting).before = 0;
            (*waiting).since = 0;
            (*waiting).from = written;
        } else if read >= (*waiting).from {
            (*waiting).before = (*waiting).since;
            (*waiting).since = 0;
            (*waiting).from = written;
        }
        let own = (u64::from((*waiting).before) + u64::from((*waiting).since)) * record;
        // Both positions grow meanwhile, on other CPUs.
        let free = u64::from(RING_SIZE.load()).saturating_sub(written.saturating_sub(read));
        if 2 * own > free {
            (*unit).reserve_failed += 1;
            return 0;
        }
        (*waiting).since += 1;
        // Its end, if no other CPU writes before it in this moment: at most a record of each is forgotten too early.
        (*waiting).last = written + record;
    }
    1
}

/// There was no room in the ring for a record that the unit might write.
#[inline(never)]
pub(crate) fn lost(pu: u16) -> u32 {
    if let Some(unit) = count::unit(pu) {
        // SAFETY: this CPU's own entry.
        unsafe {
            (*unit).waiting.since = (*unit).waiting.since.saturating_sub(1);
            (*unit).reserve_failed += 1;
        }
    }
    0
}

/// A position in the ring, in octets ever written or read.
#[inline(always)]
fn position(of: u32) -> u64 {
    let ring = (&raw const EVENTS).cast_mut().cast::<c_void>();
    // SAFETY: the ring is a map of this object.
    unsafe { bpf_ringbuf_query(ring, u64::from(of)) }
}

//! How records come to user space: events by a ring of all CPUs and packets by a perf buffer of each, or all of them one way.
//! What is traced and what is dropped have a ring, or buffers, each: neither takes the other's room.
//!
//! Which way is a constant to the verifier, so what is not taken is not there. A perf buffer wakes its reader when it is half
//! full (`kernel/perf.rs` of user space sees to that), the ring of packets each time that a part of it was written; events
//! wake theirs as the ring decides, and what asks for a drain at once.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{BPF_F_CURRENT_CPU, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, BPF_RB_PROD_POS},
    btf_maps::{PerfEventArray, RingBuf},
    helpers::{
        bpf_get_smp_processor_id,
        generated::{
            bpf_perf_event_output, bpf_probe_read_kernel, bpf_ringbuf_output, bpf_ringbuf_query,
            bpf_skb_load_bytes, bpf_skb_output,
        },
    },
};
use collector_ebpf::abi::{packet::PacketRecord, report::FlowEvent};

use crate::{
    Frame, Skb,
    maps::{
        ASKED, DROP_PACKETS, DROP_REPORTS, EVENTS, NEWS, NEWS_AT_ONCE, PACKETS, REPORTS, ROOM, ROOM_SIZE,
        Room, SCRATCH,
    },
    packet::opaque,
    settings::{EVENTS_BY_PERF, PACKETS_BY_RING, WAKE_SHIFT},
};

/// A ring of packets.
type Ring = RingBuf<PacketRecord, 4096>;

/// Hands an event over, and wakes its reader `at_once` if that is said; `false` where there is no room.
#[inline(always)]
pub(crate) fn event(skb: Skb, at_once: bool, make: impl Fn() -> FlowEvent) -> bool {
    if EVENTS_BY_PERF.load() == 0 {
        let Some(mut entry) = EVENTS.reserve(0) else { return false };
        entry.write(make());
        entry.submit(0);
        return true;
    }
    let Some(asked) = ASKED.get_ptr_mut(0) else { return false };
    // SAFETY: this CPU's own entry; the kernel's context, and a map of this object.
    unsafe {
        let event = &raw mut (*asked).event;
        event.write(make());
        let map = if at_once { &raw const NEWS_AT_ONCE } else { &raw const NEWS }.cast_mut().cast();
        let size = size_of::<FlowEvent>() as u64;
        bpf_perf_event_output(skb.cast(), map, BPF_F_CURRENT_CPU, event.cast(), size) == 0
    }
}

/// Where the record of this run's packet is to be written.
#[inline(always)]
pub(crate) fn record() -> Option<*mut PacketRecord> {
    if PACKETS_BY_RING.load() == 0 {
        let scratch = SCRATCH.get_ptr_mut(0)?;
        // SAFETY: this CPU's own entry.
        return Some(unsafe { &raw mut (*scratch).record });
    }
    // SAFETY: no arguments, no memory.
    let room = ROOM.get_ptr_mut(unsafe { bpf_get_smp_processor_id() })?;
    // SAFETY: this CPU's own entry.
    Some(unsafe { &raw mut (*room).record })
}

/// Hands a packet's [`record`] over, and `captured` octets of the packet; 0, or why the kernel did not take it.
///
/// # Safety
///
/// The context is live, and the record is where it was to be written.
#[inline(always)]
pub(crate) unsafe fn packet(skb: Skb, record: *mut PacketRecord, captured: u32) -> i64 {
    if PACKETS_BY_RING.load() == 0 {
        // SAFETY: the caller's promise.
        return unsafe { with_octets(&raw const PACKETS, skb.cast(), record, captured) };
    }
    let room: *mut Room = record.cast();
    if captured == 0 {
        // SAFETY: the caller's promise.
        return unsafe { by_ring(&raw const REPORTS, record.cast(), size_of::<PacketRecord>()) };
    }
    // All but the last, in a form in which the verifier sees their bound wherever it is needed: it forgets what was put
    // aside, and a length of 0 is not to be excluded by a comparison before Linux 6.8.
    let most = || opaque(captured as usize - 1) & (ROOM_SIZE - 1);
    // SAFETY: the caller's promise; there is room for that much.
    unsafe {
        let into = (&raw mut (*room).octets).cast::<c_void>();
        let failed = bpf_skb_load_bytes(skb.cast(), 0, into, most() as u32 + 1);
        if failed != 0 {
            return failed;
        }
        let size = size_of::<PacketRecord>() + 1;
        let flags = wake(&raw const REPORTS, size + most());
        output(&raw const REPORTS, record.cast(), (size + most()) as u64, flags)
    }
}

/// Hands a record over by this CPU's perf buffer, and behind it so many octets of what the context is about.
///
/// # Safety
///
/// The context is live.
#[inline(always)]
unsafe fn with_octets(
    map: *const PerfEventArray,
    context: *mut c_void,
    record: *mut PacketRecord,
    captured: u32,
) -> i64 {
    let flags = u64::from(captured) << 32 | u64::from(BPF_F_CURRENT_CPU as u32);
    let (map, size) = (map.cast_mut().cast(), size_of::<PacketRecord>() as u64);
    // SAFETY: the caller's promise; a map of this object.
    unsafe { bpf_perf_event_output(context, map, flags, record.cast(), size) }
}

/// Hands over the [`record`] of a frame at XDP, and so many octets of the frame; 0, or why the kernel did not take it. By the
/// ring no more of them than lie in the first buffer.
///
/// # Safety
///
/// The context is live, and the record is where it was to be written.
#[inline(always)]
pub(crate) unsafe fn frame(frame: Frame, record: *mut PacketRecord, captured: u32) -> i64 {
    if PACKETS_BY_RING.load() == 0 {
        // SAFETY: the caller's promise.
        return unsafe { with_octets(&raw const DROP_PACKETS, frame.cast(), record, captured) };
    }
    if captured == 0 {
        // SAFETY: the caller's promise.
        return unsafe { by_ring(&raw const DROP_REPORTS, record.cast(), size_of::<PacketRecord>()) };
    }
    let room: *mut Room = record.cast();
    let most = || opaque(captured as usize - 1) & (ROOM_SIZE - 1);
    // SAFETY: the caller's promise; there is room for that much, and where the frame cannot be read the helper says so.
    unsafe {
        let into = (&raw mut (*room).octets).cast::<c_void>();
        let failed = bpf_probe_read_kernel(into, most() as u32 + 1, (*frame).data as usize as *const c_void);
        if failed != 0 {
            return failed;
        }
        let size = size_of::<PacketRecord>() + 1;
        let flags = wake(&raw const DROP_REPORTS, size + most());
        output(&raw const DROP_REPORTS, record.cast(), (size + most()) as u64, flags)
    }
}

/// Hands over the first octets of what lies in one piece; 0, or why the kernel did not take it.
///
/// # Safety
///
/// The context is live.
#[inline(always)]
pub(crate) unsafe fn whole<T>(context: *mut c_void, piece: &mut T, size: usize) -> i64 {
    let start = (&raw mut *piece).cast::<c_void>();
    if PACKETS_BY_RING.load() == 0 {
        let map = (&raw const DROP_PACKETS).cast_mut().cast();
        // SAFETY: the caller's promise; a map of this object.
        return unsafe { bpf_perf_event_output(context, map, BPF_F_CURRENT_CPU, start, size as u64) };
    }
    let flags = wake(&raw const DROP_REPORTS, size);
    let size = opaque(size);
    if size > size_of::<T>() {
        return -1;
    }
    // SAFETY: it is as long at least.
    unsafe { output(&raw const DROP_REPORTS, start, size as u64, flags) }
}

/// Hands over the first octets of what lies in one piece, and behind them so many of a buffer, from where the kernel has come
/// to in it, wherever they lie; 0, or why the kernel did not take it. By a perf buffer alone.
///
/// # Safety
///
/// The buffer is one that the tracepoint was given, and the piece has as many octets.
#[inline(always)]
pub(crate) unsafe fn with_rest<T>(skb: *mut c_void, piece: &mut T, size: usize, rest: u32) -> i64 {
    let flags = u64::from(rest) << 32 | u64::from(BPF_F_CURRENT_CPU as u32);
    let (map, start) = ((&raw const DROP_PACKETS).cast_mut().cast(), (&raw mut *piece).cast());
    // SAFETY: the caller's promise; a map of this object.
    unsafe { bpf_skb_output(skb, map, flags, start, size as u64) }
}

/// Writes so many octets, which the verifier knows, to a ring.
///
/// # Safety
///
/// There are as many.
#[inline(always)]
unsafe fn by_ring(ring: *const Ring, start: *mut c_void, size: usize) -> i64 {
    let flags = wake(ring, size);
    // SAFETY: the caller's promise.
    unsafe { output(ring, start, size as u64, flags) }
}

/// # Safety
///
/// There are as many octets.
#[inline(always)]
unsafe fn output(ring: *const Ring, start: *mut c_void, size: u64, flags: u64) -> i64 {
    // SAFETY: the caller's promise; a map of this object.
    unsafe { bpf_ringbuf_output(ring.cast_mut().cast(), start, size, flags) }
}

/// What the ring puts before a record, and what a record's place is a multiple of (`BPF_RINGBUF_HDR_SZ`).
const HEADER: u64 = 8;

/// Whether the reader is to be woken by a record of so many octets: where a part of the ring ends with it. What another CPU
/// writes meanwhile may hide that end, until the next part ends.
#[inline(always)]
fn wake(ring: *const Ring, size: usize) -> u64 {
    // SAFETY: a map of this object.
    let written = unsafe { bpf_ringbuf_query(ring.cast_mut().cast(), u64::from(BPF_RB_PROD_POS)) };
    let part = |position: u64| position >> (WAKE_SHIFT.load() & 63);
    let taken = (size as u64 + 2 * HEADER - 1) & !(HEADER - 1);
    let wakes = part(written) != part(written + taken);
    u64::from(if wakes { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP })
}

//! The counters: of processing units, of flows in a slot, the ledger; and the mark.

use core::mem::offset_of;

use collector_ebpf::abi::{
    counter::{DirectionCounters, Ledger, PUS_PER_CHUNK, PuCounters},
    flow::SlotCounts,
    pu::index,
};

use crate::{
    Skb,
    maps::{LEDGER, PUS},
    packet::Wire,
    settings::{MARK_MASK, MARK_SHIFT},
};

/// Adds a packet to a slot. What fits into one word is changed in one: LLVM would take it apart.
///
/// # Safety
///
/// The slot is live, and this CPU's alone.
#[inline(always)]
#[expect(clippy::indexing_slicing, reason = "a direction is RX or TX; a panic would be refused at load")]
pub(crate) unsafe fn add(
    counts: *mut SlotCounts,
    direction: usize,
    wire: Wire,
    now: u64,
    interface: u16,
    tcp_flags: u8,
) -> Counted {
    // SAFETY: the caller's promise; the last fields are one aligned word.
    unsafe {
        (*counts).bytes[direction] += wire.bytes;
        (*counts).packets[direction] += wire.packets;
        (*counts).skbs[direction] += 1;
        (*counts).last = now as u32;
        let last = counts.cast::<u64>().add(offset_of!(SlotCounts, pu) / 8);
        let word = *last & !(0xFFFF << 16)
            | u64::from(interface) << 16
            | u64::from(tcp_flags) << (32 + 8 * direction as u32);
        *last = word;
        Counted { pu: word as u16, how: (word >> 56) as u8 }
    }
}

/// Whose packet was added, and how that is known.
pub(crate) struct Counted {
    pub(crate) pu: u16,
    pub(crate) how: u8,
}

// The word in which `add` finds the last fields of a slot.
const _: () = {
    assert!(offset_of!(SlotCounts, pu).is_multiple_of(8));
    assert!(offset_of!(SlotCounts, interface) == offset_of!(SlotCounts, pu) + 2);
    assert!(offset_of!(SlotCounts, tcp_flags) == offset_of!(SlotCounts, pu) + 4);
    assert!(offset_of!(SlotCounts, how) == offset_of!(SlotCounts, pu) + 7);
};

/// This CPU's counters of a processing unit.
#[inline(always)]
pub(crate) fn unit(pu: u16) -> Option<*mut PuCounters> {
    let pu = u32::from(pu);
    PUS.get(pu / PUS_PER_CHUNK)?.per_cpu_array().get_ptr_mut(pu % PUS_PER_CHUNK)
}

/// Counts a packet for its processing unit.
#[inline(always)]
#[expect(clippy::indexing_slicing, reason = "a direction is RX or TX; a panic would be refused at load")]
pub(crate) fn count_unit(pu: u16, direction: usize, wire: Wire, in_flow: bool) {
    let Some(unit) = unit(pu) else { return };
    // SAFETY: this CPU's own entry.
    unsafe { count(&raw mut (*unit).direction[direction], wire, in_flow) };
}

/// Counts what loopback carries, for the unit at one of its ends.
#[inline(always)]
#[expect(clippy::indexing_slicing, reason = "a direction is RX or TX; a panic would be refused at load")]
pub(crate) fn count_local(pu: u16, direction: usize, wire: Wire, in_flow: bool) {
    let Some(unit) = unit(pu) else { return };
    // SAFETY: this CPU's own entry.
    unsafe { count(&raw mut (*unit).local[direction], wire, in_flow) };
}

/// Adds a packet.
///
/// # Safety
///
/// The counters are this CPU's own.
#[inline(always)]
unsafe fn count(counters: *mut DirectionCounters, wire: Wire, in_flow: bool) {
    // SAFETY: the caller's promise.
    unsafe {
        (*counters).packets += u64::from(wire.packets);
        (*counters).bytes += wire.bytes;
        (*counters).skbs += 1;
        if !in_flow {
            (*counters).flowless_packets += u64::from(wire.packets);
            (*counters).flowless_bytes += wire.bytes;
        }
    }
}

/// Changes this CPU's ledger.
#[inline(always)]
pub(crate) fn ledger(change: impl FnOnce(&mut Ledger)) {
    if let Some(ledger) = LEDGER.get_ptr_mut(0) {
        // SAFETY: this CPU's own entry, and nothing else refers to it meanwhile.
        change(unsafe { &mut *ledger });
    }
}

/// Writes the unit's mark into its bits of the packet's mark; the other bits are others'.
#[inline(always)]
pub(crate) fn mark(skb: Skb, pu: u16) {
    if pu < index::FIRST {
        return;
    }
    let mask = MARK_MASK.load();
    let value = u32::from(pu) << MARK_SHIFT.load();
    if value & !mask == 0 {
        // SAFETY: the kernel hands the program a live context, whose mark it may write.
        unsafe { (*skb).mark = (*skb).mark & !mask | value };
    }
}

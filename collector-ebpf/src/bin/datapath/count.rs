//! The counters: of flows in a slot, of processing units, the ledger; and the mark.

use core::mem::offset_of;

use collector_ebpf::abi::{
    counter::{DirectionCounters, Ledger, PUS_PER_CHUNK, PuCounters},
    flow::{SlotAmounts, SlotCounts},
    pu::index,
};

use crate::{
    Skb, account,
    maps::PUS,
    packet::Wire,
    settings::{MARK_MASK, MARK_SHIFT},
};

/// Adds a packet to a slot.
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
) {
    // SAFETY: the caller's promise. Packets and buffers are the halves of one word, and neither runs over.
    unsafe {
        let amounts = &raw mut (*counts).amounts[direction];
        (*amounts).bytes += wire.bytes;
        *amounts.cast::<u64>().add(offset_of!(SlotAmounts, packets) / 8) += u64::from(wire.packets) | 1 << 32;
        (*counts).last = now as u32;
        (*counts).interface = interface;
        (*counts).tcp_flags[direction] |= tcp_flags;
    }
}

// The word in which `add` finds packets and buffers; BPF runs little-endian here (bpfel).
const _: () = {
    assert!(offset_of!(SlotAmounts, packets).is_multiple_of(8));
    assert!(offset_of!(SlotAmounts, skbs) == offset_of!(SlotAmounts, packets) + 4);
};

/// This CPU's counters of a processing unit.
#[inline(always)]
pub(crate) fn unit(pu: u16) -> Option<*mut PuCounters> {
    let pu = u32::from(pu);
    PUS.get(pu / PUS_PER_CHUNK)?.per_cpu_array().get_ptr_mut(pu % PUS_PER_CHUNK)
}

/// Counts a packet that no flow holds for its processing unit.
#[inline(always)]
#[expect(clippy::indexing_slicing, reason = "a direction is RX or TX; a panic would be refused at load")]
pub(crate) fn count_flowless(pu: u16, direction: usize, wire: Wire) {
    let Some(unit) = unit(pu) else { return };
    // SAFETY: this CPU's own entry.
    unsafe { count(&raw mut (*unit).flowless[direction], wire) };
}

/// Counts what loopback carries, for the unit at one of its ends.
#[inline(always)]
#[expect(clippy::indexing_slicing, reason = "a direction is RX or TX; a panic would be refused at load")]
pub(crate) fn count_local(pu: u16, direction: usize, wire: Wire) {
    let Some(unit) = unit(pu) else { return };
    // SAFETY: this CPU's own entry.
    unsafe { count(&raw mut (*unit).local[direction], wire) };
}

/// Counts packets that a policy of the unit rejected.
#[inline(always)]
#[expect(clippy::indexing_slicing, reason = "a direction is RX or TX; a panic would be refused at load")]
pub(crate) fn count_rejected(pu: u16, direction: usize, packets: u32) {
    let Some(unit) = unit(pu) else { return };
    // SAFETY: this CPU's own entry.
    unsafe { (*unit).rejected[direction & 1] += u64::from(packets) };
}

/// Adds a packet.
///
/// # Safety
///
/// The counters are this CPU's own.
#[inline(always)]
unsafe fn count(counters: *mut DirectionCounters, wire: Wire) {
    // SAFETY: the caller's promise.
    unsafe {
        (*counters).packets += u64::from(wire.packets);
        (*counters).bytes += wire.bytes;
        (*counters).skbs += 1;
    }
}

/// Changes this CPU's ledger.
#[inline(always)]
pub(crate) fn ledger(change: impl FnOnce(&mut Ledger)) {
    if let Some(control) = account::control() {
        // SAFETY: this CPU's own entry, and nothing else refers to its ledger meanwhile.
        change(unsafe { &mut (*control).ledger });
    }
}

/// Counts buffers of tunnels for whose flow inside, which is the unit's, there was no room or no budget.
#[inline(always)]
pub(crate) fn inner_lost(pu: u16, skbs: u64) {
    ledger(|ledger| ledger.inner_lost += skbs);
    let Some(unit) = unit(pu) else { return };
    // SAFETY: this CPU's own entry.
    unsafe { (*unit).inner_lost += skbs };
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

//! Who holds a cache slot, and where its counts go when another flow takes its place.

use core::ptr;

use collector_ebpf::{
    abi::{
        flow::{FLUSH_AT, RX, SlotCounts, TX, TableCounts, how},
        network,
    },
    flow::connection,
    wire::tcp,
};

use crate::{
    account, atomic,
    count::{self, unit},
    family::{Key, Slot},
    identity::Who,
    read::Packet,
    table::Place,
};

/// The slot that the flow holds, of the two that it may have.
#[inline(always)]
pub(crate) fn of<K: Key>(key: &K, index: u32) -> Option<Slot<K>> {
    let slot = K::slot(index)?;
    // SAFETY: the slot is live, and this CPU's alone while softirqs are off.
    if unsafe { (*slot.key).is(key) } {
        return Some(slot);
    }
    let slot = K::slot(index ^ 1)?;
    // SAFETY: as above.
    unsafe { (*slot.key).is(key) }.then_some(slot)
}

/// The slot that the packet's flow holds, or else the one that it shall take: an empty one, or that which has been quiet
/// for longer. Null on a CPU without slots.
#[inline(never)]
pub(crate) fn for_flow<K: Key>(packet: &Packet) -> *mut K {
    let key = packet.key::<K>();
    let Some(control) = account::control() else { return ptr::null_mut() };
    let index = key.index(control, packet.word);
    let (Some(one), Some(other)) = (K::slot(index), K::slot(index ^ 1)) else { return ptr::null_mut() };
    let now = packet.now as u32;
    // SAFETY: both are live, and this CPU's alone while softirqs are off.
    unsafe {
        let takes_other = !(*one.key).is(key)
            && ((*other.key).is(key) || age(one.counts(), now) < age(other.counts(), now));
        if takes_other { other.key } else { one.key }
    }
}

/// For how many ticks a slot has been quiet; an empty one for ever.
///
/// # Safety
///
/// The slot is live, and this CPU's alone.
#[inline(always)]
unsafe fn age(counts: *const SlotCounts, now: u32) -> u32 {
    // SAFETY: the caller's promise.
    unsafe { if (*counts).is_empty() { u32::MAX } else { now.wrapping_sub((*counts).last) } }
}

/// Whether a packet of the flow that holds the slot only has to be added there.
#[inline(always)]
#[expect(clippy::indexing_slicing, reason = "a direction is RX or TX; a panic would be refused at load")]
pub(crate) fn is_steady<K: Copy>(slot: &Slot<K>, direction: usize, tcp_flags: u8) -> bool {
    if tcp_flags & (tcp::SYN | tcp::FIN | tcp::RST) != 0 {
        return false;
    }
    // SAFETY: the slot is live, and this CPU's alone while softirqs are off. The comparison covers two rare cases:
    // nothing counted in this direction yet, and no room for more.
    unsafe { (*slot.counts()).amounts[direction].packets.wrapping_sub(1) < FLUSH_AT - 1 }
}

/// Gives the slot to the packet's flow, with its identity as it is now; the counts of another flow or unit, or counts
/// that have no room left, move to the table. 1.
#[inline(never)]
pub(crate) fn take<K: Key>(key: *mut K, packet: &Packet, who: u64) -> u32 {
    let counts = Slot { key }.counts();
    let who = Who::unpack(who);
    let Who { pu, how, host_pu, .. } = who;
    // SAFETY: the slot is live, and this CPU's alone while softirqs are off.
    unsafe {
        // What was counted for another unit stays its own.
        let moved = (*counts).pu != pu
            || ((*counts).how ^ how) & how::PROVISIONAL != 0
            || (*counts).host_pu() != host_pu
            || (*counts).verdict() != who.number();
        let occupied = !(*counts).is_empty();
        let own = (*key).is(packet.key());
        let full = (*counts).amounts[RX].packets >= FLUSH_AT
            || (*counts).amounts[TX].packets >= FLUSH_AT
            || (*counts).begun == u8::MAX;
        if !own || full || moved {
            if occupied {
                flush(&*key, packet.word, &*counts);
            }
            *key = *packet.key();
            *counts = SlotCounts { first: packet.now as u32, ..SlotCounts::default() };
            (*counts).set_host_pu(host_pu);
            (*counts).set_verdict(who.number());
        }
        (*counts).pu = pu;
        (*counts).how = how;
        (*counts).begun += u8::from(begins(packet, who));
    }
    1
}

/// Takes the slot from the flow that the packet is of, if that has one: its counts move to the table. 0.
#[inline(always)]
pub(crate) fn leave<K: Key>(packet: &Packet) -> u32 {
    let key = for_flow::<K>(packet);
    // SAFETY: the slot is live, and this CPU's alone while softirqs are off.
    unsafe {
        if !key.is_null() && (*key).is(packet.key()) {
            let counts = Slot { key }.counts();
            if !(*counts).is_empty() {
                flush(&*key, packet.word, &*counts);
            }
            *counts = SlotCounts::default();
        }
    }
    0
}

/// Whether a connection begins with the packet. One of TCP that is met without its SYN began before anyone looked.
#[inline(always)]
fn begins(packet: &Packet, who: Who) -> bool {
    who.began() && connection::begins(packet.tcp_flags)
}

/// Counts a packet on a CPU without slots, or one that is dropped for a policy, straight in the table; 0 where that is full.
/// What is dropped as it is about to leave is counted as rejected alone.
#[inline(never)]
#[expect(clippy::indexing_slicing, reason = "a direction is RX or TX; a panic would be refused at load")]
pub(crate) fn into_table<K: Key>(packet: &Packet, who: u64, packets: u32, bytes: u64) -> u32 {
    let who = Who::unpack(who);
    let now = packet.now as u32;
    let never_leaves = who.is_dropped() && packet.is_leaving();
    let place = Place::new(packet.word, now, (who.pu, who.how, who.host_pu), who.number());
    let Some(entry) = packet.key::<K>().table_entry(&place) else {
        if packet.inside == 0 && !never_leaves {
            count::ledger(|ledger| ledger.table_full += 1);
            if let Some(unit) = unit(who.pu) {
                // SAFETY: this CPU's own entry.
                unsafe { (*unit).table_full += 1 };
            }
        }
        return 0;
    };
    let direction = packet.direction();
    // SAFETY: the entry is live for the run; additions are atomic, the rest is written by this CPU only.
    unsafe {
        if who.is_dropped() {
            atomic::add(&raw mut (*entry).rejected[direction], u64::from(packets));
        }
        if !never_leaves {
            atomic::add(&raw mut (*entry).bytes[direction], bytes);
            atomic::add(&raw mut (*entry).packets[direction], u64::from(packets));
            atomic::add(&raw mut (*entry).skbs[direction], 1);
        }
        (*entry).tcp_flags[direction] |= packet.tcp_flags;
        atomic::add(&raw mut (*entry).begun, u64::from(begins(packet, who)));
        (*entry).last = now;
        (*entry).interface = packet.role.interface;
        (*entry).how = who.how;
    }
    1
}

/// Moves a slot's counts to the table; where that is full, the unit and the ledger say what no flow holds
/// now.
#[inline(never)]
#[expect(clippy::indexing_slicing, reason = "a direction is RX or TX; a panic would be refused at load")]
fn flush<K: Key>(key: &K, word: u64, counts: &SlotCounts) -> u32 {
    let units = (counts.pu, counts.how, counts.host_pu());
    let place = Place::new(word, counts.first, units, counts.verdict());
    if let Some(entry) = key.table_entry(&place) {
        // SAFETY: the entry is live for the run.
        unsafe { merge(entry, counts) };
        return 0;
    }
    let skbs = |direction: usize| u64::from(counts.amounts[direction].skbs);
    if network::is_inside(key.rest().boundary) {
        count::inner_lost(counts.pu, skbs(RX) + skbs(TX));
        return 0;
    }
    count::ledger(|ledger| ledger.table_full += skbs(RX) + skbs(TX));
    if let Some(unit) = unit(counts.pu) {
        // SAFETY: this CPU's own entry.
        unsafe { (*unit).table_full += skbs(RX) + skbs(TX) };
        for direction in [RX, TX] {
            let amounts = counts.amounts[direction];
            // SAFETY: this CPU's own entry.
            unsafe {
                let counters = &raw mut (*unit).flowless[direction];
                (*counters).packets += u64::from(amounts.packets);
                (*counters).bytes += amounts.octets();
                (*counters).skbs += u64::from(amounts.skbs);
            }
        }
    }
    0
}

/// Adds a slot's counts to its entry.
///
/// # Safety
///
/// The entry is live. Additions are atomic, the rest is written by this CPU only.
#[inline(always)]
#[expect(clippy::indexing_slicing, reason = "a direction is RX or TX; a panic would be refused at load")]
unsafe fn merge(entry: *mut TableCounts, counts: &SlotCounts) {
    // SAFETY: the caller's promise; the 64-bit numbers are aligned.
    unsafe {
        for direction in 0..2 {
            let amounts = counts.amounts[direction];
            atomic::add(&raw mut (*entry).bytes[direction], amounts.octets());
            atomic::add(&raw mut (*entry).packets[direction], u64::from(amounts.packets));
            atomic::add(&raw mut (*entry).skbs[direction], u64::from(amounts.skbs));
            (*entry).tcp_flags[direction] |= counts.tcp_flags[direction];
        }
        atomic::add(&raw mut (*entry).begun, u64::from(counts.begun));
        (*entry).last = counts.last;
        (*entry).interface = counts.interface;
        (*entry).how = counts.how;
    }
}

//! Who holds a cache slot, and where its counts go when another flow takes its place.

use collector_ebpf::{
    abi::flow::{FLUSH_AT, RX, SlotCounts, TX},
    wire::tcp,
};

use crate::{
    count::{self, unit},
    family::{Key, Slot},
    identity::Who,
    read::Packet,
};

/// Whether the flow holds the slot, and the packet only has to be added there.
#[inline(always)]
#[expect(clippy::indexing_slicing, reason = "a direction is RX or TX; a panic would be refused at load")]
pub(crate) fn holds<K: Key>(slot: &Slot<K>, key: &K, direction: usize, tcp_flags: u8) -> bool {
    if tcp_flags & (tcp::SYN | tcp::FIN | tcp::RST) != 0 {
        return false;
    }
    // SAFETY: the slot is live, and this CPU's alone while softirqs are off. The second comparison covers two
    // rare cases: nothing counted in this direction yet, and no room for more.
    unsafe { (*slot.key).is(key) && (*slot.counts).packets[direction].wrapping_sub(1) < FLUSH_AT - 1 }
}

/// Gives the slot to the packet's flow, with its identity as it is now; the counts of another flow, or counts
/// that have no room left, move to the table. 1.
#[inline(never)]
pub(crate) fn take<K: Key>(key: *mut K, counts: *mut SlotCounts, packet: &Packet, who: u32) -> u32 {
    let who = Who::unpack(who);
    let Who { pu, how, .. } = who;
    // SAFETY: the slot is live, and this CPU's alone while softirqs are off.
    unsafe {
        let occupied = (*counts).skbs[RX] | (*counts).skbs[TX] != 0;
        let own = (*key).is(packet.key());
        let full = (*counts).packets[RX] >= FLUSH_AT
            || (*counts).packets[TX] >= FLUSH_AT
            || (*counts).begun == u8::MAX;
        if !own || full {
            if occupied {
                flush(&*key, packet.word, packet.cpu, &*counts);
            }
            *key = *packet.key();
            *counts = SlotCounts { first: packet.now as u32, ..SlotCounts::default() };
        }
        (*counts).pu = pu;
        (*counts).how = how;
        (*counts).begun += u8::from(begins(packet, who));
    }
    1
}

/// Whether a connection begins with the packet. One of TCP that is met without its SYN began before anyone looked.
#[inline(always)]
fn begins(packet: &Packet, who: Who) -> bool {
    who.began() && (packet.tcp_flags == 0 || packet.tcp_flags & tcp::SYN != 0)
}

/// Counts a packet on a CPU without slots straight in the table; 0 where that is full.
#[inline(never)]
pub(crate) fn into_table<K: Key>(packet: &Packet, who: u32, packets: u32, bytes: u64) -> u32 {
    let who = Who::unpack(who);
    let Who { pu, how, .. } = who;
    let now = packet.now as u32;
    let interface = packet.role.interface;
    // Both directions are spelled out: an index into the stack that is not a constant is refused by the
    // verifier.
    let (received, sent) = if packet.sent() { (0, 1) } else { (1, 0) };
    let flags = packet.tcp_flags;
    let counts = SlotCounts {
        bytes: [bytes * u64::from(received), bytes * u64::from(sent)],
        packets: [packets * received, packets * sent],
        skbs: [received, sent],
        first: now,
        last: now,
        pu,
        interface,
        tcp_flags: [flags * received as u8, flags * sent as u8],
        begun: u8::from(begins(packet, who)),
        how,
    };
    let in_flow = packet.key::<K>().add_to_table(packet.word, packet.cpu, &counts);
    if !in_flow {
        count::ledger(|ledger| ledger.table_full += 1);
    }
    u32::from(in_flow)
}

/// Moves a slot's counts to the table; where that is full, the unit and the ledger say what no flow holds
/// now.
#[inline(never)]
#[expect(clippy::indexing_slicing, reason = "a direction is RX or TX; a panic would be refused at load")]
fn flush<K: Key>(key: &K, word: u64, cpu: u32, counts: &SlotCounts) -> u32 {
    if key.add_to_table(word, cpu, counts) {
        return 0;
    }
    count::ledger(|ledger| ledger.table_full += u64::from(counts.skbs[RX]) + u64::from(counts.skbs[TX]));
    if let Some(unit) = unit(counts.pu) {
        for direction in [RX, TX] {
            // SAFETY: this CPU's own entry.
            unsafe {
                let counters = &raw mut (*unit).direction[direction];
                (*counters).flowless_packets += u64::from(counts.packets[direction]);
                (*counters).flowless_bytes += counts.bytes[direction];
            }
        }
    }
    0
}

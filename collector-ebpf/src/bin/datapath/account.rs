//! The steady state of a flow: read the packet, hit its slot, add; one more addition for its processing unit.
//!
//! What is not the steady state goes to [`cold`](crate::cold), which reads the packet again: nothing that it
//! needs has to be kept here, and the registers and the stack of the hot path stay free.

use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_jiffies64};
use collector_ebpf::{
    abi::{
        control::Control,
        flow::{RX, TX},
        pu::{Role, role},
    },
    wire::{transport::Transport, tunnel},
};

use crate::{
    Skb, cold,
    count::{add, count_unit, mark},
    family::Key,
    maps::{CONTROL, LEDGER},
    packet::wire,
    read::{read4, read6, role_of, unit_sent},
    settings::NO_CACHE,
    slot::holds,
};

/// `PACKET_LOOPBACK` (`include/uapi/linux/if_packet.h`): a copy of own multicast or broadcast.
const PACKET_LOOPBACK: u32 = 5;

/// Counts one socket buffer.
#[inline(always)]
pub(crate) fn run<const EGRESS: bool>(skb: Skb) {
    let Some(control) = CONTROL.get_ptr(0) else { return };
    // SAFETY: user space writes each word by one aligned store; a volatile read is one load.
    let (word, lease) = unsafe {
        ((&raw const (*control).word).read_volatile(), (&raw const (*control).lease).read_volatile())
    };
    // SAFETY: no arguments, no memory.
    let now = unsafe { bpf_jiffies64() };
    if now >= lease {
        return;
    }
    let Some(ledger) = LEDGER.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's own entry.
    unsafe { (*ledger).seen += 1 };
    // SAFETY: the kernel hands the program a live context.
    if !EGRESS && unsafe { (*skb).pkt_type } == PACKET_LOOPBACK {
        // It lost its Ethernet header on the way, and was counted when it was sent.
        // SAFETY: this CPU's own entry.
        unsafe { (*ledger).looped += 1 };
        return;
    }
    let Some(role) = role_of::<true>(skb) else { return };
    let counted = match hot4::<EGRESS>(skb, word, now, role) {
        Hot::Counted => true,
        Hot::Other => hot6::<EGRESS>(skb, word, now, role),
        Hot::Missed => false,
    };
    if !counted {
        if EGRESS {
            cold::cold_egress(skb, word, now);
        } else {
            cold::cold_ingress(skb, word, now);
        }
    }
}

/// What the steady state made of a packet.
enum Hot {
    Counted,
    /// Nothing was counted.
    Missed,
    /// Not this family's; nothing was counted.
    Other,
}

#[inline(always)]
fn hot4<const EGRESS: bool>(skb: Skb, word: u64, now: u64, role: &Role) -> Hot {
    let Some((mut key, transport)) = read4(skb, role) else { return Hot::Other };
    let sent = unit_sent::<EGRESS>(role);
    if !sent {
        key.turn();
    }
    if hit(skb, word, now, role, &key, &transport, sent) { Hot::Counted } else { Hot::Missed }
}

/// The same for IPv6.
#[inline(always)]
fn hot6<const EGRESS: bool>(skb: Skb, word: u64, now: u64, role: &Role) -> bool {
    let Some((mut key, transport)) = read6(skb, role) else { return false };
    let sent = unit_sent::<EGRESS>(role);
    if !sent {
        key.turn();
    }
    hit(skb, word, now, role, &key, &transport, sent)
}

/// Counts a packet whose flow holds its slot; `false` where there is more to do than to add.
#[inline(always)]
fn hit<K: Key>(
    skb: Skb,
    word: u64,
    now: u64,
    role: &Role,
    key: &K,
    transport: &Transport,
    sent: bool,
) -> bool {
    if role.flags & role::LOOPBACK != 0 || NO_CACHE.load() != 0 {
        return false;
    }
    // SAFETY: no arguments, no memory.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let Some(slot) = key.slot(Control::epoch(word), cpu) else { return false };
    let direction = if sent { TX } else { RX };
    if !holds(&slot, key, direction, transport.tcp_flags) {
        return false;
    }
    // SAFETY: the slot is live, and this CPU's alone while softirqs are off.
    unsafe {
        let wire = wire(skb, transport.headers, false);
        if wire.packets != 1 && tunnel::is_tunnel(transport) {
            // Its segments repeat headers that lie deeper than was read.
            return false;
        }
        add(slot.counts, direction, wire, now, role.interface, transport.tcp_flags);
        let pu = (*slot.counts).pu;
        count_unit(pu, direction, wire, true);
        mark(skb, pu);
    }
    true
}

//! The steady state of a flow: read the packet, hit its slot, add; one more addition for its processing unit.
//!
//! What is not the steady state goes to [`cold`](crate::cold), which reads the packet again: nothing that it
//! needs has to be kept here, and the registers and the stack of the hot path stay free.

use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_jiffies64};
use collector_ebpf::{
    abi::{
        control::Control,
        flow::{RX, TX, how},
        pu::{Role, role},
    },
    wire::{transport::Transport, tunnel},
};

use crate::{
    Skb, cold,
    count::{Counted, add, count_unit, ledger, mark},
    family::Key,
    maps::CONTROL,
    packet::wire,
    read::{read4, read6, role_of_index, unit_sent},
    settings::NO_CACHE,
    slot,
};

/// `PACKET_LOOPBACK` (`include/uapi/linux/if_packet.h`): a copy of own multicast or broadcast.
const PACKET_LOOPBACK: u32 = 5;

/// Counts one socket buffer.
#[inline(always)]
pub(crate) fn run<const EGRESS: bool>(skb: Skb) {
    let Some((word, lease, now)) = told() else { return };
    if now >= lease {
        return;
    }
    ledger(|ledger| ledger.seen += 1);
    // SAFETY: the kernel hands the program a live context.
    if !EGRESS && unsafe { (*skb).pkt_type } == PACKET_LOOPBACK {
        // It lost its Ethernet header on the way, and was counted when it was sent.
        looped();
        return;
    }
    // SAFETY: the kernel hands the program a live context.
    let counted = match role_of_index(unsafe { (*skb).ifindex }) {
        Some(role) if !EGRESS || !may_be_second_pass(skb, role) => match hot4::<EGRESS>(skb, word, now, role)
        {
            Hot::Counted => true,
            Hot::Other => hot6::<EGRESS>(skb, word, now, role),
            Hot::Missed => false,
        },
        _ => false,
    };
    if !counted {
        if EGRESS {
            cold::cold_egress(skb);
        } else {
            cold::cold_ingress(skb);
        }
    }
}

/// The control word, the tick at which the lease ends, and that of now.
#[inline(always)]
pub(crate) fn told() -> Option<(u64, u64, u64)> {
    let control = CONTROL.get_ptr(0)?;
    // SAFETY: user space writes each word by one aligned store; a volatile read is one load.
    let (word, lease) = unsafe {
        ((&raw const (*control).word).read_volatile(), (&raw const (*control).lease).read_volatile())
    };
    // SAFETY: no arguments, no memory.
    let now = unsafe { bpf_jiffies64() };
    Some((word, lease, now))
}

/// Whether an ifb may have handed the packet back, which was counted before it went there.
#[inline(always)]
pub(crate) fn may_be_second_pass(skb: Skb, role: &Role) -> bool {
    // SAFETY: the kernel hands the program a live context.
    role.flags & role::MIRRORED != 0 && unsafe { (*skb).ingress_ifindex } != 0
}

#[inline(never)]
fn looped() -> u32 {
    ledger(|ledger| ledger.looped += 1);
    0
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
    let Some(slot) = key.index(Control::epoch(word), cpu).and_then(|index| slot::of(key, index)) else {
        return false;
    };
    let direction = if sent { TX } else { RX };
    if !slot::is_steady(&slot, direction, transport.tcp_flags) {
        return false;
    }
    // SAFETY: the slot is live, and this CPU's alone while softirqs are off.
    unsafe {
        let wire = wire(skb, transport.headers, false);
        if wire.packets != 1 && tunnel::is_tunnel(transport) {
            // Its segments repeat headers that lie deeper than was read.
            return false;
        }
        let Counted { pu, how } =
            add(slot.counts(), direction, wire, now, role.interface, transport.tcp_flags);
        if how & how::PROVISIONAL == 0 {
            count_unit(pu, direction, wire, true);
        }
        mark(skb, pu);
    }
    true
}

//! What is not the steady state: packets of any kind, flows without a slot, the beginnings and ends of
//! connections.
//!
//! The kernel allows 512 octets of stack for a whole chain of calls, so the steps follow one another instead
//! of nesting: read into a [`Packet`], find the flow's identity, give it a slot, add.

use core::{num::NonZeroU16, ptr};

use aya_ebpf::helpers::bpf_jiffies64;
use collector_ebpf::abi::{
    counter::Unparsed,
    flow::{FlowKey4, FlowKey6, RX, TX},
    pu::{Role, role},
};

use crate::{
    Skb, account, classify, count,
    family::{Key, Slot},
    identity::{self, Who},
    inner,
    packet::{forget, opaque, wire},
    read::{self, Packet},
    report, slot,
};

/// Counts a packet that came in and that the steady state has not counted.
#[inline(always)]
pub(crate) fn ingress(skb: Skb) {
    count(skb, cold_ingress(skb));
}

/// The same for a packet that goes out.
#[inline(always)]
pub(crate) fn egress(skb: Skb) {
    count(skb, cold_egress(skb));
}

/// Counts the packet of this run in its flow, which is of that family (0 for one that is done with), and what is inside of
/// it in another one, if that is wanted.
#[inline(always)]
fn count(skb: Skb, family: u32) {
    if family != 0 && count_family(skb, family) != 0 {
        let inside = inner::read_inner(skb);
        count_family(skb, inside);
    }
}

#[inline(always)]
fn count_family(skb: Skb, family: u32) -> u32 {
    match family {
        4 => count_flow_4(skb),
        6 => count_flow_6(skb),
        _ => 0,
    }
}

/// Reads a packet that came in, and counts it if it has no flow. The family of its flow, or 0.
///
/// A global function: the verifier checks it once by itself, for any arguments, and not again behind every way that
/// leads here. It takes the context only: Linux 5.10 allows no more than that and numbers.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn cold_ingress(skb: Skb) -> u32 {
    run::<false>(skb)
}

/// The same for a packet that goes out.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn cold_egress(skb: Skb) -> u32 {
    run::<true>(skb)
}

#[inline(always)]
fn run<const EGRESS: bool>(skb: Skb) -> u32 {
    // Read anew: the steady state has counted nothing for this packet, so this is where its run begins.
    let Some(control) = account::control() else { return 0 };
    // SAFETY: the entry is live; the helper has no arguments.
    let (word, now) = unsafe { (account::word(control), bpf_jiffies64()) };
    let Some(role) = read::role_of(skb) else { return 0 };
    if EGRESS && account::may_be_second_pass(skb, role) && read::is_from_ifb(skb) {
        count::ledger(|ledger| ledger.second_pass += 1);
        // Nor does the interface count it twice.
        // SAFETY: the entry is live, and this CPU's own.
        unsafe { account::cross::<EGRESS>(control, skb, role, -1) };
        return 0;
    }
    let Some(packet) = Packet::of_run() else { return 0 };
    packet.begin::<EGRESS>(role, word, now);
    let failed = read::read_packet(skb);
    if let Some(reason) = Unparsed::ALL.get((failed as usize).wrapping_sub(1)) {
        unparsed::<EGRESS>(skb, role, *reason);
        return 0;
    }
    let Some(packet) = Packet::of_run() else { return 0 };
    if role.flags & role::LOOPBACK != 0 && !EGRESS {
        received_on_loopback(skb, packet);
    } else if packet.family == FlowKey4::FAMILY {
        packet.orient::<FlowKey4, EGRESS>();
        return 4;
    } else {
        packet.orient::<FlowKey6, EGRESS>();
        return 6;
    }
    0
}

/// Counts a frame that was not understood, for the boundary that it crossed.
#[inline(never)]
fn unparsed<const EGRESS: bool>(skb: Skb, role: &Role, reason: Unparsed) -> u32 {
    count::ledger(|ledger| {
        // LLVM knows the bound and would leave the comparison out; the verifier wants to see it.
        if let Some(count) = ledger.unparsed.get_mut(opaque(reason as usize)) {
            *count += 1;
        }
    });
    let direction = if read::unit_sent::<EGRESS>(role) { TX } else { RX };
    // What was read before it failed is no length to go by.
    let wire = Packet::of_run().map_or(wire(skb, 0, false), |packet| packet.wire(skb));
    count::count_flowless(role.pu, direction, wire);
    0
}

/// Counts what loopback delivers. Its flow was counted when the packet was sent; what is left is that it was
/// received as well.
#[inline(never)]
fn received_on_loopback(skb: Skb, packet: &Packet) -> u32 {
    count::ledger(|ledger| ledger.looped += 1);
    // Read as its sender has it: the remote end receives.
    let receiver = if packet.family == FlowKey4::FAMILY {
        packet.key::<FlowKey4>().remote()
    } else {
        packet.key::<FlowKey6>().remote()
    };
    let pu = classify::declared(receiver).map_or(packet.role.pu, NonZeroU16::get);
    count::count_local(pu, RX, packet.wire(skb));
    0
}

/// Counts what is sent by loopback for its sender. Both ends are this host's: at the ingress the other receives.
#[inline(never)]
fn sent_on_loopback<K: Key>(skb: Skb, packet: &Packet) -> u32 {
    let key = packet.key::<K>();
    let sender = if packet.sent() { key.local() } else { key.remote() };
    let pu = classify::declared(sender).map_or(packet.role.pu, NonZeroU16::get);
    count::count_local(pu, TX, packet.wire(skb));
    0
}

/// Counts the packet of this run, which is one of IPv4; 1 if what is inside of it is to be counted as well. A global
/// function, as above.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn count_flow_4(skb: Skb) -> u32 {
    Packet::of_run().map_or(0, |packet| count_flow::<FlowKey4>(skb, packet))
}

/// The same for IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn count_flow_6(skb: Skb) -> u32 {
    Packet::of_run().map_or(0, |packet| count_flow::<FlowKey6>(skb, packet))
}

/// Counts a packet in its flow, or else for its processing unit alone.
#[inline(always)]
fn count_flow<K: Key>(skb: Skb, packet: &Packet) -> u32 {
    let wire = packet.wire(skb);
    let direction = packet.direction();
    // A tunnel's packets whose inside is wanted shall not be the steady state, which does not look inside.
    let place = if packet.carries != 0 { ptr::null_mut() } else { slot::for_flow::<K>(packet) };
    let place = (!place.is_null()).then_some(Slot { key: place });
    let (pu, in_flow) = if let Some(place) = place
        // SAFETY: the slot is live, and this CPU's alone while softirqs are off.
        && unsafe { (*place.key).is(packet.key()) }
        && slot::is_steady(&place, direction, packet.tcp_flags)
        // Each may be about another flow.
        && packet.quotes == 0
    {
        // A packet of a rarer form, whose flow is in its steady state all the same.
        // SAFETY: as above.
        unsafe { ((*place.counts()).pu, true) }
    } else {
        let who = forget(skb, identity::find::<K>(skb, packet));
        report::flow::<K>(packet, who);
        let in_flow = match place {
            _ if Who::unpack(who).refused => false,
            Some(place) => slot::take::<K>(place.key, packet, who) != 0,
            None => slot::into_table::<K>(packet, who, wire.packets, wire.bytes) != 0,
        };
        (Who::unpack(who).pu, in_flow)
    };
    if in_flow && let Some(place) = place {
        // SAFETY: as above.
        unsafe {
            count::add(place.counts(), direction, wire, packet.now, packet.role.interface, packet.tcp_flags);
        };
    }
    if packet.inside != 0 {
        if !in_flow {
            count::ledger(|ledger| ledger.inner_lost += 1);
        }
        return 0;
    }
    if packet.role.flags & role::LOOPBACK != 0 {
        sent_on_loopback::<K>(skb, packet);
    } else if !in_flow {
        count::count_flowless(pu, direction, wire);
    }
    count::mark(skb, pu);
    u32::from(packet.carries)
}

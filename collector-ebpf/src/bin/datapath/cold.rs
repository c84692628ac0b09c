//! What is not the steady state: packets of any kind, flows without a slot, the beginnings and ends of
//! connections.
//!
//! The kernel allows 512 octets of stack for a whole chain of calls, so the steps follow one another instead
//! of nesting: read into a [`Packet`], find the flow's identity, give it a slot, add.

use core::{num::NonZeroU16, ptr};

use aya_ebpf::helpers::bpf_jiffies64;
use collector_ebpf::abi::{
    flow::{FlowKey4, FlowKey6, RX, SlotCounts, TX},
    pu::role,
};

use crate::{
    Skb, account, classify, count, ends,
    family::{Key, Slot},
    identity::{self, Who},
    inner,
    packet::forget_both,
    policy,
    read::{self, Packet},
    reject, report,
    settings::BY_ENDS,
    slot, unread,
};

/// What became of a packet.
#[derive(Clone, Copy)]
pub(crate) struct Outcome {
    /// The unit that it was counted for; 0 where it was not.
    pub(crate) pu: u16,
    /// The unit whose mark it gets; 0 for none.
    pub(crate) marked: u16,
    /// What is left to do: count it in its flow, which is of that family, or, once that is done, what is inside of it (any
    /// number but 0).
    pub(crate) family: u32,
    /// A policy rejects it, and it is to be dropped: nothing is left to do.
    pub(crate) dropped: bool,
}

impl Outcome {
    pub(crate) const NOTHING: Self = Self { pu: 0, marked: 0, family: 0, dropped: false };
    pub(crate) const DROPPED: Self = Self { dropped: true, ..Self::NOTHING };

    const DROPPED_AT: u32 = 63;

    const fn left(family: u32) -> Self {
        Self { family, ..Self::NOTHING }
    }

    pub(crate) const fn unmarked(pu: u16) -> Self {
        Self { pu, ..Self::NOTHING }
    }

    /// A subprogram returns one register.
    #[inline(always)]
    pub(crate) const fn pack(self) -> u64 {
        self.pu as u64
            | (self.marked as u64) << 16
            | (self.family as u64) << 32
            | (self.dropped as u64) << Self::DROPPED_AT
    }

    #[inline(always)]
    const fn unpack(packed: u64) -> Self {
        Self {
            pu: packed as u16,
            marked: (packed >> 16) as u16,
            family: (packed >> 32) as u32 & 0xFF,
            dropped: packed >> Self::DROPPED_AT != 0,
        }
    }
}

/// A flow's unit, and that at its other end on this host: one number, for there are few registers.
#[derive(Clone, Copy)]
struct Units(u32);

impl Units {
    #[inline(always)]
    const fn pack(pu: u16, host_pu: u16) -> Self {
        Self(pu as u32 | (host_pu as u32) << 16)
    }

    /// Those of a slot's flow.
    #[inline(always)]
    const fn of(counts: &SlotCounts) -> Self {
        Self::pack(counts.pu, counts.host_pu())
    }

    #[inline(always)]
    const fn pu(self) -> u16 {
        self.0 as u16
    }

    #[inline(always)]
    const fn host_pu(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

/// Counts a packet that came in and that the steady state has not counted.
#[inline(always)]
pub(crate) fn ingress(skb: Skb) -> Outcome {
    count(skb, Outcome::unpack(cold_ingress(skb)))
}

/// The same for a packet that goes out.
#[inline(always)]
pub(crate) fn egress(skb: Skb) -> Outcome {
    count(skb, Outcome::unpack(cold_egress(skb)))
}

/// Counts the packet of this run in its flow, if it is not done with, and what is inside of it in another one, if that is
/// wanted.
#[inline(always)]
fn count(skb: Skb, read: Outcome) -> Outcome {
    if read.family == 0 {
        return read;
    }
    let counted = count_family(skb, read.family);
    if counted.family != 0 {
        let inside = inner::read_inner(skb);
        count_family(skb, inside);
    }
    counted
}

#[inline(always)]
fn count_family(skb: Skb, family: u32) -> Outcome {
    match family {
        4 => Outcome::unpack(count_flow_4(skb)),
        6 => Outcome::unpack(count_flow_6(skb)),
        UNREAD_4 => Outcome::unpack(unread::count_unread_4(skb)),
        UNREAD_6 => Outcome::unpack(unread::count_unread_6(skb)),
        _ => Outcome::NOTHING,
    }
}

/// Beside a family: only the ends of the packet are understood.
const UNREAD: u32 = 8;
const UNREAD_4: u32 = 4 | UNREAD;
const UNREAD_6: u32 = 6 | UNREAD;

/// Reads a packet that came in, and counts it if it has no flow. A packed [`Outcome`].
///
/// A global function: the verifier checks it once by itself, for any arguments, and not again behind every way that
/// leads here. It takes the context only: Linux 5.10 allows no more than that and numbers.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn cold_ingress(skb: Skb) -> u64 {
    run::<false>(skb).pack()
}

/// The same for a packet that goes out.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn cold_egress(skb: Skb) -> u64 {
    run::<true>(skb).pack()
}

#[inline(always)]
fn run<const EGRESS: bool>(skb: Skb) -> Outcome {
    // Read anew: the steady state has counted nothing for this packet, so this is where its run begins.
    let Some(control) = account::control() else { return Outcome::NOTHING };
    // SAFETY: the entry is live; the helper has no arguments. User space writes it by one aligned store.
    let (word, now, policies_from) = unsafe {
        (account::word(control), bpf_jiffies64(), (&raw const (*control).policies_from).read_volatile())
    };
    let Some(role) = read::role_of(skb) else { return Outcome::NOTHING };
    if EGRESS && account::may_be_second_pass(skb, role) && read::is_from_ifb(skb) {
        count::ledger(|ledger| ledger.second_pass += 1);
        // Nor does the interface count it twice.
        // SAFETY: the entry is live, and this CPU's own.
        unsafe { account::cross::<EGRESS>(control, skb, role, -1) };
        return Outcome::NOTHING;
    }
    let Some(packet) = Packet::of_run() else { return Outcome::NOTHING };
    packet.begin::<EGRESS>(role, word, now, policies_from);
    let failed = read::read_packet(skb);
    let Some(packet) = Packet::of_run() else { return Outcome::NOTHING };
    let (is_received, is_4) =
        (role.flags & role::LOOPBACK != 0 && !EGRESS, packet.family == FlowKey4::FAMILY);
    if failed != 0 {
        packet.fault = failed as u8;
        if packet.family == 0 || is_received {
            unread::unparsed(skb, packet);
            return Outcome::unmarked(role.pu);
        }
    }
    if is_4 {
        packet.orient::<FlowKey4, EGRESS>();
    } else {
        packet.orient::<FlowKey6, EGRESS>();
    }
    if !is_received {
        let unread = if failed == 0 { 0 } else { UNREAD };
        Outcome::left(if is_4 { 4 } else { 6 } | unread)
    } else if is_4 {
        Outcome::unmarked(received_on_loopback::<FlowKey4>(skb, packet) as u16)
    } else {
        Outcome::unmarked(received_on_loopback::<FlowKey6>(skb, packet) as u16)
    }
}

/// Counts what loopback delivers. Its flow was counted when the packet was sent; what is left is that it was
/// received as well. By whom.
#[inline(never)]
fn received_on_loopback<K: Key>(skb: Skb, packet: &Packet) -> u32 {
    count::ledger(|ledger| ledger.looped += 1);
    let key = packet.key::<K>();
    let pu = if BY_ENDS.load() == 0 {
        let receiver = if packet.sent() { key.remote() } else { key.local() };
        classify::declared(receiver).map_or(packet.role.pu, NonZeroU16::get)
    } else {
        let units = units::<K>(packet);
        match if packet.sent() { units.host_pu() } else { units.pu() } {
            // Its flow was refused, or forgotten.
            0 => ends::receiver::<K>(skb, packet),
            pu => pu,
        }
    };
    count::count_local(pu, RX, packet.wire(skb));
    pu.into()
}

/// The units of the packet's flow, on loopback; 0 where they are not known.
#[inline(always)]
fn units<K: Key>(packet: &Packet) -> Units {
    let slot = slot::for_flow::<K>(packet);
    // The same CPU has just sent it, mostly.
    // SAFETY: the slot is live, and this CPU's alone while softirqs are off.
    if !slot.is_null() && unsafe { (*slot).is(packet.key()) } {
        // SAFETY: as above.
        let counts = unsafe { &*Slot { key: slot }.counts() };
        if !counts.is_empty() {
            return Units::of(counts);
        }
    }
    let identity = identity::known::<K>(packet);
    if identity.is_null() {
        return Units::pack(0, 0);
    }
    // SAFETY: the entry is memory of the map for the run.
    unsafe { Units::pack((*identity).pu, (*identity).host_pu) }
}

/// Counts what is sent by loopback for its sender. Both ends are this host's: at the ingress the other receives. Who sent:
/// one of the units at the flow's ends.
#[inline(never)]
fn sent_on_loopback<K: Key>(skb: Skb, packet: &Packet, units: Units) -> u32 {
    let pu = if BY_ENDS.load() == 0 {
        let key = packet.key::<K>();
        let sender = if packet.sent() { key.local() } else { key.remote() };
        classify::declared(sender).map_or(packet.role.pu, NonZeroU16::get)
    } else if packet.sent() {
        units.pu()
    } else {
        units.host_pu()
    };
    count::count_local(pu, TX, packet.wire(skb));
    pu.into()
}

/// Counts the packet of this run, which is one of IPv4. A packed [`Outcome`]. A global function, as above.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn count_flow_4(skb: Skb) -> u64 {
    Packet::of_run().map_or(Outcome::NOTHING, |packet| count_flow::<FlowKey4>(skb, packet)).pack()
}

/// The same for IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn count_flow_6(skb: Skb) -> u64 {
    Packet::of_run().map_or(Outcome::NOTHING, |packet| count_flow::<FlowKey6>(skb, packet)).pack()
}

/// Counts a packet in its flow, or else for its processing unit alone.
#[inline(always)]
fn count_flow<K: Key>(skb: Skb, packet: &Packet) -> Outcome {
    let wire = packet.wire(skb);
    let direction = packet.direction();
    // A tunnel's packets whose inside is wanted shall not be the steady state, which does not look inside.
    let place = if packet.carries != 0 { ptr::null_mut() } else { slot::for_flow::<K>(packet) };
    let place = (!place.is_null()).then_some(Slot { key: place });
    let (units, in_flow) = if let Some(place) = place
        // SAFETY: the slot is live, and this CPU's alone while softirqs are off.
        && unsafe { (*place.key).is(packet.key()) }
        && slot::is_steady(&place, direction, packet.tcp_flags)
        // Each may be about another flow, or ask where only answers are known.
        && packet.quotes == 0
        && !(packet.policies_from != 0 && policy::is_request(packet))
    {
        // A packet of a rarer form, whose flow is in its steady state all the same.
        // SAFETY: as above.
        unsafe { (Units::of(&*place.counts()), true) }
    } else {
        let who = forget_both(skb, identity::identify::<K>(skb));
        report::flow::<K>(skb, packet, who);
        let who = forget_both(skb, policy::ask::<K>(who));
        if Who::unpack(who).is_dropped() {
            // It may have been accepted before in this epoch. One after the other: nested, they need more stack than there is.
            slot::leave::<K>(packet);
            let in_flow = if Who::unpack(who).refused {
                0
            } else {
                slot::into_table::<K>(packet, who, wire.packets, wire.bytes)
            };
            report::if_pressed(skb);
            reject::count::<K>(skb, packet, who, in_flow);
            return Outcome::DROPPED;
        }
        let in_flow = match place {
            _ if Who::unpack(who).refused => false,
            Some(place) => slot::take::<K>(place.key, packet, who) != 0,
            None => slot::into_table::<K>(packet, who, wire.packets, wire.bytes) != 0,
        };
        report::if_pressed(skb);
        let Who { pu, host_pu, .. } = Who::unpack(who);
        (Units::pack(pu, host_pu), in_flow)
    };
    if in_flow && let Some(place) = place {
        // SAFETY: as above.
        unsafe {
            count::add(place.counts(), direction, wire, packet.now, packet.role.interface, packet.tcp_flags);
        };
    }
    if packet.inside != 0 {
        if !in_flow {
            count::inner_lost(units.pu(), 1);
        }
        return Outcome::NOTHING;
    }
    let counted_for = if packet.role.flags & role::LOOPBACK != 0 {
        sent_on_loopback::<K>(skb, packet, units) as u16
    } else {
        if !in_flow {
            count::count_flowless(units.pu(), direction, wire);
        }
        units.pu()
    };
    Outcome { pu: counted_for, marked: units.pu(), family: packet.carries.into(), dropped: false }
}

//! What is not the steady state: packets of any kind, flows without a slot, the beginnings and ends of
//! connections.
//!
//! The kernel allows 512 octets of stack for a whole chain of calls, so the steps follow one another instead
//! of nesting: read into a [`Packet`], find the flow's identity, give it a slot, add.

use core::ptr;

use aya_ebpf::helpers::bpf_get_smp_processor_id;
use collector_ebpf::{
    abi::{
        control::Control,
        counter::Unparsed,
        flow::{FlowKey4, FlowKey6, RX, TX, how},
        pu::{Role, role},
    },
    wire::{
        ethernet::{self, ETHERTYPE_IPV4, ETHERTYPE_IPV6},
        ipv4, ipv6,
        transport::Transport,
    },
};

use crate::{
    Skb, account,
    family::Key,
    identity::{self, Who},
    packet::{Copied, forget, opaque, wire},
    report,
    settings::NO_CACHE,
    slot,
};

/// A packet that was read. The key lies in as many of the words as its family needs.
#[repr(C)]
pub(crate) struct Packet {
    key: [u64; 5],
    pub(crate) role: &'static Role,
    pub(crate) now: u64,
    /// The control word: epoch and generation.
    pub(crate) word: u64,
    pub(crate) cpu: u32,
    /// Where the transport header ends.
    pub(crate) headers: u32,
    pub(crate) tcp_flags: u8,
    /// `LOCAL_INITIATED` and the evidence, if the flow begins with this packet.
    pub(crate) initiator: u8,
    /// `RX` or `TX`, as the local side sees it.
    direction: u8,
    /// Seen at an interface's egress.
    pub(crate) egress: bool,
    jumbo: bool,
    family: u8,
    _pad: [u8; 2],
}

impl Packet {
    /// The key, as the family that it was read for.
    #[inline(always)]
    pub(crate) fn key<K: Key>(&self) -> &K {
        // SAFETY: both keys are words without padding, and the greater fills the array.
        unsafe { &*ptr::from_ref(&self.key).cast::<K>() }
    }

    /// `RX` or `TX`. Masked, for the verifier does not know what was written to memory.
    #[inline(always)]
    pub(crate) fn direction(&self) -> usize {
        usize::from(self.direction & 1)
    }

    /// The local side sent the packet.
    #[inline(always)]
    pub(crate) fn sent(&self) -> bool {
        self.direction() == TX
    }

    /// What was read, as if the local end had sent it.
    ///
    /// The verifier forgets what it knew of the numbers: many kinds of packet lead here, and all go on alike.
    #[inline(always)]
    fn set<K: Key>(&mut self, key: K, transport: &Transport, jumbo: bool) {
        // SAFETY: both keys are words without padding, and the greater fills the array.
        unsafe { ptr::from_mut(&mut self.key).cast::<K>().write(key) };
        self.headers = transport.headers;
        self.tcp_flags = transport.tcp_flags;
        self.initiator = identity::initiator(transport);
        self.family = K::FAMILY;
        self.jumbo = jumbo;
    }

    /// Exchanges the ends where the local one did not send the packet. On loopback both are local, and the
    /// lesser stands for it, so that both directions meet in one flow.
    #[inline(always)]
    fn orient<K: Key, const EGRESS: bool>(&mut self) {
        // SAFETY: as above.
        let key = unsafe { &mut *ptr::from_mut(&mut self.key).cast::<K>() };
        let sent = if self.role.flags & role::LOOPBACK != 0 {
            key.is_in_order()
        } else {
            account::unit_sent::<EGRESS>(self.role)
        };
        self.direction = u8::from(sent);
        if !sent {
            key.turn();
            self.initiator ^= how::LOCAL_INITIATED;
        }
    }
}

/// Counts a packet that came in and that the steady state has not counted.
///
/// A global function: the verifier checks it once by itself, for any arguments, and not again behind every way that
/// leads here. All that it takes is the context and numbers, which is what Linux 5.10 allows.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn cold_ingress(skb: Skb, word: u64, now: u64) -> u32 {
    run::<false>(skb, word, now)
}

/// The same for a packet that goes out.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn cold_egress(skb: Skb, word: u64, now: u64) -> u32 {
    run::<true>(skb, word, now)
}

#[inline(always)]
fn run<const EGRESS: bool>(skb: Skb, word: u64, now: u64) -> u32 {
    let Some(role) = account::role_of::<false>(skb) else { return 0 };
    let mut packet = Packet {
        key: [0; 5],
        role,
        now,
        // SAFETY: no arguments, no memory.
        cpu: unsafe { bpf_get_smp_processor_id() },
        word,
        headers: 0,
        tcp_flags: 0,
        initiator: 0,
        direction: 0,
        egress: EGRESS,
        jumbo: false,
        family: 0,
        _pad: [0; 2],
    };
    let failed = if common4(skb, &mut packet) != 0 || common6(skb, &mut packet) != 0 {
        0
    } else {
        general(skb, &mut packet)
    };
    if let Some(reason) = Unparsed::ALL.get((failed as usize).wrapping_sub(1)) {
        unparsed::<EGRESS>(skb, role, *reason);
    } else if role.flags & role::LOOPBACK != 0 && !EGRESS {
        received_on_loopback(skb, &packet);
    } else if packet.family == FlowKey4::FAMILY {
        packet.orient::<FlowKey4, EGRESS>();
        count::<FlowKey4>(skb, &packet);
    } else {
        packet.orient::<FlowKey6, EGRESS>();
        count::<FlowKey6>(skb, &packet);
    }
    0
}

#[inline(never)]
fn common4(skb: Skb, packet: &mut Packet) -> u32 {
    let Some((key, transport)) = account::read4(skb, packet.role) else { return 0 };
    packet.set(key, &transport, false);
    1
}

#[inline(never)]
fn common6(skb: Skb, packet: &mut Packet) -> u32 {
    let Some((key, transport)) = account::read6(skb, packet.role) else { return 0 };
    packet.set(key, &transport, false);
    1
}

/// Reads all that the parser knows, from a copy, for headers may lie behind the linear part. 0, or one more
/// than the index of the reason why the frame is not understood.
#[inline(never)]
fn general(skb: Skb, packet: &mut Packet) -> u32 {
    let result = Copied::of(skb)
        .ok_or(Unparsed::Truncated)
        .and_then(|bytes| ethernet::parse::<true>(&bytes, account::link(packet.role)));
    match result {
        Err(reason) => reason as u32 + 1,
        Ok(layer2) => {
            let boundary = account::boundary(skb, packet.role, &layer2);
            match layer2.ethertype {
                ETHERTYPE_IPV4 => general4(skb, packet, layer2.next, boundary),
                ETHERTYPE_IPV6 => general6(skb, packet, layer2.next, boundary),
                other => ethernet::refuse(other) as u32 + 1,
            }
        }
    }
}

#[inline(never)]
fn general4(skb: Skb, packet: &mut Packet, next: u32, boundary: u16) -> u32 {
    let Some(bytes) = Copied::again(skb) else { return Unparsed::Truncated as u32 + 1 };
    match ipv4::parse::<true>(&bytes, next, account::frame(skb)) {
        Ok(ip) => {
            packet.set(account::key4(boundary, &ip), &ip.transport, false);
            0
        }
        Err(reason) => reason as u32 + 1,
    }
}

#[inline(never)]
fn general6(skb: Skb, packet: &mut Packet, next: u32, boundary: u16) -> u32 {
    let Some(bytes) = Copied::again(skb) else { return Unparsed::Truncated as u32 + 1 };
    match ipv6::parse::<true>(&bytes, next, account::frame(skb)) {
        Ok(ip) => {
            packet.set(account::key6(boundary, &ip), &ip.transport, ip.jumbo);
            0
        }
        Err(reason) => reason as u32 + 1,
    }
}

/// Counts a frame that was not understood, for the boundary that it crossed.
#[inline(never)]
fn unparsed<const EGRESS: bool>(skb: Skb, role: &Role, reason: Unparsed) -> u32 {
    account::ledger(|ledger| {
        // LLVM knows the bound and would leave the comparison out; the verifier wants to see it.
        if let Some(count) = ledger.unparsed.get_mut(opaque(reason as usize)) {
            *count += 1;
        }
    });
    let direction = if account::unit_sent::<EGRESS>(role) { TX } else { RX };
    account::count_unit(role.pu, direction, wire(skb, 0, false), false);
    0
}

/// Counts what loopback delivers. Its flow was counted when the packet was sent; what is left is that it was
/// received as well.
#[inline(never)]
fn received_on_loopback(skb: Skb, packet: &Packet) -> u32 {
    account::ledger(|ledger| ledger.looped += 1);
    account::count_unit(packet.role.pu, RX, wire(skb, packet.headers, packet.jumbo), true);
    0
}

/// Counts a packet in its flow, and for its processing unit.
#[inline(never)]
fn count<K: Key>(skb: Skb, packet: &Packet) -> u32 {
    let wire = wire(skb, packet.headers, packet.jumbo);
    let direction = packet.direction();
    let place = if NO_CACHE.load() == 0 {
        packet.key::<K>().slot(Control::epoch(packet.word), packet.cpu)
    } else {
        None
    };
    let (pu, in_flow) = if let Some(place) = &place
        && account::holds(place, packet.key(), direction, packet.tcp_flags)
    {
        // A packet of a rarer form, whose flow is in its steady state all the same.
        // SAFETY: the slot is live, and this CPU's alone while softirqs are off.
        (unsafe { (*place.counts).pu }, true)
    } else {
        let who = forget(skb, identity::find::<K>(skb, packet));
        report::flow::<K>(packet, who);
        let in_flow = match &place {
            _ if Who::unpack(who).refused => false,
            Some(place) => slot::take::<K>(place.key, place.counts, packet, who) != 0,
            None => slot::into_table::<K>(packet, who, wire.packets, wire.bytes) != 0,
        };
        (Who::unpack(who).pu, in_flow)
    };
    if in_flow && let Some(place) = place {
        // SAFETY: as above.
        unsafe {
            account::add(place.counts, direction, wire, packet.now, packet.role.interface, packet.tcp_flags);
        };
    }
    // On loopback the flow's direction is not the unit's: here it is sent, at the ingress received.
    let unit_direction = if packet.role.flags & role::LOOPBACK != 0 { TX } else { direction };
    account::count_unit(pu, unit_direction, wire, in_flow);
    account::mark(skb, pu);
    0
}

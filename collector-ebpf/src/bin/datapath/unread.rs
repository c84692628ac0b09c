//! Packets that are not understood. Where policies hold, what is known of one all the same, its ends and perhaps its protocol,
//! is judged as if it opened a flow: the kernel may well understand it, and hand it to whom it is for. Such a packet is no flow's.

use collector_ebpf::{
    abi::flow::{FlowKey4, FlowKey6, RX, TX, how, ports},
    wire::{ipv4, ipv6},
};

use crate::{
    Skb,
    classify::{self, Attribution},
    cold::Outcome,
    count,
    family::Key,
    identity::Who,
    packet::{Copied, forget_both, opaque},
    policy::{self, Units},
    read::{self, Packet},
    reject,
};

/// Keeps the ends of the packet of this run, which is one of IPv4 that begins at `next` and is not understood, where policies
/// hold. 0. A global function, so that it is verified once, and not behind every way through the parser.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn keep_unread_4(skb: Skb, next: u32, boundary: u32) -> u32 {
    if let Some(packet) = Packet::of_run()
        && packet.policies_from != 0
        && let Some(bytes) = Copied::again(skb)
        && let Some((local, remote, protocol)) = ipv4::ends(&bytes, next)
    {
        let (local_port, remote_port, boundary, ports) = (0, 0, boundary as u16, ports::UNREAD);
        keep(packet, FlowKey4 { local, remote, local_port, remote_port, boundary, protocol, ports });
    }
    0
}

/// The same for IPv6; and whether the packet begins with what is taken off before the wire.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn keep_unread_6(skb: Skb, next: u32, boundary: u32) -> u32 {
    let Some(packet) = Packet::of_run() else { return 0 };
    let Some(bytes) = Copied::again(skb) else { return 0 };
    if read::frame(skb).gso {
        packet.set_jumbo(ipv6::is_jumbo(&bytes, next));
    }
    if packet.policies_from != 0
        && let Some((local, remote, protocol)) = ipv6::ends(&bytes, next)
    {
        let (local_port, remote_port, boundary, ports) = (0, 0, boundary as u16, ports::UNREAD);
        keep(packet, FlowKey6 { local, remote, local_port, remote_port, boundary, protocol, ports });
    }
    0
}

/// Writes down the ends, as if the local one had sent it, and the protocol.
#[inline(always)]
fn keep<K: Key>(packet: &mut Packet, key: K) {
    // SAFETY: both keys are words without padding, and the greater fills the array.
    unsafe { (&raw mut packet.key).cast::<K>().write(key) };
    packet.initiator = how::LOCAL_INITIATED | how::BY_FIRST_PACKET << how::INITIATOR_SHIFT;
    packet.family = K::FAMILY;
}

/// Counts a frame that was not understood, for the boundary that it crossed. 0.
#[inline(never)]
pub(crate) fn unparsed(skb: Skb, packet: &Packet) -> u32 {
    ledger_unparsed(packet);
    let role = &packet.role;
    let sent =
        if packet.is_leaving() { read::unit_sent::<true>(role) } else { read::unit_sent::<false>(role) };
    // What was read before it failed is no length to go by.
    count::count_flowless(role.pu, if sent { TX } else { RX }, packet.wire(skb));
    0
}

/// Says in the ledger why it was not.
#[inline(always)]
fn ledger_unparsed(packet: &Packet) {
    count::ledger(|ledger| {
        // LLVM knows the bound and would leave the comparison out; the verifier wants to see it.
        if let Some(count) = ledger.unparsed.get_mut(opaque(usize::from(packet.fault).wrapping_sub(1))) {
            *count += 1;
        }
    });
}

/// Counts a packet of which only the ends are understood, for the boundary that it crossed, unless a policy has it dropped. A
/// packed [`Outcome`]. A global function, as above.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn count_unread_4(skb: Skb) -> u64 {
    Packet::of_run().map_or(Outcome::NOTHING, |packet| count_unread::<FlowKey4>(skb, packet)).pack()
}

/// The same for IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn count_unread_6(skb: Skb) -> u64 {
    Packet::of_run().map_or(Outcome::NOTHING, |packet| count_unread::<FlowKey6>(skb, packet)).pack()
}

#[inline(always)]
fn count_unread<K: Key>(skb: Skb, packet: &Packet) -> Outcome {
    let who = forget_both(skb, of_policies::<K>(skb, packet));
    if !Who::unpack(who).is_dropped() {
        unparsed(skb, packet);
        return Outcome::unmarked(packet.role.pu);
    }
    if !packet.is_leaving() {
        ledger_unparsed(packet);
    }
    reject::count::<K>(skb, packet, who, 0);
    Outcome::DROPPED
}

/// Whose a packet is of which only the ends are understood, and what the policies say of it, as if it opened a flow: a packed
/// [`Who`].
#[inline(never)]
fn of_policies<K: Key>(skb: Skb, packet: &Packet) -> u64 {
    let attribution = Attribution::unpack(forget_both(skb, classify::classify::<K>(skb)));
    let (pu, host_pu) = (attribution.pu, attribution.host_pu);
    let how = attribution.put_into(packet.initiator);
    let verdict = policy::judge::<K>(Units { pu, how, host_pu }, 0);
    Who { pu, how, refused: false, event: 0, host_pu, verdict }.pack()
}

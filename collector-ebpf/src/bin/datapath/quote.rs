//! The flow that an ICMP error is about. The error itself is a flow of its own, between the ends that it has; but one that
//! comes in belongs to whom the packet belongs that it quotes: behind one address of this host's stand many units. Errors
//! about several of them may have the same ends, so each is asked about. One that leaves has shown whose it is.

use collector_ebpf::{
    abi::{
        flow::{FlowKey4, FlowKey6, ports},
        policy::verdict,
        pu::role,
    },
    flow::key::{key4, key6},
    wire::quote,
};

use crate::{
    Skb,
    classify::Attribution,
    family::Key,
    maps::{SCRATCH, Scratch},
    packet::Copied,
    read::Packet,
};

/// Whose the quoted flow is, the error is: [`Packet::quotes`].
pub(crate) const TELLS_UNIT: u8 = 1;
/// Only whether the quoted flow is known is asked.
pub(crate) const IS_KNOWN: u8 = 2;

/// Keeps the key of the quoted flow, if the packet of IPv4 is an ICMP error, as if the local end had sent the quoted
/// packet. 0.
#[inline(never)]
pub(crate) fn keep4(skb: Skb, packet: &mut Packet) -> u32 {
    let use_of = is_error::<FlowKey4>(packet);
    if use_of != 0
        && let Some(bytes) = Copied::again(skb)
        && let Some(quoted) = quote::ipv4(&bytes, packet.headers())
        && let Some(scratch) = SCRATCH.get_ptr_mut(0)
    {
        keep(scratch, packet, key4(packet.key::<FlowKey4>().rest().boundary, &quoted), use_of);
    }
    0
}

/// The same for IPv6.
#[inline(never)]
pub(crate) fn keep6(skb: Skb, packet: &mut Packet) -> u32 {
    let use_of = is_error::<FlowKey6>(packet);
    if use_of != 0
        && let Some(bytes) = Copied::again(skb)
        && let Some(quoted) = quote::ipv6(&bytes, packet.headers())
        && let Some(scratch) = SCRATCH.get_ptr_mut(0)
    {
        keep(scratch, packet, key6(packet.key::<FlowKey6>().rest().boundary, &quoted), use_of);
    }
    0
}

/// What the quoted flow is asked for, if the packet quotes one; else 0. On loopback both ends are this host's, and each has
/// its own part; what crosses another boundary is that one's.
#[inline(always)]
fn is_error<K: Key>(packet: &Packet) -> u8 {
    let rest = packet.key::<K>().rest();
    // Type and code, as they lie on the wire.
    let [kind, _] = rest.local_port.to_ne_bytes();
    if rest.ports != ports::ICMP || !quote::is_error(rest.protocol, kind) {
        0
    } else if packet.role.flags & (role::UPLINK | role::LOOPBACK) == role::UPLINK {
        TELLS_UNIT
    } else if packet.policies_from != 0 {
        IS_KNOWN
    } else {
        0
    }
}

#[inline(always)]
fn keep<K: Key>(scratch: *mut Scratch, packet: &mut Packet, key: K, use_of: u8) {
    // SAFETY: the entry is live for the run, and this CPU's own; both keys are words without padding, and the greater
    // fills the array.
    unsafe { (&raw mut (*scratch).quoted).cast::<K>().write(key) };
    packet.quotes = use_of;
}

/// Whose the flow is that a packet which comes in quotes: an [`Attribution`] in one number, of unit 0 where it quotes none,
/// or one that nobody knows.
#[inline(never)]
pub(crate) fn unit<K: Key>(packet: &Packet) -> u64 {
    if packet.quotes != TELLS_UNIT || packet.is_leaving() {
        return 0;
    }
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: the entry is live for the run, and this CPU's own; the key was written by `keep`.
    let key = unsafe { &*(&raw const (*scratch).quoted).cast::<K>() };
    // The local end sent what an error that comes in quotes: so is the key.
    let identity = K::lived().get_ptr(key).or_else(|| K::newcomers().get_ptr(key));
    // SAFETY: the entry is memory of the map for the run.
    identity.map_or(0, |identity| unsafe { Attribution::of((*identity).pu, (*identity).how).pack() })
}

/// 1 if the packet quotes a flow that is known and not dropped, whichever end has sent what is quoted.
#[inline(never)]
pub(crate) fn is_of_accepted<K: Key>(packet: &Packet) -> u32 {
    if packet.quotes == 0 {
        return 0;
    }
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: as above.
    let key = unsafe { &mut *(&raw mut (*scratch).quoted).cast::<K>() };
    for _ in 0..2 {
        if let Some(identity) = K::lived().get_ptr(&*key).or_else(|| K::newcomers().get_ptr(&*key)) {
            // SAFETY: the entry is memory of the map for the run.
            return u32::from(unsafe { (*identity).verdict } & verdict::DROP == 0);
        }
        key.turn();
    }
    0
}

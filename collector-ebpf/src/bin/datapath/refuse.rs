//! A frame of a flow that a policy rejects, dropped at XDP: before there is a socket buffer, and counted as the program at TC
//! counts what it [rejects](crate::reject).
//!
//! TC judges, for it can ask for sockets and what they belong to; here it is only looked up what it has said. So the first
//! packet of a flow is TC's, and so is each that may change what is known: one that ends a connection or opens it the other
//! way round, the first under another configuration or other policies, the first that shows a flow to live on. What is left
//! of a flow that nobody answers is nearly all of it. Of TCP and UDP alone: whole packets without a tag, in the form that
//! makes up nearly all traffic, to one receiver.
//!
//! Generic XDP runs behind GRO, and on what a sender of this host has not cut yet: a frame may be a super-packet, and only the
//! buffer knows of how many packets. Such ones, too, are TC's.

use aya_ebpf::helpers::bpf_jiffies64;
use collector_ebpf::{
    abi::{
        flow::{FlowKey4, FlowKey6},
        policy::verdict,
        pu::{Role, role},
    },
    flow::key::{key4, key6},
    wire::{bytes::Bytes as _, short, transport::Transport, tunnel},
};

use crate::{
    Frame, account, drops,
    family::Key,
    identity::{self, Who},
    packet::{Linear, Wire},
    policy,
    read::{Packet, UNTAGGED, role_of_index},
    reject, report,
    settings::XDP_REMEMBERS,
    slot,
    socket::TCP,
    xdp,
};

/// Where the transport header begins.
const AFTER_4: u32 = 14 + 20;
const AFTER_6: u32 = 14 + 40;
/// Where the IPv4 header says how long the packet is, and where that of IPv6 says how much comes behind it.
const LENGTH_4: u32 = 14 + 2;
const LENGTH_6: u32 = 14 + 4;
/// Where the checksum stands in a header of TCP (RFC 9293 section 3.1), and of UDP (RFC 768).
const SUM_OF_TCP: u32 = 16;
const SUM_OF_UDP: u32 = 6;

/// The frame is of another family.
const OTHER: u32 = 0;
/// It goes on.
const PASSES: u32 = 1;
/// It was dropped: all that is left is to say so.
const DROPPED: u32 = 2;

/// Whether a frame is to be dropped: then it was counted. `FRAGS`: it may lie in several buffers.
#[inline(always)]
pub(crate) fn drops<const FRAGS: bool>(frame: Frame, role: &Role) -> bool {
    // Where softirqs are preempted, a run at TC may be in the midst of what lies on this CPU for a run.
    if XDP_REMEMBERS.load() == 0 || role.flags & role::BESIDE != 0 {
        return false;
    }
    let length = xdp::length::<FRAGS>(frame, &Linear::of_frame(frame));
    let found = match refuse_4(frame, length) {
        OTHER => refuse_6(frame, length),
        found => found,
    };
    if found != DROPPED {
        drops::frame::passes();
    }
    found == DROPPED
}

/// Looks at a frame of IPv4 with so many octets. A global function: verified once, by itself.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn refuse_4(frame: Frame, length: u32) -> u32 {
    let linear = Linear::of_frame(frame);
    let Some(ip) = short::ipv4(&linear, length) else { return OTHER };
    let Some(packet) = begin(frame, &ip.transport) else { return PASSES };
    let ends = u64::from(u32::from_ne_bytes(ip.source)) + u64::from(u32::from_ne_bytes(ip.destination));
    let behind = linear.number(LENGTH_4).unwrap_or(0).wrapping_sub((AFTER_4 - 14) as u16);
    if packet.role.flags & role::COPIED != 0
        && may_be_several(&linear, &ip.transport, length, AFTER_4, ends + u64::from(behind.to_be()))
    {
        return PASSES;
    }
    packet.set(key4(boundary(&packet.role), &ip), &ip.transport, false);
    packet.orient::<FlowKey4, false>();
    judge::<FlowKey4>(frame, packet, length)
}

/// The same of IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn refuse_6(frame: Frame, length: u32) -> u32 {
    let linear = Linear::of_frame(frame);
    let Some(ip) = short::ipv6(&linear, length) else { return OTHER };
    let Some(packet) = begin(frame, &ip.transport) else { return PASSES };
    let ends = sum(ip.source) + sum(ip.destination);
    let behind = linear.number(LENGTH_6).unwrap_or(0);
    if packet.role.flags & role::COPIED != 0
        && may_be_several(&linear, &ip.transport, length, AFTER_6, ends + u64::from(behind.to_be()))
    {
        return PASSES;
    }
    packet.set(key6(boundary(&packet.role), &ip), &ip.transport, false);
    packet.orient::<FlowKey6, false>();
    judge::<FlowKey6>(frame, packet, length)
}

/// Begins the packet of this run. `None` where nothing is dropped here: a tunnel's may have to be counted inside, too, and
/// what goes to a group may be a copy of what this host sends.
#[inline(always)]
fn begin(frame: Frame, transport: &Transport) -> Option<&'static mut Packet> {
    let to = Linear::of_frame(frame).window::<1>(0)?.byte::<0>();
    if tunnel::is_tunnel(transport) || to & GROUP != 0 {
        return None;
    }
    let control = account::control()?;
    // SAFETY: the kernel hands the program a live context.
    let role = role_of_index(unsafe { (*frame).ingress_ifindex })?;
    let packet = Packet::of_run()?;
    // SAFETY: the entry is live; user space writes it by aligned stores. The helper has no arguments.
    unsafe {
        let policies_from = (&raw const (*control).policies_from).read_volatile();
        packet.begin::<false>(role, account::word(control), bpf_jiffies64(), policies_from);
    }
    Some(packet)
}

/// The bit of a link-layer address that makes it one of a group (IEEE 802).
const GROUP: u8 = 1;

/// The boundary in the key of a frame without a tag.
#[inline(always)]
fn boundary(role: &Role) -> u16 {
    if role.flags & role::UPLINK != 0 { UNTAGGED } else { role.boundary }
}

/// Whether a frame behind GRO, or before it was cut, may stand for several packets: it carries something, and its checksum is
/// the sum of the pseudo-header alone, to which whoever cuts it adds each packet's own. A whole packet that its sender has
/// left to be summed later, too, looks like that; it is judged at TC. `pseudo` is the sum without the protocol.
///
/// What was merged into a list of whole packets (`rx-gro-list`) has the first one's checksum, and is taken for that one.
#[inline(always)]
fn may_be_several(bytes: &Linear, transport: &Transport, length: u32, after: u32, pseudo: u64) -> bool {
    let at = after + if transport.protocol == TCP { SUM_OF_TCP } else { SUM_OF_UDP };
    let Some(field) = bytes.number(at) else { return true };
    let pseudo = fold(pseudo + u64::from(u16::from(transport.protocol).to_be()));
    length > transport.headers && field.to_be() == pseudo
}

/// The sum of an address, for [`fold`].
#[inline(always)]
fn sum(address: [u8; 16]) -> u64 {
    // SAFETY: both are 16 octets.
    let [a, b, c, d] = unsafe { core::mem::transmute::<[u8; 16], [u32; 4]>(address) };
    u64::from(a) + u64::from(b) + u64::from(c) + u64::from(d)
}

/// The sum of 16-bit words in one's complement (RFC 1071), of a sum of greater ones.
#[inline(always)]
fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xFFFF_FFFF);
    let sum = (sum >> 16) + (sum & 0xFFFF);
    let sum = (sum >> 16) + (sum & 0xFFFF);
    ((sum >> 16) + (sum & 0xFFFF)) as u16
}

/// What becomes of the packet of this run.
#[inline(always)]
fn judge<K: Key>(frame: Frame, packet: &Packet, length: u32) -> u32 {
    let who = rejected::<K>(packet);
    if who == 0 {
        return PASSES;
    }
    count_for_flow::<K>(frame, packet, who, length);
    drops::frame::count(frame, packet, who, length);
    DROPPED
}

/// A packed [`Who`] of a flow that is known to be rejected, whatever of it this packet is; 0 of any other.
#[inline(never)]
fn rejected<K: Key>(packet: &Packet) -> u64 {
    if is_steady::<K>(packet) {
        return 0;
    }
    let identity = identity::known::<K>(packet);
    if identity.is_null() || !identity::is_settled(packet, identity) {
        return 0;
    }
    // SAFETY: the entry is memory of the map for the run.
    unsafe {
        let verdict = policy::said_of::<K>(packet, identity);
        if verdict & verdict::DROP == 0 {
            return 0;
        }
        let (pu, how, host_pu) = ((*identity).pu, (*identity).how, (*identity).host_pu);
        Who { pu, how, refused: false, event: 0, host_pu, verdict }.pack()
    }
}

/// Whether the steady state at TC lets the packet pass: most of those that are accepted, for whom this spares the look-ups.
#[inline(always)]
fn is_steady<K: Key>(packet: &Packet) -> bool {
    let key = packet.key::<K>();
    account::control()
        .and_then(|control| slot::of(key, key.index(control, packet.word)))
        .is_some_and(|slot| slot::is_steady(&slot, packet.direction(), packet.tcp_flags))
}

/// Counts it as TC would have: it came in by its interface. 0.
#[inline(never)]
fn count_for_flow<K: Key>(frame: Frame, packet: &Packet, who: u64, length: u32) -> u32 {
    let wire = Wire { packets: 1, bytes: u64::from(length) };
    if let Some(control) = account::control() {
        // SAFETY: the entry is live; what it counts is this CPU's own.
        unsafe {
            (*control).ledger.seen += 1;
            account::cross_with::<false>(control, 1, &packet.role, 1);
        }
    }
    // It may have been accepted before in this epoch.
    slot::leave::<K>(packet);
    let in_flow = slot::into_table::<K>(packet, who, wire.packets, wire.bytes);
    report::if_pressed(frame.cast());
    reject::for_units::<K>(packet, Who::unpack(who), wire, in_flow != 0);
    0
}

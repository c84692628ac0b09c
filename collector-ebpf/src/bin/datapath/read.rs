//! What is read of a packet: the interface's role, the headers, the key of its flow.

mod run;

use collector_ebpf::{
    abi::{
        counter::Unparsed,
        flow::{FlowKey4, FlowKey6},
        pu::{ROLES as ROLE_ENTRIES, Role, role},
    },
    flow::key::{key4, key6},
    wire::{
        Frame, Link,
        bytes::Bytes as _,
        ethernet::{self, ETHERTYPE_IPV4, ETHERTYPE_IPV6, VLAN_ID},
        ipv4, ipv6, short,
        transport::Transport,
        tunnel,
    },
};

use crate::{
    Skb,
    count::ledger,
    family::Key,
    fragments,
    maps::{ROLES, ROLES_MORE},
    packet::{self, Copied, Linear, forget, metadata_vlan},
    quote, superpacket, unread, xdp,
};

pub(crate) use run::Packet;

/// What user space said about the interface that the packet crosses. Entry 0, which is no interface's, stands
/// for those that it said nothing about.
#[inline(always)]
pub(crate) fn role_of(skb: Skb) -> Option<&'static Role> {
    // SAFETY: the kernel hands the program a live context.
    let ifindex = unsafe { (*skb).ifindex };
    if let Some(role) = role_of_index(ifindex) {
        return Some(role);
    }
    ledger(|ledger| ledger.no_role += 1);
    ROLES.get(0)
}

/// What user space said about an interface.
#[inline(always)]
pub(crate) fn role_of_index(ifindex: u32) -> Option<&'static Role> {
    if let Some(role) = ROLES.get(ifindex % ROLE_ENTRIES)
        && role.ifindex == ifindex
    {
        return Some(role);
    }
    // SAFETY: only user space writes to this map; a torn role lasts for one packet.
    unsafe { ROLES_MORE.get(&ifindex) }
}

/// Whether an ifb hands the packet on.
#[inline(always)]
pub(crate) fn is_from_ifb(skb: Skb) -> bool {
    // SAFETY: the kernel hands the program a live context.
    let from = unsafe { (*skb).ingress_ifindex };
    role_of_index(from).is_some_and(|from| from.flags & role::IFB != 0)
}

/// Whether the processing unit behind the boundary sent the packet: what comes in at the host-side end of a
/// container was sent by the container.
#[inline(always)]
pub(crate) fn unit_sent<const EGRESS: bool>(role: &Role) -> bool {
    EGRESS != (role.flags & role::FAR != 0)
}

/// Reads a whole TCP or UDP packet over IPv4 and Ethernet without a tag in the frame, in place: its transport header,
/// and the key of its flow as if the local end had sent it.
#[inline(always)]
pub(crate) fn read4(skb: Skb, role: &Role) -> Option<(FlowKey4, Transport)> {
    let ip = short::ipv4(&Linear::of(skb), frame(skb).length)?;
    Some((key4(boundary(skb, role, UNTAGGED), &ip), ip.transport))
}

/// The same for IPv6.
#[inline(always)]
pub(crate) fn read6(skb: Skb, role: &Role) -> Option<(FlowKey6, Transport)> {
    let ip = short::ipv6(&Linear::of(skb), frame(skb).length)?;
    Some((key6(boundary(skb, role, UNTAGGED), &ip), ip.transport))
}

/// Reads the packet of this run. 0, or one more than the index of the reason why it is not understood.
///
/// A global function: the verifier follows the ways through the parser once, and not what comes behind each of them.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn read_packet(skb: Skb) -> u32 {
    let Some(packet) = Packet::of_run() else { return Unparsed::Truncated as u32 + 1 };
    if packet.role.flags & role::COPIED != 0 && !packet.is_leaving() && packet::is_headless(skb) != 0 {
        packet.lost = ETHERNET_HEADER;
        xdp::ledger(|ledger| ledger.headless += 1);
    } else if common4(skb, packet) != 0 || common6(skb, packet) != 0 {
        return 0;
    }
    let failed = general(skb, packet);
    if failed != 0 && frame(skb).gso {
        // What was read before it failed is no length to go by.
        packet.headers = superpacket::segment_headers(skb) as u16;
    }
    failed
}

#[inline(never)]
fn common4(skb: Skb, packet: &mut Packet) -> u32 {
    if let Link::RawIp = link(&packet.role) {
        return 0;
    }
    let Some((key, transport)) = read4(skb, &packet.role) else { return 0 };
    if frame(skb).gso && !superpacket::is_last(skb, transport.protocol) {
        return 0;
    }
    packet.set(key, &transport, false);
    1
}

#[inline(never)]
fn common6(skb: Skb, packet: &mut Packet) -> u32 {
    if let Link::RawIp = link(&packet.role) {
        return 0;
    }
    let Some((key, transport)) = read6(skb, &packet.role) else { return 0 };
    if frame(skb).gso && !superpacket::is_last(skb, transport.protocol) {
        return 0;
    }
    packet.set(key, &transport, false);
    1
}

/// Reads all that the parser knows, from a copy, for headers may lie behind the linear part. 0, or one more
/// than the index of the reason why the frame is not understood. Not a function of its own: there is no stack for one more
/// between the longest chain's ends.
#[inline(always)]
fn general(skb: Skb, packet: &mut Packet) -> u32 {
    let result = Copied::of(skb).ok_or(Unparsed::Truncated).and_then(|bytes| match link(&packet.role) {
        Link::Ethernet => begin(skb, packet, &bytes)
            .and_then(|(ethertype, next)| ethernet::behind(&bytes, ethertype, forget(skb, next))),
        Link::RawIp => {
            if !packet.is_leaving() {
                packet.before = packet::carrier(skb) as u16;
            }
            ethernet::raw_ip(&bytes, u32::from(packet.before))
        }
    });
    match result {
        Err(reason) => reason as u32 + 1,
        Ok(layer2) => {
            // The verifier follows each function below once, not for each header that may come before the packet's.
            let boundary = forget(skb, boundary(skb, &packet.role, layer2.vlan).into()) as u16;
            let next = forget(skb, layer2.next);
            match layer2.ethertype {
                ETHERTYPE_IPV4 => {
                    let failed = forget(skb, general4(skb, packet, next, boundary));
                    if failed != 0 {
                        return failed + unread::keep_unread_4(skb, next, boundary.into());
                    }
                    inner::<FlowKey4>(skb, packet)
                        + quote::keep4(skb, packet)
                        + fragments::tie::<FlowKey4>(packet)
                }
                ETHERTYPE_IPV6 => {
                    let failed = forget(skb, general6(skb, packet, next, boundary));
                    if failed != 0 {
                        return failed + unread::keep_unread_6(skb, next, boundary.into());
                    }
                    inner::<FlowKey6>(skb, packet)
                        + quote::keep6(skb, packet)
                        + fragments::tie::<FlowKey6>(packet)
                }
                other => ethernet::refuse(other) as u32 + 1,
            }
        }
    }
}

/// Octets of an Ethernet header.
const ETHERNET_HEADER: u8 = 14;

/// What the Ethernet header says that follows it, and where that lies; as the kernel has read it where the buffer is without that
/// header. One whose frame had a tag is not without it.
#[inline(always)]
fn begin(skb: Skb, packet: &Packet, bytes: &Copied) -> Result<(u16, u32), Unparsed> {
    if packet.lost != 0 {
        // SAFETY: the kernel hands the program a live context.
        return Ok((u16::from_be(unsafe { (*skb).protocol } as u16), 0));
    }
    let ethertype = bytes.number(ethernet::ETHERTYPE_AT).ok_or(Unparsed::Truncated)?;
    Ok((ethertype, u32::from(ETHERNET_HEADER)))
}

/// Moves the end of a super-packet's headers to where its segments' headers end: as the kernel says, or else by what a tunnel's
/// packet carries. 0.
#[inline(never)]
fn inner<K: Key>(skb: Skb, packet: &mut Packet) -> u32 {
    if !frame(skb).gso || packet.family != K::FAMILY {
        return 0;
    }
    if superpacket::is_last(skb, packet.key::<K>().rest().protocol) {
        return 0;
    }
    let told = superpacket::segment_headers(skb);
    if told != 0 {
        packet.headers = told as u16;
    } else if let Some(bytes) = Copied::again(skb) {
        let rest = packet.key::<K>().rest();
        // The key is as the sender has it: the remote port is the destination's.
        let port = u16::from_be(rest.remote_port);
        packet.headers = tunnel::innermost(&bytes, rest.protocol, port, packet.headers()) as u16;
    }
    0
}

#[inline(never)]
pub(crate) fn general4(skb: Skb, packet: &mut Packet, next: u32, boundary: u16) -> u32 {
    let Some(bytes) = Copied::again(skb) else { return Unparsed::Truncated as u32 + 1 };
    match ipv4::parse(&bytes, next, frame(skb)) {
        Ok(ip) => {
            packet.set(key4(boundary, &ip), &ip.transport, false);
            bytes.keep_piece(fragments::packed(ip.piece));
            0
        }
        Err(reason) => reason as u32 + 1,
    }
}

#[inline(never)]
pub(crate) fn general6(skb: Skb, packet: &mut Packet, next: u32, boundary: u16) -> u32 {
    let Some(bytes) = Copied::again(skb) else { return Unparsed::Truncated as u32 + 1 };
    match ipv6::parse(&bytes, next, frame(skb)) {
        Ok(ip) => {
            packet.set(key6(boundary, &ip), &ip.transport, ip.jumbo);
            bytes.keep_piece(fragments::packed(ip.piece));
            0
        }
        Err(reason) => reason as u32 + 1,
    }
}

/// What frames on the interface start with.
#[inline(always)]
pub(crate) fn link(role: &Role) -> Link {
    if role.flags & role::RAW_IP != 0 { Link::RawIp } else { Link::Ethernet }
}

/// The VLAN id of a frame without a tag.
pub(crate) const UNTAGGED: u16 = 0;

/// The boundary for the flow's key: at an uplink the VLAN id, of the tag that the kernel keeps beside the
/// frame or of the first one in it.
#[inline(always)]
pub(crate) fn boundary(skb: Skb, role: &Role, vlan: u16) -> u16 {
    if role.flags & role::UPLINK != 0 {
        metadata_vlan(skb).map_or(vlan, |tag| tag & VLAN_ID)
    } else {
        role.boundary
    }
}

/// What the bytes do not say.
#[inline(always)]
pub(crate) fn frame(skb: Skb) -> Frame {
    // SAFETY: the kernel hands the program a live context.
    unsafe { Frame { length: (*skb).len, gso: (*skb).gso_size != 0 } }
}

//! What is read of a packet: the interface's role, the headers, the key of its flow.

use core::ptr;

use collector_ebpf::{
    abi::{
        counter::Unparsed,
        flow::{FlowKey4, FlowKey6, TX, how},
        pu::{ROLES as ROLE_ENTRIES, Role, role},
    },
    flow::{
        initiator,
        key::{key4, key6},
    },
    wire::{
        Frame, Link,
        ethernet::{self, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Layer2, VLAN_ID},
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
    maps::{ROLES, ROLES_MORE, SCRATCH},
    packet::{self, Copied, Linear, Wire, forget, metadata_vlan},
    quote, unread, xdp,
};

/// A packet that was read. The key lies in as many of the words as its family needs.
///
/// There is one a run, in [`SCRATCH`]: the stack has no room for it, and what the verifier knows of numbers in a map is
/// nothing, so that the many ways through the parser end as one.
#[repr(C)]
pub(crate) struct Packet {
    pub(crate) key: [u64; 5],
    /// The role of the interface that it crosses.
    pub(crate) role: Role,
    pub(crate) now: u64,
    /// The control word: epoch and generation.
    pub(crate) word: u64,
    /// [`Control::policies_from`](collector_ebpf::abi::control::Control::policies_from); 0 where no policy holds for it.
    pub(crate) policies_from: u64,
    /// Where the transport header ends: no further than [`SCRATCH`] reaches, and a header.
    headers: u16,
    pub(crate) tcp_flags: u8,
    /// `LOCAL_INITIATED` and the evidence, if the flow begins with this packet.
    pub(crate) initiator: u8,
    /// `RX` or `TX`, as the local side sees it.
    direction: u8,
    /// 1 if it was seen at an interface's egress.
    egress: u8,
    /// 1 if the kernel's header of a jumbogram is to be taken off.
    jumbo: u8,
    pub(crate) family: u8,
    /// 1 if it is a tunnel's, and what is inside is wanted.
    pub(crate) carries: u8,
    /// 1 if it lies inside of a tunnel's.
    pub(crate) inside: u8,
    /// Where the packet's own transport header ends, whatever is inside.
    transport_end: u16,
    /// Octets of a tunnel before what it carries, where that is counted by itself.
    before: u16,
    /// Octets of the link layer's header that the buffer is without.
    pub(crate) lost: u8,
    /// Not 0 if it is an ICMP error, and [`Scratch::quoted`](crate::maps::Scratch::quoted) is the flow that it quotes: one of
    /// those of [`quote`].
    pub(crate) quotes: u8,
    /// Not 0 if it is not understood: one more than the index of the reason. With a family, its key has the ends.
    pub(crate) fault: u8,
}

impl Packet {
    /// The packet of this run. Nobody holds what an earlier call returned any more.
    #[inline(always)]
    pub(crate) fn of_run() -> Option<&'static mut Self> {
        let scratch = SCRATCH.get_ptr_mut(0)?;
        // SAFETY: the entry is live for the run, and this CPU's own while softirqs are off; any bits are a packet.
        Some(unsafe { &mut (*scratch).packet })
    }

    /// Begins it, of which only the circumstances are known.
    #[inline(always)]
    pub(crate) fn begin<const EGRESS: bool>(&mut self, role: &Role, word: u64, now: u64, policies_from: u64) {
        // One by one: LLVM would make the whole on the stack first. The key is written when it is read.
        self.role = *role;
        self.now = now;
        self.word = word;
        self.policies_from = policies_from;
        self.headers = 0;
        self.tcp_flags = 0;
        self.initiator = 0;
        self.direction = 0;
        self.egress = u8::from(EGRESS);
        self.jumbo = 0;
        self.family = 0;
        self.quotes = 0;
        self.carries = 0;
        self.inside = 0;
        self.transport_end = 0;
        self.before = 0;
        self.lost = 0;
        self.fault = 0;
    }

    /// Where the transport header ends.
    #[inline(always)]
    pub(crate) fn headers(&self) -> u32 {
        u32::from(self.headers)
    }

    /// Seen at an interface's egress.
    #[inline(always)]
    pub(crate) fn is_leaving(&self) -> bool {
        self.egress != 0
    }

    /// The key, as the family that it was read for.
    #[inline(always)]
    pub(crate) fn key<K: Key>(&self) -> &K {
        // SAFETY: both keys are words without padding, and the greater fills the array.
        unsafe { &*ptr::from_ref(&self.key).cast::<K>() }
    }

    /// The word of the key that both families have last: ports, boundary, protocol.
    #[inline(always)]
    pub(crate) fn rest<K: Key>(&self) -> u64 {
        let [_, rest_4, _, _, rest_6] = self.key;
        if K::FAMILY == 4 { rest_4 } else { rest_6 }
    }

    /// Changes that word.
    #[inline(always)]
    pub(crate) fn set_rest<K: Key>(&mut self, rest: u64) {
        let [_, rest_4, _, _, rest_6] = &mut self.key;
        *(if K::FAMILY == 4 { rest_4 } else { rest_6 }) = rest;
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

    /// The local end lies beyond the interface: this host is the other one.
    #[inline(always)]
    pub(crate) fn is_far(&self) -> bool {
        self.role.flags & role::FAR != 0
    }

    /// What it stands for on the wire.
    #[inline(always)]
    pub(crate) fn wire(&self, skb: Skb) -> Wire {
        let wire = packet::wire(skb, self.headers(), self.jumbo != 0);
        if self.before == 0 {
            // Each segment has one of its own.
            Wire { bytes: wire.bytes + u64::from(self.lost) * u64::from(wire.packets), ..wire }
        } else {
            packet::without(skb, wire, u32::from(self.before))
        }
    }

    /// Where the transport header ends of the packet itself; the [`headers`](Self::headers) that segments repeat may reach
    /// further.
    #[inline(always)]
    pub(crate) fn transport_end(&self) -> u32 {
        u32::from(self.transport_end)
    }

    /// It becomes what a tunnel carries behind `before` octets.
    #[inline(always)]
    pub(crate) fn enter(&mut self, before: u32) {
        self.inside = 1;
        self.before = before as u16;
        self.quotes = 0;
        self.policies_from = 0;
    }

    /// Exchanges the ends of what is inside of a tunnel's packet where the local one did not send that.
    #[inline(always)]
    pub(crate) fn orient_inside<K: Key>(&mut self) {
        // Nothing in it is a tunnel once more that anybody asks about.
        self.carries = 0;
        if !self.sent() {
            // SAFETY: both keys are words without padding, and the greater fills the array.
            unsafe { (*ptr::from_mut(&mut self.key).cast::<K>()).turn() };
            self.initiator ^= how::LOCAL_INITIATED;
        }
    }

    /// What was read, as if the local end had sent it.
    #[inline(always)]
    pub(crate) fn set<K: Key>(&mut self, key: K, transport: &Transport, jumbo: bool) {
        // SAFETY: both keys are words without padding, and the greater fills the array.
        unsafe { ptr::from_mut(&mut self.key).cast::<K>().write(key) };
        self.headers = transport.headers as u16;
        self.transport_end = transport.headers as u16;
        self.carries = u8::from(self.role.flags & role::INNER != 0 && tunnel::is_tunnel(transport));
        self.tcp_flags = transport.tcp_flags;
        self.initiator = initiator(transport);
        self.family = K::FAMILY;
        self.jumbo = u8::from(jumbo);
    }

    /// Exchanges the ends where the local one did not send the packet. On loopback both are local, and the
    /// lesser stands for it, so that both directions meet in one flow.
    #[inline(always)]
    pub(crate) fn orient<K: Key, const EGRESS: bool>(&mut self) {
        // SAFETY: as above.
        let key = unsafe { &mut *ptr::from_mut(&mut self.key).cast::<K>() };
        let sent = if self.role.flags & role::LOOPBACK != 0 {
            // An echo to oneself has the same ends both ways: its request is what was sent.
            if key.is_symmetric() { self.initiator & how::LOCAL_INITIATED != 0 } else { key.is_in_order() }
        } else {
            unit_sent::<EGRESS>(&self.role)
        };
        self.direction = u8::from(sent);
        if !sent {
            key.turn();
            self.initiator ^= how::LOCAL_INITIATED;
        }
    }
}

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
    general(skb, packet)
}

#[inline(never)]
fn common4(skb: Skb, packet: &mut Packet) -> u32 {
    if let Link::RawIp = link(&packet.role) {
        return 0;
    }
    let Some((key, transport)) = read4(skb, &packet.role) else { return 0 };
    if frame(skb).gso && tunnel::is_tunnel(&transport) {
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
    if frame(skb).gso && tunnel::is_tunnel(&transport) {
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
        Link::Ethernet if packet.lost != 0 => Ok(behind_ethernet(skb)),
        Link::Ethernet => ethernet::parse(&bytes, Link::Ethernet),
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

/// What the kernel has read of an Ethernet header that the buffer is without. One whose frame had a tag is not without it.
#[inline(always)]
fn behind_ethernet(skb: Skb) -> Layer2 {
    // SAFETY: the kernel hands the program a live context.
    Layer2 { ethertype: u16::from_be(unsafe { (*skb).protocol } as u16), vlan: UNTAGGED, next: 0 }
}

/// Moves the end of the headers of a tunnel's super-packet to where its segments' headers end. 0.
#[inline(never)]
fn inner<K: Key>(skb: Skb, packet: &mut Packet) -> u32 {
    if !frame(skb).gso || packet.family != K::FAMILY {
        return 0;
    }
    if let Some(bytes) = Copied::again(skb) {
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

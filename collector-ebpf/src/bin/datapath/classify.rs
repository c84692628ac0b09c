//! Who a flow belongs to: asked at its first packet, and once more when a packet leaves this host for it.
//!
//! What comes in shows where it wants to go, not where it ends: an address of this host's may be translated (NAT) to a
//! container's. What leaves shows both: a socket of this host's sent it, or it came in by another interface.

use core::num::NonZeroU16;

use aya_ebpf::btf_maps::lpm_trie::Key as Prefix;
use collector_ebpf::abi::{
    flow::{FlowKey4, FlowKey6, how, ports},
    pu::{index, port, role, tunnel},
    xdp::found,
};

use crate::{
    Skb, cgroup, ends,
    family::{Key, Rest},
    inner,
    maps::{CIDRS, LOCALS, PORTS, TUNNELS},
    read::{Packet, role_of_index},
    route,
    settings::{BY_ENDS, BY_PORT},
    socket::{self, Socket, TCP},
    xdp,
};

/// A processing unit and how it was found.
#[derive(Clone, Copy)]
pub(crate) struct Attribution {
    pub(crate) pu: u16,
    /// Bits of [`how`]: the method, `HOST_END`, `PROVISIONAL`.
    bits: u8,
    /// The unit at the other end on this host, as in an identity; 0 where none was asked for.
    pub(crate) host_pu: u16,
}

impl Attribution {
    const BITS: u8 = how::ATTRIBUTION_MASK << how::ATTRIBUTION_SHIFT | how::HOST_END | how::PROVISIONAL;

    #[inline(always)]
    pub(crate) const fn by(pu: u16, method: u8) -> Self {
        Self { pu, bits: method << how::ATTRIBUTION_SHIFT, host_pu: 0 }
    }

    #[inline(always)]
    const fn with(self, bits: u8) -> Self {
        Self { bits: self.bits | bits, ..self }
    }

    #[inline(always)]
    pub(crate) const fn beside(self, host_pu: u16) -> Self {
        Self { host_pu, ..self }
    }

    /// Whether it was found by this method.
    #[inline(always)]
    pub(crate) const fn is_by(self, method: u8) -> bool {
        how::attributed_by(self.bits) == method
    }

    /// That of a flow whose unit and `how` are known.
    #[inline(always)]
    pub(crate) const fn of(pu: u16, how: u8) -> Self {
        Self { pu, bits: how & Self::BITS, host_pu: 0 }
    }

    /// A subprogram returns one register.
    #[inline(always)]
    pub(crate) fn pack(self) -> u64 {
        u64::from(self.pu) | u64::from(self.bits) << 16 | u64::from(self.host_pu) << 32
    }

    /// What [`pack`](Self::pack) made; unit 0 where nothing was asked.
    #[inline(always)]
    pub(crate) const fn unpack(packed: u64) -> Self {
        Self { pu: packed as u16, bits: (packed >> 16) as u8, host_pu: (packed >> 32) as u16 }
    }

    /// `how` with what was found instead of what was known before.
    #[inline(always)]
    pub(crate) const fn put_into(self, how: u8) -> u8 {
        how & !Self::BITS | self.bits
    }
}

/// `pkt_type` (`include/uapi/linux/if_packet.h`).
const PACKET_BROADCAST: u32 = 1;
const PACKET_MULTICAST: u32 = 2;
const PACKET_OTHERHOST: u32 = 3;

/// Who the flow of this run's packet belongs to: an [`Attribution`] in one number.
#[inline(always)]
pub(crate) fn classify<K: Key>(skb: Skb) -> u64 {
    if K::FAMILY == FlowKey4::FAMILY { classify_4(skb) } else { classify_6(skb) }
}

/// The same for IPv4. A global function, so that it is verified once, and not behind every way that leads here.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn classify_4(skb: Skb) -> u64 {
    Packet::of_run().map_or(0, |packet| find::<FlowKey4>(skb, packet))
}

/// The same for IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn classify_6(skb: Skb) -> u64 {
    Packet::of_run().map_or(0, |packet| find::<FlowKey6>(skb, packet))
}

#[inline(always)]
fn find<K: Key>(skb: Skb, packet: &Packet) -> u64 {
    let flags = packet.role.flags;
    let found = if packet.inside != 0 {
        inner::unit::<K>(packet)
    } else if flags & role::LOOPBACK != 0 {
        ends::on_loopback::<K>(skb, packet)
    } else if flags & role::OWN != 0 || flags & role::UPLINK == 0 {
        at_boundary::<K>(skb, packet)
    } else if packet.is_leaving() {
        leaving::<K>(skb, packet)
    } else {
        arriving::<K>(skb, packet)
    };
    found.pack()
}

/// At a boundary that is one unit's: a container's host-side end, an overlay.
#[inline(always)]
fn at_boundary<K: Key>(skb: Skb, packet: &Packet) -> Attribution {
    let role = &packet.role;
    let key = packet.key::<K>();
    let found = if role.flags & role::OWN != 0 {
        let method = if role.pu >= index::FIRST { how::BY_INTERFACE } else { how::BY_ADDRESS };
        Attribution::by(role.pu, method)
    } else if let Some(pu) = declared(key.local()) {
        Attribution::by(pu.get(), how::BY_CIDR)
    } else {
        Attribution::by(role.pu, how::BY_VETH)
    };
    match ends::host_end::<K>(skb, packet) {
        None => found,
        Some(end) => found.with(how::HOST_END).beside(end.pu()),
    }
}

/// What leaves by an uplink.
#[inline(always)]
fn leaving<K: Key>(skb: Skb, packet: &Packet) -> Attribution {
    let source = packet.key::<K>().local();
    let from = came_in_by(skb);
    if let Some(pu) = own(source) {
        // What came in and has an address of this host's was translated.
        return if from == 0 {
            by_sender::<K>(skb, packet, at_own_address::<K>(packet, pu))
        } else {
            Attribution::by(index::FORWARDED, how::BY_ROUTE)
        };
    }
    // What came in by a host-side end was counted there.
    if (from == 0 || !is_inside(from))
        && let Some(pu) = declared(source)
    {
        return Attribution::by(pu.get(), how::BY_CIDR);
    }
    if from != 0 {
        return Attribution::by(index::FORWARDED, how::BY_ROUTE);
    }
    // What came in nowhere was made here, whatever its source address says (DHCP, duplicate address detection).
    by_sender::<K>(skb, packet, Attribution::by(packet.role.pu, how::BY_ROUTE))
}

/// The unit of the socket that sends what was made here, unless it is somebody's by its address. The socket of what carries a
/// tunnel is that of what is inside.
#[inline(always)]
fn by_sender<K: Key>(skb: Skb, packet: &Packet, otherwise: Attribution) -> Attribution {
    if BY_ENDS.load() == 0 || otherwise.is_by(how::BY_CIDR) || is_tunnel::<K>(packet) {
        return otherwise;
    }
    match cgroup::of_sender::<K>(skb, packet) {
        index::HOST => otherwise,
        pu => Attribution::by(pu, how::BY_SOCKET),
    }
}

/// What comes in by an uplink.
#[inline(always)]
fn arriving<K: Key>(skb: Skb, packet: &Packet) -> Attribution {
    // SAFETY: the kernel hands the program a live context.
    let addressee = unsafe { (*skb).pkt_type };
    if addressee == PACKET_BROADCAST || addressee == PACKET_MULTICAST {
        return Attribution::by(packet.role.pu, how::BY_ADDRESS);
    }
    if addressee == PACKET_OTHERHOST && packet.role.flags & role::SWITCHED != 0 {
        return Attribution::by(index::FORWARDED, how::BY_ROUTE);
    }
    let handed = Whose::unpack(xdp::handed(skb, packet));
    let whose = if handed.is_known { handed } else { whose(packet.key::<K>().local()) };
    let Some(pu) = NonZeroU16::new(whose.pu) else {
        let nobodys = Attribution::by(index::FORWARDED, how::BY_NONE);
        // A frame that is not for this interface is for one above it (macvlan), whose address another namespace has and which
        // answers by a socket: or for nobody here, where this one only listens.
        return if addressee == PACKET_OTHERHOST { nobodys.with(how::PROVISIONAL) } else { nobodys };
    };
    if whose.found != found::OWN {
        // It is counted at its own boundary, where it goes to.
        return if is_inside(route::next_interface::<K>(skb, packet)) {
            Attribution::by(index::FORWARDED, how::BY_ROUTE)
        } else {
            Attribution::by(pu.get(), how::BY_CIDR)
        };
    }
    let mut guess = at_own_address::<K>(packet, pu);
    if !guess.is_by(how::BY_CIDR) && pu.get() < index::FIRST {
        match socket::of_host::<K>(skb, packet) {
            Socket::Found => guess = Attribution::by(by_receiver::<K>(packet, pu), how::BY_SOCKET),
            Socket::None => guess = Attribution::by(index::UNKNOWN, how::BY_SILENCE),
            Socket::NotAsked => {}
        }
    }
    guess.with(how::PROVISIONAL)
}

/// The unit of the socket that was found, at an address that is the host's unit's.
#[inline(always)]
fn by_receiver<K: Key>(packet: &Packet, pu: NonZeroU16) -> u16 {
    if BY_ENDS.load() == 0 || is_tunnel::<K>(packet) {
        return pu.get();
    }
    match cgroup::of_receiver() {
        index::HOST => pu.get(),
        unit => unit,
    }
}

/// The unit of an address of this host's, where the port or the address may be declared. What carries a tunnel is this host's
/// all the same: who declares the address has what is inside, if anything.
#[inline(always)]
fn at_own_address<K: Key>(packet: &Packet, pu: NonZeroU16) -> Attribution {
    if BY_PORT.load() != 0
        && let Some(pu) = of_local_port(packet.key::<K>().rest())
        && !is_tunnel::<K>(packet)
    {
        return Attribution::by(pu.get(), how::BY_CIDR);
    }
    if pu.get() >= index::FIRST && !is_tunnel::<K>(packet) {
        return Attribution::by(pu.get(), how::BY_CIDR);
    }
    Attribution::by(packet.role.pu, how::BY_ADDRESS)
}

/// The unit that declares the local end's port, which is one of this host's.
#[inline(always)]
pub(crate) fn of_local_port(rest: Rest) -> Option<NonZeroU16> {
    of_port(rest, rest.local_port)
}

/// The same of the remote end's.
#[inline(always)]
pub(crate) fn of_remote_port(rest: Rest) -> Option<NonZeroU16> {
    of_port(rest, rest.remote_port)
}

/// `number` is in network byte order.
#[inline(always)]
fn of_port(rest: Rest, number: u16) -> Option<NonZeroU16> {
    if BY_PORT.load() == 0 || rest.ports != ports::TRANSPORT {
        return None;
    }
    let entry = port(rest.protocol, u16::from_be(number))?;
    PORTS.get(entry).and_then(|pu| NonZeroU16::new(*pu as u16))
}

/// Whether the packet is one of a tunnel that ends here.
#[inline(always)]
pub(crate) fn is_tunnel<K: Key>(packet: &Packet) -> bool {
    let rest = packet.key::<K>().rest();
    // No tunnel that user space knows goes over it, and most flows do.
    if rest.protocol == TCP {
        return false;
    }
    let port = if packet.is_leaving() { rest.remote_port } else { rest.local_port };
    // SAFETY: only user space writes to this map, and only whether there is an entry is asked.
    unsafe { TUNNELS.get(&tunnel(rest.protocol, port)) }.is_some()
}

/// The interface that the packet came in by; 0 for what a socket of this host sends.
#[inline(always)]
pub(crate) fn came_in_by(skb: Skb) -> u32 {
    // SAFETY: the kernel hands the program a live context.
    unsafe { (*skb).ingress_ifindex }
}

/// Behind the interface lie host-side ends, at which what passes it is counted.
#[inline(always)]
fn is_inside(ifindex: u32) -> bool {
    role_of_index(ifindex).is_some_and(|role| role.flags & (role::FAR | role::INSIDE) != 0)
}

/// Whose an address is.
#[derive(Clone, Copy)]
pub(crate) struct Whose {
    /// The unit; 0 for nobody's.
    pub(crate) pu: u16,
    /// What the address is ([`found`]).
    pub(crate) found: u8,
    /// It was looked up.
    pub(crate) is_known: bool,
}

impl Whose {
    /// A number, for a subprogram returns one register; 0 is what nobody has looked up.
    #[inline(always)]
    pub(crate) fn pack(self) -> u32 {
        u32::from(self.pu) | u32::from(self.found) << 16 | u32::from(self.is_known) << 24
    }

    /// What [`pack`](Self::pack) made.
    #[inline(always)]
    pub(crate) const fn unpack(packed: u32) -> Self {
        Self { pu: packed as u16, found: (packed >> 16) as u8, is_known: packed >> 24 != 0 }
    }
}

/// Looks up whose an address is.
#[inline(always)]
pub(crate) fn whose(address: [u8; 16]) -> Whose {
    let of = |pu: NonZeroU16, found| Whose { pu: pu.get(), found, is_known: true };
    match own(address) {
        Some(pu) => of(pu, found::OWN),
        None => match declared(address) {
            Some(pu) => of(pu, found::DECLARED),
            None => Whose { pu: 0, found: found::NOTHING, is_known: true },
        },
    }
}

/// The unit that declares a range with this address.
///
/// 0 is no unit's, so that "none" is a number too: the verifier refuses the copy of a register that nobody has written
/// to, which LLVM makes of the empty half of another `Option`.
#[inline(always)]
pub(crate) fn declared(address: [u8; 16]) -> Option<NonZeroU16> {
    const ADDRESS_BITS: u32 = 128;
    CIDRS.get(&Prefix::new(ADDRESS_BITS, address)).and_then(|pu| NonZeroU16::new(*pu as u16))
}

/// The unit that an address of this host's belongs to, if it is one: `HOST`, or the one that declares it.
#[inline(always)]
pub(crate) fn own(address: [u8; 16]) -> Option<NonZeroU16> {
    // SAFETY: only user space writes to this map, each value by one store.
    unsafe { LOCALS.get(&address) }.and_then(|pu| NonZeroU16::new(*pu as u16))
}

//! The steady state of a flow: read the packet, hit its slot, add; one more addition for its processing unit.
//!
//! What is not the steady state goes to [`cold`](crate::cold), which reads the packet again: nothing that it
//! needs has to be kept here, and the registers and the stack of the hot path stay free.

use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_jiffies64};
use collector_ebpf::{
    abi::{
        control::Control,
        counter::{Ledger, PUS_PER_CHUNK, PuCounters},
        flow::{FLUSH_AT, FlowKey4, FlowKey6, RX, SlotCounts, TX},
        pu::{ROLES as ROLE_ENTRIES, Role, index, role},
    },
    wire::{
        Frame, Link,
        ethernet::{self, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Layer2, VLAN_ID},
        ipv4::{self, Ipv4},
        ipv6::{self, Ipv6},
        tcp,
        transport::Transport,
    },
};

use crate::{
    Skb, cold,
    family::{Key, Slot},
    maps::{CONTROL, LEDGER, PUS, ROLES, ROLES_MORE},
    packet::{Linear, Wire, metadata_vlan, wire},
    settings::{MARK_MASK, MARK_SHIFT, NO_CACHE},
};

/// `PACKET_LOOPBACK` (`include/uapi/linux/if_packet.h`): a copy of own multicast or broadcast.
const PACKET_LOOPBACK: u32 = 5;

/// Counts one socket buffer.
#[inline(always)]
pub(crate) fn run<const EGRESS: bool>(skb: Skb) {
    let Some(control) = CONTROL.get_ptr(0) else { return };
    // SAFETY: user space writes each word by one aligned store; a volatile read is one load.
    let (word, lease) = unsafe {
        ((&raw const (*control).word).read_volatile(), (&raw const (*control).lease).read_volatile())
    };
    // SAFETY: no arguments, no memory.
    let now = unsafe { bpf_jiffies64() };
    if now >= lease {
        return;
    }
    let Some(ledger) = LEDGER.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's own entry.
    unsafe { (*ledger).seen += 1 };
    // SAFETY: the kernel hands the program a live context.
    if !EGRESS && unsafe { (*skb).pkt_type } == PACKET_LOOPBACK {
        // It lost its Ethernet header on the way, and was counted when it was sent.
        // SAFETY: this CPU's own entry.
        unsafe { (*ledger).looped += 1 };
        return;
    }
    let Some(role) = role_of::<true>(skb) else { return };
    let counted = match hot4::<EGRESS>(skb, word, now, role) {
        Hot::Counted => true,
        Hot::Other => hot6::<EGRESS>(skb, word, now, role),
        Hot::Missed => false,
    };
    if !counted {
        if EGRESS {
            cold::cold_egress(skb, word, now);
        } else {
            cold::cold_ingress(skb, word, now);
        }
    }
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

/// Reads a whole TCP or UDP packet over IPv4, in place: its transport header, and the key of its flow as if
/// the local end had sent it.
#[inline(always)]
pub(crate) fn read4(skb: Skb, role: &Role) -> Option<(FlowKey4, Transport)> {
    let bytes = Linear::of(skb);
    let (layer2, boundary) = layer2(skb, role, &bytes)?;
    if layer2.ethertype != ETHERTYPE_IPV4 {
        return None;
    }
    let ip = ipv4::parse::<false>(&bytes, layer2.next, frame(skb)).ok()?;
    Some((key4(boundary, &ip), ip.transport))
}

/// The same for IPv6.
#[inline(always)]
pub(crate) fn read6(skb: Skb, role: &Role) -> Option<(FlowKey6, Transport)> {
    let bytes = Linear::of(skb);
    let (layer2, boundary) = layer2(skb, role, &bytes)?;
    if layer2.ethertype != ETHERTYPE_IPV6 {
        return None;
    }
    let ip = ipv6::parse::<false>(&bytes, layer2.next, frame(skb)).ok()?;
    Some((key6(boundary, &ip), ip.transport))
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
    let Some(slot) = key.slot(Control::epoch(word), cpu) else { return false };
    let direction = if sent { TX } else { RX };
    if !holds(&slot, key, direction, transport.tcp_flags) {
        return false;
    }
    // SAFETY: the slot is live, and this CPU's alone while softirqs are off.
    unsafe {
        let wire = wire(skb, transport.headers, false);
        add(slot.counts, direction, wire, now, role.interface, transport.tcp_flags);
        let pu = (*slot.counts).pu;
        count_unit(pu, direction, wire, true);
        mark(skb, pu);
    }
    true
}

/// Whether the flow holds the slot, and the packet only has to be added there.
#[inline(always)]
#[expect(clippy::indexing_slicing, reason = "a direction is RX or TX; a panic would be refused at load")]
pub(crate) fn holds<K: Key>(slot: &Slot<K>, key: &K, direction: usize, tcp_flags: u8) -> bool {
    if tcp_flags & (tcp::SYN | tcp::FIN | tcp::RST) != 0 {
        return false;
    }
    // SAFETY: the slot is live, and this CPU's alone while softirqs are off. The second comparison covers two
    // rare cases: nothing counted in this direction yet, and no room for more.
    unsafe { (*slot.key).is(key) && (*slot.counts).packets[direction].wrapping_sub(1) < FLUSH_AT - 1 }
}

/// Adds a packet to a slot.
///
/// # Safety
///
/// The slot is live, and this CPU's alone.
#[inline(always)]
#[expect(clippy::indexing_slicing, reason = "a direction is RX or TX; a panic would be refused at load")]
pub(crate) unsafe fn add(
    counts: *mut SlotCounts,
    direction: usize,
    wire: Wire,
    now: u64,
    interface: u16,
    tcp_flags: u8,
) {
    // SAFETY: the caller's promise.
    unsafe {
        (*counts).bytes[direction] += wire.bytes;
        (*counts).packets[direction] += wire.packets;
        (*counts).skbs[direction] += 1;
        (*counts).last = now as u32;
        (*counts).interface = interface;
        (*counts).tcp_flags[direction] |= tcp_flags;
    }
}

/// Writes the unit's mark into its bits of the packet's mark; the other bits are others'.
#[inline(always)]
pub(crate) fn mark(skb: Skb, pu: u16) {
    if pu < index::FIRST {
        return;
    }
    let mask = MARK_MASK.load();
    let value = u32::from(pu) << MARK_SHIFT.load();
    if value & !mask == 0 {
        // SAFETY: the kernel hands the program a live context, whose mark it may write.
        unsafe { (*skb).mark = (*skb).mark & !mask | value };
    }
}

/// This CPU's counters of a processing unit.
#[inline(always)]
pub(crate) fn unit(pu: u16) -> Option<*mut PuCounters> {
    let pu = u32::from(pu);
    PUS.get(pu / PUS_PER_CHUNK)?.per_cpu_array().get_ptr_mut(pu % PUS_PER_CHUNK)
}

/// Counts a packet for its processing unit.
#[inline(always)]
#[expect(clippy::indexing_slicing, reason = "a direction is RX or TX; a panic would be refused at load")]
pub(crate) fn count_unit(pu: u16, direction: usize, wire: Wire, in_flow: bool) {
    let Some(unit) = unit(pu) else { return };
    // SAFETY: this CPU's own entry.
    unsafe {
        let counters = &raw mut (*unit).direction[direction];
        (*counters).packets += u64::from(wire.packets);
        (*counters).bytes += wire.bytes;
        (*counters).skbs += 1;
        if !in_flow {
            (*counters).flowless_packets += u64::from(wire.packets);
            (*counters).flowless_bytes += wire.bytes;
        }
    }
}

/// Layer 2, and the boundary that the frame crosses. `None` where layer 2 is not understood.
#[inline(always)]
fn layer2(skb: Skb, role: &Role, bytes: &Linear) -> Option<(Layer2, u16)> {
    let layer2 = ethernet::parse::<false>(bytes, link(role)).ok()?;
    Some((layer2, boundary(skb, role, &layer2)))
}

/// What frames on the interface start with.
#[inline(always)]
pub(crate) fn link(role: &Role) -> Link {
    if role.flags & role::RAW_IP != 0 { Link::RawIp } else { Link::Ethernet }
}

/// The boundary for the flow's key: at an uplink the VLAN id, of the tag that the kernel keeps beside the
/// frame or of the first one in it.
#[inline(always)]
pub(crate) fn boundary(skb: Skb, role: &Role, layer2: &Layer2) -> u16 {
    if role.flags & role::UPLINK != 0 {
        metadata_vlan(skb).map_or(layer2.vlan, |tag| tag & VLAN_ID)
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

/// The key of an IPv4 flow, as if the local end had sent the packet.
#[inline(always)]
pub(crate) fn key4(boundary: u16, ip: &Ipv4) -> FlowKey4 {
    let (local_port, remote_port) = ports(&ip.transport);
    let Transport { protocol, kind: ports, .. } = ip.transport;
    FlowKey4 { local: ip.source, remote: ip.destination, local_port, remote_port, boundary, protocol, ports }
}

/// The key of an IPv6 flow, as if the local end had sent the packet.
#[inline(always)]
pub(crate) fn key6(boundary: u16, ip: &Ipv6) -> FlowKey6 {
    let (local_port, remote_port) = ports(&ip.transport);
    let Transport { protocol, kind: ports, .. } = ip.transport;
    FlowKey6 { local: ip.source, remote: ip.destination, local_port, remote_port, boundary, protocol, ports }
}

/// Source and destination port, in network byte order.
#[inline(always)]
fn ports(transport: &Transport) -> (u16, u16) {
    let [s0, s1, d0, d1] = transport.ports;
    (u16::from_ne_bytes([s0, s1]), u16::from_ne_bytes([d0, d1]))
}

/// Whether the processing unit behind the boundary sent the packet: what comes in at the host-side end of a
/// container was sent by the container.
#[inline(always)]
pub(crate) fn unit_sent<const EGRESS: bool>(role: &Role) -> bool {
    EGRESS != (role.flags & role::FAR != 0)
}

/// What user space said about the interface that the packet crosses. Entry 0, which is no interface's, stands
/// for those that it said nothing about.
#[inline(always)]
pub(crate) fn role_of<const COUNT: bool>(skb: Skb) -> Option<&'static Role> {
    // SAFETY: the kernel hands the program a live context.
    let ifindex = unsafe { (*skb).ifindex };
    if let Some(role) = ROLES.get(ifindex % ROLE_ENTRIES)
        && role.ifindex == ifindex
    {
        return Some(role);
    }
    // SAFETY: only user space writes to this map; a torn role lasts for one packet.
    if let Some(role) = unsafe { ROLES_MORE.get(&ifindex) } {
        return Some(role);
    }
    if COUNT {
        ledger(|ledger| ledger.no_role += 1);
    }
    ROLES.get(0)
}

/// Changes this CPU's ledger.
#[inline(always)]
pub(crate) fn ledger(change: impl FnOnce(&mut Ledger)) {
    if let Some(ledger) = LEDGER.get_ptr_mut(0) {
        // SAFETY: this CPU's own entry, and nothing else refers to it meanwhile.
        change(unsafe { &mut *ledger });
    }
}

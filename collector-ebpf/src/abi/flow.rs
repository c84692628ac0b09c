//! Flows: their keys, the slots of the per-CPU caches, the tables behind them, and who a flow belongs to.
//!
//! A key names a flow as its boundary sees it: *local* is the side of the processing unit (behind the
//! host-side end of a container's veth, or this host at an uplink), *remote* the other. Both directions of a
//! connection have the same key, and their counts lie side by side, indexed by [`RX`] and [`TX`].

use super::layout::layout;

/// Index of what comes to the local side.
pub const RX: usize = 0;
/// Index of what the local side sends.
pub const TX: usize = 1;

/// What the two ports of a key hold. Never 0, so that no key is all zero and none equals an empty slot's.
pub mod ports {
    /// Ports of the transport protocol, or 0 where it has none.
    pub const TRANSPORT: u8 = 1;
    /// The identifier of an ICMP echo, of either IP version, in both.
    pub const ECHO: u8 = 2;
    /// Type and code of another ICMP message, of either IP version, in that order on the wire, in both.
    pub const ICMP: u8 = 3;
    /// Nothing: a fragment that is not the first of its packet shows no ports.
    pub const FRAGMENT: u8 = 4;
    /// Nothing: what stands behind the addresses was not understood. No flow has it. The protocol may be unknown, too.
    pub const UNREAD: u8 = 5;
}

/// The key of an IPv4 flow.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKey4 {
    /// The local end's address, network byte order.
    pub local: [u8; 4],
    /// The remote end's address, network byte order.
    pub remote: [u8; 4],
    /// The local end's port, network byte order; what it holds says [`ports`](Self::ports).
    pub local_port: u16,
    /// The remote end's port, network byte order; what it holds says [`ports`](Self::ports).
    pub remote_port: u16,
    /// Below 4096 the VLAN id at an uplink (0: untagged); from there an index that user space allots.
    pub boundary: u16,
    /// The IP protocol number, behind the extension headers.
    pub protocol: u8,
    /// What the two ports hold: one of [`ports`](mod@ports).
    pub ports: u8,
}

layout!(FlowKey4, 16, {
    local: 0, remote: 4, local_port: 8, remote_port: 10, boundary: 12, protocol: 14, ports: 15,
});

/// The key of an IPv6 flow; fields as in [`FlowKey4`].
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKey6 {
    /// The local end's address, network byte order.
    pub local: [u8; 16],
    /// The remote end's address, network byte order.
    pub remote: [u8; 16],
    /// The local end's port, network byte order.
    pub local_port: u16,
    /// The remote end's port, network byte order.
    pub remote_port: u16,
    /// The VLAN id at an uplink, or an index from 4096 on.
    pub boundary: u16,
    /// The IP protocol number, behind the extension headers.
    pub protocol: u8,
    /// What the two ports hold: one of [`ports`](mod@ports).
    pub ports: u8,
}

layout!(FlowKey6, 40, {
    local: 0, remote: 16, local_port: 32, remote_port: 34, boundary: 36, protocol: 38, ports: 39,
});

/// The first boundary index that is not a VLAN id.
pub const FIRST_BOUNDARY: u16 = 4096;
/// The boundary of flows on the loopback device: one of those that are not VLAN ids, and no other interface's.
pub const LOOPBACK_BOUNDARY: u16 = FIRST_BOUNDARY;

/// What was counted in one direction.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotAmounts {
    /// Wire octets (L2, without FCS) in the lower 48 bits, which they cannot fill: see [`octets`](Self::octets).
    pub bytes: u64,
    /// Wire packets.
    pub packets: u32,
    /// Socket buffers: a super-packet of 40 segments is one of them.
    pub skbs: u32,
}

layout!(SlotAmounts, 16, { bytes: 0, packets: 8, skbs: 12 });

impl SlotAmounts {
    /// Bits of [`bytes`](Self::bytes) that count. [`FLUSH_AT`] packets would have to be of 128 KiB each to fill them.
    const OCTET_BITS: u32 = 48;

    /// Wire octets (L2, without FCS).
    #[inline(always)]
    pub const fn octets(&self) -> u64 {
        self.bytes & ((1 << Self::OCTET_BITS) - 1)
    }
}

/// What a cache slot counts for its flow since the slot was filled, at most one epoch ago.
///
/// Touched by one CPU only, with softirqs off. The 32-bit counts cannot wrap: a slot is flushed to the table
/// when one of them reaches [`FLUSH_AT`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotCounts {
    /// By direction.
    pub amounts: [SlotAmounts; 2],
    /// Low 32 bits of `jiffies64` at the first packet counted here.
    pub first: u32,
    /// Low 32 bits of `jiffies64` at the last packet counted here.
    pub last: u32,
    /// Index of the processing unit that the flow belongs to.
    pub pu: u16,
    /// The number user space gave to the interface that the last packet crossed.
    pub interface: u16,
    /// TCP flags seen, joined by OR, by direction.
    pub tcp_flags: [u8; 2],
    /// Connections that began while the flow was in this slot.
    pub begun: u8,
    /// Bits of [`how`].
    pub how: u8,
}

layout!(SlotCounts, 48, {
    amounts: 0, first: 32, last: 36, pu: 40, interface: 42, tcp_flags: 44, begun: 46, how: 47,
});

impl SlotCounts {
    /// Nothing is counted here: the slot is nobody's.
    #[inline(always)]
    pub const fn is_empty(&self) -> bool {
        self.amounts[RX].skbs | self.amounts[TX].skbs == 0
    }

    /// Index of the unit at the flow's other end on this host, as in [`Identity::host_pu`]: the upper bits of what was
    /// received, for a slot has no other room, and what only adds to the lower ones never touches them.
    #[inline(always)]
    pub const fn host_pu(&self) -> u16 {
        (self.amounts[RX].bytes >> SlotAmounts::OCTET_BITS) as u16
    }

    /// Writes that index.
    #[inline(always)]
    pub const fn set_host_pu(&mut self, pu: u16) {
        self.amounts[RX].bytes = self.amounts[RX].octets() | (pu as u64) << SlotAmounts::OCTET_BITS;
    }

    /// The [number](super::policy::verdict::NUMBER) of the verdict that the packets passed by: the upper bits of what was
    /// sent.
    #[inline(always)]
    pub const fn verdict(&self) -> u16 {
        (self.amounts[TX].bytes >> SlotAmounts::OCTET_BITS) as u16
    }

    /// Writes that number.
    #[inline(always)]
    pub const fn set_verdict(&mut self, number: u16) {
        self.amounts[TX].bytes = self.amounts[TX].octets() | (number as u64) << SlotAmounts::OCTET_BITS;
    }
}

/// A slot whose packet count has reached this is flushed before the next packet.
pub const FLUSH_AT: u32 = 1 << 31;

/// How a flow's initiator and processing unit were found: the bits of `how`.
pub mod how {
    /// The local end opened the flow; else the remote end did.
    pub const LOCAL_INITIATED: u8 = 1;
    /// One end is a socket of this host, beside the boundary's unit: of a container's flow the other end, of an
    /// overlay's the local one.
    pub const HOST_END: u8 = 1 << 1;

    /// Where the initiator's evidence lies.
    pub const INITIATOR_SHIFT: u8 = 2;
    /// The mask of the initiator's evidence, shifted down.
    pub const INITIATOR_MASK: u8 = 3;
    /// The sender of the first packet that was seen.
    pub const BY_FIRST_PACKET: u8 = 0;
    /// A TCP SYN (its sender) or SYN-ACK (its receiver).
    pub const BY_SYN: u8 = 1;
    /// An ICMP echo request (its sender) or reply (its receiver).
    pub const BY_ECHO: u8 = 2;
    /// A socket of this host that listens where a TCP connection was met whose beginning nobody saw.
    pub const BY_LISTENER: u8 = 3;

    /// The unit is a guess until a packet goes the other way: what came in may have been translated (NAT) to
    /// somebody else, or be for an interface of another namespace above this one (macvlan). The programs have not counted the
    /// flow's packets for any unit; user space does, once it is decided.
    pub const PROVISIONAL: u8 = 1 << 4;

    /// Where the attribution's method lies.
    pub const ATTRIBUTION_SHIFT: u8 = 5;
    /// The mask of the attribution's method, shifted down.
    pub const ATTRIBUTION_MASK: u8 = 7;
    /// By nothing: what is left.
    pub const BY_NONE: u8 = 0;
    /// By a declared interface.
    pub const BY_INTERFACE: u8 = 1;
    /// By what is declared of the end itself: the address, or the port of this host's.
    pub const BY_CIDR: u8 = 2;
    /// By an address of this host's.
    pub const BY_ADDRESS: u8 = 3;
    /// By the interface that the packet came in by before it left here.
    pub const BY_ROUTE: u8 = 4;
    /// By the host-side end that the packet crossed.
    pub const BY_VETH: u8 = 5;
    /// By a socket of this host: that there is one, the control group (cgroup v2) that it was made in, or its user.
    pub const BY_SOCKET: u8 = 6;
    /// By nothing: it came to an address of this host's where no socket waits for it, and nobody answered.
    pub const BY_SILENCE: u8 = 7;

    /// The initiator's evidence in `how`.
    #[inline(always)]
    pub const fn initiator_by(how: u8) -> u8 {
        how >> INITIATOR_SHIFT & INITIATOR_MASK
    }

    /// The attribution's method in `how`.
    #[inline(always)]
    pub const fn attributed_by(how: u8) -> u8 {
        how >> ATTRIBUTION_SHIFT & ATTRIBUTION_MASK
    }
}

/// A slot of the IPv4 cache: one cache line. Empty while its counts are.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot4 {
    /// The flow that holds the slot.
    pub key: FlowKey4,
    /// What was counted for it.
    pub counts: SlotCounts,
}

layout!(Slot4, 64, { key: 0, counts: 16 });

/// A slot of the IPv6 cache: two cache lines. Empty while its counts are.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot6 {
    /// The flow that holds the slot.
    pub key: FlowKey6,
    /// What was counted for it.
    pub counts: SlotCounts,
    /// Keeps slots on cache-line boundaries.
    pub _pad: [u8; 40],
}

layout!(Slot6, 128, { key: 0, counts: 40, _pad: 88 });

/// What else tells the counts of a flow and unit apart, in a table's key: whether the unit was
/// [provisional](how::PROVISIONAL), and the unit at the other end on this host ([`Identity::host_pu`]).
#[inline(always)]
pub const fn rest_of(how: u8, host_pu: u16) -> u16 {
    host_pu << 1 | (how & how::PROVISIONAL != 0) as u16
}

/// The unit at the other end that [`rest_of`] was told: an index has no more than 14 bits.
#[inline(always)]
pub const fn host_pu_of(rest: u16) -> u16 {
    rest >> 1
}

/// The key of the table behind the IPv4 caches. The CPU is part of it: an entry is written by one CPU only,
/// so that nothing but its additions has to be atomic (and those on `PREEMPT_RT` only).
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TableKey4 {
    /// The flow.
    pub flow: FlowKey4,
    /// The CPU whose cache gave the counts up. The kernel has at most 8,192 of them (`NR_CPUS`).
    pub cpu: u16,
    /// The [number](super::policy::verdict::NUMBER) of the verdict that the packets passed by, or were rejected by.
    pub verdict: u16,
    /// Index of the processing unit that the packets were counted for: a flow may change its unit.
    pub pu: u16,
    /// What [`rest_of`] says: counts of which that differs are not added up.
    pub rest: u16,
}

layout!(TableKey4, 24, { flow: 0, cpu: 16, verdict: 18, pu: 20, rest: 22 });

/// The key of the table behind the IPv6 caches; fields as in [`TableKey4`].
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TableKey6 {
    /// The flow.
    pub flow: FlowKey6,
    /// The CPU whose cache gave the counts up.
    pub cpu: u16,
    /// The number of the verdict, as in [`TableKey4`].
    pub verdict: u16,
    /// Index of the processing unit that the packets were counted for.
    pub pu: u16,
    /// What [`rest_of`] says: counts of which that differs are not added up.
    pub rest: u16,
}

layout!(TableKey6, 48, { flow: 0, cpu: 40, verdict: 42, pu: 44, rest: 46 });

/// What a table counts for a flow and a CPU in one epoch.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableCounts {
    /// Wire octets (L2, without FCS), by direction.
    pub bytes: [u64; 2],
    /// Wire packets, by direction.
    pub packets: [u64; 2],
    /// Socket buffers, by direction.
    pub skbs: [u64; 2],
    /// Connections that began.
    pub begun: u64,
    /// Low 32 bits of `jiffies64` at the first packet.
    pub first: u32,
    /// Low 32 bits of `jiffies64` at the last packet.
    pub last: u32,
    /// The number of the interface that the last packet crossed.
    pub interface: u16,
    /// TCP flags seen, joined by OR, by direction.
    pub tcp_flags: [u8; 2],
    /// Bits of [`how`].
    pub how: u8,
    /// Zero.
    pub _pad: [u8; 3],
    /// Wire packets that a policy rejected and the programs dropped, by direction: of these the ones that came in by the
    /// interface are among [`packets`](Self::packets), too.
    pub rejected: [u64; 2],
}

layout!(TableCounts, 88, {
    bytes: 0, packets: 16, skbs: 32, begun: 48, first: 56, last: 60, interface: 64, tcp_flags: 66, how: 68, _pad: 69,
    rejected: 72,
});

/// Who a flow belongs to and how it began: lives as long as the flow, is read at a cache miss.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// `CLOCK_BOOTTIME` in nanoseconds at the flow's first packet.
    pub first_ns: u64,
    /// FINs seen from each side, in bits 0-7 ([`RX`]) and 8-15 ([`TX`]). Only ever added to, so that two CPUs
    /// that see the two sides at once cannot undo each other.
    pub fins: u64,
    /// The configuration generation that the processing unit was found under.
    pub generation: u32,
    /// The swap that began the epoch in which it was written, or it was asked last whose it is; tells a newcomer that is alive in
    /// a later one.
    pub swap: u32,
    /// Index of the processing unit.
    pub pu: u16,
    /// Bits of [`how`].
    pub how: u8,
    /// 1 once an end of the TCP connection was reported.
    pub ended: u8,
    /// 1 while the identity lies in the LRU hash of newcomers.
    pub newcomer: u8,
    /// 1 once a packet that leaves this host has shown where the flow's own packets come from.
    pub decided: u8,
    /// Index of the unit at the other end where that is a socket of this host: of a container's or an overlay's flow with
    /// [`HOST_END`](how::HOST_END) the host's end, of a loopback flow the remote one. 0 where there is none, or it was not
    /// asked for: programs that know no control groups leave that to user space.
    pub host_pu: u16,
    /// The policy sets that [`verdict`](Self::verdict) was found under, of the unit and of the unit at the other end; 0
    /// where that has none. Another set of a unit's by now makes the verdict stale.
    pub sets: [u32; 2],
    /// What the policies say of the flow: a [verdict](super::policy::verdict).
    pub verdict: u32,
    /// Who owns the socket at the local end: its user id as the host has it (in the initial user namespace) and 1, so that 0
    /// is nobody whose id is known. Found at the first packet that shows a socket of that end.
    pub user: u32,
}

layout!(Identity, 48, {
    first_ns: 0, fins: 8, generation: 16, swap: 20, pu: 24, how: 26, ended: 27, newcomer: 28, decided: 29, host_pu: 30,
    sets: 32, verdict: 40, user: 44,
});

#[cfg(test)]
mod tests;

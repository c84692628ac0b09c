//! Cumulative counters: per processing unit, and the datapath's own (the ledger). Both are per CPU and only
//! grow.

use super::layout::layout;

/// What a processing unit sent or received.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectionCounters {
    /// Wire packets.
    pub packets: u64,
    /// Wire octets (L2, without FCS).
    pub bytes: u64,
    /// Socket buffers.
    pub skbs: u64,
}

layout!(DirectionCounters, 24, { packets: 0, bytes: 8, skbs: 16 });

/// A CPU's counters of one processing unit.
///
/// What a flow holds is not counted a second time: the unit's total is what its flows hold, which user space adds up as
/// it drains them, and what stands here.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PuCounters {
    /// What crossed the unit's boundary and no flow holds, by direction (`RX`, `TX`): frames that were not parsed, flows
    /// for which there was no room or no budget.
    pub flowless: [DirectionCounters; 2],
    /// What the unit's sockets on this host exchanged without crossing an uplink, by direction. Here: what loopback
    /// carried. The rest (the host's end of a container's flow) user space takes from the flows.
    pub local: [DirectionCounters; 2],
    /// Flows that began.
    pub flows: u64,
    /// Packets of flows that were refused an entry because the unit's budget of new flows was spent; not those of flows inside of
    /// tunnels.
    pub rate_limited: u64,
    /// New flows that the budget still allows on this CPU, in 1,024ths.
    pub budget: u32,
    /// Low 32 bits of `jiffies64` when the budget was last refilled; 0 if it never was.
    pub refilled: u32,
    /// Records of the unit's flows that found no room, or none in the unit's share.
    pub reserve_failed: u64,
    /// What it has in the ring, or in this CPU's buffer.
    pub waiting: Waiting,
    /// Of its packets that are traced, those that are still to be left out on this CPU before the next is reported.
    pub left_out: u32,
    #[doc(hidden)]
    pub _pad: u32,
    /// Wire packets that the unit's own policies rejected and the programs dropped, by direction as the unit sees it. Those
    /// that came in by their interface are in the counts of what crossed the unit's boundary, too; those that were about to
    /// leave by it never did.
    pub rejected: [u64; 2],
    /// Socket buffers of flows of the unit's that found no room in a table: they are in `flowless`.
    pub table_full: u64,
    /// Of its packets that are traced, those whose record found no room.
    pub output_failed: u64,
    /// What it has of packets that are traced in the ring, or in this CPU's buffer.
    pub waiting_packets: Waiting,
    /// Socket buffers of tunnels for whose flow inside, which is the unit's, there was no room or no budget.
    pub inner_lost: u64,
}

layout!(PuCounters, 224, {
    flowless: 0, local: 48, flows: 96, rate_limited: 104, budget: 112, refilled: 116, reserve_failed: 120, waiting: 128,
    left_out: 152, _pad: 156, rejected: 160, table_full: 176, output_failed: 184,
    waiting_packets: 192, inner_lost: 216,
});

/// A budget of new flows, in 1,024ths: a tick may bring less than one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// What is left of it.
    pub left: u32,
    /// Low 32 bits of `jiffies64` when it was last refilled; 0 if it never was.
    pub refilled: u32,
}

/// What one flow takes of its unit's budget.
pub const ONE_FLOW: u32 = 1024;

impl Budget {
    /// The budget at the tick `now`, which brings `per_tick` for each since; the first time it is full. More than `most` is
    /// not saved up.
    ///
    /// Ticks begin five minutes before their low 32 bits are 0 (`INITIAL_JIFFIES`, include/linux/jiffies.h), so what they
    /// are says nothing of how long they have run.
    #[must_use]
    #[inline(always)]
    pub const fn refill(self, now: u64, per_tick: u32, most: u32) -> Self {
        // 0 is taken.
        let now = if now as u32 == 0 { 1 } else { now as u32 };
        if self.refilled == 0 {
            return Self { left: most, refilled: now };
        }
        let elapsed = now.wrapping_sub(self.refilled) as u64;
        let gained = elapsed * per_tick as u64 + self.left as u64;
        Self { left: if gained < most as u64 { gained as u32 } else { most }, refilled: now }
    }
}

/// The octets that a unit has written to a ring, or to the buffer of its CPU, on a CPU and that may not have been read yet.
///
/// They are counted in two parts: those written before the ring had come to a position, and those since. When the reader has
/// come there too, the former have been read.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// The position, in octets ever written.
    pub from: u64,
    /// Where the ring stood when the last of them was written: once that has been read, all have.
    pub last: u64,
    /// Octets of records before it.
    pub before: u32,
    /// Octets of those from there on.
    pub since: u32,
}

layout!(Waiting, 24, { from: 0, last: 8, before: 16, since: 20 });

/// Processing units in one chunk of counters; chunks are inner maps, so this is fixed.
pub const PUS_PER_CHUNK: u32 = 256;
/// Chunks there can be.
pub const PU_CHUNKS: u32 = 64;

/// Why a frame was not parsed: the index into [`Ledger::unparsed`].
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unparsed {
    /// The frame, or the packet by its own length, ends before a header that it announces.
    Truncated,
    /// IEEE 802.3 with a length field and LLC, other than SNAP with an Ethertype.
    Llc,
    /// ARP or RARP.
    Arp,
    /// An Ethertype that is none of IPv4, IPv6, ARP.
    EtherType,
    /// More VLAN tags than are followed.
    VlanDepth,
    /// A packet of a PPPoE session that is no IP packet.
    PppPayload,
    /// More MPLS labels than are followed.
    MplsDepth,
    /// What lies behind the MPLS labels is no IP packet.
    MplsPayload,
    /// A version other than the Ethertype's.
    IpVersion,
    /// An IPv4 header length below 20 octets, or beyond the packet.
    Ipv4HeaderLength,
    /// A length shorter than the IP header, or longer than the frame; in a jumbogram also one below 65,536
    /// octets.
    IpLength,
    /// More IPv6 extension headers than are followed, or IPv4 authentication headers.
    ExtensionDepth,
    /// A TCP data offset below 20 octets, or beyond the packet.
    TcpDataOffset,
    /// A UDP length below 8 octets, or beyond the packet.
    UdpLength,
    /// A checksum coverage of UDP-Lite below 8 octets, or beyond the packet.
    ChecksumCoverage,
}

/// How many reasons there are.
pub const UNPARSED_REASONS: usize = 15;

impl Unparsed {
    /// All reasons, in the order of the index.
    pub const ALL: [Self; UNPARSED_REASONS] = [
        Self::Truncated,
        Self::Llc,
        Self::Arp,
        Self::EtherType,
        Self::VlanDepth,
        Self::PppPayload,
        Self::MplsDepth,
        Self::MplsPayload,
        Self::IpVersion,
        Self::Ipv4HeaderLength,
        Self::IpLength,
        Self::ExtensionDepth,
        Self::TcpDataOffset,
        Self::UdpLength,
        Self::ChecksumCoverage,
    ];

    /// Whether the frame breaks the rules of its own protocol. What is another one's, or nested deeper than is followed, does
    /// not.
    pub const fn is_malformed(self) -> bool {
        match self {
            Self::Truncated
            | Self::IpVersion
            | Self::Ipv4HeaderLength
            | Self::IpLength
            | Self::TcpDataOffset
            | Self::UdpLength
            | Self::ChecksumCoverage => true,
            Self::Llc
            | Self::Arp
            | Self::EtherType
            | Self::VlanDepth
            | Self::PppPayload
            | Self::MplsDepth
            | Self::MplsPayload
            | Self::ExtensionDepth => false,
        }
    }

    /// The name that the ledger prints.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Llc => "llc",
            Self::Arp => "arp",
            Self::EtherType => "ethertype",
            Self::VlanDepth => "vlan_depth",
            Self::PppPayload => "ppp_payload",
            Self::MplsDepth => "mpls_depth",
            Self::MplsPayload => "mpls_payload",
            Self::IpVersion => "ip_version",
            Self::Ipv4HeaderLength => "ipv4_header_length",
            Self::IpLength => "ip_length",
            Self::ExtensionDepth => "extension_depth",
            Self::TcpDataOffset => "tcp_data_offset",
            Self::UdpLength => "udp_length",
            Self::ChecksumCoverage => "checksum_coverage",
        }
    }
}

/// What became of every socket buffer that a CPU's programs were run on, and of every record they wrote.
///
/// `seen = looped + second_pass + the sum of unparsed + table_full + rate_limited + rejected + the buffers of all drained
/// flows`, at any quiet moment: the last term is counted by user space, apart from these.
///
/// Of the packets that are traced, `traced = filtered + sampled + output_failed + those written`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Buffers that a program looked at while its lease ran.
    pub seen: u64,
    /// Own multicast that came back at the ingress of the interface it left by, and what loopback delivers: counted when
    /// it was sent.
    pub looped: u64,
    /// Buffers that leave an interface for the second time, behind an ifb: counted the first time.
    pub second_pass: u64,
    /// Buffers whose flow lost its slot and found no room in a full flow table: in the totals of their unit,
    /// in no flow.
    pub table_full: u64,
    /// Buffers of new flows beyond the budget of their unit: in its totals, in no flow.
    pub rate_limited: u64,
    /// Records of events that found no room.
    pub reserve_failed: u64,
    /// Records of events written.
    pub reported: u64,
    /// Flows whose identity found no room among the long-lived: they stay where a flood of newcomers can
    /// evict them.
    pub identity_full: u64,
    /// Buffers on an interface that user space has said nothing about.
    pub no_role: u64,
    /// Buffers with a later fragment whose first one was not seen before it: in a flow without ports.
    pub orphan_fragments: u64,
    /// Buffers of tunnels whose inside was wanted, which are not part of the sum above: in a flow inside, or in one of the
    /// two that follow.
    pub inner_seen: u64,
    /// Those whose inside is no packet that is understood.
    pub inner_unparsed: u64,
    /// Those for whose flow inside there was no room or no budget.
    pub inner_lost: u64,
    /// Buffers that were counted and whose unit is traced.
    pub traced: u64,
    /// Those that a filter left out.
    pub filtered: u64,
    /// Those that sampling left out.
    pub sampled: u64,
    /// Those whose record found no room in the buffer of its CPU, or no buffer.
    pub output_failed: u64,
    /// Flows of control groups that nobody knew and for which no index was left: they are the host's until somebody knows.
    pub units_exhausted: u64,
    /// Buffers that a policy rejected as they were about to leave by an interface, which therefore does not count them: nor
    /// do flows and units as sent. (What a policy rejects as it comes in is counted, as the interface has it.)
    pub rejected: u64,
    /// Buffers not parsed, by reason ([`Unparsed`]).
    pub unparsed: [u64; UNPARSED_REASONS],
}

layout!(Ledger, 272, {
    seen: 0, looped: 8, second_pass: 16, table_full: 24, rate_limited: 32, reserve_failed: 40, reported: 48,
    identity_full: 56, no_role: 64, orphan_fragments: 72, inner_seen: 80, inner_unparsed: 88, inner_lost: 96, traced: 104,
    filtered: 112, sampled: 120, output_failed: 128, units_exhausted: 136, rejected: 144, unparsed: 152,
});

/// How far a CPU has filled a table in the current epoch.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fill {
    /// The swap that began the epoch which was counted.
    pub swap: u64,
    /// Entries that this CPU has added in it.
    pub entries: u64,
}

layout!(Fill, 16, { swap: 0, entries: 8 });

#[cfg(test)]
mod tests {
    use super::{Budget, PU_CHUNKS, PUS_PER_CHUNK, UNPARSED_REASONS, Unparsed};

    #[test]
    fn a_budget_is_full_at_first_whatever_the_tick() {
        for now in [0, 1, 250, u64::from(u32::MAX), 1 << 32, (1 << 32) + 7] {
            let first = Budget { left: 0, refilled: 0 }.refill(now, 3, 64);
            assert_eq!(first.left, 64, "{now}");
            let spent = Budget { left: 10, ..first };
            assert_eq!(spent.refill(now, 3, 64).left, 10, "no tick has passed since {now}");
            // From 0 to 1 none passes, for 0 is taken.
            let passed = if now as u32 == 0 { 4 } else { 5 };
            assert_eq!(spent.refill(now + 5, 3, 64).left, 10 + passed * 3, "{now}");
            assert_eq!(spent.refill(now + 1000, 3, 64).left, 64, "{now}");
        }
    }

    #[test]
    fn reasons_are_their_own_index() {
        for (index, reason) in Unparsed::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
        }
        assert_eq!(Unparsed::ALL.len(), UNPARSED_REASONS);
    }

    #[test]
    fn reasons_have_names_of_their_own() {
        for (index, reason) in Unparsed::ALL.iter().enumerate() {
            let name = reason.name();
            assert!(
                name.bytes().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'_'),
                "{name}"
            );
            assert!(Unparsed::ALL[..index].iter().all(|it| it.name() != name), "{name} twice");
        }
    }

    #[test]
    fn every_mark_has_a_place() {
        // Bits 18 to 31 of a packet's mark, as in the original.
        assert_eq!(PUS_PER_CHUNK * PU_CHUNKS, 1 << 14);
    }
}
